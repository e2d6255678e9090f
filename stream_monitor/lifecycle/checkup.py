"""
What `doctor` says about the loop: the extra, git, the clone of each model, the remote of DVC, the
folder for runs, and which controller is active.

Rule of the file: it changes nothing, neither in a clone nor on its remote. Nothing is said unless a
model is configured under `lifecycle.models`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

from stream_monitor.checks.roles import ROLES
from stream_monitor.errors import StreamMonitorError
from stream_monitor.findings import Finding, about
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.cluster import Cluster
from stream_monitor.kafka.operations import READ, WRITE
from stream_monitor.kafka.records import TopicReader
from stream_monitor.lifecycle import dvc, git
from stream_monitor.lifecycle.events import Claim, decode
from stream_monitor.lifecycle.model import ms_of
from stream_monitor.lifecycle.stages import stages_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.settings import Settings

TIMEOUT_S, DVC_S = 10.0, 30.0
EXTRA = "pip install 'model-stream-monitor[lifecycle]'"


async def checkup(settings: Settings) -> AsyncIterator[Finding]:
    """
    Check the loop.

    Parameters
    ----------
    settings : Settings

    Yields
    ------
    Finding
        As soon as it is known.
    """
    if not settings.lifecycle.models:
        return
    for finding in (*_programs(settings), _work(Path(settings.lifecycle.work))):
        yield finding
    for name, loop in settings.lifecycle.models.items():
        yield await asyncio.to_thread(_project, name, loop)
        if dvc.is_project(Path(loop.repository)):
            yield await asyncio.to_thread(_data, name, Path(loop.repository))
    try:
        async with asyncio.timeout(4 * TIMEOUT_S):
            yield await _access(settings)
            yield await _active(settings)
    except (StreamMonitorError, TimeoutError) as error:
        why = str(error) or "no answer"
        yield Finding("controller", "warn", f"could not be asked: {why}", "see `broker` above")


def _programs(settings: Settings) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("git", "fail", "the program `git` is not there", "install git")
    else:
        yield Finding("git", "ok", "is there")
    loops = settings.lifecycle.models.values()
    needed = {
        "dvc": any(dvc.is_project(Path(loop.repository)) for loop in loops),
        "duckdb": any(loop.collect is not None for loop in loops),
        "pyarrow": any(loop.collect is not None for loop in loops),
        "cronsim": any(loop.triggers.schedule is not None for loop in loops),
    }
    missing = [name for name, wanted in needed.items() if wanted and find_spec(name) is None]
    if missing:
        yield Finding("extra", "fail", f"not installed: {', '.join(missing)}", EXTRA)
    else:
        yield Finding("extra", "ok", "all that these models need is installed")


def _work(folder: Path) -> Finding:
    """Whether the folder for runs can be written, or made."""
    place = folder.absolute()
    there = next(p for p in (place, *place.parents) if p.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding("work", "ok", f"{place} can be written")
    return Finding(
        "work",
        "fail",
        f"{place} cannot be written",
        "set lifecycle.work to a folder of the user who runs the controller",
    )


def _project(name: str, loop: ModelLoop) -> Finding:
    """Whether the clone of a model has what a run starts from."""
    place = Path(loop.repository)
    try:
        top, _ = git.place_of(place)
        remote = git.remote_of(place, loop.remote)
        if remote is None:
            git.commit_of(place, f"refs/heads/{loop.base}")
        else:
            ref = f"refs/heads/{git.checked(loop.base)}"
            if not git.run(place, "ls-remote", "--heads", "--", remote, ref, timeout_s=TIMEOUT_S):
                advice = f"push it, or set lifecycle.models.{name}.base to a branch that it has"
                return Finding("project", "fail", f"{name}: {remote} has no {loop.base}", advice)
        steps = loop.steps or stages_of(place)
    except StreamMonitorError as error:
        advice = f"make lifecycle.models.{name}.repository a clone, with its remote and branch"
        return Finding("project", "fail", f"{name}: {error}", advice)
    if not steps:
        advice = f"set lifecycle.models.{name}.steps, or write a dvc.yaml"
        return Finding("project", "fail", f"{name}: {place} has no step that trains", advice)
    words = ", ".join(step.name for step in steps)
    where = f"{remote}/{loop.base}" if remote else f"{loop.base}, without a remote"
    return Finding("project", "ok", f"{name}: clone {top} of {where}; steps {words}")


def _data(name: str, place: Path) -> Finding:
    """Whether data and models can go to the remote of DVC, and come back from there."""
    advice = "`dvc remote list` shows it; `dvc push` says more"
    try:
        remote = dvc.remote_of(place, timeout_s=DVC_S)
        if remote is None:
            return Finding(
                "dvc",
                "warn",
                f"{name}: no default remote; data and models are in the cache of {place} alone",
                "dvc remote add --default NAME ADDRESS",
            )
        if remote.startswith("/") and not Path(remote).is_dir():
            # DVC makes the folder, also below one where a disk should have been mounted
            return Finding("dvc", "fail", f"{name}: {remote} is not there", "make or mount it")
        lacks = dvc.not_sent(place, timeout_s=DVC_S)
    except StreamMonitorError as error:
        return Finding("dvc", "fail", f"{name}: the remote does not answer: {error}", advice)
    if lacks:
        words = ", ".join(lacks[:5])
        detail = f"{name}: {remote} lacks {words}, or does not answer"  # DVC cannot tell
        return Finding("dvc", "warn", detail, "dvc push")
    return Finding("dvc", "ok", f"{name}: {remote} answers, and has what the clone tracks")


async def _access(settings: Settings) -> Finding:
    """Whether this user may do what a controller does."""
    names, prefix = {READ: "Read", WRITE: "Write"}, settings.kafka.topic_prefix
    async with Cluster(settings.kafka, TIMEOUT_S) as cluster:
        there = await cluster.topics()
    lacking = []
    for topic, needed in ROLES["controller"].topics.items():
        facts = there.get(prefix + topic)
        if facts is None:
            lacking.append(f"{prefix + topic} is not there or hidden")
        elif facts.operations is not None and (less := needed - facts.operations):
            lacking.append(f"{' and '.join(names[o] for o in sorted(less))} on {prefix + topic}")
    if lacking:
        advice = "docs/deployment.md lists what a controller needs"
        return Finding("controller", "warn", f"not allowed: {'; '.join(lacking)}", advice)
    return Finding("controller", "ok", "its topics allow everything a controller does")


async def _active(settings: Settings) -> Finding:
    """Who is active, by the newest claim and by the group."""
    newest, epoch = None, -1
    async with TopicReader(settings, ["lifecycle"]) as records:
        async for record in records.whole():
            event = decode(record.value)
            if isinstance(event, Claim) and event.epoch is None:
                newest, epoch = event, record.offset
    group = f"{settings.worker.group}-controller"
    async with Cluster(settings.kafka, TIMEOUT_S) as cluster:
        facts = await cluster.group(group)
    if newest is None and not facts.members:
        return Finding(
            "controller", "warn", "none has run yet", "start one: stream-monitor controller"
        )
    claimed = "no claim"
    if newest is not None:
        ago = about(max(now_ms() - ms_of(newest.at), 0))
        claimed = f"newest claim by {newest.host} {ago} ago, epoch {epoch}"
    if not facts.members:
        return Finding(
            "controller",
            "warn",
            f"group {group} has no member; {claimed}",
            "start one: stream-monitor controller",
        )
    return Finding("controller", "ok", f"group {group}: {facts.members} member(s); {claimed}")
