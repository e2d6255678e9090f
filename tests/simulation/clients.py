"""
What a worker uses of Kafka, over the broker in memory: producers, the reader of a restore, and the
driver with its membership in the group.

Rule of the file: the driver does in this order what Faust's does (`stages/transport.py`): flow off,
queued batches dropped, flush, join, open with heartbeats running, flow on. What may be lost between
fetching and an agent there may be lost here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownMemberIdError

from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.stages.exits import NOT_OPENED
from stream_monitor.stages.hub import Hub
from tests.simulation.broker import Batch, Entry
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

QUEUE = 4
FETCH_RECORDS = 25


class Written(NamedTuple):
    offset: int
    timestamp_type: int = 0


class Producer:
    """
    `AIOKafkaProducer`: one batch a partition in flight, in order; in a transaction when it has an
    id.
    """

    def __init__(self, world: World, transactional_id: str | None = None, **_: Any) -> None:
        self.world, self.id, self.epoch = world, transactional_id, -1
        self._waiting: list[asyncio.Future[Any]] = []
        self._turns: dict[TopicPartition, Any] = {}
        self._message_accumulator = SimpleNamespace()

    async def start(self) -> None:
        if self.id is not None:
            name = self.id
            self.epoch = await self.world.request("init", lambda: self.world.broker.init(name))

    async def stop(self) -> None:
        await asyncio.sleep(0)

    async def send(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        partition: int = 0,
        headers: Any = None,
    ) -> asyncio.Future[Written]:
        await asyncio.sleep(0)
        tp, broker = TopicPartition(topic, partition), self.world.broker
        turn = self._turns[tp] = self.world.turn(self._turns.get(tp))
        if self.id is None:
            future = self.world.request(
                "send", lambda: Written(broker.append(tp, value, key)), turn=turn
            )
        else:
            name, epoch = self.id, self.epoch
            future = self.world.request(
                "send in a transaction",
                lambda: Written(broker.produce_in(name, epoch, tp, value, key)),
                turn=turn,
            )
        self._waiting.append(future)
        return future

    async def send_and_wait(self, topic: str, value: bytes, **options: Any) -> Written:
        return await (await self.send(topic, value, **options))

    async def begin_transaction(self) -> None:
        self._waiting = []

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, Any], group: str
    ) -> None:
        assert self.id is not None
        name, said = self.id, {tp: (o.offset, o.metadata) for tp, o in offsets.items()}
        await self.world.request(
            "send offsets", lambda: self.world.broker.offsets_in(name, self.epoch, said)
        )

    async def commit_transaction(self) -> None:
        assert self.id is not None
        name = self.id
        await asyncio.gather(*self._waiting)
        await self.world.request(
            "end", lambda: self.world.broker.commit_transaction(name, self.epoch)
        )


class Reader:
    """`fetching.Reader`: a consumer without a group."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def value(self, tp: TopicPartition, offset: int) -> bytes | None:
        """Value of one record; None when it is gone."""
        while True:
            found, _ = await self.world.request(
                "restore", lambda: self.world.broker.read(tp, offset, 1)
            )
            if found:
                return found[0].value if found[0].offset == offset else None
            await asyncio.sleep(0.05)

    async def stretch(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[Fetched]:
        """All from `start` to `end`, and perhaps more."""
        while start < end:
            at = start
            found, start = await self.world.request(
                "restore", partial(self.world.broker.read, tp, at, 10)
            )
            yield Fetched(tp, 0, at, start, [(found[0].offset, Batch(found))] if found else [])


class SimulatedHub(Hub):
    """The hub, with a reader of the world's, and without the watchdog's thread."""

    world: World

    def _watch(self) -> None:
        """The world sees whether anything moves."""

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[Any]:
        yield Reader(self.world)


class Driver:
    """The consumer, the group's member, and Faust's flow between them and the stages."""

    def __init__(self, world: World, process: Process, hub: SimulatedHub) -> None:
        self.world, self.process, self.hub = world, process, hub
        self.member, self.generation = "", -1
        self.assignment: set[TopicPartition] = set()
        self.flow, self.heard = False, 0.0
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._queues: dict[Any, asyncio.Queue[Fetched]] = {}
        self._rejoin, self.stop = asyncio.Event(), asyncio.Event()
        self._incarnation = 0

    # ---- the driver, as the stages see it

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        return await self.world.request(
            "committed", lambda: {tp: self.world.broker.offsets.get(tp) for tp in tps}
        )

    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        return await self.world.request(
            "bounds", lambda: {tp: (0, self.world.broker.stable_end(tp)) for tp in tps}
        )

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        member, generation, said = self.member, self.generation, dict(offsets)
        await self.world.request(
            "commit", lambda: self.world.broker.commit(member, generation, said)
        )

    async def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        self.heard = self.process.time()
        for tp, offset in positions.items():
            if tp in self.assignment:
                self.hub.epochs[tp] = self.hub.epochs.get(tp, 0) + 1
                self._positions[tp] = self._ends[tp] = offset

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return await self.world.request("ids", lambda: dict.fromkeys(topics, "id"))

    def partitions(self, topic: str) -> int:
        return sum(tp.topic == topic for tp in self.world.broker.logs)

    def fetched(self, tp: TopicPartition) -> int | None:
        return self._ends.get(tp)

    def lag(self, tp: TopicPartition, position: int) -> int | None:
        return self.world.broker.end(tp) - position

    def attended(self) -> bool:
        return self.process.time() - self.heard < 10

    def assigned(self) -> set[TopicPartition]:
        return set(self.assignment)

    def flowing(self) -> bool:
        return self.flow

    # ---- its life

    async def run(self) -> None:
        """Until it is told to stop."""
        await self.hub.start(self)
        for stage in self.hub.stages:
            self._queues[stage] = asyncio.Queue(QUEUE)
            self.process.create_task(self._agent(stage))
        self.process.create_task(self._heartbeats())
        self.process.create_task(self._fetches())
        self._renew()
        while not self.stop.is_set():
            joined = await self._until_stop(self._join())
            if joined is None:
                break
            self.generation, self.assignment = joined
            self.heard = self.process.time()
            self._positions.clear()
            self._rejoin.clear()
            opening = self.process.create_task(self._open())
            await self._until_stop(self._rejoin.wait())
            await self._revoke(opening)
        self.world.broker.leave(self.member)

    def _renew(self) -> None:
        self._incarnation += 1
        self.member = f"{self.process.number}.{self._incarnation}"

    async def _until_stop(self, work: Any) -> Any:
        task, stop = self.process.create_task(work), self.process.create_task(self.stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def _join(self) -> tuple[int, set[TopicPartition]]:
        future = self.process.create_future()
        member = self.member

        def answer(given: tuple[int, set[TopicPartition]]) -> None:
            self.world.after(
                0.1 * self.world.chance.random(),
                lambda: None if future.done() else future.set_result(given),
            )

        await self.world.request(
            "join", lambda: self.world.broker.join(member, answer), faulty=False
        )
        return await future

    async def _open(self) -> None:
        await self.hub.open(self.assignment)
        self.flow = True

    async def _revoke(self, opening: asyncio.Task[None]) -> None:
        self.flow = False
        opening.cancel()
        for queue in self._queues.values():
            while not queue.empty():
                queue.get_nowait()
        if self.assignment:
            await self.hub.flush()

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(1)
            member, generation = self.member, self.generation
            try:
                whole = await self.world.request(
                    "heartbeat",
                    partial(self.world.broker.heartbeat, member, generation),
                    faulty=False,
                )
            except UnknownMemberIdError:
                if (
                    generation >= 0
                    and (member, generation) == (self.member, self.generation)
                    and not self._rejoin.is_set()
                ):
                    self._renew()
                    self.generation = -1
                    self._rejoin.set()
                continue
            except KafkaError:
                continue
            self.heard = self.process.time()
            if not whole and generation == self.generation:
                self._rejoin.set()

    def _some(self, tp: TopicPartition, at: int) -> tuple[list[Entry], int]:
        """A few records; how many is drawn when the broker answers."""
        return self.world.broker.read(tp, at, self.world.chance.randint(1, FETCH_RECORDS))

    async def _fetches(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            if not self.flow:
                continue
            generation, asked = self.generation, dict(self._positions)
            for tp, at in asked.items():
                with suppress(KafkaError):
                    found, end = await self.world.request(
                        "fetch",
                        partial(self._some, tp, at),
                        faulty=False,
                    )
                    if self._positions.get(tp) == at and end > at:
                        self._positions[tp] = end
                        fetched = Fetched(
                            tp,
                            self.hub.epochs.get(tp, 0),
                            self._ends.get(tp),
                            end,
                            [(e[0].offset, Batch(e)) for e in self._cut(found)],
                        )
                        self._ends[tp] = end
                        if self.flow and generation == self.generation and not self.world.drops():
                            await self._queues[self._stage(tp)].put(fetched)

    def _cut(self, entries: list[Entry]) -> list[list[Entry]]:
        at = self.world.chance.randint(0, len(entries))
        return [part for part in (entries[:at], entries[at:]) if part]

    def _stage(self, tp: TopicPartition) -> Any:
        return next(s for s in self.hub.stages if tp.topic in s.topics)

    async def _agent(self, stage: Any) -> None:
        while True:
            await self.hub.deliver(stage, await self._queues[stage].get())


async def worker(world: World, process: Process, hub: SimulatedHub, driver: Driver) -> None:
    """A worker from its start to SIGTERM and its end (`runtime/worker.py`)."""
    running = process.create_task(driver.run())
    await driver.stop.wait()
    try:
        async with asyncio.timeout(world.settings.worker.shutdown_timeout_ms / 1e3):
            await running
            await hub.stages[0].stop()  # type: ignore[attr-defined]
    except TimeoutError:
        process.end(NOT_OPENED, "could not stop in time")
    hub.stop()
    process.end(0, "stopped")
