"""
INGEST's shell: the INGEST rule, sends and commits around the pure `Ingest`.

Rule of the file. For a source partition S and a partition T of `observations`:
  1. a tenure (one uninterrupted reading of S) starts at a committed offset and takes S without a
    hole (the hub checks);
  2. at most one record is unacknowledged on each T; a record never mixes two tenures of S;
  3. any failed, timed-out or cancelled send ends the process;
  4. an offset is committed only when all rows below it, for every T, are acknowledged;
  5. the partition of a row depends on its record alone.
Then every earlier row of S for T is in the log before a later one, whatever owners and zombies
interleave, and EVALUATE may drop what it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from stream_monitor.errors import StateError
from stream_monitor.ingest import OUTCOMES, Ingest, tick
from stream_monitor.kafka.clocks import Clock, now_ms
from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.fetching import Broken, Fetched, Records, split
from stream_monitor.kafka.patience import patiently, quietly
from stream_monitor.kafka.topic_changes import PROCEDURE
from stream_monitor.metrics.samples import Sample
from stream_monitor.schema import topics
from stream_monitor.stages import others
from stream_monitor.stages.alignment import aligned, note_of, noted
from stream_monitor.stages.copies import EndedError, apart, culprits
from stream_monitor.stages.exits import BATCH_FAILED, IN_DOUBT, die
from stream_monitor.stages.hub import GO_BACK_WARNING, Hub, bounds_of
from stream_monitor.stages.notes import read_note
from stream_monitor.stages.poison import (
    MARK_S,
    REASON,
    TRIES,
    Headers,
    letter_headers,
    parted,
    place,
    suspicion,
    with_failures,
)
from stream_monitor.stages.reading import Reading
from stream_monitor.stages.refusals import Refusals
from stream_monitor.stages.retention import Lost
from stream_monitor.verdicts import Reject

log = logging.getLogger("stream_monitor")
FLUSH_ROWS = 4_000
COMMIT_S = 1.0
COMMIT_LIMIT_S = 3.0
COMMIT_DOUBT_S = 60.0
"""
After a commit that was given up: it may still arrive, behind newer ones, and set the offset back.

