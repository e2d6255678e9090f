"""
Reads our own topics for a command or a starting worker: whole topics, without a group, only
committed records.

Rule of the file: reading never creates a topic. A broker that cannot be reached is a `BrokerError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError
from stream_monitor.kafka import topics
from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.patience import quietly
from stream_monitor.settings import Settings

POLL_MS = 200


class Record(NamedTuple):
    """
    A record of one of our topics, by its logical name. A record without a value is a tombstone.
    """

    topic: str
    key: str
    value: bytes | None
    headers: Mapping[str, bytes | None]
    """Headers; of a repeated header the last value."""
    key_bytes: bytes | None
    partition: int
    offset: int
    time_ms: int


class TopicReader:
    """
    Reads records of some of our topics, in the order of each partition; to be used in `async with`.

    Raises
    ------
    BrokerError
        On entry if no broker can be reached; later if it refuses.
    """

    def __init__(self, settings: Settings, names: Sequence[str]) -> None:
        self.settings = settings
        self.missing: list[str] = []
        """Topics that do not exist."""
        self._names = {settings.kafka.topic_prefix + name: name for name in names}
        self._ends: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> Self:
        async with topics.admin(self.settings) as client:
            described = {
                t["topic"]: t
                for t in await client.describe_topics(
                    sorted(set(self._names) & set(await client.list_topics()))
                )
            }
        self.missing = [name for topic, name in self._names.items() if topic not in described]
        partitions = [
            TopicPartition(topic, p["partition"])
            for topic, found in described.items()
            for p in found["partitions"]
        ]
        options = client_options(self.settings.kafka)
        self._consumer = AIOKafkaConsumer(
            **options,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            with connecting(self.settings.kafka):
                await self._consumer.start()
            if partitions:
                self._consumer.assign(partitions)
                self._ends = await self._consumer.end_offsets(partitions)
                for tp, start in (await self._consumer.beginning_offsets(partitions)).items():
                    self._consumer.seek(tp, start)
        except BrokerError:
            await quietly(self._consumer.stop())
            raise
        except KafkaError as e:
            await quietly(self._consumer.stop())
            raise self._refused(e) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await quietly(self._consumer.stop())

    async def whole(self) -> AsyncIterator[Record]:
        """All records that existed on entry."""
        while any([await self._consumer.position(tp) < end for tp, end in self._ends.items()]):
            for record in await self.batch():
                yield record

    async def follow(self, stop: asyncio.Event) -> AsyncIterator[Record]:
        """The records that come after `whole`, until `stop` is set."""
        while not stop.is_set():
            for record in await self.batch():
                yield record

    async def batch(self) -> list[Record]:
        """Records that came since, after a wait of at most `POLL_MS`."""
        if not self._ends:
            await asyncio.sleep(POLL_MS / 1e3)
            return []
        try:
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
        except KafkaError as e:
            raise self._refused(e) from None
        return [
            Record(
                self._names[tp.topic],
                (r.key or b"").decode("utf-8", "replace"),
                r.value,
                dict(r.headers),
                r.key,
                r.partition,
                r.offset,
                r.timestamp,
            )
            for tp, records in fetched.items()
            for r in records
        ]

    def _refused(self, error: KafkaError) -> BrokerError:
        return BrokerError(
            f"{self.settings.kafka.bootstrap_servers}: {', '.join(self._names)} cannot be "
            f"read: {error}"
        )


async def read_compacted(settings: Settings, name: str, *, without: str = "") -> dict[str, bytes]:
    """
    The last value of each key of a compacted topic, without records that have the header `without`.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or the topic does not exist.
    """
    out: dict[str, bytes] = {}
    async with TopicReader(settings, [name]) as records:
        if records.missing:
            raise BrokerError(
                f"the topic {settings.kafka.topic_prefix + name} does not exist; a worker "
                "creates it, or `stream-monitor topics apply`"
            )
        async for record in records.whole():
            if without in record.headers:
                continue
            out.pop(record.key, None)
            if record.value is not None:
                out[record.key] = record.value
    return out


async def write(settings: Settings, name: str, key: str, value: bytes) -> None:
    """
    Write one record to one of our topics, acknowledged by all replicas. Missing topics are created
    if `kafka.create_topics` allows it.

    Raises
    ------
    BrokerError
        The broker cannot be reached, the topic is missing, or the record is refused.
    """
    topic = settings.kafka.topic_prefix + name
    async with topics.admin(settings) as client:
        missing = topic not in await client.list_topics()
    if missing and not settings.kafka.create_topics:
        raise BrokerError(
            f"the topic {topic} does not exist, and kafka.create_topics is false; create it "
            "with `stream-monitor topics apply`"
        )
    if missing:
        await topics.ensure(settings)
    producer = AIOKafkaProducer(
        **client_options(settings.kafka),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
    )
    try:
        with connecting(settings.kafka):
            await producer.start()
        await producer.send_and_wait(topic, value, key.encode())
    except KafkaError as e:
        raise BrokerError(
            f"{settings.kafka.bootstrap_servers}: a record for {topic} was refused: {e}"
        ) from None
    finally:
        await quietly(producer.stop())


async def send_again(
    settings: Settings, records: Sequence[tuple[str, bytes | None, bytes, int]]
) -> None:
    """
    Send records (topic, key, value, time in ms) unchanged, acknowledged by all replicas.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or it refuses a record; earlier records may have been sent.
    """
    producer = AIOKafkaProducer(
        **client_options(settings.kafka),
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        max_request_size=4 << 20,
    )
    try:
        with connecting(settings.kafka):
            await producer.start()
        waiting = [
            await producer.send(topic, value, key, timestamp_ms=time_ms)
            for topic, key, value, time_ms in records
        ]
        await asyncio.gather(*waiting)
    except KafkaError as e:
        raise BrokerError(
            f"{settings.kafka.bootstrap_servers}: a record was refused: {e}"
        ) from None
    finally:
        await quietly(producer.stop())
