"""
Confidence sequences: intervals that hold at every look at once, so that people may watch an
experiment and stop it when they like.

Rule of the file: functions of an estimate, its variance and the least effect that matters. The
effect is fixed before the first outcome and never computed from the data. It decides where the
sequence is tightest, and does not affect whether it holds.
"""

from __future__ import annotations

import math

UNITS_MIN, RARER_MIN, UNIT_SHARE_MAX = 200, 20, 0.1
"""
Effective units of each arm before an interval is judged, so that a few active units count for
little; and of what is 0 or 1, so many of the rarer answer in each arm. No unit may be a greater
share of the variance of its arm (Lindeberg's condition) where an interval decides. Without that a
small arm decides on a handful of rare values.
"""
FAR = -5.0
"""Below it the normal tail is a continued fraction; `erfc` takes over above."""
FRACTION_TERMS = 60
"""Terms of the continued fraction; at `FAR` the rest is below 1e-16."""


def half_width(variance: float, effect: float, alpha: float) -> float:
    """
    Half the width of the normal-mixture confidence sequence around an estimate.

    Parameters
    ----------
    variance : float
        Of the estimate.
    effect : float, in units of the estimate
        Least effect that matters. Of a ratio it is log(1 + effect).
    alpha : float, ratio
        Chance that the truth is ever outside.

    Returns
    -------
    float
        Infinite if the variance is 0 or infinite, because nothing is known then.

    Raises
    ------
    ValueError
        The effect is not positive, or alpha is not between 0 and 1.

    Notes
    -----
    With I = 1/variance and ρ = 1/effect² it is √((I + ρ)·log((I + ρ)/(ρ·alpha²))) / I. It holds
    for independent units as their number grows, after a burn-in (about 200 effective units an arm).

    References
    ----------
    H. Robbins, Statistical methods related to the law of the iterated logarithm, Annals of
    Mathematical Statistics 41 (1970). I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy,
    A. Ramdas, Time-uniform central limit theory and asymptotic confidence sequences, Annals of
    Statistics 52 (2024), theorem 2.2.

    Examples
    --------
    Wider than the 1.96 standard errors of one planned look, 0.0098 here, and true at all looks:

    >>> round(half_width(0.005**2, effect=0.02, alpha=0.05), 4)
    0.0153
    """
    _check(effect)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a number between 0 and 1, got {alpha!r}")
    w = variance
    if not 0 < w < math.inf:
        return math.inf
    clock = math.log1p(effect * effect / w) - 2 * math.log(alpha)
    return math.sqrt(w * (1 + w / (effect * effect)) * clock)


def log_evidence_above(estimate: float, variance: float, effect: float) -> float:
    """
    Logarithm of the evidence that the true value is above 0.

    Parameters
    ----------
    estimate, variance : float
    effect : float, in units of the estimate
        Least effect that matters. Of a ratio it is log(1 + effect).

    Returns
    -------
    float
        It exceeds log(1/alpha) at any look with a chance of at most alpha, if the truth is 0 or
        below. It is 0 if the variance is 0 or infinite.

    Raises
    ------
    ValueError
        The effect is not positive.

    Notes
    -----
    The mixture of likelihood ratios over a half-normal distribution of effects:
    log 2 - ½·log(1 + I/ρ) + z²/2 + log Φ(z) with z = estimate·I / √(I + ρ). z²/2 and log Φ(z)
    cancel where z is very negative, so their sum is computed as one.

    References
    ----------
    As `half_width`; one-sided mixtures: S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, Time-uniform
    Chernoff bounds via nonnegative supermartingales, Probability Surveys 17 (2020).

    Examples
    --------
    >>> [round(log_evidence_above(d, 0.005**2, effect=0.02), 2) for d in (0.02, 0.0, -0.02)]
    [6.81, -1.42, -3.06]
    """
    _check(effect)
    w = variance
    if not (0 < w < math.inf and math.isfinite(estimate)):
        return 0.0
    z = estimate / math.sqrt(w * (1 + w / (effect * effect)))
    return math.log(2) - 0.5 * math.log1p(effect * effect / w) + _log_tilted_normal(z)


def _check(effect: float) -> None:
    if not 0 < effect < math.inf:
        raise ValueError(f"effect: expected a positive number, got {effect!r}")


def _log_tilted_normal(z: float) -> float:
    """z²/2 + log Φ(z)."""
    if z > 0:
        return z * z / 2 + math.log1p(-math.erfc(z / math.sqrt(2)) / 2)
    if z > FAR:
        return z * z / 2 + math.log(math.erfc(-z / math.sqrt(2)) / 2)
    rest = -z  # Mills' ratio 1/(t + 1/(t + 2/(t + 3/(t + …)))), from the end (Laplace)
    for k in range(FRACTION_TERMS, 0, -1):
        rest = -z + k / rest
    return -math.log(rest) - math.log(2 * math.pi) / 2
