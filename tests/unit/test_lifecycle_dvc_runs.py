"""
Whole runs with real git and real DVC on the embedded broker: a remote that is away, and kill -9
after the data were pushed and before there is a tag.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.client import Follower
from stream_monitor.config import load
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle.controller import Controller, projects_of
from stream_monitor.lifecycle.events import Trigger
from stream_monitor.times import rfc3339
from tests.model_project import Project
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
    told,
    until,
)
from tests.unit.test_lifecycle_faults import served

pytestmark = pytest.mark.slow
broker = controller_tests.broker
TRAIN = """
import json, os, pathlib
pathlib.Path("model.pkl").write_text("weights " * 1000 + os.environ["STREAM_MONITOR_RUN"])
pathlib.Path("metrics.json").write_text(json.dumps({"accuracy": 0.9}))
"""
PIPELINE = f"""
stages:
  train:
    cmd: {sys.executable} train.py
    deps: [train.py]
    outs: [model.pkl]
    metrics: [{{metrics.json: {{cache: false}}}}]
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, {"train.py": TRAIN, "dvc.yaml": PIPELINE}, with_dvc=True)


@pytest.fixture
def config(broker, project) -> Path:
    path = a_file(settings_of(broker, project.clone), project.clone)
    content = json.loads(path.read_text())
    del content["lifecycle"]["models"][MODEL]["steps"]  # those of dvc.yaml
    path.write_text(json.dumps(content))
    return path


def stored(project: Project) -> list[Path]:
    """Whole files on the remote of DVC."""
    return [p for p in project.store.rglob("*") if p.is_file() and ".tmp" not in p.name]


async def soon(condition: Any, limit_s: float = 60) -> Any:
    """Wait for something outside of the log, looking often."""
    end_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end_s
        await asyncio.sleep(0.005)
    return found


@contextlib.contextmanager
def gone(place: Path) -> Iterator[None]:
    """A plain file stands where the remote was, so that nobody can make it again."""
    aside = place.with_name(f"{place.name}.aside")
    place.rename(aside)
    place.touch()
    try:
        yield
    finally:
        place.unlink()
        aside.rename(place)


async def test_a_remote_that_is_away_and_then_killed_after_the_push(
    broker, project, config, monkeypatch
):
    """
    DVC's remote stays away: the step waits twice, the run fails, nothing is half there. In the next
    run the file is on the remote and the tag is not: the next controller does the rest.
    """
    monkeypatch.setattr("stream_monitor.lifecycle.decisions.PAUSES_MS", (100, 200))
    settings = load(str(config), {})
    await said(settings, a_trigger())
    stop = asyncio.Event()
    controller = Controller(settings, projects_of(settings, str(config)))
    running = asyncio.ensure_future(controller.run(stop))
    with gone(project.store):
        waits = await until(settings, lambda m: m.current and m.runs[m.current].attempt == 3)
        assert waits.runs[waits.current or ""].step == "register"
        m = await until(settings, over)
    stop.set()
    await running
    (failed,) = m.runs.values()
    assert (failed.end, failed.reason.startswith("register: dvc push")) == ("failed", True)
    assert (m.versions, m.stages, project.tags()) == ({}, {}, {})

    await said(settings, Trigger(model=MODEL, at=rfc3339(now_ms()), cause="person", by="ben"))
    first = start(config)
    second = None
    try:
        await soon(lambda: stored(project))
        first.kill()
        first.wait()
        assert not (await state(settings)).versions
        second = start(config)
        m = await until(settings, lambda m: over(m) and len(m.runs) == 2)
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
    run = list(m.runs.values())[1]
    assert (run.end, run.version) == ("done", "v1.0.0"), told(config)
    assert list(project.tags()) == ["churn@v1.0.0"]
    assert f"Run: {run.run}" in project.says("churn@v1.0.0")
    assert m.stages == {"v1.0.0": "production"}
    assert await served(settings, Follower(MODEL)) == {"v1.0.0"}
    model = "weights " * 1_000 + failed.run  # same code, same data: DVC's run cache has it
    assert m.versions["v1.0.0"].artifact == {"model.pkl": f"md5:{md5(model.encode()).hexdigest()}"}
    words = ("get", str(project.remote), "model.pkl", "--rev", "churn@v1.0.0", "-o", "back")
    project.dvc(*words)
    assert (project.clone / "back").read_text() == model
