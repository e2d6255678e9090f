"""
Sorts events by their time.

Rule of the file: `RUN_EVENTS` limits the memory. The order is (time, predictions before labels,
order in the file), and it is total: the same files give the same order.
"""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import IO

Event = tuple[str, bytes, bytes, int]
"""(kind, value, key, time in ms); kind is `predictions` or `labels`."""

RUN_EVENTS = 100_000
READ_BYTES = 1 << 17
_HEAD = struct.Struct("<?qII")


def order(event: Event) -> tuple[int, bool]:
    """Sort key; sorting is stable, so the order of the file is kept."""
    return event[3], event[0] == "labels"


def merge(predictions: Iterable[Event], labels: Iterable[Event]) -> Generator[Event]:
    """Merge two streams that are each in order."""
    rest = iter(labels)
    label = next(rest, None)
    for event in predictions:
        while label is not None and label[3] < event[3]:
            yield label
            label = next(rest, None)
        yield event
    if label is not None:
        yield label
        yield from rest


def in_order(events: Iterable[Event]) -> Iterator[Event]:
    """
    Sort any number of events: runs of `RUN_EVENTS` are sorted in memory and wait in a temporary
    file.
    """
    rest = iter(events)
    run = sorted(islice(rest, RUN_EVENTS), key=order)
    following = next(rest, None)
    if following is None:
        yield from run
        return
    with tempfile.TemporaryFile() as spill:
        bounds = [_write(spill, run)]
        while following is not None:
            run = sorted([following, *islice(rest, RUN_EVENTS - 1)], key=order)
            bounds.append(_write(spill, run))
            following = next(rest, None)
        del run
        yield from heapq.merge(*(_read(spill, start, stop) for start, stop in bounds), key=order)


def _write(spill: IO[bytes], run: Iterable[Event]) -> tuple[int, int]:
    start = spill.tell()
    for kind, value, key, time_ms in run:
        spill.write(_HEAD.pack(kind == "labels", time_ms, len(key), len(value)) + key + value)
    return start, spill.tell()


def _read(spill: IO[bytes], start: int, stop: int) -> Iterator[Event]:
    """Events of one run, a block at a time; the runs share the file and its position."""
    block, at = b"", 0
    while start < stop or at < len(block):
        while True:
            have = len(block) - at
            if have >= _HEAD.size:
                is_label, time_ms, key_bytes, value_bytes = _HEAD.unpack_from(block, at)
                size = _HEAD.size + key_bytes + value_bytes
                if have >= size:
                    break
            spill.seek(start)
            more = spill.read(min(READ_BYTES, stop - start))
            start += len(more)
            block, at = block[at:] + more, 0
        key_at = at + _HEAD.size
        value_at = key_at + key_bytes
        yield (
            "labels" if is_label else "predictions",
            block[value_at : at + size],
            block[key_at:value_at],
            time_ms,
        )
        at += size
