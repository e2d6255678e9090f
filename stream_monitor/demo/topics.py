"""
Topics of the embedded broker: names, partitions, configuration.

Rule of the file: the configuration is stored and shown unchanged, but only `max.message.bytes` and
`message.timestamp.type` have an effect. There is no time retention and no compaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_monitor.demo.log import PartitionLog
from stream_monitor.demo.protocol import Error

DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
}
NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
PARTITIONS_MAX = 1_000


class Topic:
    def __init__(self, partitions: int, bytes_max: int, config: dict[str, str]) -> None:
        self.bytes_max = bytes_max
        self.config = config
        self.logs = [PartitionLog(bytes_max) for _ in range(partitions)]

    @property
    def record_bytes_max(self) -> int:
        """Size of the largest accepted batch."""
        try:
            return int(self.config.get("max.message.bytes", DEFAULTS["max.message.bytes"]))
        except ValueError:
            return int(DEFAULTS["max.message.bytes"])

    @property
    def dates_records(self) -> bool:
        """Whether the broker sets the time of records."""
        return self.config.get("message.timestamp.type") == "LogAppendTime"

    def grow(self, partitions: int) -> int:
        """Add partitions up to a number; returns an error code if there are as many already."""
        if not len(self.logs) < partitions <= PARTITIONS_MAX:
            return Error.INVALID_PARTITIONS
        self.logs += [PartitionLog(self.bytes_max) for _ in range(partitions - len(self.logs))]
        return Error.NONE


class Topics(dict[str, Topic]):
    """
    All topics by name. A topic that is only requested is created with `partitions` partitions.
    """

    def __init__(self, partitions: int, bytes_max: int) -> None:
        super().__init__()
        self.partitions = partitions
        self.bytes_max = bytes_max

    def create(
        self,
        name: str,
        partitions: int = -1,
        config: Iterable[tuple[str, str | None]] = (),
        *,
        validate_only: bool = False,
    ) -> int:
        """Create a topic; -1 partitions means the default. Returns an error code."""
        if name in self:
            return Error.TOPIC_ALREADY_EXISTS
        if not NAME.fullmatch(name) or name in {".", ".."}:
            return Error.INVALID_TOPIC
        partitions = self.partitions if partitions == -1 else partitions
        if not 1 <= partitions <= PARTITIONS_MAX:
            return Error.INVALID_PARTITIONS
        if not validate_only:
            self[name] = Topic(
                partitions,
                self.bytes_max,
                {key: value for key, value in config if value is not None},
            )
        return Error.NONE

    def log(self, name: str, partition: int) -> PartitionLog | None:
        """The log of a partition, or None."""
        topic = self.get(name)
        return (
            topic.logs[partition]
            if topic is not None and 0 <= partition < len(topic.logs)
            else None
        )
