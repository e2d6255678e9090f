"""
What is asked of an aiokafka consumer: whole record batches, and the positions that belong to them.

Rule of the file: a batch is taken together with the position after it and the epoch of its
partition, with no await in between. Record batches stay compressed until they are decoded; CRC,
aborted transactions and control batches are checked as aiokafka does
(`tests/kafka/test_fetching.py` compares the two). A batch that cannot be read is handed over as
`Broken`, never raised: the stage knows what to do about it. The private attributes used here are
pinned by a contract test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from itertools import repeat
from typing import Any, NamedTuple, Protocol

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata
from numpy.typing import NDArray

from stream_monitor.kafka import inflating
from stream_monitor.kafka.clocks import BY_BROKER
from stream_monitor.kafka.committed_offsets import committed_offsets
from stream_monitor.kafka.topic_ids import topic_ids

inflating.bound()
READ_COMMITTED = 1
BATCHES_MAX = 500
"""Record batches of one delivery."""
TAKEN_BYTES_MAX = 32 << 20
"""
Of a delivery no further batch is inflated once its records take so much memory.

Most deliveries stay far below it; one of 2 MiB can hold 64 GiB.
"""
RECORD_BYTES = 200
"""Memory of a record besides its value and key."""


class Epochs(Protocol):
    epochs: dict[TopicPartition, int]


class Fetched(NamedTuple):
    """What was fetched of one partition at once."""

    tp: TopicPartition
    epoch: int
    """Our own count of seeks of this partition: a batch of an older epoch is stale."""
    start: int | None
    """
    Where the batch before it ended: a hole (a batch lost on its way here) shows as start !=
    position.

    None: the broker has no longer, or not yet, what was asked for.
    """
    end: int
    """The position after it, control records and compacted ones included."""
    batches: list[tuple[int, Any]]
    """
    (first wanted offset, record batch of aiokafka or `Broken`).

    `split` takes them out: a batch that was inflated stays so.
    """


class Broken(NamedTuple):
    """A batch whose records cannot be had."""

    start: int
    end: int
    """The offset after it; -1: nothing tells where it ends."""
    reason: str
    """`corrupt_batch`, or `too_large` where it would inflate past the bounds."""
    message: str


class Records(NamedTuple):
    values: list[bytes | None]
    keys: list[bytes | None]
    offsets: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    broken: list[Broken]
    end: int
    """The position after them."""
    rest: Fetched | None
    """What is left of the delivery, where it would take too much memory at once."""
    by_broker: tuple[bool, ...] = ()
    """Whether the broker dated each record; empty: none of them."""

    def entries(self) -> Iterator[tuple[int, bytes, int | None]]:
        """
        Offset and value of each record that has one, and when the broker appended it, where it says
        so.
        """
        times = (
            [
                t if known else None
                for t, known in zip(self.times_ms.tolist(), self.by_broker, strict=True)
            ]
            if self.by_broker
            else repeat(None)
        )
        return (
            (o, value, t)
            for o, value, t in zip(self.offsets.tolist(), self.values, times, strict=False)
            if value is not None
        )


def split(fetched: Fetched) -> Records:
    """
    The records of a delivery, or of its first batches, and the batches that gave none.

    Decompresses; 0.4 µs a record of 400 bytes.
    """
    values: list[bytes | None] = []
    keys: list[bytes | None] = []
    offsets: list[int] = []
    times: list[int] = []
    by_broker: list[bool] = []
    broken: list[Broken] = []
    rest, taken_bytes = fetched.batches, 0
    while rest and taken_bytes < TAKEN_BYTES_MAX:
        start, batch = rest.pop(0)
        if isinstance(batch, Broken):
            broken.append(batch)
            continue
        had = len(values)
        try:
            inflating.demand_few(batch.next_offset - batch.base_offset)
            for record in batch:
                if record.offset >= start:
                    values.append(record.value)
                    keys.append(record.key)
                    offsets.append(record.offset)
                    times.append(record.timestamp)
        except (
            Exception
        ) as e:  # whatever a codec raises; the CRC was right, so that the header can be believed
            for column in (values, keys, offsets, times):
                del column[had:]
            broken.append(
                Broken(
                    start,
                    batch.next_offset,
                    "too_large" if isinstance(e, inflating.InflatedError) else "corrupt_batch",
                    str(e) or repr(e),
                )
            )
        by_broker += [batch.timestamp_type == BY_BROKER] * (len(values) - had)
        taken_bytes += sum(
            len(part) for column in (values, keys) for part in column[had:] if part
        ) + RECORD_BYTES * (len(values) - had)
    end = rest[0][0] if rest else fetched.end
    return Records(
        values,
        keys,
        np.array(offsets, np.int64),
        np.array(times, np.int64),
        broken,
        end,
        fetched._replace(start=end) if rest else None,
        tuple(by_broker),
    )


def record_batches(records: Any, log_end: int | None = None) -> Iterator[tuple[int, Any]]:
    """
    `PartitionRecords._unpack_records` of aiokafka, down to the batch and no further.

    A batch whose CRC is wrong ends what is taken of an answer, since the aborted transactions that
    the answer names may end in it; the next fetch begins with or after it.
    """
    first = True
    while records._records.has_next():
        batch = records._records.next_batch()
        if records._check_crcs and not batch.validate_crc():
            if first:
                start = records.next_fetch_offset
                broken = Broken(
                    start,
                    _end_of_broken(records, batch, start, log_end),
                    "corrupt_batch",
                    "the checksum of the batch is wrong",
                )
                records.next_fetch_offset = max(broken.end, start)
                yield start, broken
            return
        first = False
        if records._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            records._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and records._contains_abort_marker(batch):
                records._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in records._aborted_producers:
                records.next_fetch_offset = batch.next_offset
                continue
        if batch.is_control_batch:
            records.next_fetch_offset = batch.next_offset
            continue
        start, records.next_fetch_offset = records.next_fetch_offset, batch.next_offset
        yield start, batch


def _end_of_broken(records: Any, batch: Any, start: int, log_end: int | None) -> int:
    """
    Where a batch with a wrong CRC ends; -1 when nothing tells.

    The next batch in the answer begins there: the CRC does not cover a first offset, but the broker
    has found its way by it. Of the last batch only its header tells, which the CRC covers: it is
    believed up to the log's end.
    """
    end: int = (
        records._records.next_batch().base_offset
        if records._records.has_next()
        else batch.next_offset
    )
    return end if start < end <= (end if log_end is None else log_end) else -1


class Fetching:
    """The consumer of a worker, seen through what the stages need."""

    def __init__(self, hub: Epochs, consumer: AIOKafkaConsumer) -> None:
        self.hub, self.consumer = hub, consumer
        self.ends: dict[TopicPartition, int] = {}
        self._heard = 0.0

    def attend(self) -> None:
        """
        Note every heartbeat that the group's coordinator answers.

        Once, when the consumer has started.
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
        Whether the group has accepted us so recently; who was stopped for longer may have lost
        everything.
        """
        return time.monotonic() - self._heard < seconds

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """Id of each topic that is there; none on a broker that has no ids."""
        return await topic_ids(self.consumer._client, topics)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic of the group has, as of the last metadata."""
        return len(self.consumer.partitions_for_topic(topic) or ())

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        """Committed offset and metadata of each partition; None where there is none."""
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
        """Records behind `position`, as of the last fetch; None before the first."""
        end = self.consumer.highwater(tp) if tp in self.consumer.assignment() else None
        return None if end is None else max(end - position, 0)

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with metadata for the group; of partitions that it does not read, too."""
        found = {
            TopicPartition(*tp): OffsetAndMetadata(offset, metadata)
            for tp, (offset, metadata) in offsets.items()
        }
        if found.keys() <= self.consumer.assignment():
            await self.consumer.commit(found)
        else:  # the public call refuses them
            await self.consumer._coordinator.commit_offsets(None, found)

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """
        Go to these positions; each begins a new epoch.

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
        """What is there of these partitions."""
        try:
            return await self._fetch(partitions, timeout_s)
        except (
            OffsetOutOfRangeError,
            NoOffsetForPartitionError,
        ) as e:  # gone, or never positioned: a hole, so that it is opened again
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
        """What has been fetched by now, without waiting, so that no result comes in as records."""
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
    """The epochs of a consumer that nobody shares."""

    def __init__(self) -> None:
        self.epochs: dict[TopicPartition, int] = {}


class Reader:
    """
    A consumer without a group, for restoring: what it hands over is what the group's consumer
    would.
    """

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self._next: tuple[TopicPartition, int] | None = None

    async def value(self, tp: TopicPartition, offset: int) -> bytes | None:
        """
        Value of one record; None when it is gone. What lies behind the one before costs no seek,
        which would fetch it again.
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
        All from `start` to `end`, and perhaps more.

        Raises
        ------
        OffsetOutOfRangeError
            Some of it is gone.
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
