"""
Where rows came from: one number a row, and what it says to people.

Rule of the file: pure functions. A number is that of the source (of a label, its partition), and
the offset in its low bits. An id of an event is not here: of ids the log has hashes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_monitor.arrays import Int

OFFSET_BITS = 47
"""Of 2^47 records a partition, a thousand a microsecond would take four years."""
UNKNOWN = -1
NO_ORIGINS: Int = np.empty(0, np.int64)


def origins(sources: Int, offsets: Int) -> Int:
    """
    The numbers of rows.

    >>> found = origins(np.array([0, 3]), np.array([5, 70]))
    >>> split_origin(int(found[1])), split_origin(UNKNOWN)
    ((3, 70), None)
    """
    return (sources << OFFSET_BITS) | offsets


def offsets_of(origin: Int) -> Int:
    """Offsets of rows."""
    return origin & ((1 << OFFSET_BITS) - 1)


def split_origin(origin: int) -> tuple[int, int] | None:
    """Source and offset of a row; None if they are not known."""
    return None if origin < 0 else (origin >> OFFSET_BITS, origin & ((1 << OFFSET_BITS) - 1))


def place_of(source: str, offset: int) -> dict[str, Any]:
    """
    A record as people name it.

    >>> place_of("predictions@V1StGXR8/3", 70)
    {'topic': 'predictions', 'partition': 3, 'offset': 70}
    """
    topic, _, partition = source.rpartition("/")
    return {"topic": topic.partition("@")[0], "partition": int(partition), "offset": offset}


def prediction_at(origin: int, sources: Sequence[str]) -> dict[str, Any] | None:
    """The record of a prediction; `sources` are names of source partitions by number."""
    found = split_origin(origin)
    if found is None or found[0] >= len(sources):
        return None
    return place_of(sources[found[0]], found[1])


def label_at(origin: int, sources: Sequence[str]) -> dict[str, Any] | None:
    """
    The record of a label, whose number has the partition.

    >>> sources = ["eu.predictions@a/1", "eu.labels@b/1", "eu.labels@b/0"]
    >>> label_at(int(origins(np.array([1]), np.array([9]))[0]), sources)
    {'topic': 'eu.labels', 'partition': 1, 'offset': 9}
    """
    found = split_origin(origin)
    if found is None:
        return None
    partition, offset = found
    for source in reversed(sources):
        place = place_of(source, offset)
        if place["topic"].endswith("labels") and place["partition"] == partition:
            return place
    return {"topic": "labels", "partition": partition, "offset": offset}
