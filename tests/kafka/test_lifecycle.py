"""
The loop on a real Kafka: a controller that is stopped, another that is killed, and the first wakes
up while a third works; a broker that is away; a verdict while the controller dies; and the whole
story of `demo --loop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka.admin import AdminClient

from bench.chaos_brokers import KafkaServer
from stream_monitor.client import Follower, follow_aiokafka
from stream_monitor.kafka import topics
from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.records import TopicReader, write
from stream_monitor.lifecycle.events import Asked, Version
from stream_monitor.settings import KafkaSettings, Settings
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

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
repository = controller_tests.repository
DEMO = (sys.executable, "-m", "stream_monitor", "demo", "--loop")


@pytest.mark.timeout(120)
async def test_a_rebalance_a_kill_and_one_that_wakes_up(site, repository):
    made = settings_of(site, repository)
    kafka = KafkaSettings(bootstrap_servers=site.bootstrap, topic_prefix=site.prefix)
    settings = msgspec.structs.replace(made, kafka=kafka)
    config, ran = a_file(settings, repository), repository.parent / "ran"
    content = json.loads(config.read_text())
    content["kafka"]["topic_prefix"] = site.prefix
    content["worker"] = {"group": f"{site.prefix}group"}
    config.write_text(json.dumps(content))
    await topics.ensure(settings)
    await said(settings, a_trigger())
    controllers = [start(config, RAN=str(ran), SLOW="30")]
    try:
        await until(settings, lambda m: m.current is not None and ran.exists())
        controllers.append(start(config, RAN=str(ran), SLOW="30"))
        await _members(site, 2)
        assert ran.read_text() == "x"  # it joined the group, and changed nothing
        os.kill(controllers[0].pid, signal.SIGSTOP)
        await until(settings, lambda m: ran.read_text().count("x") == 2)
        controllers[1].kill()
        controllers.append(start(config, RAN=str(ran), SLOW="6"))
        await until(settings, lambda m: ran.read_text().count("x") == 3)
        os.kill(controllers[0].pid, signal.SIGCONT)
        found = await until(settings, over)
    finally:
        for process in controllers:
            process.kill()
            process.wait()
    again = await state(settings)
    assert [(r.end, r.version) for r in again.runs.values()] == [("done", "v1.0.0")], told(config)
    assert ran.read_text() == "xxx"  # who wakes up takes nothing from who is at work
    assert again.stages == found.stages == {"v1.0.0": "production"}
    assert tags(repository) == ["churn@v1.0.0"]
    follower = Follower(MODEL)
    async with TopicReader(settings, ["lifecycle"]) as records:
        async for record in records.whole():
            follower.take(record.value)
    assert follower.version("user-1") == "v1.0.0"


async def _members(site, number: int) -> None:
    """Wait until the group of controllers has so many members, and is at rest."""
    admin, name = (
        AdminClient({"bootstrap.servers": site.bootstrap}),
        f"{site.prefix}group-controller",
    )
    async with asyncio.timeout(60):
        while True:
            asked = admin.describe_consumer_groups([name])[name]
            group = await asyncio.to_thread(asked.result)
            if len(group.members) == number and group.state.name == "STABLE":
                return
            await asyncio.sleep(0.2)


def _left(kafka) -> set[str]:
    return set(AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics)


@pytest.mark.timeout(240)
def test_the_whole_story(kafka, tmp_path):
    before = _left(kafka)
    done = subprocess.run(
        [*DEMO, "--json", "--broker", kafka.bootstrap],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout.splitlines()[-1])
    assert story["seconds"] < 180
    assert story["alert_s"] < story["retraining_s"] < story["canary_s"] < story["promotion_s"]
    assert story["promotion_s"] < story["rollback_s"]
    assert story["accuracy_broken"] < story["accuracy_after"]
    assert story["bad_version"] != story["version"]
    assert _left(kafka) - before <= {"__consumer_offsets", "__transaction_state"}
    assert not _files(tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("words", ["making a project", "starting a worker", "now the world"])
def test_it_cleans_up_when_it_is_interrupted(kafka, tmp_path, words):
    before = _left(kafka)
    process = subprocess.Popen(
        [*DEMO, "--broker", kafka.bootstrap],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert next((line for line in process.stdout if words in line), None)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "Traceback" not in rest
    assert process.returncode == 1
    assert _left(kafka) - before <= {"__consumer_offsets", "__transaction_state"}
    assert not _files(tmp_path)
    assert not _named(str(tmp_path))


def _files(folder: Path) -> list[Path]:
    """All but the empty folder that Faust makes for each worker."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _named(text: str) -> list[str]:
    """Processes that still have something of the demo in their command or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                whole = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if f"{text}/".encode() in whole or f"TMPDIR={text}".encode() in whole:
                    found.append(entry.name)
    return found


@pytest.mark.timeout(180)
async def test_a_broker_that_is_away_and_a_verdict_while_the_controller_dies(kafka, repository):
    """
    The broker is away for 20 s while a step runs, and the controller goes on. Then the active one
    of two is killed at the moment of a verdict: routers do what it says, the next one records it.
    """
    server = KafkaServer().start()
    controllers = []
    try:
        settings = settings_of(server, repository)
        config, ran = a_file(settings, repository), repository.parent / "ran"
        content = json.loads(config.read_text())
        content["lifecycle"]["models"][MODEL]["deploy"] |= {"stages": [50, 100], "min_labels": 10}
        config.write_text(json.dumps(content))
        await topics.ensure(settings)
        await said(settings, a_trigger())
        controllers.append(start(config, RAN=str(ran), SLOW="4"))
        await until(settings, lambda m: m.current is not None and ran.exists())
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(20)
        await asyncio.to_thread(server.start)
        found = await until(settings, over)
        assert [(r.end, r.version) for r in found.runs.values()] == [("done", "v1.0.0")]
        assert tags(repository) == ["churn@v1.0.0"]
        assert controllers[0].poll() is None, told(config)

        controllers.append(start(config))
        await _rolls_back(settings, controllers[0])
        assert controllers[1].poll() is None, told(config)
    finally:
        for process in controllers:
            process.kill()
            process.wait()
        server.close()


async def _rolls_back(settings: Settings, active: subprocess.Popen[bytes]) -> None:
    at = rfc3339(now_ms())
    made = Version(model=MODEL, at=at, by="ana", version="v2.0.0", tag="t", revision="0")
    await said(settings, made)
    await said(settings, Asked(model=MODEL, at=at, by="ana", what="start", version="v2.0.0"))
    m = await until(settings, lambda m: m.trial is not None and not m.trial.stopped)
    assert m.rollout is not None
    follower = Follower(MODEL)

    async def serves(wanted: set[str]) -> None:
        async with asyncio.timeout(30):
            while True:
                if {follower.version(f"user-{n}") for n in range(50)} == wanted:
                    return
                await asyncio.sleep(0.01)

    def connect() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            "lifecycle",
            bootstrap_servers=settings.kafka.bootstrap_servers,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )

    following = asyncio.ensure_future(follow_aiokafka(follower, connect))
    try:
        await serves({"v1.0.0", "v2.0.0"})
        event = {"type": "experiment_verdict", "model": MODEL, "at": rfc3339(now_ms())}
        event |= {"experiment": m.rollout.experiment, "arm": "v2.0.0", "verdict": "rollback"}
        active.kill()
        began_s = time.monotonic()
        await write(settings, "lifecycle", MODEL, json.dumps(event).encode())
        await serves({"v1.0.0"})
        routed_s = time.monotonic() - began_s
        m = await until(settings, lambda m: m.rollout is None)
        recorded_s = time.monotonic() - began_s
        await serves({"v1.0.0"})
    finally:
        following.cancel()
    print(f"routers after {routed_s:.2f} s, the record after {recorded_s:.1f} s")
    assert routed_s < 5
    assert recorded_s < 30
    assert m.stages == {"v1.0.0": "production", "v2.0.0": "retired"}
