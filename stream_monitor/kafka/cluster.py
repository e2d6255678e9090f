"""
Requests to a Kafka cluster for `doctor`.

Rule of the file: it reads and never writes. It creates no topic, commits no offset and joins no
group.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.protocol.admin import ApiVersionRequest, DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from msgspec import Struct

from stream_monitor.errors import BrokerError
from stream_monitor.kafka.committed_offsets import told
from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.operations import (
    DESCRIBE_GROUPS_KEY,
    GROUPS_WITH_OPERATIONS,
    METADATA_KEY,
    METADATA_WITH_OPERATIONS,
    GroupsWithOperations,
    MetadataWithOperations,
    operations_of,
)
from stream_monitor.settings import KafkaSettings

GROUP_COORDINATOR, TRANSACTION_COORDINATOR = 0, 1
GROUP_ID_NOT_FOUND = 69
"""Error code of newer brokers for a group that nobody has used."""
TOPIC_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED = 29, 30
COORDINATOR_STARTS = frozenset({14, 15, 16})
"""Error codes that pass: the coordinator is loading, not available yet, or has just moved."""
TRIES = 20


class TopicFacts(Struct, frozen=True):
    """A topic as the cluster describes it."""

    name: str
    partitions: int
    replicas: int
    leaderless: int
    operations: frozenset[int] | None
    """Operations that we may do with the topic; None if the broker does not say."""


class GroupFacts(Struct, frozen=True):
    """A consumer group as its coordinator describes it."""

    state: str
    members: int
    operations: frozenset[int] | None


class NewestRecords(Struct, frozen=True):
    """The newest records of one partition."""

    partition: int
    offsets: list[int]
    times_ms: list[int]
    values: list[bytes | None]


class Cluster:
    """
    A connection to the cluster, to be used in `async with`.

    Parameters
    ----------
    kafka : KafkaSettings
    timeout_s : float, seconds
        For each question.

    Raises
    ------
    BrokerError
        On entry, when no broker can be reached.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float) -> None:
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._arguments: dict[str, Any] = {}
        self._admin: Any = None
        self._consumer: Any = None
        self.versions: dict[int, tuple[int, int]] = {}
        self.brokers = 0

    async def __aenter__(self) -> Self:
        try:
            self._arguments = client_options(self._kafka) | {
                "request_timeout_ms": int(self._timeout_s * 1000)
            }
            self._admin = AIOKafkaAdminClient(**self._arguments)
            with connecting(self._kafka):
                async with asyncio.timeout(self._timeout_s):
                    await self._admin.start()
                    self.versions = await self._api_versions()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for close in (self._consumer and self._consumer.stop, self._admin and self._admin.close):
            if close:
                await _stopped(close(), self._timeout_s)

    async def topics(self) -> dict[str, TopicFacts]:
        """All topics that we may see, by their name in Kafka."""
        with_operations = self.versions.get(METADATA_KEY, (0, 0))[1] >= METADATA_WITH_OPERATIONS
        answer = await self._ask(
            MetadataWithOperations()
            if with_operations
            else MetadataRequest(None, allow_auto_topic_creation=False)
        )
        self.brokers = len(answer.brokers)
        found: dict[str, TopicFacts] = {}
        for topic in answer.topics:
            name, partitions = topic[1], topic[3]
            leader, replicas = 2, 4 if with_operations else 3
            found[name] = TopicFacts(
                name,
                len(partitions),
                min((len(partition[replicas]) for partition in partitions), default=0),
                sum(partition[leader] < 0 for partition in partitions),
                operations_of(topic[4]) if with_operations else None,
            )
        return found

    async def hidden(self, names: list[str]) -> set[str]:
        """Those of these topics that we may not see, whether they exist or not."""
        answer = (
            await self._ask(MetadataRequest(names, allow_auto_topic_creation=False))
            if names
            else None
        )
        return (
            {topic[1] for topic in answer.topics if topic[0] == TOPIC_AUTHORIZATION_FAILED}
            if answer
            else set()
        )

    async def configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """Settings of topics; topics whose settings we may not see are left out."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found: dict[str, dict[str, str]] = {}
        for answer in (
            await self._timed(self._admin.describe_configs(resources)) if resources else ()
        ):
            for resource in answer.resources:
                if not resource[0]:
                    found[resource[3]] = {
                        entry[0]: entry[1] for entry in resource[4] if entry[1] is not None
                    }
        return found

    async def transaction_coordinator(self, transactional_id: str) -> str:
        """
        Ask for the coordinator of a transactional id. Returns an empty text if there is one,
        otherwise the reason.
        """
        answer = await self._coordinator(transactional_id, TRANSACTION_COORDINATOR)
        return "" if not answer.error_code else name_of(answer.error_code)

    async def group(self, name: str) -> GroupFacts:
        """State of a consumer group (`Dead` if nobody ever used it)."""
        coordinator = await self._coordinator(name, GROUP_COORDINATOR)
        if coordinator.error_code == GROUP_AUTHORIZATION_FAILED:
            return GroupFacts("hidden from us", 0, frozenset())
        if coordinator.error_code:
            raise BrokerError(f"group {name}: {name_of(coordinator.error_code)}")
        with_operations = (
            self.versions.get(DESCRIBE_GROUPS_KEY, (0, 0))[1] >= GROUPS_WITH_OPERATIONS
        )
        request = GroupsWithOperations(name) if with_operations else DescribeGroupsRequest([name])
        answer = await self._until_started(
            lambda: self._ask(request, coordinator.coordinator_id),
            lambda answer: answer.groups[0][0],
        )
        group = answer.groups[0]
        if group[0] and group[0] != GROUP_ID_NOT_FOUND:
            raise BrokerError(f"group {name}: {name_of(group[0])}")
        return GroupFacts(
            group[2], len(group[5]), operations_of(group[6]) if with_operations else None
        )

    async def _coordinator(self, name: str, kind: int) -> Any:
        """Ask until there is a coordinator: the first request makes a new cluster elect one."""
        return await self._until_started(
            lambda: self._ask(FindCoordinatorRequest(name, kind)), lambda answer: answer.error_code
        )

    async def _until_started(
        self, ask: Callable[[], Awaitable[Any]], code: Callable[[Any], int]
    ) -> Any:
        """The answer of the coordinator once it has loaded, or its last refusal."""
        for _ in range(TRIES):
            answer = await ask()
            if code(answer) not in COORDINATOR_STARTS:
                break
            await asyncio.sleep(self._timeout_s / TRIES)
        return answer

    async def committed(self, group: str) -> dict[TopicPartition, tuple[int, str]]:
        """Committed offsets of a group with their metadata; none if we may not see the group."""
        coordinator = await self._coordinator(group, GROUP_COORDINATOR)
        answer = coordinator
        if not coordinator.error_code:
            answer = await self._until_started(
                lambda: self._ask(OffsetFetchRequest(group, None), coordinator.coordinator_id),
                lambda answer: answer.error_code,
            )
        if answer.error_code == GROUP_AUTHORIZATION_FAILED:
            return {}
        if answer.error_code:
            raise BrokerError(f"group {group}: {name_of(answer.error_code)}")
        return {tp: at for tp, at in told(answer).items() if at is not None}

    async def ends(self, topic: str, partitions: int) -> dict[int, tuple[int, int]]:
        """Offset of the first record, and offset after the last record, by partition."""
        every = [TopicPartition(topic, partition) for partition in range(partitions)]
        if self._consumer is None:
            self._consumer = self._new_consumer()
            await self._timed(self._consumer.start())
        first, last = (
            await self._timed(self._consumer.beginning_offsets(every)),
            await self._timed(self._consumer.end_offsets(every)),
        )
        return {partition.partition: (first[partition], last[partition]) for partition in every}

    async def newest(self, topic: str, partitions: int, records_n: int) -> list[NewestRecords]:
        """
        About `records_n` of the newest records of a topic, evenly from its partitions, oldest first
        in each.
        """
        ends = {
            TopicPartition(topic, partition): end
            for partition, end in (await self.ends(topic, partitions)).items()
            if end[1] > end[0]
        }
        if not ends:
            return []
        # one consumer per topic, because aiokafka's may never stop after two assignments
        consumer = self._new_consumer()
        try:
            await self._timed(consumer.start())
            return await self._read(consumer, ends, -(-records_n // len(ends)))
        finally:
            await _stopped(consumer.stop(), self._timeout_s)

    async def _read(
        self, consumer: Any, ends: dict[TopicPartition, tuple[int, int]], share: int
    ) -> list[NewestRecords]:
        consumer.assign(list(ends))
        for partition, (first, last) in ends.items():
            consumer.seek(partition, max(first, last - share))
        found = {partition: NewestRecords(partition.partition, [], [], []) for partition in ends}
        unread = dict(ends)
        until_s = asyncio.get_running_loop().time() + self._timeout_s
        while unread and asyncio.get_running_loop().time() < until_s:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                found[partition].offsets.extend(record.offset for record in records)
                found[partition].times_ms.extend(record.timestamp for record in records)
                found[partition].values.extend(record.value for record in records)
            for partition in [
                each for each, (_, last) in unread.items() if await consumer.position(each) >= last
            ]:
                del unread[partition]
                consumer.pause(partition)
        return [records for records in found.values() if records.offsets]

    def _new_consumer(self) -> Any:
        return AIOKafkaConsumer(
            **self._arguments,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )

    async def _api_versions(self) -> dict[int, tuple[int, int]]:
        answer = await self._ask(ApiVersionRequest())
        return {key: (lowest, highest) for key, lowest, highest, *_ in answer.api_versions}

    async def _ask(self, request: Any, node: int | None = None) -> Any:
        return await self._timed(self._admin._send_request(request, node))

    async def _timed(self, awaitable: Any) -> Any:
        async with asyncio.timeout(self._timeout_s):
            return await awaitable


async def _stopped(stop: Awaitable[None], timeout_s: float) -> None:
    """Wait for a client to stop, but not for ever: it only reads, so nothing can be lost."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await stop


def name_of(code: int) -> str:
    """Name of an error code of a broker."""
    return str(for_code(code).__name__).removesuffix("Error")
