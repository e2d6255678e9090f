"""
Followers on a real Kafka, where events come in transactions and the broker goes away.

Rule of the file: both clients have the same tests. What a follower must do in a time is measured
here against the clock of the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.chaos_brokers import KafkaServer
from stream_monitor.client import Follower, follow_aiokafka, follow_confluent, reassign

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
AT = "2026-11-02T09:00:00Z"
ARMS = [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}]
EVENT = {"schema": 1, "model": "fraud", "at": AT, "experiment": "fraud-17"}
GARBAGE = [b"{", b"\xff\xfe", None, b"null", b'{"type": "stage", "model": "fraud"}']


def started(b: float) -> bytes:
    table = {"weights": {"control": 100 - b, "b": b}}
    event = EVENT | {"type": "experiment_started", "arms": ARMS, "on_rollback": "stop"} | table
    return json.dumps(event | {"ranges": reassign([], table["weights"])}).encode()


def changed(b: float, phase: int) -> bytes:
    table = {"weights": {"control": 100 - b, "b": b}}
    return json.dumps(EVENT | {"type": "experiment_changed", "phase": phase} | table).encode()


def verdict(word: str) -> bytes:
    event = EVENT | {"type": "experiment_verdict", "arm": "b", "phase": 1, "verdict": word}
    return json.dumps(event | {"id": "0" * 32, "because": [], "evidence": {}}).encode()


class Topic:
    """A `lifecycle` of its own on a broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap, self.name = bootstrap, f"t{random.randrange(10**9)}.lifecycle"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([NewTopic(self.name, 1, 1)])[self.name].result(30)
        self.producer = self.connected()

    def connected(self) -> Producer:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "transactional.id": self.name,
            "log_level": 0,
        }
        found = Producer(settings)
        found.init_transactions(60)
        return found

    def write(self, *values: bytes | None, commit: bool = True) -> float:
        """Write a transaction, and commit or abort it; the time of the end."""
        self.producer.begin_transaction()
        for value in values:
            self.producer.produce(self.name, value, b"fraud")
        assert self.producer.flush(30) == 0
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)
        return time.monotonic()


class Confluent:
    """A follower with a consumer of confluent-kafka."""

    def __init__(self, topic: Topic) -> None:
        self.follower = Follower("fraud")
        self.made = 0

        def connect() -> Consumer:
            self.made += 1
            consumer = Consumer(
                {
                    "bootstrap.servers": topic.bootstrap,
                    "group.id": "unused",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "log_level": 0,
                }
            )
            consumer.assign([TopicPartition(topic.name, 0, OFFSET_BEGINNING)])
            return consumer

        self.source = follow_confluent(self.follower, connect)

    def close(self) -> None:
        self.source.close()


class Aiokafka:
    """A follower with a consumer of aiokafka, in a loop of its own."""

    def __init__(self, topic: Topic) -> None:
        self.follower = Follower("fraud")

        def connect() -> AIOKafkaConsumer:
            return AIOKafkaConsumer(
                topic.name,
                bootstrap_servers=topic.bootstrap,
                group_id=None,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
            )

        async def main() -> None:
            self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
            await follow_aiokafka(self.follower, connect)

        def run() -> None:
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(main())

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def close(self) -> None:
        assert self.task is not None
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(30)


KINDS: list[Callable[[Topic], Any]] = [Confluent, Aiokafka]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[KafkaServer]:
    request.getfixturevalue("kafka")  # skipped where there is none
    found = KafkaServer()
    try:
        found.start()
        yield found
    finally:
        found.close()


def until(follower: Follower, b: float, seconds: float = 60) -> float:
    """Wait until b serves so many percent; the time at which it did."""
    deadline = time.monotonic() + seconds
    while follower.current is None or share(follower) != b:
        assert time.monotonic() < deadline, f"not within {seconds} s; {follower.last_error}"
        time.sleep(0.005)
    return time.monotonic()


