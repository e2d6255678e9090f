"""
How many units an experiment needs: until the confidence sequence decides, and for the t-test that
is looked at once.

Rule of the file: a number of units is planned, because units are randomised. Events of one unit are
worth less than events of as many units. The t-test is a formula. The sequence is a seeded
simulation of 20,000 paths, right to about 2 %, because no formula is.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.stats.confidence_sequences import RARER_MIN, UNITS_MIN

PATHS = 20_000
STEP = 0.01
"""Each look of the simulation has so much more information than the one before, relatively."""
OVERSHOOT = 0.5826
"""Overshoot of a normal walk over a boundary, in steps (-ζ(1/2)/√(2π)); it corrects for looks that
are not continuous."""


class Needed(NamedTuple):
    """The units and days that an experiment needs until it decides."""

    units: float
    """Units of the control and the arm together."""
    events: float
    days: float
    """Days; NaN if the units of a day are not known."""


class Plan(NamedTuple):
    """The units and days that an experiment needs, by the way in which it is judged."""

    t_test: Needed
    """At one planned look, with the power asked for."""
    sequence_median: Needed
    """Half of all experiments are decided by then."""
    sequence: Needed
    """The share of experiments that is the power is decided by then."""
    design_effect: float


def design_effect(events_a_unit: float, icc: float, cv: float = 0.0) -> float:
    """
    How many times as many events are needed because events of one unit are alike.

    Parameters
    ----------
    events_a_unit : float
        Mean number of events of a unit.
    icc : float
        Correlation of two outcomes of one unit (intraclass correlation), from 0 to 1.
    cv : float
        Standard deviation of the number of events of a unit, divided by its mean.

    Returns
    -------
    float

    References
    ----------
    L. Kish, Survey Sampling (1965). S. M. Eldridge, D. Ashby, S. Kerry, Sample size for cluster
    randomized trials: effect of coefficient of variation of cluster size, International Journal of
    Epidemiology 35 (2006).

    Examples
    --------
    >>> design_effect(1, 0.25), design_effect(21, 0.25), design_effect(21, 0.25, cv=1)
    (1.0, 6.0, 11.25)
    """
    return 1 + ((1 + cv * cv) * events_a_unit - 1) * icc


def variances_of_shares(base: float, effect: float) -> tuple[float, float]:
    """
    Variances of a yes/no outcome in the control and in an arm that differs by `effect`.

    Parameters
    ----------
    base, effect : float, ratio
        Share in the control, and what the arm has more (or, below 0, less) of it.

    Raises
    ------
    ValueError
        A share is not between 0 and 1.

    Examples
    --------
    >>> [round(v, 4) for v in variances_of_shares(0.9, -0.02)]
    [0.09, 0.1056]
    """
    for name, share in (("base", base), ("base + effect", base + effect)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: expected a share between 0 and 1, got {share:g}")
    arm = base + effect
    return base * (1 - base), arm * (1 - arm)


def plan(
    effect: float,
    variances: tuple[float, float],
    *,
    weights: tuple[float, float] = (1, 1),
    events_a_unit: float = 1.0,
    deff: float = 1.0,
    units_a_day: float = math.nan,
    alpha: float = 0.05,
    power: float = 0.8,
    true_effect: float | None = None,
    rarer_share: float | None = None,
    units_min: float = UNITS_MIN,
    phase_share: float = 1.0,
) -> Plan:
    """
    Units, events and days until an experiment decides.

    Parameters
    ----------
    effect : float
        Least difference that matters. Of a logarithm it is log(1 + effect).
    variances : tuple of float
        Of an outcome, in the control and in the arm.
    weights : tuple of float
        Traffic of the control and of the arm, on any scale.
    events_a_unit : float
    deff : float
        From `design_effect`.
    units_a_day : float
        New units a day in both arms together.
    alpha, power : float, ratio
        `alpha` is that of this comparison: divide it by the number of arms beside the control.
    true_effect : float or None
        The difference that there is; None: just `effect`. "Not worse than `effect`" with equal arms
        needs as much as a difference of `effect`.
    rarer_share : float or None
        Share of the rarer answer of a yes/no outcome, for the burn-in of 20 in each arm.
    units_min : float
        Units of each arm before the sequence is judged.
    phase_share : float, ratio
        Part of `alpha` that the sequence may spend in its phase; the t-test, with its one look,
        spends all.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        A number is not in its range.

    Notes
    -----
    The variance of a difference is K / units with K = deff/events · (v_a/share_a + v_b/share_b).
    The t-test needs (z_α/2 + z_power)²·K/effect². The sequence needs u·K/effect²; u comes from a
    simulation (`information_needed`) that waits, in each arm, for `units_min` units and 20 of the
    rarer answers before anything is judged.

    Examples
    --------
    Accuracy 90 % → 88 %, 40 outcomes of each user, which are correlated:

    >>> deff = design_effect(40, 0.05)
    >>> found = plan(0.02, variances_of_shares(0.9, -0.02), events_a_unit=40, deff=deff)
    >>> round(found.t_test.events), round(found.t_test.units)
    (22645, 566)
    >>> found.sequence_median.units < found.sequence.units < 2.2 * found.t_test.units
    True
    """
    total = sum(weights)
    for name, number, low, high in (
        ("effect", effect, 0.0, math.inf),
        ("weights", min(weights), 0.0, math.inf),
        ("variances", max(variances), 0.0, math.inf),
        ("events_a_unit", events_a_unit, 0.0, math.inf),
        ("alpha", alpha, 0.0, 1.0),
        ("power", power, 0.0, 1.0),
        ("phase_share", phase_share / 2, 0.0, 1.0),
        ("rarer_share", 0.5 if rarer_share is None else rarer_share, 0.0, 1.0),
    ):
        if not low < number < high:
            raise ValueError(
                f"{name}: expected a number above {low:g} and below {high:g}, got {number}"
            )
    true = abs(effect if true_effect is None else true_effect)
    spread = (
        deff / events_a_unit * sum(v * total / w for v, w in zip(variances, weights, strict=True))
    )
    normal = NormalDist().inv_cdf
    t_test = ((normal(1 - alpha / 2) + normal(power)) / true) ** 2 * spread
    scale = spread / effect**2
    smallest = min(weights) / total
    first = units_min / smallest / scale
    answers = 0.0 if rarer_share is None else 1 / (rarer_share * events_a_unit * smallest) / scale
    spent = alpha * phase_share
    median, decided = (
        u * scale for u in information_needed(spent, (0.5, power), true / effect, first, answers)
    )

    def needed(units: float) -> Needed:
        return Needed(units, units * events_a_unit, units / units_a_day)

    return Plan(needed(t_test), needed(median), needed(decided), deff)


def information_needed(
    alpha: float,
    powers: tuple[float, ...],
    effect_ratio: float = 1.0,
    first: float = 0.0,
    rarer_answer: float = 0.0,
) -> tuple[float, ...]:
    """
    Information until the confidence sequence excludes 0, in units of 1/effect².

    Parameters
    ----------
    alpha : float, ratio
    powers : tuple of float
        Shares of experiments that are decided by then.
    effect_ratio : float
        True difference divided by the least one that matters.
    first : float, in units of 1/effect²
        Nothing is judged before.
    rarer_answer : float, in units of 1/effect²
        Mean information between two rarer answers in the smaller arm; 20 are waited for.

    Returns
    -------
    tuple of float
        Infinite if fewer experiments are decided even after very long.

    Examples
    --------
    >>> median, most = information_needed(0.05, (0.5, 0.8))
    >>> 6.5 < median < 8, 11.5 < most < 13.5
    (True, True)
    """
    found = _stopping(alpha, effect_ratio, first, rarer_answer)
    return tuple(float(np.quantile(found, p, method="higher")) for p in powers)


@lru_cache(maxsize=64)
def _stopping(alpha: float, ratio: float, first: float, rarer_answer: float) -> Float:
    """Information at which each of the simulated experiments is decided."""
    # the first look may be late: a walk needs no steps before it
    clock = max(first, 0.01 / ratio**2) * (1 + STEP) ** np.arange(int(math.log(2e4) / STEP))
    rng = np.random.default_rng(20_240)
    begin = np.maximum(first, rarer_answer * rng.standard_gamma(RARER_MIN, PATHS))
    at, before = np.zeros(PATHS), 0.0
    decided = np.full(PATHS, np.inf)
    running = np.arange(PATHS)
    for u in clock:
        step = u - before
        at[running] += ratio * step + math.sqrt(step) * rng.standard_normal(len(running))
        bound = math.sqrt((u + 1) * (math.log1p(u) - 2 * math.log(alpha)))
        over = np.abs(at[running]) > bound - OVERSHOOT * math.sqrt(step if before else 0.0)
        over &= u >= begin[running]
        decided[running[over]] = u
        running, before = running[~over], u
        if not len(running):
            break
    return decided
