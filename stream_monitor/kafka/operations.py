"""
Which operations the broker allows us on a topic or a group: two requests whose answers say so.

Rule of the file: only what aiokafka does not support: the layout of these protocol versions, and
the bits in their answers. `cluster.py` decides who asks, and when.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

READ, WRITE = 3, 4
UNKNOWN_OPERATIONS = -(2**31)
METADATA_KEY, DESCRIBE_GROUPS_KEY = 3, 15
METADATA_WITH_OPERATIONS, GROUPS_WITH_OPERATIONS = 8, 3
"""The first versions whose answers contain the operations."""


def operations_of(bits: int) -> frozenset[int] | None:
    """The operations that a broker allows us, from its bits; None if it does not say."""
    return (
        None
        if bits == UNKNOWN_OPERATIONS
        else frozenset(place for place in range(31) if bits >> place & 1)
    )


class _MetadataAnswer(Response):
    API_KEY = METADATA_KEY
    API_VERSION = METADATA_WITH_OPERATIONS
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("operations", Int32),
    )


class _MetadataQuestion(RequestStruct):
    API_KEY = METADATA_KEY
    API_VERSION = METADATA_WITH_OPERATIONS
    RESPONSE_TYPE = _MetadataAnswer
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("create", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
    )


class MetadataWithOperations(Request[_MetadataQuestion]):
    """
    Metadata of all topics with the allowed operations: version 8, which aiokafka does not support.
    """

    API_KEY: ClassVar[int] = METADATA_KEY

    def build(self, request_struct_class: type[_MetadataQuestion]) -> Any:
        return request_struct_class(None, False, False, True)


class _GroupsQuestion(DescribeGroupsRequest_v3):
    RESPONSE_TYPE = DescribeGroupsResponse_v3


class GroupsWithOperations(Request[_GroupsQuestion]):
    """
    One group with the allowed operations. aiokafka's own request reads the answer of version 3 as
    if it were version 2.
    """

    API_KEY: ClassVar[int] = DESCRIBE_GROUPS_KEY

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupsQuestion]) -> Any:
        return request_struct_class([self._group], True)
