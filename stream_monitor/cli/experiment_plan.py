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
    from stream_monitor.experiments.planning import Base, Planned
    from stream_monitor.offline.past import Past

ANY = 0.01
"""An effect where none is asked for; the race has no use for it."""


@click.command()
@click.argument("definition", required=False, metavar="[DEFINITION]")
@click.option(
    "--metric",
    metavar="NAME",
    help="What decides: accuracy, error, latency_ms, features.NAME, …",
)
@click.option(
    "--effect",
    "effects",
    type=float,
    multiple=True,
    metavar="NUMBER",
    help="Smallest difference that matters; relative with --scale log (0.05 is 5 %). Also several.",
)
@click.option(
    "--times",
    type=float,
    multiple=True,
    metavar="NUMBER",
    help="For --metric error: when is an arm rolled back that fails so many times as often? Also "
    "several.",
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
    definition: str | None,
    metric: str | None,
    effects: tuple[float, ...],
    times: tuple[float, ...],
    table: str | None,
    power: float,
    as_json: bool,
    **given: Any,
) -> None:
    """
    Say how many units, calls and days an experiment needs.

    What is known of the outcome are numbers (--mean, for a number also --sd), or the model's own
    past: --from FILE, a table or events, read as `replay` reads them. "Not worse than --effect"
    needs as much as a difference of --effect. With --times: how many calls a bad canary serves
    before the race of failed calls rolls it back.

    DEFINITION is the file of `start`. With --from FILE each of its outcomes is planned, guards too,
    and it says which one takes longest.

    \b
    Examples:
      stream-monitor experiment plan --metric accuracy --effect 0.02 --mean 0.9 \\
        --calls-a-unit 20 --icc 0.05 --units-a-day 5000
      stream-monitor experiment plan --metric latency_ms --effect 0.05 --mean 30 --sd 12
      stream-monitor experiment plan --metric error --effect 0.005 --effect 0.01 --mean 0.01 \\
        --weights control=90,b=10
      stream-monitor experiment plan --metric error --times 2 --times 10 --mean 0.005 \\
        --weights control=95,canary=5
      stream-monitor experiment plan --metric accuracy --effect 0.02 --from last-week.jsonl --json
      stream-monitor experiment plan fraud-17.json --from last-week.jsonl
    """  # noqa: D301  \b is how click keeps lines apart
    from stream_monitor.cli.experiment_plan_lines import known, limits, notes_of, table_of
    from stream_monitor.cli.terminal import readable
    from stream_monitor.experiments.planning import planned

    if definition is not None:
        _plan_file(definition, metric, effects or times, table, power, given, as_json=as_json)
        return
    metric = _checked(metric, effects, times)
    definitions = [_definition(metric, effect, given) for effect in effects or (ANY,)]
    base, past, notes = _base(definitions[0], table, given)
    if times:
        _show_races(definitions[0], base, times, notes, as_json=as_json)
        return
    found = [planned(d, base, power) for d in definitions]
    notes += notes_of(definitions[0], base, past, found)
    if as_json:
        click.echo(_json(definitions[0], base, past, found, notes, power))
        return
    for line in [*known(definitions[0], base, past), *table_of(found, power)]:
        click.echo(line)
    for each in found:
        click.echo(limits(base, each, several=len(found) > 1))
    for note in notes:
        click.echo(readable(f"note: {note}"))


def _checked(metric: str | None, effects: tuple[float, ...], times: tuple[float, ...]) -> str:
    if metric is None:
        raise InputError("--metric is missing: accuracy, error, latency_ms, …; or give the file")
    if effects and times:
        raise InputError(
            "--effect is of intervals, and --times of the race of failed calls: give one of them"
        )
    if not effects and not times:
        raise InputError(
            "--effect is missing: the smallest difference that matters"
            + ("; or --times, for a canary that fails more often" if metric == "error" else "")
        )
    if times and metric != "error":
        raise InputError(f"--metric {metric}: --times is of failed calls, --metric error")
    return metric


def _plan_file(
    path: str,
    metric: str | None,
    numbers: tuple[float, ...],
    table: str | None,
    power: float,
    given: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Plan every outcome of a definition on the model's past."""
    import msgspec

    from stream_monitor.cli.experiment_options import asked
    from stream_monitor.cli.experiment_plan_file import Part, file_json, file_lines
    from stream_monitor.experiments.definition import definition_of
    from stream_monitor.experiments.planning import planned

    if metric is not None or numbers:
        raise InputError(f"{path}: the file says what is planned; leave --metric and --effect out")
    if not table and not given["predictions"]:
        raise InputError(f"{path}: what is known of its outcomes is missing: give --from FILE")
    whole = definition_of(asked(path, {}))
    given = {**given, "model": given["model"] or whole.model}
    parts, notes = [], []
    for number, outcome in enumerate(whole.outcomes):
        alone = msgspec.structs.replace(whole, outcomes=(outcome,))
        try:
            base, _, found = _base(alone, table, given)
        except InputError as e:
            if not number:
                raise
            notes.append(f"guard {outcome.metric} is not planned: {e}")
            continue
        notes += [note for note in found if note not in notes]
        parts.append(Part(alone, base, planned(alone, base, power), bool(number)))
    notes += [f"guard {race.name} is a race, which needs no minimum" for race in whole.races]
    notes.append("a guard without enough units for an interval holds no promotion back")
    if as_json:
        click.echo(file_json(parts, power, notes))
        return
    for text in [*file_lines(parts, power), *(f"note: {note}" for note in notes)]:
        click.echo(text)


def _base(
    definition: Definition, table: str | None, given: Mapping[str, Any]
) -> tuple[Base, Past | None, list[str]]:
    """What is known of the outcome, by numbers or by the model's past."""
    from stream_monitor.experiments.planning import base_of

    numbers = {k: given[k] for k in ("mean", "sd", "calls_a_unit", "icc")}
    if not table and not given["predictions"]:
        for key in ("model", "labels"):
            if given[key] is not None:
                raise InputError(f"--{key} {given[key]}: it needs --from FILE or --predictions")
        found = base_of(definition.outcomes[0], **numbers, units_a_day=given["units_a_day"])
        return found, None, []
    for key, value in numbers.items():
        if value is not None:
            raise InputError(
                f"--{key.replace('_', '-')} {value:g}: the file says it; leave one of them out"
            )
    past, notes = _past(definition, table, given)
    base = past.base
    if given["units_a_day"] is not None:
        base = base._replace(units_a_day=_above_0("--units-a-day", given["units_a_day"]))
    return base, past, notes


def _show_races(
    definition: Definition, base: Base, times: tuple[float, ...], notes: list[str], *, as_json: bool
) -> None:
    from stream_monitor.cli.experiment_race_lines import NOTES, race_json, race_lines
    from stream_monitor.experiments.race_planning import raced

    calls_a_day = base.units_a_day * base.calls_a_unit
    found = [raced(definition, each, base.mean, calls_a_day) for each in times]
    notes = [*notes, *NOTES]
    if as_json:
        click.echo(race_json(definition, base.mean, found, notes))
        return
    for text in [*race_lines(definition, base.mean, found), *(f"note: {note}" for note in notes)]:
        click.echo(text)


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
