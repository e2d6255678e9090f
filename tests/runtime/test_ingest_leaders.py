"""What INGEST sends waits for a leader, however long there is none, and for no coordinator."""

from __future__ import annotations

import asyncio
import time
from typing import Any

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


def test_what_waits_for_a_leader_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    aiokafka fails what is older than request_timeout_ms while its partition has no leader: a send
    that has failed ends the process.
    """

    async def started(self: AIOKafkaProducer) -> None:
        self._txn_manager.set_pid_and_epoch(1, 0)

    async def nothing(self: AIOKafkaProducer) -> None: ...

    monkeypatch.setattr(AIOKafkaProducer, "start", started)
    monkeypatch.setattr(AIOKafkaProducer, "stop", nothing)

    async def body() -> None:
        hub = Hub(Settings())
        stage = IngestStage(hub, 1)
        await stage.start()
        buffer = stage._producer._message_accumulator
        sent = await buffer.add_message(TopicPartition("observations", 0), None, b"rows", 1.0)
        later = time.monotonic() + 3_600
        monkeypatch.setattr(time, "monotonic", lambda: later)
        batches, leaderless = buffer.drain_by_nodes(ignore_nodes=())
        assert (batches, leaderless, sent.done()) == ({}, True, False)
        hub.stop()

    asyncio.run(body())


def test_a_dead_letter_waits_while_the_buffer_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr("stream_monitor.kafka.patience.RETRY_S", 0.01)

    async def body() -> int:
        producer = Full()
        records: Any = Records([b"{"], [b"k"], [7], [0], [], 8, None)  # type: ignore[arg-type]
        await DeadLetters(Hub(Settings())).write(
            producer,
            TopicPartition("predictions", 0),
            "predictions",
            records,
            [Reject(0, "not_json", "cut off")],
        )
        return producer.tries

    assert asyncio.run(body()) == 3


def test_a_commit_does_not_hold_up_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's coordinator may be away: aiokafka looks for it without end."""
    tp = TopicPartition("predictions", 0)

    class Source:
        commits = 0

        def assigned(self) -> set[TopicPartition]:
            return {tp}

        async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
            self.commits += 1
            await asyncio.sleep(60 if self.commits == 1 else 0)

    async def body() -> tuple[int, int | None]:
        stage = IngestStage(Hub(Settings()), 1)
        source = stage.hub.source = Source()  # type: ignore[assignment]
        reading = stage.readings[tp] = Reading("", 7, 7)
        async with asyncio.timeout(5):
            await stage._commit(0.05)
            assert reading.committed is None
            await stage._commit(0.05)
        return source.commits, reading.committed

    assert asyncio.run(body()) == (2, 7)
