"""
What a decision may ask for, and the facts that it may look at.

Rule of the file: values only. Each action can be done again: it leads to one event, whose id does
not depend on who did it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from stream_monitor.lifecycle.events import Event


class Say(NamedTuple):
    """Write an event."""

    event: Event


class Tell(NamedTuple):
    """Write an event of an experiment."""

    event: dict[str, Any]


class Work(NamedTuple):
    """Do a step of a run."""

    run: str
    step: str
    attempt: int


class Execute(NamedTuple):
    """Do a command of a deployment, or take it back."""

    experiment: str
    step: int
    command: str
    undo: bool


Action = Say | Tell | Work | Execute


class Firing(NamedTuple):
    """An alert that fires, without those that a person muted or called false."""

    fingerprint: str
    kind: str
    severity: str
    version: str
    starts_ms: int
    summary: str


class Facts(Protocol):
    """What EVALUATE wrote about a model."""

    def firing(self, model: str) -> list[Firing]:
        """Alerts that fire."""

    def labels(self, model: str, version: str | None, since_ms: int) -> int:
        """Labelled calls since a time, of a version or of all."""

    def metrics(self, model: str, version: str, since_ms: int, until_ms: int) -> dict[str, float]:
        """Means of the metrics of a version, weighted by labels, and `labels`."""
