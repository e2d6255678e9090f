"""
How soon anybody could know of a change: a detector that is told both laws, before and after.

Rule of the file: nothing of the product is used but its budget. Shiryaev and Roberts: after each
row R ← (R + Δt)·L with the likelihood ratio L of the row, and an alarm at R ≥ days. No detector
with so few false alarms finds the change much sooner (Pollak 1985), so a goal that this one misses
is out of reach at this budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import detection_feeds as feeds
import numpy as np
from detection_streams import LEVEL_CELLS, LEVELS, ROW_MS, Float, more

from stream_monitor.times import DAY_MS

Ratio = Callable[[Float], Float]
"""Cells of a feature (rows,) → logarithm of the likelihood ratio of each row (rows,)."""
LOG_MAX = 600.0


def _moved(by: float, variance: float = 1.0) -> Ratio:
    """The mean of normal values."""
    return lambda x: (by * x - by * by / 2) / variance


def _shares(before: Float, after: Float) -> Ratio:
    """The shares of categories, whose cells are compared as bits: they are not numbers."""
    codes = LEVEL_CELLS[: len(before)].view(np.int64)
    order = np.argsort(codes)
    ratios = np.log(after / before)[order]
    return lambda x: ratios[np.searchsorted(codes[order], np.ascontiguousarray(x).view(np.int64))]


def _odds(p: float, q: float, event: Callable[[Float], np.ndarray] = lambda x: x > 0) -> Ratio:
    """The share of an event."""
    return lambda x: np.where(event(x), math.log(q / p), math.log((1 - q) / (1 - p)))


def _laplace(x: Float) -> Float:
    return x * x / 2 + math.log(2 * math.pi) / 2 - math.sqrt(2) * np.abs(x) - math.log(2) / 2


def _lognormal(x: Float) -> Float:
    sd, mean = math.sqrt((math.e - 1) * math.e), math.exp(0.5)

    def log_density(x: Float) -> Float:
        log = np.log(np.maximum(x * sd + mean, 1e-300))
        found: Float = -log - log * log / 2
        return found

    return log_density(x - 0.25) - log_density(x)


def _t3(x: Float) -> Float:
    return 2 * (np.log1p(x * x) - np.log1p((x - 0.5) ** 2))


def _autoregressive(x: Float) -> Float:
    rho = 0.7
    return _moved(0.5 * (1 - rho), 1 - rho * rho)(x - rho * np.append(0.0, x[:-1]))


def _extreme(scored: Float) -> Float:
    """Labels whose log-odds are half of what the scores say; (2, rows): scores and labels."""
    log_odds = np.log(scored[0]) - np.log1p(-scored[0])

    def log_chance(log_odds: Float) -> Float:
        found: Float = -np.logaddexp(0, np.where(scored[1] > 0, -log_odds, log_odds))
        return found

    return log_chance(log_odds / 2) - log_chance(log_odds)


def _slower(x: Float) -> Float:
    by = math.log(1.5) / 0.5
    return _moved(by)(np.log(x / 20) / 0.5)


def _longer_tail(x: Float) -> Float:
    z = np.log(x / 20) / 0.5
    density = np.exp(-z * z / 2) / (x * 0.5 * math.sqrt(2 * math.pi))
    return np.log(0.9798 + np.where((x >= 64) & (x < 128), 0.0202 / 64 / density, 0.0))


RATIOS: dict[str, Ratio] = {
    **{f"mean +{by:g} sd": _moved(by) for by in (0.1, 0.25, 0.5, 1.0)},
    "variance × 1.5": lambda x: x * x / 6 - math.log(1.5) / 2,
    "normal to Laplace": _laplace,
    "lognormal +0.25 sd": _lognormal,
    "t3 +0.5 sd": _t3,
    "category 10 to 15 %": _shares(LEVELS / LEVELS.sum(), more(3, 0.15)),
    "0/1 feature 1 to 2 %": _odds(0.01, 0.02),
    "zeros 60 to 65 %": _odds(0.6, 0.65, lambda x: x == 0),
    "+1 sd in 10 % of the rows": lambda x: np.log(0.9 + 0.1 * np.exp(x - 0.5)),
    "AR(1) 0.7, +0.5 sd": _autoregressive,
    "score, its logit +0.25 sd": _moved(0.25),
    "predicted class 40 to 55 %": _shares(np.array([0.6, 0.4]), np.array([0.45, 0.55])),
    **{
        f"errors {100 * p:g} to {100 * q:g} %": _odds(p, q)
        for p, q in ((0.05, 0.1), (0.1, 0.2), (0.02, 0.04), (0.005, 0.015), (0.1, 0.05))
    },
    "scores too extreme, same answers": _extreme,
    "residuals of a regression +0.25 sd": _moved(0.25),
    "latency × 1.5": _slower,
    "slowest calls 1 to 3 %": _longer_tail,
}
"""
By case. Those are left out whose first changed row is impossible before the change, and the ramp,
of which nobody knows where it stands.
"""


def alarms(name: str, x: Float, bound: float) -> feeds.Alarms:
    """Where it alarms first, by feature; `bound` is days for each false alarm."""
    gains = np.exp(np.clip([RATIOS[name](values) for values in x], -LOG_MAX, LOG_MAX))
    evidence, day = np.zeros(len(x)), ROW_MS / DAY_MS
    found: feeds.Alarms = [[] for _ in x]
    for row, gain in enumerate(gains.T):
        evidence = (evidence + day) * gain
        for i in np.flatnonzero(evidence >= bound).tolist():
            if not found[i]:
                found[i].append(row)
        np.minimum(evidence, bound, out=evidence)
    return found
