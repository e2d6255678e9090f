"""
Counts on bins, the hot path of every input statistic.

Rule of the file: counts are cumulative from above (values at or above an edge), so that a bin is a difference and the rows need no sorting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def bin_counts(x: Float, edges: Float, bounds: NDArray[np.int64]) -> Float:
    """
    Values at or above each edge, by segment of rows.

    Parameters
    ----------
    x : (rows, features) float64
        Values; NaN counts nowhere. Fastest when it is the transpose of a contiguous (features, rows) array.
    edges : (features, edges) float64
        Ascending; pad with +inf.
    bounds : (segments + 1,) int64
        Segment `s` has the rows from `bounds[s]` to `bounds[s + 1]`; none is empty.

    Returns
    -------
    (segments, features, edges) float64
        Counts.

    Notes
    -----
    A binary search a value and one `bincount` for all. `bench/bench_binning.py` compares it with one comparison an edge, which is dearer for few rows.

    Examples
    --------
    >>> bin_counts(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0, 3.0]]), np.array([0, 3])).tolist()
    [[[2.0, 1.0]]]
    """
    values = np.ascontiguousarray(x.T)
    features, n = values.shape
    edges_n, segments = edges.shape[1], len(bounds) - 1
    broken = values != values  # noqa: PLR0124 - NaN would be found beyond the last edge
    if broken.any():
        values = np.where(broken, -np.inf, values)
    cells = np.empty((features, n), np.int64)
    for f in range(features):
        cells[f] = np.searchsorted(edges[f], values[f], side="right")
    cells += (np.arange(features) * (edges_n + 1))[:, None]
    if segments > 1:
        cells += np.repeat(np.arange(segments) * features * (edges_n + 1), np.diff(bounds))
    counts = np.bincount(cells.ravel(), minlength=segments * features * (edges_n + 1)).reshape(segments, features, edges_n + 1)
    above: Float = counts[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:].astype(np.float64)
    return above
