"""
Quantiles of what was only counted.

Rule of the file: the error is that of the bins, and it is stated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
RATIO = 2.0 ** (1 / 16)
LATENCY_EDGES = 0.01 * RATIO ** np.arange(417)
"""Edges in ms: 10 µs to 11 minutes, each 4.4 % above the last."""


def latency_bins(latency_ms: Float) -> NDArray[np.int64]:
    """
    Bin of each latency: 0 below the first edge, the last beyond the last.

    Parameters
    ----------
    latency_ms : (n,) float64, ms, finite, at least 0

    Examples
    --------
    >>> latency_bins(np.array([0.0, 0.01, 1e9])).tolist()
    [0, 1, 417]
    """
    return np.searchsorted(LATENCY_EDGES, latency_ms, side="right").astype(np.int64)


def latency_quantile(counts: Float, q: float) -> float:
    """
    Quantile of a latency histogram.

    Parameters
    ----------
    counts : (418,) float64, events
    q : float, in [0, 1]

    Returns
    -------
    float, ms
        The geometric middle of the bin of the quantile: at most 2.2 % from the value of that rank.

    Examples
    --------
    >>> counts = np.bincount(latency_bins(np.array([5.0, 5.0, 80.0])), minlength=418).astype(float)
    >>> abs(latency_quantile(counts, 0.5) / 5.0 - 1) < 0.022
    True
    """
    rank = q * (counts.sum() - 1)
    bin_ = int(np.searchsorted(np.cumsum(counts), rank, side="right"))
    if bin_ == 0:
        return float(LATENCY_EDGES[0])
    return float(LATENCY_EDGES[min(bin_, len(LATENCY_EDGES)) - 1] * RATIO**0.5)


def quantile_of_bins(counts: Float, edges: Float, q: float) -> float:
    """
    Quantile by linear interpolation within its bin.

    Parameters
    ----------
    counts : (bins,) float64, events
        Not all 0.
    edges : (bins + 1,) float64
        Outer edges included.
    q : float, in [0, 1]

    Examples
    --------
    >>> quantile_of_bins(np.array([10.0, 0.0, 10.0]), np.array([0.0, 1.0, 2.0, 4.0]), 0.75)
    3.0
    """
    used = np.flatnonzero(counts)
    total = np.cumsum(counts[used])
    rank = q * total[-1]
    i = min(int(np.searchsorted(total, rank)), len(used) - 1)
    k = used[i]
    return float(edges[k] + (edges[k + 1] - edges[k]) * (rank - total[i] + counts[k]) / counts[k])
