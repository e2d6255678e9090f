"""
A ring in a snapshot: immutable slabs that are stored once, and a state that is stored each time.

Rule of the file: a slab with the same name has the same bytes, so it is stored once. Its name is
its number and its edition, which counts how often its rows have moved. The index is not stored,
because it is made from the rows. So a ring is neither a `Struct` nor `Packed`: it is made again
from its form and all its slabs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.join.ring import CAPACITY_MIN, SLAB_ROWS, Ring
from stream_monitor.state import decode, encode

PART = "slab"
"""Prefix of the names of parts that contain a slab."""


Columns = dict[str, NDArray[Any]]


class RingForm(msgspec.Struct):
    """What a snapshot has of a ring besides its full slabs."""

    tail: int
    head: int
    editions: dict[int, int]
    open: Columns
    """All columns of the rows after the last full slab."""
    mutable: Columns
    """The mutable columns of the rows in full slabs."""


def form_of(ring: Ring) -> RingForm:
    """A ring in a snapshot, without its full slabs."""
    start = max(ring.head // SLAB_ROWS * SLAB_ROWS, ring.tail)
    return RingForm(
        tail=ring.tail,
        head=ring.head,
        editions=ring.editions,
        open={name: ring.rows(name, start, ring.head) for name in ring.dtypes},
        mutable={name: ring.rows(name, ring.tail, start) for name in ring.mutable},
    )


def full_slabs(ring: Ring) -> dict[int, tuple[int, int]]:
    """Full slabs that still have living rows: number to (start, end)."""
    return {
        k: (k * SLAB_ROWS, (k + 1) * SLAB_ROWS)
        for k in range(ring.tail // SLAB_ROWS, ring.head // SLAB_ROWS)
    }


def slab(ring: Ring, start: int, end: int) -> Columns:
    """The immutable columns of a full slab; rows that are forgotten already are zeros."""
    first = max(start, ring.tail)
    out: Columns = {}
    for name, dtype in ring.dtypes.items():
        if name not in ring.mutable:
            values = np.zeros(end - start, dtype)
            values[first - start :] = ring.rows(name, first, end)
            out[name] = values
    return out


def parts_of(ring_name: str, ring: Ring, known: Container[str]) -> dict[str, bytes | None]:
    """The full slabs of a ring by name of the part; None for those that are stored already."""
    parts: dict[str, bytes | None] = {}
    for k, (start, end) in full_slabs(ring).items():
        name = f"{PART}-{ring_name}-{k:09}.{ring.editions.get(k, 0)}"
        parts[name] = None if name in known else encode(slab(ring, start, end))
    return parts


def slabs_of(parts: Mapping[str, bytes]) -> dict[str, dict[int, Columns]]:
    """The slabs among the parts of a snapshot, by name of the ring and number."""
    slabs: dict[str, dict[int, Columns]] = {}
    for part, data in parts.items():
        if part.startswith(f"{PART}-"):
            _, ring_name, k = part.split("-")
            number = int(k.partition(".")[0])
            slabs.setdefault(ring_name, {})[number] = decode(data, Columns)
    return slabs


def restored(
    form: RingForm,
    slabs: Mapping[int, Columns],
    mutable: tuple[str, ...],
    rows_max: int | None = None,
) -> Ring:
    """The ring of a snapshot; `slabs` as `slab` gave them, by number."""
    dtypes = {name: column.dtype.str for name, column in form.open.items() if name != "id"}
    ring = Ring(dtypes, mutable, rows_max)
    ring.tail, ring.head, ring.editions = form.tail, form.head, form.editions
    for name, column in form.open.items():
        parts = [column]
        if name in mutable:
            parts.insert(0, form.mutable[name])
        else:
            for k, columns in sorted(slabs.items(), reverse=True):
                if name in columns:
                    values = columns[name]
                else:  # a column that came later than this slab
                    values = np.full(SLAB_ROWS, np.nan, column.dtype)
                parts.insert(0, values[max(ring.tail - k * SLAB_ROWS, 0) :])
        whole = np.concatenate(parts)
        if len(whole) != len(ring):
            raise ValueError(f"{len(ring)} rows have {len(whole)} values of {name}")
        capacity = max(CAPACITY_MIN, len(whole))
        # A row keeps its sequence number, and so its place: the number modulo the capacity.
        ring.column[name] = np.zeros(capacity, column.dtype)
        ring.column[name][np.arange(ring.tail, ring.head) % capacity] = whole
    ring.reindex()
    return ring
