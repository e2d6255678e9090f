"""
The controller is killed at each place, as the broker and the remote of git see it: before and after
each record that it writes, while its command runs, and around the push of a tag. What is left is
always one run, one tag, the right stages and the right traffic.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords

from stream_monitor.client import Follower
from stream_monitor.demo.broker import BrokerThread
from stream_monitor.demo.log import Appended
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.lifecycle.events import Asked, Version
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.model import Model
from stream_monitor.times import rfc3339
from tests.unit import test_lifecycle_controller as controller_tests
from tests.unit.test_lifecycle_controller import (
    MODEL,
    a_file,
    a_trigger,
    git,
    over,
    said,
    settings_of,
    start,
    tags,
    told,
)

broker, repository = controller_tests.broker, controller_tests.repository

TRAIN = """
import fcntl, os, pathlib, signal, time
alone = open(os.environ["RAN"] + ".lock", "a")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    pathlib.Path(os.environ["RAN"] + ".twice").touch()
pathlib.Path("model.json").write_text(os.environ["STREAM_MONITOR_RUN"])
first = not os.path.exists(os.environ["RAN"])
pathlib.Path(os.environ["RAN"]).open("a").write("x")
if first:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)
"""
HOOK = """#!/bin/sh
while read old new ref; do case "$ref" in refs/tags/*@*)
  [ -e "{mark}" ] || {{ touch "{mark}"; kill -9 $(cat "{pid}"); sleep 1; exit {code}; }};;
esac; done
"""
# no `compared`: there is no worker here, so no `history` to compare
KINDS = {
    "claim", "accepted", "retraining", "ended", "reference", "version", "stage",
    "experiment_started", "experiment_changed", "experiment_stopped",
}  # fmt: skip
STEPS = {(s, o) for s in ("train", "decide", "register") for o in ("started", "done")}
LIMIT_S = 540.0


class Site:
    """A broker that kills: it looks at each record of the controller before and after it counts."""

    def __init__(
        self, broker: BrokerThread, config: Path, wanted: Callable[[str, tuple[Any, ...]], bool]
    ) -> None:
        self.broker, self.config, self.wanted = broker, config, wanted
        self.values: list[bytes] = []
        self.killed: list[tuple[str, tuple[Any, ...]]] = []
        self.process: subprocess.Popen[bytes] | None = None
        log = broker.broker.topics["lifecycle"].logs[0]
        self._append = log.append
        log.append = self.append  # type: ignore[method-assign]

    def append(
        self, data: bytes, record_bytes_max: int, appended_ms: int | None = None
    ) -> Appended:
        values = _values(data)
        events = [json.loads(v) for v in values]
        place = _place(events[0]) if "epoch" in events[0] else None
        if place is not None and self._kill("before", place):
            return Appended(6, -1)  # not for me: nobody is there to read it
        done = self._append(data, record_bytes_max, appended_ms)
        if not done.error:
            self.values += values
        if place is not None:
            self._kill("after", place)
        return done

    def _kill(self, when: str, place: tuple[Any, ...]) -> bool:
        if (when, place) in self.killed or not self.wanted(when, place) or self.process is None:
            return False
        self.killed.append((when, place))
        self.process.kill()
        return True

    def model(self) -> Model:
        fold = Fold()
        for value in list(self.values):
            fold.take(value)
        return fold.of(MODEL)

    async def until(self, condition: Callable[[Model], bool], kills: list[float]) -> None:
        """
        Start the controller again and again, until its work is done; so many seconds after its
        first word it is killed.
        """
        async with asyncio.timeout(LIMIT_S):
            while not condition(self.model()):
                before, end_s = len(self.values), float("inf")
                self.process = start(self.config, RAN=str(self.config.parent / "ran"))
                (self.config.parent / "pid").write_text(str(self.process.pid))
                while self.process.poll() is None and not condition(self.model()):
                    await asyncio.sleep(0.005 if kills else 0.05)
                    now_s = asyncio.get_running_loop().time()
                    if kills and end_s == float("inf") and len(self.values) > before:
                        end_s = now_s + kills.pop()
                    if now_s > end_s:
                        self.process.kill()
                self.process.kill()
                self.process.wait()
                self.broker._loop.call_soon_threadsafe(self._forget)

    def _forget(self) -> None:
        """The session of a dead controller is over at once; waiting for it is tested elsewhere."""
        for group in self.broker.broker._handlers.groups.by_name.values():
            for member in list(group.members):
                group.leave(member)


def _values(data: bytes) -> list[bytes]:
    records, found = MemoryRecords(data), []
    while (batch := records.next_batch()) is not None:
        found += [r.value for r in batch]
    return found


def _place(event: dict[str, Any]) -> tuple[Any, ...]:
    kind = event["type"]
    if kind == "retraining":
        return kind, event["step"], event["outcome"]
    if kind == "stage":
        r = event.get("rollout") or {}
        return kind, event["reason"], r.get("version"), r.get("step"), r.get("state", "running")
    return kind, event.get("experiment", "")


def a_site(
    broker: BrokerThread, repository: Path, wanted: Callable[[str, tuple[Any, ...]], bool]
) -> Site:
    (repository / "train.py").write_text(TRAIN)
    git(repository, "commit", "-qam", "it kills")
    git(repository, "push", "-q", "origin", "main")
    settings = settings_of(broker, repository)
    config = a_file(settings, repository)
    content = json.loads(config.read_text())
    content["lifecycle"]["models"][MODEL]["deploy"]["stages"] = [20, 50, 100]
    config.write_text(json.dumps(content))
    broker.broker.topics.create("lifecycle", 1)
    for name, code in (("pre-receive", 1), ("post-receive", 0)):
        hook = repository.parent / "remote.git" / "hooks" / name
        at = {"mark": repository.parent / name, "pid": repository.parent / "pid", "code": code}
        hook.write_text(HOOK.format(**at))
        hook.chmod(0o700)
    return Site(broker, config, wanted)


async def a_story(site: Site, repository: Path, kills: list[float]) -> None:
    """A run, the first version; then others are rolled out, at least one."""
    settings = settings_of(site.broker, repository)
    await said(settings, a_trigger())
    await site.until(lambda m: over(m) and m.champion == "v1.0.0", kills)
    versions = ["v1.0.0"]
    while kills or len(versions) == 1:
        at, version = rfc3339(now_ms()), f"v{len(versions) + 1}.0.0"
        made = Version(model=MODEL, at=at, by="ana", version=version, tag="t", revision="0")
        await said(settings, made)
        await said(settings, Asked(model=MODEL, at=at, by="ana", what="start", version=version))
        await site.until(lambda m, v=version: m.champion == v and m.rollout is None, kills)  # type: ignore[misc]
        versions.append(version)
    m, events = site.model(), [json.loads(v) for v in site.values]
    logs = told(site.config)
    assert [(r.end, r.version) for r in m.runs.values()] == [("done", "v1.0.0")], logs
    assert len({e["run"] for e in events if e["type"] == "accepted"}) == 1
    assert len({e["version"] for e in events if e["type"] == "version"}) == len(versions)
    assert m.stages == {**dict.fromkeys(versions, "retired"), versions[-1]: "production"}
    assert tags(repository) == ["churn@v1.0.0"]
    folder = repository.parent
    assert not (folder / "ran.twice").exists()
    assert (folder / "ran").read_text().count("x") >= 2
    assert (folder / "pre-receive").exists()
    assert (folder / "post-receive").exists()
    _check_traffic(site.values, versions)


def _check_traffic(values: list[bytes], versions: list[str]) -> None:
    """At no moment was a user without a version, and shares only grew, from one to the next."""
    follower, shares = Follower(MODEL), []
    for value in values:
        follower.take(value)
        served = [follower.version(f"user-{n}") for n in range(400)]
        if served[0] is not None:
            places = [versions.index(version or "") for version in served]
            assert max(places) - min(places) <= 1
            shares.append(sum(places) / 4)
    assert shares == sorted(shares), shares
    assert (shares[0], shares[-1]) == (0, 100 * (len(versions) - 1))
    wanted = [100 * n + share for n in range(len(versions) - 1) for share in (20, 50)]
    assert [s for s in wanted if not any(abs(x - s) < 8 for x in shares)] == []


async def test_kills_at_a_few_places(broker, repository):
    chosen = {
        ("before", ("retraining", "train", "done")),
        ("after", ("version", "")),
        ("before", ("stage", "every gate is open", "v2.0.0", 1, "running")),
    }
    site = a_site(broker, repository, lambda when, place: (when, place) in chosen)
    await a_story(site, repository, [])
    assert set(site.killed) == chosen


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_kills_at_every_place(broker, repository):
    site = a_site(broker, repository, lambda when, place: True)
    await a_story(site, repository, [])
    assert {place[0] for _, place in site.killed} == KINDS
    assert {place[1:] for _, place in site.killed if place[0] == "retraining"} == STEPS
    for when, place in site.killed:
        assert ({"before": "after", "after": "before"}[when], place) in site.killed
    print(len(site.killed), "kills")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [int(s) for s in os.environ.get("KILL_SEEDS", "1").split()])
async def test_twenty_kills_at_random_times(broker, repository, seed):
    """Other seeds: `KILL_SEEDS="2 3" pytest …`."""
    rng = random.Random(seed)
    site = a_site(broker, repository, lambda when, place: False)
    kills = [rng.uniform(0, 0.3) for _ in range(20)]
    began_s = time.monotonic()
    await a_story(site, repository, kills)
    claims = sum(json.loads(v)["type"] == "claim" for v in site.values) // 2
    print(f"{claims} controllers in {time.monotonic() - began_s:.0f} s")
    assert not kills
