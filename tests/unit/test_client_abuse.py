"""
Whatever a model server hands over or does around a call, the call is answered and the rest counted.

Rule of the file: each test looks at both halves, the answer of the model and the counts.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from stream_monitor.client import (
    AsyncSender,
    Monitor,
    MonitorMiddleware,
    Router,
    Sender,
    current_call,
    header,
    reassign,
)
from tests.unit.test_client_monitor import Sent

ROOT = Path(__file__).parents[2]


class Silent:
    """A thing whose text raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class SilentError(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Row:
    """A row of a table, such as a Series of pandas: names and scalars of numpy, and no Mapping."""

    def items(self) -> list[tuple[str, Any]]:
        return [("amount", np.float64(12.5)), ("count", np.int64(3)), ("country", "IT")]


KEPT: list[tuple[Any, Any]] = [
    (np.float32(0.5), 0.5),
    (np.float64(0.25), 0.25),
    (np.int64(7), 7),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.bool_(True), True),
    (np.str_("IT"), "IT"),
    (np.array(2.5), 2.5),
    (math.nan, None),
    (np.float64("nan"), None),
    (math.inf, "inf"),
    (-math.inf, "-inf"),
    (-0.0, -0.0),
    ("", ""),
    ("x" * 100_000, "x" * 100_000),
    (None, None),
    (2**70, 2**70),
]
REFUSED: list[Any] = [
    Decimal("1.5"),
    Fraction(1, 3),
    datetime(2026, 1, 1, tzinfo=UTC),
    np.datetime64("2026-01-01"),
    np.array([1.0, 2.0]),
    UUID(int=7),
    b"bytes",
    1j,
    [1, 2],
    {"a": 1},
    object(),
    Silent(),
    "a\ud800",
]


@pytest.mark.parametrize(("value", "expected"), KEPT, ids=lambda v: type(v).__name__)
def test_what_is_a_value_is_sent(value: Any, expected: Any) -> None:
    sent = Sent()
    with sent.monitor.call() as call:
        call.answer(score=0.5, features={"x": value, "amount": 1.0})
    (event,) = sent.events()
    assert event["features"] == {"x": expected, "amount": 1.0}
    assert sent.dropped == {}


@pytest.mark.parametrize("value", REFUSED, ids=lambda v: type(v).__name__)
def test_what_is_no_value_is_counted(value: Any) -> None:
    sent = Sent()
    watch: Any = sent.monitor.watch
    predict = watch(lambda result, x: {"score": result, "features": {"x": x}})(lambda x: 0.5)
    assert predict(value) == 0.5
    with sent.monitor.call() as call:
        call.answer(prediction=value)
    assert sent.events() == []
    assert sent.dropped == {"invalid": 2}
    assert sent.sender.counts().errors["invalid"]


def test_features_need_not_be_a_dict() -> None:
    sent = Sent()
    given: Any
    for given in (Row(), MappingProxyType({"amount": 12.5, "count": 3, "country": "IT"})):
        with sent.monitor.call() as call:
            call.answer(score=0.5, features=given)
    assert [e["features"] for e in sent.events()] == [
        {"amount": 12.5, "count": 3, "country": "IT"}
    ] * 2


@pytest.mark.parametrize(
    "answer",
    [
        {"score": 1.5},
        {"score": math.nan},
        {"score": "0.5"},
        {"score": np.array([0.1, 0.9])},
        {"score": {}},
        {"prediction": math.inf},
        {"prediction": 2**53 + 1},
        {"prediction": np.uint64(2**64 - 1)},
        {"score": 0.5, "features": 17},
        {"score": 0.5, "features": {17: 1.0}},
        {"score": 0.5, "segments": {"country": 17}},
        {"score": 0.5, "embedding": [1.0, math.nan]},
        {"score": 0.5, "embedding": 17},
        {"score": 0.5, "unit": "twice"},
        {"score": 0.5, "status": "odd"},
        {},
    ],
)
def test_a_wrong_answer_is_counted(answer: dict[str, Any]) -> None:
    sent = Sent(router=Router("x", reassign([], {"control": 50, "b": 50})))
    with sent.monitor.call(unit="u") as call:
        call.answer(**answer)
    assert (sent.events(), sent.dropped) == ([], {"invalid": 1})


