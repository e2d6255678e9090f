"""
In which way chances are wrong: all of them too low or too high, or too extreme or too cautious.

Rule of the file: Cox's recalibration, logit q = middle + a + b·(logit p - middle), with a weak
prior around a = 0 and b = 1, so that labels of one class only have an answer too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float

PRIOR_SD = 3.0
"""Of the intercept and the slope."""
STEPS_MAX, STEP_MAX = 50, 1.0
CHANCE_MIN = 1e-6


class Recalibration(NamedTuple):
    """The fit of Cox's two parameters, and the evidence for each beside the other."""

    intercept: float
    """At the mean log-odds of the rows; positive: labels are more frequent than was said."""
    slope: float
    """Less than 1: what was said is too extreme."""
    of_intercept: float
    """Nats by which the fit of both is better than that of the slope alone."""
    of_slope: float
    """Nats by which the fit of both is better than that of the intercept alone."""


def recalibration(chances: Float, rows: Float, ones: Float) -> Recalibration:
    """
    Compare chances that were said with labels.

    Parameters
    ----------
    chances : (n,) float64, 0 to 1
    rows, ones : (n,) float64
        How many rows have that chance, and how many of them the label 1.

    Returns
    -------
    Recalibration

    References
    ----------
    D. R. Cox, Two further applications of a model for binary regression, Biometrika 45 (1958).

    Examples
    --------
    Log-odds that are twice as great as they should be:

    >>> odds = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    >>> said, chance = (1 / (1 + np.exp(-log_odds)) for log_odds in (2 * odds, odds))
    >>> found = recalibration(said, np.full(5, 1e4), 1e4 * chance)
    >>> round(found.slope, 2), found.of_slope > 10 > found.of_intercept
    (0.5, True)
    """
    p = np.clip(chances, CHANCE_MIN, 1 - CHANCE_MIN)
    log_odds = np.log(p / (1 - p))
    middle = float((rows * log_odds).sum() / max(float(rows.sum()), 1.0))
    design = np.array([np.ones(len(p)), log_odds - middle])
    both, best = _fit(design, middle, rows, ones, np.array([True, True]))
    _, without = _fit(design, middle, rows, ones, np.array([False, True]))
    _, flat = _fit(design, middle, rows, ones, np.array([True, False]))
    return Recalibration(float(both[0]), float(both[1]), best - without, best - flat)


def _fit(
    design: Float, middle: float, rows: Float, ones: Float, free: np.ndarray
) -> tuple[Float, float]:
    """Newton's method on the `free` parameters; the (2,) parameters and the log-likelihood."""
    at, start = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    for _ in range(STEPS_MAX):
        chance = 1 / (1 + np.exp(-(middle + at @ design)))
        slope = design @ (ones - rows * chance) - (at - start) / PRIOR_SD**2
        bend = (design * (rows * chance * (1 - chance))) @ design.T + np.eye(2) / PRIOR_SD**2
        step = np.zeros(2)
        step[free] = np.linalg.solve(bend[np.ix_(free, free)], slope[free])
        at = at + np.clip(step, -STEP_MAX, STEP_MAX)
        if np.abs(step).max() < 1e-9:
            break
    log_odds = middle + at @ design
    gain = (ones * log_odds - rows * np.logaddexp(0.0, log_odds)).sum()
    return at, float(gain - ((at - start) ** 2).sum() / 2 / PRIOR_SD**2)
