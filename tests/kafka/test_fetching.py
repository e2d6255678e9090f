"""
Our reading of record batches against aiokafka's own reading of records: the same records, offsets
and positions, and the same refusal of broken bytes.

Rule of the file: aiokafka is the oracle. In memory it is asked about arrangements of batches that a
broker seldom shows; on a real Kafka about whatever that one sends.
"""

from __future__ import annotations

import asyncio
import gzip
import inspect
import random
import struct
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import cramjam
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.kafka import inflating
from stream_monitor.kafka.deliveries import Broken, Fetched, record_batches, split
from stream_monitor.kafka.fetching import BATCHES_MAX, Fetching
from stream_monitor.settings import Settings
from stream_monitor.stages.transport import consumer_options

TP = TopicPartition("t", 0)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
T0 = 1_760_000_000_000
DEADLINE_S = 60
Row = tuple[int, int, bytes | None, bytes | None]

# ---- batches in memory


def batch(
    base: int, gaps: list[int], codec: int = 0, producer: int = -1, *, control: bytes | None = None
) -> tuple[bytes, int]:
    """
    Bytes of a batch with one record and then one after each gap (0: the next offset), and the
    offset after it.

    `control` is the key of a control record.
    """
    offsets = [sum(gaps[:i]) + i for i in range(len(gaps) + 1)]
    builder = DefaultRecordBatchBuilder(
        2, codec, int(producer >= 0), producer, 0 if producer >= 0 else -1, -1, 1 << 20
    )
    for relative in offsets:
        offset = base + relative
        key, value = (
            (control, b"\0\0\0\0\0\0")
            if control
            else (
                b"k%d" % offset if offset % 3 else None,
                b"v" * (offset % 50) if offset % 7 else None,
            )
        )
        assert (
            builder.append(
                relative,
                T0 + offset,
                key,
                value,
                [("h", b"x" * (offset % 4))] if offset % 5 == 0 else [],
            )
            is not None
        )
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    if control:
        raw[22] |= 0x20
        struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw), base + offsets[-1] + 1


class Log(NamedTuple):
    batches: list[tuple[bytes, int, int]]
    """Bytes, first offset, offset after it."""
    aborted: list[tuple[int, int, int]]
    """Producer, first offset of the transaction, offset of its marker."""

    def records(self, start: int, isolation: int) -> PartitionRecords:
        """What a broker answers to a fetch at `start`."""
        data = b"".join(raw for raw, _, end in self.batches if end > start)
        aborted = [(producer, first) for producer, first, marker in self.aborted if marker >= start]
        return PartitionRecords(
            TP, MemoryRecords(data), aborted, start, None, None, True, isolation
        )


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("data"),
            st.sampled_from([-1, 7, 8]),
            st.lists(st.sampled_from([0, 0, 0, 1, 5]), max_size=5),
            st.sampled_from(list(CODECS.values())),
            st.integers(0, 3),
        ),
        st.tuples(st.just("end"), st.sampled_from([7, 8]), st.booleans()),
    ),
    min_size=1,
    max_size=12,
)


def log_of(actions: list[tuple[Any, ...]]) -> Log:
    log, end = Log([], []), 0
    begun: dict[Any, Any] = {}
    for action in actions:
        if action[0] == "data":
            _, producer, gaps, codec, hole = action
            base = end + hole  # a hole between batches: compacted away
            raw, end = batch(base, gaps, codec, producer)
            if producer >= 0:
                begun.setdefault(producer, base)
        else:
            _, producer, commit = action
            if producer not in begun:
                continue
            base, first = end, begun.pop(producer)
            raw, end = batch(base, [], 0, producer, control=struct.pack(">hh", 0, int(commit)))
            if not commit:
                log.aborted.append((producer, first, base))
        log.batches.append((raw, base, end))
    return log


def rows_of_aiokafka(records: PartitionRecords) -> list[Row]:
    return [(r.offset, r.timestamp, r.key, r.value) for r in records]


def rows_of(found: list[tuple[int, Any]]) -> list[Row]:
    columns = split(Fetched(TP, 0, None, 0, found))
    return list(
        zip(
            columns.offsets.tolist(),
            columns.times_ms.tolist(),
            columns.keys,
            columns.values,
            strict=True,
        )
    )


