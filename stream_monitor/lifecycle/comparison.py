"""
Two models on the same labelled rows: the difference of a metric, with bounds.

Rule of the file: pure numpy. What is summed and drawn is units (users, sessions), not rows, because
rows of one unit are alike. A gain above 0 is good for the challenger, whatever the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int

REPLICATES = 2_000
"""Samples of the bootstrap."""
CELLS_MAX = 1 << 18
"""Weights that are in memory at a time."""
DEFINED_SHARE = 0.99
"""If the metric is defined in fewer of the samples, there are no bounds."""

Measure = Callable[[Float], tuple[Float, Float]]
"""
The metric of champion and challenger, by weights of units: (samples, units) float64 to twice
(samples,) float64. NaN where it is not defined.
"""


class Paired(NamedTuple):
    """The difference of two models on the same rows; NaN: it is not defined."""

    champion: float
    """The metric of the champion."""
    challenger: float
    gain: float
    """How much better the challenger is; below 0 it is worse."""
    lower: float
    """One-sided bound of the gain."""
    upper: float
    units: int
    method: Literal["wald", "bootstrap"]

    @property
    def is_defined(self) -> bool:
        """Whether there are bounds."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)


def by_unit(values: Float, units: Int | None) -> Float:
    """
    Sums over the rows of each unit. O(rows).

    Parameters
    ----------
    values : (n,) float64
    units : (n,) int64 or None
        Codes from 0 on; None: each row is a unit.

    Returns
    -------
    (units,) float64

    Examples
    --------
    >>> by_unit(np.array([1.0, 2, 4]), np.array([0, 1, 0])).tolist()
    [5.0, 2.0]
    """
    if units is None:
        return values
    found: Float = np.bincount(units, values).astype(np.float64)
    return found


def paired_means(
    champion: Float,
    challenger: Float,
    units: Int | None = None,
    *,
    alpha: float = 0.05,
    less_is_better: bool = False,
) -> Paired:
    """
    The difference of two means over the same rows.

    Parameters
    ----------
    champion, challenger : (n,) float64
        Outcomes of rows: 1 for a right answer, or a loss.
    units : (n,) int64 or None
        Codes of units from 0 on; None: each row is a unit.
    alpha : float
        Of each of the two bounds.
    less_is_better : bool
        Whether outcomes are losses.

    Returns
    -------
    Paired
        O(rows). NaN without rows.

    Notes
    -----
    Wald's interval after half a pair was added to each cell of the table of matched answers. In
    sums: two more units of the usual size, one of them with half a difference of the usual size in
    each direction. The mean is the ratio of sums over units, with the variance of the delta method.
    Equal models are called better in at most 5.0 % of cases at `alpha` = 0.05 (exact, for answers
    that are right or wrong, from 200 rows on; less if hardly any answers differ).

    References
    ----------
    A. Agresti, Y. Min, Simple improved confidence intervals for comparing matched proportions,
    Statistics in Medicine 24 (2005).
    A. Deng, U. Knoblich, J. Lu, Applying the delta method in metric analytics, KDD 2018.

    Examples
    --------
    >>> champion, challenger = np.repeat([1.0, 0, 0], [900, 60, 40]), np.repeat([1.0, 0], [960, 40])
    >>> found = paired_means(champion, challenger)
    >>> round(found.gain, 3), round(found.lower, 4), round(found.upper, 4)
    (0.06, 0.0474, 0.0723)
    """
    rows = len(champion)
    if not rows:
        none = math.nan
        return Paired(none, none, none, none, none, 0, "wald")
    means = float(champion.mean()), float(challenger.mean())
    gains = champion - challenger if less_is_better else challenger - champion
    d, n = by_unit(gains, units), by_unit(np.ones(rows), units)
    size = rows / len(n)
    usual = _usual_square(d, size, is_share=_is_share(champion) and _is_share(challenger))
    all_rows = rows + 2 * size
    mean = float(d.sum()) / all_rows
    squares = float(((d - mean * n) ** 2).sum()) + usual + 2 * (mean * size) ** 2
    half = NormalDist().inv_cdf(1 - alpha) * math.sqrt(squares) / all_rows
    gain = float(d.sum()) / rows
    return Paired(*means, gain, mean - half, mean + half, len(n), "wald")


def _usual_square(d: Float, size: float, *, is_share: bool) -> float:
    """Mean square of the differences that there are; of a right and a wrong answer if none is."""
    there = d[d != 0]
    if len(there):
        return float((there**2).mean())
    return size * size if is_share else 0.0


def _is_share(values: Float) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def paired_bootstrap(
    measure: Measure,
    units: int,
    *,
    seed: int,
    rows: int = 0,
    alpha: float = 0.05,
    less_is_better: bool = False,
) -> Paired:
    """
    The difference of a metric that is no mean: percentiles over samples of units, both models on
    the same sample.

    Parameters
    ----------
    measure : callable
        The metric of both models by weights of units.
    units : int
    seed : int
        The same seed gives the same bounds.
    rows : int
        Rows that `measure` looks at for each sample, if it looks at rows.
    alpha : float
        Of each of the two bounds.
    less_is_better : bool

    Returns
    -------
    Paired
        `REPLICATES` evaluations of `measure`, with about `CELLS_MAX` weights in memory. Without
        bounds if the metric is not defined, or not in nearly all samples.

    References
    ----------
    B. Efron, R. Tibshirani, An introduction to the bootstrap (1993), chapters 13 and 16.

    Examples
    --------
    >>> a, b = np.array([1.0, 2, 4, 9]), np.array([2.0, 3, 5, 10])
    >>> found = paired_bootstrap(lambda w: (w @ a / w.sum(1), w @ b / w.sum(1)), 4, seed=7)
    >>> found.champion, found.challenger, round(found.gain, 6), round(found.lower, 6)
    (4.0, 5.0, 1.0, 1.0)
    """
    none = math.nan
    if not units:
        return Paired(none, none, none, none, none, 0, "bootstrap")
    champion, challenger = (float(found[0]) for found in measure(np.ones((1, units))))
    sign = -1.0 if less_is_better else 1.0
    gain = sign * (challenger - champion)
    draw = np.random.default_rng(seed)
    many = max(1, min(REPLICATES, CELLS_MAX // max(units, rows)))
    gains = []
    for first in range(0, REPLICATES, many):
        n = min(many, REPLICATES - first)
        drawn = draw.integers(0, units, (n, units)) + units * np.arange(n)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=n * units).reshape(n, units)
        of_champion, of_challenger = measure(weights.astype(np.float64))
        gains.append(sign * (of_challenger - of_champion))
    found = np.concatenate(gains)
    found = found[np.isfinite(found)]
    if not math.isfinite(gain) or len(found) < DEFINED_SHARE * REPLICATES:
        return Paired(champion, challenger, gain, none, none, units, "bootstrap")
    lower, upper = (float(q) for q in np.quantile(found, (alpha, 1 - alpha)))
    return Paired(champion, challenger, gain, lower, upper, units, "bootstrap")
