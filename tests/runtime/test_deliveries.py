"""
A delivery that would take too much memory at once is taken in parts, each by the hub's law: of the
current epoch, and where the last one ended.
"""

from __future__ import annotations

import asyncio
import json
import struct
import tracemalloc
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_monitor.kafka import deliveries
from stream_monitor.kafka.deliveries import Broken, Fetched, split
from stream_monitor.settings import Settings, WorkerSettings
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage
from stream_monitor.stages.reading import Reading

TP = TopicPartition("predictions", 0)
ZSTD = 4
T0 = 1_760_000_000_000


def batch(base: int, values: list[bytes]) -> tuple[int, DefaultRecordBatch]:
    return at(base, raw_batch(values))


def raw_batch(values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, ZSTD, 0, -1, -1, -1, 1 << 30)
    for i, value in enumerate(values):
        assert builder.append(i, T0, None, value, []) is not None
    return bytes(builder.build())


def at(base: int, raw: bytes) -> tuple[int, DefaultRecordBatch]:
    return base, DefaultRecordBatch(struct.pack(">q", base) + raw[8:])


def event(i: int, bytes_n: int = 0) -> bytes:
    return json.dumps(
        {"event_id": f"{i}", "model": "m", "prediction": 1, "note": " " * bytes_n}
    ).encode()


class FakeGroup:
    """A driver whose group holds still, unless a test says otherwise."""

    def __init__(self) -> None:
        self.flow = True

    def flowing(self) -> bool:
        return self.flow

    def assigned(self) -> set[TopicPartition]:
        return {TP}


def ingest_at(start: int) -> tuple[Hub, IngestStage, FakeGroup]:
    hub = Hub(Settings(worker=WorkerSettings(max_record_bytes=1 << 20)))
    group = hub.source = FakeGroup()  # type: ignore[assignment]
    stage = IngestStage(hub, 1)
    hub.epochs[TP], stage.readings[TP] = 1, Reading("", start, start)

    async def send() -> None:
        stage.ingest.flush(0)

    stage._send = send  # type: ignore[method-assign]
    return hub, stage, group


def test_parts_join_without_a_hole_and_leave_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "TAKEN_BYTES_MAX", 5_000)
    batches: list[tuple[int, Any]] = [
        batch(10, [event(i, 3_000) for i in range(4)]),
        batch(20, [event(4)]),
        (21, Broken(21, 23, "too_large", "no")),
        batch(23, [event(5), event(6)]),
    ]
    rest: Fetched | None = Fetched(TP, 1, 10, 30, batches)
    parts: list[Any] = []
    while rest is not None:
        assert rest.start == (parts[-1].end if parts else 10)
        records = split(rest)
        parts.append(records)
        rest = records.rest
    assert [p.end for p in parts] == [20, 30]
    assert [o for p in parts for o in p.offsets.tolist()] == [10, 11, 12, 13, 20, 23, 24]
    assert [b.start for p in parts for b in p.broken] == [21]


def test_an_ordinary_delivery_is_one_part() -> None:
    records = split(
        Fetched(
            TP,
            1,
            0,
            500 * 40,
            [batch(i * 40, [event(n, 300) for n in range(40)]) for i in range(500)],
        )
    )
    assert (len(records.values), records.end, records.rest) == (20_000, 20_000, None)


async def test_a_delivery_that_inflates_beyond_measure_takes_the_memory_of_one_batch() -> None:
    """
    12 batches of 32 MiB each, in a few KB: inflated at once, with their values, they take 768 MiB.
    """

    async def body() -> int:
        hub, stage, _ = ingest_at(0)
        raw = raw_batch([event(n, (1 << 20) - 100) for n in range(32)])
        batches: list[tuple[int, Any]] = [at(i * 32, raw) for i in range(12)]
        tracemalloc.start()
        try:
            await hub.deliver(stage, Fetched(TP, 1, 0, 12 * 32, batches))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert stage.position(TP) == 12 * 32
            assert stage.ingest.counts["predictions", "forwarded"] == 12 * 32

    assert await body() < 200 << 20


@pytest.mark.parametrize("change", ["the flow is off", "another epoch", "another position"])
async def test_the_rest_of_a_tenure_that_ended_is_left(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(deliveries, "TAKEN_BYTES_MAX", 100)

    hub, stage, group = ingest_at(0)
    reopened: list[TopicPartition] = []
    monkeypatch.setattr(hub, "reopen", lambda _, tp, pause_s=0: reopened.append(tp))
    fetched = Fetched(TP, 1, 0, 4, [batch(i, [event(i)]) for i in range(4)])

    async def meanwhile() -> None:
        if change == "the flow is off":
            group.flow = False
        elif change == "another epoch":
            hub.epochs[TP] = 2
        else:
            stage.readings[TP].read = 0

    task = asyncio.create_task(meanwhile())  # runs when the first part has been taken
    await hub.deliver(stage, fetched)
    await task
    assert stage.ingest.counts["predictions", "forwarded"] == 1
    assert reopened == ([TP] if change == "another position" else [])
