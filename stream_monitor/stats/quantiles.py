"""
Quantiles of counts on bins.

Rule of the file: the error is that of the bins, and it is stated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float

RATIO = 2.0 ** (1 / 16)
RANK_ERROR = 1e-12
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


def quantile_of_bins(counts: Float, edges: Float, q: float, *, whole: bool = False) -> float | None:
    """
    Quantile of counts on bins.

    Parameters
    ----------
    counts : (bins,) float64, events
        Not all 0; the first bin lies below the first edge, the last at or above the last.
    edges : (bins - 1,) float64
    q : float, in [0, 1]
    whole : bool
        All values are whole numbers.

    Returns
    -------
    float or None
        Of a bin of one value that value, exactly the one of this rank; else by linear interpolation
        within its bin, at most the bin's width from it. None where that is in one of the outer
        bins, or in the first or the last of the others unless it is of one value: there they are as
        wide as values come.

    Examples
    --------
    >>> edges = np.array([0.0, np.nextafter(0.0, 1.0), 1.0, 2.0, 4.0])
    >>> [
    ...     quantile_of_bins(np.array([0.0, 10.0, 0.0, 10.0, 5.0, 0.0]), edges, q)
    ...     for q in (0.25, 0.5, 0.9)
    ... ]
    [0.0, 1.25, None]
    """
    total = np.cumsum(counts)
    rank = q * total[-1]
    k = int(
        np.searchsorted(
            total, max(rank - RANK_ERROR * total[-1], 0.0), side="left" if rank > 0 else "right"
        )
    )
    if k in (0, len(counts) - 1):
        return None
    low, high = float(edges[k - 1]), float(edges[k])
    if np.nextafter(low, np.inf) >= high:
        return low
    if k in (1, len(counts) - 2):
        return None
    part = min(max((rank - total[k] + counts[k]) / counts[k], 0.0), 1.0)
    if whole:
        least, n = np.ceil(low), np.ceil(high) - np.ceil(low)
        return float(least + min(np.floor(part * n), n - 1)) if n > 0 else None
    return low + (high - low) * float(part)
