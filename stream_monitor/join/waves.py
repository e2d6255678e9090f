"""
Groups of rows in which every id occurs once.

Rule of the file: rows of one id keep the order of the record; rows of different ids are handled at
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int

Ids = NDArray[np.uint64]


def waves(
    prediction_ids: Ids,
    prediction_rows: Int,
    label_ids: Ids,
    label_rows: Int,
    quiet: NDArray[np.bool_] | None = None,
) -> list[tuple[Int, Int]]:
    """
    Indices of predictions and of labels, by wave. The k-th row of each id is in the k-th wave.

    Parameters
    ----------
    prediction_ids, label_ids : (n,), (m,) uint64
    prediction_rows, label_rows : (n,), (m,) int64
        Places in the record.
    quiet : (m,) bool, optional
        Labels whose order does not matter; they go with the first wave.

    Notes
    -----
    One sort of n + m ids, and a pass over them for each wave.

    Examples
    --------
    >>> ids, rows = np.array([7, 8], np.uint64), np.array([0, 1])
    >>> [
    ...     (p.tolist(), q.tolist())
    ...     for p, q in waves(ids, rows, np.array([7], np.uint64), np.array([2]))
    ... ]
    [([0, 1], []), ([], [0])]
    """
    n = len(prediction_rows)
    ids = np.concatenate([prediction_ids, label_ids])
    order = np.lexsort((np.concatenate([prediction_rows, label_rows]), ids))
    ordered = ids[order]
    again = np.append(False, ordered[1:] == ordered[:-1]) if len(ordered) else np.empty(0, bool)
    if not again.any():
        return [(np.arange(n), np.arange(len(label_rows)))]
    places = np.arange(len(ids))
    rank = np.empty(len(ids), np.int64)
    rank[order] = places - np.maximum.accumulate(np.where(again, 0, places))
    if quiet is not None:
        rank[n:][quiet] = 0
    by_wave = []
    for k in range(int(rank.max()) + 1):
        at = np.flatnonzero(rank == k)
        by_wave.append((at[at < n], at[at >= n] - n))
    return by_wave


def repeated(rows: Int, *key: NDArray[Any]) -> NDArray[np.bool_]:
    """
    Whether each row of a record has the key of an earlier one.

    Parameters
    ----------
    rows : (n,) int64
        Places in the record.
    *key : (n,) arrays
        Columns of the key.

    Examples
    --------
    >>> repeated(
    ...     np.array([4, 2, 9]), np.array([7, 7, 7], np.uint64), np.array([False, False, True])
    ... ).tolist()
    [True, False, False]
    """
    order = np.lexsort((rows, *key))
    out = np.zeros(len(rows), bool)
    out[order[1:]] = np.logical_and.reduce([part[order[1:]] == part[order[:-1]] for part in key])
    return out
