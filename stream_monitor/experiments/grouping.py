"""
Rows that belong together.

Rule of the file: pure functions of one array; where groups are few, nothing is sorted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int

FEW = 8
"""Values that are looked for one by one."""


def different(cells: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], Int]:
    """
    The different values, in no particular order, and which of them each is.

    One round finds the rows of one value. Arms and classes are few, and a sort takes several times
    as long; where there are many, it is done all the same.

    >>> different(np.array([7, 8, 7], np.uint64))[1].tolist()
    [0, 1, 0]
    """
    found: list[np.uint64] = []
    place, rest = np.zeros(len(cells), np.int64), np.arange(len(cells))
    left = cells
    while len(left) and len(found) < FEW:
        place[rest] = len(found)
        found.append(left[0])
        others = left != left[0]
        rest, left = rest[others], left[others]
    if len(left):
        return np.unique(cells, return_inverse=True)
    return np.array(found, np.uint64), place


def rank(group: Int) -> Int:
    """
    How many of its group come before each.

    >>> rank(np.array([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(group)])
    sizes = np.diff(np.append(starts, len(group)))
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    return rank
