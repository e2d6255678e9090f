"""
Whole record batches from an aiokafka consumer, with the positions that belong to them.

Rule of the file: a batch, the position after it and the epoch of its partition are read together,
with no await in between. The content of a batch is not read here (`deliveries.py` does). The
private attributes used here are pinned by a contract test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from stream_monitor.kafka.committed_offsets import committed_offsets
from stream_monitor.kafka.deliveries import Fetched, record_batches
from stream_monitor.kafka.topic_ids import topic_ids

BATCHES_MAX = 500
"""Greatest number of record batches in one delivery."""


class Epochs(Protocol):
    """Counts the seeks of each partition: every seek begins a new epoch."""

    epochs: dict[TopicPartition, int]


class Fetching:
    """The consumer of a worker, as the stages need it."""

    def __init__(self, hub: Epochs, consumer: AIOKafkaConsumer) -> None:
        self.hub, self.consumer = hub, consumer
        self.ends: dict[TopicPartition, int] = {}
        self._heard = 0.0

    def attend(self) -> None:
        """
        Note every heartbeat that the group's coordinator answers.

        Call it once, after the consumer has started.
        """
        coordinator = self.consumer._coordinator
        heartbeat = coordinator._do_heartbeat

        async def noted() -> bool:
            answered: bool = await heartbeat()
            if answered:
                self._heard = time.monotonic()
            return answered

        coordinator._do_heartbeat = noted

    def heard_within(self, seconds: float) -> bool:
        """
        Whether the group's coordinator answered a heartbeat within this many seconds.

        A worker that was stopped for longer may have lost its partitions.
        """
        return time.monotonic() - self._heard < seconds

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Id of each topic that exists; none on a broker without topic ids."""
        return await topic_ids(self.consumer._client, topics)

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic of the group, by the last metadata."""
        return len(self.consumer.partitions_for_topic(topic) or ())

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        """Committed offset and metadata of each partition; None if there is none."""
        return await committed_offsets(
            self.consumer._coordinator, [TopicPartition(*tp) for tp in tps]
        )

    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        """First offset and end of each partition."""
        wanted = [TopicPartition(*tp) for tp in tps]
        if not wanted:
            return {}
        first, end = (
            await self.consumer.beginning_offsets(wanted),
            await self.consumer.end_offsets(wanted),
        )
        return {tp: (first[tp], end[tp]) for tp in wanted}

    def lag(self, tp: TopicPartition, position: int) -> int | None:
        """Number of records after `position`, by the last fetch; None before the first fetch."""
        end = self.consumer.highwater(tp) if tp in self.consumer.assignment() else None
        return None if end is None else max(end - position, 0)

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with metadata for the group, also of partitions that it does not read."""
        found = {
            TopicPartition(*tp): OffsetAndMetadata(offset, metadata)
            for tp, (offset, metadata) in offsets.items()
        }
        if found.keys() <= self.consumer.assignment():
            await self.consumer.commit(found)
        else:  # the public call refuses partitions that are not assigned
            await self.consumer._coordinator.commit_offsets(None, found)

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """
        Seek to these positions; each seek begins a new epoch.

        Partitions that were lost meanwhile are left out.
        """
        assigned = self.consumer.assignment()
        self._heard = time.monotonic()
        for tp, offset in positions.items():
            if tp in assigned:
                self.hub.epochs[tp] = self.hub.epochs.get(tp, 0) + 1
                self.consumer.seek(TopicPartition(*tp), offset)
                self.ends[tp] = offset

    async def fetch(
        self, partitions: Collection[TopicPartition], timeout_s: float
    ) -> dict[TopicPartition, Fetched]:
        """Fetch the available records of these partitions."""
        try:
            return await self._fetch(partitions, timeout_s)
        except (
            OffsetOutOfRangeError,
            NoOffsetForPartitionError,
        ) as e:
            # gone, or without a position: report a gap, so that it is opened again
            lost = e.args[0] if isinstance(e.args[0], dict) else {e.args[0]: 0}
            return {
                tp: Fetched(tp, self.hub.epochs.get(tp, 0), None, offset, [])
                for tp, offset in lost.items()
            }

    async def _fetch(
        self, partitions: Collection[TopicPartition], timeout_s: float
    ) -> dict[TopicPartition, Fetched]:
        got = await self._drained(partitions)
        if not got:
            waiter = self.consumer._fetcher._create_fetch_waiter()
            _, pending = await asyncio.wait([waiter], timeout=timeout_s)
            for future in pending:
                future.cancel()
            if not pending:
                waiter.result()  # authorisation errors
            got = await self._drained(partitions)
        out = {}
        for tp, found in got.items():
            end = self.consumer._subscription.subscription.assignment.state_value(tp).position
            out[tp] = Fetched(tp, self.hub.epochs.get(tp, 0), self.ends.get(tp), end, found)
            self.ends[tp] = end
        return out

    async def _drained(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, list[tuple[int, Any]]]:
        """
        Read what has been fetched by now without waiting, so that no result arrives as records.
        """
        fetcher = self.consumer._fetcher
        for tp, result in fetcher._records.items():
            records = result._partition_records if type(result) is FetchResult else None
            if (
                records is not None
                and records._records_iterator is not None
                and records._records_iterator.__name__ == "_unpack_records"
            ):
                records._records_iterator = record_batches(
                    records,
                    self.consumer.highwater(tp) if tp in self.consumer.assignment() else None,
                )
        with fetcher._subscriptions.fetch_context():
            found: dict[TopicPartition, list[tuple[int, Any]]] = await fetcher.fetched_records(
                partitions, timeout=0, max_records=BATCHES_MAX
            )
        return found


class Alone:
    """The epochs of a consumer that is used alone."""

    def __init__(self) -> None:
        self.epochs: dict[TopicPartition, int] = {}


class Reader:
    """
    A consumer without a group, for restoring. It delivers the same records as the group's consumer.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self._next: tuple[TopicPartition, int] | None = None

    async def value(self, tp: TopicPartition, offset: int) -> bytes | None:
        """
        Value of one record; None if it is gone. Reading the record after the previous one needs no
        seek, which would fetch the record again.
        """
        if self.consumer.assignment() != {tp}:
            self.consumer.assign([tp])
        if self._next != (tp, offset):
            self.consumer.seek(tp, offset)
        record = await self.consumer.getone(tp)
        self._next = tp, record.offset + 1
        return record.value if record.offset == offset else None

    async def stretch(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[Fetched]:
        """
        All records from `start` to `end`, and perhaps more.

        Raises
        ------
        OffsetOutOfRangeError
            Some of these records are gone.
        """
        self.consumer.assign([tp])
        self._next = None
        fetching = Fetching(Alone(), self.consumer)
        await fetching.seek({tp: start})
        while start < end:
            for fetched in (await fetching.fetch([tp], 0.2)).values():
                if fetched.start is None:
                    raise OffsetOutOfRangeError({tp: start})
                start = fetched.end
                yield fetched
