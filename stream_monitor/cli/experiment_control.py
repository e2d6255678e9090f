"""
`stream-monitor experiment start | change | status | stop | list`.

Rule of the file: it reads options, prints, and writes one record. What is written is made and
checked in `experiment_events`; what is there is read by `experiment_board`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stream_monitor.cli.experiment_caps import resolve_caps
from stream_monitor.cli.input_options import input_options
from stream_monitor.cli.terminal import user

if TYPE_CHECKING:
    from stream_monitor.cli.experiment_board import ExperimentBoard, Known
    from stream_monitor.cli.experiment_events import Made
    from stream_monitor.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
_model = click.option("--model", metavar="NAME", help="Of this model, if several have the name.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
_by = click.option("--by", metavar="WHO", help="Who does it. [default: the user]")
_dry_run = click.option("--dry-run", is_flag=True, help="Print the event; write nothing.")


def _config(f: F) -> F:
    return click.option(
        "--config",
        type=click.Path(dir_okay=False),
        help="Configuration with the address of Kafka. [default: ./monitor.yaml if it exists]",
    )(f)


@click.command()
@click.argument("file", required=False)
@click.option("--model", metavar="NAME", help="Model whose calls are compared.")
@click.option("--name", metavar="NAME", help="Name of the experiment; it salts the split.")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="NAME[=VERSION]",
    help="An arm, and the version that it serves; the control first. Twice or more.",
)
@click.option("--weights", metavar="ARM=PERCENT,…", help="Shares of units. [default: equal]")
@click.option(
    "--metric", metavar="NAME", help="What decides: accuracy, error, latency_ms, features.NAME, …"
)
@click.option(
    "--effect",
    type=float,
    metavar="NUMBER",
    help="Smallest difference that matters; relative for latency_ms (0.05 is 5 %).",
)
@click.option(
    "--goal",
    type=click.Choice(["better", "not worse"]),
    help="What promotes an arm: it is better, or not worse than by --effect. [default: better]",
)
@click.option(
    "--guard",
    "guards",
    multiple=True,
    metavar="METRIC=EFFECT",
    help="What must not get worse; a race: 'latency_ms above 250', 'violations race'.",
)
@click.option(
    "--unit",
    metavar="NAME",
    help="What is randomised; `event`: every call is a unit of its own. [default: user]",
)
@click.option("--maturity", metavar="DURATION", help="Age at which calls are judged, such as 10d.")
@click.option(
    "--window", metavar="DURATION", help="A unit counts once, so long after its first call."
)
@click.option(
    "--duration", metavar="LEAST,LONGEST", help="When it may end, and must. [default: 1d,14d]"
)
@click.option(
    "--steps",
    metavar="PERCENT,…",
    help="Planned weights of the arm, such as 1,5,25,50. Each gets an equal part of alpha.",
)
@click.option("--alpha", type=float, metavar="NUMBER", help="Chance of an error. [default: 0.05]")
@click.option(
    "--from", "past", metavar="FILE", help="Calls before it; caps such as p99 are read from them."
)
@input_options
@click.option(
    "--on-rollback",
    type=click.Choice(["tell", "stop"]),
    help="`stop`: routers give an arm no traffic once its verdict is rollback. [default: tell]",
)
@_by
@_dry_run
@_as_json
@_config
def start(
    file: str | None,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    config: str | None,
    past: str | None,
    **options: Any,
) -> None:
    """
    Start an experiment: write its event for routers and workers.

    FILE is a JSON object, the `experiment_started` event of docs/topics.md without `schema`, `at`
    and `ranges`; - is stdin. Options take the place of its keys. What cannot work is refused.

    \b
    Examples:
      stream-monitor experiment start fraud-17.json
      stream-monitor experiment start --model fraud --name fraud-17 --arm control=3 --arm b=4 \\
        --weights control=99,b=1 --steps 1,5,25,50 --metric accuracy --effect 0.02 \\
        --guard error=0.005 --guard latency_ms=0.05 --maturity 10d --duration 2d,14d
      stream-monitor experiment start fraud-17.json --dry-run --json
    """  # noqa: D301  \b is how click keeps lines apart
    from stream_monitor.cli.experiment_events import started
    from stream_monitor.cli.experiment_options import asked

    given = asked(file, options)
    settings = _settings(config)
    if past is not None:
        resolve_caps(given, "--from", past, options, settings)
    made = started(given, _board(settings), settings.core, _now(), by or user())
    _write(settings, made, dry_run=dry_run, as_json=as_json)
    if not as_json:
        table = ", ".join(f"{arm} {percent:g} %" for arm, percent in made.event["weights"].items())
        told = "would start" if dry_run else "started"
        click.echo(f"{told} {made.event['experiment']} of {made.event['model']}: {table}")


@click.command()
@click.argument("name")
@click.option("--weights", required=True, metavar="ARM=PERCENT,…", help="New shares, of all arms.")
@click.option("--because", metavar="TEXT", help="Why; it is written into the event.")
@click.option(
    "--despite-rollback", is_flag=True, help="Give traffic to an arm that was rolled back."
)
@_model
@_by
@_dry_run
@_as_json
@_config
def change(
    name: str,
    weights: str,
    because: str | None,
    despite_rollback: bool,
    model: str | None,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Change the weights of an experiment; as few units as can be get another arm.

    A change begins a new phase, in which sums begin again. Everything else is fixed at the start.

    \b
    Examples:
      stream-monitor experiment change fraud-17 --weights control=95,b=5
      stream-monitor experiment change fraud-17 --weights control=50,b=50 --because "step 4 of 4"
    """  # noqa: D301
    from stream_monitor.cli.experiment_events import changed
    from stream_monitor.cli.experiment_options import weights_of

    wanted = weights_of(weights)
    settings = _settings(config)
    known = _board(settings).found(name, model)
    made = changed(known, wanted, _now(), by or user(), despite_rollback=despite_rollback)
    if because is not None:
        made.event["because"] = because
    _write(settings, made, dry_run=dry_run, as_json=as_json)
    if not as_json:
        table = ", ".join(
            f"{arm} {known.percent[arm]:g} → {percent:g} %"
            for arm, percent in made.event["weights"].items()
        )
        told = "would be" if dry_run else "is"
        click.echo(f"{name} {told} in phase {made.event['phase']}: {table}")


