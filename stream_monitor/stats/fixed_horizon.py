"""
Textbook tests of two arms at the end of an experiment: Welch's t-test, the test of two proportions,
Cohen's d and h.

Rule of the file: valid at one planned look. With repeated looks these numbers are wrong: an
experiment with two equal arms shows p < 0.05 at some look in about half of all runs. For repeated
looks there is `confidence_sequences`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stream_monitor.arrays import Float
from stream_monitor.stats.student import student_p
from stream_monitor.stats.unit_sums import mean_and_variance

NORMAL_95 = 1.959963984540054
"""Normal quantile of a two-sided interval of 95 %."""


class Welch(NamedTuple):
    """Welch's test of the means of two arms; NaN if it is not defined."""

    difference: float
    """Mean of the arm less that of the control."""
    t: float
    df: float
    p: float


class EffectSize(NamedTuple):
    """An effect size with its 95 % interval; NaN if it is not defined."""

    estimate: float
    low: float
    high: float


def welch(control: Float, arm: Float) -> Welch:
    """
    Welch's t-test of two means, valid at one planned look.

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units (`unit_sums`).

    Returns
    -------
    Welch
        NaN if an arm has fewer than two units, or all units are equal.

    References
    ----------
    B. L. Welch, The generalization of Student's problem when several different population
    variances are involved, Biometrika 34 (1947).

    Examples
    --------
    >>> from stream_monitor.stats.unit_sums import unit_terms
    >>> control, arm = (unit_terms([1] * 4, x).sum(axis=0) for x in ([1, 2, 4, 9], [2, 3, 5, 9]))
    >>> found = welch(control, arm)
    >>> round(found.t, 4), round(found.df, 2), round(found.p, 4)
    (0.318, 5.89, 0.7615)
    """
    (of_control, of_arm) = _moments(control), _moments(arm)
    d, w = of_arm.mean - of_control.mean, of_arm.variance + of_control.variance
    if not 0 < w < math.inf:
        return Welch(d, math.nan, math.nan, math.nan)
    t = d / math.sqrt(w)
    shares = ((m.variance / w) ** 2 / (m.units - 1) for m in (of_control, of_arm))
    df = 1 / sum(shares)
    return Welch(d, t, df, student_p(t, df))


def two_proportions(control: Float, arm: Float) -> tuple[float, float]:
    """
    The z-test of two proportions with their pooled variance, valid at one planned look.

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units of an outcome that is 0 or 1.

    Returns
    -------
    z, p : float
        NaN if all answers are equal or an arm is empty. It is right only with one outcome for each
        unit; with more, use `welch`.

    Examples
    --------
    >>> from stream_monitor.stats.unit_sums import unit_terms
    >>> answers = ([1] * 50 + [0] * 50, [1] * 65 + [0] * 35)
    >>> control, arm = (unit_terms([1] * 100, x).sum(axis=0) for x in answers)
    >>> z, p = two_proportions(control, arm)
    >>> round(z, 4), round(p, 4)
    (2.1456, 0.0319)
    """
    (of_control, of_arm) = _moments(control), _moments(arm)
    n, m = of_control.outcomes, of_arm.outcomes
    if not (n and m):
        return math.nan, math.nan
    pooled = (n * of_control.mean + m * of_arm.mean) / (n + m)
    if not 0 < pooled < 1:
        return math.nan, math.nan
    z = (of_arm.mean - of_control.mean) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return z, math.erfc(abs(z) / math.sqrt(2))


def cohens_d(control: Float, arm: Float) -> EffectSize:
    """
    Cohen's d of the means of units: their difference in pooled standard deviations.

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units.

    Returns
    -------
    EffectSize

    References
    ----------
    L. V. Hedges, I. Olkin, Statistical methods for meta-analysis (1985), chapter 5: the interval.

    Examples
    --------
    >>> from stream_monitor.stats.unit_sums import unit_terms
    >>> control, arm = (unit_terms([1] * 4, x).sum(axis=0) for x in ([1, 2, 4, 9], [2, 3, 5, 9]))
    >>> [round(number, 3) for number in cohens_d(control, arm)]
    [0.225, -1.165, 1.615]
    """
    (of_control, of_arm) = _moments(control), _moments(arm)
    n, m = of_control.units, of_arm.units
    # the variance of a mean is that of a unit divided by the number of units
    squares = sum((x.units - 1) * x.variance * x.units for x in (of_control, of_arm))
    if not 0 < squares < math.inf:
        return EffectSize(math.nan, math.nan, math.nan)
    d = (of_arm.mean - of_control.mean) / math.sqrt(squares / (n + m - 2))
    return _with_interval(d, math.sqrt((n + m) / (n * m) + d * d / (2 * (n + m))))


def cohens_h(control: Float, arm: Float) -> EffectSize:
    """
    Cohen's h of two shares: the difference of their arcsines, 2·asin(√share).

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units of an outcome that is 0 or 1.

    Returns
    -------
    EffectSize
        NaN where an arm has less than two units.

    Notes
    -----
    The standard error is that between units. In an arm whose answers are all equal it is 1/√units,
    which is what it is with one outcome a unit.

    References
    ----------
    J. Cohen, Statistical power analysis for the behavioral sciences (1988), chapter 6.

    Examples
    --------
    >>> from stream_monitor.stats.unit_sums import unit_terms
    >>> answers = ([1] * 50 + [0] * 50, [1] * 65 + [0] * 35)
    >>> control, arm = (unit_terms([1] * 100, x).sum(axis=0) for x in answers)
    >>> [round(number, 3) for number in cohens_h(control, arm)]
    [0.305, 0.026, 0.583]
    """
    angles, squares = [], 0.0
    for of in (_moments(control), _moments(arm)):
        if of.units < 2 or not 0 <= of.mean <= 1:
            return EffectSize(math.nan, math.nan, math.nan)
        angles.append(2 * math.asin(math.sqrt(of.mean)))
        spread = of.mean * (1 - of.mean)
        squares += of.variance / spread if spread and of.variance else 1 / of.units
    return _with_interval(angles[1] - angles[0], math.sqrt(squares))


class _Moments(NamedTuple):
    units: float
    outcomes: float
    mean: float
    variance: float
    """Of the mean, between units."""


def _moments(sums: Float) -> _Moments:
    mean, variance = mean_and_variance(sums)
    return _Moments(float(sums[0]), float(sums[1]), mean, variance)


def _with_interval(estimate: float, error: float) -> EffectSize:
    return EffectSize(estimate, estimate - NORMAL_95 * error, estimate + NORMAL_95 * error)
