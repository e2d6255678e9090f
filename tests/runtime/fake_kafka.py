"""
A Kafka in memory for the stages: logs, transactions, and the offsets of a group, all of which
outlive the worker that is tested.

Rule of the file: it is the driver, the producer and the reader at once, as far as `IngestStage` and
`EvaluateStage` use them; nothing waits and nothing fails by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_monitor.kafka.deliveries import Broken, Fetched
from stream_monitor.settings import CoreSettings, Settings, WorkerSettings
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage


class Stored(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None


class FakeKafka:
    """What outlives a worker."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, dict[int, Stored]] = defaultdict(dict)
        self.ends: Counter[TopicPartition] = Counter()
        self.first: Counter[TopicPartition] = Counter()
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.mine: set[TopicPartition] = set()
        self.ids: dict[str, str] = {}
        self.partitions_n = 1
        self.broken: dict[tuple[TopicPartition, int], Broken] = {}

    def append(self, tp: TopicPartition, value: bytes | None, key: bytes | None = None) -> int:
        offset = self.ends[tp]
        self.logs[tp][offset] = Stored(offset, key, value)
        self.ends[tp] += 1
        return offset

    def delete_before(self, tp: TopicPartition, offset: int) -> None:
        """As retention does."""
        self.first[tp] = offset
        self.logs[tp] = {o: r for o, r in self.logs[tp].items() if o >= offset}

    def compact(self, tp: TopicPartition) -> None:
        """The last record of each key stays, unless it is a tombstone."""
        last = {r.key: r for r in self.logs[tp].values()}
        self.logs[tp] = {r.offset: r for r in last.values() if r.value is not None}

    def stage(self, *, core: CoreSettings | None = None, **options: Any) -> EvaluateStage:
        """EVALUATE of a worker that has just started."""
        hub = self._hub(core, options)
        stage = EvaluateStage(hub, self.partitions_n, {})
        stage._producer = lambda tp: FakeProducer(self)  # type: ignore[method-assign]
        return stage

    def ingest(self, **options: Any) -> IngestStage:
        """INGEST of a worker that has just started."""
        stage = IngestStage(self._hub(None, options), self.partitions_n)
        stage._producer = FakeProducer(self)
        return stage

    def _hub(self, core: CoreSettings | None, options: Mapping[str, Any]) -> Hub:
        hub = Hub(Settings(worker=WorkerSettings(**options), core=core or CoreSettings()))
        hub.source = self  # type: ignore[assignment]
        hub.reader = self.reader  # type: ignore[method-assign, assignment]
        return hub

    # ---- the driver

    async def committed(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str] | None]:
        return {tp: self.offsets.get(tp) for tp in tps}

    async def bounds(
        self, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, int]]:
        return {tp: (self.first[tp], self.ends[tp]) for tp in tps}

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        self.offsets.update(offsets)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        return self.ids

    def partitions(self, topic: str) -> int:
        return self.partitions_n

    def assigned(self) -> set[TopicPartition]:
        return self.mine

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[FakeReader]:
        yield FakeReader(self)


class FakeReader:
    """A consumer without a group."""

    def __init__(self, kafka: FakeKafka) -> None:
        self.kafka = kafka

    async def value(self, tp: TopicPartition, offset: int) -> bytes | None:
        record = self.kafka.logs[tp].get(offset)
        return record and record.value

    async def stretch(self, tp: TopicPartition, start: int, end: int) -> AsyncIterator[Fetched]:
        batches: list[Any] = []
        for offset, record in sorted(self.kafka.logs[tp].items()):
            if offset >= start:
                builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
                builder.append(0, 0, record.key, record.value, [])
                data = builder.build()
                data[:8] = offset.to_bytes(8, "big")
                batches.append(
                    (offset, self.kafka.broken.get((tp, offset)) or DefaultRecordBatch(bytes(data)))
                )
        if start < end:
            yield Fetched(tp, 0, start, self.kafka.ends[tp], batches)


class FakeProducer:
    """Of one transactional id; what is sent outside a transaction is there at once."""

    def __init__(self, kafka: FakeKafka) -> None:
        self.kafka = kafka
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int = 0,
        headers: Any = None,
    ) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(
            SimpleNamespace(
                offset=self.kafka.append(TopicPartition(topic, partition), value, key),
                timestamp_type=0,
            )
        )
        return done

    async def send_and_wait(
        self, topic: str, value: bytes | None, key: bytes | None = None, partition: int = 0
    ) -> Any:
        return await (await self.send(topic, value, key, partition))

    async def begin_transaction(self) -> None:
        self.offsets = {}

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, Any], group: str
    ) -> None:
        self.offsets = {tp: (o.offset, o.metadata) for tp, o in offsets.items()}

    async def commit_transaction(self) -> None:
        self.kafka.offsets.update(self.offsets)
