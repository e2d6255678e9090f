"""
Relations that must hold between the keys of `lifecycle`, and where its paths lead.

Rule of the file: as in `relations.py`: values are right one by one, and a problem is reported at
the key that a person would change. No repository is opened; `doctor` does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath

import msgspec

from stream_monitor.config.relations import Conflicts, Say
from stream_monitor.config.tree import Node
from stream_monitor.lifecycle_settings import (
    ARTIFACT,
    ARTIFACT_MAX,
    METRICS,
    OWN_STEPS,
    DeployCommand,
    ModelLoop,
    Step,
)
from stream_monitor.settings import Settings


def check_lifecycle(settings: Settings, root: Node, say: Say) -> None:
    """Report contradictions in the loop of each model."""
    node = root.find("lifecycle")
    taken = {settings.worker.metrics.port: "worker.metrics"}
    for key, port in (("lifecycle", settings.lifecycle.port), ("archive", settings.archive.port)):
        if port and (owner := taken.setdefault(port, key)) != key:
            what = f"is that of {owner}; a worker, a controller and an archive need one each"
            say(root.find(key, "port"), what)
    for name, loop in settings.lifecycle.models.items():
        max_delay_ms = settings.core.models.get(name, settings.core.defaults).labels.max_delay_ms
        for place, what in (
            *_names(name, loop),
            *_steps(loop),
            *_schedule(loop),
            *_paths(loop),
            *_deploy(loop, max_delay_ms),
        ):
            say(node.find("models", name, *place), what)


def _names(name: str, loop: ModelLoop) -> Conflicts:
    artifact = loop.artifact or name
    if not ARTIFACT.fullmatch(artifact) or "//" in artifact or len(artifact) > ARTIFACT_MAX:
        yield (
            ("artifact",),
            (
                f"{artifact!r} cannot stand before the @ of a tag: letters, digits, `-`, `_` and "
                "`/`, with a letter or digit at both ends"
            ),
        )
    if loop.branch == loop.base:
        yield ("branch",), f"{loop.branch} is `base`, where people decide what comes in"
    for key in ("remote", "base", *(("branch",) if loop.branch is not None else ())):
        value = getattr(loop, key)
        if not value or value.startswith("-") or ".." in value or any(c.isspace() for c in value):
            yield (key,), f"{value!r} is not a name that git takes"
    if loop.limits.two_people and loop.limits.approval == "none":
        yield (
            ("limits", "two_people"),
            "nobody is asked, so no second person is either; set approval to run or promotion",
        )
    if loop.decide.metric not in METRICS:
        yield ("decide", "metric"), f"must be one of {', '.join(METRICS)}"


def _steps(loop: ModelLoop) -> Conflicts:
    yield from _commands(("steps",), "step", loop.steps)
    yield from _commands(("deploy", "commands"), "command", loop.deploy.commands)
    for step in loop.steps:
        if step.name in OWN_STEPS:
            own = ", ".join(OWN_STEPS)
            what = f"{step.name} is a step of stream-monitor's own ({own}); choose another name"
            yield ("steps",), what
    for command in loop.deploy.commands:
        if command.rollback and not command.rollback[0].strip():
            yield ("deploy", "commands"), f"rollback of {command.name}: the program is missing"


def _commands(
    place: tuple[str, ...], what: str, commands: tuple[Step, ...] | tuple[DeployCommand, ...]
) -> Conflicts:
    names = [command.name for command in commands]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield place, f"two are called {name}; events and logs are kept by name"
    for command in commands:
        if not command.command or not command.command[0].strip():
            yield place, f"{what} {command.name}: `command` is empty; name a program"
        if any("\0" in word for word in command.command):
            yield place, f"{what} {command.name}: a word of `command` has a NUL"
        for name in command.environment:
            if not name or "=" in name:
                yield place, f"{what} {command.name}: {name!r} is not the name of a variable"


def _schedule(loop: ModelLoop) -> Conflicts:
    schedule = loop.triggers.schedule
    if schedule is None:
        return
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        return  # `doctor` and the controller say that the extra is missing
    from datetime import UTC, datetime

    try:
        CronSim(schedule, datetime.now(UTC))
    except CronSimError as e:
        yield (
            ("triggers", "schedule"),
            f"is not a crontab ({e}): minute, hour, day, month, weekday, such as '0 3 * * 1'",
        )


def _paths(loop: ModelLoop) -> Iterator[tuple[tuple[str, ...], str]]:
    """Files of a run lie in its work tree: nothing else may be read or written by a mistake."""
    named = {("decide", k): getattr(loop.decide, k) for k in ("champion", "challenger", "anchor")}
    if loop.collect is not None:
        named["collect", "output"] = loop.collect.output
    for place, text in named.items():
        path = PurePosixPath(text)
        if not text or path.is_absolute() or ".." in path.parts or not path.name:
            yield place, "must be a path inside the work tree, without `..`"


def _deploy(loop: ModelLoop, max_delay_ms: int) -> Conflicts:
    stages = loop.deploy.stages
    if not stages or stages[-1] != 100:
        yield ("deploy", "stages"), "the last stage must be 100: all of the traffic"
    if any(not 0 <= stage <= 100 for stage in stages):
        yield ("deploy", "stages"), "a stage is a percentage, 0 to 100"
    if any(round(stage, 2) != stage for stage in stages):
        yield ("deploy", "stages"), "a stage has whole hundredths of a percent, as routers have"
    if any(low >= high for low, high in pairwise(stages)):
        yield ("deploy", "stages"), "stages must ascend"
    if loop.deploy.maturity_ms > max_delay_ms:
        yield (
            ("deploy", "maturity"),
            (
                f"is more than labels.max_delay of the model ({max_delay_ms // 1_000} s): labels "
                "that come later count nowhere"
            ),
        )
    if loop.deploy.min_time_ms > loop.deploy.deadline_ms:
        what = f"is more than deadline ({loop.deploy.deadline_ms // 1_000} s)"
        yield ("deploy", "min_time"), f"{what}, so a person is asked at every stage"


def located(settings: Settings, folder: Path) -> Settings:
    """Make the paths of the loop and of the archive relative to the folder of the file."""
    lifecycle, archive = settings.lifecycle, settings.archive
    models = {
        name: msgspec.structs.replace(loop, repository=str(folder / loop.repository))
        for name, loop in lifecycle.models.items()
    }
    path = None if archive.path is None else str(folder / archive.path)
    return msgspec.structs.replace(
        settings,
        lifecycle=msgspec.structs.replace(
            lifecycle, work=str(folder / lifecycle.work), models=models
        ),
        archive=msgspec.structs.replace(archive, path=path),
    )
