"""
A plan of an experiment, as lines for a terminal.

Rule of the file: texts only. Numbers are rounded to what the simulation knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stream_monitor.cli.terminal import readable
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.planning import Base, Planned, Way
from stream_monitor.experiments.units import OUTCOMES_OF_UNIT_MAX
from stream_monitor.stats.confidence_sequences import RARER_MIN, UNIT_SHARE_MAX, UNITS_MIN

if TYPE_CHECKING:
    from stream_monitor.offline.past import Past

LIMITS = {
    "rare_answers": "the rarer answer is rare: {answers} of them are waited for in each arm",
    "few_units": "few units are needed for the effect itself, but {units:,} effective units of "
    "each arm are waited for",
    "heavy_tail": "single units are large: {tail} units of each arm are waited for, until none "
    "makes up more than {share:.0%} of the variance",
    "small_weight": "{arm} and the control have unequal weights; with equal weights of all arms "
    "the sequence would need {equal} units",
    "correlated_calls": "calls of one unit are alike: {calls:.3g} of them are worth {worth:.2g} "
    "independent ones",
    "heavy_units": "a few very active units: {units_seen:.3g} units count as 1",
    "effect": "the effect is small beside the spread; half of it needs about four times as much",
}
DAYS_LEAST, DAYS_LONGEST, ROUGH_UNITS, ROUGH_ANSWERS = 1, 14, 200, 20
APART = 2
"""A plan that is so many times as long or as short as the file is told."""


def known(definition: Definition, base: Base, past: Past | None) -> list[str]:
    """What the plan is made of."""
    outcome = definition.outcomes[0]
    arms = zip(definition.arms, definition.weights, strict=True)
    weights = " · ".join(f"{arm.name} {w / 100:g}" for arm, w in arms)
    spread = math.sqrt(base.variance)
    if base.yes_no:
        about = f"mean {base.mean:.4g}"
    elif outcome.is_log:
        about = f"standard deviation of the logarithm {spread:.3g}"
    else:
        mean = "" if math.isnan(base.mean) else f"mean {base.mean:.4g}, "
        about = f"{mean}standard deviation {spread:.4g}"
    lines = [f"{outcome.metric}: {about}; {weights} %, alpha {definition.alpha:g}"]
    if past is not None:
        days = "" if math.isnan(past.days) else f" in {past.days:.3g} days"
        units = (
            "every call is a unit, because rows have no `unit`"
            if past.unit == "event"
            else f"{past.units:,.0f} units, {past.effective_units:,.0f} effective, "
            f"{base.calls_a_unit:.3g} calls a unit"
        )
        lines.append(
            f"{past.model}: {past.calls:,} calls{days}, {past.outcomes:,.0f} outcomes; {units}"
        )
    return [readable(line) for line in [*lines, ""]]


def table_of(found: Sequence[Planned], power: float) -> list[str]:
    """Units of each arm, calls and days, by effect and way of judging."""
    arms = list(found[0].sequence.units)
    rows = [["effect", "judged by", *(f"units {arm}" for arm in arms), "calls in all", "days"]]
    for each in found:
        ways = (
            ("sequence, half of all decided by", each.sequence_median),
            (f"sequence, {100 * power:g} % by", each.sequence),
            (f"t-test with {100 * power:g} % power, one look", each.t_test),
            ("nothing is judged before", each.burn_in),
        )
        for i, (name, way) in enumerate(ways):
            rows.append([f"{each.effect:g}" if i == 0 else "", name, *cells(way)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        padded = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in pairs]
        lines.append(readable("  ".join(padded).rstrip()))
    return [*lines, ""]


def cells(way: Way) -> list[str]:
    """Units of each arm, calls and days."""
    days = "?" if way.days is None else f"{way.days:.1f}" if way.days < 100 else f"{way.days:,.0f}"
    return [*(count(n) for n in way.units.values()), count(way.calls), days]


def count(n: float) -> str:
    """
    A number of which two or three digits are known.

    >>> count(23456.7), count(1204.0), count(38.2), count(math.inf)
    ('23,500', '1,200', '39', 'never')
    """
    if not math.isfinite(n):
        return "never"
    return f"{math.ceil(n):,}" if n < 1_000 else f"{float(f'{n:.3g}'):,.0f}"


def limits(base: Base, each: Planned, *, several: bool) -> str:
    """What limits the plan of an effect."""
    words = {
        "answers": RARER_MIN,
        "units": UNITS_MIN,
        "tail": count(base.units_of_tail),
        "share": UNIT_SHARE_MAX,
        "arm": each.arm,
        "equal": count(each.units_with_equal_weights or math.inf),
        "calls": base.outcomes_a_unit,
        "worth": base.outcomes_a_unit / base.design_effect,
        "units_seen": 1 / base.effective_share,
    }
    told = "; ".join(LIMITS[limit].format(**words) for limit in each.limits)
    of = f" for effect {each.effect:g}" if several else ""
    return readable(f"What limits it{of}: {told}.")


def notes_of(
    definition: Definition, base: Base, past: Past | None, found: Sequence[Planned]
) -> list[str]:
    """What the reader of a plan should know besides."""
    outcome, steps = definition.outcomes[0], definition.steps
    notes = []
    if steps:
        notes.append(
            f"each of {steps} steps may spend 1/{steps} of alpha, and its sums begin again: this "
            "is what the step with these weights needs"
        )
    if base.outcomes_a_unit < base.calls_a_unit and base.calls_a_unit > OUTCOMES_OF_UNIT_MAX:
        notes.append(f"the first {OUTCOMES_OF_UNIT_MAX} outcomes of a unit count")
    if not base.yes_no and not outcome.is_log and outcome.cap is None:
        far = "" if past is not None else ", and how far its tail goes is not known without --from"
        notes.append(
            f"{outcome.metric} may be of any size{far}: nothing is decided while one unit makes up "
            f"more than {UNIT_SHARE_MAX:.0%} of the variance of an arm; --cap or --scale log helps"
        )
    if outcome.is_log and past is None and not math.isnan(base.mean):
        notes.append("mean and standard deviation are taken as those of a lognormal distribution")
    if base.yes_no and not outcome.is_share and past is None:
        notes.append(f"{outcome.metric} is taken as 0 or 1, because --sd is not given")
    if past is not None:
        notes += _notes_of_past(past)
    days = [each.sequence.days for each in found if each.sequence.days is not None]
    if not days:
        notes.append("days are not known: give --units-a-day")
    elif min(days) < DAYS_LEAST:
        notes.append("nothing is promoted on the first day, unless `duration` says so")
    if days and max(days) > DAYS_LONGEST:
        notes.append(
            f"an experiment is inconclusive after {DAYS_LONGEST} days, unless `duration` says more"
        )
    if (
        past is not None
        and past.base.calls_a_unit > 1
        and any(not past.days / APART < d < past.days * APART for d in days)
    ):
        notes.append(
            f"the file has {past.days:.3g} days: in a longer time more units return and fewer are "
            "new, in a shorter time the reverse; a file as long as the plan is most exact"
        )
    return notes


def _notes_of_past(past: Past) -> list[str]:
    notes = []
    if len(past.versions) > 1:
        notes.append(f"versions {', '.join(past.versions)} are taken together")
    if past.unit == "event":
        notes.append(
            "units are events: if calls belong to users or sessions, name that column with --map "
            "unit=COLUMN, because alike calls need more of them"
        )
    elif n := past.left_out.get("no_unit", 0):
        notes.append(f"{n:,} calls without `unit` are left out")
    if past.effective_units < ROUGH_UNITS or past.rarer_answers < ROUGH_ANSWERS:
        few = (
            f"{past.effective_units:,.0f} effective units"
            if past.effective_units < ROUGH_UNITS
            else f"{past.rarer_answers:,.0f} of the rarer answer"
        )
        notes.append(f"the past is short ({few}): the plan is rough")
    return notes
