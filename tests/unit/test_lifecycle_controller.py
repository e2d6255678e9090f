"""
The controller on the embedded broker, with real git: a person asks, a version comes to be. A
controller that is killed, or stopped and woken up, leaves one run and one tag.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_monitor.config import load
from stream_monitor.demo.broker import BrokerThread, start_in_thread
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.records import TopicReader, read_compacted, write
from stream_monitor.lifecycle.controller import Controller, folder_of, projects_of
from stream_monitor.lifecycle.events import Cancelled, Claim, Event, Trigger, encode
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.model import Model, Run
from stream_monitor.lifecycle.steps import Project
from stream_monitor.lifecycle_settings import GIVEN, Deploy, Lifecycle, ModelLoop, RunLimits, Step
from stream_monitor.monitors.baseline import Profile, encode_profile, numeric_profile, profile_id
from stream_monitor.settings import CoreSettings, KafkaSettings, Settings
from stream_monitor.times import rfc3339

MODEL = "churn"
PROFILE = Profile(features={"x": numeric_profile(np.arange(100.0), 0)}, rows=100)
TRAIN = """
import os, pathlib, time
pathlib.Path("model.json").write_text(os.environ["STREAM_MONITOR_RUN"])
pathlib.Path(os.environ["RAN"]).open("a").write("x")
time.sleep(float(os.environ.get("SLOW", "0")))
"""


def git(path: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(
        ["git", *identity, *words], cwd=path, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with start_in_thread() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    clone = tmp_path / "churn"
    clone.mkdir()
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(clone, "init", "-q", "-b", "main")
    git(clone, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (clone / "train.py").write_text(TRAIN)
    (clone / "reference.json").write_bytes(encode_profile(PROFILE))
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "first")
    git(clone, "push", "-q", "origin", "main")
    return clone


def settings_of(broker: BrokerThread, repository: Path, **limits: Any) -> Settings:
    train = Step(
        name="train",
        command=(sys.executable, "train.py"),
        environment=("RAN", "SLOW"),
        timeout_ms=60_000,
    )
    loop = ModelLoop(
        repository=str(repository),
        collect=None,
        steps=(train,),
        limits=RunLimits(min_new_labels=0, cooldown_ms=0, **limits),
        deploy=Deploy(stages=(100,), min_time_ms=0, min_labels=0, watch_ms=0),
    )
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=broker.bootstrap),
        lifecycle=Lifecycle(work=str(repository.parent / "work"), models={MODEL: loop}),
    )


async def said(settings: Settings, event: Event) -> None:
    await write(settings, "lifecycle", event.model, encode(event.named()))


def a_trigger() -> Trigger:
    return Trigger(model=MODEL, at=rfc3339(now_ms()), cause="person", by="ana")


async def state(settings: Settings) -> Model:
    fold = Fold()
    async with TopicReader(settings, ["lifecycle"]) as records:
        async for record in records.whole():
            fold.take(record.value)
    return fold.of(MODEL)


async def until(settings: Settings, condition: Any) -> Model:
    async with asyncio.timeout(60):
        while True:
            found = await state(settings)
            if condition(found):
                return found
            await asyncio.sleep(0.2)


def over(m: Model) -> bool:
    return bool(m.runs) and all(r.end is not None for r in m.runs.values()) and m.rollout is None


def tags(repository: Path) -> list[str]:
    """Versions; tags of stages are written in the background."""
    return git(repository.parent / "remote.git", "tag", "--list", "*@v*").split()


async def test_a_person_asks_and_a_version_comes_to_be(broker, repository, monkeypatch):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    settings = settings_of(broker, repository)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    found = await until(settings, over)
    (made,) = found.runs
    folder = repository.parent / "work" / folder_of(MODEL) / made
    await until(settings, lambda _: not (folder / "tree").exists())
    stop.set()
    await running
    (run,) = found.runs.values()
    assert (run.end, run.version) == ("done", "v1.0.0"), run.reason
    assert found.stages == {"v1.0.0": "production"}
    assert tags(repository) == ["churn@v1.0.0"]
    message = git(repository.parent / "remote.git", "tag", "-n99", "--list", "churn@v1.0.0")
    assert f"Run: {run.run}" in message
    shown = git(repository.parent / "remote.git", "show", "churn@v1.0.0:model.json")
    assert shown == run.run
    assert (repository.parent / "ran").read_text() == "x"
    await _judged_by_its_profile(settings)
    folder = repository.parent / "work" / folder_of(MODEL) / run.run
    assert sorted(path.name for path in folder.iterdir()) == [
        "register.1.result",
        "register.json",
        "register.log",
        "register.pid",
        "train.1.result",
        "train.log",
        "train.pid",
    ]


async def _judged_by_its_profile(settings: Settings) -> None:
    """A worker that reads this log judges the version by the profile of its commit, unstarted."""
    async with TopicReader(settings, ["lifecycle"]) as records:
        values = [r.value async for r in records.whole()]
    published = await read_compacted(settings, "baselines")
    assert published == {"churn/v1.0.0": encode_profile(PROFILE)}
    ingest, shard = Ingest(1), Shard(0, CoreSettings())

    def taken(kind: str, values: list[bytes | None], time_ms: int, offset: int = 0) -> None:
        at = offset + np.arange(len(values))
        assert not ingest.take(f"{kind}@t/0", kind, values, at, np.full(len(values), time_ms))
        for record in ingest.flush(time_ms)[0]:
            shard.fold(record)

    call = {"event_id": "a", "model": MODEL, "version": "v1.0.0", "prediction": 1}
    early = json.dumps({**call, "features": {"x": 1.0}, "timestamp": 1_760_000_000_000})
    taken("predictions", [early.encode()], 1_760_000_000_000)
    assert shard.versions[0].baseline_id == ""
    taken("lifecycle", values, 1_760_000_001_000)
    (info,) = (s for s in shard.samples() if s.name == "model_info")
    assert info.labels[:3] == (MODEL, "v1.0.0", profile_id(PROFILE)[:12])
    assert info.labels[-1] == "production"
    assert shard.versions[0].features.rows == 1, "the row that waited is judged by it"


async def test_a_step_that_fails_says_why(broker, repository, monkeypatch):
    (repository / "train.py").write_text("import sys; print('no rows'); sys.exit(4)")
    git(repository, "commit", "-qam", "broken")
    git(repository, "push", "-q", "origin", "main")
    settings = settings_of(broker, repository)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    found = await until(settings, over)
    stop.set()
    await running
    (run,) = found.runs.values()
    assert (run.end, run.reason) == ("failed", "train: exit code 4: no rows")
    assert tags(repository) == []


async def test_a_cancel_ends_the_step(broker, repository, monkeypatch):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    monkeypatch.setenv("SLOW", "60")
    settings = settings_of(broker, repository)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    ran = repository.parent / "ran"
    await until(settings, lambda m: m.current is not None and ran.exists())
    run = (await state(settings)).current
    assert run is not None
    await said(settings, Cancelled(model=MODEL, at=rfc3339(now_ms()), by="ana", run=run))
    found = await until(settings, over)
    stop.set()
    await running
    assert found.runs[run].end == "cancelled"
    assert tags(repository) == []


def told(config: Path) -> str:
    """What the controllers logged."""
    return "".join(path.read_text() for path in config.parent.glob("log-*"))


def start(config: Path, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "stream_monitor", "controller", "--config", str(config)],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=(config.parent / f"log-{time.monotonic_ns()}").open("wb"),
    )


def a_file(settings: Settings, repository: Path) -> Path:
    path = repository.parent / "monitor.yaml"
    loop = {
        "repository": str(repository),
        "collect": None,
        "steps": [
            {
                "name": "train",
                "command": [sys.executable, "train.py"],
                "environment": ["RAN", "SLOW", "PYTHONPATH"],
            }
        ],
        "limits": {"min_new_labels": 0, "cooldown": "0s"},
        "deploy": {"stages": [100], "min_time": "0s", "min_labels": 0, "watch": "0s"},
    }
    content = {
        "kafka": {"bootstrap_servers": settings.kafka.bootstrap_servers},
        "lifecycle": {"port": 0, "work": str(repository.parent / "work"), "models": {MODEL: loop}},
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
async def test_killed_and_woken_controllers(broker, repository):
    """
    The first is stopped while it trains, the second is killed, and while the third trains the
    first wakes up. One run, one tag, and the first one's word does not count.
    """
    settings = settings_of(broker, repository)
    config, ran = a_file(settings, repository), repository.parent / "ran"
    await said(settings, a_trigger())
    first = start(config, RAN=str(ran), SLOW="20")
    others = []
    try:
        await until(settings, lambda m: m.current is not None and ran.exists())
        os.kill(first.pid, signal.SIGSTOP)
        others.append(start(config, RAN=str(ran), SLOW="20"))
        await until(settings, lambda m: ran.read_text().count("x") == 2)
        others[0].kill()
        others.append(start(config, RAN=str(ran), SLOW="8"))
        await until(settings, lambda m: ran.read_text().count("x") == 3)
        os.kill(first.pid, signal.SIGCONT)
        found = await until(settings, over)
        again = await until(settings, lambda _: "another controller" in told(config))
    finally:
        for process in (first, *others):
            process.kill()
            process.wait()
    assert len(found.runs) == 1
    assert ran.read_text() == "xxx"
    assert again.stages == found.stages == {"v1.0.0": "production"}
    assert tags(repository) == ["churn@v1.0.0"]


def test_what_a_step_is_told_does_not_disturb_our_own_commands(tmp_path):
    trigger = a_trigger().named()
    run = Run("a1", trigger, ("train",), trigger.at, trigger.at)
    given = Project(MODEL, ModelLoop(repository="."), tmp_path, None).given(Model(), run)
    assert given.keys() <= GIVEN
    assert load(None, {**given, "STREAM_MONITOR_COMMAND": "x"}) == Settings()


async def test_once_ends_by_itself(broker, repository, monkeypatch):
    monkeypatch.setenv("RAN", str(repository.parent / "ran"))
    settings = settings_of(broker, repository)
    await said(settings, Claim(model="", at=rfc3339(now_ms()), host="another"))
    await said(settings, a_trigger())
    controller = Controller(settings, projects_of(settings, None), once=True)
    async with asyncio.timeout(60):
        await controller.run(asyncio.Event())
    assert (await state(settings)).champion == "v1.0.0"
