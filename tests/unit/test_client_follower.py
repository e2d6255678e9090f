"""
A follower keeps the routers of a model current, whatever its source sends or does.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from stream_monitor.client import (
    Follower,
    Router,
    follow_aiokafka,
    follow_confluent,
    follow_file,
    follow_url,
    reassign,
    sources,
)
from stream_monitor.demo.broker import start_in_thread

ROOT = Path(__file__).parents[2]
KEYS = [f"user-{i}" for i in range(200)]


def event(kind: str, experiment: str = "fraud-17", **fields: Any) -> bytes:
    at = "2026-11-02T09:00:00Z"
    base = {"schema": 1, "type": f"experiment_{kind}", "model": "fraud", "at": at}
    return json.dumps({**base, "experiment": experiment, **fields}).encode()


def started(b: float = 1, experiment: str = "fraud-17", **fields: Any) -> bytes:
    arms = [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}]
    weights = {"control": 100 - b, "b": b}
    return event(
        "started",
        experiment,
        **{"arms": arms, "weights": weights, "ranges": reassign([], weights), **fields},
    )


def changed(b: float, phase: int, experiment: str = "fraud-17") -> bytes:
    weights = {"control": 100 - b, "b": b}
    return event("changed", experiment, phase=phase, weights=weights, ranges=reassign([], weights))


def share(follower: Follower) -> float:
    """What b serves, in percent, as the table says."""
    router = follower.current
    assert router is not None
    start, slots = 0, 0
    for end, arm in router.ranges:
        slots += (end - start) * (arm == "b")
        start = end
    assert [follower(key) for key in KEYS] == [router(key) for key in KEYS]
    return slots / 100


class TestEvents:
    def test_the_life_of_an_experiment(self):
        follower = Follower("fraud")
        assert (follower("u"), follower.fields("u"), follower.routers) == (None, {"unit": "u"}, {})
        assert follower.take(started(1))
        assert share(follower) == 1
        assert follower.take(changed(5, 2))
        assert share(follower) == 5
        assert follower.current is not None
        assert follower.current.arms == {"control": "3", "b": "4"}
        assert list(follower.routers) == ["fraud-17"]
        assert follower.take(event("stopped", keep="b"))
        assert (share(follower), follower.routers) == (100, {})
        assert follower.router("fraud-17") is follower.current
        assert follower.errors == {}

    def test_over_without_keep_is_the_control(self):
        follower = Follower("fraud")
        follower.take(started(50))
        follower.take(event("stopped"))
        assert share(follower) == 0

    def test_a_keep_that_is_no_arm_is_the_control_and_counted(self):
        follower = Follower("fraud")
        follower.take(started(50))
        assert follower.take(event("stopped", keep="c"))
        assert share(follower) == 0
        assert follower.errors == {"invalid": 1}
        assert "keep: 'c' is not among the arms" in follower.last_error

    def test_a_log_that_begins_after_the_start(self):
        follower = Follower("fraud")
        assert follower.take(changed(25, 4))
        assert share(follower) == 25
        other = Follower("fraud")
        assert not other.take(event("stopped"))
        assert other.take(event("stopped", keep="b"))
        assert other("u") == "b"

    def test_without_ranges_the_table_goes_on_from_the_one_before(self):
        follower = Follower("fraud")
        follower.take(started(30, ranges=[[3000, "b"], [10_000, "control"]]))
        follower.take(event("changed", phase=2, weights={"b": 40, "control": 60}))
        assert follower.current is not None
        assert follower.current.ranges == reassign(
            [(3000, "b"), (10_000, "control")], {"control": 60, "b": 40}
        )

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            None,
            b'{"schema": 1, "type": "stage", "model": "fraud", "at": "2026-11-02T09:00:00Z"}',
            event("verdict", verdict="rollback"),
            started(50).replace(b'"fraud"', b'"other"'),
            b"[]",
            b"17",
        ],
    )
    def test_everything_else_is_ignored(self, value):
        follower = Follower("fraud")
        follower.take(started(1))
        assert not follower.take(value)
        assert (share(follower), follower.errors) == (1, {})

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (b"{", "unreadable"),
            (b"\xff\xfe", "unreadable"),
            (b"[" * 100_000, "unreadable"),
            (event("changed"), "invalid"),
            (event("changed", weights={"control": 99, "c": 1}), "invalid"),
            (event("changed", weights={"control": 66.667, "b": 33.333}), "invalid"),
            (event("changed", ranges=[[5000, "b"]]), "invalid"),
            (event("started", "fraud-18"), "invalid"),
            (event("started", None), "invalid"),  # type: ignore[arg-type]
            (event("started", ["x"]), "invalid"),  # type: ignore[arg-type]
            (event("stopped", keep=17), "invalid"),
        ],
    )
    def test_what_is_wrong_is_counted_and_changes_nothing(self, value, reason):
        follower = Follower("fraud")
        follower.take(started(1))
        assert not follower.take(value)
        assert (share(follower), follower.errors) == (1, {reason: 1})
        assert follower.last_error.startswith(f"{reason}: ")

    def test_a_log_may_be_read_again(self):
        """Nobody is routed by weights of the past meanwhile."""
        log = [started(1), changed(5, 2), changed(25, 3)]
        follower = Follower("fraud")
        for value in log:
            follower.take(value)
        for value in log:
            assert not follower.take(value)
            assert share(follower) == 25
        follower.take(event("stopped", keep="b"))
        for value in log:
            assert not follower.take(value)
        assert share(follower) == 100

    def test_a_name_may_be_used_again_later(self):
        follower = Follower("fraud")
        follower.take(started(50))
        follower.take(event("stopped", keep="b"))
        assert not follower.take(started(10))
        assert follower.take(started(10, at="2026-11-03T09:00:00Z"))
        assert share(follower) == 10

    def test_the_newest_start_decides_and_an_older_one_after_its_end(self):
        follower, only = Follower("fraud"), Follower("fraud", experiment="one")
        for f in (follower, only):
            f.take(started(10, "one"))
            f.take(started(20, "two"))
            f.take(changed(15, 2, "one"))
        assert (share(follower), share(only)) == (20, 15)
        assert list(follower.routers) == ["one", "two"]
        assert list(only.routers) == ["one"]
        for f in (follower, only):
            f.take(event("stopped", "two", keep="b"))
        assert (share(follower), share(only)) == (15, 15)

    def test_experiments_that_are_over_are_forgotten_at_some_time(self):
        follower = Follower("fraud")
        for i in range(200):
            follower.take(started(50, f"e{i}"))
            follower.take(event("stopped", f"e{i}", keep="b"))
        assert follower.router("e0") is None
        assert follower.router("e199") is not None
        assert len(follower._known) == 64

    def test_any_bytes_raise_nothing(self):
        rng = random.Random(5)
        follower = Follower("fraud")
        follower.take(started(1))
        good = [started(1), changed(5, 2), event("stopped", keep="b")]
        for _ in range(2_000):
            value = bytearray(rng.choice(good))
            for _ in range(rng.randint(1, 5)):
                value[rng.randrange(len(value))] = rng.randrange(256)
            follower.take(bytes(value))
            assert follower("u") in {"control", "b"} or follower.current is not None
            assert isinstance(follower("u"), str)

    def test_age(self):
        now = [100.0]
        follower = Follower("fraud", clock=lambda: now[0])
        assert follower.age_s == math.inf
        follower.take(b"{")
        now[0] += 7
        assert follower.age_s == 7
        follower.failed("source", "away")
        assert follower.age_s == 7
        follower.heard()
        assert (follower.age_s, follower.ready, follower.wait(0)) == (0, False, False)
        follower.caught_up()
        assert follower.wait(0)


class TestAll:
    def test_a_history_counts_at_once(self):
        follower = Follower("fraud")
        assert follower.take_all([started(1), changed(5, 2), changed(25, 3)])
        assert share(follower) == 25
        assert not follower.take_all([started(1), changed(5, 2), changed(25, 3)])

    def test_half_of_a_file_undoes_nothing(self):
        follower = Follower("fraud")
        whole = [started(1, "one"), started(10, "two"), changed(20, 2, "two")]
        follower.take_all(whole)
        for half in ([], whole[:1], whole[:2], [whole[1], whole[2][:30]]):
            assert not follower.take_all(half)
            assert (share(follower), set(follower.routers)) == (20, {"one", "two"})
        follower.take_all([*whole, event("stopped", "two", keep="b")])
        follower.take_all(whole)
        assert set(follower.routers) == {"one"}

    def test_a_file_of_one_event_may_be_edited(self):
        follower = Follower("fraud")
        follower.take_all([started(1)])
        assert follower.take_all([started(30)])
        assert share(follower) == 30


class Seen:
    """Wait until something is so: the thread of a source looks often."""

    def __init__(self, follower: Follower) -> None:
        self.follower, self.changed = follower, threading.Event()
        for name in ("caught_up", "failed", "take", "take_all", "heard"):
            setattr(follower, name, self.told(getattr(follower, name)))

    def told(self, method):
        def call(*arguments):
            try:
                return method(*arguments)
            finally:
                self.changed.set()

        return call

    def until(self, condition) -> None:
        for _ in range(1_000):
            if condition():
                return
            self.changed.wait(30)
            self.changed.clear()
        raise AssertionError(f"{self.follower.errors} {self.follower.last_error}")


def test_a_file_is_followed(tmp_path):
    path = tmp_path / "experiments.jsonl"
    follower = Follower("fraud")
    seen = Seen(follower)
    source = follow_file(follower, path, every_s=0.01)
    seen.until(lambda: follower.errors.get("source"))
    assert not follower.ready
    path.write_bytes(started(1) + b"\n")
    seen.until(lambda: follower.ready)
    assert share(follower) == 1
    with path.open("ab") as file:
        file.write(changed(5, 2)[:40])
        file.flush()
        seen.until(lambda: follower.errors.get("unreadable"))
        assert share(follower) == 1
        file.write(changed(5, 2)[40:] + b"\n")
    seen.until(lambda: share(follower) == 5)
    path.unlink()
    errors = follower.errors["source"]
    seen.until(lambda: follower.errors["source"] > errors)
    assert share(follower) == 5
    source.close()


def test_what_cannot_be_read_is_no_news(tmp_path):
    path = tmp_path / "experiments.jsonl"
    path.write_bytes(b"<html>please log in</html>")
    follower = Follower("fraud")
    seen = Seen(follower)
    source = follow_file(follower, path, every_s=0.01)
    seen.until(lambda: follower.errors.get("unreadable", 0) > 2)
    source.close()
    assert (follower.ready, follower.age_s, set(follower.errors)) == (
        False,
        math.inf,
        {"unreadable"},
    )


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "READ_BYTES_MAX", 100)
    path = tmp_path / "experiments.jsonl"
    path.write_bytes(started(1))
    follower = Follower("fraud")
    seen = Seen(follower)
    source = follow_file(follower, path, every_s=0.01)
    seen.until(lambda: follower.errors)
    source.close()
    assert follower("u") is None
    assert "more than 100 bytes" in follower.last_error


class Server(BaseHTTPRequestHandler):
    """Serves what it is told, with an ETag."""

    status, body = 200, b""
    asked: list[Any] = []  # noqa: RUF012

    def do_GET(self):
        tag = f'"{hash(self.body)}"'
        self.asked.append((self.headers["If-None-Match"], self.headers["Authorization"]))
        status = 304 if self.headers["If-None-Match"] == tag and self.status == 200 else self.status
        self.send_response(status)
        self.send_header("ETag", tag)
        if status == 304:
            self.end_headers()
            return
        self.send_header("Content-Length", str(len(self.body) + (self.status == 206)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments):
        pass


def test_a_url_is_followed_also_when_it_is_away_or_wrong():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    follower = Follower("fraud")
    seen = Seen(follower)
    Server.body = started(1)
    source = follow_url(
        follower,
        f"http://127.0.0.1:{server.server_port}/experiments",
        every_s=0.01,
        headers={"Authorization": "Bearer x"},
    )
    try:
        seen.until(lambda: follower.ready)
        assert share(follower) == 1
        seen.until(lambda: len({tag for tag, _ in Server.asked}) == 2)  # asked with the tag
        assert {key for _, key in Server.asked} == {"Bearer x"}
        Server.body = started(1) + b"\n" + changed(5, 2)
        seen.until(lambda: share(follower) == 5)
        assert follower.errors == {}
        Server.status = 503
        seen.until(lambda: follower.errors.get("source"))
        assert "503" in follower.last_error
        Server.status, Server.body = 200, b"<html>login</html>"
        seen.until(lambda: follower.errors.get("unreadable"))
        assert share(follower) == 5
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    errors = follower.errors["source"]
    seen.until(lambda: follower.errors["source"] > errors)
    assert share(follower) == 5
    source.close()
    with pytest.raises(ValueError, match="url: expected http"):
        follow_url(follower, "file:///etc/passwd")


async def send(bootstrap: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for value in values:
            await producer.send_and_wait("lifecycle", value, b"fraud")


@pytest.fixture
def broker():
    with start_in_thread(partitions=1) as running:
        yield running.bootstrap


def test_a_consumer_of_confluent_kafka_is_followed(broker, monkeypatch):
    monkeypatch.setattr(sources, "KAFKA_POLL_S", 0.05)
    asyncio.run(send(broker, started(1), b"{", changed(5, 2)))
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "unused", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition("lifecycle", 0, OFFSET_BEGINNING)])
    follower = Follower("fraud")
    source = follow_confluent(follower, consumer)
    try:
        assert follower.wait(60), follower.last_error
        assert share(follower) == 5
        assert follower.errors == {"unreadable": 1}
        seen = Seen(follower)
        asyncio.run(send(broker, changed(25, 3)))
        seen.until(lambda: share(follower) == 25)
        assert follower.age_s < 30
    finally:
        source.close()
        consumer.close()


async def test_a_consumer_of_aiokafka_is_followed(broker, monkeypatch):
    monkeypatch.setattr(sources, "KAFKA_POLL_S", 0.05)
    follower = Follower("fraud")
    await send(broker, started(1), changed(5, 2))
    async with AIOKafkaConsumer(
        "lifecycle", bootstrap_servers=broker, auto_offset_reset="earliest", group_id=None
    ) as consumer:
        task = asyncio.create_task(follow_aiokafka(follower, consumer))
        assert await asyncio.to_thread(follower.wait, 60), follower.last_error
        assert share(follower) == 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert follower.errors == {}


class Idle:
    """A consumer without news, whose broker is there or away."""

    def __init__(self, away: bool, assigned: tuple[str, ...] = ("lifecycle",)) -> None:
        self.away, self.assigned = away, list(assigned)

    def poll(self, timeout):
        return None

    def assignment(self):
        return self.assigned

    def get_watermark_offsets(self, partition, timeout):
        if self.away:
            raise RuntimeError("Local: Timed out")
        return 0, 7

    def position(self, partitions):
        return [TopicPartition("lifecycle", 0, 5) for _ in partitions]


@pytest.mark.parametrize(
    ("consumer", "words"),
    [(Idle(away=True), "Timed out"), (Idle(away=False, assigned=()), "has no partition")],
)
def test_an_idle_consumer_whose_broker_is_away_is_no_news(consumer, words):
    follower = Follower("fraud")
    seen = Seen(follower)
    source = follow_confluent(follower, consumer)
    seen.until(lambda: follower.errors.get("source"))
    source.close()
    assert words in follower.last_error
    assert (follower.age_s, follower.ready) == (math.inf, False)


def test_an_idle_consumer_whose_broker_answers_has_read_all():
    """Its position is 5 of 7: markers of transactions stand behind the last event."""
    follower = Follower("fraud")
    source = follow_confluent(follower, Idle(away=False))
    assert follower.wait(30)
    source.close()
    assert follower.errors == {}
    assert follower.age_s < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_after_a_fork_the_child_follows_too(tmp_path):
    path = tmp_path / "experiments.jsonl"
    path.write_bytes(started(1))
    program = f"""
