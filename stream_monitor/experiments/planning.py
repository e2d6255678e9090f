"""
How long an experiment will take: units, calls and days, by what is known of its outcome.

Rule of the file: pure functions. What the judgement waits for and what it may spend (burn-in,
phases, arms) is taken from there, so that a plan is of the experiment that will run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.experiments.definition import SLOTS, Definition
from stream_monitor.experiments.judgement import risk_of_phase
from stream_monitor.experiments.measures import Outcome
from stream_monitor.experiments.units import OUTCOMES_OF_UNIT_MAX
from stream_monitor.stats.confidence_sequences import RARER_MIN, UNITS_MIN
from stream_monitor.stats.sample_size import Plan, design_effect, plan, variances_of_shares

ALIKE, HEAVY, SMALL, WAITED = 2.0, 0.25, 0.2, 0.8
"""
What limits a plan: a design effect above; effective units below this share; a weight of one of two
arms below; a burn-in of at least this part of the median.
"""
POWER_MAX = 0.999
"""The simulation has 20,000 paths, so it knows no more of the last ones."""


class Base(NamedTuple):
    """What is known of an outcome before the experiment."""

    mean: float
    """NaN where it is not known and not needed."""
    variance: float
    """Of one outcome, by `mean` if `yes_no`; `design_effect` times as much counts for units."""
    yes_no: bool
    design_effect: float = 1.0
    calls_a_unit: float = 1.0
    outcomes_a_unit: float = 1.0
    """Those that count: the first 50 of a unit, without calls that have no outcome."""
    effective_share: float = 1.0
    """Equally active units that would know as much, divided by the number of units."""
    units_a_day: float = math.nan
    units_of_tail: float = 0.0
    """Units of an arm until none of them is too great a share of the variance."""


class Way(msgspec.Struct, frozen=True):
    """What an experiment needs, judged in one way."""

    units: dict[str, float]
    """By arm."""
    units_in_all: float
    calls: float
    days: float | None


class Planned(msgspec.Struct, frozen=True):
    """What an effect needs."""

    effect: float
    arm: str
    """The arm with the smallest weight: others are decided sooner."""
    t_test: Way
    """At one planned look."""
    sequence_median: Way
    sequence: Way
    """The share of experiments that is the power is decided by then."""
    burn_in: Way
    """Nothing is judged before."""
    limits: list[str]
    """
    Of rare_answers, few_units, heavy_tail, small_weight, correlated_calls, heavy_units; or effect.
    """
    units_with_equal_weights: float | None
    """What `sequence` would need; where the weights are a limit."""


def base_of(
    outcome: Outcome,
    *,
    mean: float | None,
    sd: float | None,
    calls_a_unit: float | None = None,
    icc: float | None = None,
    units_a_day: float | None = None,
) -> Base:
    """
    What is known, by numbers.

    Parameters
    ----------
    outcome : Outcome
    mean, sd : float or None
        Of the outcomes of calls. A yes/no outcome has a mean alone. On the logarithm, `sd` without
        `mean` is that of the logarithm; with it, values count as lognormal.
    calls_a_unit, icc : float or None
        Calls of a unit (1), and the correlation of two outcomes of one unit.
    units_a_day : float or None
        New units a day, in all arms.

    Raises
    ------
    InputError
        A number is missing or out of its range.

    Examples
    --------
    >>> base = base_of(Outcome("accuracy", 0.02), mean=0.9, sd=None, calls_a_unit=21, icc=0.25)
    >>> round(base.variance, 3), base.design_effect
    (0.09, 6.0)
    """
    yes_no = outcome.is_share or (sd is None and not outcome.is_log)
    found = Base(math.nan if mean is None else mean, _variance(outcome, mean, sd), yes_no)
    if units_a_day is not None:
        found = found._replace(units_a_day=_positive("--units-a-day", units_a_day))
    if calls_a_unit is None:
        if icc is not None:
            raise InputError("--icc needs --calls-a-unit: units of one call have no correlation")
        return found
    if not 1 <= calls_a_unit < math.inf:
        raise InputError(f"--calls-a-unit {calls_a_unit:g}: expected a mean number from 1 on")
    if icc is None and calls_a_unit > 1:
        raise InputError(
            f"--calls-a-unit {calls_a_unit:g} needs --icc, the correlation of two outcomes of one "
            "unit: 0 if they are independent; --from FILE measures it"
        )
    icc = icc or 0.0
    if not 0 <= icc <= 1:
        raise InputError(f"--icc {icc:g}: expected a number from 0 to 1, such as 0.05")
    counted = min(calls_a_unit, OUTCOMES_OF_UNIT_MAX)
    return found._replace(
        design_effect=design_effect(counted, icc),
        calls_a_unit=calls_a_unit,
        outcomes_a_unit=counted,
    )


def _variance(outcome: Outcome, mean: float | None, sd: float | None) -> float:
    metric = outcome.metric
    for key, value in (("--mean", mean), ("--cap", outcome.cap)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"{key} {value:g}: expected a number")
    if sd is not None and outcome.is_share:
        raise InputError(f"--sd {sd:g}: {metric} is 0 or 1, its mean says its spread: leave it out")
    if sd is not None:
        _positive("--sd", sd)
    if outcome.is_log:
        if sd is None:
            raise InputError(f"--sd is missing: give --mean and --sd of {metric}, or --from FILE")
        return sd * sd if mean is None else math.log1p((sd / _positive("--mean", mean)) ** 2)
    if mean is None and sd is None:
        raise InputError(
            f"nothing is known of {metric}: give --mean"
            f"{'' if outcome.is_share else ' and --sd'}, or --from FILE with the model's past"
        )
    if sd is not None:
        return sd * sd
    assert mean is not None
    if not 0 < mean < 1:
        raise InputError(
            f"--mean {mean:g}: the mean of {metric} must be between 0 and 1, such as 0.9"
            if outcome.is_share
            else f"--sd is missing: --mean {mean:g} alone says no spread of {metric}"
        )
    return mean * (1 - mean)


def _positive(key: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{key} {value:g}: expected a number above 0")
    return value


def planned(definition: Definition, base: Base, power: float = 0.8) -> Planned:
    """
    What the primary outcome of an experiment needs, with the weights of its first phase.

    Parameters
    ----------
    definition : Definition
        `maturity_ms` is added to the days.
    base : Base
    power : float, ratio

    Returns
    -------
    Planned

    Raises
    ------
    InputError
        The effect or a weight cannot be.

    Notes
    -----
    About half a second an effect, for two simulations. The variance of the arm of a yes/no outcome
    is that of the share nearer to 1/2, the greater one.

    Examples
    --------
    >>> from stream_monitor.experiments.definition import definition_of
    >>> event = {"model": "m", "experiment": "e", "arms": ["control", "b"]}
    >>> event["primary"] = {"metric": "accuracy", "effect": 0.02}
    >>> definition = definition_of(event)
    >>> found = planned(definition, base_of(definition.outcomes[0], mean=0.9, sd=None))
    >>> round(found.t_test.units_in_all), found.limits
    (7676, ['effect'])
    """
    if not 0 < power <= POWER_MAX:
        raise InputError(
            f"--power {power:g}: expected a number above 0 and up to {POWER_MAX}, such as 0.8"
        )
    weights = [w / SLOTS for w in definition.weights]
    names = [arm.name for arm in definition.arms]
    if min(weights) <= 0:
        none = names[weights.index(min(weights))]
        raise InputError(f"--weights: {none} has no traffic, so nothing is ever known of it")
    b = min(range(1, len(weights)), key=weights.__getitem__)
    outcome = definition.outcomes[0]
    rarer = _rarer(outcome, base)

    def way(units: float, share: float) -> Way:
        in_all = units / share
        days = in_all / base.units_a_day + definition.maturity_ms / 86_400_000
        return Way(
            {name: in_all * w for name, w in zip(names, weights, strict=True)},
            in_all,
            in_all * base.calls_a_unit,
            days if math.isfinite(days) else None,
        )

    pair = weights[0] + weights[b]
    smaller = min(weights[0], weights[b]) / pair
    found = _plan(definition, base, (weights[0], weights[b]), power)
    by_units = UNITS_MIN / base.effective_share / smaller
    by_tail = base.units_of_tail / smaller
    by_answers = RARER_MIN / (rarer * base.outcomes_a_unit * smaller) if rarer else 0.0
    limits = [
        name
        for name, is_one in (
            ("rare_answers", by_answers >= WAITED * found.sequence_median.units),
            ("few_units", by_units >= WAITED * found.sequence_median.units),
            ("heavy_tail", by_tail >= max(by_units, WAITED * found.sequence_median.units)),
            ("small_weight", smaller < SMALL),
            ("correlated_calls", base.design_effect > ALIKE),
            ("heavy_units", base.effective_share < HEAVY),
        )
        if is_one
    ]
    equal = None
    if "small_weight" in limits:
        of_two = _plan(definition, base, (1, 1), power).sequence.units
        equal = _finite(of_two * len(weights) / 2)
    return Planned(
        effect=outcome.effect,
        arm=names[b],
        t_test=way(found.t_test.units, pair),
        sequence_median=way(found.sequence_median.units, pair),
        sequence=way(found.sequence.units, pair),
        burn_in=way(max(by_units, by_answers, by_tail), pair),
        limits=limits or ["effect"],
        units_with_equal_weights=equal,
    )


def _rarer(outcome: Outcome, base: Base) -> float | None:
    """Share of the rarer answer, in the arm that has fewer of them."""
    if not base.yes_no:
        return None
    shares = base.mean, base.mean + _to_the_middle(outcome, base)
    return min(min(p, 1 - p) for p in shares)


def _to_the_middle(outcome: Outcome, base: Base) -> float:
    return -outcome.effect if base.mean > 0.5 else outcome.effect


def _plan(definition: Definition, base: Base, weights: tuple[float, float], power: float) -> Plan:
    outcome = definition.outcomes[0]
    variances = base.variance, base.variance
    if base.yes_no:
        try:
            variances = variances_of_shares(base.mean, _to_the_middle(outcome, base))
        except ValueError:
            raise InputError(
                f"--effect {outcome.effect:g}: the mean of {outcome.metric} is {base.mean:g}, and "
                "a share stays between 0 and 1; give a smaller effect"
            ) from None
    return plan(
        math.log1p(outcome.effect) if outcome.is_log else outcome.effect,
        variances,
        weights=weights,
        events_a_unit=base.outcomes_a_unit,
        deff=base.design_effect,
        alpha=definition.alpha / (len(definition.arms) - 1),
        power=power,
        rarer_share=_rarer(outcome, base),
        units_min=max(UNITS_MIN / base.effective_share, base.units_of_tail),
        phase_share=risk_of_phase(definition.steps, 1),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
