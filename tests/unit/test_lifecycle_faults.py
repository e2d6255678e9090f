"""
What goes wrong around the loop: a work folder that is gone, a full disk, a remote or a broker that
is away, no controller at all, two models with odd names in one clone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from stream_monitor.cli import deploy
from stream_monitor.client import Follower
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.records import TopicReader, write
from stream_monitor.lifecycle import processes
from stream_monitor.lifecycle.actions import Work
from stream_monitor.lifecycle.controller import Controller, projects_of
from stream_monitor.lifecycle.events import (
    Cancelled,
    Event,
    Rollout,
    Stage,
    Trigger,
    Version,
    encode,
)
from stream_monitor.lifecycle.model import Model, Run
from stream_monitor.lifecycle_settings import Lifecycle, Step
from stream_monitor.settings import Settings
from stream_monitor.times import rfc3339
from tests.unit import test_lifecycle_controller as controller_tests
from tests.unit.test_lifecycle_controller import (
    MODEL,
    a_file,
    a_trigger,
    over,
    said,
    settings_of,
    start,
    state,
    tags,
    told,
    until,
)
from tests.unit.test_lifecycle_processes import a_command, lives
from tests.unit.test_lifecycle_processes import until as until_it_is

broker, repository = controller_tests.broker, controller_tests.repository


def now() -> str:
    return rfc3339(now_ms())


async def until_at_rest(settings: Settings) -> None:
    async with asyncio.timeout(60):
        await Controller(settings, projects_of(settings, None), once=True).run(asyncio.Event())


async def served(settings: Settings, follower: Follower) -> set[str | None]:
    """What a router gives its users that has read the log to its end."""
    async with TopicReader(settings, ["lifecycle"]) as records:
        async for record in records.whole():
            follower.take(record.value)
    return {follower.version(f"user-{n}") for n in range(50)}


# ---- files


@pytest.mark.parametrize("lost", ["tree", "all"])
async def test_what_was_done_on_a_machine_that_is_gone_is_done_again(broker, repository, lost):
    settings = settings_of(broker, repository)
    ran = repository.parent / "ran"
    code = f"open({str(ran)!r}, 'a').write('%s'); open('%s', 'a').write('x')"
    names = ("first", "second", "third")
    steps = tuple(Step(name=n, command=(sys.executable, "-c", code % (n[0], n))) for n in names)
    (project,) = projects_of(settings, None).values()
    project.loop = msgspec.structs.replace(project.loop, steps=steps)
    trigger = a_trigger().named()
    run = Run(
        "0" * 12, trigger, ("approval", *names), trigger.at, trigger.at, results={"first": {}}
    )
    m = Model(runs={run.run: run})
    for step in names[:2]:
        (event,) = await project.do(m, Work(run.run, step, 1))
        assert event.outcome == "done"  # type: ignore[attr-defined]
    assert ran.read_text() == "fs"
    folder = project.folder(run.run)
    folder.rename(folder.with_name("elsewhere"))
    if lost == "tree":
        folder.mkdir()
        for result in folder.with_name("elsewhere").glob("*.result"):
            result.rename(folder / result.name)
    (event,) = await project.do(m, Work(run.run, "third", 1))
    assert event.outcome == "done"  # type: ignore[attr-defined]
    assert ran.read_text() == "fsfst"
    assert [(folder / "tree" / n).read_text() for n in names] == ["x", "x", "x"]


async def test_a_full_disk_keeps_no_half_result(tmp_path):
    """The limit stands for the disk: the write of the result fails in the middle."""
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists():"
    command = a_command(tmp_path, f"{wait} time.sleep(0.05)")
    running = asyncio.ensure_future(processes.run(tmp_path, command))
    await until_it_is((tmp_path / "train.pid").exists)
    (tmp_path / "go").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, hard))
    try:
        with pytest.raises(OSError, match="large"):
            await running
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.result"))
    assert (await processes.run(tmp_path, command)).done


# ---- others are away


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_remote_that_is_away_is_waited_for_and_nothing_is_half_registered(
    broker, repository, monkeypatch, comes_back
):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    monkeypatch.setattr("stream_monitor.lifecycle.decisions.PAUSES_MS", (100, 500))
    settings = settings_of(broker, repository)
    remote, away = repository.parent / "remote.git", repository.parent / "away.git"
    train = msgspec.structs.replace(
        settings.lifecycle.models[MODEL].steps[0],
        command=("sh", "-c", f"{sys.executable} train.py && mv '{remote}' '{away}'"),
    )
    loop = msgspec.structs.replace(settings.lifecycle.models[MODEL], steps=(train,))
    settings = msgspec.structs.replace(
        settings, lifecycle=msgspec.structs.replace(settings.lifecycle, models={MODEL: loop})
    )
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    waits = await until(settings, lambda m: m.current and m.runs[m.current].attempt == 3)
    assert (waits.runs[waits.current or ""].step, waits.versions) == ("register", {})
    if comes_back:
        away.rename(remote)
    m = await until(settings, over)
    stop.set()
    await running
    (run,) = m.runs.values()
    if not comes_back:
        assert (run.reason.startswith("register: git ls-remote"), run.attempt) == (True, 3)
        away.rename(remote)
    assert run.end == ("done" if comes_back else "failed")
    assert tags(repository) == (["churn@v1.0.0"] if comes_back else [])
    assert list(m.versions) == (["v1.0.0"] if comes_back else [])


def marked(text: str) -> list[int]:
    """Processes of steps that live, by the beginning of their mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and lives(int(entry.name)):
            with contextlib.suppress(OSError):
                if f"{processes.MARK}={text}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


