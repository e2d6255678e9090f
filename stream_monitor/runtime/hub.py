"""
Between a driver and the stages: epochs, the order of opening, progress.

Rule of the file (the safety law): a batch is applied only if it is of the current epoch and starts where the last one ended; else its partition is opened again.
The seam is four calls (`open next position flush`): a stage knows nothing of Faust, and a driver nothing of statistics.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_monitor.runtime.connection import client_options
from stream_monitor.runtime.exits import BATCH_FAILED, NO_PROGRESS, NOT_OPENED, die
from stream_monitor.runtime.fetching import Fetched
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
OPEN_LIMIT_S = 60
FLUSH_LIMIT_S = 20
STOP_LIMIT_S = 5
GO_BACK_WARNING = "%s goes back from %d to %d: the topic was made anew, or its log was cut"


class Stage(Protocol):
    """INGEST or EVALUATE, as a driver sees it."""

    topics: frozenset[str]
    """Physical names of the topics it reads."""

    async def start(self) -> None:
        """Once, before anything is opened."""

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Fence and restore; the offset to read each partition from. May be cancelled, may be called again."""

    async def next(self, fetched: Fetched) -> None:
        """Take a batch before the first await, then perhaps wait (back-pressure)."""

    def position(self, tp: TopicPartition) -> int:
        """The end of what was taken; -1: not usable, open it again."""

    async def flush(self) -> None:
        """Before partitions go: what was taken becomes durable, or is forgotten."""


class Source(Protocol):
    """The driver, as the stages see it."""

    async def committed(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, str] | None]: ...
    async def bounds(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]: ...
    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None: ...
    async def seek(self, positions: Mapping[TopicPartition, int]) -> None: ...
    def lag(self, tp: TopicPartition, position: int) -> int | None: ...
    def assigned(self) -> set[TopicPartition]: ...
    def flowing(self) -> bool: ...


class Hub:
    """What every driver does, once for the whole worker."""

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
        self._stopping = False

    def topic(self, name: str) -> str:
        """Physical name of a topic."""
        return self.settings.kafka.topic_prefix + name

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A background task; if it fails, the process ends."""

        async def guarded() -> None:
            try:
                await work
            except Exception as e:
                log.exception("background task")
                die(NOT_OPENED, f"a background task failed: {e!r}")

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self, source: Source) -> None:
        """Start the stages, once the driver is there."""
        self.source = source
        for stage in self.stages:
            await stage.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while not self._stopping:
            time.sleep(1)
            if time.monotonic() - self.alive > OPEN_LIMIT_S + 30:
                die(NO_PROGRESS, f"no progress for {OPEN_LIMIT_S + 30} s")  # a driver can stop for good without a word

    async def open(self, tps: Collection[TopicPartition]) -> None:
        """All partitions of a new assignment, with the flow off: fence, restore, seek."""
        wanted = {TopicPartition(*tp) for tp in tps}
        try:
            async with asyncio.timeout(OPEN_LIMIT_S), self._lock:
                positions: dict[TopicPartition, int] = {}
                for stage in self.stages:
                    positions |= await stage.open({tp for tp in wanted if tp.topic in stage.topics})
                await self.source.seek(positions)  # at the very end: what is fetched between here and the flow's start is a hole
        except Exception as e:
            log.debug("open", exc_info=True)
            die(NOT_OPENED, f"cannot open {sorted(wanted)}: {e!r}")
        self.opened = wanted
        log.info("open: %s", ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(wanted)))

    async def reopen(self, stage: Stage, tp: TopicPartition, epoch: int, pause_s: float = 0) -> None:
        """One partition in place, after a hole or a failed transaction."""
        try:
            await asyncio.sleep(pause_s)  # woken from a long stop, the group may have moved on: let a heartbeat tell before fencing the new owner
            async with asyncio.timeout(OPEN_LIMIT_S), self._lock:
                if tp in self.source.assigned() and self.source.flowing() and self.epochs.get(tp) == epoch:
                    log.warning("open again: %s/%d", tp.topic, tp.partition)
                    await self.source.seek(await stage.open({tp}))
        except Exception as e:
            die(NOT_OPENED, f"cannot open {tp} again: {e!r}")

    async def deliver(self, stage: Stage, fetched: Fetched) -> None:
        """Apply a batch, if it is the next one."""
        self.alive = time.monotonic()
        if not self.source.flowing() or fetched.epoch != self.epochs.get(fetched.tp):
            return
        position = stage.position(fetched.tp)
        if fetched.start != position:
            await self.reopen(stage, fetched.tp, fetched.epoch)
            return
        try:
            await stage.next(fetched)
        except Exception as e:
            log.exception("a batch of %s", fetched.tp)
            die(BATCH_FAILED, f"a batch of {fetched.tp} failed: {e!r}")  # half applied; Faust would log it and go on with the next

    async def flush(self) -> None:
        """What every stage has becomes durable."""
        self.opened = set()
        try:
            async with asyncio.timeout(FLUSH_LIMIT_S):
                for stage in self.stages:
                    await stage.flush()
        except Exception as e:
            die(NOT_OPENED, f"cannot flush: {e!r}")

    def stop(self) -> None:
        """Nothing watches any more."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer without a group, for restoring."""
        consumer = AIOKafkaConsumer(
            **client_options(self.settings.kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
            auto_offset_reset="none",
            max_partition_fetch_bytes=4 << 20,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await quietly(consumer.stop())


async def quietly(stopping: Awaitable[Any]) -> None:
    """Stop a client within a limit; its complaints say nothing (one without a group may raise CancelledError)."""
    with suppress(Exception, asyncio.CancelledError):
        await asyncio.wait_for(stopping, STOP_LIMIT_S)