def test_errors_whose_text_raises_are_counted_and_go_on() -> None:
    sent = Sent()
    error = SilentError()

    def fails(*_: Any) -> Any:
        raise error

    watch: Any = sent.monitor.watch
    assert watch(fails)(lambda x: x)(17) == 17
    assert watch(lambda result, x: {"prediction": result}, unit=fails)(lambda x: x)(17) == 17
    with pytest.raises(SilentError) as raised:
        watch(lambda result, x: {})(fails)(17)
    assert raised.value is error
    assert raised.value.__context__ is None
    assert sent.dropped == {"observe": 1}
    assert sent.faults == {"unit": 1}
    assert sent.sender.counts().errors == {"observe": "SilentError", "unit": "SilentError"}
    assert [e.get("status") for e in sent.events()] == [None, "error"]


def test_what_is_no_function_cannot_be_decorated() -> None:
    class Model:
        def predict(self) -> int:
            return 1

    decorate: Any = Sent().monitor.watch(lambda result: {})
    things: list[Any] = [Model, staticmethod(len), classmethod(print), 17, None]
    for thing in things:
        with pytest.raises(TypeError, match="is no function: decorate the method"):
            decorate(thing)


def test_static_and_class_methods() -> None:
    sent = Sent()

    class Model:
        factor = 2

        @staticmethod
        @sent.monitor.watch(lambda result, x: {"prediction": result})
        def double(x: int) -> int:
            return 2 * x

        @classmethod
        @sent.monitor.watch(lambda result, cls, x: {"prediction": result})
        def times(cls, x: int) -> int:
            return cls.factor * x

    assert (Model.double(2), Model().double(3), Model.times(4), Model().times(5)) == (4, 6, 8, 10)
    assert [e["prediction"] for e in sent.events()] == [4, 6, 8, 10]


def test_a_call_inside_of_a_generator_ends_with_it() -> None:
    sent = Sent()

    def stream(n: int) -> Any:
        with sent.monitor.call() as call:
            yield from range(n)
            call.answer(prediction=n)

    assert list(stream(3)) == [0, 1, 2]
    half = stream(3)
    next(half)
    half.close()
    assert [e["prediction"] for e in sent.events()] == [3]
    assert sent.dropped == {"cancelled": 1}
    with pytest.raises(LookupError):
        current_call()


