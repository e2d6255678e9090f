"""
The result of one fetch as whole record batches, and how records are read from it.

Rule of the file: record batches stay compressed until `split` decodes them. CRC, aborted
transactions and control batches are checked in the same way as in aiokafka
(`tests/kafka/test_fetching.py` compares the two). A batch that cannot be read is returned as
`Broken`, never raised, because the stage decides what to do with it. The private attributes used
here are pinned by a contract test.
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
from stream_monitor.schema import Reason

inflating.bound()
READ_COMMITTED = 1
TAKEN_BYTES_MAX = 32 << 20
"""
Once the records of a delivery use this much memory, no further batch of it is decompressed.

Most deliveries stay far below it; one of 2 MiB can contain 64 GiB.
"""
RECORD_BYTES = 200
"""Memory of a record in bytes, without its value and key."""


class Fetched(NamedTuple):
    """The records that were fetched of one partition at once."""

    tp: TopicPartition
    epoch: int
    """Our own count of seeks of this partition. A batch of an older epoch is stale."""
    start: int | None
    """
    End of the previous batch. If it differs from the position, a batch was lost on its way here.

    None: the broker no longer has, or does not yet have, the requested records.
    """
    end: int
    """The position after the delivery, including control records and compacted ones."""
    batches: list[tuple[int, Any]]
    """
    Pairs of (first wanted offset, record batch of aiokafka or `Broken`).

    `split` decodes them; a batch that was decompressed stays so.
    """


class Broken(NamedTuple):
    """A batch whose records cannot be read."""

    start: int
    end: int
    """The offset after the batch; -1 if its end is unknown."""
    reason: Reason
    """`corrupt_batch`, or `too_large` if it would decompress beyond the limits."""
    message: str


class Records(NamedTuple):
    values: list[bytes | None]
    keys: list[bytes | None]
    offsets: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    broken: list[Broken]
    end: int
    """The position after these records."""
    rest: Fetched | None
    """The rest of the delivery, if all of it would need too much memory at once."""
    by_broker: tuple[bool, ...] = ()
    """Whether the broker set the time of each record; empty if of none."""

    def entries(self) -> Iterator[tuple[int, bytes, int | None]]:
        """
        Offset and value of each record that has a value, and the broker's append time if it is
        known.
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
    The records of a delivery, or of its first batches, and the batches that could not be read.

    This decompresses the batches; it takes 0.4 µs for a record of 400 bytes. The batches that were
    read are removed from `fetched.batches`, because a batch keeps its decompressed bytes as long as
    something refers to it. What is left of the list belongs to the rest.
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
            # any error of a codec; the CRC was right, so the header can be believed
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

    A batch with a wrong CRC ends the reading of an answer, because the aborted transactions in the
    answer may end in that batch. The next fetch begins with the batch, or after it.
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
    Where a batch with a wrong CRC ends; -1 if unknown.

    It ends where the next batch in the answer begins. (The CRC does not cover a first offset, but
    the broker found the batch by it.) For the last batch only its header gives the end. The
    wrong CRC covers that header, so it is believed only up to the end of the log.
    """
    end: int = (
        records._records.next_batch().base_offset
        if records._records.has_next()
        else batch.next_offset
    )
    return end if start < end <= (end if log_end is None else log_end) else -1
