"""
Faust's consumer, changed so that it delivers record batches and leaves offsets alone.

aiokafka's coordinator runs the consumer group: joining, heartbeats, and the assignor that is
configured here. Faust decides the order of things: at a rebalance or at the end it stops the flow,
flushes (`wait_empty`) and opens (`perform_seek`), and between them it runs the agents.

Rule of the file: every override gives its reason. Faust tracks, acknowledges, commits and seeks by
rules that lose or repeat records. With `acks=False` topics and these overrides it only moves
messages. Private methods are pinned by the version of faust-streaming and by
`tests/runtime/test_pins.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from faust.events import Event
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.utils.futures import maybe_async

from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.fetching import Fetching
from stream_monitor.settings import Settings
from stream_monitor.stages.exits import NOT_OPENED, die
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.in_step import AlignedStage, FetchingInStep

log = logging.getLogger("stream_monitor")
SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 1_000


def consumer_options(settings: Settings) -> dict[str, Any]:
    """Options of the group's consumer."""
    return {
        **client_options(settings.kafka),
        "group_id": settings.worker.group,
        "group_instance_id": settings.worker.instance_id,
        "enable_auto_commit": False,
        # otherwise aiokafka silently continues elsewhere if the requested offset is gone
        "auto_offset_reset": "none",
        # after this time new partitions, and a topic that was created again, are seen
        "metadata_max_age_ms": 10_000,
        "isolation_level": "read_committed",
        "fetch_min_bytes": 64 << 10,  # 14 % of a core instead of 56 % at 1,000 events/s
        "fetch_max_wait_ms": 50,
        "max_partition_fetch_bytes": 2 << 20,
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "rebalance_timeout_ms": 30_000,
        "max_poll_interval_ms": 600_000,
        "partition_assignment_strategy": [StickyPartitionAssignor],
    }