import os, sys, threading
from stream_monitor.client import Follower, follow_file
follower = Follower("fraud")
source = follow_file(follower, {str(path)!r}, every_s=0.01)
assert follower.wait(30)
child = os.fork()
if not child:
    assert follower.current.ranges[0] == (9900, "control")
    with open({str(path)!r}, "ab") as file:
        file.write(b"\\n" + {changed(5, 2)!r})
    for _ in range(3_000):
        if follower.current.ranges[0] == (9500, "control"):
            sys.exit(0)
        threading.Event().wait(0.01)
    sys.exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=60, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_follower_is_a_router_for_a_monitor():
    from stream_monitor.client import Monitor, Sender

    sent: list[bytes] = []
    follower = Follower("fraud")
    sender = Sender(lambda _, value, __: sent.append(value))
    monitor = Monitor("fraud", sender, version="2", router=follower)
    for b in (None, 0, 100):
        if b is not None:
            follower.take(started(b, f"e{b}"))
        with monitor.call(unit="u") as call:
            assert call.variant == {None: None, 0: "control", 100: "b"}[b]
            call.answer(prediction=1)
    sender.close()
    events = [json.loads(value) for value in sent]
    assert [(e.get("variant"), e["unit"], e["version"]) for e in events] == [
        (None, "u", "2"),
        ("control", "u", "3"),
        ("b", "u", "4"),
    ]
    assert isinstance(follower.current, Router)


def test_after_the_end_a_call_without_a_unit_is_served_by_the_arm_that_was_kept():
    from stream_monitor.client import Monitor, Sender

    follower = Follower("fraud")
    follower.take(started(50))
    follower.take(event("stopped", keep="b"))
    with Sender(lambda *_: None) as sender:
        call = Monitor("fraud", sender, router=follower).call()
        assert (call.variant, call.version) == ("b", "4")
