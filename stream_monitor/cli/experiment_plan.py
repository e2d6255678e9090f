"""
`stream-monitor experiment plan`: units, calls and days that an effect needs.

Rule of the file: it reads options and prints. `experiments.planning` computes, `offline.past` reads
what the model did before.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.experiment_options import weights_of
from stream_monitor.cli.input_options import input_options, options_of
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.experiments.definition import Definition
    from stream_monitor.experiments.planning import Base, Planned, Way
    from stream_monitor.offline.past import Past

LIMITS = {
    "rare_answers": "the rarer answer is rare: {answers} of them are waited for in each arm",
    "few_units": "few units are needed for the effect itself, but {units:,} effective units of "
    "each arm are waited for",
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


@click.command()
@click.option(
    "--metric",
    required=True,
    metavar="NAME",
    help="What decides: accuracy, error, latency_ms, features.NAME, …",
)
@click.option(
    "--effect",
    "effects",
    type=float,
    multiple=True,
    required=True,
    metavar="NUMBER",
    help="Smallest difference that matters; relative with --scale log (0.05 is 5 %). Also several.",
)
@click.option("--mean", type=float, metavar="NUMBER", help="Mean of the outcome: of a share, 0.9.")
@click.option("--sd", type=float, metavar="NUMBER", help="Standard deviation of calls' outcomes.")
@click.option("--from", "table", metavar="FILE", help="Read mean and spread from the model's past.")
@click.option("--model", metavar="NAME", help="Of this model, if the file has several.")
@click.option(
    "--scale",
    type=click.Choice(["linear", "log"]),
    help="Difference, or ratio of geometric means. [default: log for latency_ms, else linear]",
)
@click.option("--cap", type=float, metavar="NUMBER", help="Greater values count as this one.")
@click.option("--weights", metavar="ARM=PERCENT,…", help="Shares, the control first. [equal]")
@click.option("--steps", metavar="PERCENT,…", help="Planned weights of the arm, such as 1,5,25,50.")
@click.option("--calls-a-unit", type=float, metavar="NUMBER", help="Mean number. [default: 1]")
@click.option("--icc", type=float, metavar="NUMBER", help="Correlation of two calls of one unit.")
@click.option("--units-a-day", type=float, metavar="NUMBER", help="New units a day, in all arms.")
@click.option("--maturity", metavar="DURATION", help="Age at which calls are judged, such as 10d.")
@click.option("--alpha", type=float, default=0.05, show_default=True, help="Chance of an error.")
@click.option(
    "--power",
    type=float,
    default=0.8,
    show_default=True,
    help="Share of experiments that find the effect.",
)
@input_options
@click.option(
    "--config", metavar="FILE", help="The configuration. [default: ./monitor.yaml if it exists]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    metric: str,
    effects: tuple[float, ...],
    table: str | None,
    power: float,
    as_json: bool,
    **given: Any,
) -> None:
    """
    Say how many units, calls and days an experiment needs.

    What is known of the outcome are numbers (--mean, for a number also --sd), or the model's own
    past: --from FILE, a table or events, read as `replay` reads them. "Not worse than --effect"
    needs as much as a difference of --effect.

    \b
    Examples:
      stream-monitor experiment plan --metric accuracy --effect 0.02 --mean 0.9 \\
        --calls-a-unit 20 --icc 0.05 --units-a-day 5000
      stream-monitor experiment plan --metric latency_ms --effect 0.05 --mean 30 --sd 12
      stream-monitor experiment plan --metric error --effect 0.005 --effect 0.01 --mean 0.01 \\
        --weights control=90,b=10
      stream-monitor experiment plan --metric accuracy --effect 0.02 --from last-week.jsonl --json
    """  # noqa: D301  \b is how click keeps lines apart
    from stream_monitor.cli.terminal import readable
    from stream_monitor.experiments.planning import base_of, planned

    definitions = [_definition(metric, effect, given) for effect in effects]
    outcome = definitions[0].outcomes[0]
    past: Past | None = None
    notes: list[str] = []
    numbers = {k: given[k] for k in ("mean", "sd", "calls_a_unit", "icc")}
    if table or given["predictions"]:
        for key, value in numbers.items():
            if value is not None:
                raise InputError(
                    f"--{key.replace('_', '-')} {value:g}: the file says it; leave one of them out"
                )
        past, notes = _past(definitions[0], table, given)
        base = past.base
        if given["units_a_day"] is not None:
            base = base._replace(units_a_day=_above_0("--units-a-day", given["units_a_day"]))
    else:
        for key in ("model", "labels"):
            if given[key] is not None:
                raise InputError(f"--{key} {given[key]}: it needs --from FILE or --predictions")
        base = base_of(outcome, **numbers, units_a_day=given["units_a_day"])
    found = [planned(d, base, power) for d in definitions]
    notes += _notes(definitions[0], base, past, found)
    if as_json:
        click.echo(_json(definitions[0], base, past, found, notes, power))
        return
    for line in [*_known(definitions[0], base, past), *_table(found, power)]:
        click.echo(line)
    for d, each in zip(definitions, found, strict=True):
        click.echo(_limits(d, base, each, several=len(found) > 1))
    for note in notes:
        click.echo(readable(f"note: {note}"))


def _definition(metric: str, effect: float, given: Mapping[str, Any]) -> Definition:
    """The experiment that is planned, checked as `start` checks it."""
    from stream_monitor.experiments.definition import definition_of

    steps = [] if given["steps"] is None else _steps(given["steps"])
    if given["weights"] is not None:
        weights = weights_of(given["weights"])
    else:
        of_arm = steps[-1] if steps else 50.0
        weights = {"control": 100 - of_arm, "b": of_arm}
    primary = {"metric": metric, "effect": effect, "scale": given["scale"], "cap": given["cap"]}
    return definition_of(
        {
            "model": given["model"] or "model",
            "experiment": "plan",
            "arms": list(weights),
            "weights": weights,
            "primary": primary,
            "maturity": given["maturity"] or 0,
            "alpha": given["alpha"],
            "steps": steps,
        }
    )


def _steps(text: str) -> list[float]:
    try:
        found = [float(part.removesuffix("%")) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--steps {text}: expected numbers such as 1,5,25,50") from None
    if not all(0 < step < 100 for step in found):
        raise InputError(f"--steps {text}: expected percent above 0 and below 100")
    return found


def _above_0(key: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{key} {value:g}: expected a number above 0")
    return value


def _past(
    definition: Definition, table: str | None, given: Mapping[str, Any]
) -> tuple[Past, list[str]]:
    from stream_monitor.cli.terminal import reading
    from stream_monitor.config import load
    from stream_monitor.offline.past import past_of

    settings = load(given["config"], os.environ)
    options = options_of(given, table, settings.core)
    with reading(options, "reading") as events:
        events.scan()
        span_ms = (events.last_ms or 0) - (events.first_ms or 0)
        past = past_of(
            events,
            definition.outcomes[0],
            settings,
            given["model"],
            span_ms=span_ms,
            has_times=events.has_times,
        )
        return past, list(events.notes)


def _known(definition: Definition, base: Base, past: Past | None) -> list[str]:
    """What the plan is made of."""
    from stream_monitor.cli.terminal import readable

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


def _table(found: Sequence[Planned], power: float) -> list[str]:
    """Units of each arm, calls and days, by effect and way of judging."""
    from stream_monitor.cli.terminal import readable

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
            rows.append([f"{each.effect:g}" if i == 0 else "", name, *_cells(way)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in pairs]
        lines.append(readable("  ".join(cells).rstrip()))
    return [*lines, ""]


def _cells(way: Way) -> list[str]:
    days = "?" if way.days is None else f"{way.days:.1f}" if way.days < 100 else f"{way.days:,.0f}"
    return [*(_count(n) for n in way.units.values()), _count(way.calls), days]


def _count(n: float) -> str:
    """
    A number of which two or three digits are known.

    >>> _count(23456.7), _count(1204.0), _count(38.2), _count(math.inf)
    ('23,500', '1,200', '39', 'never')
    """
    if not math.isfinite(n):
        return "never"
    return f"{math.ceil(n):,}" if n < 1_000 else f"{float(f'{n:.3g}'):,.0f}"


def _limits(definition: Definition, base: Base, each: Planned, *, several: bool) -> str:
    from stream_monitor.cli.terminal import readable
    from stream_monitor.experiments.judgement import RARER_MIN, units_min

    words = {
        "answers": RARER_MIN,
        "units": units_min(definition.outcomes[0], yes_no=base.yes_no),
        "arm": each.arm,
        "equal": _count(each.units_with_equal_weights or math.inf),
        "calls": base.outcomes_a_unit,
        "worth": base.outcomes_a_unit / base.design_effect,
        "units_seen": 1 / base.effective_share,
    }
    told = "; ".join(LIMITS[limit].format(**words) for limit in each.limits)
    of = f" for effect {each.effect:g}" if several else ""
    return readable(f"What limits it{of}: {told}.")


def _notes(
    definition: Definition, base: Base, past: Past | None, found: Sequence[Planned]
) -> list[str]:
    from stream_monitor.experiments.units import OUTCOMES_OF_UNIT_MAX

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
        notes.append(
            f"{outcome.metric} may be of any size, so 2,000 effective units of each arm are waited "
            "for; --cap or --scale log needs 200"
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


def _json(
    definition: Definition,
    base: Base,
    past: Past | None,
    found: Sequence[Planned],
    notes: list[str],
    power: float,
) -> str:
    import msgspec

    outcome = definition.outcomes[0]
    arms = zip(definition.arms, definition.weights, strict=True)
    told: dict[str, Any] = {
        "metric": outcome.metric,
        "scale": "log" if outcome.is_log else "linear",
        "weights": {arm.name: w / 100 for arm, w in arms},
        "alpha": definition.alpha,
        "power": power,
        "base": base._asdict(),
        **({} if past is None else {"past": {**past._asdict(), "base": None}}),
        "effects": msgspec.to_builtins(found),
        "notes": notes,
    }
    if past is not None:
        del told["past"]["base"]
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