@settings(max_examples=300)
@given(steps, st.integers(0, 40), st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]))
def test_batches_in_memory_are_read_as_aiokafka_reads_them(
    actions: list[tuple[Any, ...]], start: int, isolation: int
) -> None:
    log = log_of(actions)
    start = min(start, log.batches[-1][2]) if log.batches else 0
    theirs, ours = log.records(start, isolation), log.records(start, isolation)
    expected = rows_of_aiokafka(theirs)
    assert rows_of(list(record_batches(ours))) == expected
    assert ours.next_fetch_offset == theirs.next_fetch_offset


def test_the_generated_logs_have_what_they_are_for() -> None:
    log = log_of(
        [
            ("data", 7, [0, 0], 4, 0),
            ("data", -1, [0, 3], 0, 2),
            ("end", 7, False),
            ("data", 7, [], 1, 0),
            ("end", 7, True),
        ]
    )
    committed, everything = (
        rows_of(list(record_batches(log.records(0, isolation))))
        for isolation in (READ_COMMITTED, READ_UNCOMMITTED)
    )
    assert [offset for offset, *_ in everything] == [0, 1, 2, 5, 6, 10, 12]
    assert [offset for offset, *_ in committed] == [5, 6, 10, 12]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_flipped_byte_is_found(codec: int) -> None:
    """
    From the CRC on, whatever a disk or a network does to a batch: nothing of it is handed over.
    """
    good, _ = batch(0, [0] * 8)
    raw, end = batch(9, [0] * 8, codec)
    for at in range(17, len(raw)):
        broken = bytearray(raw)
        broken[at] ^= 1 << (at % 8)
        records = Log([(good, 0, 9), (bytes(broken), 9, end)], []).records(0, READ_COMMITTED)
        assert [offset for offset, *_ in rows_of(list(record_batches(records)))] == list(range(9))
        assert records.next_fetch_offset == 9, "the next fetch begins with the broken batch"
        again = Log(
            [(good, 0, 9), (bytes(broken), 9, end), (batch(end, [0])[0], end, end + 2)], []
        ).records(9, READ_COMMITTED)
        assert list(record_batches(again)) == [
            (9, Broken(9, end, "corrupt_batch", "the checksum of the batch is wrong"))
        ], "it ends where the next one begins, whatever its header says"
        assert again.next_fetch_offset == end


def test_a_broken_batch_at_the_end_of_the_log_is_believed_up_to_there() -> None:
    raw, end = batch(9, [0] * 8)

    def found(at: int, bits: int) -> tuple[int, int]:
        broken = bytearray(raw)
        broken[at] ^= bits
        records = Log([(bytes(broken), 9, end)], []).records(9, READ_COMMITTED)
        ((_, it),) = record_batches(records, end)
        return it.end, records.next_fetch_offset

    assert found(-1, 1) == (end, end)
    assert found(24, 1) == (-1, 9), "a last offset beyond the log's end"
    assert found(23, 0x80) == (-1, 9), "a last offset before the batch"


def inflated(codec: int, payload: bytes, records: int = 1) -> bytes:
    """A batch with these compressed bytes, and a CRC that fits."""
    raw = bytearray(batch(0, [])[0][:61] + payload)
    raw[22] = codec
    struct.pack_into(">i", raw, 23, records - 1)
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


@pytest.mark.parametrize(
    ("codec", "payload", "reason"),
    [
        ("gzip", gzip.compress(bytes(200 << 20), 1), "too_large"),
        ("lz4", bytes(cramjam.lz4.compress(bytes(200 << 20))), "too_large"),
        ("zstd", bytes(cramjam.zstd.compress(bytes(200 << 20))), "too_large"),
        ("zstd", b"no zstd" * 3_000, "corrupt_batch"),
        ("gzip", gzip.compress(bytes(200 << 20), 1)[:1_000], "corrupt_batch"),
        ("snappy", b"no snappy", "corrupt_batch"),
    ],
    ids=["gzip", "lz4", "zstd", "no-zstd", "cut-gzip", "no-snappy"],
)
def test_what_does_not_inflate_or_inflates_without_end_is_broken(
    codec: str, payload: bytes, reason: str
) -> None:
    before, after = batch(0, [])[0], batch(2, [0])[0]
    raw = bytearray(inflated(CODECS[codec], payload))
    struct.pack_into(">q", raw, 0, 1)
    records = Log([(before, 0, 1), (bytes(raw), 1, 2), (after, 2, 4)], []).records(
        0, READ_COMMITTED
    )
    found = split(Fetched(TP, 0, 0, 4, list(record_batches(records))))
    assert found.offsets.tolist() == [0, 2, 3]
    assert [(b.start, b.end, b.reason) for b in found.broken] == [(1, 2, reason)]


