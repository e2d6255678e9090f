"""
What one fetch gave, as whole record batches, and how the records are taken out of it.

Rule of the file: record batches stay compressed until `split` decodes them; CRC, aborted
transactions and control batches are checked as aiokafka does (`tests/kafka/test_fetching.py`
compares the two). A batch that cannot be read is handed over as `Broken`, never raised: the stage
knows what to do about it. The private attributes used here are pinned by a contract test.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from stream_monitor.kafka import inflating
from stream_monitor.kafka.clocks import BY_BROKER

inflating.bound()
READ_COMMITTED = 1
TAKEN_BYTES_MAX = 32 << 20
"""
Of a delivery no further batch is inflated once its records take so much memory.

Most deliveries stay far below it; one of 2 MiB can hold 64 GiB.
"""
RECORD_BYTES = 200
"""Memory of a record besides its value and key."""


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
        except Exception as e:
            # whatever a codec raises; the CRC was right, so that the header can be believed
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
