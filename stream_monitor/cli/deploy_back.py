"""
`stream-monitor deploy rollback | reject`: back, and no further.

Rule of the file: back is written at once, as routers and workers read it, so that it needs no
controller. Beforehand it is asked whether the files of the version are still there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from stream_monitor.cli import loop_options as options
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.model import Model
    from stream_monitor.settings import Settings


@click.command()
@click.option("--to", "to", metavar="VERSION", help="The version to go back to.")
@click.option(
    "--force", is_flag=True, help="Go back although its files are gone, or its tag is not signed."
)
@options.model
@options.of_a_person
def rollback(to: str | None, model: str | None, *, force: bool, word: options.Word) -> None:
    """
    Give all traffic to the version before, or to VERSION, at once.

    No controller is needed. During a rollout that is the champion, and the rollout ends. Without
    one it is the version that was in production before, and every experiment of the model ends. It
    is refused if a model file of that version can no longer be brought back by DVC.

    \b
    Examples:
      stream-monitor deploy rollback --comment "customers complain"
      stream-monitor deploy rollback --to v1.3.0
    """  # noqa: D301  \b is how click keeps lines apart
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.kafka.clocks import now_ms
    from stream_monitor.lifecycle import traffic
    from stream_monitor.lifecycle.events import Stage

    settings = options.settings_of(word.config)
    board = LoopBoard.read(settings)
    name = board.one(model)
    m = board.fold.of(name)
    against = _target(board, name, m, to)
    if against is not None and not force:
        board.demand_signature(name, against)
        _demand_files(board, name, against)
    who = word.who
    stages = {
        v: "production" if v == against else "retired" if s != "shadow" or m.rollout else s
        for v, s in {**m.stages, **({} if against is None else {against: "retired"})}.items()
    }
    ended = ended_by(m, to)
    if not word.dry_run:
        for experiment in ended:
            keep = against if against in m.trials[experiment].weights else None
            said = traffic.stopped(
                name, experiment, keep, now_ms(), word.comment or "a person", by=who
            )
            _write(settings, name, json.dumps(said).encode())
    known = m.versions.get(against or "")
    event = Stage(
        model=name,
        at=options.now(),
        by=who,
        stages=stages,  # type: ignore[arg-type]  # names of stages
        reference=known.reference if known is not None else "",
        reason=f"rolled back by {who}{f': {word.comment}' if word.comment else ''}",
    )
    told = (
        f"{name}: no version is in production, because there was none before"
        if against is None
        else f"{name}: {against} is in production; all traffic goes to it"
    )
    left = [n for n, t in m.trials.items() if not t.stopped and n not in ended]
    told += f"; experiments that go on: {', '.join(left)}" if left else ""
    word.write(settings, event.named(), told)


def ended_by(m: Model, to: str | None) -> list[str]:
    """
    The experiments that a rollback ends: that of the rollout, or all that run.

    The one of a rollout is said to end again, because it may have ended with the new version.
    """
    running = [n for n, t in m.trials.items() if not t.stopped]
    if m.rollout is None:
        return running
    own = [m.rollout.experiment] if m.rollout.experiment in m.trials else []
    return own if to is None else [*own, *(n for n in running if n not in own)]


def _target(board: LoopBoard, name: str, m: Model, to: str | None) -> str | None:
    """The version that gets the traffic; None: none, as before its first version."""
    from stream_monitor.lifecycle.tags import in_order

    deployed = ", ".join(in_order(m.deployed)) or "none"
    if to is None and m.rollout is not None:
        return m.rollout.against
    against = to or m.before
    if against is None:
        raise InputError(
            f"{name} has no rollout to take back, and no version was in production before; name "
            f"the version: --to VERSION, one of {deployed}"
        )
    if against not in m.deployed:
        raise InputError(f"{against} was never deployed for {name}; deployed were {deployed}")
    if m.rollout is not None and against == m.rollout.version:
        raise InputError(
            f"{against} is what the rollout brings; `stream-monitor deploy promote` goes on with it"
        )
    if against == m.champion and m.rollout is None and not ended_by(m, to):
        raise InputError(f"{against} of {name} is in production already, and no experiment runs")
    if board.loop(name).limits.two_people and against not in m.champions:
        raise InputError(
            f"{against} of {name} is no version to go back to, and two_people wants two for a "
            f"promotion: `stream-monitor deploy start {against}`"
        )
    return against


def _demand_files(board: LoopBoard, name: str, version: str) -> None:
    from stream_monitor.lifecycle import way_back

    loop = board.settings.lifecycle.models.get(name)
    found = way_back.look(loop, board.fold.of(name).versions.get(version))
    if found.missing:
        raise InputError(
            f"{version} of {name} cannot be brought back: {found.words} is neither in the cache of "
            f"{loop.repository if loop else 'its clone'} nor on its DVC remote; name another "
            "version (--to), or go back all the same with --force, if your servers still have it"
        )
    if found.unknown:
        from stream_monitor.cli.terminal import readable

        note = f"note: nobody looked for the files of {version}: {found.unknown}"
        click.echo(readable(note), err=True)


@click.command()
@click.argument("version", required=False)
@options.model
@options.of_a_person
def reject(version: str | None, model: str | None, *, word: options.Word) -> None:
    """
    Say no to VERSION (to that of the rollout): its rollout goes back, or does not begin.

    The controller takes it back, with its commands. `deploy start` asks for it again.

    \b
    Examples:
      stream-monitor deploy reject --comment "the segment of new customers is worse"
      stream-monitor deploy reject v1.4.0
    """  # noqa: D301
    from stream_monitor.cli.loop_board import LoopBoard
    from stream_monitor.lifecycle.events import Rejected

    settings = options.settings_of(word.config)
    board = LoopBoard.read(settings)
    name = board.one(model)
    m = board.fold.of(name)
    meant = version or (m.rollout.version if m.rollout is not None else None)
    if meant is None:
        raise InputError(f"{name} has no rollout; name the version that shall get none")
    board.demand_known(name, meant)
    demand_not_live(name, m, meant)
    event = Rejected(model=name, at=options.now(), by=word.who, version=meant, comment=word.comment)
    word.write(settings, event.named(), f"{word.who} rejected {meant} of {name}")


def demand_not_live(name: str, m: Model, version: str) -> None:
    """What is in production, and not watched any more, is taken back and not rejected."""
    under_way = m.rollout is not None and m.rollout.version == version
    if m.champion == version and not under_way:
        raise InputError(
            f"{version} of {name} is in production; `stream-monitor deploy rollback` takes it back"
        )


def _write(settings: Settings, key: str, value: bytes) -> None:
    import asyncio

    from stream_monitor.kafka.records import write

    asyncio.run(write(settings, "lifecycle", key, value))
