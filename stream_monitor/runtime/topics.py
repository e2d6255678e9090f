"""
Topics on a real broker: there or made, and what they are.

Rule of the file: nothing is made or changed unless it was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from stream_monitor.errors import BrokerError
from stream_monitor.runtime.connection import client_options
from stream_monitor.runtime.hub import quietly
from stream_monitor.schema import topics
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
WAIT_S = 2.0
REPLICAS_MAX = 3
TOPIC_EXISTS = 36


class Described(NamedTuple):
    partitions: int
    id: str
    """Topic id where the broker has one, else empty."""


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, with a clear error when the broker is not there."""
    client = AIOKafkaAdminClient(**client_options(settings.kafka))
    try:
        await client.start()
    except KafkaError as e:
        await quietly(client.close())
        raise BrokerError(f"no connection to Kafka at {settings.kafka.bootstrap_servers} (kafka.bootstrap_servers): {e}") from None
    try:
        yield client
    finally:
        await quietly(client.close())


async def ensure(settings: Settings) -> None:
    """
    Make the topics that are missing, or wait for them.

    Raises
    ------
    BrokerError
        The broker is not there, or refuses.
    """
    async with admin(settings) as client:
        while True:
            there = set(await client.list_topics())
            missing = [t for t in topics().values() if settings.kafka.topic_prefix + t.name not in there]
            if not missing:
                return
            if settings.kafka.create_topics:
                await _create(settings, client, [t.name for t in missing])
                return
            log.warning("waiting for topics: %s", ", ".join(settings.kafka.topic_prefix + t.name for t in missing))
            await asyncio.sleep(WAIT_S)


async def _create(settings: Settings, client: AIOKafkaAdminClient, names: list[str]) -> None:
    brokers = len((await client.describe_cluster())["brokers"])
    replicas = min(REPLICAS_MAX, brokers)
    new = [NewTopic(settings.kafka.topic_prefix + n, topics()[n].partitions, replicas, topic_configs=dict(topics()[n].config)) for n in names]
    try:
        response = await client.create_topics(new)
    except TopicAlreadyExistsError:
        return
    except KafkaError as e:
        raise BrokerError(f"the topics {', '.join(names)} could not be made: {e}") from None
    for topic, code, *_ in response.topic_errors:
        if code not in (0, TOPIC_EXISTS):
            raise BrokerError(f"the topic {topic} could not be made: {for_code(code).__name__}")
    log.info("made topics: %s", ", ".join(names))


async def describe(settings: Settings) -> dict[str, Described]:
    """Partitions and id of each of our topics that is there, by logical name."""
    prefix = settings.kafka.topic_prefix
    async with admin(settings) as client:
        found = await client.describe_topics([prefix + n for n in topics()])
    out = {}
    for topic in found:
        if topic["error_code"] == 0:
            raw = topic.get("topic_id")
            out[topic["topic"].removeprefix(prefix)] = Described(
                len(topic["partitions"]), base64.urlsafe_b64encode(raw.bytes).decode().rstrip("=") if hasattr(raw, "bytes") else ""
            )
    return out


async def read_compacted(settings: Settings, name: str) -> dict[str, bytes]:
    """The last value of each key of a compacted topic, read whole and without a group."""
    topic = settings.kafka.topic_prefix + name
    consumer = AIOKafkaConsumer(**client_options(settings.kafka), isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    out: dict[str, bytes] = {}
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or await _partitions(consumer, topic)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        for tp in partitions:
            consumer.seek(tp, starts[tp])
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    key = (record.key or b"").decode("utf-8", "replace")
                    if record.value is None:
                        out.pop(key, None)
                    else:
                        out[key] = record.value
    finally:
        await quietly(consumer.stop())
    return out


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.force_metadata_update()
    consumer._client.add_topic(topic)
    await consumer._client.force_metadata_update()
    return set(consumer.partitions_for_topic(topic) or ())
