"""
`stream-monitor deploy status | start | promote | pause | resume`; `rollback` and `reject` are in
`deploy_back`.

Rule of the file: forward is asked of the controller, which answers what cannot be done.
"""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import deploy_back
from stream_monitor.cli import loop_options as options
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.events import Event
    from stream_monitor.settings import Settings


@click.group()
def command() -> None:
    """
    Watch and steer the deployment of versions.

    \b
    Examples:
      stream-monitor deploy status
      stream-monitor deploy start v1.4.0
      stream-monitor deploy rollback --comment "customers complain"
    """  # noqa: D301  \b is how click keeps lines apart


command.add_command(deploy_back.rollback)
command.add_command(deploy_back.reject)


@command.command()
@click.argument("model", required=False)
@options.as_json
@options.config
def status(model: str | None, *, as_json: bool, config: str | None) -> None:
    """
    Show stages of all versions, and the rollout: its stage and what it waits for.

    It also says who may end the waiting, and why the last change was made.

    \b
    Examples:
      stream-monitor deploy status
      stream-monitor deploy status churn --json
    """  # noqa: D301
    from stream_monitor.cli import loop_lines as lines
    from stream_monitor.cli.loop_board import LoopBoard, as_object
    from stream_monitor.kafka.clocks import now_ms

    board, now = LoopBoard.read(options.settings_of(config)), now_ms()
    for name in board.known(model):
        m = board.fold.of(name)
        waits = board.waits(name)
        if as_json:
            rollout = as_object(m.rollout) if m.rollout else None
            found: dict[str, Any] = {"model": name, "stages": m.stages, "rollout": rollout}
            found |= {"waits_for": waits, "paused": m.paused is not None}
            found["reason"] = m.stage.reason if m.stage is not None else None
            found["compared"] = as_object(m.compared) if m.compared is not None else None
            found["after"] = lines.compared_line(m, board.loop(name), now)
            click.echo(json.dumps(found))
            continue
        for line in lines.deploy_lines(name, m, board.loop(name), waits, now):
            click.echo(line)


@command.command()
@click.argument("version")
@options.model
@options.of_a_person
def start(version: str, model: str | None, *, word: options.Word) -> None:
    """
    Begin the rollout of VERSION, from its first stage.

    \b
    Examples:
      stream-monitor deploy start v1.4.0
    """  # noqa: D301
    settings = options.settings_of(word.config)
    board, name = _board(settings, model)
    board.demand_known(name, version)
    m = board.fold.of(name)
    if m.rollout is not None:
        raise InputError(
            f"the rollout of {m.rollout.version} of {name} is under way; `deploy promote` ends it "
            "forward, `deploy rollback` back"
        )
    if m.champion == version:
        raise InputError(f"{version} of {name} is in production already")
    told = (
        f"asked for the rollout of {version} of {name}; `stream-monitor deploy status` follows it"
    )
    board.demand_signature(name, version)
    event = _asked(name, "start", version, word)
    word.write(settings, event, told)


@command.command()
@click.argument("version", required=False)
@options.model
@options.of_a_person
def promote(version: str | None, model: str | None, *, word: options.Word) -> None:
    """
    Go on to the next stage now; with VERSION and no rollout, straight into production.

    \b
    Examples:
      stream-monitor deploy promote
      stream-monitor deploy promote v1.4.0 --comment "checked by hand"
    """  # noqa: D301
    from stream_monitor.lifecycle import people
    from stream_monitor.lifecycle.tags import in_order

    settings = options.settings_of(word.config)
    board, name = _board(settings, model)
    rollout = board.fold.of(name).rollout
    if rollout is None and version is None:
        raise InputError(
            f"{name} has no rollout; name the version that shall go to production "
            f"({', '.join(in_order(board.fold.of(name).versions)) or 'none is registered'})"
        )
    if rollout is not None and version not in (None, rollout.version):
        raise InputError(
            f"the rollout of {rollout.version} is under way; `deploy rollback` takes it back"
        )
    if version is not None:
        board.demand_known(name, version)
    meant = rollout.version if rollout is not None else version
    lacks = people.lacks_another(board.fold.of(name), board.loop(name), meant, word.who)
    if lacks is not None:
        raise InputError(lacks)
    if rollout is None and meant is not None:
        board.demand_signature(name, meant)
    event = _asked(name, "promote", meant, word)
    told = f"asked to promote {meant} of {name}"
    word.write(settings, event, told)


@command.command()
@click.argument("model", required=False)
@click.option("--until", metavar="TIME", help="RFC 3339. [default: until `deploy resume`]")
@options.of_a_person
def pause(model: str | None, until: str | None, *, word: options.Word) -> None:
    """
    Stop going forward: no run begins by itself, no stage follows. A rollback still happens.

    \b
    Examples:
      stream-monitor deploy pause
      stream-monitor deploy pause churn --until 2026-12-24T08:00:00Z
    """  # noqa: D301
    from stream_monitor.events.parse import text_time
    from stream_monitor.lifecycle.events import Paused

    if until is not None and text_time(until) is None:
        raise InputError(
            f"--until must be an RFC 3339 time with an offset, such as 2026-12-24T08:00:00Z, "
            f"not {until!r}"
        )
    settings = options.settings_of(word.config)
    _, name = _board(settings, model)
    who = word.who
    event = Paused(model=name, at=options.now(), by=who, until=until, comment=word.comment)
    told = f"{name}: paused by {who}; `stream-monitor deploy resume {quote(name)}` goes on"
    word.write(settings, event.named(), told)


@command.command()
@click.argument("model", required=False)
@options.of_a_person
def resume(model: str | None, *, word: options.Word) -> None:
    """
    Go on after a pause or a rollback.

    \b
    Examples:
      stream-monitor deploy resume
    """  # noqa: D301
    from stream_monitor.lifecycle.events import Resumed

    settings = options.settings_of(word.config)
    _, name = _board(settings, model)
    who = word.who
    event = Resumed(model=name, at=options.now(), by=who, comment=word.comment)
    told = f"{name}: resumed by {who}"
    word.write(settings, event.named(), told)


def _board(settings: Settings, model: str | None) -> tuple[LoopBoard, str]:
    from stream_monitor.cli.loop_board import LoopBoard

    board = LoopBoard.read(settings)
    return board, board.one(model)


def _asked(name: str, what: Any, version: str | None, word: options.Word) -> Event:
    from stream_monitor.lifecycle.events import Asked

    event = Asked(
        model=name,
        at=options.now(),
        by=word.who,
        what=what,
        version=version,
        comment=word.comment,
    )
    return event.named()