def test_two_loops_at_the_same_time() -> None:
    got: list[bytes] = []

    async def send(topic: str, value: bytes, key: bytes | None) -> None:
        await asyncio.sleep(0)
        got.append(value)

    sender = AsyncSender(send)
    monitor = Monitor("m", sender)
    first, second = threading.Event(), threading.Event()

    async def serve(mine: threading.Event, other: threading.Event) -> None:
        for i in range(200):
            with monitor.call() as call:
                await asyncio.sleep(0)
                call.answer(prediction=i)
        mine.set()
        await asyncio.to_thread(other.wait)  # the loop that sends must not end before the other
        await sender.flush()

    threads = [
        threading.Thread(target=asyncio.run, args=(serve(*events),))
        for events in ((first, second), (second, first))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 400 == sender.counts().sent
    assert sender.counts().dropped == {}


MEMORY = """
import re, time
from confluent_kafka import Producer
from stream_monitor.client import Monitor, Sender

sender = Sender(
    connect=lambda: Producer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "log_level": 0,
            "queue.buffering.max.messages": 10_000,
        }
    )
)
monitor = Monitor("fraud", sender)
features = {f"f{i}": 1.5 * i for i in range(10)}
calls = 0

def serve(n):
    global calls
    calls += n
    for i in range(n):
        with monitor.call(unit="u") as call:
            call.answer(score=0.5, features=features)
    with open("/proc/self/status") as status:
        return int(re.search("VmHWM:\\s*(\\d+) kB", status.read())[1]) / 1024

while sender.counts().sent < 10_000 or sender.counts().waiting < 10_000:  # all places are taken
    full = serve(1_000)
    time.sleep(0.01)
later = serve(50_000)
sender.close(0.5)
counts = sender.counts()
print(full, later, calls, counts)
assert later - full < 2 and later < 150, "MiB"
assert (counts.waiting, counts.sent) == (0, 10_000)
lost = sum(n for reason, n in counts.dropped.items() if reason != "undelivered")
assert calls - 1 <= counts.sent + lost <= calls, "one may be in the hands of the thread"
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells its peak")
def test_memory_is_bounded_while_the_broker_is_away() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Harness:
    """What a server of ASGI does: one task a request, bodies in parts, clients that go away."""

    def __init__(self, app: Any, seed: int) -> None:
        self.app, self.rng = app, random.Random(seed)
        self.answers: dict[int, bytes] = {}
        self.raised: dict[int, BaseException] = {}

    async def request(self, i: int, path: str) -> None:
        parts = [json.dumps({"i": i}).encode()[k : k + 2] for k in range(0, 12, 2)]
        body = [p for p in parts if p]
        out: list[bytes] = []

        async def receive() -> Any:
            await asyncio.sleep(self.rng.random() / 500)
            if not body:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": body.pop(0), "more_body": bool(body)}

        async def send(message: Any) -> None:
            await asyncio.sleep(self.rng.random() / 500)
            out.append(message.get("body", b""))

        headers = [(b"x-user-id", b"user-%d" % i), (b"x-request-id", b"e-%d" % i)]
        scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
        try:
            await self.app(scope, receive, send)
        except BaseException as e:
            self.raised[i] = e
            raise
        self.answers[i] = b"".join(out)


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body in parts, answers in parts; some requests fail, some never end."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    i = json.loads(body)["i"]
    if scope["path"] == "/hangs":
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    call = current_call()
    await send({"type": "http.response.body", "body": b"%d " % i, "more_body": True})
    if scope["path"] == "/fails":
        raise KeyError(i)
    call.answer(prediction=i)
    text = str(call.variant).encode()
    await send({"type": "http.response.body", "body": text, "more_body": False})
    await asyncio.sleep(0.2 if i % 7 == 0 else 0)  # a task after the response


async def test_a_hundred_requests_at_the_same_time() -> None:
    got: list[dict[str, Any]] = []

    async def sending(topic: str, value: bytes, key: bytes | None) -> None:
        got.append(json.loads(value))

    router = Router("x", reassign([], {"control": 50, "b": 50}))
    sender = AsyncSender(sending)
    app = MonitorMiddleware(
        streaming,
        Monitor("m", sender, router=router),
        ["/predict", "/fails", "/hangs"],
        unit=header("x-user-id"),
        event_id=header("x-request-id"),
    )
    harness = Harness(app, seed=3)
    paths = {i: ("/fails", "/hangs", "/predict")[min(i % 10, 2)] for i in range(100)}
    tasks = {i: asyncio.create_task(harness.request(i, path)) for i, path in paths.items()}
    hanging = {i for i, path in paths.items() if path == "/hangs"}
    await asyncio.wait([task for i, task in tasks.items() if i not in hanging], timeout=60)
    for i in hanging:
        tasks[i].cancel()
    await asyncio.wait(tasks.values(), timeout=60)
    await sender.close()

    failed = {i for i, path in paths.items() if path == "/fails"}
    assert {i for i, e in harness.raised.items() if isinstance(e, KeyError)} == failed
    assert {i for i, e in harness.raised.items() if isinstance(e, asyncio.CancelledError)} == (
        hanging
    )
    assert harness.answers == {
        i: f"{i} {router(f'user-{i}')}".encode() for i in set(paths) - failed - hanging
    }
    by_id = {e["event_id"]: e for e in got}
    assert set(by_id) == {f"e-{i}" for i in set(paths) - hanging}
    for i in set(paths) - hanging:
        event = by_id[f"e-{i}"]
        assert (event["unit"], event["variant"]) == (f"user-{i}", router(f"user-{i}"))
        assert event.get("status") == ("error" if i in failed else None)
        assert event.get("prediction") == (None if i in failed else i)
        assert event["latency_ms"] < 20_000
    assert sender.counts().dropped == {"cancelled": len(hanging)}


async def test_a_hundred_requests_to_starlette() -> None:
    """The same with the real framework, where it is installed."""
    applications = pytest.importorskip("starlette.applications", reason="it is no dependency")
    responses = pytest.importorskip("starlette.responses")
    route = pytest.importorskip("starlette.routing").Route
    got: list[dict[str, Any]] = []

    async def asynchronous(request: Any) -> Any:
        i = (await request.json())["i"]
        current_call().answer(prediction=i)

        async def parts() -> Any:
            for part in (b"%d" % i, b" ", str(current_call().variant).encode()):
                await asyncio.sleep(0)
                yield part

        return responses.StreamingResponse(parts())

    def in_a_thread(request: Any) -> Any:
        call = current_call()
        call.answer(prediction=int(request.headers["x-user-id"].removeprefix("user-")))
        return responses.PlainTextResponse(f"{call.event_id[2:]} {call.variant}")

    def failing(request: Any) -> Any:
        raise KeyError("model")

    names = {"/predict": asynchronous, "/thread": in_a_thread, "/fails": failing}
    app = applications.Starlette(
        routes=[route(path, endpoint, methods=["POST"]) for path, endpoint in names.items()]
    )
    router = Router("x", reassign([], {"control": 50, "b": 50}))
    sender = AsyncSender(lambda topic, value, key: got.append(json.loads(value)))
    app.add_middleware(
        MonitorMiddleware,
        monitor=Monitor("m", sender, router=router),
        paths=list(names),
        unit=header("x-user-id"),
        event_id=header("x-request-id"),
    )
    harness = Harness(app, seed=4)
    paths = {i: list(names)[i % 3] for i in range(100)}
    await asyncio.gather(
        *(harness.request(i, path) for i, path in paths.items()), return_exceptions=True
    )
    await sender.close()
    failed = {i for i in paths if i % 3 == 2}
    assert set(harness.raised) == failed
    assert harness.answers == {
        i: f"{i} {router(f'user-{i}')}".encode() for i in set(paths) - failed
    }
    assert len(got) == 100
    for event in got:
        i = int(event["event_id"][2:])
        assert event["variant"] == router(f"user-{i}")
        assert (event.get("status"), event.get("prediction")) == (
            ("error", None) if i in failed else (None, i)
        )


SIGTERM = """
import signal, sys, time
from stream_monitor.client import Sender
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

def send(topic, value, key):
    time.sleep(0.001)
    with open(sys.argv[1], "ab") as file:
        file.write(value + b"\\n")

sender = Sender(send)
for i in range(300):
    sender.put("predictions", b"%d" % i)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_sigterm_sends_what_waits_if_the_server_handles_it(tmp_path: Path) -> None:
    """As servers do; without a handler Python ends at once."""
    sent = tmp_path / "sent"
    program = subprocess.Popen(
        [sys.executable, "-c", SIGTERM, sent], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.terminate()
        assert program.wait(30) == 0
    finally:
        program.kill()
        program.communicate()
    assert sent.read_text().split() == [str(i) for i in range(300)]


def test_a_sender_of_a_function_is_still_checked() -> None:
    """What cannot send is told when the server starts, not when it predicts."""
    with pytest.raises(TypeError, match="target: expected a producer"):
        Sender(17)