class Thread(driver.AIOKafkaConsumerThread):
    """
    Faust's consumer thread without a thread: the consumer runs on the main loop, which saves 1 to
    1.5 µs per row. So `start`, `stop`, `call_thread` and `cast_thread` do here what Faust's own do
    in the thread.
    """

    wait_for_shutdown = False

    def __init__(self, consumer: Any, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:  # noqa: ARG002 - Faust's own reads uncommitted and hard-codes the fetch wait
        consumer = AIOKafkaConsumer(**consumer_options(self.app.hub.settings))
        self.fetching = (
            Fetching(self.app.hub, consumer)
            if self.app.aligned is None
            else FetchingInStep(self.app.hub, consumer, self.app.aligned)
        )
        return self.fetching.consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: Any = None,  # noqa: ARG002
        max_records: Any = None,  # noqa: ARG002
    ) -> Any:
        """
        Fetch records. This is the only place where records, the position after them and the epoch
        can be read together.
        """
        if not self.consumer.flow_active:
            return {}
        if consumer._closed or consumer._fetcher._closed:
            raise driver.ConsumerStoppedError
        return await self.fetching.fetch(active_partitions, 0.2)

    async def start(self) -> None:
        self._thread_started.set()
        await self._default_start()

    async def stop(self) -> None:
        """Stop the consumer. It may take ten seconds to leave the group, if the broker is away."""
        if self._started.is_set() and not self._stopped.is_set():
            self._stopped.set()
            with suppress(Exception):
                await asyncio.wait_for(self._consumer.stop(), 10)
            await self._default_stop_children()
            await self._default_stop_futures()
            await self._default_stop_exit_stacks()
            self._shutdown.set()

    async def call_thread(self, fun: Any, *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    async def cast_thread(self, fun: Any, *args: Any, **kwargs: Any) -> None:
        await maybe_async(fun(*args, **kwargs))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """
        Flush and commit before connections close. In a rebalance while the worker stops, Faust
        closes the connections at once. So everything is flushed and committed first, and the group
        learns that the worker leaves.
        """
        with fatal("cannot release partitions"):
            if self.app.should_stop:
                await self._stopped.wait()
                await self._consumer._coordinator._maybe_leave_group()
            await self.consumer.on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        """End the process if this fails; `fatal` says why."""
        with fatal("cannot take partitions"):
            await self.consumer.on_partitions_assigned(assigned, generation_id)


@contextmanager
def fatal(what: str) -> Iterator[None]:
    """
    End the process if a callback of the group raises. Otherwise aiokafka would log the error and
    continue to consume, without state.
    """
    try:
        yield
    except Exception as e:
        log.exception("rebalance")
        die(NOT_OPENED, f"{what}: {e!r}")


class Forgetful(dict[Any, Any]):
    """
    Replaces Faust's read offsets, which drop messages before them. Here epoch and position decide
    which messages count.
    """

    def __getitem__(self, key: Any) -> None:
        return None

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class Consumer(driver.Consumer):
    """Delivers one message per fetched batch, and opens and closes partitions in our way."""

    started_hub = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = Forgetful()

    def _new_consumer_thread(self) -> Thread:
        """Faust's own would start a thread."""
        return Thread(self, loop=self.loop, beacon=self.beacon)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """
        Do nothing. Faust's check looks at its own commits, of which there are none, so it would
        complain for ever.
        """

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """
        Deliver one message per fetched batch.

        Faust's own method seeks by itself, and sleeps a second when all buffers are full.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions()
        if active:
            fetched = await self._getmany(active, timeout)
        else:
            await self.sleep(0.01)
            fetched = {}
        hub: Hub = self.app.hub
        hub.alive = asyncio.get_running_loop().time()
        generation = self.app.consumer_generation_id
        for tp, batch in (fetched or {}).items():
            if (
                self.should_stop
                or not self.flow_active
                or self.app.consumer_generation_id != generation
            ):
                return
            place = TP(*tp)
            message = ConsumerMessage(
                place.topic,
                place.partition,
                batch.end,
                None,
                0,
                (),
                None,
                batch,
                None,
                0,
                len(batch.batches),
                tp=place,
                generation_id=generation,
            )
            yield place, message

    async def perform_seek(self) -> None:
        """
        Fence, restore and seek after each rebalance, with the flow off and heartbeats running.

        The next rebalance may cancel it.
        """
        if not self.started_hub:
            self.started_hub = True
            self._thread.fetching.attend()
            await self.app.hub.start(FaustSource(self))
        await self.app.hub.open(self.assignment())

    async def wait_empty(self) -> None:
        """Flush. Faust calls this once for revocation, SIGTERM and stop, with the flow off."""
        await self.app.hub.flush()


class FaustSource:
    """The driver, as the stages see it."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    @property
    def _fetching(self) -> Fetching:
        fetching: Fetching = self._consumer._thread.fetching
        return fetching

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        return await self._fetching.committed(tps)

    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        return await self._fetching.bounds(tps)

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        await self._fetching.commit(offsets)

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        await self._fetching.seek(positions)

    def fetched(self, tp: TopicPartition) -> int | None:
        return self._fetching.ends.get(tp)

    def lag(self, tp: TopicPartition, position: int) -> int | None:
        return self._fetching.lag(tp, position)

    def attended(self) -> bool:
        return self._fetching.heard_within(SESSION_TIMEOUT_MS / 1e3)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return await self._fetching.topic_ids(topics)

    def partitions(self, topic: str) -> int:
        return self._fetching.partitions(topic)

    def assigned(self) -> set[TopicPartition]:
        return {TopicPartition(*tp) for tp in self._consumer.assignment()}

    def flowing(self) -> bool:
        return bool(self._consumer.flow_active)


class Transport(driver.Transport):
    """Faust's transport with our consumer."""

    Consumer = Consumer


class RawSchema(faust.Schema):
    """Passes on the batch as it is. Faust decodes nothing, so no record can stop an agent."""

    def compile(self, app: Any, **_: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Event:  # noqa: ARG001
            return Event(app, None, message.value, None, message)

        return decode


class Boot(faust.App.BootStrategy):
    """
    What Faust starts. Its own producer is not started, because nobody uses it and it would connect
    without `kafka.security`.
    """

    enable_kafka_producer = False


class App(faust.App):
    """Faust's app with our transport, and the hub."""

    BootStrategy = Boot
    hub: Hub
    aligned: AlignedStage | None = None
    """The stage that reads its topics in step."""

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _crash(self, reason: BaseException) -> None:
        """
        End the process when Faust crashes. Otherwise Faust would stop silently until the watchdog
        ends the process.
        """
        if not self.hub.stopping:
            die(NOT_OPENED, f"the consumer failed: {reason!r}")
        super()._crash(reason)
