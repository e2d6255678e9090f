"""
INGEST's shell: the INGEST rule, sends and commits around the pure `Ingest`.

Rule of the file. For a source partition S and a partition T of `observations`:
  1. a tenure (one uninterrupted reading of S) starts at a committed offset and takes S without a hole (the hub checks);
  2. at most one record is unacknowledged on each T; a record never mixes two tenures of S;
  3. any failed, timed-out or cancelled send ends the process;
  4. an offset is committed only when all rows below it, for every T, are acknowledged;
  5. the partition of a row depends on its record alone.
Then every earlier row of S for T is in the log before a later one, whatever owners and zombies interleave, and EVALUATE may drop what it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream_monitor.ingest import Ingest, tick
from stream_monitor.metrics.samples import Sample
from stream_monitor.runtime.connection import client_options
from stream_monitor.runtime.exits import IN_DOUBT, die
from stream_monitor.runtime.fetching import Fetched, Records, split
from stream_monitor.runtime.hub import GO_BACK_WARNING, Hub, quietly
from stream_monitor.verdicts import Reject

log = logging.getLogger("stream_monitor")
FLUSH_ROWS = 4_000
COMMIT_S = 1.0
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
        self.ingest = Ingest(targets, max_record_bytes=hub.settings.worker.max_record_bytes, record_bytes=RECORD_BYTES_MAX)
        self.targets = targets
        self.ids: dict[TopicPartition, str] = {}
        """Topic id with which the tenure of each partition began."""
        self.lost: Counter[TopicPartition] = Counter()
        """Records that retention took before they were read."""
        self.dead: Counter[tuple[str, str]] = Counter()
        self._lock = asyncio.Lock()
        self._read: dict[TopicPartition, int] = {}
        self._acknowledged: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._burying: set[TopicPartition] = set()
        self._ticked = 0.0
        self._stopped = False

    async def start(self) -> None:
        """Start the producer. Idempotent: it keeps order and retries in place; that alone is not enough for rule 3, since a batch can fail for good."""
        self._producer = AIOKafkaProducer(**client_options(self.hub.settings.kafka), enable_idempotence=True, acks="all", compression_type="zstd", max_request_size=4 << 20)
        try:
            await self._producer.start()
        except BaseException:
            await quietly(self._producer.stop())
            raise
        self.hub.spawn(self._pump())
        self.hub.spawn(self._watch_ids())

    def source(self, tp: TopicPartition) -> str:
        """Name of a source partition on every row: a topic that was deleted and made again has another id."""
        return f"{tp.topic}@{self.ids.get(tp, '')}/{tp.partition}"

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        async with self._lock:  # whatever is in flight is acknowledged first
            gone = (set(self._read) - self.hub.source.assigned()) | set(tps)
            for tp in gone:
                for offsets in (self._read, self._acknowledged, self._committed):
                    offsets.pop(tp, None)
            self.ingest.drop({self.source(tp) for tp in gone})
            known = await self.hub.source.topic_ids(sorted(self.topics))
            self.ids = {tp: i for tp, i in self.ids.items() if tp not in gone} | {tp: known.get(tp.topic, "") for tp in tps}
            committed = await self.hub.source.committed(tps)
            bounds = await self.hub.source.bounds(tps)
            found = {}
            for tp in tps:
                at, (first, end) = committed[tp], bounds[tp]
                if at is None:
                    found[tp] = end if self.hub.settings.worker.auto_offset_reset == "latest" else first
                    continue
                offset, metadata = at
                if (metadata and self.ids[tp] and metadata != self.ids[tp]) or offset > end:
                    log.error(GO_BACK_WARNING, self.source(tp), offset, first)
                    offset = first
                if offset < first:
                    log.error("%s: records %d to %d are gone by retention before they were read", self.source(tp), offset, first - 1)
                    self.lost[tp] += first - offset
                    offset = first
                found[tp] = offset
            self._read.update(found)
            return found

    def position(self, tp: TopicPartition) -> int:
        return self._read.get(tp, -1)

    async def next(self, fetched: Fetched) -> None:
        records = split(fetched)
        tp = fetched.tp
        rejects = self.ingest.take(self.source(tp), self.kinds[tp.topic], records.values, records.offsets, records.times_ms)
        self._read[tp] = fetched.end
        if rejects:
            self._burying.add(tp)  # its offsets are not committed before its dead letters are written
            await self._bury(tp, records, rejects)
            self._burying.discard(tp)
        if self.ingest.rows >= FLUSH_ROWS:
            await self._send()
        else:
            await asyncio.sleep(0)

    async def _bury(self, tp: TopicPartition, records: Records, rejects: list[Reject]) -> None:
        """Write the dead letters of a batch, each with its source position."""
        waiting = []
        for reject in rejects:
            value, offset = records.values[reject.index] or b"", int(records.offsets[reject.index])
            self.dead[self.kinds[tp.topic], reject.reason] += 1
            headers = [
                ("__connect.errors.topic", tp.topic.encode()),
                ("__connect.errors.partition", str(tp.partition).encode()),
                ("__connect.errors.offset", str(offset).encode()),
                ("__connect.errors.exception.message", reject.message[:1_000].encode("utf-8", "replace")),
                ("stream-monitor.reason", reject.reason.encode()),
            ]
            if len(value) > DEAD_LETTER_BYTES_MAX:
                headers.append(("stream-monitor.truncated", str(len(value)).encode()))
                value = b""
            waiting.append(await self._producer.send(self.hub.topic("dead-letters"), value, key=records.keys[reject.index], headers=headers))
        try:
            await asyncio.gather(*waiting)
        except Exception as e:
            die(IN_DOUBT, f"dead letters of {tp} could not be written: {e!r}")

    async def _send(self) -> None:
        """The only place that sends to `observations`: the next record of a target only after the one before is acknowledged."""
        async with self._lock:
            if self._stopped or not self.ingest.rows:
                return
            frontier = {tp: offset for tp, offset in self._read.items() if tp not in self._burying}
            records = self.ingest.flush(_now_ms())
            try:
                await asyncio.gather(*(self._send_to(target, values) for target, values in records.items()))
            except BaseException as e:
                die(IN_DOUBT, f"a send of INGEST failed: {e!r}")  # a cancelled send is a doubtful one too
            self._acknowledged.update(frontier)

    async def _send_to(self, target: int, values: list[bytes]) -> None:
        for value in values:
            await self._producer.send_and_wait(self.hub.topic("observations"), value, partition=target)

    async def _tick(self) -> None:
        """A record without rows for every target: log time goes on where nothing flows."""
        async with self._lock:
            if self._stopped:
                return
            record = tick(_now_ms())
            try:
                await asyncio.gather(*(self._send_to(target, [record]) for target in range(self.targets)))
            except BaseException as e:
                die(IN_DOUBT, f"a tick of INGEST failed: {e!r}")

    async def _commit(self) -> None:
        assigned = self.hub.source.assigned()
        if not self.ingest.rows:  # nothing waits: tombstones and rejected records move the offset on too
            self._acknowledged.update({tp: offset for tp, offset in self._read.items() if tp not in self._burying})
        moved = {tp: o for tp, o in self._acknowledged.items() if self._committed.get(tp) != o and tp in assigned}
        if moved:
            with suppress(Exception):  # lost: rows are repeated, no more; the next one says the same again
                await self.hub.source.commit({tp: (o, self.ids.get(tp, "")) for tp, o in moved.items()})
                self._committed.update(moved)

    async def _pump(self) -> None:
        due = 0.0
        while True:
            await asyncio.sleep(self.hub.settings.worker.flush_interval_ms / 1e3)
            await self._send()
            now = time.monotonic()
            if now - self._ticked >= TICK_S and self._read:
                self._ticked = now
                await self._tick()
            if now >= due:
                async with self._lock:
                    await self._commit()
                due = now + COMMIT_S

    async def _watch_ids(self) -> None:
        """A topic that was made anew is a new source; its offsets alone need not tell, since it may have grown past ours."""
        while True:
            await asyncio.sleep(IDS_S)
            with suppress(KafkaError):  # the broker is away; it is asked again
                known = await self.hub.source.topic_ids(sorted(self.topics))
                for tp in [tp for tp in self._read if known.get(tp.topic, "") not in ("", self.ids.get(tp))]:
                    self.hub.reopen(self, tp)

    async def flush(self) -> None:
        await self._send()
        async with self._lock:
            await self._commit()

    async def stop(self) -> None:
        """Close the producer, once what is in flight is acknowledged: a tick that is cancelled is a doubtful send, and no clean end."""
        async with self._lock:
            self._stopped = True
            await quietly(self._producer.stop())

    def samples(self) -> Iterator[Sample]:
        """Counters of this process."""
        for (topic, outcome), n in self.ingest.counts.items():
            yield Sample("stream_monitor_records_total", (topic, outcome), n)
        for (topic, reason), n in self.dead.items():
            yield Sample("stream_monitor_dead_letters_total", (topic, reason), n)
        for tp, n in self.lost.items():
            yield Sample("stream_monitor_lost_records", (tp.topic, str(tp.partition)), n)
        yield Sample("stream_monitor_timestamps_replaced_total", (), self.ingest.ahead)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
