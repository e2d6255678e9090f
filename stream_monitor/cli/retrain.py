"""
`stream-monitor retrain run | status | history | approve | reject | cancel | log`.

Rule of the file: a command writes at most one event, and the controller does the rest. What is
there is read by `loop_board`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import loop_options as options
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.lifecycle.events import Event
    from stream_monitor.lifecycle_settings import ModelLoop

LINES = 40


@click.group()
def command() -> None:
    """
    Start, watch and decide retrainings.

    \b
    Examples:
      stream-monitor retrain run churn --comment "new price list"
      stream-monitor retrain status
      stream-monitor retrain approve 9f31c2
    """  # noqa: D301  \b is how click keeps lines apart


@command.command()
@click.argument("model", required=False)
@options.of_a_person
def run(model: str | None, *, word: options.Word) -> None:
    """
    Ask for a retraining of MODEL; the controller answers.

    A run or a rollout that is under way refuses it. With --dry-run it says whether it could begin
    now, and which steps it would have.

    \b
    Examples:
      stream-monitor retrain run churn --comment "new price list"
      stream-monitor retrain run --dry-run --json
    """  # noqa: D301
    from stream_monitor.cli.loop_board import LoopBoard, written
    from stream_monitor.kafka.clocks import now_ms
    from stream_monitor.lifecycle import triggers
    from stream_monitor.lifecycle.events import Trigger

    settings = options.settings_of(word.config)
    board = LoopBoard.read(settings)
    name = board.one(model)
    loop, state = board.loop(name), board.fold.of(name)
    event = Trigger(
        model=name, at=options.now(), cause="person", by=word.who, comment=word.comment
    ).named()
    why = triggers.refusal(name, state, loop, board.observed, "person", now_ms())
    if word.dry_run:
        steps = _steps(name, loop)
        _show(event, as_json=word.as_json)
        if not word.as_json:
            click.echo(f"refused: {why.words}" if why else "it would begin now")
            click.echo(f"steps: {', '.join(steps)}")
        sys.exit(1 if why else 0)
    if why is not None:
        raise InputError(f"{name}: {why.words}")
    written(settings, event)
    _show(event, as_json=word.as_json)
    if not word.as_json:
        click.echo(f"asked for a retraining of {name}; `stream-monitor retrain status` follows it")


def _steps(name: str, loop: ModelLoop) -> tuple[str, ...]:
    """The steps of a run, as the controller plans them."""
    from stream_monitor.lifecycle.plan import steps_of
    from stream_monitor.lifecycle.stages import planned

    return steps_of(planned(name, loop))


def _show(event: Event, *, as_json: bool) -> None:
    from stream_monitor.cli.loop_board import as_object

    if as_json:
        click.echo(json.dumps(as_object(event)))


@command.command()
@click.argument("model", required=False)
@options.as_json
@options.config
def status(model: str | None, *, as_json: bool, config: str | None) -> None:
    """
    Show the run that is under way: its step, since when, and what it waits for.

    It also says who may end the waiting. Without a run: what the last one was, and what holds up
    the next one.

    \b
    Examples:
      stream-monitor retrain status
      stream-monitor retrain status churn --json
    """  # noqa: D301
    from stream_monitor.cli import loop_lines as lines
    from stream_monitor.cli.loop_board import LoopBoard, as_object
    from stream_monitor.kafka.clocks import now_ms

    board, now = LoopBoard.read(options.settings_of(config)), now_ms()
    for name in board.known(model):
        m, loop = board.fold.of(name), board.loop(name)
        current = m.runs.get(m.current or "")
        if as_json:
            waits, end = lines.wait_of(current, loop, now) if current else (None, None)
            found: dict[str, Any] = {"model": name}
            found |= {"run": as_object(current) if current else None}
            found |= {"pending": len(m.pending), "waits_for": waits, "ended_by": end}
            click.echo(json.dumps(found))
            continue
        drawn = (
            lines.run_lines(name, current, loop, now)
            if current is not None
            else lines.idle_lines(name, m, loop, board.observed, now)
        )
        for line in [*drawn, *lines.refusal_lines(m, now)]:
            click.echo(line)


@command.command()
@click.argument("model", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="The newest N runs of each model.",
)
@options.as_json
@options.config
def history(model: str | None, limit: int, *, as_json: bool, config: str | None) -> None:
    """
    Show runs, the newest first: which alert with which numbers, the decision, and the end.

    \b
    Examples:
      stream-monitor retrain history
      stream-monitor retrain history churn --limit 3 --json
    """  # noqa: D301
    from stream_monitor.cli import loop_lines as lines
    from stream_monitor.cli.loop_board import LoopBoard, as_object
    from stream_monitor.kafka.clocks import now_ms

    board, now = LoopBoard.read(options.settings_of(config)), now_ms()
    for name in board.known(model):
        m = board.fold.of(name)
        for found in list(reversed(m.runs.values()))[:limit]:
            if as_json:
                click.echo(json.dumps({"model": name} | as_object(found)))
                continue
            for line in lines.history_lines(name, found, now):
                click.echo(line)
        if not m.runs and not as_json:
            click.echo(
                f"{name}  no runs yet; `stream-monitor retrain run {quote(name)}` asks for one"
            )


@command.command()
@click.argument("run_id", metavar="RUN")
@options.of_a_person
def approve(run_id: str, *, word: options.Word) -> None:
    """
    Let RUN go on, or the promotion of what it made.

    \b
    Examples:
      stream-monitor retrain approve 9f31c2 --comment "seen with the team"
    """  # noqa: D301
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle import people
    from stream_monitor.lifecycle.events import Approved

    settings = options.settings_of(word.config)
    board = LoopBoard.read(settings)
    name, found = board.run(run_id)
    loop, who = board.loop(name), word.who
    if found.end not in (None, "done"):
        raise InputError(
            f"run {found.run} is over: {found.end}; `retrain run {quote(name)}` asks anew"
        )
    began = {found.trigger.by} | people.starters(board.fold.of(name), found.version)
    if loop.limits.two_people and who in began:
        raise InputError(f"{who} started run {found.run}, and two_people wants another person")
    event = Approved(
        model=name,
        at=options.now(),
        by=who,
        run=found.run,
        version=found.version,
        comment=word.comment,
    )
    word.write(
        settings,
        event.named(),
        f"{who} approved run {found.run} of {name}",
    )


@command.command()
@click.argument("run_id", metavar="RUN")
@options.of_a_person
def reject(run_id: str, *, word: options.Word) -> None:
    """
    Say no to RUN: it ends as rejected, or what it made goes back, or gets no rollout.

    \b
    Examples:
      stream-monitor retrain reject 9f31c2 --comment "the label was wrong that week"
    """  # noqa: D301
    from stream_monitor.cli.deploy_back import demand_not_live
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.events import Rejected

    settings = options.settings_of(word.config)
    board = LoopBoard.read(settings)
    name, found = board.run(run_id)
    if found.end not in (None, "done"):
        raise InputError(f"run {found.run} is over: {found.end}; there is nothing to reject")
    if found.version is not None:
        demand_not_live(name, board.fold.of(name), found.version)
    event = Rejected(
        model=name,
        at=options.now(),
        by=word.who,
        run=found.run,
        version=found.version,
        comment=word.comment,
    )
    word.write(settings, event.named(), f"{word.who} rejected run {found.run} of {name}")


@command.command()
@click.argument("run_id", metavar="RUN")
@options.of_a_person
def cancel(run_id: str, *, word: options.Word) -> None:
    """
    End RUN; its processes end within seconds.

    \b
    Examples:
      stream-monitor retrain cancel 9f31c2 --comment "wrong data"
    """  # noqa: D301
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.events import Cancelled

    settings = options.settings_of(word.config)
    name, found = LoopBoard.read(settings).run(run_id)
    if found.end is not None:
        raise InputError(f"run {found.run} is over: {found.end}")
    who = word.who
    event = Cancelled(model=name, at=options.now(), by=who, run=found.run, comment=word.comment)
    word.write(
        settings,
        event.named(),
        f"{who} cancelled run {found.run} of {name}",
    )


@command.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step", required=False)
@click.option(
    "--lines",
    type=click.IntRange(min=1),
    default=LINES,
    show_default=True,
    metavar="N",
    help="The last N lines.",
)
@options.config
def log(run_id: str, step: str | None, lines: int, config: str | None) -> None:
    """
    Show the log of STEP of RUN (of the last step), on the machine of the controller.

    \b
    Examples:
      stream-monitor retrain log 9f31c2
      stream-monitor retrain log 9f31c2 train --lines 100
    """  # noqa: D301
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.controller import folder_of

    settings = options.settings_of(config)
    name, found = LoopBoard.read(settings).run(run_id)
    folder = Path(settings.lifecycle.work) / folder_of(name) / found.run
    files = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)
    if step is not None:
        files = [path for path in files if path.stem == step]
    if not files:
        raise InputError(
            f"{folder} has no log of {step or 'a step'}: the controller that ran it keeps it in "
            "its own folder (lifecycle.work), for the newest keep_runs runs"
        )
    text = files[-1].read_text(encoding="utf-8", errors="replace").splitlines()
    click.echo("\n".join(text[-lines:]))
