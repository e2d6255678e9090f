"""
Metrics that rows without labels are expected to have, from their scores and from how often answers
with such scores were right (confidence-based performance estimation, CBPE).

Rule of the file: an interval contains what chance does to the rows of the window, what is not known
of the shares because they are a sample too, and cells of which nothing is known. It does not
contain that scores may have changed their meaning; `contradiction` looks for that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.stats.metric_intervals import Interval, share_interval
from stream_monitor.stats.monotone import RightShares


class Doubt(NamedTuple):
    """What is not known of a weighted sum of right answers; arrays if there are several sums."""

    variance: Float
    down: Float
    up: Float
    """How far the sum may be below and above, because of cells that had no rows."""


def doubt(shares: RightShares, counts: Float, weights: Float) -> Doubt:
    """
    What is not known of sums of right answers.

    Parameters
    ----------
    shares : RightShares
    counts : (..., cells) float64, rows
    weights : (..., cells) float64
        What a right answer of each cell adds to the sum.

    Notes
    -----
    The shares of a pool are one number, so they are wrong together: its variance counts with the
    square of all its rows.

    Examples
    --------
    >>> from stream_monitor.stats.monotone import right_shares
    >>> shares = right_shares(np.array([[98, 0]]), np.array([[49, 0]]))
    >>> found = doubt(shares, np.array([50.0, 10.0]), np.full(2, 1 / 60))
    >>> [round(float(v), 4) for v in found]
    [0.0059, 0.0833, 0.0833]
    """
    weight = counts * weights
    sampled = (weight * weights * (shares.near * (1 - shares.near))).sum(axis=-1)
    together = weight @ shares.pools
    known = (together * together) @ shares.variance
    down = weight * np.where(weight > 0, shares.share - shares.low, shares.share - shares.high)
    up = weight * np.where(weight > 0, shares.high - shares.share, shares.low - shares.share)
    return Doubt(sampled + known, down.sum(axis=-1), up.sum(axis=-1))


def accuracy(shares: RightShares, counts: Float) -> tuple[float, Interval]:
    """
    The expected accuracy of rows, with its interval.

    Parameters
    ----------
    shares : RightShares
    counts : (cells,) float64, rows
        At least one.

    References
    ----------
    J. Białek, W. Kuberski, N. Perrakis, A. Bifet, Estimating model performance under covariate
    shift without labels, arXiv:2401.08348 (2024).

    Examples
    --------
    >>> from stream_monitor.stats.monotone import right_shares
    >>> shares = right_shares(np.array([[900, 900]]), np.array([[720, 855]]))
    >>> value, (low, high) = accuracy(shares, np.array([300.0, 100.0]))
    >>> round(value, 4), round(low, 2), round(high, 2)
    (0.8375, 0.76, 0.9)
    """
    rows = float(counts.sum())
    value = float(counts @ shares.share) / rows
    return value, _interval(value, doubt(shares, counts, np.full(len(counts), 1 / rows)), rows)


def binary(
    shares: RightShares, counts: Float, positive: Float
) -> dict[str, tuple[float, Interval]]:
    """
    Expected precision, recall and F1 of the positive class; without those that are undefined.

    Parameters
    ----------
    shares : RightShares
    counts : (cells,) float64, rows
    positive : (cells,) float64
        1 where the answer of the cell is the positive class, otherwise 0: the other class.

    Notes
    -----
    The delta method: each is linear in the right answers of both sides, as far as they vary.

    Examples
    --------
    >>> from stream_monitor.stats.monotone import right_shares
    >>> shares = right_shares(np.array([[900], [900]]), np.array([[810], [720]]))
    >>> found = binary(shares, np.array([900.0, 300.0]), np.array([0.0, 1.0]))
    >>> {name: round(value, 3) for name, (value, _) in found.items()}
    {'precision': 0.8, 'recall': 0.727, 'f1': 0.762}
    """
    answered = float(counts @ positive)
    hits = float((counts * positive) @ shares.share)
    missed = float((counts * (1 - positive)) @ (1 - shares.share))
    there = hits + missed
    metrics: list[tuple[str, float, float, float, float]] = []
    if answered:
        metrics.append(("precision", hits / answered, 1 / answered, 0.0, answered))
    if there:
        metrics.append(("recall", hits / there, missed / there**2, hits / there**2, there))
    if answered and there:
        both = answered + there
        slope = 2 * hits / both**2
        metrics.append(("f1", 2 * hits / both, 2 / both - slope, slope, both / 2))
    found = {}
    for name, value, of_positive, of_other, rows in metrics:
        weights = of_positive * positive + of_other * (1 - positive)
        found[name] = value, _interval(value, doubt(shares, counts, weights), rows)
    return found


def _interval(value: float, of: Doubt, rows: float) -> Interval:
    """The interval of a share with this doubt; `rows` counts where chance leaves nothing."""
    middle = (value * rows + 1) / (rows + 2)
    variance = float(of.variance)
    least = middle * (1 - middle) / variance if variance > 0 else rows
    low, high = share_interval(value, least)
    return max(low - float(of.down), 0.0), min(high + float(of.up), 1.0)


def contradiction(
    shares: RightShares, counts: Float, right: Float, tolerance: float
) -> tuple[Float, Float]:
    """
    How strongly labels contradict the expected accuracy of their rows, for several sets of rows.

    Parameters
    ----------
    shares : RightShares
    counts : (sets, cells) float64, rows
    right : (sets,) float64, rows
        How many were right.
    tolerance : float, ratio
        A difference that does not matter.

    Returns
    -------
    difference : (sets,) float64, ratio
        Accuracy less the expected one.
    nats : (sets,) float64
        Evidence that they differ by more than the tolerance; 0 if they do not. If they do not, it
        is beyond x with a chance of at most exp(-x) on each side: for rows by Chernoff's bound,
        for the shares as far as they are normal.

    Examples
    --------
    >>> from stream_monitor.stats.monotone import right_shares
    >>> shares = right_shares(np.array([[9_000]]), np.array([[8_100]]))
    >>> counts, right = np.array([[100.0], [400.0], [400.0]]), np.array([70.0, 280.0, 354.0])
    >>> difference, nats = contradiction(shares, counts, right, 0.02)
    >>> difference.round(3).tolist(), nats.round(1).tolist()
    ([-0.2, -0.2, -0.015], [13.3, 51.5, 0.0])
    """
    rows = counts.sum(axis=-1)
    difference, nats = (right - counts @ shares.share) / rows, np.zeros(len(rows))
    far = np.flatnonzero(np.abs(difference) > tolerance)
    if not len(far):  # nearly always
        return difference, nats
    counts, found = counts[far], right[far] / rows[far]
    unknown = doubt(shares, counts, np.broadcast_to(1 / rows[far, None], counts.shape))
    worse, expected = difference[far] < 0, found - difference[far]
    edge = np.where(worse, expected - unknown.down - tolerance, expected + unknown.up + tolerance)
    beyond = np.where(worse, found < edge, found > edge) & (edge > 0) & (edge < 1)
    for i in np.flatnonzero(beyond).tolist():
        p, q = float(found[i]), float(edge[i])
        divergence = sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)
        nats[far[i]] = divergence * q * (1 - q) / float(unknown.variance[i])
    return difference, nats
