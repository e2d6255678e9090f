"""
Which model, which clone and which version a command of `models` is about.

Rule of the file: what is said on the command line comes before the configuration, and what is not
said is found only if there is one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from stream_monitor.cli import loop_options as loop
from stream_monitor.errors import InputError, StreamMonitorError

if TYPE_CHECKING:
    from stream_monitor.cli.models_board import ModelsBoard
    from stream_monitor.lifecycle.tags import Tag
    from stream_monitor.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
ALIASES = ("champion", "challenger", "latest")


class Chosen(NamedTuple):
    """A model and its project."""

    settings: Settings
    model: str
    artifact: str
    repository: Path
    remote: str
    metric: str
    """By which its versions are compared."""


def options(f: F) -> F:
    """`--model`, `--repository` and `--config`."""
    from stream_monitor.cli import loop_options

    where = click.option(
        "--repository",
        metavar="DIR",
        help="Clone with the project. [default: as configured; else this directory]",
    )
    return loop_options.model(where(loop_options.config(f)))


def chosen(
    config: str | None, model: str | None, repository: str | None, name: str | None = None
) -> Chosen:
    """
    The model and the clone that are meant.

    Parameters
    ----------
    config, model, repository : str or None
        Options of the command.
    name : str or None
        A version, perhaps with its artifact: `churn@v1.2.0`.

    Raises
    ------
    InputError
        Several models could be meant, or none is known.
    """
    from stream_monitor.cli.loop_options import settings_of
    from stream_monitor.lifecycle.tags import artifact_of, split
    from stream_monitor.lifecycle_settings import ModelLoop

    settings = settings_of(config)
    loops = settings.lifecycle.models
    artifact = (split(name or "") or (None,))[0]
    if model is None and artifact is not None:
        fitting = [m for m, loop in loops.items() if (loop.artifact or m) == artifact]
        model = fitting[0] if fitting else artifact
    if model is None and len(loops) == 1:
        model = next(iter(loops))
    if model is None:
        model = _only(Path(repository or "."), list(loops))
    loop = loops.get(model) or ModelLoop(repository=".")
    return Chosen(
        settings,
        model,
        artifact_of(model, loop.artifact),
        Path(repository or loop.repository).absolute(),
        loop.remote,
        loop.decide.metric,
    )


def _only(repository: Path, configured: Sequence[str]) -> str:
    from stream_monitor.lifecycle.tagging import artifacts_in

    known = [] if configured else artifacts_in(repository)
    if len(known) == 1:
        return known[0]
    which = ", ".join(configured or known) or "none is configured, and no version is tagged"
    raise InputError(f"name the model with --model: {which}")


def version_of(
    text: str, of: Chosen, tagged: Sequence[Tag], board: ModelsBoard | None
) -> Tag | None:
    """
    The version that a word means; None if it is no version.

    Parameters
    ----------
    text : str
        `v1.2.0`, `1.2.0`, `churn@v1.2.0`, `champion`, `challenger` or `latest`.
    of : Chosen
    tagged : sequence of Tag
        The newest number first.
    board : ModelsBoard or None
        None: Kafka was not read, so the champion is that of the tags `NAME#prod#N`.

    Raises
    ------
    InputError
        There is no such version.
    """
    from stream_monitor.inputs.options import did_you_mean
    from stream_monitor.lifecycle.tags import VERSION

    wanted = text.rpartition("@")[2]
    if text == "latest":
        wanted = tagged[0].version if tagged else ""
    elif text in ALIASES:
        wanted = _in_traffic(text, of, tagged, board)
    elif VERSION.fullmatch(f"v{wanted}"):
        wanted = f"v{wanted}"
    elif not VERSION.fullmatch(wanted):
        return None
    found = next((tag for tag in tagged if tag.version == wanted), None)
    if found is None:
        what = text if wanted in ("", text) else f"{text} ({wanted})"
        hint = did_you_mean(wanted, [tag.version for tag in tagged])
        raise InputError(
            f"{of.repository} has no version {what} of {of.artifact}.{hint} "
            "`stream-monitor models list` shows them"
        )
    return found


def _in_traffic(text: str, of: Chosen, tagged: Sequence[Tag], board: ModelsBoard | None) -> str:
    if board is not None:
        m = board.fold.of(of.model)
        version = m.champion
        if text == "challenger":
            version = m.rollout.version if m.rollout is not None else None
        if version is None:
            raise InputError(f"{of.model} has no {text}; `stream-monitor models list` shows stages")
        return version
    from stream_monitor.lifecycle.tagging import marked

    commit = marked(of.repository, of.artifact, "prod") if text == "champion" else None
    version = next((tag.version for tag in tagged if tag.revision == commit), None)
    if version is None:
        raise InputError(
            f"the {text} of {of.model} is not known without Kafka, and git has no tag "
            f"{of.artifact}#prod#N; name the version"
        )
    return version


async def publish_baseline(of: Chosen, version: str, revision: str, who: str) -> str:
    """
    Publish the profile that a commit has, for its version; why it was not, or nothing.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses a record.
    """
    from stream_monitor.lifecycle import references

    profile = references.of_version(of.repository, revision)
    if profile is None:
        return ""
    try:
        parts = references.parts_of(of.model, version, profile, loop.now(), who)
    except StreamMonitorError as e:
        return f"without the baseline: {e}"
    await references.publish(of.settings, of.model, version, profile, parts)
    return ""