So the newest is said again for so long.
"""
TICK_S = 1.0
IDS_S = 5.0
RECORD_BYTES_MAX = 900_000
DEAD_LETTER_BYTES_MAX = 900_000


class IngestStage:
    """JSON to packed columns, per partition of `observations`; at least once."""

    def __init__(self, hub: Hub, targets: int) -> None:
        self.hub = hub
        self.kinds = {hub.topic("predictions"): "predictions", hub.topic("labels"): "labels"}
        self.topics = frozenset(self.kinds)
        self.targets = targets
        self.ingest = self._new_ingest()
        self.readings: dict[TopicPartition, Reading] = {}
        self.alignment = aligned(hub.settings)
        self.lost = Lost(hub.settings.worker, "read", "leaves them out")
        self.refusals = Refusals(hub.settings.core)
        self.clock = Clock()
        self._lock = asyncio.Lock()
        self._partitions: dict[str, int] = {}
        """
        Of each source topic, when this worker first opened one: those that are added later are read
        from their beginning, for senders may see them first.
        """
        self._ticked = self._doubtful_until = 0.0
        self._stopped = False

    def _new_ingest(self) -> Ingest:
        return Ingest(
            self.targets,
            max_record_bytes=self.hub.settings.worker.max_record_bytes,
            record_bytes=RECORD_BYTES_MAX,
        )

    async def start(self) -> None:
        """
        Start the producer.

        Idempotent: it keeps order and retries in place; that alone is not enough for rule 3, since
        a batch can fail for good.
        """
        self._producer = AIOKafkaProducer(
            **client_options(self.hub.settings.kafka),
            enable_idempotence=True,
            acks="all",
            compression_type="zstd",
            max_request_size=4 << 20,
        )
        try:
            await self._producer.start()
        except BaseException:
            await quietly(self._producer.stop())
            raise
        # else what waits for a leader would fail, and end the process, although it can still be
        # written
        self._producer._message_accumulator._batch_ttl = math.inf
        self.hub.spawn(self._pump())
        self.hub.spawn(self._watch_ids())
        self.hub.spawn(others.watch(self.alignment, self.hub, self.topics))

    def source(self, tp: TopicPartition) -> str:
        """
        Name of a source partition on every row: a topic that was deleted and made again has another
        id.
        """
        return (
            f"{tp.topic}@{self.readings[tp].topic_id if tp in self.readings else ''}/{tp.partition}"
        )

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        async with self._lock:  # whatever is in flight is acknowledged first
            gone = (set(self.readings) - self.hub.source.assigned()) | set(tps)
            self.ingest.drop({self.source(tp) for tp in gone})
            self.alignment.end(gone)
            before = {tp: self.readings.pop(tp) for tp in gone & self.readings.keys()}
            ids = await self.hub.source.topic_ids(sorted(self.topics))
            observations = self._observations()
            committed = await self.hub.source.committed([*tps, *observations])
            self._demand_same_targets({tp: committed[tp] for tp in observations})
            bounds = await bounds_of(
                self.hub.source, {tp: (committed[tp] or (0,))[0] for tp in tps}
            )
            opened: dict[TopicPartition, tuple[int | None, bool]] = {}
            for tp in tps:
                reading, time_ms = self._resumed(
                    tp, ids.get(tp.topic, ""), committed[tp], bounds[tp]
                )
                self.readings[tp] = reading
                opened[tp] = time_ms, reading.read < bounds[tp][1]
            self.alignment.begin(
                opened, shared=bool(others.elsewhere(self.hub.source, self.topics))
            )
            await self._begin({tp: waits for tp, (_, waits) in opened.items()}, before)
            return {tp: self.readings[tp].read for tp in tps}

    def _resumed(
        self,
        tp: TopicPartition,
        topic_id: str,
        committed: tuple[int, str] | None,
        bounds: tuple[int, int],
    ) -> tuple[Reading, int | None]:
        """
        A new tenure from what is committed on, and the event time where the one before was, if it
        is known.
        """
        first, end = bounds
        if committed is None:
            latest = self.hub.settings.worker.auto_offset_reset == "latest"
            added = tp.partition >= self._partitions.setdefault(
                tp.topic, self.hub.source.partitions(tp.topic)
            )
            at = end if latest and not added else first
            return Reading(topic_id, at, at), None
        offset, (note, failed, begun) = committed[0], parted(committed[1])
        before_id, time_ms = note_of(note)
        anew = bool(before_id and topic_id and topic_id != before_id)
        if anew or offset > end:
            log.error(GO_BACK_WARNING, f"{tp.topic}@{topic_id}/{tp.partition}", offset, first)
            offset, failed, begun, time_ms = 0 if anew else first, {}, 0, None
        if offset < first:
            self.lost.count(tp, offset, first)
            offset = first
        return Reading(topic_id, offset, offset, failed=failed, begun=begun), time_ms

    async def _begin(
        self, waiting: dict[TopicPartition, bool], before: dict[TopicPartition, Reading]
    ) -> None:
        """
        Say that tenures begin where something waits, for whoever reads on if they end without a
        word; where others did, it is tried apart.
        """
        marked = {}
        for tp, waits in waiting.items():
            reading = self.readings[tp]
            if not waits:
                reading.begun = 0
                continue
            again = (
                tp in before and before[tp].begun == reading.begun > 0
            )  # only opened again: it is counted already
            known = reading.begun - again
            reading.begun = known + 1
            if known >= TRIES:
                reading.failed.setdefault(reading.opened, TRIES)
                log.error(suspicion(tp, reading.opened, known, self.hub.settings.worker.on_poison))
            marked[tp] = reading.opened, self._metadata(tp, reading, reading.opened)
        if marked:
            await self._say(marked, MARK_S)  # or it is not counted

    def _observations(self) -> list[TopicPartition]:
        """The partitions that rows go to."""
        topic = self.hub.topic("observations")
        return [
            TopicPartition(topic, p)
            for p in range(self.hub.source.partitions(topic) or self.targets)
        ]  # while there is no metadata nothing is known

    def _demand_same_targets(self, committed: dict[TopicPartition, tuple[int, str] | None]) -> None:
        """
        Part 5 of the rule: as many partitions of `observations` as when this worker began, and as
        all workers before it found.
        """
        topic, prefix, partitions = (
            self.hub.topic("observations"),
            self.hub.settings.kafka.topic_prefix,
            len(committed),
        )
        placed_by = {self.targets} | {
            read_note(tp, at[1])[0].partitions for tp, at in committed.items() if at
        }
        if wrong := placed_by - {0, partitions}:
            raise StateError(
                f"{topic} has {partitions} partitions, but its rows were partitioned for "
                f"{' and '.join(map(str, sorted(wrong)))}: rows of one model would end up in "
                f"two places; {PROCEDURE.format(prefix=prefix)}"
            )

    def position(self, tp: TopicPartition) -> int:
        return self.readings[tp].read if tp in self.readings else -1

    async def next(self, fetched: Fetched) -> Fetched | None:
        records = split(fetched)
        tp, reading = fetched.tp, self.readings[fetched.tp]
        self._admit(tp, records.broken)
        poison: dict[int, Reject] = {}
        if self._is_suspicious(reading, records):
            poison = await self._poison(tp, reading, records)
            if (
                self.position(tp) != fetched.start
                or self.hub.epochs.get(tp, fetched.epoch) != fetched.epoch
                or not self.hub.source.flowing()
            ):
                return None  # closed or opened again meanwhile
        try:
            values = (
                [b"" if i in poison else v for i, v in enumerate(records.values)]
                if poison
                else records.values
            )
            rejects = self.ingest.take(
                self.source(tp), self.kinds[tp.topic], values, records.offsets, records.times_ms
            )
        except Exception:
            async with self._lock:
                await self._count_failure({tp: records.end})
            raise
        rejects = [poison.get(r.index, r) for r in rejects]
        reading.read = records.end
        for times_ms in self.ingest.newest_ms.pop(self.source(tp), [records.times_ms]):
            self.alignment.take(tp, times_ms)
        if rejects or records.broken:
            reading.burying = True
            await self._bury(tp, records, rejects)
            reading.burying = False
        if self.ingest.rows >= FLUSH_ROWS:
            await self._send()
        else:
            await asyncio.sleep(0)
        return records.rest

    # ---- what cannot be taken

    def _admit(self, tp: TopicPartition, broken: list[Broken]) -> None:
        """
        Whether the reading may go on after batches that cannot be read.

        One that inflates without end is its producer's doing and stops nobody.
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

    def _is_suspicious(self, reading: Reading, records: Records) -> bool:
        """Whether the process has ended too often before or shortly behind these."""
        return (
            self.hub.settings.worker.on_poison == "skip"
            and len(records.offsets) > 0
            and bool(records.offsets[0] < reading.careful_until)
        )

    async def _poison(
        self, tp: TopicPartition, reading: Reading, records: Records
    ) -> dict[int, Reject]:
        """
        Records that would end the process, each with its dead letter: looked for where it has ended
        too often, on an `Ingest` that is thrown away.
        """

        def take(start: int, end: int) -> None:
            ingest, part = self._new_ingest(), slice(start, end)
            ingest.take(
                self.source(tp),
                self.kinds[tp.topic],
                records.values[part],
                records.offsets[part],
                records.times_ms[part],
            )
            ingest.flush(0)

        async def attempt(start: int, end: int) -> None:
            self.hub.alive = time.monotonic()
            why = (await apart([lambda: take(start, end)]))[1]
            if why:
                raise EndedError(why)

        found = {
            i: Reject(i, REASON, f"{TRIES} attempts to decode it crashed the worker: {e}")
            for i, e in await culprits(attempt, 0, len(records.values))
        }
        for i, reject in found.items():
            log.error(
                "%s/%d@%d is moved to dead-letters: %s",
                tp.topic,
                tp.partition,
                records.offsets[i],
                reject.message,
            )
            reading.failed = {int(records.offsets[i]) + 1: TRIES}
        return found

    async def _count_failure(self, ends: dict[TopicPartition, int]) -> None:
        """
        Before the process ends: one more try of what lies before these ends and is not committed,
        for whoever reads it next.

        The lock is held.
        """
        counted = {}
        stop = self.hub.settings.worker.on_poison == "stop"
        then = (
            "worker.on_poison: skip moves the record to dead-letters"
            if stop
            else f"after {TRIES} attempts the record is moved to dead-letters"
        )
        for tp, end in ends.items():
            if (reading := self.readings.get(tp)) is None:  # it is somebody else's by now
                continue
            at, tries = reading.count_failure(end)
            counted[tp] = at, self._metadata(tp, reading, at)
            log.error(
                "%s/%d: a record between offsets %d and %d crashes the worker (attempt %d); %s",
                tp.topic,
                tp.partition,
                at,
                end - 1,
                tries,
                then,
            )
        await self._say(counted, COMMIT_LIMIT_S)  # or it is not counted

    async def _bury(self, tp: TopicPartition, records: Records, rejects: list[Reject]) -> None:
        """Write the dead letters of a batch, each with its source position."""
        waiting = []
        topic = self.hub.topic("dead-letters")
        for reject in rejects:
            value, offset = records.values[reject.index] or b"", int(records.offsets[reject.index])
            self.refusals.count(self.kinds[tp.topic], reject.reason, value)
            headers = letter_headers(tp, offset, reject.reason, reject.message)
            if len(value) > DEAD_LETTER_BYTES_MAX:
                headers.append(("stream-monitor.truncated", str(len(value)).encode()))
                value = b""
            waiting.append(await self._letter(topic, value, records.keys[reject.index], headers))
        for batch in records.broken:
            self.refusals.count(self.kinds[tp.topic], batch.reason)
            headers = letter_headers(tp, batch.start, batch.reason, place(tp, batch))
            headers.append(
                ("stream-monitor.truncated", b"0")
            )  # of the whole batch nothing is known
            waiting.append(await self._letter(topic, b"", None, headers))
        try:
            await asyncio.gather(*waiting)
        except Exception as e:
            die(IN_DOUBT, f"dead letters of {tp} could not be written: {e!r}")

    async def _letter(
        self, topic: str, value: bytes, key: bytes | None, headers: Headers
    ) -> asyncio.Future[RecordMetadata]:
        """A dead letter on its way. A full buffer is waited for: its leader may be away."""
        return await patiently(
            "a dead letter", lambda: self._producer.send(topic, value, key=key, headers=headers)
        )

    # ---- sending and committing

    async def _send(self) -> None:
        """
        The only place that sends to `observations`: the next record of a target only after the one
        before is acknowledged.
        """
        async with self._lock:
            if self._stopped or not self.ingest.rows:
                return
            frontier = self._frontier()
            try:
                records = self.ingest.flush(now_ms())
            except Exception as e:
                log.exception("INGEST: rows")
                await self._count_failure(
                    {tp: r.read for tp, r in self.readings.items() if r.acknowledged != r.read}
                )
                die(BATCH_FAILED, f"INGEST: rows cannot be packed: {e!r}")
            try:
                await asyncio.gather(
                    *(self._send_to(target, values) for target, values in records.items())
                )
            except BaseException as e:
                die(
                    IN_DOUBT, f"INGEST: sending failed: {e!r}"
                )  # a cancelled send is a doubtful one too
            for reading, offset in frontier:
                reading.acknowledged = offset

    def _frontier(self) -> list[tuple[Reading, int]]:
        """How far each source was taken, where all of it is on its way."""
        return [(r, r.read) for r in self.readings.values() if not r.burying]

    async def _send_to(self, target: int, values: list[bytes]) -> None:
        for value in values:
            sent_ms = now_ms()
            metadata = await self._producer.send_and_wait(
                self.hub.topic("observations"), value, partition=target
            )
            self.clock.compare(sent_ms, metadata, now_ms())

    async def _tick(self) -> None:
        """A record without rows for every target: log time goes on where nothing flows."""
        async with self._lock:
            if self._stopped:
                return
            record = tick(now_ms())
            try:
                await asyncio.gather(
                    *(self._send_to(target, [record]) for target in range(self.targets))
                )
            except BaseException as e:
                die(IN_DOUBT, f"INGEST: writing a tick failed: {e!r}")

    async def _commit(self, limit_s: float = COMMIT_LIMIT_S) -> None:
        assigned = self.hub.source.assigned()
        if (
            not self.ingest.rows
        ):  # nothing waits: tombstones and rejected records move the offset on too
            for reading, offset in self._frontier():
                reading.acknowledged = offset
        again = time.monotonic() < self._doubtful_until
        moved = {
            tp: (r, r.acknowledged)
            for tp, r in self.readings.items()
            if r.acknowledged is not None
            and tp in assigned
            and (again or r.committed != r.acknowledged)
        }
        said = {tp: (at, self._metadata(tp, r, at)) for tp, (r, at) in moved.items()}
        if said and await self._say(said, limit_s):
            for reading, at in moved.values():
                reading.committed = at

    async def _say(self, offsets: dict[TopicPartition, tuple[int, str]], limit_s: float) -> bool:
        """
        Commit these, or give up: lost, or the coordinator is away.

        Rows are repeated then, no more; the next one says the same again.
        """
        try:
            async with asyncio.timeout(
                limit_s
            ):  # aiokafka tries without end, and nothing is sent meanwhile
                await self.hub.source.commit(offsets)
        except Exception as e:
            log.debug("gave up on a commit: %r", e)
            self._doubtful_until = time.monotonic() + COMMIT_DOUBT_S
            return False
        return True

    def _metadata(self, tp: TopicPartition, reading: Reading, at: int) -> str:
        """Of a commit at this offset."""
        note = noted(reading.topic_id, self.alignment.time_of(tp))
        return with_failures(note, reading.failures(at), reading.begun_at(at))

    async def _pump(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(self.hub.settings.worker.flush_interval_ms / 1e3)
            await self._send()
            now = time.monotonic()
            if now - self._ticked >= TICK_S and self.readings:
                self._ticked = now
                await self._tick()
            if now >= due:
                async with self._lock:
                    await self._commit()
                due = now + COMMIT_S

    async def _watch_ids(self) -> None:
        """
        A topic that was made anew is a new source; its offsets alone need not tell, since it may
        have grown past ours.

        Topics that are gone are told.
        """
        names = [self.hub.topic(name) for name in topics()]
        while True:
            await asyncio.sleep(IDS_S)
            with suppress(KafkaError):  # the broker is away; it is asked again
                known = await self.hub.source.topic_ids(names)
                missing = [name for name in names if name not in known] if known else []
                if missing != self.hub.missing:
                    log.error("topics are missing: %s", ", ".join(missing) or "none any more")
                    self.hub.missing = missing
                for tp in [
                    tp
                    for tp, r in self.readings.items()
                    if known.get(tp.topic, "") not in ("", r.topic_id)
                ]:
                    self.hub.reopen(self, tp)

    async def flush(self) -> None:
        await self._send()
        async with self._lock:
            for reading in self.readings.values():
                if reading.begun:  # a tenure that ends here has ended with a word
                    reading.begun, reading.committed = 0, None
            await self._commit(2 * COMMIT_LIMIT_S)

    async def stop(self) -> None:
        """
        Close the producer, once what is in flight is acknowledged: a tick that is cancelled is a
        doubtful send, and no clean end.
        """
        async with self._lock:
            self._stopped = True
            await quietly(self._producer.stop())

    def samples(self) -> Iterator[Sample]:
        """Counters of this process."""
        for topic in ("predictions", "labels"):
            yield from (
                Sample(
                    "stream_monitor_records_total",
                    (topic, outcome),
                    self.ingest.counts[topic, outcome],
                )
                for outcome in OUTCOMES
            )
        yield from (
            sample
            for part in (self.refusals, self.lost, self.alignment, self.clock)
            for sample in part.samples()
        )
        yield Sample("stream_monitor_timestamps_replaced_total", (), self.ingest.ahead)
