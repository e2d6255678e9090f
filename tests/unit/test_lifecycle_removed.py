"""
A step or a model that is taken out of the configuration while its run is under way, with real
commands: the run says so, other models go on, and what comes back goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from stream_monitor.lifecycle import processes
from stream_monitor.lifecycle.controller import Controller, projects_of
from stream_monitor.lifecycle.events import Cancelled, Trigger
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.settings import Settings
from tests.unit import test_lifecycle_controller as controller_tests
from tests.unit.test_lifecycle_controller import (
    MODEL,
    a_trigger,
    over,
    said,
    settings_of,
    state,
    tags,
    until,
)
from tests.unit.test_lifecycle_faults import marked, now

broker, repository = controller_tests.broker, controller_tests.repository


def with_models(settings: Settings, **models: ModelLoop) -> Settings:
    lifecycle = msgspec.structs.replace(settings.lifecycle, models=models)
    return msgspec.structs.replace(settings, lifecycle=lifecycle)


@contextlib.asynccontextmanager
async def controller(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def in_the_step(settings: Settings, ran: Path) -> None:
    """A controller begins the step `train`, and is stopped in it."""
    await said(settings, a_trigger())
    async with controller(settings):
        await until(settings, lambda m: m.current is not None and ran.exists())
    assert not marked(settings.lifecycle.work)  # who is stopped leaves no command


async def test_a_step_that_is_gone_ends_the_run_and_the_next_one_works(
    broker, repository, monkeypatch
):
    ran = repository.parent / "ran"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.setenv("SLOW", "60")
    settings = settings_of(broker, repository)
    await in_the_step(settings, ran)
    monkeypatch.setenv("SLOW", "0")
    loop = settings.lifecycle.models[MODEL]
    other = msgspec.structs.replace(loop.steps[0], name="fit")
    changed = with_models(settings, churn=msgspec.structs.replace(loop, steps=(other,)))
    async with controller(changed):
        m = await until(changed, over)
        (run,) = m.runs.values()
        assert (run.end, run.steps[0]) == ("failed", "train")
        assert run.reason == "train: the configuration has no such step any more"
        assert ran.read_text() == "x"
        await said(changed, Trigger(model=MODEL, at=now(), cause="person", by="ben"))
        m = await until(changed, lambda m: over(m) and len(m.runs) == 2)
    assert [r.end for r in m.runs.values()] == ["failed", "done"]
    assert tags(repository) == ["churn@v1.0.0"]


async def test_a_model_that_is_gone_stays_as_it_is_and_goes_on_when_it_is_back(
    broker, repository, monkeypatch
):
    ran = repository.parent / "ran"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.setenv("SLOW", "60")
    settings = settings_of(broker, repository)
    await in_the_step(settings, ran)
    monkeypatch.setenv("SLOW", "0")
    loop = settings.lifecycle.models[MODEL]
    without = with_models(settings, other=msgspec.structs.replace(loop, artifact="other"))
    await said(without, Trigger(model="other", at=now(), cause="person", by="ben"))
    before = await state(settings)
    once = Controller(without, projects_of(without, None), once=True)
    async with asyncio.timeout(60):
        await once.run(asyncio.Event())
    assert tags(repository) == ["other@v1.0.0"]
    after = await state(settings)
    assert msgspec.to_builtins(after.runs) == msgspec.to_builtins(before.runs)
    async with controller(settings):
        m = await until(settings, over)
    (run,) = m.runs.values()
    assert (run.end, run.version) == ("done", "v1.0.0")
    assert tags(repository) == ["churn@v1.0.0", "other@v1.0.0"]


def orphan(log: Path) -> subprocess.Popen[bytes]:
    """What is left of a step whose controller was killed."""
    env = {**os.environ, processes.MARK: f"{log}#0123456789abcdef"}
    return subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)


async def test_what_a_killed_controller_left_ends_unless_a_run_goes_on_with_it(
    broker, repository, monkeypatch
):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    settings = settings_of(broker, repository)
    work = Path(settings.lifecycle.work)
    logs = {
        "of a model that is gone": work / "gone" / "0a" / "train.log",
        "of a run that is over": work / MODEL / "0b" / "train.log",
        "of a rollout": work / MODEL / "deployments" / "v1-ab" / "0-pods-do.log",
        "of somebody else": work.parent / "work2" / MODEL / "0b" / "train.log",
    }
    left = {what: orphan(log) for what, log in logs.items()}
    try:
        once = Controller(settings, projects_of(settings, None), once=True)
        async with asyncio.timeout(60):
            await once.run(asyncio.Event())
        ended = {what for what, process in left.items() if process.poll() is not None}
        assert ended == {"of a model that is gone", "of a run that is over"}
    finally:
        for process in left.values():
            process.kill()
            process.wait(10)


async def test_a_run_that_nobody_works_at_can_be_cancelled(broker, repository, monkeypatch):
    ran = repository.parent / "ran"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.setenv("SLOW", "60")
    settings = settings_of(broker, repository)
    await in_the_step(settings, ran)
    (run,) = (await state(settings)).runs
    await said(settings, Cancelled(model=MODEL, at=now(), by="ana", run=run))
    async with controller(settings):
        m = await until(settings, over)
    assert m.runs[run].end == "cancelled"
    assert ran.read_text() == "x"
    assert tags(repository) == []
