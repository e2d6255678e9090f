"""
A ring in a snapshot: immutable segments that are stored once, and a state that is stored each time.

Rule of the file: a segment is the same bytes for as long as its name is the same (its number, and
its edition, which counts how often its rows have moved), so that what is stored already need not be
stored again. The index is not kept: it is made from the rows.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import msgspec
import numpy as np

from stream_monitor.join.ring import CAPACITY_MIN, SEGMENT_ROWS, Ring

PART = "segment"
"""How the names of parts with a segment begin."""


def state_of(ring: Ring) -> dict[str, Any]:
    """Everything that is not in a full segment: bounds, the open segment, the mutable columns."""
    open_start = max(ring.head // SEGMENT_ROWS * SEGMENT_ROWS, ring.tail)
    return {
        "tail": ring.tail,
        "head": ring.head,
        "editions": ring.editions,
        "dtypes": ring.dtypes,
        "open": {name: ring.rows(name, open_start, ring.head).tobytes() for name in ring.dtypes},
        "mutable": {
            name: ring.rows(name, ring.tail, open_start).tobytes() for name in ring.mutable
        },
    }


def full_segments(ring: Ring) -> dict[int, tuple[int, int]]:
    """Full segments that still have living rows: number to (start, end)."""
    return {
        k: (k * SEGMENT_ROWS, (k + 1) * SEGMENT_ROWS)
        for k in range(ring.tail // SEGMENT_ROWS, ring.head // SEGMENT_ROWS)
    }


def segment(ring: Ring, start: int, end: int) -> dict[str, bytes]:
    """The immutable columns of a full segment; rows that are forgotten already are zeros."""
    first = max(start, ring.tail)
    out = {}
    for name, dtype in ring.dtypes.items():
        if name not in ring.mutable:
            values = np.zeros(end - start, dtype)
            values[first - start :] = ring.rows(name, first, end)
            out[name] = values.tobytes()
    return out


def parts_of(ring_name: str, ring: Ring, known: Container[str]) -> dict[str, bytes | None]:
    """The full segments of a ring by name of the part; None for those that are stored already."""
    parts: dict[str, bytes | None] = {}
    for k, (start, end) in full_segments(ring).items():
        name = f"{PART}-{ring_name}-{k:09}.{ring.editions.get(k, 0)}"
        parts[name] = None if name in known else msgspec.msgpack.encode(segment(ring, start, end))
    return parts


def segments_of(parts: Mapping[str, bytes]) -> dict[str, dict[int, dict[str, bytes]]]:
    """The segments among the parts of a snapshot, by name of the ring and number."""
    segments: dict[str, dict[int, dict[str, bytes]]] = {}
    for part, data in parts.items():
        if part.startswith(f"{PART}-"):
            _, ring_name, k = part.split("-")
            number = int(k.partition(".")[0])
            segments.setdefault(ring_name, {})[number] = msgspec.msgpack.decode(data)
    return segments


def restored(
    state: Mapping[str, Any],
    segments: Mapping[int, Mapping[str, bytes]],
    mutable: tuple[str, ...],
    rows_max: int | None = None,
) -> Ring:
    """The ring of a snapshot; `segments` as `segment` gave them, by number."""
    dtypes: dict[str, str] = dict(state["dtypes"])
    dtypes.pop("id")
    ring = Ring(dtypes, mutable, rows_max)
    ring.tail = ring.head = state["tail"]
    ring.editions = {int(k): n for k, n in state["editions"].items()}
    open_start = max(state["head"] // SEGMENT_ROWS * SEGMENT_ROWS, state["tail"])
    for name, dtype in ring.dtypes.items():
        parts = [np.frombuffer(state["open"][name], dtype)]
        if name in mutable:
            parts.insert(0, np.frombuffer(state["mutable"][name], dtype))
        else:
            for k, columns in sorted(segments.items(), reverse=True):
                values = (
                    np.frombuffer(columns[name], dtype)
                    if name in columns
                    # a column that came later than this segment
                    else np.full(SEGMENT_ROWS, np.nan, dtype)
                )
                parts.insert(0, values[max(ring.tail - k * SEGMENT_ROWS, 0) :])
        column = np.concatenate(parts)
        capacity = max(CAPACITY_MIN, len(column))
        # A row keeps its sequence number, and so its place: the number modulo the capacity.
        ring.column[name] = np.zeros(capacity, dtype)
        ring.column[name][np.arange(ring.tail, ring.tail + len(column)) % capacity] = column
    ring.head = state["head"]
    assert ring.head - ring.tail <= len(ring.column["id"]) and open_start <= ring.head  # noqa: PT018
    ring.reindex()
    return ring
