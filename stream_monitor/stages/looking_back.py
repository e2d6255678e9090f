"""
The topics `observations` and `snapshots`, read again by a command: what was folded, and the states
that were stored on the way.

Rule of the file: it reads and never writes. It joins no group, commits nothing and creates no
topic, so workers do not notice it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError, StateError
from stream_monitor.kafka import topics
from stream_monitor.kafka.connection import client_options, connecting, why_not
from stream_monitor.kafka.deliveries import Fetched, split
from stream_monitor.kafka.fetching import Reader
from stream_monitor.kafka.patience import quietly
from stream_monitor.settings import CoreSettings, Settings
from stream_monitor.shard_form import form_of, settings_of
from stream_monitor.stages import snapshots

MANIFEST = b"/manifest"
"""How the keys of manifests end."""


class Bounds(NamedTuple):
    """A partition of `observations`."""

    first: int
    """Offset of its first record."""
    end: int
    first_ms: int | None
    """When its first record was written; None if there is none."""


class StoredState(NamedTuple):
    """A state that was stored: the fold of everything before `position`."""

    position: int
    parts: dict[str, bytes]
    settings: CoreSettings
    """The configuration with which it was folded."""


class LookingBack:
    """
    Reads `observations` again; to be used in `async with`.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    BrokerError
        On entry if no broker can be reached or there are no `observations`; later if it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.partitions = 0
        """Number of partitions of `observations`."""
        self._has_snapshots = False

    async def __aenter__(self) -> Self:
        name, prefix = self._topic("observations"), self.settings.kafka.topic_prefix
        async with topics.admin(self.settings) as client:
            there = set(await client.list_topics())
            if name not in there:
                raise BrokerError(
                    f"the topic {name} does not exist; a worker creates it when it starts"
                    + ("" if prefix else " (kafka.topic_prefix is not set: is it right?)")
                )
            described = (await client.describe_topics([name]))[0]
        self.partitions = len(described["partitions"])
        self._has_snapshots = self._topic("snapshots") in there
        self._consumer = AIOKafkaConsumer(
            **client_options(self.settings.kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 << 20,
        )
        try:
            with connecting(self.settings.kafka):
                await self._consumer.start()
        except BaseException:
            await quietly(self._consumer.stop())
            raise
        self._reader = Reader(self._consumer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await quietly(self._consumer.stop())

    def _topic(self, name: str) -> str:
        return self.settings.kafka.topic_prefix + name

    async def bounds(self, partition: int) -> Bounds:
        """First and last offset of a partition of `observations`."""
        tp = TopicPartition(self._topic("observations"), partition)
        first, end = await self._ends(tp)
        at = await self._at_time(tp, 0) if first < end else None
        return Bounds(first, end, at[1] if at else None)

    async def offset_at(self, partition: int, time_ms: int) -> int | None:
        """Offset of the first record at or after a time; None if there is none."""
        found = await self._at_time(TopicPartition(self._topic("observations"), partition), time_ms)
        return found[0] if found else None

    async def records(
        self, partition: int, start: int, end: int
    ) -> AsyncIterator[tuple[int, bytes, int | None]]:
        """
        Offset, value and append time (if the broker dates records) of the records of a partition.

        Raises
        ------
        StateError
            A batch cannot be read.
        """
        tp = TopicPartition(self._topic("observations"), partition)
        async for portion in self._stretch(tp, start, end):
            for offset, _, value, appended_ms in portion:
                if value is not None:
                    yield offset, value, appended_ms

    async def stored_before(
        self, partition: int, position: int, time_ms: int
    ) -> StoredState | None:
        """
        The newest state that is whole and was stored at or before a position.

        Parameters
        ----------
        partition, position : int
        time_ms : int, ms
            When the record at this position was written: later snapshots are not looked at.
        """
        for pointer, manifest in reversed(await self._manifests(partition, time_ms)):
            if manifest.position <= position and (found := await self._whole(partition, pointer)):
                return found
        return None

    async def newest_settings(self) -> CoreSettings | None:
        """The configuration of the newest state that is stored; None if there is none."""
        for partition in range(self.partitions):
            for pointer, _ in reversed(await self._manifests(partition, None)):
                if found := await self._whole(partition, pointer):
                    return found.settings
        return None

    async def _manifests(
        self, partition: int, time_ms: int | None
    ) -> list[tuple[int, snapshots.Manifest]]:
        """Manifests of a partition up to a time, with their offsets, by position."""
        tp = TopicPartition(self._topic("snapshots"), partition)
        if not self._has_snapshots:
            return []
        first, end = await self._ends(tp)
        if time_ms is not None and (later := await self._at_time(tp, time_ms)):
            end = later[0]
        found = []
        async for read in self._stretch(tp, first, end):
            for offset, key, value, _ in read:
                if value is not None and key is not None and key.endswith(MANIFEST):
                    try:
                        found.append(
                            (offset, msgspec.msgpack.decode(value, type=snapshots.Manifest))
                        )
                    except msgspec.MsgspecError:  # of another version
                        continue
        return sorted(found, key=lambda each: (each[1].position, each[0]))

    async def _whole(self, partition: int, pointer: int) -> StoredState | None:
        """A snapshot with all its parts; None if compaction took some, or it is of another form."""
        tp = TopicPartition(self._topic("snapshots"), partition)
        try:
            manifest, parts = await snapshots.read(self._reader, tp, pointer)
            form_of(parts)
            return StoredState(manifest.position, parts, settings_of(parts))
        except (StateError, KeyError, msgspec.MsgspecError):
            return None
        except KafkaError as e:
            raise self._refused(tp.topic, e) from None

    async def _ends(self, tp: TopicPartition) -> tuple[int, int]:
        try:
            self._consumer.assign([tp])
            first = await self._consumer.beginning_offsets([tp])
            end = await self._consumer.end_offsets([tp])
        except KafkaError as e:
            raise self._refused(tp.topic, e) from None
        return first[tp], end[tp]

    async def _at_time(self, tp: TopicPartition, time_ms: int) -> tuple[int, int] | None:
        try:
            self._consumer.assign([tp])
            found = (await self._consumer.offsets_for_times({tp: time_ms}))[tp]
        except KafkaError as e:
            raise self._refused(tp.topic, e) from None
        return None if found is None else (found.offset, found.timestamp)

    async def _stretch(
        self, tp: TopicPartition, start: int, end: int
    ) -> AsyncIterator[list[tuple[int, bytes | None, bytes | None, int | None]]]:
        """Offset, key, value and append time of records, in bounded portions."""
        try:
            async for fetched in self._reader.stretch(tp, start, end):
                part: Fetched | None = fetched
                while part is not None:
                    records = split(part)
                    for broken in records.broken:
                        raise StateError(
                            f"{tp.topic}/{tp.partition}: the batch at offset {broken.start} cannot "
                            f"be read ({broken.reason}: {broken.message}); begin after it with a "
                            "shorter --since and --learn, or mend it from another replica"
                        )
                    known = records.by_broker or (False,) * len(records.values)
                    rows = zip(
                        records.offsets.tolist(),
                        records.keys,
                        records.values,
                        (
                            t if by_broker else None
                            for t, by_broker in zip(records.times_ms.tolist(), known, strict=True)
                        ),
                        strict=True,
                    )
                    yield [row for row in rows if row[0] < end]
                    part = records.rest
        except KafkaError as e:
            raise self._refused(tp.topic, e) from None

    def _refused(self, topic: str, error: KafkaError) -> BrokerError:
        return BrokerError(
            f"{self.settings.kafka.bootstrap_servers}: {topic} cannot be read: {why_not(error)}"
        )
