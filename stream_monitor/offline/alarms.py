"""
Alarms of two folds of one log, side by side.

Rule of the file: two alarms are the same if model, version, segment, kind and subject are, whatever
found them, and they fire at the same time or within `NEAR_MS` of each other. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Any, NamedTuple

from stream_monitor.alerts.event import fingerprint
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.offline.episodes import episodes
from stream_monitor.times import DAY_MS, HOUR_MS, rfc3339

NEAR_MS = HOUR_MS
"""Two alarms that are so near may be one that was found earlier, and ended."""


class Alarm(NamedTuple):
    """One alert, from its firing to its end; `end_ms` is None while it fires."""

    model: str
    version: str
    segment: str
    """`name=value`, or empty."""
    kind: str
    subject: str
    detector: str
    severity: str
    start_ms: int
    end_ms: int | None
    summary: str
    first: str = ""
    """Of an alarm about many signals the one that it named first, when it began."""

    @property
    def about(self) -> tuple[str, str, str, str, str]:
        """What it is about, whatever found it."""
        return self.model, self.version, self.segment, self.kind, self.subject


class Beside(NamedTuple):
    """An alarm that was, that would have been, or both."""

    was: Alarm | None
    would: Alarm | None

    @property
    def start_ms(self) -> int:
        """When the first of the two began."""
        return min(a.start_ms for a in self if a is not None)

    @property
    def where(self) -> str:
        """`both`, `only was` or `only would`."""
        return "only would" if self.was is None else "only was" if self.would is None else "both"


def ms_of(text: str) -> int:
    """
    Milliseconds of RFC 3339 text.

    >>> ms_of("2025-10-09T08:53:20.123Z")
    1760000000123
    """
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def alarms_of(events: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """The alarms of alert events, in the order in which they began."""
    found = []
    for episode in episodes(events):
        first = episode.first
        segment = next((f"{k}={v}" for k, v in (first["segment"] or {}).items()), "")
        found.append(
            Alarm(
                first["model"],
                first["version"],
                segment,
                first["kind"],
                first["subject"],
                first["detector"],
                episode.severity,
                ms_of(episode.start),
                None if episode.end is None else ms_of(episode.end),
                first["summary"],
                _named_first(first),
            )
        )
    return sorted(found, key=lambda a: a.start_ms)


def _named_first(event: Mapping[str, Any]) -> str:
    contributors = (event.get("evidence") or {}).get("contributors") or [{"subject": ""}]
    return str(contributors[0]["subject"])


def firing_now(alerts: Alerts) -> list[dict[str, Any]]:
    """What fires in a stored state, as the events that would have told it."""
    found = []
    for key, episode in alerts.firing():
        name, _, value = key.segment.partition("=")
        found.append(
            {
                "fingerprint": fingerprint(key),
                "status": "firing",
                "severity": episode.severity,
                "kind": key.kind,
                "model": key.model,
                "version": key.version,
                "segment": {name: value} if key.segment else None,
                "subject": key.subject,
                "detector": key.detector,
                "starts_at": rfc3339(episode.starts_ms),
                "ends_at": None,
                "summary": "" if episode.told is None else episode.told.summary,
            }
        )
    return found


def side_by_side(were: Sequence[Alarm], would: Sequence[Alarm]) -> list[Beside]:
    """
    Each alarm of one fold beside that of the other, in the order in which they began.

    Examples
    --------
    >>> a = Alarm("m", "1", "", "latency", "latency", "x", "warning", 0, 60_000, "slow")
    >>> rows = side_by_side(
    ...     [a], [a._replace(detector="y", start_ms=9_000), a._replace(kind="volume")]
    ... )
    >>> [row.where for row in rows]
    ['both', 'only would']
    """
    rest: dict[tuple[str, ...], list[Alarm]] = defaultdict(list)
    for alarm in would:
        rest[alarm.about].append(alarm)
    rows = []
    for was in were:
        others = rest[was.about]
        met = next((other for other in others if _meet(was, other)), None)
        if met is not None:
            others.remove(met)
        rows.append(Beside(was, met))
    rows += [Beside(None, alarm) for others in rest.values() for alarm in others]
    return sorted(rows, key=lambda row: row.start_ms)


def _meet(a: Alarm, b: Alarm) -> bool:
    ends = [inf if x.end_ms is None else x.end_ms + NEAR_MS for x in (a, b)]
    return a.start_ms <= ends[1] and b.start_ms <= ends[0]


class Count(NamedTuple):
    """How many alarms of a model began while it was compared, in each fold."""

    model: str
    days: float
    """How long it was compared."""
    was: int
    would: int
    both: int

    def a_day(self, alarms: int) -> float:
        """Alarms a day."""
        return alarms / self.days if self.days else 0.0


def counts(rows: Iterable[Beside], judged: Mapping[str, int], end_ms: int) -> list[Count]:
    """
    How many alarms of each model began; those that fired before do not count.

    Parameters
    ----------
    rows : iterable of Beside
    judged : mapping of str to int
        By model: from when on it is compared, ms.
    end_ms : int, ms
        The end of the log.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        model = next(a.model for a in row if a is not None)
        began = [a is not None and a.start_ms >= judged.get(model, 0) for a in row]
        found[model].update(
            was=began[0],
            would=began[1],
            both=all(began),  # True counts as 1
        )
    return [
        Count(
            model,
            max(end_ms - from_ms, 0) / DAY_MS,
            found[model]["was"],
            found[model]["would"],
            found[model]["both"],
        )
        for model, from_ms in sorted(judged.items())
    ]
