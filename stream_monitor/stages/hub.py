"""
Between a driver and the stages: epochs, the order of opening, progress.

Rule of the file (the safety law): a batch is applied only if it has the current epoch and starts
where the last one ended; otherwise its partition is opened again. A driver calls a stage with
`start open next position flush` (`Stage`). A stage sees the consumer through `Source`, and writes
with producers of its own. A stage knows nothing of Faust, and a driver knows nothing of statistics.
Why this makes results exactly-once is at the head of the package (`__init__.py`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.kafka import patience
from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.kafka.fetching import Reader
from stream_monitor.kafka.patience import STOP_LIMIT_S, is_away, patiently, quietly
from stream_monitor.settings import Settings
from stream_monitor.stages.exits import BATCH_FAILED, NO_PROGRESS, NOT_OPENED, die

log = logging.getLogger("stream_monitor")
T = TypeVar("T")
OPEN_LIMIT_S = 60
FLUSH_LIMIT_S = 20
RETRY_S_MAX = 15.0
HOLES_S = 5.0
"""Time between two checks for batches that were lost between fetching and a stage, s."""
STALE_TRIES = 3
GO_BACK_WARNING = "%s goes back from %d to %d: the topic was recreated, or its log was truncated"


class Stage(Protocol):
    """INGEST or EVALUATE, as a driver sees it."""

    topics: frozenset[str]
    """Names of the topics that the stage reads, with their prefix."""

    async def start(self) -> None:
        """Start the stage; called once, before anything is opened."""

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """
        Fence and restore partitions. Returns the offset to read each of them from.

        The call may be cancelled, and may be repeated.
        """

    async def next(self, fetched: Fetched) -> Fetched | None:
        """
        Accept a delivery before the first await, then perhaps wait (back-pressure).

        A part that would need too much memory at once is returned as the rest, to be delivered
        next.
        """

    def position(self, tp: TopicPartition) -> int:
        """The end of the records that were accepted; -1 if the partition must be opened again."""

    async def flush(self) -> None:
        """
        Make everything durable that was accepted, or discard it; called before partitions are
        revoked.
        """


class Source(Protocol):
    """The driver, as the stages see it."""

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]: ...
    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]: ...
    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None: ...
    async def seek(self, positions: Mapping[TopicPartition, int]) -> None: ...
    def fetched(self, tp: TopicPartition) -> int | None: ...
    def lag(self, tp: TopicPartition, position: int) -> int | None: ...
    def attended(self) -> bool: ...
    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]: ...
    def partitions(self, topic: str) -> int: ...
    def assigned(self) -> set[TopicPartition]: ...
    def flowing(self) -> bool: ...


class Hub:
    """The part of the work that does not depend on the driver, once for the whole worker."""

    source: Source

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.group = settings.worker.group
        self.stages: list[Stage] = []
        self.epochs: dict[TopicPartition, int] = {}
        self.alive = time.monotonic()
        self.opened: set[TopicPartition] = set()
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reopening: dict[TopicPartition, asyncio.Task[None]] = {}
        self._delivering: set[Stage] = set()
        self.missing: list[str] = []
        """Topics that existed at the start and are missing now."""
        self.stopping = False

    def topic(self, name: str) -> str:
        """Name of a topic in Kafka, with the prefix."""
        return self.settings.kafka.topic_prefix + name

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a background task; if it fails, the process ends."""

        async def guarded() -> None:
            try:
                await work
            except Exception as e:
                log.exception("background task")
                die(NOT_OPENED, f"background task failed: {e!r}")

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self, source: Source) -> None:
        """Start the stages, after the driver has started."""
        self.source, self.alive = source, time.monotonic()
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                for stage in self.stages:
                    await patiently("starting", stage.start)
        except Exception as e:
            die(NOT_OPENED, f"cannot start: {e!r}")
        self.spawn(self._watch_holes())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while not self.stopping:
            time.sleep(1)
            if time.monotonic() - self.alive > OPEN_LIMIT_S + 30:
                # a driver can stop for good without an error
                die(NO_PROGRESS, f"made no progress for {OPEN_LIMIT_S + 30} s")

    async def _watch_holes(self) -> None:
        """
        Reopen partitions with a lost batch. The next batch shows that one was lost, but perhaps no
        next batch comes. So a partition is reopened if, in two checks, something was fetched that
        reached no stage.
        """
        before: dict[TopicPartition, tuple[int | None, int]] = {}
        while True:
            await asyncio.sleep(HOLES_S)
            found: dict[TopicPartition, tuple[int | None, int]] = {}
            for stage in self.stages if self.source.flowing() else ():
                if stage not in self._delivering:  # otherwise it may wait behind that batch
                    places = {
                        tp: (self.source.fetched(tp), stage.position(tp))
                        for tp in self.opened - self._reopening.keys()
                        if tp.topic in stage.topics
                    }
                    found |= {tp: place for tp, place in places.items() if place[0] != place[1]}
                    for tp in [tp for tp in places if tp in found and found[tp] == before.get(tp)]:
                        self.reopen(stage, tp)
            before = found

    async def open(self, tps: Collection[TopicPartition]) -> None:
        """Open all partitions of a new assignment, with the flow off: fence, restore, seek."""
        wanted = {TopicPartition(*tp) for tp in tps}
        # each step counts as progress for the watchdog: on a busy machine, while brokers and
        # workers die, a rebalance may need several
        self.alive = time.monotonic()
        try:
            async with asyncio.timeout(OPEN_LIMIT_S), self._lock:
                await patiently("opening", lambda: self._open(wanted))
        except Exception as e:
            log.debug("open", exc_info=True)
            die(NOT_OPENED, why_not_opened(wanted, e))
        self.opened = wanted
        log.info("open: %s", named(wanted))

    async def _open(self, wanted: set[TopicPartition]) -> None:
        positions: dict[TopicPartition, int] = {}
        for stage in self.stages:
            positions |= await stage.open({tp for tp in wanted if tp.topic in stage.topics})
        # at the very end, because whatever is fetched before the flow starts again is lost
        await self.source.seek(positions)

    def reopen(self, stage: Stage, tp: TopicPartition, pause_s: float = 0) -> None:
        """
        Open one partition again in place, soon, after a gap or a failed transaction. Its deliveries
        are dropped until then.

        A worker that wakes up after a long stop may no longer own the partition. During the pause a
        heartbeat tells it so, before it would fence the new owner. If its heartbeats were not
        answered for a whole session, it waits until they are.
        """
        if tp not in self._reopening:
            task = self._reopening[tp] = self.spawn(
                self._reopen(stage, tp, self.epochs.get(tp, 0), pause_s)
            )
            task.add_done_callback(lambda _: self._reopening.pop(tp, None))

    async def _reopen(self, stage: Stage, tp: TopicPartition, epoch: int, pause_s: float) -> None:
        wait_s = pause_s
        while True:
            await asyncio.sleep(wait_s)
            if not self.source.attended():
                wait_s = patience.RETRY_S
                continue
            try:
                async with asyncio.timeout(OPEN_LIMIT_S):
                    # several may run; `flush` ends them before the next assignment is opened
                    if (
                        tp in self.source.assigned()
                        and self.source.flowing()
                        and self.epochs.get(tp) == epoch
                    ):
                        log.warning("reopening %s/%d", tp.topic, tp.partition)
                        await self.source.seek(await stage.open({tp}))
                    return
            except Exception as e:
                if not is_away(e):
                    die(NOT_OPENED, why_not_opened({tp}, e))
                wait_s = min(max(2 * wait_s, patience.RETRY_S), RETRY_S_MAX)
                log.warning(
                    "cannot reopen %s/%d yet, next try in %.0f s: %r",
                    tp.topic,
                    tp.partition,
                    wait_s,
                    e,
                )

    async def deliver(self, stage: Stage, fetched: Fetched) -> None:
        """Apply a batch, if it is the next one, and then its rest by the same law."""
        rest: Fetched | None = fetched
        self._delivering.add(stage)
        try:
            while rest is not None:
                self.alive = time.monotonic()
                if (
                    not self.source.flowing()
                    or rest.epoch != self.epochs.get(rest.tp)
                    or rest.tp in self._reopening
                ):
                    return
                if rest.start != stage.position(rest.tp):
                    self.reopen(stage, rest.tp)
                    return
                rest = await stage.next(rest)
        except Exception as e:
            log.exception("processing a batch of %s/%d failed", *fetched.tp)
            await self._flush_others(stage)
            # half applied; Faust would log the error and continue with the next batch
            die(
                BATCH_FAILED,
                f"processing a batch of {fetched.tp.topic}/{fetched.tp.partition} failed: {e!r}",
            )
        finally:
            self._delivering.discard(stage)

    async def _flush_others(self, failed: Stage) -> None:
        """
        Flush the other stages before the process ends. Otherwise INGEST would write the rows that
        end EVALUATE again after each restart, and their number would grow.
        """
        with suppress(Exception):
            async with asyncio.timeout(STOP_LIMIT_S):
                for stage in self.stages:
                    if stage is not failed:
                        await stage.flush()

    async def flush(self) -> None:
        """Make everything durable that every stage has."""
        if self.opened:
            log.info("close: %s", named(self.opened))
        self.opened, self.alive = set(), time.monotonic()
        reopening = list(self._reopening.values())
        for task in reopening:
            # the next assignment opens it; after this another worker may own the partition
            task.cancel()
        try:
            async with asyncio.timeout(FLUSH_LIMIT_S):
                await asyncio.gather(*reopening, return_exceptions=True)
                for stage in self.stages:
                    await stage.flush()
        except Exception as e:
            die(NOT_OPENED, f"cannot flush: {e!r}")

    def trouble(self) -> str:
        """Why the worker does not do all of its work now; empty if it does."""
        if not self.opened:
            return "no partition is open yet"
        if not self.source.attended():
            return "the group coordinator does not answer heartbeats"
        if self.missing:
            return f"topics are missing: {', '.join(self.missing)}"
        waiting = sorted(self._reopening.keys() & self.opened)
        return (
            f"being reopened: {', '.join(f'{tp.topic}/{tp.partition}' for tp in waiting)}"
            if waiting
            else ""
        )

    def stop(self) -> None:
        """Stop watching."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Reader]:
        """A consumer without a group, for restoring."""
        consumer = AIOKafkaConsumer(
            **client_options(self.settings.kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 << 20,
        )
        try:
            await consumer.start()
            yield Reader(consumer)
        finally:
            await quietly(consumer.stop())


def why_not_opened(tps: Collection[TopicPartition], error: Exception) -> str:
    """
    The last line of the log after a failed open. Errors of stored state already say where they are.
    """
    return str(error) if isinstance(error, StateError) else f"cannot open {named(tps)}: {error!r}"


def named(tps: Collection[TopicPartition]) -> str:
    """
    Names of partitions for a line of the log.

    >>> named({TopicPartition("labels", 1), TopicPartition("labels", 0)})
    'labels/0, labels/1'
    """
    return ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(tps))


async def bounds_of(
    source: Source, positions: Mapping[TopicPartition, int]
) -> dict[TopicPartition, tuple[int, int]]:
    """
    First offset and end of each partition.

    An end before our position is not believed at once. A broker that was stopped, and lost its
    leadership meanwhile, answers with old values for a moment.
    """
    found = await source.bounds(positions)
    for _ in range(STALE_TRIES):
        if all(at <= found[tp][1] for tp, at in positions.items()):
            break
        await asyncio.sleep(patience.RETRY_S)
        found = await source.bounds(positions)
    return found
