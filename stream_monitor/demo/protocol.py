"""
The part of the Kafka protocol that the embedded broker supports: request classes, error codes, the
frame around both.

Rule of the file: bytes and schemas only, no state and no sockets. Only old, non-flexible versions
are offered. The schemas are those of aiokafka (an exact version is pinned, because they are not its
public interface). APIs that are not listed here are not advertised, so clients report them as
unsupported.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka.protocol import (
    admin,
    commit,
    coordination,
    fetch,
    group,
    metadata,
    offset,
    produce,
    transaction,
)

from stream_monitor.kafka import alter_configs

FRAME_BYTES_MAX = 100 << 20
"""Kafka's default of `socket.request.max.bytes`; a greater length is not a Kafka request."""


class Error:
    """Kafka's error codes that are used here."""

    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC = 17
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    UNKNOWN_MEMBER_ID = 25
    REBALANCE_IN_PROGRESS = 27
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REQUEST = 42
    OUT_OF_ORDER_SEQUENCE = 45
    DUPLICATE_SEQUENCE = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    INVALID_RECORD = 87


API_VERSIONS = 18

_OFFERED: tuple[tuple[Any, str, int, int], ...] = (
    (produce, "ProduceRequest", 3, 7),
    (fetch, "FetchRequest", 4, 4),
    (offset, "OffsetRequest", 1, 2),
    (metadata, "MetadataRequest", 0, 5),
    (commit, "OffsetCommitRequest", 2, 3),
    (commit, "OffsetFetchRequest", 1, 3),
    (coordination, "FindCoordinatorRequest", 0, 1),
    (group, "JoinGroupRequest", 0, 2),
    (group, "SyncGroupRequest", 0, 1),
    (group, "HeartbeatRequest", 0, 1),
    (group, "LeaveGroupRequest", 0, 1),
    (admin, "ListGroupsRequest", 0, 2),
    (admin, "DescribeGroupsRequest", 0, 2),
    (admin, "DeleteGroupsRequest", 0, 1),
    (admin, "CreateTopicsRequest", 0, 3),
    (admin, "DeleteTopicsRequest", 0, 3),
    (admin, "CreatePartitionsRequest", 0, 1),
    (admin, "DescribeConfigsRequest", 0, 1),
    (admin, "AlterConfigsRequest", 0, 1),
    (alter_configs, "IncrementalAlterConfigsRequest", 0, 0),
    (transaction, "InitProducerIdRequest", 0, 0),
    (admin, "ApiVersionRequest", 0, 0),
)


def _request_classes() -> dict[tuple[int, int], Any]:
    classes = {}
    for module, name, first, last in _OFFERED:
        for version in range(first, last + 1):
            request = getattr(module, f"{name}_v{version}")
            classes[request.API_KEY, version] = request
    return classes


REQUESTS: dict[tuple[int, int], Any] = _request_classes()
"""Request class by (API key, version)."""

VERSIONS: list[tuple[int, int, int]] = [
    (key, min(v for k, v in REQUESTS if k == key), max(v for k, v in REQUESTS if k == key))
    for key in sorted({k for k, _ in REQUESTS})
]
"""The answer to ApiVersions: (API key, lowest version, highest version)."""


class Header(NamedTuple):
    api_key: int
    api_version: int
    correlation_id: int
    client_id: str


def read_header(body: BytesIO) -> Header:
    """
    Read the header of a request; the request follows in `body`.

    Raises
    ------
    ValueError
        These bytes are not a request.
    """
    try:
        api_key, api_version, correlation_id, length = struct.unpack(">hhih", body.read(10))
        return Header(api_key, api_version, correlation_id, body.read(max(length, 0)).decode())
    except struct.error as error:
        raise ValueError(f"not a Kafka request: {error}") from None


def frame(correlation_id: int, body: bytes) -> bytes:
    """Length, correlation id and an answer, as they are sent."""
    return struct.pack(">ii", len(body) + 4, correlation_id) + body


def api_versions(asked: int) -> bytes:
    """
    Answer ApiVersions, always as version 0: the error tells a newer client to ask again with it
    (KIP-511).
    """
    error = Error.NONE if asked == 0 else Error.UNSUPPORTED_VERSION
    return bytes(admin.ApiVersionResponse_v0(error, VERSIONS).encode())
