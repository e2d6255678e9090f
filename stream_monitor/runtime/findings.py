"""
What a check of `doctor` is given, and what it returns.

Rule of the file: plain values. A finding that is not ok says what to do about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from msgspec import Struct

from stream_monitor.runtime.cluster import Cluster, TopicFacts
from stream_monitor.settings import Settings

Status = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One line of the report."""

    check: str
    status: Status
    detail: str
    advice: str = ""


class Patient(Struct, frozen=True):
    """What the checks look at."""

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
        """The topic as the cluster has it."""
        return self.topics.get(self.physical(topic))


Checkup = Callable[[Patient], Awaitable[Iterable[Finding]]]


def span(ms: int) -> str:
    """
    A length of time as `monitor.yaml` has it.

    Examples
    --------
    >>> span(86_400_000), span(5_400_000), span(250)
    ('1d', '90m', '250ms')
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size and not ms % size:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def about(ms: int) -> str:
    """
    A length of time for people.

    Examples
    --------
    >>> about(7_300_000), about(250)
    ('2 h', '250 ms')
    """
    for unit, size in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= 2 * size:
            return f"{ms / size:.0f} {unit}"
    return f"{ms} ms"
