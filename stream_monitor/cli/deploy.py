"""
`stream-monitor deploy status | start | promote | rollback | pause | resume`.

Rule of the file: forward is asked of the controller. Back is written at once, as routers and
workers read it, so that it needs no controller.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import loop_options as options
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.cli.loop_board import LoopBoard
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


@command.command()
@click.argument("model", required=False)
@options.as_json
@options.config
def status(model: str | None, *, as_json: bool, config: str | None) -> None:
    """Show stages of all versions, and the rollout: its stage and what it waits for."""
    from stream_monitor.cli.loop_board import LoopBoard, ago, as_object, in_order

    board = LoopBoard.read(options.settings_of(config))
    for name in board.names(model):
        m = board.fold.of(name)
        waits = board.waits(name)
        if as_json:
            rollout = as_object(m.rollout) if m.rollout else None
            found: dict[str, Any] = {"model": name, "stages": m.stages, "rollout": rollout}
            click.echo(json.dumps(found | {"waits_for": waits, "paused": m.paused is not None}))
            continue
        stages = ", ".join(
            f"{v} {s}" for v in in_order(m.stages) if (s := m.stages[v]) != "retired"
        )
        click.echo(f"{name}  {stages or 'no version is deployed'}")
        if m.rollout is not None:
            r = m.rollout
            click.echo(
                f"  {r.version} against {r.against or 'nothing'}: stage {r.step + 1} of "
                f"{len(r.stages)}, {r.stages[r.step]:g} % of the traffic, {r.state}, since "
                f"{ago(r.since)}"
            )
            click.echo(f"  experiment {r.experiment}; waits for {waits or 'nothing'}")
        if m.stage is not None:
            click.echo(f"  last change {ago(m.stage.at)} by {m.stage.by}: {m.stage.reason}")
        if m.paused is not None:
            click.echo(f"  paused by {m.paused.by} {ago(m.paused.at)}; `deploy resume` goes on")


@command.command()
@click.argument("version")
@options.model
@options.comment
@options.by
@options.config
def start(
    version: str, model: str | None, comment: str | None, by: str | None, config: str | None
) -> None:
    """Begin the rollout of VERSION, from its first stage."""
    settings = options.settings_of(config)
    board, name = _board(settings, model)
    _demand_known(board, name, version)
    under_way = board.fold.of(name).rollout
    if under_way is not None:
        raise InputError(f"the rollout of {under_way.version} is under way; roll it back first")
    _ask(board, name, "start", version, comment, by)
    click.echo(f"asked for the rollout of {version} of {name}; `deploy status` follows it")


@command.command()
@click.argument("version", required=False)
@options.model
@options.comment
@options.by
@options.config
def promote(
    version: str | None,
    model: str | None,
    comment: str | None,
    by: str | None,
    config: str | None,
) -> None:
    """Go on to the next stage now; with VERSION and no rollout, straight into production."""
    settings = options.settings_of(config)
    board, name = _board(settings, model)
    rollout = board.fold.of(name).rollout
    if rollout is None and version is None:
        raise InputError(f"{name} has no rollout; name the version that shall go to production")
    if rollout is not None and version not in (None, rollout.version):
        raise InputError(f"the rollout of {rollout.version} is under way; roll it back first")
    if version is not None:
        _demand_known(board, name, version)
    meant = rollout.version if rollout is not None else version
    _ask(board, name, "promote", meant, comment, by)
    click.echo(f"asked to promote {meant} of {name}")


@command.command()
@click.option("--to", "to", metavar="VERSION", help="The version to go back to.")
@options.model
@options.comment
@options.by
@options.config
def rollback(
    to: str | None, model: str | None, comment: str | None, by: str | None, config: str | None
) -> None:
    """Give all traffic to the champion (or to VERSION) at once; no controller is needed."""
    from stream_monitor.cli.loop_board import in_order, written
    from stream_monitor.lifecycle.events import Stage

    settings = options.settings_of(config)
    board, name = _board(settings, model)
    m = board.fold.of(name)
    against = to or (m.rollout.against if m.rollout else None)
    if against is None and m.rollout is None:
        raise InputError(f"{name} has no rollout to take back; name the version: --to VERSION")
    if against is not None and against not in m.deployed:
        raise InputError(
            f"{against} was never deployed for {name}; deployed were "
            f"{', '.join(in_order(m.deployed)) or 'none'}"
        )
    who, at = options.user(by), options.now()
    stages = {
        v: "production" if v == against else "retired" if s != "shadow" or m.rollout else s
        for v, s in {**m.stages, **({} if against is None else {against: "retired"})}.items()
    }
    newest = m.rollout.experiment if m.rollout else next(reversed(m.trials), None)
    if newest is not None:
        stopped = {
            "schema": 1,
            "type": "experiment_stopped",
            "model": name,
            "at": at,
            "by": who,
            "experiment": newest,
            **({} if against is None else {"keep": against}),
            "because": comment or "a person",
        }
        _write(settings, name, json.dumps(stopped).encode())
    event = Stage(
        model=name,
        at=at,
        by=who,
        stages=stages,  # type: ignore[arg-type]  # names of stages
        reason=f"rolled back by {who}{f': {comment}' if comment else ''}",
    )
    written(settings, event.named())
    if against is None:
        click.echo(f"{name}: no version is in production, because there was none before")
    else:
        click.echo(f"{name}: {against} is in production; all traffic goes to it")


@command.command()
@click.argument("model", required=False)
@click.option("--until", metavar="TIME", help="RFC 3339. [default: until `deploy resume`]")
@options.comment
@options.by
@options.config
def pause(
    model: str | None,
    until: str | None,
    comment: str | None,
    by: str | None,
    config: str | None,
) -> None:
    """Stop going forward: no run begins by itself, no stage follows. A rollback still happens."""
    from stream_monitor.cli.loop_board import written
    from stream_monitor.events.parse import text_time
    from stream_monitor.lifecycle.events import Paused

    if until is not None and text_time(until) is None:
        raise InputError(f"--until must be an RFC 3339 time with an offset, not {until!r}")
    settings = options.settings_of(config)
    _, name = _board(settings, model)
    who = options.user(by)
    event = Paused(model=name, at=options.now(), by=who, until=until, comment=comment)
    written(settings, event.named())
    click.echo(f"{name}: paused by {who}")


@command.command()
@click.argument("model", required=False)
@options.comment
@options.by
@options.config
def resume(model: str | None, comment: str | None, by: str | None, config: str | None) -> None:
    """Go on after a pause or a rollback."""
    from stream_monitor.cli.loop_board import written
    from stream_monitor.lifecycle.events import Resumed

    settings = options.settings_of(config)
    _, name = _board(settings, model)
    who = options.user(by)
    written(settings, Resumed(model=name, at=options.now(), by=who, comment=comment).named())
    click.echo(f"{name}: resumed by {who}")


def _board(settings: Settings, model: str | None) -> tuple[LoopBoard, str]:
    from stream_monitor.cli.loop_board import LoopBoard

    board = LoopBoard.read(settings)
    return board, board.one(model)


def _demand_known(board: LoopBoard, name: str, version: str) -> None:
    from stream_monitor.cli.loop_board import in_order

    m = board.fold.of(name)
    known = {*m.versions, *m.deployed}
    if version not in known:
        raise InputError(
            f"{version} is no version of {name}; registered are "
            f"{', '.join(in_order(known)) or '-'} (`models register` makes one)"
        )


def _ask(
    board: LoopBoard,
    name: str,
    what: Any,
    version: str | None,
    comment: str | None,
    by: str | None,
) -> None:
    from stream_monitor.cli.loop_board import written
    from stream_monitor.lifecycle.events import Asked

    event = Asked(
        model=name,
        at=options.now(),
        by=options.user(by),
        what=what,
        version=version,
        comment=comment,
    )
    written(board.settings, event.named())


def _write(settings: Settings, key: str, value: bytes) -> None:
    import asyncio

    from stream_monitor.kafka.records import write

    asyncio.run(write(settings, "lifecycle", key, value))
