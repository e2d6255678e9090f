"""The programs of `examples/` run, on the embedded broker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_monitor.demo.broker import start_in_thread
from stream_monitor.events.cells import Texts
from stream_monitor.events.parse import PARSERS

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def broker():
    with start_in_thread(partitions=1) as running:
        yield running.bootstrap


def alert(fingerprint: str, status: str, n: int, summary: str) -> tuple[bytes, bytes]:
    at = "2026-01-01T00:00:00.000Z"
    event = {
        "id": f"{fingerprint}{n}",
        "fingerprint": fingerprint,
        "status": status,
        "severity": "warning",
        "summary": summary,
    }
    return fingerprint.encode(), json.dumps(
        {
            **event,
            "starts_at": at,
            "ends_at": at if status == "resolved" else None,
            "window": {"end": at},
            "notify": True,
        }
    ).encode()


async def send(bootstrap: str, records: list[tuple[bytes, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for key, value in records:
            await producer.send_and_wait("alerts", value, key)


async def read(bootstrap: str, topic: str, n: int) -> list[bytes]:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        return [(await consumer.getone()).value for _ in range(n)]


def interruptible() -> None:
    """
    A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_consumer_of_alerts_knows_what_fires_and_prints_each_step_once(broker):
    before = [
        alert("a", "firing", 0, "over"),
        alert("b", "firing", 0, "goes on"),
        alert("a", "resolved", 1, "over"),
    ]
    asyncio.run(send(broker, before))
    program = subprocess.Popen(
        [sys.executable, EXAMPLES / "consume_alerts.py", broker],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,  # noqa: PLW1509 - it does nothing else
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "firing now: 1\n"
        assert program.stdout.readline().endswith("firing    warning   goes on\n")
        asyncio.run(
            send(
                broker,
                [
                    alert("c", "firing", 0, "new\x1b[2J"),
                    alert("c", "firing", 0, "the same again"),
                    alert("b", "resolved", 1, "ended"),
                ],
            )
        )
        assert program.stdout.readline().endswith("firing    warning   new?[2J\n")
        assert program.stdout.readline().endswith("resolved  warning   ended\n")
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=60)[1] == ""
        assert program.returncode == 0
    finally:
        program.kill()
        program.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["serve_aiokafka.py", "serve_confluent.py"])
def test_a_model_server_sends_events_that_are_accepted(broker, name):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, broker],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "sent 1,000 predictions and their labels\n"), (
        result.stderr
    )
    for kind in ("predictions", "labels"):
        values = asyncio.run(read(broker, kind, 1_000))
        assert (
            len(
                {
                    PARSERS[kind](value, 1_760_000_000_000, Texts(), 1 << 20).event_id
                    for value in values
                }
            )
            == 1_000
        )


@pytest.mark.parametrize("name", ["serve_aiokafka.py", "consume_alerts.py"])
def test_without_a_broker_a_program_says_so(name):
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "stream-monitor doctor" in result.stderr.splitlines()[-1]
