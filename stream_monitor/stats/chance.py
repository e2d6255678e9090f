"""
What chance alone gives: the distance of two samples of one law, by method.

Rule of the file: pure. All are for laws without gaps on equally frequent bins, which is the worst
case.
"""

from __future__ import annotations

import math

CHANCE_SD = 6.0
"""
A distance is judged every ten seconds of log time (`monitors/due.py`), so one without any change
must be this unlikely.
"""
BINS = 20
"""Of a numeric feature with many values."""
RARE = 1e-9
"""Chance of a normal value beyond `CHANCE_SD` standard deviations, about."""


def by_chance(expected: float, actual: float, bins: int) -> float:
    """
    The Jensen-Shannon distance that two samples of one law hardly ever exceed: that of a
    chi-squared statistic `CHANCE_SD` standard deviations above its mean.

    Parameters
    ----------
    expected, actual : float, rows
        Sizes of the samples.
    bins : int

    Examples
    --------
    >>> round(by_chance(5_000, 200, 20), 2), round(by_chance(5_000, 100_000, 20), 3)
    (0.23, 0.046)
    """
    return math.sqrt(_chi2(bins) * (1 / expected + 1 / actual) / (8 * math.log(2)))


def chance_of(method: str, expected: float, actual: float, bins: int = BINS) -> float:
    """
    The same of any distance, in its own unit.

    Parameters
    ----------
    method : {"psi", "js", "ks", "wasserstein", "chi2"}
        PSI less its bias; Wasserstein in standard deviations.
    expected, actual : float, rows
    bins : int

    References
    ----------
    KS: P. Massart, The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality, 1990, as of two
    samples. Wasserstein: that of a mean, which is its greatest part.

    Examples
    --------
    >>> {
    ...     m: round(chance_of(m, 5_000, 1_000), 3)
    ...     for m in ("psi", "js", "ks", "wasserstein", "chi2")
    ... }
    {'psi': 0.044, 'js': 0.11, 'ks': 0.113, 'wasserstein': 0.208, 'chi2': 0.097}
    """
    inverse = 1 / expected + 1 / actual
    if method == "js":
        return by_chance(expected, actual, bins)
    if method == "psi":
        return (_chi2(bins) - max(bins - 1, 1)) * inverse
    if method == "ks":
        return math.sqrt(-math.log(RARE / 2) / 2 * inverse)
    if method == "chi2":
        return math.sqrt(_chi2(bins) / (expected + actual))
    return CHANCE_SD * math.sqrt(inverse)


def _chi2(bins: int) -> float:
    free = max(bins - 1, 1)
    return free + CHANCE_SD * math.sqrt(2 * free)
