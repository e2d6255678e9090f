"""
IncrementalAlterConfigs (KIP-339), which aiokafka does not support.

Rule of the file: only the request and its answer, version 0. aiokafka's `alter_configs` sends the
older AlterConfigs, which resets every setting that is not named. This request changes only the
named settings. Every broker since Kafka 2.3 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

INCREMENTAL_ALTER_CONFIGS_KEY = 44
TOPIC_RESOURCE = 2
SET, DELETE = 0, 1


class IncrementalAlterConfigsResponse_v0(Response):  # noqa: N801 - as aiokafka names them
    API_KEY = INCREMENTAL_ALTER_CONFIGS_KEY
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class IncrementalAlterConfigsRequest_v0(RequestStruct):  # noqa: N801
    API_KEY = INCREMENTAL_ALTER_CONFIGS_KEY
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse_v0
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "config_entries",
                    Array(
                        ("config_name", String("utf-8")),
                        ("config_operation", Int8),
                        ("config_value", String("utf-8")),
                    ),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class SetTopicConfigs(Request[IncrementalAlterConfigsRequest_v0]):
    """Set some settings of some topics, and leave the others unchanged."""

    API_KEY: ClassVar[int] = INCREMENTAL_ALTER_CONFIGS_KEY

    def __init__(self, settings: Mapping[str, Mapping[str, str]]) -> None:
        self._resources = [
            (TOPIC_RESOURCE, topic, [(key, SET, value) for key, value in entries.items()])
            for topic, entries in settings.items()
        ]

    def build(self, request_struct_class: type[IncrementalAlterConfigsRequest_v0]) -> Any:
        return request_struct_class(self._resources, False)
