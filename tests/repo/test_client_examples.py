"""The model servers of `examples/` that use the client: each request is an event with its arm."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from stream_monitor.client import Router
from stream_monitor.demo.broker import start_in_thread

EXAMPLES = Path(__file__).parents[2] / "examples"
STARTED = {
    "schema": 1,
    "type": "experiment_started",
    "model": "fraud",
    "at": "2026-11-02T09:00:00Z",
    "experiment": "fraud-17",
    "arms": [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}],
    "weights": {"control": 50, "b": 50},
}
ROUTER = Router.from_event(STARTED)


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def request(app: Any, path: str, body: bytes, user: str) -> tuple[int, Any]:
    """What a server of ASGI does, without a network."""
    answers: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"x-user-id", user.encode()), (b"content-type", b"application/json")]
    scope: dict[str, Any] = {"type": "http", "path": path, "method": "POST", "headers": headers}
    scope |= {"query_string": b"amount=90", "root_path": "", "http_version": "1.1"}
    await app(scope, receive, send)
    return answers[0]["status"], json.loads(b"".join(m["body"] for m in answers[1:]))


class Kept:
    """A producer that keeps what it gets."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    async def send(self, topic: str, value: bytes, key: bytes) -> None:
        self.values.append({"topic": topic, "key": key.decode(), **json.loads(value)})


@pytest.mark.parametrize("name", ["serve_asgi", "serve_fastapi"])
async def test_an_asgi_application(name, monkeypatch):
    if name == "serve_fastapi":
        pytest.importorskip("fastapi", reason="the framework is not a dependency")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    server = loaded(name)
    parts = server if name == "serve_asgi" else sys.modules["serve_asgi"]
    kept = Kept()
    parts.sender._connect = lambda: kept
    parts.monitor.router.take(json.dumps(STARTED).encode())
    users = [f"user-{i}" for i in range(20)]
    scores = {}
    for user in users:
        status, answer = await request(server.app, "/predict", b'{"amount": 90}', user)
        assert status == 200
        scores[user] = answer["score"]
    if name == "serve_asgi":
        assert (await request(server.app, "/predict", b"{}", "u"))[0] == 422
        assert (await request(server.app, "/health", b"", "u"))[1]["dropped"] == {"client_error": 1}
    await parts.sender.close()
    assert [(v["topic"], v["unit"], v["variant"]) for v in kept.values] == [
        ("predictions", user, ROUTER(user)) for user in users
    ]
    assert scores == {user: {"control": 0.45, "b": 0.5}[ROUTER(user)] for user in users}
    assert {v["variant"]: v["version"] for v in kept.values} == {"control": "3", "b": "4"}


async def test_the_application_starts_and_stops_without_a_broker(monkeypatch):
    monkeypatch.setenv("KAFKA", "127.0.0.1:1")
    server = loaded("serve_asgi")
    messages: asyncio.Queue[Any] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(server.app({"type": "lifespan"}, messages.get, answers.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    assert (await request(server.app, "/predict", b'{"amount": 90}', "u"))[0] == 200
    monkeypatch.setattr("stream_monitor.client.aiosending.RETRIES_S", ())
    await messages.put({"type": "lifespan.shutdown"})
    assert (await answers.get())["type"] == "lifespan.shutdown.complete"
    await life
    assert sum(server.sender.counts().dropped.values()) == 1


def interruptible() -> None:
    """A shell in the background has SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plain_http_server(number, tmp_path):
    events, experiments = tmp_path / "events.jsonl", tmp_path / "experiments.jsonl"
    experiments.write_text(json.dumps(STARTED) + "\n")
    program = subprocess.Popen(
        [sys.executable, EXAMPLES / "serve_http.py", "0", events, experiments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509 - it does nothing else
    )
    try:
        assert program.stdout is not None
        url = program.stdout.readline().split()[-1]

        def ask(user: str) -> None:
            body = json.dumps({"user": user, "amount": 90}).encode()
            with urllib.request.urlopen(url, body, timeout=60) as response:
                scores[user] = json.loads(response.read())["score"]

        scores: dict[str, float] = {}
        with ThreadPoolExecutor(4) as pool:  # the queue of connections has five places
            list(pool.map(ask, [f"user-{i}" for i in range(20)]))
        program.send_signal(number)
        out, err = program.communicate(timeout=60)
        assert (out, program.returncode) == ("nothing was dropped\n", 0), err
    finally:
        program.kill()
        program.communicate()
    sent = [json.loads(line) for line in events.read_text().splitlines()]
    assert len(sent) == len(scores) == 20
    for event in sent:
        assert event["variant"] == ROUTER(event["unit"])
        assert event["score"] == scores[event["unit"]]
        assert event["version"] == {"control": "3", "b": "4"}[event["variant"]]


def test_the_page_can_be_followed_word_for_word():
    """Its blocks, one after the other, on a broker."""

    class App:
        """What the page needs of a framework."""

        def add_middleware(self, middleware: Any, **arguments: Any) -> None:
            middleware(None, **arguments)

        def post(self, _path: str) -> Any:
            return lambda function: function

    class Model:
        def predict(self, *_given: Any) -> float:
            return 0.25

    with start_in_thread(partitions=1) as broker:
        page = (EXAMPLES.parent / "docs" / "client.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        names: dict[str, Any] = {"user": "user-17", "order": "order-1", "amount": 12.0}
        names |= {"user_id": "u", "request_id": 17, "model": Model(), "app": App()}
        names["models"] = dict.fromkeys("34", Model())
        asyncio.run(send_started(broker.bootstrap))
        try:
            for block in blocks:
                code = block.replace("127.0.0.1:9092", broker.bootstrap)
                exec(compile(code, "docs/client.md", "exec"), names)
                if "def observe" in code:
                    assert names["predict"]("user-17", 12.0) == 0.25
            assert names["follower"].ready
            assert names["call"].variant == ROUTER("user-17")
            assert names["sender"].flush(30)
            counts = names["sender"].counts()
        finally:
            if "source" in names:
                names["source"].close()
            names["sender"].close()
    assert (counts.sent, counts.dropped, counts.faults) == (3, {}, {})


async def send_started(bootstrap: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        await producer.send_and_wait("lifecycle", json.dumps(STARTED).encode(), b"fraud")
