"""
Broken batches and records that end the process, at INGEST's shell with a fake driver, a fake
producer and a process that only says that it ends.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from stream_monitor.ingest import Ingest
from stream_monitor.kafka.deliveries import Broken, Fetched, record_batches
from stream_monitor.settings import Settings, WorkerSettings
from stream_monitor.stages.commit_metadata import Note, read_note
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage
from stream_monitor.stages.owned import Owned
from stream_monitor.stages.poison import CAREFUL_RECORDS
from stream_monitor.stages.snapshots import Manifest
from tests.runtime.died import DiedError

pytestmark = pytest.mark.virtual_time
TP = TopicPartition("predictions", 0)
LOG = TopicPartition("observations", 0)
T0 = 1_760_000_000_000
BAD = b"BAD"


class FakeDriver:
    """A group whose offsets outlive the process."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.end = 10**9

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        return {tp: self.offsets.get(tp) for tp in tps}

    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        return dict.fromkeys(tps, (0, self.end))

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        self.offsets.update(offsets)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(topics, "id")

    def partitions(self, topic: str) -> int:
        return 1

    def assigned(self) -> set[TopicPartition]:
        return {TP, LOG}

    def flowing(self) -> bool:
        return True


class FakeProducer:
    """A producer, and a transaction's."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, dict[str, bytes]]] = []
        self.offsets: dict[TopicPartition, Any] = {}

    async def send(
        self, topic: str, value: bytes, key: Any = None, headers: Any = (), **_: Any
    ) -> asyncio.Future[None]:
        self.records.append((topic, value, dict(headers or ())))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def send_and_wait(self, topic: str, value: bytes, **_: Any) -> Any:
        await self.send(topic, value)
        return type("Written", (), {"offset": 7, "timestamp_type": 0})

    async def begin_transaction(self) -> None: ...

    async def send_offsets_to_transaction(self, offsets: dict[TopicPartition, Any], _: str) -> None:
        self.offsets.update(offsets)

    async def commit_transaction(self) -> None: ...

    def letters(self) -> list[tuple[bytes, int, str]]:
        return [
            (v, int(h["__connect.errors.offset"]), h["stream-monitor.reason"].decode())
            for topic, v, h in self.records
            if topic == "dead-letters"
        ]


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Ingest.take

    def poisoned(
        self: Ingest,
        source: str,
        kind: str,
        values: list[bytes | None],
        offsets: Any,
        times_ms: Any,
    ) -> Any:
        if any(v and BAD in v for v in values):
            raise ZeroDivisionError("bad")
        return take(self, source, kind, values, offsets, times_ms)

    monkeypatch.setattr(Ingest, "take", poisoned)


def event(i: int) -> bytes:
    return json.dumps({"event_id": str(i), "model": "m", "prediction": 1}).encode()


def delivery(
    start: int,
    values: list[bytes],
    *,
    crc: bool = True,
    more: bool = False,
    tp: TopicPartition = TP,
) -> Fetched:
    raw = b""
    for base, part in (
        ((start, values), (start + len(values), [event(1)])) if more else ((start, values),)
    ):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
        for i, value in enumerate(part):
            assert builder.append(i, T0, b"key", value, []) is not None
        one = bytearray(builder.build())
        struct.pack_into(">q", one, 0, base)
        if not crc and not raw:
            one[-1] ^= 1
        raw += one
    records = PartitionRecords(tp, MemoryRecords(raw), [], start, None, None, True, READ_COMMITTED)
    return Fetched(tp, 0, start, start + len(values), list(record_batches(records)))


def worker(driver: FakeDriver, **options: Any) -> tuple[IngestStage, FakeProducer]:
    hub = Hub(Settings(worker=WorkerSettings(**options)))
    hub.source = driver  # type: ignore[assignment]
    stage = IngestStage(hub, 1)
    stage._producer = sent = FakeProducer()
    return stage, sent


async def run(
    driver: FakeDriver, deliveries: Any, **options: Any
) -> tuple[IngestStage, FakeProducer, int]:
    """A process that takes these deliveries; the position at which it began."""
    stage, sent = worker(driver, **options)
    start = (await stage.open([TP]))[TP]
    for fetched in deliveries(start):
        await stage.next(fetched)
    await stage.flush()
    return stage, sent, start


async def test_a_broken_batch_ends_the_process_unless_it_is_to_be_skipped(died):
    driver = FakeDriver()
    for _ in range(2):
        with pytest.raises(DiedError):
            await run(driver, lambda start: [delivery(start, [event(0)] * 3, crc=False, more=True)])
    assert driver.offsets == {TP: (0, "id opened=2")}
    stage, sent, start = await run(
        driver,
        lambda start: [
            delivery(start, [event(0)] * 3, crc=False, more=True),
            delivery(3, [event(9)]),
        ],
        on_corrupt="skip",
    )
    assert (start, sent.letters(), driver.offsets[TP]) == (
        0,
        [(b"", 0, "corrupt_batch")],
        (4, f"id time={T0}"),
    )
    assert stage.dead_letters.refusals.by_reason["predictions", "corrupt_batch"] == 1
    assert stage.ingest.counts["predictions", "forwarded"] == 1
    assert died[0] == (
        "73: predictions/0: the batch of records 0 to 2 cannot be read: the checksum of the "
        "batch is wrong; worker.on_corrupt: skip goes on after it, "
        "or mend the log of this partition (from another replica, or by deleting its records "
        "up to there)"
    )


async def test_a_batch_whose_end_nobody_knows_is_never_skipped(died):
    with pytest.raises(DiedError):
        await run(
            FakeDriver(),
            lambda _: [Fetched(TP, 0, 0, 0, [(0, Broken(0, -1, "corrupt_batch", "no"))])],
            on_corrupt="skip",
        )
    assert "(end unknown)" in died[0]
    assert "move the group's offset past it" in died[0]


async def test_a_batch_that_inflates_without_end_stops_nobody(died):
    _, sent, _ = await run(
        FakeDriver(), lambda _: [Fetched(TP, 0, 0, 5, [(0, Broken(0, 5, "too_large", "no"))])]
    )
    assert sent.letters() == [(b"", 0, "too_large")]
    assert died == []


async def test_observations_are_never_skipped(died):
    hub = Hub(Settings(worker=WorkerSettings(on_corrupt="skip")))
    stage = EvaluateStage(hub, 1, {})
    stage.owned[LOG] = Owned(FakeShard(), FakeProducer(), Note(), 0, Manifest())  # type: ignore[arg-type]
    with pytest.raises(DiedError):
        await stage.next(delivery(0, [b"x"], crc=False, more=True, tp=LOG))
    assert died[0].startswith("73: observations/0: the batch of records 0 to 0 cannot be read")


async def test_a_record_that_ends_the_process_three_times_is_set_aside(died, poisonous):
    """The second one of the same kind ends it no more, nor does it after the next restart."""

    driver = FakeDriver()
    values = [event(i) for i in range(7)]
    values[3] = values[5] = BAD
    for n in range(1, 4):
        with pytest.raises(ZeroDivisionError):
            await run(driver, lambda _: [delivery(0, values)])
        assert driver.offsets[TP] == (0, f"id failed=7:{n}")
    stage, sent, start = await run(
        driver, lambda _: [delivery(0, values), delivery(7, [BAD, event(7)])]
    )
    assert (start, sent.letters()) == (
        0,
        [(BAD, 3, "ended_worker"), (BAD, 5, "ended_worker"), (BAD, 7, "ended_worker")],
    )
    assert stage.ingest.counts["predictions", "forwarded"] == 6
    assert (
        "ZeroDivisionError: bad (test_poison.py:"
        in sent.records[0][2]["__connect.errors.exception.message"].decode()
    )
    assert driver.offsets[TP] == (9, f"id time={T0} failed=8:3")
    _, sent, _ = await run(driver, lambda start: [delivery(start, [BAD])])
    assert sent.letters() == [(BAD, 9, "ended_worker")]
    _, _, start = await run(driver, lambda start: [delivery(start, [event(1)] * CAREFUL_RECORDS)])
    assert (start, driver.offsets[TP]) == (10, (CAREFUL_RECORDS + 10, f"id time={T0}"))


async def test_tries_are_counted_where_nothing_moves_on(died, poisonous):
    driver = FakeDriver()
    driver.offsets[TP] = 0, "id failed=7:2"
    stage, _ = worker(driver)
    await stage.open([TP])
    await stage.next(delivery(0, [event(0), event(1)]))
    await stage.flush()
    assert driver.offsets[TP] == (2, f"id time={T0}")
    with pytest.raises(ZeroDivisionError):
        await stage.next(delivery(2, [BAD]))
    assert driver.offsets[TP] == (2, f"id time={T0} failed=3:1")


async def test_on_poison_stop_sets_nothing_aside(died, poisonous):
    driver = FakeDriver()
    for n in range(1, 6):
        with pytest.raises(ZeroDivisionError):
            await run(driver, lambda _: [delivery(0, [event(0), BAD])], on_poison="stop")
        assert driver.offsets[TP] == (0, f"id failed=2:{n}")


async def test_rows_that_cannot_be_packed_are_found_too(died, monkeypatch):
    flush = Ingest.flush

    def poisoned(self: Ingest, flushed_ms: int) -> Any:
        if any(b"m!" in name.encode() for _, name, _, _ in self._groups):
            raise OverflowError("row")
        return flush(self, flushed_ms)

    monkeypatch.setattr(Ingest, "flush", poisoned)
    values = [event(0), event(1).replace(b'"m"', b'"m!"'), event(2)]

    driver = FakeDriver()
    for _ in range(3):
        with pytest.raises(DiedError):
            await run(driver, lambda _: [delivery(0, values)])
    _, sent, _ = await run(driver, lambda _: [delivery(0, values)])
    assert sent.letters() == [(values[1], 1, "ended_worker")]
    assert died == ["73: INGEST: rows cannot be packed: OverflowError('row')"] * 3


class FakeShard:
    """A shard that cannot fold one record."""

    config = "c"
    anew: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.outbox: list[Any] = []
        self.folded: list[bytes] = []
        self.log_time_ms = 0

    def fold(self, value: bytes, appended_ms: int | None = None) -> None:
        if value == BAD:
            raise ZeroDivisionError("bad")
        self.folded.append(value)

    def snapshot(self, _: Any) -> dict[str, bytes]:
        return {"state": b"".join(self.folded)}


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_an_observation_that_ends_the_process_three_times_is_set_aside_with_a_snapshot(
    died, guarantee
):
    driver = FakeDriver()

    async def process(values: list[bytes]) -> tuple[Any, FakeProducer]:
        hub = Hub(Settings(worker=WorkerSettings(processing_guarantee=guarantee)))
        hub.source = driver  # type: ignore[assignment]
        stage, sent = EvaluateStage(hub, 1, {}), FakeProducer()
        found = await stage.restoring.committed(LOG)
        owned = Owned(FakeShard(), sent, found.note, found.position, Manifest())  # type: ignore[arg-type]
        stage.tenures.begin(LOG, owned, found, None)
        stage.owned[LOG] = owned
        try:
            await stage.next(delivery(found.position, values, tp=LOG))
            await stage._checkpoint(LOG, owned)
        finally:
            driver.offsets.update({tp: (o.offset, o.metadata) for tp, o in sent.offsets.items()})
        return owned, sent

    driver.offsets[LOG] = 0, Note(5).text()
    for n in range(1, 4):
        with pytest.raises(ZeroDivisionError):
            await process([b"a", BAD, b"b"])
        assert driver.offsets[LOG] == (0, f"{Note(5, 1).text()} failed=1:{n}")
    owned, sent = await process([b"a", BAD, b"b"])
    assert owned.shard.folded == [b"a", b"b"]
    assert sent.letters() == [(BAD, 1, "ended_worker")]
    assert any(topic == "snapshots" and value == b"ab" for topic, value, _ in sent.records)
    position, metadata = driver.offsets[LOG]
    note, failed = read_note(LOG, metadata)
    assert (position, note.snapshot, note.config, failed) == (3, 7, "c", {})