@click.command()
@click.argument("name")
@click.option("--keep", metavar="ARM", help="The arm that serves all from now on.")
@_model
@_by
@_dry_run
@_as_json
@_config
def stop(
    name: str,
    keep: str | None,
    model: str | None,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Stop an experiment. Nothing is judged after it, and it cannot go on.

    \b
    Examples:
      stream-monitor experiment stop fraud-17 --keep control
      stream-monitor experiment stop fraud-17 --json
    """  # noqa: D301
    from stream_monitor.cli.experiment_events import Made, stop_event, stopped

    settings = _settings(config)
    board, at, who = _board(settings), _now(), by or user()
    unread = board.unread(name, model)
    made = (
        stopped(board.found(name, model), keep, at, who)
        if unread is None
        else Made(stop_event(unread.model, name, keep, at, who), [])
    )
    _write(settings, made, dry_run=dry_run, as_json=as_json)
    if not as_json:
        told = "would stop" if dry_run else "stopped"
        click.echo(f"{told} {name}{f'; {keep} is kept' if keep else ''}")


@click.command()
@click.argument("name", required=False)
@_model
@_as_json
@_config
def status(name: str | None, model: str | None, as_json: bool, config: str | None) -> None:
    """
    Show how experiments stand: all that run, or the one of this NAME.

    The numbers are those that the worker wrote to `lifecycle`: with each verdict, after 1, 2, 4, 8
    and 16 hours, and then each day. Intervals hold at every look. What is under "at one planned
    look" does not.

    \b
    Examples:
      stream-monitor experiment status
      stream-monitor experiment status fraud-17 --json
    """  # noqa: D301
    from stream_monitor.cli.experiment_json import as_object
    from stream_monitor.cli.experiment_status import drawing

    board = _board(_settings(config))
    shown = (
        [board.found(name, model)]
        if name is not None
        else [e for e in board.experiments.values() if e.stopped is None and _is_of(e, model)]
    )
    now_ms = time.time_ns() // 1_000_000
    for number, known in enumerate(shown):
        if as_json:
            _print(as_object(known, whole=True))
            continue
        if number:
            click.echo()
        for text in drawing(known, now_ms):
            _echo(text)
    shown_refusals = name is None and _refusals(board, model, as_json=as_json)
    if not shown and not shown_refusals and not as_json:
        click.echo("no experiment is running; `stream-monitor experiment list` shows the others")


@click.command(name="list")
@_model
@_as_json
@_config
def list_(model: str | None, as_json: bool, config: str | None) -> None:
    """
    Show all experiments, a line each: those that run first.

    \b
    Examples:
      stream-monitor experiment list
      stream-monitor experiment list --model fraud --json
    """  # noqa: D301
    from stream_monitor.cli.experiment_json import as_object
    from stream_monitor.cli.experiment_status import line

    board = _board(_settings(config))
    shown = [e for e in board.experiments.values() if _is_of(e, model)]
    for known in sorted(shown, key=lambda e: not e.is_running):
        if as_json:
            _print(as_object(known, whole=False))
        else:
            _echo(line(known))
    shown_refusals = _refusals(board, model, as_json=as_json)
    if not shown and not shown_refusals and not as_json:
        click.echo("no experiments")


COMMANDS = (start, change, status, stop, list_)


def _is_of(known: Known, model: str | None) -> bool:
    return model in {None, known.definition.model}


def _refusals(board: ExperimentBoard, model: str | None, *, as_json: bool) -> bool:
    """Show what was refused and cannot be read; whether there is something."""
    from stream_monitor.cli.experiment_json import unread
    from stream_monitor.cli.terminal import readable

    found = board.unknown(model)
    for refusal in found:
        name = refusal.experiment or "(without a name)"
        if as_json:
            _print(unread(refusal))
        else:
            _echo(readable(f"{name}  {refusal.model}  {refusal.text}"))
    return bool(found)


def _settings(config: str | None) -> Settings:
    from stream_monitor.config import load

    return load(config, os.environ)


def _board(settings: Settings) -> ExperimentBoard:
    from stream_monitor.cli.experiment_board import read_board

    board = read_board(settings)
    if board.unusable:
        click.echo(
            f"{board.unusable} events of experiments on {settings.kafka.topic_prefix}lifecycle "
            "cannot be used, by a worker either, and were skipped",
            err=True,
        )
    return board


def _write(settings: Settings, made: Made, *, dry_run: bool, as_json: bool) -> None:
    import asyncio

    import msgspec

    from stream_monitor.kafka.records import write

    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    if not dry_run:
        value = msgspec.json.encode(made.event)
        asyncio.run(write(settings, "lifecycle", made.event["model"], value))
    if as_json:
        _print(made.event)


def _print(told: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(told).decode())


def _echo(text: str) -> None:
    """Print a line; without its line drawing where the terminal has none."""
    from stream_monitor.cli.experiment_status import ASCII

    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(ASCII)
    click.echo(text)


def _now() -> str:
    from stream_monitor.times import rfc3339

    return rfc3339(time.time_ns() // 1_000_000)