def until_missed(follower: Follower) -> None:
    """Wait until it is told that the broker is away."""
    deadline = time.monotonic() + 30
    while not follower.errors.get("source"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def share(follower: Follower) -> float:
    """What b serves, in percent."""
    router = follower.current
    assert router is not None
    start, slots = 0, 0
    for end, arm in router.ranges:
        slots += (end - start) * (arm == "b")
        start = end
    return slots / 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_follower_of_transactions(server: KafkaServer, kind: Any) -> None:
    topic = Topic(server.bootstrap)
    topic.write(started(1), verdict("continue"))
    topic.write(changed(50, 2), verdict("rollback"), commit=False)
    topic.write(*GARBAGE)
    topic.write(changed(5, 2))
    threads = set(threading.enumerate())
    followed = kind(topic)
    follower = followed.follower
    try:
        began_s = time.monotonic()
        assert follower.wait(30), follower.last_error
        print(f"ready after {time.monotonic() - began_s:.2f} s")
        assert share(follower) == 5, "the state of the whole topic, without what was aborted"
        assert follower.errors == {"unreadable": 2}
        waits_s = []
        for phase in range(3, 10):
            written_s = topic.write(changed(phase, phase))
            waits_s.append(until(follower, phase) - written_s)
        print(f"changes after {[round(w, 3) for w in waits_s]} s")
        assert statistics.median(waits_s) < 1
        topic.write(verdict("rollback"), commit=False)
        topic.write(*GARBAGE, verdict("promote"))
        time.sleep(0.5)
        assert share(follower) == 9, "the verdict of an aborted transaction never was"
        written_s = topic.write(verdict("rollback"))
        took_s = until(follower, 0, 5) - written_s
        print(f"rollback after {took_s:.3f} s")
        assert follower.age_s < 1
    finally:
        began_s = time.monotonic()
        followed.close()
        took_s = time.monotonic() - began_s
    print(f"closed in {took_s:.2f} s")
    assert took_s < 1
    assert set(threading.enumerate()) <= threads
    assert share(follower) == 0


def test_followers_go_on_without_the_broker(server: KafkaServer) -> None:
    topic = Topic(server.bootstrap)
    topic.write(started(5))
    known = [kind(topic) for kind in KINDS]
    late: list[Any] = []
    try:
        for followed in known:
            assert followed.follower.wait(30), followed.follower.last_error
        server.signal(signal.SIGKILL)
        assert server.process is not None
        server.process.wait(10)
        late += [kind(topic) for kind in KINDS]
        gone_s = time.monotonic()
        for followed in known + late:
            until_missed(followed.follower)
        print(f"the broker is missed after {time.monotonic() - gone_s:.1f} s")
        for followed in known:
            assert share(followed.follower) == 5
            assert followed.follower("user-17") in {"control", "b"}
            assert followed.follower.age_s > 0.5
        for followed in late:
            assert (followed.follower("user-17"), followed.follower.ready) == (None, False)
        server.start()
        topic.producer = topic.connected()
        written_s = topic.write(changed(25, 2))
        for followed in known + late:
            until(followed.follower, 25)
        print(f"back after {time.monotonic() - written_s:.1f} s")
        for followed in known + late:
            assert followed.follower.wait(30)
            assert set(followed.follower.errors) == {"source"}
        server.stop()
        time.sleep(2)
    finally:
        took_s = []
        for followed in known + late:
            began_s = time.monotonic()
            followed.close()
            took_s.append(time.monotonic() - began_s)
        if server.process is None:
            server.start()
    print(f"closed without a broker in {[round(t, 2) for t in took_s]} s")
    assert max(took_s) < 1.5


PRELOADED = """
import os, sys, time
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from stream_monitor.client import Follower, follow_confluent

def connect():
    consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "unused"})
    consumer.assign([TopicPartition(sys.argv[2], 0, OFFSET_BEGINNING)])
    return consumer

def slots():
    return follower.current.ranges[0][0]

def until(slots_wanted):
    deadline = time.monotonic() + 60
    while slots() != slots_wanted:
        assert time.monotonic() < deadline, (slots(), follower.errors, follower.last_error)
        time.sleep(0.01)

follower = Follower("fraud")
source = follow_confluent(follower, connect)
assert follower.wait(60), follower.last_error
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        assert slots() == 9900 and follower.ready, "what was known before the fork"
        until(7500)
        source.close()
        os._exit(0)
    children.append(child)
print("forked", flush=True)
until(7500)
source.close()
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_children_of_a_preloaded_server_follow_too(server: KafkaServer) -> None:
    topic = Topic(server.bootstrap)
    topic.write(started(1))
    program = subprocess.Popen(
        [sys.executable, "-c", PRELOADED, topic.bootstrap, topic.name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        start_new_session=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "forked\n", program.communicate(timeout=60)[1]
        topic.write(changed(25, 2))
        _, err = program.communicate(timeout=90)
        assert program.returncode == 0, err
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait(10)
