"""What INGEST sends waits for a leader, however long there is none, and for no coordinator."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from stream_monitor.kafka.deliveries import Records
from stream_monitor.settings import Settings
from stream_monitor.stages import dead_letters
from stream_monitor.stages.dead_letters import DeadLetters
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage
from stream_monitor.stages.reading import Reading
from stream_monitor.verdicts import Reject


async def test_what_waits_for_a_leader_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    aiokafka fails what is older than request_timeout_ms while its partition has no leader: a send
    that has failed ends the process.
    """

    async def started(self: AIOKafkaProducer) -> None:
        self._txn_manager.set_pid_and_epoch(1, 0)

    async def nothing(self: AIOKafkaProducer) -> None: ...

    monkeypatch.setattr(AIOKafkaProducer, "start", started)
    monkeypatch.setattr(AIOKafkaProducer, "stop", nothing)

    hub = Hub(Settings())
    stage = IngestStage(hub, 1)
    await stage.start()
    buffer = stage._producer._message_accumulator
    sent = await buffer.add_message(TopicPartition("observations", 0), None, b"rows", 1.0)
    later = time.monotonic() + 3_600
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: later)
        batches, leaderless = buffer.drain_by_nodes(ignore_nodes=())
    assert (batches, leaderless, sent.done()) == ({}, True, False)
    hub.stop()


@pytest.mark.virtual_time
async def test_a_dead_letter_waits_while_the_buffer_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def died(code: int, why: str) -> None:
        raise AssertionError(f"exit {code}: {why}")

    class Full:
        tries = 0

        async def send(
            self, topic: str, value: bytes, *, key: bytes | None, headers: list[tuple[str, bytes]]
        ) -> asyncio.Future[Any]:
            self.tries += 1
            if self.tries < 3:
                raise KafkaTimeoutError
            future = asyncio.get_running_loop().create_future()
            future.set_result((topic, value, key, dict(headers)["stream-monitor.reason"]))
            return future

    monkeypatch.setattr(dead_letters, "die", died)
    producer = Full()
    records: Any = Records([b"{"], [b"k"], np.array([7]), np.array([0]), [], 8, None)
    await DeadLetters(Hub(Settings())).write(
        producer,
        TopicPartition("predictions", 0),
        "predictions",
        records,
        [Reject(0, "invalid_json", "cut off")],
    )
    assert producer.tries == 3


@pytest.mark.virtual_time
async def test_a_commit_does_not_hold_up_what_is_sent() -> None:
    """The group's coordinator may be away: aiokafka looks for it without end."""
    tp = TopicPartition("predictions", 0)

    class Source:
        commits = 0

        def assigned(self) -> set[TopicPartition]:
            return {tp}

        async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
            self.commits += 1
            await asyncio.sleep(3_600 if self.commits == 1 else 0)

    stage = IngestStage(Hub(Settings()), 1)
    source = stage.hub.source = Source()  # type: ignore[assignment]
    reading: Reading = Reading("", 7, 7)
    stage.readings[tp] = reading
    await stage._commit(2)
    before = reading.committed
    await stage._commit(2)
    assert (source.commits, before, reading.committed) == (2, None, 7)
    assert asyncio.get_running_loop().time() == 2, "the first was not waited for any longer"
