"""
`stream-monitor models register | list | show`: versions in git, and what the topics say of them.

Rule of the file: options and lines. Git has the versions; without Kafka a command says what it
does not know.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli import loop_options as loop
from stream_monitor.cli import models_project as project
from stream_monitor.cli.terminal import readable
from stream_monitor.errors import BrokerError, InputError, StreamMonitorError

if TYPE_CHECKING:
    from stream_monitor.cli.models_board import ModelsBoard
    from stream_monitor.cli.models_project import Chosen
    from stream_monitor.lifecycle.tags import Tag
    from stream_monitor.lifecycle.versions import Registered

offline = click.option("--offline", is_flag=True, help="Ask neither Kafka nor the remote of git.")
METRICS_SHOWN = 3


@click.command()
@click.option("--major", is_flag=True, help="Raise the first number.")
@click.option("--patch", is_flag=True, help="Raise the last number. [default: the one between]")
@click.option(
    "--run",
    metavar="ID",
    help="A version of its own, such as the number of a CI run; done again with the same ID it is "
    "the same version. [default: one version of a commit]",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the tag.")
@click.option("--no-event", is_flag=True, help="Write only to git, nothing to Kafka.")
@loop.by
@click.option("--dry-run", is_flag=True, help="Say what would be registered; write nothing.")
@loop.as_json
@project.options
def register(
    major: bool,
    patch: bool,
    run: str | None,
    reason: str,
    no_event: bool,
    by: str | None,
    dry_run: bool,
    as_json: bool,
    config: str | None,
    model: str | None,
    repository: str | None,
) -> None:
    """
    Make the commit that is checked out a version.

    It gets an annotated tag NAME@vX.Y.Z on the remote. Data and models go to the remote of DVC
    first, if the project has one. A work tree that differs from its commit is refused. With
    `reference.json` its profile is published as the baseline.

    \b
    Examples:
      stream-monitor models register --model churn
      stream-monitor models register --patch --reason "right encoding of country"
      stream-monitor models register --dry-run --json
    """  # noqa: D301  \b is how click keeps lines apart
    from stream_monitor.lifecycle import versions

    if major and patch:
        raise InputError("--major and --patch: choose one")
    of = project.chosen(config, model, repository)
    who = loop.person(by)
    own = of.settings.lifecycle.models.get(of.model)
    made = versions.register_commit(
        of.repository,
        of.artifact,
        run,
        remote=of.remote,
        part="major" if major else "patch" if patch else "minor",
        reason=reason,
        by=who,
        sign=own.verify_tags if own is not None else False,
        branch=own.branch if own is not None else None,
        dry_run=dry_run,
    )
    told = "not written (--dry-run)" if dry_run else "not written (--no-event)"
    if not dry_run and not no_event:
        told = _announced(of, made, who)
    if as_json:
        _print({**_object(made), "model": of.model, "event": told})
        return
    was = "would be" if dry_run else "was already" if made.found else "is"
    click.echo(f"{made.tag} {was} commit {made.revision[:12]}")
    for line in _lines(made.data, made.artifact, made.metrics):
        click.echo(readable(line))
    for note in made.notes:
        click.echo(readable(f"note: {note}"), err=True)
    click.echo(readable(f"event on lifecycle: {told}"), err=told != "written")


def _announced(of: Chosen, made: Registered, who: str) -> str:
    """Publish the baseline and write the event; what came of it."""
    import asyncio

    from stream_monitor.kafka.records import write
    from stream_monitor.lifecycle.events import encode

    async def both() -> str:
        note = ""
        if made.reference:
            note = await project.publish_baseline(of, made.version, made.revision, who)
        await write(
            of.settings, "lifecycle", of.model, encode(made.event(of.model, loop.now(), who))
        )
        return note

    try:
        note = asyncio.run(both())
    except BrokerError as e:
        return f"not written: {e}; the version is there, run the command again to write it"
    return f"written, {note}" if note else "written"


@click.command(name="list")
@offline
@loop.as_json
@project.options
def list_(
    offline: bool, as_json: bool, config: str | None, model: str | None, repository: str | None
) -> None:
    """
    Show the versions of a model, the newest first.

    \b
    Examples:
      stream-monitor models list
      stream-monitor models list --model churn --offline --json
    """  # noqa: D301
    from stream_monitor.lifecycle.tags import shown

    of = project.chosen(config, model, repository)
    tagged, board, notes = known(of, offline=offline)
    stages = board.fold.of(of.model).stages if board is not None else {}
    for tag in tagged:
        if as_json:
            _print({**_of_tag(tag), "stage": stages.get(tag.version)})
            continue
        numbers = list(tag.message.metrics.items())[:METRICS_SHOWN]
        metrics = ", ".join(f"{name} {shown(value)}" for name, value in numbers)
        stage = stages.get(tag.version, "" if board is not None else "?")
        about = f"{stage:<10}  {tag.at[:16]:<16}  {tag.revision[:12]}"
        click.echo(readable(f"{tag.version:<9}  {about}  {metrics}".rstrip()))
    if not tagged and not as_json:
        click.echo(f"{of.artifact} has no versions; `stream-monitor models register` makes one")
    for note in notes:
        click.echo(readable(f"note: {note}"), err=True)


@click.command()
@click.argument("version")
@click.option("--check", is_flag=True, help="Bring its model back, and say what is missing.")
@offline
@loop.as_json
@project.options
def show(
    version: str,
    check: bool,
    offline: bool,
    as_json: bool,
    config: str | None,
    model: str | None,
    repository: str | None,
) -> None:
    """
    Show what a version is, and how it does live.

    Its data, code and metrics, who promoted it and why.

    VERSION is v1.2.0, churn@v1.2.0, champion, challenger or latest.

    \b
    Examples:
      stream-monitor models show v1.2.0
      stream-monitor models show champion --check --json
    """  # noqa: D301
    from stream_monitor.lifecycle.versions import described, missing_models

    of = project.chosen(config, model, repository, version)
    tagged, board, notes = known(of, offline=offline)
    tag = project.version_of(version, of, tagged, board)
    if tag is None:
        raise InputError(f"{version!r} is not a version such as v1.2.0")
    tag = described(of.repository, tag)
    told = _shown(of, tag, board, notes)
    lacks = missing_models(of.repository, tag) if check else []
    told["missing"] = [c._asdict() for c in lacks] if check else None
    if as_json:
        _print(told)
    for line in () if as_json else _drawn(told, board is not None):
        click.echo(readable(line))
    for note in () if as_json else notes:
        click.echo(readable(f"note: {note}"), err=True)
    if lacks:
        names = ", ".join(f"{c.path} ({c.hash})" for c in lacks)
        raise StreamMonitorError(
            f"{tag.name}: neither the cache of {of.repository} nor the remote of DVC has {names}; "
            "`dvc push` from a clone that has it brings it back"
        )


def known(of: Chosen, *, offline: bool) -> tuple[list[Tag], ModelsBoard | None, list[str]]:
    """Versions of a model, what the topics say, and what could not be asked."""
    from stream_monitor.cli.models_board import board_or_note
    from stream_monitor.lifecycle import tagging
    from stream_monitor.lifecycle.git import GitError

    notes = []
    if not offline:
        try:
            tagging.refresh(of.repository, of.artifact, of.remote)
        except GitError as e:
            notes.append(f"only the versions of this clone are known: {e}")
    board, why = board_or_note(of.settings, offline=offline)
    return tagging.versions_of(of.repository, of.artifact), board, [*notes, *filter(None, [why])]


def _shown(of: Chosen, tag: Tag, board: ModelsBoard | None, notes: list[str]) -> dict[str, Any]:
    from stream_monitor.lifecycle import git

    top, below = git.place_of(of.repository)
    get = [
        shlex.join(
            ["dvc", "get", str(top), _word(below + c.path), "--rev", tag.name]
            if c.hash.startswith("md5:")
            else ["git", "-C", str(top), "show", f"{tag.name}:{below}{c.path}"]
        )
        for c in (*tag.message.data, *tag.message.model)
        if not c.path.startswith("(")
    ]
    told: dict[str, Any] = {**_of_tag(tag), "model": of.model, "get": get, "notes": notes}
    if board is None:
        return told
    turns = board.turns_of(of.model, tag.version)
    return {
        **told,
        "stage": board.fold.of(of.model).stages.get(tag.version),
        "stages": [t._asdict() for t in turns],
        "live": board.live(of.model, tag.version),
        "firing": [a._asdict() for a in board.firing(of.model, tag.version)],
    }


def _word(path: str) -> str:
    """A path that is not taken for an option."""
    return f"./{path}" if path.startswith("-") else path


def _drawn(told: dict[str, Any], has_board: bool) -> list[str]:
    lines = [
        f"{told['tag']}  {told['stage'] or 'no stage' if has_board else 'stage unknown'}",
        f"code     {told['revision']}, tagged {told['at'] or '?'} by {told['by'] or '?'}",
        *_described("data", told["data"]),
        *_described("model", told["artifact"]),
        *(f"         {command}" for command in told["get"]),
        f"metrics  {_numbers(told['metrics']) or 'none'}",
    ]
    for name, value in (
        ("run", told["run"]),
        ("because", told["reason"]),
        ("baseline", told["reference"]),
    ):
        lines += [f"{name:<8} {value}"] if value else []
    if not has_board:
        return lines
    for turn in told["stages"]:
        why = f": {turn['reason']}" if turn["reason"] else ""
        lines.append(f"stage    {turn['stage']} since {turn['at']} by {turn['by']}{why}")
    labels = int(told["live"].pop("labels", 0))
    live = _numbers(told["live"])
    lines.append(
        f"live     {live}, {labels:,} labels in 24 h" if labels else "live     no labels in 24 h"
    )
    lines += [f"alert    {a['severity']}: {a['summary']}" for a in told["firing"]]
    return lines


def _described(what: str, contents: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in contents:
        rows = "" if each["rows"] is None else f", {each['rows']:,} rows"
        span = f", from {each['range'][0]} to {each['range'][1]}" if each["range"] else ""
        lines.append(f"{what:<8} {each['path']}  {each['hash']}{rows}{span}")
    return lines or [f"{what:<8} not known"]


def _lines(data: dict[str, str], artifact: dict[str, str], metrics: dict[str, float]) -> list[str]:
    found = [f"  data     {path}  {known}" for path, known in data.items()]
    found += [f"  model    {path}  {known}" for path, known in artifact.items()]
    return [*found, f"  metrics  {_numbers(metrics) or 'none'}"]


def _numbers(metrics: dict[str, float]) -> str:
    from stream_monitor.lifecycle.tags import shown

    return ", ".join(f"{name} {shown(value)}" for name, value in metrics.items())


def _of_tag(tag: Tag) -> dict[str, Any]:
    said = tag.message
    return {
        "version": tag.version,
        "tag": tag.name,
        "revision": tag.revision,
        "at": tag.at,
        "by": tag.by,
        "run": said.run,
        "data": [c._asdict() for c in said.data],
        "artifact": [c._asdict() for c in said.model],
        "metrics": said.metrics,
        "reference": said.reference,
        "reason": said.reason,
    }


def _object(made: Registered) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(made)
    return found


def _print(told: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(told).decode())