def test_an_unknown_codec_and_too_many_records_are_broken() -> None:
    for raw, reason in (
        (inflated(5, b""), "corrupt_batch"),
        (inflated(0, b"", 2_000_000), "too_large"),
    ):
        ((start, it),) = record_batches(Log([(raw, 0, 1)], []).records(0, READ_COMMITTED))
        assert [(b.start, b.reason) for b in split(Fetched(TP, 0, 0, 1, [(start, it)])).broken] == [
            (0, reason)
        ]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_bounded_decoders_give_what_aiokafkas_give(codec: str) -> None:
    text = random.Random(1).randbytes(300_000) + bytes(3 << 20)
    codecs: dict[str, Any] = {"gzip": gzip, "lz4": cramjam.lz4, "zstd": cramjam.zstd}
    payload = bytes(codecs[codec].compress(text))
    if codec == "gzip":
        payload, text = payload + gzip.compress(b"another member"), text + b"another member"
    assert inflating.BOUNDED[codec](payload) == text
    assert getattr(sys.modules[DefaultRecordBatch.__module__], f"{codec}_decode").bounded


def test_the_worker_asks_for_checks_and_committed_records() -> None:
    options = consumer_options(Settings())
    assert (
        options.get(
            "check_crcs", inspect.signature(AIOKafkaConsumer).parameters["check_crcs"].default
        )
        is True
    )
    assert options["isolation_level"] == "read_committed"


# ---- a real Kafka


class Epochs:
    def __init__(self) -> None:
        self.epochs: dict[TopicPartition, int] = {}


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test

    asyncio.run(bounded())


@asynccontextmanager
async def consumer_at(
    bootstrap: str, tp: TopicPartition, start: int, isolation: str, **options: Any
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        isolation_level=isolation,
        fetch_max_wait_ms=50,
        **options,
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, start)
        yield consumer
    finally:
        await consumer.stop()


async def end_of(consumer: AIOKafkaConsumer, tp: TopicPartition) -> int:
    return int((await consumer.end_offsets([tp]))[tp])


async def read_by_aiokafka(
    bootstrap: str, tp: TopicPartition, start: int, isolation: str, **options: Any
) -> tuple[list[Row], int]:
    async with consumer_at(bootstrap, tp, start, isolation, **options) as consumer:
        end, rows = await end_of(consumer, tp), []
        while await consumer.position(tp) < end:
            for found in (await consumer.getmany(tp, timeout_ms=200)).values():
                rows += [(r.offset, r.timestamp, r.key, r.value) for r in found]
        return rows, await consumer.position(tp)


async def read_by_us(
    bootstrap: str, tp: TopicPartition, start: int, isolation: str, **options: Any
) -> tuple[list[Row], int]:
    """As the worker reads, with its check that deliveries join without a hole."""
    async with consumer_at(bootstrap, tp, start, isolation, **options) as consumer:
        hub = Epochs()
        fetching = Fetching(hub, consumer)
        await fetching.seek({tp: start})
        end, place = await end_of(consumer, tp), start
        rows: list[Any] = []
        while place < end and await consumer.position(tp) < end:
            for fetched in (await fetching.fetch([tp], 0.2)).values():
                assert (fetched.tp, fetched.epoch, fetched.start) == (tp, 1, place)
                assert len(fetched.batches) <= BATCHES_MAX
                found = rows_of(fetched.batches)
                assert all(place <= offset < fetched.end for offset, *_ in found)
                rows, place = rows + found, fetched.end
        return rows, await consumer.position(tp)


async def make(bootstrap: str) -> TopicPartition:
    topic = f"fetching-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    return TopicPartition(topic, 0)


def produce(bootstrap: str, topic: str, codec: str, n: int, seed: int) -> None:
    rnd = random.Random(seed)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "linger.ms": 20,
            "batch.num.messages": 40,
            "enable.idempotence": seed % 2 == 0,
        }
    )
    for i in range(n):
        value = rnd.choice(
            [None, b"", rnd.randbytes(rnd.randrange(300)), b'{"event_id": "%d"}' % i]
        )
        producer.produce(
            topic,
            value,
            rnd.choice([None, b"k%d" % i]),
            partition=0,
            headers=[("a", b"1"), ("b", None)] * rnd.randrange(3),
            timestamp=T0 + i,
        )
    assert producer.flush(20) == 0


