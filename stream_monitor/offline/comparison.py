"""
Two arms compared at the end of an experiment: the textbook's numbers, and the confidence sequence
beside them.

Rule of the file: the least effect that matters is never taken from the difference of the arms. What
is not defined is None and not a number that looks like one.
"""

from __future__ import annotations

import math

from msgspec import Struct

from stream_monitor.arrays import Float
from stream_monitor.offline.results import Arm, Results
from stream_monitor.stats.confidence_sequences import (
    RARER_MIN,
    UNIT_SHARE_MAX,
    UNITS_MIN,
    half_width,
)
from stream_monitor.stats.fixed_horizon import (
    EffectSize,
    cohens_d,
    cohens_h,
    two_proportions,
    welch,
)
from stream_monitor.stats.unit_sums import (
    N,
    difference,
    effective_units,
    mean_and_variance,
    rarer_answers,
    shares_of_variance,
    unit_terms,
)

SMALL = 0.2
"""Standard deviations: a small effect by Cohen."""


class ArmNumbers(Struct, frozen=True):
    """What is known of one arm."""

    name: str
    n: int
    units: int
    mean: float
    sd: float | None
    """Standard deviation between units."""
    effective_units: float


class Effect(Struct, frozen=True):
    """An effect size with its 95 % interval."""

    estimate: float
    low: float
    high: float


class OnePlannedLook(Struct, frozen=True):
    """Valid at one planned look, and at no other. None is not defined."""

    t: float | None
    df: float | None
    p: float | None
    cohens_d: Effect | None
    cohens_h: Effect | None
    z: float | None
    """Of the two proportions, with their pooled variance."""
    p_of_z: float | None


class EveryLook(Struct, frozen=True):
    """The confidence sequence at its newest look; it holds at all looks at once."""

    alpha: float
    effect: float | None
    effect_from: str
    low: float | None
    high: float | None
    waits_for: str | None
    """What is missing until it may be judged."""


class Comparison(Struct, frozen=True):
    """Two arms, compared."""

    control: ArmNumbers
    arm: ArmNumbers
    difference: float
    one_planned_look: OnePlannedLook
    every_look: EveryLook
    units_are_rows: bool
    moved_share: float
    """Share of rows left out because their unit was in the other arm before."""


def compare(results: Results, effect: float | None, alpha: float) -> Comparison:
    """
    Compare two arms.

    Parameters
    ----------
    results : Results
    effect : float or None
        Least difference that matters.
    alpha : float
        Of the confidence sequence.

    Returns
    -------
    Comparison

    Examples
    --------
    >>> import numpy as np
    >>> ones, x = np.ones(4), (np.array([1.0, 2, 4, 9]), np.array([2.0, 3, 5, 9]))
    >>> arms = Arm("control", ones, x[0]), Arm("b", ones, x[1])
    >>> found = compare(Results(*arms, 0.0, False, False, 0, []), effect=1.0, alpha=0.05)
    >>> found.difference, round(found.one_planned_look.p, 4)
    (0.75, 0.7615)
    >>> found.every_look.waits_for
    'effective units: 4 of 200 in each arm'
    """
    control, arm = (unit_terms(a.n, a.x).sum(axis=0) for a in (results.control, results.arm))
    t, yes_no = welch(control, arm), results.yes_no
    plain = yes_no and not results.by_unit
    z, p_of_z = two_proportions(control, arm) if plain else (math.nan, math.nan)
    kept = float(control[N] + arm[N])
    return Comparison(
        _numbers(results.control, control, results.origin),
        _numbers(results.arm, arm, results.origin),
        t.difference,
        OnePlannedLook(
            _known(t.t),
            _known(t.df),
            _known(t.p),
            _effect(cohens_d(control, arm)),
            _effect(cohens_h(control, arm)) if yes_no else None,
            _known(z),
            _known(p_of_z),
        ),
        _every_look(results, control, arm, effect, alpha),
        units_are_rows=not results.by_unit,
        moved_share=results.moved / (kept + results.moved),
    )


def _every_look(
    results: Results, control: Float, arm: Float, effect: float | None, alpha: float
) -> EveryLook:
    source = "--effect"
    if effect is None:
        effect, source = SMALL * _sd(control), f"{SMALL} standard deviations of the control"
        if not effect > 0:
            effect, source = SMALL * _sd(arm), f"{SMALL} standard deviations of the arm"
    estimate, variance = difference(control, arm)
    half = half_width(variance, effect, alpha) if 0 < effect < math.inf else math.nan
    waits_for = _waits_for(control, arm, results)
    if waits_for is None and abs(estimate) > half:  # it would decide
        waits_for = _one_unit((results.control, control), (results.arm, arm))
    return EveryLook(
        alpha,
        effect if 0 < effect < math.inf else None,
        source,
        _known(estimate - half),
        _known(estimate + half),
        waits_for,
    )


def _waits_for(control: Float, arm: Float, results: Results) -> str | None:
    """What is missing until the sequence is judged; the same burn-in as that of an experiment."""
    effective = min(effective_units(sums) for sums in (control, arm))
    if effective < UNITS_MIN:
        return f"effective units: {effective:,.0f} of {UNITS_MIN:,} in each arm"
    rarer = min(rarer_answers(sums) for sums in (control, arm)) if results.yes_no else math.inf
    if rarer < RARER_MIN:
        return f"the rarer answer: {rarer:,.0f} of {RARER_MIN} in each arm"
    return None


def _one_unit(*arms: tuple[Arm, Float]) -> str | None:
    """Whether one unit of an arm makes up too much of its variance."""
    share, name = max(
        (float(shares_of_variance(sums, arm.n, arm.x).max()), arm.name) for arm, sums in arms
    )
    if share <= UNIT_SHARE_MAX:
        return None
    return (
        f"more like the largest: one unit makes up {share:.0%} of the variance of {name}, and at "
        f"most {UNIT_SHARE_MAX:.0%} may be; cap values at a number from before the experiment, or "
        "compare their logarithms"
    )


def _sd(sums: Float) -> float:
    """Standard deviation between units, in units of the mean; NaN of a single one."""
    variance = mean_and_variance(sums)[1]
    return math.sqrt(variance * float(sums[0])) if variance < math.inf else math.nan


def _numbers(arm: Arm, sums: Float, origin: float) -> ArmNumbers:
    mean = origin + mean_and_variance(sums)[0]
    effective = effective_units(sums)
    return ArmNumbers(arm.name, int(sums[N]), len(arm.n), mean, _known(_sd(sums)), effective)


def _effect(found: EffectSize) -> Effect | None:
    return Effect(*found) if math.isfinite(found.low) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
