"""
Distances between two binned samples, vectorised over features.

Rule of the file: counts in, one number for each feature out; NaN if a sample is empty. The PSI has
no finite value for a bin that is empty in one sample. Such a bin counts as `EMPTY` rows there, so a
new category is far but finite. A bin that is empty in both samples does not count.
"""

from __future__ import annotations

import numpy as np

from stream_monitor.arrays import Float

EMPTY = 0.5


def _shares(counts: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Float = counts / counts.sum(axis=1, keepdims=True)
    return shares


def psi(expected: Float, actual: Float, *, unbiased: bool = False) -> Float:
    """
    Population stability index.

    Parameters
    ----------
    expected, actual : (features, bins) float64, events
        Counts of the baseline and of the current window on the same bins.
    unbiased : bool
        Subtract the expectation under no change, (bins - 1) (1/n + 1/m) of the bins that are not
        empty in both, and cut at 0.

    Returns
    -------
    (features,) float64, dimensionless

    References
    ----------
    N. Siddiqi, Credit Risk Scorecards, Wiley 2006. The bias: B. Yurdakul, Statistical properties of
    population stability index, 2018.

    Examples
    --------
    >>> psi(np.array([[50.0, 50.0]]), np.array([[50.0, 50.0]])).tolist()
    [0.0]
    """
    least = np.where(expected + actual > 0, EMPTY, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = (
            np.maximum(expected, least) / expected.sum(axis=1, keepdims=True),
            np.maximum(actual, least) / actual.sum(axis=1, keepdims=True),
        )
        value: Float = np.where(least > 0, (q - p) * np.log(q / p), 0.0).sum(axis=1)
    if unbiased:
        bins = (least > 0).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias = (bins - 1) * (1 / expected.sum(axis=1) + 1 / actual.sum(axis=1))
            value = np.maximum(value - bias, 0.0)
    return np.where((expected.sum(axis=1) > 0) & (actual.sum(axis=1) > 0), value, np.nan)


def jensen_shannon(expected: Float, actual: Float, *, unbiased: bool = False) -> Float:
    """
    Jensen-Shannon distance, base 2: between 0 and 1.

    Parameters
    ----------
    expected, actual : (features, bins) float64, events
    unbiased : bool
        Subtract from its square what it is expected to be under no change, to the first order:
        (bins - 1) (1/n + 1/m) / (8 ln 2) of the bins that are not empty in both; cut at 0.

    Returns
    -------
    (features,) float64, dimensionless

    References
    ----------
    J. Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991).

    Examples
    --------
    >>> jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).tolist()
    [1.0]
    """
    p, q = _shares(expected), _shares(actual)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=1)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0).sum(axis=1)
        square = (left + right) / 2
        if unbiased:
            bins = (expected + actual > 0).sum(axis=1)
            rows = 1 / expected.sum(axis=1) + 1 / actual.sum(axis=1)
            square -= (bins - 1) * rows / (8 * np.log(2))
    value: Float = np.sqrt(np.maximum(square, 0.0))
    return np.where(np.isnan(p).any(axis=1) | np.isnan(q).any(axis=1), np.nan, value)


def ks(expected: Float, actual: Float) -> Float:
    """
    Kolmogorov-Smirnov statistic on the bins: the greatest difference of the distribution functions
    at the edges.

    Parameters
    ----------
    expected, actual : (features, bins) float64, events

    Returns
    -------
    (features,) float64, dimensionless

    Examples
    --------
    >>> ks(np.array([[1.0, 1.0]]), np.array([[2.0, 0.0]])).tolist()
    [0.5]
    """
    value: Float = np.abs(
        np.cumsum(_shares(expected), axis=1) - np.cumsum(_shares(actual), axis=1)
    ).max(axis=1)
    return value


def area_between(expected: Float, actual: Float, edges: Float) -> Float:
    """
    Area between two distribution functions, by bin: both are taken as straight within it.

    Parameters
    ----------
    expected, actual : (edges,) float64
        The functions at the edges.
    edges : (edges,) float64
        Ascending.

    Returns
    -------
    (edges - 1,) float64, units of the edges
        Off by at most half of the bin's width times its two shares.

    Examples
    --------
    >>> area_between(np.array([0.0, 1.0]), np.array([0.0, 0.5]), np.array([0.0, 4.0])).tolist()
    [1.0]
    """
    gap = expected - actual
    left, right = gap[:-1], gap[1:]
    size = np.abs(left) + np.abs(right)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(left * right < 0, (left * left + right * right) / (2 * size), size / 2)
    return np.asarray(mean * np.diff(edges), np.float64)


def chi2(expected: Float, actual: Float) -> Float:
    """
    Cramér's V of the two samples: the chi-squared statistic of the 2 by bins table as a share of
    its greatest possible value, between 0 and 1.

    Parameters
    ----------
    expected, actual : (features, bins) float64, events

    Returns
    -------
    (features,) float64, dimensionless

    References
    ----------
    H. Cramér, Mathematical Methods of Statistics, Princeton 1946.

    Examples
    --------
    >>> chi2(np.array([[5.0, 0.0]]), np.array([[0.0, 5.0]])).tolist()
    [1.0]
    """
    table = np.stack([expected, actual], axis=1)
    total = table.sum(axis=(1, 2), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = table.sum(axis=2, keepdims=True) * table.sum(axis=1, keepdims=True) / total
        statistic = np.where(fitted > 0, (table - fitted) ** 2 / fitted, 0.0).sum(axis=(1, 2))
        value: Float = np.sqrt(statistic / total[:, 0, 0])
    return np.where((expected.sum(axis=1) > 0) & (actual.sum(axis=1) > 0), value, np.nan)
