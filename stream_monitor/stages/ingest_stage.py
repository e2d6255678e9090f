"""
INGEST with Kafka around it: the INGEST rule, sends and commits, and the pure `Ingest`.

Rule of the file. For a source partition S and a partition T of `observations`:
  1. a tenure (from opening S to closing it) starts at a committed offset and reads S without a gap
   (the hub checks this);
  2. at most one record is unacknowledged on each T; a record never mixes two tenures of S;
  3. a send that fails, times out or is cancelled ends the process;
  4. an offset is committed only when all rows below it are acknowledged, for every T;
  5. the partition of a row depends on its record alone.

So every earlier row of S for T is in the log before a later one, whatever owners and zombies write
at the same time, and EVALUATE may drop rows that it has seen before.
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

from stream_monitor.errors import StateError
from stream_monitor.ingest import Ingest, outcomes_of, tick
from stream_monitor.kafka.clocks import Clock, now_ms
from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.deliveries import Fetched, Records, split
from stream_monitor.kafka.patience import quietly
from stream_monitor.kafka.topic_changes import PROCEDURE
from stream_monitor.metrics.samples import Sample
from stream_monitor.schema import topics
from stream_monitor.stages import others
from stream_monitor.stages.alignment import aligned
from stream_monitor.stages.commit_metadata import read_note
from stream_monitor.stages.dead_letters import DeadLetters
from stream_monitor.stages.exits import BATCH_FAILED, IN_DOUBT, die
from stream_monitor.stages.hub import Hub, bounds_of
from stream_monitor.stages.reading import Reading
from stream_monitor.stages.source_commits import COMMIT_LIMIT_S, SourceCommits
from stream_monitor.verdicts import Reject

log = logging.getLogger("stream_monitor")
FLUSH_ROWS = 4_000
COMMIT_S = 1.0
TICK_S = 1.0
IDS_S = 5.0
RECORD_BYTES_MAX = 900_000
IN_STEP = ("predictions", "labels")
"""Sources that are read in step (`stages/alignment.py`)."""
LIFECYCLE = "lifecycle"
"""
A source of a few records a week, whose events of experiments count from their place in the log on.
So each of its records follows the older ones of the others, and it is never silent or behind.
"""


class IngestStage:
    """Turns JSON into packed columns, by partition of `observations`; at least once."""

    def __init__(self, hub: Hub, targets: int) -> None:
        self.hub = hub
        self.kinds = {hub.topic(name): name for name in (*IN_STEP, LIFECYCLE)}
        self.topics = frozenset(self.kinds)
        self.in_step = frozenset(hub.topic(name) for name in IN_STEP)
        self.in_place = self.topics - self.in_step
        self.targets = targets
        self.ingest = self._new_ingest()
        self.readings: dict[TopicPartition, Reading] = {}
        self.alignment = aligned(hub.settings)
        self.commits = SourceCommits(
            hub, self.readings, self.alignment, whole=frozenset({hub.topic(LIFECYCLE)})
        )
        self.dead_letters = DeadLetters(hub)
        self.clock = Clock()
        self._lock = asyncio.Lock()
        self._ticked = 0.0
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

        It is idempotent, so it keeps the order and retries in place. That alone does not satisfy
        rule 3, because a batch can fail for good.
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
        # otherwise a record that waits for a leader would fail and end the process, although it
        # can still be written
        self._producer._message_accumulator._batch_ttl = math.inf
        self.hub.spawn(self._pump())
        self.hub.spawn(self._watch_ids())
        self.hub.spawn(others.watch(self.alignment, self.hub, self.in_step))

    def source(self, tp: TopicPartition) -> str:
        """
        Name of a source partition, which every row has. A topic that was deleted and created again
        has another id, and so another name.
        """
        return (
            f"{tp.topic}@{self.readings[tp].topic_id if tp in self.readings else ''}/{tp.partition}"
        )

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        async with self._lock:  # everything in flight is acknowledged first
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
                reading, time_ms = self.commits.resumed(
                    tp, ids.get(tp.topic, ""), committed[tp], bounds[tp]
                )
                self.readings[tp] = reading
                opened[tp] = time_ms, reading.read < bounds[tp][1]
            self.alignment.begin(
                {tp: found for tp, found in opened.items() if tp.topic in self.in_step},
                shared=bool(others.elsewhere(self.hub.source, self.in_step)),
            )
            await self.commits.begin({tp: waits for tp, (_, waits) in opened.items()}, before)
            return {tp: self.readings[tp].read for tp in tps}

    def _observations(self) -> list[TopicPartition]:
        """Partitions of `observations`."""
        topic = self.hub.topic("observations")
        return [
            TopicPartition(topic, p)
            for p in range(self.hub.source.partitions(topic) or self.targets)
        ]  # without metadata nothing is known

    def _demand_same_targets(self, committed: dict[TopicPartition, tuple[int, str] | None]) -> None:
        """
        Check part 5 of the rule: `observations` must have as many partitions as when this worker
        began, and as all workers before it found.
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
        self.dead_letters.admit(tp, records.broken)
        poison: dict[int, Reject] = {}
        if self.dead_letters.suspects(reading, records):
            poison = await self.dead_letters.poison(
                tp, reading, records, lambda part: self._try(tp, records, part)
            )
            if (
                self.position(tp) != fetched.start
                or self.hub.epochs.get(tp, fetched.epoch) != fetched.epoch
                or not self.hub.source.flowing()
            ):
                return None  # the partition was closed or opened again meanwhile
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
                await self.commits.count_failure({tp: records.end})
            raise
        rejects = [poison.get(r.index, r) for r in rejects]
        reading.read = records.end
        for times_ms in self.ingest.newest_ms.pop(self.source(tp), [records.times_ms]):
            self.alignment.take(tp, times_ms)
        if rejects or records.broken:
            reading.burying = True
            await self.dead_letters.write(
                self._producer, tp, self.kinds[tp.topic], records, rejects
            )
            reading.burying = False
        if self.ingest.rows >= FLUSH_ROWS:
            await self._send()
        else:
            await asyncio.sleep(0)
        return records.rest

    def _try(self, tp: TopicPartition, records: Records, part: slice) -> None:
        """
        Process some records, and pack their rows, with an `Ingest` that is discarded afterwards.
        """
        ingest = self._new_ingest()
        ingest.take(
            self.source(tp),
            self.kinds[tp.topic],
            records.values[part],
            records.offsets[part],
            records.times_ms[part],
        )
        ingest.flush(0)

    # ---- sending and committing

    async def _send(self) -> None:
        """
        Send rows; the only place that sends to `observations`. The next record of a partition is
        sent only after the previous one was acknowledged.
        """
        async with self._lock:
            if self._stopped or not self.ingest.rows:
                return
            frontier = self._frontier()
            try:
                records = self.ingest.flush(now_ms())
            except Exception as e:
                log.exception("INGEST: rows")
                await self.commits.count_failure(
                    {tp: r.read for tp, r in self.readings.items() if r.acknowledged != r.read}
                )
                die(BATCH_FAILED, f"INGEST: rows cannot be packed: {e!r}")
            try:
                await asyncio.gather(
                    *(self._send_to(target, values) for target, values in records.items())
                )
            except BaseException as e:
                # a cancelled send is in doubt too
                die(IN_DOUBT, f"INGEST: sending failed: {e!r}")
            for reading, offset in frontier:
                reading.acknowledged = offset

    def _frontier(self) -> list[tuple[Reading, int]]:
        """How far each source was read, for sources whose rows are all on their way."""
        return [(r, r.read) for r in self.readings.values() if not r.burying]

    async def _send_to(self, target: int, values: list[bytes]) -> None:
        for value in values:
            sent_ms = now_ms()
            metadata = await self._producer.send_and_wait(
                self.hub.topic("observations"), value, partition=target
            )
            self.clock.compare(sent_ms, metadata, now_ms())

    async def _tick(self) -> None:
        """
        Send a record without rows to every partition, so that log time advances even if no events
        come.
        """
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
        # if nothing waits, tombstones and rejected records advance the offset too
        if not self.ingest.rows:
            for reading, offset in self._frontier():
                reading.acknowledged = offset
        await self.commits.commit_acknowledged(limit_s)

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
        Watch the ids of the topics. A topic that was created again is a new source; its offsets
        alone do not show it, because they may have grown past the old ones.

        Missing topics are reported.
        """
        names = [self.hub.topic(name) for name in topics()]
        while True:
            await asyncio.sleep(IDS_S)
            with suppress(KafkaError):  # the broker is away; ask again later
                known = await self.hub.source.topic_ids(names)
                missing = [name for name in names if name not in known] if known else []
                if missing != self.hub.missing:
                    if missing:
                        log.error("topics are missing: %s", ", ".join(missing))
                    else:
                        log.info("all topics are back")
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
                if reading.begun:  # this is a clean end of the tenure
                    reading.begun, reading.committed = 0, None
            await self._commit(2 * COMMIT_LIMIT_S)

    async def stop(self) -> None:
        """
        Close the producer after everything in flight is acknowledged. A cancelled tick would be a
        doubtful send, and not a clean end.
        """
        async with self._lock:
            self._stopped = True
            await quietly(self._producer.stop())

    def samples(self) -> Iterator[Sample]:
        """Counters of this process."""
        for topic in self.kinds.values():
            yield from (
                Sample(
                    "stream_monitor_records_total",
                    (topic, outcome),
                    self.ingest.counts[topic, outcome],
                )
                for outcome in outcomes_of(topic)
            )
        yield from (
            sample
            for part in (self.dead_letters.refusals, self.commits.lost, self.alignment, self.clock)
            for sample in part.samples()
        )
        yield Sample("stream_monitor_timestamps_replaced_total", (), self.ingest.ahead)