async def test_a_cancel_reaches_a_push_that_hangs(broker, repository, monkeypatch):
    """All of it ends within two seconds, and no tag comes later."""
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    settings = settings_of(broker, repository)
    began, hook = (
        repository.parent / "began",
        repository.parent / "remote.git/hooks/pre-receive",
    )
    hook.write_text(f'#!/bin/sh\ntouch "{began}"\nwhile [ -e "{began}" ]; do sleep 0.1; done\n')
    hook.chmod(0o700)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    await until(settings, lambda m: began.exists())
    (run,) = (await state(settings)).runs
    assert marked(settings.lifecycle.work)
    event = Cancelled(model=MODEL, at=now(), by="ana", run=run)
    await said(settings, event)
    said_s = time.monotonic()
    await until_it_is(lambda: not marked(settings.lifecycle.work))
    assert time.monotonic() - said_s < 2
    m = await until(settings, over)
    began.unlink()
    stop.set()
    await running
    assert m.runs[run].end == "cancelled"
    assert (m.versions, tags(repository)) == ({}, [])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_broker_that_is_away_during_a_step(broker, repository):
    settings = settings_of(broker, repository)
    config, ran = a_file(settings, repository), repository.parent / "ran"
    await said(settings, a_trigger())
    controller = start(config, RAN=str(ran), SLOW="8")
    try:
        await until(settings, lambda m: m.current is not None and ran.exists())
        back = threading.Event()
        broker._loop.call_soon_threadsafe(time.sleep, 20)
        broker._loop.call_soon_threadsafe(back.set)
        await asyncio.to_thread(back.wait)
        found = await until(settings, over)
    finally:
        controller.kill()
        controller.wait()
    assert [(r.end, r.version) for r in found.runs.values()] == [("done", "v1.0.0")], told(config)
    assert tags(repository) == ["churn@v1.0.0"]


# ---- no controller


def a_rollout(at: str) -> list[Event | dict[str, Any]]:
    rollout = Rollout(
        version="v2.0.0", against="v1.0.0", experiment="e", stages=(50, 100), step=0, since=at
    )
    stage = Stage(
        model=MODEL,
        at=at,
        epoch=0,
        stages={"v1.0.0": "production", "v2.0.0": "canary"},
        rollout=rollout,
    )
    versions = [
        Version(model=MODEL, at=at, by="ana", version=v, tag="t", revision="0").named()
        for v in ("v1.0.0", "v2.0.0")
    ]
    started = {
        "schema": 1,
        "type": "experiment_started",
        "model": MODEL,
        "experiment": "e",
        "at": at,
        "by": "controller",
        "epoch": 0,
        "weights": {"v1.0.0": 50, "v2.0.0": 50},
        "arms": [{"name": v, "version": v} for v in ("v1.0.0", "v2.0.0")],
        "on_rollback": "stop",
    }
    return [*versions, stage.named(), started]


@pytest.mark.parametrize("how", ["person", "verdict"])
async def test_the_way_back_needs_no_controller(broker, repository, how):
    settings = settings_of(broker, repository)
    config = a_file(settings, repository)
    for event in a_rollout(now()):
        value = json.dumps(event).encode() if isinstance(event, dict) else encode(event)
        await write(settings, "lifecycle", MODEL, value)
    follower = Follower(MODEL)
    assert await served(settings, follower) == {"v1.0.0", "v2.0.0"}
    if how == "person":
        words = ["rollback", "--config", str(config), "--by", "ana"]
        done = await asyncio.to_thread(CliRunner().invoke, deploy.command, words)
        assert done.exit_code == 0, done.output
    else:
        verdict = {"type": "experiment_verdict", "model": MODEL, "experiment": "e"}
        verdict |= {"arm": "v2.0.0", "verdict": "rollback", "at": now()}
        await write(settings, "lifecycle", MODEL, json.dumps(verdict).encode())
    assert await served(settings, follower) == {"v1.0.0"}
    await until_at_rest(settings)  # a controller that begins now agrees
    m = await state(settings)
    assert m.stages == {"v1.0.0": "production", "v2.0.0": "retired"}
    assert (m.rollout, m.trials["e"].keep) == (None, "v1.0.0")
    assert await served(settings, follower) == {"v1.0.0"}


# ---- several models


async def test_two_models_with_odd_names_in_one_clone(broker, repository, monkeypatch):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    settings = settings_of(broker, repository)
    loop = settings.lifecycle.models[MODEL]
    odd = "a/b c ä∂"
    models = {MODEL: loop, odd: msgspec.structs.replace(loop, artifact="odd")}
    settings = msgspec.structs.replace(
        settings, lifecycle=Lifecycle(work=settings.lifecycle.work, models=models)
    )
    for name in models:
        await said(settings, Trigger(model=name, at=now(), cause="person", by="ana"))
    await until_at_rest(settings)
    assert tags(repository) == ["churn@v1.0.0", "odd@v1.0.0"]
    assert sorted(os.listdir(settings.lifecycle.work)) == [  # noqa: PTH208  names are wanted
        "a%2Fb%20c%20%C3%A4%E2%88%82",
        "churn",
    ]


async def test_an_answer_does_not_interrupt_the_step_under_way(broker, repository, monkeypatch):
    ran = repository.parent / "ran"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.setenv("SLOW", "2")
    settings = settings_of(broker, repository)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    await until(settings, lambda m: m.current is not None and ran.exists())
    await said(settings, Trigger(model=MODEL, at=now(), cause="person", by="ben"))
    found = await until(settings, over)
    stop.set()
    await running
    assert [r.end for r in found.runs.values()] == ["done"]
    assert ["under way" in r.reason for r in found.refused] == [True]
    assert ran.read_text() == "x"
