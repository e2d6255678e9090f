"""
Turns the alert events of a replay into episodes, and these into causes.

Rule of the file: an episode is one fingerprint from its firing to its end. A cause is one incident,
with all its episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stream_monitor.verdicts import LEVELS

FIRST = (
    "data_drift",
    "data_quality",
    "anomaly",
    "prediction_drift",
    "concept_drift",
    "performance",
    "calibration",
    "trend",
)
"""Kinds of alerts, and trends; of one cause the first of them says what happened."""


class Episode(NamedTuple):
    """An alert from its firing to its end; `end` is None while it fires."""

    first: Mapping[str, Any]
    severity: str
    start: str
    end: str | None
    updates: int
    told: Mapping[str, Any]
    """The last step that was not its end."""

    @property
    def lane(self) -> str:
        """Subject and detector of the alert; episodes that share both share a line of the chart."""
        return f"{self.first['subject']} ({self.first['detector']})"


def episodes(alerts: Iterable[Mapping[str, Any]]) -> list[Episode]:
    """The episodes of these alert events, in the order in which they began."""
    out: dict[tuple[str, str], Episode] = {}
    for alert in alerts:
        key = alert["fingerprint"], alert["starts_at"]
        known = out.get(key, Episode(alert, alert["severity"], alert["starts_at"], None, 0, alert))
        out[key] = known._replace(
            severity=alert["severity"],
            end=alert["ends_at"],
            updates=known.updates + (alert["status"] == "updated"),
            told=known.told if alert["status"] == "resolved" else alert,
        )
    return list(out.values())


class Cause(NamedTuple):
    """One incident: what happened once, and all alerts that it raised."""

    model: str
    version: str
    episodes: tuple[Episode, ...]
    """The one that speaks for it first, then in the order in which they began."""

    @property
    def severity(self) -> str:
        """The worst of its alerts."""
        return max((e.severity for e in self.episodes), key=LEVELS.index)

    @property
    def start(self) -> str:
        """When its first alert began."""
        return min(e.start for e in self.episodes)

    @property
    def end(self) -> str | None:
        """When its last alert ended; None while one fires."""
        ends = [e.end for e in self.episodes]
        return None if None in ends else max(e for e in ends if e is not None)


def causes(found: Sequence[Episode]) -> list[Cause]:
    """
    The causes of episodes: the worst first, then those that fire, then in the order in which they
    began.
    """
    of: dict[str, list[Episode]] = {}
    for episode in found:
        of.setdefault(episode.first["incident"], []).append(episode)
    every = []
    for mine in of.values():
        first = min(mine, key=lambda e: (-LEVELS.index(e.severity), _place(e), e.start))
        rest = [e for e in mine if e is not first]
        about = first.first
        every.append(Cause(about["model"], about["version"], (first, *rest)))
    return sorted(every, key=lambda c: (-LEVELS.index(c.severity), c.end is not None, c.start))


def _place(episode: Episode) -> int:
    """What came first speaks first: inputs before answers, a change before its consequences."""
    kind = "trend" if episode.first["detector"] == "trend" else episode.first["kind"]
    return FIRST.index(kind) if kind in FIRST else len(FIRST)
