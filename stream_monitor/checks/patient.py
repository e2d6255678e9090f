"""
The facts that the checks of `doctor` share.

Rule of the file: they are read once, before any check. A check asks the cluster only for more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from stream_monitor.findings import Finding
from stream_monitor.kafka.cluster import Cluster, TopicFacts
from stream_monitor.settings import Settings

INPUTS = ("predictions", "labels")
"""Topics that others write and a worker reads."""


class Patient(Struct, frozen=True):
    """The facts that the checks share."""

    settings: Settings
    cluster: Cluster
    topics: dict[str, TopicFacts]
    configs: dict[str, dict[str, str]]
    sample_n: int
    now_ms: int

    def physical(self, topic: str) -> str:
        """Name of a topic in the cluster."""
        return self.settings.kafka.topic_prefix + topic

    def facts(self, topic: str) -> TopicFacts | None:
        """The topic as the cluster describes it."""
        return self.topics.get(self.physical(topic))


Checkup = Callable[[Patient], Awaitable[Iterable[Finding]]]
