"""
One partition of the embedded broker: record batches in memory; the oldest are dropped first.

Rule of the file: a batch is kept as the received bytes. Only fields that Kafka's brokers also write
are changed: base offset and leader epoch, which are outside the checksum, and the time, if the
broker dates the records of the topic.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import OrderedDict, deque
from typing import NamedTuple

from aiokafka.record.util import calc_crc32c

from stream_monitor.demo.protocol import Error

# base offset, length, leader epoch, magic, crc, attributes, last offset delta, first time, last
# time, producer id, producer epoch, first sequence, records
HEADER = struct.Struct(">qiibIhiqqqhii")
LENGTH_PREFIX_BYTES = 12
CRC_START = 21
TRANSACTIONAL = 0x10
LOG_APPEND_TIME = 0x08
CRC, LAST_TIME = 17, 35
"""Positions in the header."""
SEQUENCES = 1 << 31
BATCHES_REMEMBERED = 5
PRODUCERS_REMEMBERED = 1_000


class Batch(NamedTuple):
    """The header of a record batch, and its place in the received bytes."""

    start: int
    stop: int
    records: int
    """Number of offsets in the batch."""
    time_ms: int
    producer_id: int
    producer_epoch: int
    sequence: int


class Appended(NamedTuple):
    error: int
    offset: int


class Producer:
    """The last batches of one idempotent producer: (first sequence, last sequence, base offset)."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[tuple[int, int, int]] = deque(maxlen=BATCHES_REMEMBERED)


