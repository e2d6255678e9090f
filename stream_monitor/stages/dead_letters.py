"""
Finds records of the source topics that INGEST cannot use, and moves them to `dead-letters`.

Rule of the file: no record is left out without a dead letter, and a dead letter that cannot be
written ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata

from stream_monitor.kafka.deliveries import Broken, Records
from stream_monitor.kafka.patience import patiently
from stream_monitor.stages.exits import BATCH_FAILED, IN_DOUBT, die
from stream_monitor.stages.forks import EndedError, apart, culprits
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.poison import REASON, TRIES, Headers, letter_headers, place
from stream_monitor.stages.reading import Reading
from stream_monitor.stages.refusals import Refusals
from stream_monitor.verdicts import Reject

log = logging.getLogger("stream_monitor")
DEAD_LETTER_BYTES_MAX = 900_000


class DeadLetters:
    """Finds and writes the dead letters of this process, and counts them."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.refusals = Refusals(hub.settings.core)

    def admit(self, tp: TopicPartition, broken: list[Broken]) -> None:
        """
        End the process at a batch that cannot be read, unless reading may continue after it.

        A batch that decompresses without end is the fault of its producer, and stops nobody.
        """
        for batch in broken:
            if batch.end < 0 or (
                batch.reason != "too_large" and self.hub.settings.worker.on_corrupt == "stop"
            ):
                way_out = (
                    "move the group's offset past it"
                    if batch.end < 0
                    else "worker.on_corrupt: skip goes on after it"
                )
                die(
                    BATCH_FAILED,
                    f"{place(tp, batch)}; {way_out}, or mend the log of this partition (from "
                    "another replica, or by deleting its records up to there)",
                )
            log.error("%s; it is moved to dead-letters", place(tp, batch))

    def suspects(self, reading: Reading, records: Records) -> bool:
        """Whether the process has ended too often before these records or shortly after them."""
        return (
            self.hub.settings.worker.on_poison == "skip"
            and len(records.offsets) > 0
            and bool(records.offsets[0] < reading.careful_until)
        )

    async def poison(
        self,
        tp: TopicPartition,
        reading: Reading,
        records: Records,
        take: Callable[[slice], None],
    ) -> dict[int, Reject]:
        """
        Records that would end the process, by their index, each with its dead letter.

        `take` processes some of the records as INGEST would. It runs in forks of the process,
        because a record may end one.
        """

        async def attempt(start: int, end: int) -> None:
            self.hub.alive = (
                time.monotonic()
            )  # each fork takes time; the watchdog of the hub must not end the process
            why = (await apart([lambda: take(slice(start, end))]))[1]
            if why:
                raise EndedError(why)

        poison = {
            i: Reject(i, REASON, f"{TRIES} attempts to decode it crashed the worker: {e}")
            for i, e in await culprits(attempt, 0, len(records.values))
        }
        for i, reject in poison.items():
            log.error(
                "%s/%d@%d is moved to dead-letters: %s",
                tp.topic,
                tp.partition,
                records.offsets[i],
                reject.message,
            )
            reading.failed = {int(records.offsets[i]) + 1: TRIES}
        return poison

    async def write(
        self,
        producer: AIOKafkaProducer,
        tp: TopicPartition,
        kind: str,
        records: Records,
        rejects: list[Reject],
    ) -> None:
        """Write the dead letters of a batch, each with its source position."""
        waiting = []
        for reject in rejects:
            value, offset = records.values[reject.index] or b"", int(records.offsets[reject.index])
            self.refusals.count(kind, reject.reason, value)
            headers = letter_headers(tp, offset, reject.reason, reject.message)
            if len(value) > DEAD_LETTER_BYTES_MAX:
                headers.append(("stream-monitor.truncated", str(len(value)).encode()))
                value = b""
            waiting.append(await self._sent(producer, value, records.keys[reject.index], headers))
        for batch in records.broken:
            self.refusals.count(kind, batch.reason)
            headers = letter_headers(tp, batch.start, batch.reason, place(tp, batch))
            # nothing is known about the batch, not even its length
            headers.append(("stream-monitor.truncated", b"0"))
            waiting.append(await self._sent(producer, b"", None, headers))
        try:
            await asyncio.gather(*waiting)
        except Exception as e:
            die(IN_DOUBT, f"dead letters of {tp} could not be written: {e!r}")

    async def _sent(
        self, producer: AIOKafkaProducer, value: bytes, key: bytes | None, headers: Headers
    ) -> asyncio.Future[RecordMetadata]:
        """
        The future of one dead letter.

        If the buffer is full this waits, because the leader of the partition may be away.
        """
        topic = self.hub.topic("dead-letters")
        return await patiently(
            "a dead letter", lambda: producer.send(topic, value, key=key, headers=headers)
        )
