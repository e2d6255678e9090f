"""
A remote of git that hangs: what waits for it ends within seconds when a person cancels the run or
the controller is stopped, and leaves no process.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_monitor.lifecycle import git, tagging
from stream_monitor.lifecycle.controller import Controller, projects_of
from stream_monitor.lifecycle.events import Cancelled, Stage
from stream_monitor.lifecycle.events import Rollout as RolloutEvent
from stream_monitor.lifecycle.events import Version as VersionEvent
from stream_monitor.lifecycle.in_use import InUse
from stream_monitor.lifecycle.model import Model
from stream_monitor.lifecycle.stoppable import in_thread
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.settings import Settings
from tests.unit import test_lifecycle_controller as controller_tests
from tests.unit.test_lifecycle_controller import a_trigger, over, said, settings_of, until
from tests.unit.test_lifecycle_controller import git as git_of
from tests.unit.test_lifecycle_faults import now

broker, repository = controller_tests.broker, controller_tests.repository
LIMIT_S = 8.0
"""Between a word that ends something and its end; the remote hangs for ten minutes."""


@pytest.fixture
def hanging(repository: Path) -> Path:
    """The clone, whose remote says nothing; the file `asked` says that somebody asked it."""
    ssh = repository.parent / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ >> {repository.parent}/asked\nexec sleep 600\n")
    ssh.chmod(0o700)
    git_of(repository, "config", "core.sshCommand", str(ssh))
    git_of(repository, "remote", "set-url", "origin", "ssh://127.0.0.1:9/none.git")
    return repository


async def asked(repository: Path) -> int:
    """The process that the remote is, once somebody asked it."""
    return await asyncio.to_thread(_asked, repository.parent / "asked")


def _asked(path: Path) -> int:
    end_s = time.monotonic() + 30
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < end_s, "nobody asked the remote"
        time.sleep(0.05)
    return int(path.read_text().split()[0])


def _until(condition: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return found


def waits_for_the_lock() -> bool:
    return any("in alone" in s for s in map(stack, threading.enumerate()) if "in find" in s)


async def gone(pid: int) -> bool:
    return await asyncio.to_thread(_gone, Path(f"/proc/{pid}/stat"))


def _gone(stat: Path) -> bool:
    for _ in range(40):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


async def test_a_fetch_in_a_thread_ends_with_its_task(hanging: Path):
    task = asyncio.ensure_future(in_thread(git.base_commit, hanging, "origin", "main"))
    pid = await asked(hanging)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < LIMIT_S
    assert await gone(pid)
    assert not [t for t in threading.enumerate() if t.name.startswith("asyncio_") and busy(t)]


def stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame))


def busy(thread: threading.Thread) -> bool:
    """Whether a thread of the pool is in git."""
    return "git.py" in stack(thread)


async def test_who_waits_for_the_lock_of_the_clone_ends_too(hanging: Path):
    with tagging.alone(hanging, "clone", common=True):
        task = asyncio.ensure_future(in_thread(tagging.find, hanging, "churn", "origin", "r"))
        await asyncio.to_thread(_until, waits_for_the_lock)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_a_run_whose_fetch_hangs_ends_at_once(broker, hanging: Path, how: str):
    settings: Settings = settings_of(broker, hanging)
    await said(settings, a_trigger())
    stop = asyncio.Event()
    running = asyncio.ensure_future(Controller(settings, projects_of(settings, None)).run(stop))
    m = await until(settings, lambda m: m.current is not None)
    pid = await asked(hanging)
    began = time.monotonic()
    if how == "cancel":
        event = Cancelled(model=controller_tests.MODEL, at=now(), by="ana", run=m.current or "")
        await said(settings, event)
        m = await until(settings, over)
        assert [r.end for r in m.runs.values()] == ["cancelled"]
    else:
        stop.set()
        await running
    assert time.monotonic() - began < LIMIT_S
    assert await gone(pid)
    stop.set()
    await running


async def test_a_signature_that_nobody_brings_holds_nothing_else(
    hanging: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("stream_monitor.lifecycle.in_use.ANSWER_S", 0.1)
    loop = ModelLoop(repository=str(hanging), verify_tags=True)
    m = Model()
    made = VersionEvent(model="churn", at=now(), version="v2.0.0", tag="churn@v2.0.0", revision="0")
    m.versions["v2.0.0"] = made
    begins = RolloutEvent(
        version="v2.0.0", against=None, experiment="e", stages=(100,), step=0, since=now()
    )
    event = Stage(model="churn", at=now(), stages={"v2.0.0": "canary"}, rollout=begins)
    in_use = InUse("churn", loop)
    assert await asyncio.to_thread(in_use.refused, m, event) is None
    pid = await asked(hanging)
    began = time.monotonic()
    for _ in range(5):
        assert in_use.refused(m, msgspec.structs.replace(event, at=now())) is None
    assert time.monotonic() - began < 1, "other models do not wait"
    in_use.end(0)
    assert await gone(pid)
    answers = await asyncio.to_thread(_until, lambda: in_use.refused(m, event))
    found = answers[-1]
    assert isinstance(found, Stage)
    assert "verify_tags" in found.reason
