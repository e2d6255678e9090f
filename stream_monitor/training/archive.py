"""
Keeps what passes through `observations`: predictions and labels as they came, in files by day.

Rule of the file: rows are on the disk under their name before their offset is committed, and a
start begins at the committed offset. So a process that ends at any moment loses nothing, and what
is written twice is the same. Memory is bounded by `ROWS_MAX` and `BYTES_MAX`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata

from stream_monitor.checks.archive import log_time_of
from stream_monitor.errors import BrokerError, InputError, StateError, StreamMonitorError
from stream_monitor.events.observations import unpack
from stream_monitor.kafka import topics
from stream_monitor.kafka.clocks import BY_BROKER, now_ms
from stream_monitor.kafka.committed_offsets import committed_offsets
from stream_monitor.kafka.connection import client_options, connecting, why_not
from stream_monitor.kafka.patience import quietly
from stream_monitor.settings import Settings
from stream_monitor.training.columns import Place, parts, together
from stream_monitor.training.folder import Folder, Hole, Reached, day_of
from stream_monitor.training.merging import merge

log = logging.getLogger("stream_monitor")
ROWS_MAX, BYTES_MAX = 200_000, 128 << 20
"""Rows and bytes that wait before they are written."""
POLL_MS = 200
TIDY_S = 3_600
SESSION_MS = 6_000
"""After so long a killed archiver is taken for dead, ms."""
EXTRA = "the archive needs the extra `lifecycle`: pip install 'model-stream-monitor[lifecycle]'"


@dataclass(eq=False)
class Tenure:
    """One partition of `observations` while it is ours."""

    position: int
    """Offset of the next record."""
    end: int
    """End of the log when the tenure began."""
    time_ms: int | None
    """Log time of the newest record that was read."""
    kept: int
    """Offset up to which everything is on the disk and committed."""
    kept_ms: int | None
    """Log time of the newest record before it; of the first one if nothing is kept yet."""
    hole: Hole | None = None
    waiting: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    """By kind, model and day: tables that are not written yet."""


@dataclass
class Written:
    """What was done so far."""

    rows: int = 0
    files: int = 0
    holes: int = 0
    unreadable: int = 0
    """Records of another format, which are passed over."""
    last_file_ms: int | None = None
    """Wall clock when a file was last written."""


class Archiver(ConsumerRebalanceListener):
    """
    Reads `observations` as the group `GROUP-archive`, and writes its rows to a folder.

    Parameters
    ----------
    settings : Settings
        With `archive.path`.
    on_flush : callable, optional
        Called with the totals after each time that rows were written.

    Raises
    ------
    InputError
        `archive.path` is not set, cannot be used, or pyarrow is missing.

    Notes
    -----
    docs/performance.md has rows a second and bytes a row.
    """

    def __init__(
        self, settings: Settings, on_flush: Callable[[Written], None] | None = None
    ) -> None:
        if settings.archive.path is None:
            raise InputError(
                "archive.path is not set, so nothing is kept; name a folder for the rows "
                "(docs/lifecycle.md says what is in it)"
            )
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise InputError(EXTRA) from None
        self.settings = settings
        self.folder = Folder(Path(settings.archive.path))
        self.topic = settings.kafka.topic_prefix + "observations"
        self.written = Written()
        self._on_flush = on_flush
        self._tenures: dict[TopicPartition, Tenure] = {}
        self._rows = self._bytes = 0
        self._joined = self._ending = False

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> Written:
        """
        Archive until `stop` is set, or with `once` until all is read that was there at the start.

        Raises
        ------
        BrokerError
            The broker cannot be reached at the start, or refuses; with `once` also if there is no
            topic `observations`.
        StreamMonitorError
            The folder cannot be written.
        """
        await asyncio.to_thread(self.folder.make)
        await self._find_topic(stop, once=once)
        if stop.is_set():
            return self.written
        consumer = self._consumer = AIOKafkaConsumer(
            **client_options(self.settings.kafka),
            group_id=f"{self.settings.worker.group}-archive",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            group_instance_id=self.settings.worker.instance_id,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 3,
        )
        with connecting(self.settings.kafka):
            await consumer.start()
        tidying: asyncio.Task[None] | None = None
        try:
            consumer.subscribe([self.topic], listener=self)
            flushed = tidied = time.monotonic()
            tidying = asyncio.create_task(asyncio.to_thread(self._tidy))
            while not stop.is_set() and not (once and self._is_caught_up()):
                now = time.monotonic()
                if tidying.done() and now - tidied >= TIDY_S:
                    tidying, tidied = asyncio.create_task(asyncio.to_thread(self._tidy)), now
                await self._read()
                full = self._rows >= ROWS_MAX or self._bytes >= BYTES_MAX
                if full or now - flushed >= self.settings.archive.flush_interval_ms / 1e3:
                    await self._flush()
                    flushed = time.monotonic()
            await self._flush()
        except KafkaError as e:
            raise BrokerError(f"{self.topic} cannot be archived: {why_not(e)}") from None
        except OSError as e:
            raise StreamMonitorError(
                f"archive.path: {self.folder.path} cannot be written: {e.strerror or e}"
            ) from None
        finally:
            self._ending = True
            await quietly(consumer.stop())
            if tidying is not None:
                await tidying
        return self.written

    async def _find_topic(self, stop: asyncio.Event, *, once: bool) -> None:
        """Wait for the topic; subscribing to one that is not there might create it."""
        while not stop.is_set():
            async with topics.admin(self.settings) as client:
                if self.topic in await client.list_topics():
                    return
            if once:
                raise BrokerError(f"the topic {self.topic} does not exist; a worker creates it")
            log.warning("waiting for the topic %s, which a worker creates", self.topic)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), topics.WAIT_S)

    # ---- what a scrape asks

    @property
    def is_reading(self) -> bool:
        """Whether it is a member of its group and has begun."""
        return self._joined and not self._ending

    def behind(self) -> Iterator[tuple[int, int | None]]:
        """
        Of each partition that is ours: records that are not kept yet, and since when the first of
        them waits, by log time in ms; None: all is kept, or nothing of it was read.
        """
        assigned = self._consumer.assignment() if self._tenures else ()
        for tp, tenure in self._tenures.items():
            newest = self._consumer.highwater(tp) if tp in assigned else None
            records = max(max(newest or 0, tenure.end) - tenure.kept, 0)
            yield records, tenure.kept_ms if records else None

    # ---- partitions come and go

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin where the group is."""
        await self._open(assigned)
        self._joined = True

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Forget what is not written; whoever gets the partitions reads it again."""
        self._forget(revoked)

    async def _open(self, tps: Collection[TopicPartition]) -> None:
        if not tps:
            return
        self._forget(tps)
        committed = await committed_offsets(self._consumer._coordinator, tps)
        begins = await self._consumer.beginning_offsets(list(tps))
        ends = await self._consumer.end_offsets(list(tps))
        for tp in tps:
            offset, note = committed[tp] or (0, "")
            time_ms = log_time_of(note)
            tenure = Tenure(offset, ends[tp], time_ms, offset, time_ms)
            if not begins[tp] <= offset <= ends[tp]:
                tenure.position = tenure.kept = begins[tp]
                if offset < begins[tp]:
                    tenure.hole = Hole(
                        self.topic, tp.partition, offset, begins[tp], time_ms, found_ms=now_ms()
                    )
                    await self._tell(tenure.hole, known=committed[tp] is not None)
                else:
                    log.warning(
                        "%s/%d ends at %d, before the committed offset %d: the topic is another "
                        "one, and is archived from its beginning",
                        *tp,
                        ends[tp],
                        offset,
                    )
            self._tenures[tp] = tenure
            self._consumer.seek(tp, tenure.position)
            log.info("%s/%d is archived from offset %d on", *tp, tenure.position)

    async def _tell(self, hole: Hole, *, known: bool) -> None:
        self.written.holes += 1
        log.log(
            logging.ERROR if known else logging.WARNING,
            "%s/%d: offsets %d to %d are gone from Kafka and not in the archive%s",
            hole.topic,
            hole.partition,
            hole.first,
            hole.end - 1,
            "; run the archive for longer than observations are kept" if known else "",
        )
        await asyncio.to_thread(self.folder.note, hole)

    def _forget(self, tps: Collection[TopicPartition]) -> None:
        for tp in tps:
            self._tenures.pop(tp, None)
        self._count()

    def _count(self) -> None:
        tables = [
            t for tenure in self._tenures.values() for ts in tenure.waiting.values() for t in ts
        ]
        self._rows, self._bytes = sum(map(len, tables)), sum(t.nbytes for t in tables)

    def _is_caught_up(self) -> bool:
        return self._joined and all(t.position >= t.end for t in self._tenures.values())

    # ---- reading

    async def _read(self) -> None:
        try:
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as e:
            gone = e.args[0] if isinstance(e.args[0], dict) else {e.args[0]: 0}
            await self._open([tp for tp in gone if tp in self._tenures])
            return
        for tp, records in fetched.items():
            tenure = self._tenures.get(tp)
            for record in records:
                if tenure is None or record.offset < tenure.position:
                    continue
                if record.value is not None:
                    await self._take(tp, tenure, record)
                tenure.position = record.offset + 1
            await asyncio.sleep(0)
        for tp, tenure in list(self._tenures.items()):
            if tp in self._consumer.assignment() and tp not in fetched:
                # over markers of transactions, which are no records
                tenure.position = max(tenure.position, await self._consumer.position(tp))

    async def _take(self, tp: TopicPartition, tenure: Tenure, record: Any) -> None:
        try:
            observations = unpack(record.value)
        except (StateError, msgspec.MsgspecError, ValueError) as e:
            self.written.unreadable += 1
            log.warning("%s/%d@%d is passed over: %s", *tp, record.offset, e)
            first, after_ms = record.offset, tenure.time_ms
            lost = self.topic, tp.partition, first, first + 1
            hole = Hole(*lost, after_ms, record.timestamp, now_ms())
            await asyncio.to_thread(self.folder.note, hole)
            return
        by_broker = record.timestamp_type == BY_BROKER
        time_ms = record.timestamp if by_broker else observations.head.flushed_ms
        tenure.time_ms = time_ms
        if tenure.kept_ms is None:
            tenure.kept_ms = time_ms
        if tenure.hole is not None:
            hole, tenure.hole = tenure.hole, None
            await asyncio.to_thread(
                self.folder.note, msgspec.structs.replace(hole, before_ms=time_ms)
            )
        place = Place(tp.partition, record.offset, time_ms)
        for part in parts(observations, place, drop=self.settings.archive.drop):
            key = part.kind, part.model, day_of(time_ms)
            tenure.waiting.setdefault(key, []).append(part.table)
            self._rows += len(part.table)
            self._bytes += part.table.nbytes

    # ---- writing

    async def _flush(self) -> None:
        """Write what waits, then commit; both only of partitions that are still ours."""
        for tp, tenure in list(self._tenures.items()):
            waiting, end, time_ms = tenure.waiting, tenure.position, tenure.time_ms
            await asyncio.to_thread(self._write, tp.partition, waiting, end)
            if self._tenures.get(tp) is not tenure or time_ms is None:
                continue
            try:
                note = json.dumps({"time_ms": time_ms})
                await self._consumer.commit({tp: OffsetAndMetadata(end, note)})
            except (CommitFailedError, IllegalStateError) as e:
                log.warning("%s/%d is another archiver's now: %s", *tp, type(e).__name__)
                continue
            tenure.waiting, tenure.kept, tenure.kept_ms = {}, end, time_ms
            await asyncio.to_thread(self.folder.reach, Reached(tp.partition, end, time_ms))
        self._count()
        if self._on_flush is not None:
            self._on_flush(self.written)

    def _tidy(self) -> None:
        try:
            self.folder.sweep(self.settings.archive.keep_ms, now_ms())
            merge(self.folder, now_ms(), lambda: self._ending)
        except OSError as e:
            log.warning("old days of the archive are not tidied: %s", e)

    def _write(self, partition: int, waiting: dict[Any, list[Any]], end: int) -> None:
        for (kind, model, day), tables in waiting.items():
            rows = self.folder.write(kind, model, day, partition, end, together(tables))
            self.written.rows += rows
            if rows:
                self.written.files += 1
                self.written.last_file_ms = now_ms()