class PartitionLog:
    """
    The records of one partition.

    Parameters
    ----------
    bytes_max : int
        Beyond this size the oldest batches are dropped (the newest always stays). `start` then
        increases, and whoever reads a dropped batch gets OFFSET_OUT_OF_RANGE.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.start = 0
        self.end = 0
        self._bases: list[int] = []
        self._batches: list[bytes] = []
        self._times_ms: list[int] = []
        self._producers: OrderedDict[int, Producer] = OrderedDict()

    def append(
        self, data: bytes, record_bytes_max: int, appended_ms: int | None = None
    ) -> Appended:
        """
        Append the batches of a produce request; if one is malformed, append none.

        Parameters
        ----------
        data : bytes
            Record batches of format 2, one after the other.
        record_bytes_max : int
            A batch above this is refused (`max.message.bytes` of the topic).
        appended_ms : int, ms
            The time that all records get if the broker dates them.

        Returns
        -------
        Appended
            Error code and the offset of the first record; for a repeat by an idempotent producer
            the offset of the first append.
        """
        error, batches = parse(data, record_bytes_max)
        if error:
            return Appended(error, -1)
        first = self.end
        for number, batch in enumerate(batches):
            error, known = self._check_sequence(batch)
            if error:
                return Appended(error, -1)
            if known is None:
                self._store(data, batch, appended_ms)
            elif number == 0:
                first = known
        self._expire()
        return Appended(Error.NONE, first)

    def read(self, offset: int, bytes_max: int) -> bytes | None:
        """
        Batches from the one that contains `offset`, as many as fit, but at least one if there is
        one.

        `None`: out of range.
        """
        if not self.start <= offset <= self.end:
            return None
        found: list[bytes] = []
        size = 0
        if offset < self.end:
            for batch in self._batches[bisect_right(self._bases, offset) - 1 :]:
                if found and size + len(batch) > bytes_max:
                    break
                found.append(batch)
                size += len(batch)
        return b"".join(found)

    def at_time(self, time_ms: int) -> tuple[int, int]:
        """
        (offset, time) of the first batch whose last record is at or after a time: of the first
        record in it, while Kafka would name the very record. (-1, -1) if there is none.
        """
        for base, last_ms in zip(self._bases, self._times_ms, strict=True):
            if last_ms >= time_ms:
                return base, last_ms
        return -1, -1

    def _check_sequence(self, batch: Batch) -> tuple[int, int | None]:
        """Kafka's rules for idempotent producers: (error, offset of the earlier append or None)."""
        if batch.producer_id < 0:
            return Error.NONE, None
        last = (batch.sequence + batch.records - 1) % SEQUENCES
        producer = self._producers.get(batch.producer_id)
        if producer is not None and batch.producer_epoch < producer.epoch:
            return Error.INVALID_PRODUCER_EPOCH, None
        if producer is None or batch.producer_epoch > producer.epoch:
            if producer is not None and batch.sequence != 0:
                return Error.OUT_OF_ORDER_SEQUENCE, None
            producer = self._producers[batch.producer_id] = Producer(batch.producer_epoch)
            if len(self._producers) > PRODUCERS_REMEMBERED:
                self._producers.popitem(last=False)
        elif producer.batches:
            for first, final, offset in producer.batches:
                if (first, final) == (batch.sequence, last):
                    return Error.NONE, offset
            expected = (producer.batches[-1][1] + 1) % SEQUENCES
            if batch.sequence != expected:
                return (
                    Error.DUPLICATE_SEQUENCE
                    if batch.sequence < expected
                    else Error.OUT_OF_ORDER_SEQUENCE
                ), None
        self._producers.move_to_end(batch.producer_id)
        producer.batches.append((batch.sequence, last, self.end))
        return Error.NONE, None

    def _store(self, data: bytes, batch: Batch, appended_ms: int | None) -> None:
        stored = bytearray(data[batch.start : batch.stop])
        struct.pack_into(">q", stored, 0, self.end)
        struct.pack_into(">i", stored, LENGTH_PREFIX_BYTES, 0)
        if appended_ms is not None:
            struct.pack_into(
                ">h",
                stored,
                CRC_START,
                struct.unpack_from(">h", stored, CRC_START)[0] | LOG_APPEND_TIME,
            )
            struct.pack_into(">q", stored, LAST_TIME, appended_ms)
            struct.pack_into(">I", stored, CRC, calc_crc32c(bytes(stored[CRC_START:])))
        self._bases.append(self.end)
        self._batches.append(bytes(stored))
        self._times_ms.append(batch.time_ms if appended_ms is None else appended_ms)
        self.end += batch.records
        self.bytes += len(stored)

    def _expire(self) -> None:
        gone = 0
        while self.bytes > self.bytes_max and gone < len(self._batches) - 1:
            self.bytes -= len(self._batches[gone])
            gone += 1
        if gone:
            del self._bases[:gone], self._batches[:gone], self._times_ms[:gone]
            self.start = self._bases[0]


def parse(data: bytes, record_bytes_max: int) -> tuple[int, list[Batch]]:
    """
    Check the batches of a produce request: format, length, checksum, no transaction.

    Returns
    -------
    (int, list of Batch)
        Error code (0 is none) and the batches.
    """
    batches: list[Batch] = []
    start = 0
    while start < len(data):
        if len(data) - start < HEADER.size:
            return Error.INVALID_RECORD, []
        (
            _,
            length,
            _,
            magic,
            crc,
            attributes,
            last_delta,
            _,
            time_ms,
            producer_id,
            producer_epoch,
            sequence,
            _,
        ) = HEADER.unpack_from(data, start)
        stop = start + LENGTH_PREFIX_BYTES + length
        if (
            magic != 2
            or stop > len(data)
            or length < HEADER.size - LENGTH_PREFIX_BYTES
            or last_delta < 0
        ):
            return Error.INVALID_RECORD, []
        if calc_crc32c(data[start + CRC_START : stop]) != crc:
            return Error.CORRUPT_MESSAGE, []
        if attributes & TRANSACTIONAL:
            return Error.INVALID_TXN_STATE, []
        if stop - start > record_bytes_max:
            return Error.MESSAGE_TOO_LARGE, []
        batches.append(
            Batch(start, stop, last_delta + 1, time_ms, producer_id, producer_epoch, sequence)
        )
        start = stop
    return Error.NONE, batches
