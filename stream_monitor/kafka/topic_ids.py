"""
Ids of topics, which aiokafka does not request.

Rule of the file: only Metadata version 10 (Kafka 2.8), its request and its answer. A topic that was
deleted and created again has the same name and another id; only the id shows it. For a broker that
does not support the version the answer is empty.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from io import BytesIO
from typing import Any, ClassVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

METADATA_KEY = 3
UUID_BYTES = 16


class Uuid(AbstractType[bytes]):
    """Sixteen bytes, unchanged."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(UUID_BYTES)


NUMBERS = CompactArray(Int32)


class MetadataResponse_v10(Response):  # noqa: N801 - as aiokafka names them
    API_KEY = METADATA_KEY
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", NUMBERS),
                        ("isr", NUMBERS),
                        ("offline_replicas", NUMBERS),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequest_v10(RequestStruct):  # noqa: N801
    FLEXIBLE_VERSION = True
    API_KEY = METADATA_KEY
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class AskTopicIds(Request[MetadataRequest_v10]):
    """Request for metadata of some topics; it creates none."""

    API_KEY: ClassVar[int] = METADATA_KEY

    def __init__(self, topics: Collection[str]) -> None:
        self._topics: list[tuple[bytes, str, dict[int, bytes]]] = [
            (bytes(UUID_BYTES), topic, {}) for topic in topics
        ]

    def build(self, request_struct_class: type[MetadataRequest_v10]) -> Any:
        return request_struct_class(self._topics, False, False, False, {})


async def topic_ids(client: AIOKafkaClient, topics: Collection[str]) -> dict[str, str]:
    """
    Id of each of these topics that exists; none on a broker without topic ids.

    Raises
    ------
    KafkaError
        The broker cannot be reached.
    """
    try:
        answer = await client.send(client.get_random_node(), AskTopicIds(topics))
    except (
        IncompatibleBrokerVersion,
        NotImplementedError,
    ):
        # aiokafka raises this if the broker does not know the version
        return {}
    return {
        topic: base64.urlsafe_b64encode(raw).decode().rstrip("=")
        for error, topic, raw, *_ in answer.topics
        if error == 0
    }