@pytest.mark.kafka
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("small", [False, True], ids=["one-fetch", "many-fetches"])
def test_every_codec_is_read_as_aiokafka_reads_it(kafka: Any, codec: str, small: bool) -> None:
    async def body() -> None:
        tp = await make(kafka.bootstrap)
        for seed in range(2):
            await asyncio.to_thread(produce, kafka.bootstrap, tp.topic, codec, 300, seed)
        options = {"max_partition_fetch_bytes": 2_000} if small else {}
        rows, end = await read_by_us(kafka.bootstrap, tp, 0, "read_committed", **options)
        assert (rows, end) == await read_by_aiokafka(
            kafka.bootstrap, tp, 0, "read_committed", **options
        )
        assert [offset for offset, *_ in rows] == list(range(600))
        assert end == 600
        for start in (
            1,
            39,
            41,
            299,
            300,
            577,
            599,
            600,
        ):
            # in the middle of a batch, and at its edges
            assert await read_by_us(kafka.bootstrap, tp, start, "read_committed", **options) == (
                rows[start:],
                600,
            )

    run(body())


async def transactions(bootstrap: str, tp: TopicPartition) -> AIOKafkaProducer:
    """
    Two producers whose transactions overlap, some aborted, among plain records; one is left open at
    the end.
    """
    names = [f"{tp.topic}-{i}" for i in range(2)]
    plain = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="zstd", linger_ms=5)
    one, other = (
        AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id=name, compression_type="lz4", linger_ms=5
        )
        for name in names
    )
    for producer in (plain, one, other):
        await producer.start()

    async def send(producer: AIOKafkaProducer, n: int, what: str) -> None:
        for future in [
            await producer.send(
                tp.topic, f"{what} {i}".encode(), partition=0, headers=[("what", what.encode())]
            )
            for i in range(n)
        ]:
            await future

    await send(plain, 3, "plain")
    for k, (first, second) in enumerate(
        [("abort", "commit"), ("commit", "abort"), ("abort", "abort")]
    ):
        await one.begin_transaction()
        await send(one, 4, f"one {k} {first}")
        await other.begin_transaction()
        await send(other, 5, f"other {k} {second}")
        await send(plain, 2, "plain")
        await send(one, 3, f"one {k} {first} again")
        await (one.abort_transaction() if first == "abort" else one.commit_transaction())
        await send(other, 2, f"other {k} {second} again")
        await (other.abort_transaction() if second == "abort" else other.commit_transaction())
    await one.begin_transaction()
    await send(one, 2, "open")
    await send(plain, 3, "plain, after the last stable offset")
    await plain.stop()
    await other.stop()
    return one


@pytest.mark.kafka
@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
@pytest.mark.parametrize("small", [False, True], ids=["one-fetch", "many-fetches"])
def test_transactions_are_read_as_aiokafka_reads_them(
    kafka: Any, isolation: str, small: bool
) -> None:
    async def body() -> None:
        tp = await make(kafka.bootstrap)
        left_open = await transactions(kafka.bootstrap, tp)
        options = {"max_partition_fetch_bytes": 200} if small else {}
        rows, end = await read_by_us(kafka.bootstrap, tp, 0, isolation, **options)
        assert (rows, end) == await read_by_aiokafka(kafka.bootstrap, tp, 0, isolation, **options)
        values = [value or b"" for *_, value in rows]
        assert any(b"abort" in v for v in values) == (isolation == "read_uncommitted")
        assert any(b"open" in v for v in values) == (isolation == "read_uncommitted")
        assert sum(b"commit" in v for v in values) == 7 + 7
        for start in np.random.default_rng(1).integers(1, end, 6).tolist():
            found = await read_by_us(kafka.bootstrap, tp, start, isolation, **options)
            assert found == await read_by_aiokafka(kafka.bootstrap, tp, start, isolation, **options)
            assert found == ([row for row in rows if row[0] >= start], end)
        await left_open.abort_transaction()
        await left_open.stop()
        rows, end = await read_by_us(kafka.bootstrap, tp, 0, isolation, **options)
        assert (rows, end) == await read_by_aiokafka(kafka.bootstrap, tp, 0, isolation, **options)
        assert any(b"after the last stable offset" in (value or b"") for *_, value in rows)

    run(body())
