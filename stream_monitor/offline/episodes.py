"""
Turns the alert events of a replay into episodes.

Rule of the file: an episode is one fingerprint from its firing to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Episode(NamedTuple):
    """An alert from its firing to its end; `end` is None while it fires."""

    first: Mapping[str, Any]
    severity: str
    start: str
    end: str | None
    updates: int

    @property
    def lane(self) -> str:
        """Subject and detector of the alert; episodes that share both share a line of the chart."""
        return f"{self.first['subject']} ({self.first['detector']})"


def episodes(alerts: Iterable[Mapping[str, Any]]) -> list[Episode]:
    """The episodes of these alert events, in the order in which they began."""
    out: dict[tuple[str, str], Episode] = {}
    for alert in alerts:
        key = alert["fingerprint"], alert["starts_at"]
        known = out.get(key, Episode(alert, alert["severity"], alert["starts_at"], None, 0))
        out[key] = known._replace(
            severity=alert["severity"],
            end=alert["ends_at"],
            updates=known.updates + (alert["status"] == "updated"),
        )
    return list(out.values())
