"""
Intervals of the difference and of the ratio of two shares, and the quantile that many of them need.

Rule of the file: closed forms of counts, each with its source; no rows are kept.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from stream_monitor.stats.inference import wilson_interval

LOOK_ERROR = 1e-6
"""Chance that one of all the groups that are looked at together is beyond its bound, one side."""


def many_z(groups: int, error: float = LOOK_ERROR) -> float:
    """
    Normal quantile of one side for `groups` intervals that are judged together (Bonferroni).

    Parameters
    ----------
    groups : int
    error : float, ratio
        Chance that any of them is beyond its bound.

    Examples
    --------
    >>> [round(many_z(n), 2) for n in (1, 2, 50)]
    [4.75, 4.89, 5.49]
    """
    return NormalDist().inv_cdf(1 - error / max(groups, 1))


def newcombe_difference(
    part: float, total: float, other_part: float, other_total: float, z: float
) -> tuple[float, float, float]:
    """
    Difference of two independent shares with its interval, of two Wilson intervals.

    Parameters
    ----------
    part, total, other_part, other_total : float, events
    z : float
        Normal quantile of each side.

    Returns
    -------
    difference, low, high : float, ratio
        `part / total - other_part / other_total`; the bounds lie in [-1, 1].

    References
    ----------
    R. G. Newcombe, Interval estimation for the difference between independent proportions:
    comparison of eleven methods, Statistics in Medicine 17 (1998), method 10.

    Examples
    --------
    >>> [round(v, 4) for v in newcombe_difference(56, 70, 48, 80, 1.959964)]
    [0.2, 0.0524, 0.3339]
    """
    a, b = part / total, other_part / other_total
    (a_low, a_high), (b_low, b_high) = (
        wilson_interval(part, total, z),
        wilson_interval(other_part, other_total, z),
    )
    return (
        a - b,
        a - b - math.hypot(a - a_low, b_high - b),
        a - b + math.hypot(a_high - a, b - b_low),
    )


def katz_ratio(
    part: float, total: float, other_part: float, other_total: float, z: float
) -> tuple[float, float, float] | None:
    """
    Ratio of two independent shares with its interval on the scale of logarithms.

    Parameters
    ----------
    part, total, other_part, other_total : float, events
    z : float
        Normal quantile of each side.

    Returns
    -------
    ratio, low, high : float
        None if the other share is 0. With a `part` of 0 the ratio and its lower end are 0, and the
        upper end is that of half an event in both shares.

    References
    ----------
    D. Katz, J. Baptista, S. P. Azen, M. C. Pike, Obtaining confidence intervals for the risk ratio
    in cohort studies, Biometrics 34 (1978). Half an event for an empty cell: S. D. Walter, The
    distribution of Levin's measure of attributable risk, Biometrika 62 (1975).

    Examples
    --------
    >>> [round(v, 3) for v in katz_ratio(29, 107, 21, 91, 1.959964)]
    [1.174, 0.722, 1.912]
    >>> katz_ratio(3, 10, 0, 10, 1.96) is None
    True
    """
    if not other_part:
        return None
    more = 0.0 if part else 0.5
    a, b, n, m = part + more, other_part + more, total + more, other_total + more
    half = z * math.sqrt(max(1 / a - 1 / n + 1 / b - 1 / m, 0.0))
    ratio = (part / total) / (other_part / other_total)
    middle = (a / n) / (b / m)
    return ratio, middle * math.exp(-half) if part else 0.0, middle * math.exp(half)
