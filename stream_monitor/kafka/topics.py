"""
Topics on a real broker: create them and describe them.

Rule of the file: nothing is created or changed unless the caller asked for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_monitor.errors import BrokerError
from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.patience import quietly
from stream_monitor.schema import REPLICAS, topics
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
WAIT_S = 2.0
TOPIC_HIDDEN, CLUSTER_DENIED, TOPIC_EXISTS = 29, 31, 36


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client, with a clear error if the broker cannot be reached."""
    client = AIOKafkaAdminClient(**client_options(settings.kafka))
    try:
        with connecting(settings.kafka):
            await client.start()
        yield client
    finally:
        await quietly(client.close())


async def ensure(settings: Settings, names: Collection[str] | None = None) -> None:
    """
    Create missing topics, or wait for them; without names all.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses.
    """
    prefix = settings.kafka.topic_prefix
    async with admin(settings) as client:
        while True:
            there = {
                t["topic"].removeprefix(prefix): len(t["partitions"])
                for t in await client.describe_topics()
                if t["topic"].startswith(prefix)
            }
            missing = [name for name in names or topics() if name not in there]
            if not missing:
                return
            # describe_topics would create them
            asked = await client._send_request(
                MetadataRequest(
                    [prefix + name for name in missing], allow_auto_topic_creation=False
                )
            )
            if hidden := [topic[1] for topic in asked.topics if topic[0] == TOPIC_HIDDEN]:
                raise BrokerError(
                    f"missing access: topics {', '.join(sorted(hidden))} are hidden from the "
                    "user of kafka.security (grant what docs/security.md lists)"
                )
            if settings.kafka.create_topics:
                partitions = partitions_at_creation(there)
                await create(settings, client, {name: partitions[name] for name in missing})
                return
            log.warning("waiting for topics: %s", ", ".join(prefix + name for name in missing))
            await asyncio.sleep(WAIT_S)


def partitions_at_creation(
    there: Mapping[str, int], asked: Mapping[str, int] | None = None
) -> dict[str, int]:
    """
    Number of partitions with which each topic is created: as requested or specified; `snapshots`
    gets as many as `observations`.

    >>> partitions_at_creation({"observations": 16})["snapshots"]
    16
    """
    out = {name: spec.partitions for name, spec in topics().items()} | dict(asked or {})
    out["snapshots"] = max(out["snapshots"], there.get("observations", out["observations"]))
    return out


async def create(
    settings: Settings, client: AIOKafkaAdminClient, partitions: Mapping[str, int]
) -> None:
    """
    Create topics, by logical name, with these numbers of partitions. A topic that exists by now is
    left unchanged.

    Raises
    ------
    BrokerError
        The broker refuses.
    """
    prefix = settings.kafka.topic_prefix
    replicas = min(REPLICAS, len((await client.describe_cluster())["brokers"]))
    new = [
        NewTopic(prefix + name, number, replicas, topic_configs=topics()[name].settings(replicas))
        for name, number in partitions.items()
    ]
    try:
        response = await client.create_topics(new)
    except KafkaError as e:
        raise BrokerError(f"the topics {', '.join(partitions)} cannot be created: {e}") from None
    refused = [
        f"{topic}: {(*rest, None)[0] or for_code(code).__name__}"
        for topic, code, *rest in response.topic_errors
        if code not in (0, TOPIC_EXISTS)
    ]
    if refused:
        denied = any(
            code in (TOPIC_HIDDEN, CLUSTER_DENIED) for _, code, *_ in response.topic_errors
        )
        advice = (
            (
                "; grant Create to the user of kafka.security, or have somebody else create them "
                "(`stream-monitor topics apply`) and set kafka.create_topics to false"
            )
            if denied
            else ""
        )
        raise BrokerError(f"cannot create topics: {'; '.join(refused)}{advice}")
    log.info("made topics: %s", ", ".join(prefix + name for name in partitions))


async def describe(settings: Settings) -> dict[str, int]:
    """Number of partitions of each of our topics that exists, by logical name."""
    prefix = settings.kafka.topic_prefix
    async with admin(settings) as client:
        found = await client.describe_topics([prefix + n for n in topics()])
    return {
        topic["topic"].removeprefix(prefix): len(topic["partitions"])
        for topic in found
        if topic["error_code"] == 0
    }
