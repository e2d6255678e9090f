"""
`stream-monitor models promote | retire`: a person says which version is in production.

Rule of the file: one event with the stages of all versions. It moves no traffic and asks no gate:
that is what `deploy` does. While a rollout is under way it is refused, because both would speak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import loop_options as loop
from stream_monitor.cli import models_project as project
from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError, StreamMonitorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_monitor.cli.models_board import ModelsBoard
    from stream_monitor.cli.models_project import Chosen
    from stream_monitor.lifecycle.events import Event, Stage, StageName
    from stream_monitor.lifecycle.tags import Tag


@click.command()
@click.argument("version")
@loop.comment
@loop.by
@loop.dry_run
@loop.as_json
@project.options
def promote(version: str, **given: Any) -> None:
    """
    Say that a version is in production, and retire the one before.

    It changes the record, not the traffic: `stream-monitor deploy start` brings a version into
    production by stages. Use it for a model that is deployed by other means, and to say the stages
    again after the topic lifecycle was lost. Git gets the tag NAME#prod#N of GTO.

    \b
    Examples:
      stream-monitor models promote v1.2.0 --comment "approved in the meeting of 3 May"
      stream-monitor models promote churn@v1.2.0 --dry-run
    """  # noqa: D301  \b is how click keeps lines apart
    _say(version, promoted, **given)


@click.command()
@click.argument("version")
@loop.comment
@loop.by
@loop.dry_run
@loop.as_json
@project.options
def retire(version: str, **given: Any) -> None:
    """
    Say that a version is not used any more.

    \b
    Examples:
      stream-monitor models retire v1.1.0
      stream-monitor models retire v1.1.0 --comment "its data had a fault" --json
    """  # noqa: D301
    _say(version, retired, **given)


def promoted(stages: dict[str, StageName], version: str) -> dict[str, StageName]:
    """
    Stages after a version went into production.

    >>> promoted({"v1.0.0": "production", "v1.1.0": "canary"}, "v1.1.0")
    {'v1.0.0': 'retired', 'v1.1.0': 'production'}
    """
    before: dict[str, StageName] = {v: "retired" for v, s in stages.items() if s == "production"}
    return {**stages, **before, version: "production"}


def retired(stages: dict[str, StageName], version: str) -> dict[str, StageName]:
    """
    Stages after a version went out of use.

    >>> retired({"v1.0.0": "production"}, "v1.0.0")
    {'v1.0.0': 'retired'}
    """
    return {**stages, version: "retired"}


def _say(
    version: str,
    change: Callable[[dict[str, StageName], str], dict[str, StageName]],
    *,
    comment: str | None,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    config: str | None,
    model: str | None,
    repository: str | None,
) -> None:
    import asyncio

    from stream_monitor.cli.models_board import read_board
    from stream_monitor.lifecycle import tagging

    of = project.chosen(config, model, repository, version)
    board = read_board(of.settings)
    tagging.refresh(of.repository, of.artifact, of.remote)
    tag = project.version_of(version, of, tagging.versions_of(of.repository, of.artifact), board)
    if tag is None:
        raise InputError(f"{version!r} is not a version such as v1.2.0")
    who = loop.person(by)
    events, said = _events(of, tag, board, change, comment or "", who)
    if not dry_run:
        if len(events) > 1 and tag.message.reference:
            note = asyncio.run(project.publish_baseline(of, tag.version, tag.revision, who))
            click.echo(readable(note), err=True, nl=bool(note))
        _write(of, events)
        _mark(of, tag, said, who)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(said).decode())
        return
    verb = "would be" if dry_run else "is"
    click.echo(readable(f"{tag.name} {verb} {said.stages[tag.version]}"))
    for other, stage in said.stages.items():
        if other != tag.version:
            click.echo(readable(f"  {other} {stage}"))


def _events(
    of: Chosen,
    tag: Tag,
    board: ModelsBoard,
    change: Callable[[dict[str, StageName], str], dict[str, StageName]],
    comment: str,
    who: str,
) -> tuple[list[Event], Stage]:
    """The `stage` event, after a `version` event if the topic does not know the version."""
    from stream_monitor.lifecycle.events import Stage
    from stream_monitor.lifecycle.versions import described, registered

    m = board.fold.of(of.model)
    if m.rollout is not None:
        raise StreamMonitorError(
            f"the rollout of {m.rollout.version} is under way: `stream-monitor deploy promote` or "
            "`deploy rollback` ends it"
        )
    stages = change(m.stages, tag.version)
    if stages == m.stages:
        raise StreamMonitorError(f"{tag.name} is {m.stages[tag.version]} already")
    live = next((v for v, stage in stages.items() if stage == "production"), None)
    known = m.versions.get(live or "")
    reference = known.reference if known is not None else ""
    if live == tag.version:
        reference = tag.message.reference
    events: list[Event] = []
    if tag.version not in m.versions:
        events.append(
            registered(described(of.repository, tag), (), found=True).event(
                of.model, loop.now(), who
            )
        )
    said = Stage(
        model=of.model,
        at=loop.now(),
        by=who,
        stages=stages,
        reference=reference,
        reason=comment,
    ).named()
    return [*events, said], said


def _write(of: Chosen, events: list[Event]) -> None:
    import asyncio

    from stream_monitor.kafka.records import write
    from stream_monitor.lifecycle.events import encode

    async def all_of_them() -> None:
        for event in events:
            await write(of.settings, "lifecycle", of.model, encode(event))

    asyncio.run(all_of_them())


def _mark(of: Chosen, tag: Tag, said: Stage, who: str) -> None:
    """The stage in git, for people; what counts is written already."""
    from stream_monitor.lifecycle import tagging
    from stream_monitor.lifecycle.git import GitError

    is_live = said.stages[tag.version] == "production"
    if not is_live and tagging.marked(of.repository, of.artifact, "prod") != tag.revision:
        return
    try:
        name = tagging.mark(of.repository, tag, "prod", of.remote, who, off=not is_live)
    except GitError as e:
        click.echo(readable(f"note: git has no tag of the stage: {e}"), err=True)
    else:
        click.echo(f"tag {name}", err=True)
