"""
Outcomes of an arm of an experiment as six sums over its units. From these come the mean, its
variance between units, and the contrast of two arms.

Rule of the file: the unit (a user, a session) is what was randomised, so it is the only independent
thing. A unit whose `n` outcomes add up to `x` enters the six sums 1, n, x, n², n·x and x², and
leaves them with the same terms. Terms are arrays of any shape, (…, 6) float64; what one arm and
outcome says is read off its (6,) in plain floats, because a look has few of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from stream_monitor.arrays import Float

SUMS = 6
UNITS, N, X, NN, NX, XX = range(SUMS)
"""Places of the sums over units: of 1, n, x, n², n·x and x²."""
EPSILON = float(np.finfo(np.float64).eps)


def terms_by_sum(n: Float, x: Float) -> tuple[Float, ...]:
    """
    What `unit_terms` returns, as one array for each of the six sums.

    >>> [t.tolist() for t in terms_by_sum(np.array([2.0, 0.0]), np.array([1.0, 0.0]))]
    [[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0], [2.0, 0.0], [1.0, 0.0]]
    """
    some = (n > 0).astype(np.float64)
    return some, n, x, n * n, n * x, x * x


def unit_terms(n: ArrayLike, x: ArrayLike) -> Float:
    """
    The terms that units add to the six sums; a unit without outcomes adds nothing.

    Parameters
    ----------
    n, x : (…) float64
        Outcomes of each unit, and what they add up to.

    Returns
    -------
    (…, 6) float64

    Examples
    --------
    A unit had two outcomes, 1 and 0. A third one comes, and it is 1.

    >>> sums = unit_terms(np.array([2.0, 0.0]), np.array([1.0, 0.0])).sum(axis=0)
    >>> sums += unit_terms(np.array(3.0), np.array(2.0)) - unit_terms(np.array(2.0), np.array(1.0))
    >>> sums.tolist()
    [1.0, 3.0, 2.0, 9.0, 6.0, 4.0]
    """
    return np.stack(terms_by_sum(np.asarray(n, np.float64), np.asarray(x, np.float64)), axis=-1)


def mean_and_variance(sums: Float) -> tuple[float, float]:
    """
    Mean of an outcome, and the variance of that mean between units.

    Parameters
    ----------
    sums : (6,) float64

    Returns
    -------
    mean, variance : float
        NaN without outcomes; the variance is infinite below two units, and 0 where the units do
        not differ by more than rounding.

    Notes
    -----
    The mean is the ratio Σx / Σn. Its variance is Σ(x - mean·n)² · U/(U - 1) / (Σn)², the delta
    method for a ratio, which is the cluster-robust variance by unit. With one outcome a unit it is
    the sample variance divided by the number of units. A running sum of U equal numbers can be
    wrong by U times the precision of a double, so what is below that is no variance: at 200,000
    units a standard deviation of 0.001 % of the mean.

    References
    ----------
    A. Deng, U. Knoblich, J. Lu, Applying the delta method in metric analytics, KDD 2018.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 9.0])
    >>> mean, variance = mean_and_variance(unit_terms(np.ones(4), x).sum(axis=0))
    >>> mean, bool(np.isclose(variance, x.var(ddof=1) / 4))
    (4.0, True)
    """
    units, n = float(sums[UNITS]), float(sums[N])
    mean, squares = _mean_and_squares(sums)
    return mean, squares * units / (units - 1) / (n * n) if n > 0 and units >= 2 else math.inf


def _mean_and_squares(sums: Float) -> tuple[float, float]:
    """The mean, and the sum of (x - mean·n)² over units."""
    units, n, x, nn, nx, xx = sums.tolist()
    if n <= 0:
        return math.nan, 0.0
    mean = x / n
    squares = xx - 2 * mean * nx + mean * mean * nn
    noise = EPSILON * (8 + units) * (xx + 2 * abs(mean * nx) + mean * mean * nn)
    return mean, squares if squares > noise else 0.0


def shares_of_variance(sums: Float, n: Float, x: Float) -> Float:
    """
    The share of units in the variance of the mean of their arm.

    Parameters
    ----------
    sums : (6,) float64
        Of the arm.
    n, x : (units,) float64
        Outcomes of units of the arm, and what they add up to.

    Returns
    -------
    (units,) float64
        1 where the units of the arm do not differ: the next one that does is all of the variance.

    Notes
    -----
    (x - mean·n)² / Σ(x - mean·n)². The normal approximation holds as the largest share tends to 0.

    References
    ----------
    J. W. Lindeberg, Eine neue Herleitung des Exponentialgesetzes in der Wahrscheinlichkeits-
    rechnung, Mathematische Zeitschrift 15 (1922).

    Examples
    --------
    >>> n, x = np.ones(4), np.array([1.0, 2.0, 4.0, 9.0])
    >>> shares_of_variance(unit_terms(n, x).sum(axis=0), n, x).round(3).tolist()
    [0.237, 0.105, 0.0, 0.658]
    """
    mean, squares = _mean_and_squares(sums)
    if not squares > 0:
        return np.ones(len(n))
    away: Float = x - mean * n
    return away * away / squares


def difference(control: Float, arm: Float) -> tuple[float, float]:
    """
    The mean of an arm less that of the control, and the variance of this estimate.

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units.

    Returns
    -------
    estimate, variance : float

    Examples
    --------
    >>> control, arm = (unit_terms(np.ones(4), x).sum(axis=0) for x in ([1, 2, 4, 9], [2, 3, 5, 9]))
    >>> estimate, variance = difference(control, arm)
    >>> estimate, round(variance, 3)
    (0.75, 5.562)
    """
    (mean, variance), (other, of_other) = mean_and_variance(arm), mean_and_variance(control)
    return mean - other, variance + of_other


def log_ratio(control: Float, arm: Float) -> tuple[float, float]:
    """
    The logarithm of the ratio of the means, arm to control, and the variance of this estimate.

    Parameters
    ----------
    control, arm : (6,) float64
        Sums over units.

    Returns
    -------
    estimate, variance : float
        NaN and infinite unless both means are positive.

    Examples
    --------
    >>> control, arm = (unit_terms(np.ones(4), x).sum(axis=0) for x in ([1, 2, 4, 9], [2, 3, 5, 9]))
    >>> estimate, variance = log_ratio(control, arm)
    >>> round(math.exp(estimate), 4), round(variance, 3)
    (1.1875, 0.304)
    """
    (mean, variance), (other, of_other) = mean_and_variance(arm), mean_and_variance(control)
    if not (mean > 0 and other > 0):
        return math.nan, math.inf
    return math.log(mean) - math.log(other), variance / mean / mean + of_other / other / other


def effective_units(sums: Float) -> float:
    """
    The number of equally active units that would know as much: (Σn)² / Σn².

    Parameters
    ----------
    sums : (6,) float64

    Notes
    -----
    A few very active units decide the mean of an arm. 9,000 users whose activity is Pareto
    distributed can be worth 70.

    Examples
    --------
    >>> sums = unit_terms(np.array([1.0, 1, 1, 97]), np.zeros(4)).sum(axis=0)
    >>> round(effective_units(sums), 2)
    1.06
    """
    n, nn = float(sums[N]), float(sums[NN])
    return n * n / nn if nn > 0 else 0.0


def rarer_answers(sums: Float) -> float:
    """
    How often the rarer answer of a yes/no outcome occurred; the normal approximation needs about
    20.

    Parameters
    ----------
    sums : (6,) float64
        Of outcomes that are 0 or 1.

    Examples
    --------
    >>> rarer_answers(unit_terms(np.array([4.0, 3.0]), np.array([3.0, 3.0])).sum(axis=0))
    1.0
    """
    n, x = float(sums[N]), float(sums[X])
    return min(x, n - x)
