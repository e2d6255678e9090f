"""
The alert event: one JSON record on `alerts`.

Rule of the file: names and order are those of the contract. An id is a hash of what the alert is
about, so the same log gives the same ids.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import Any, Literal

import msgspec

from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey, Direction, Kind, Level, Span, Verdict

Status = Literal["firing", "updated", "resolved"]


class Window(msgspec.Struct, frozen=True):
    start: str | None
    end: str | None
    """Event times; None: only the number of rows is known."""
    count: int


class Standing(msgspec.Struct, kw_only=True):
    """What an alert is to its incident, and what people have said about it."""

    incident: str
    primary: bool = True
    notify: bool = True
    muted_until_ms: int | None = None
    acknowledged_by: str | None = None
    false_alarm: bool = False


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One transition of an episode."""

    id: str
    fingerprint: str
    status: Status
    severity: Level
    kind: Kind
    model: str
    version: str
    segment: dict[str, str] | None
    subject: str
    detector: str
    value: float | None
    threshold: float | None
    reference: str
    direction: Direction | None
    window: Window
    starts_at: str
    ends_at: str | None
    incident: str
    primary: bool
    """It opened its incident, or made it more severe."""
    notify: bool
    """A person is to be told of this step."""
    muted_until: str | None
    acknowledged_by: str | None
    false_alarm: bool
    summary: str
    evidence: dict[str, Any]
    labels: dict[str, str]
    annotations: dict[str, str]


def _hash(parts: list[Any]) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


@lru_cache(maxsize=20_000)
def fingerprint(key: AlertKey) -> str:
    """
    Identifies what an alert is about, the same in every episode: blake2b-128 of the JSON array of
    its model, version, segment, kind, subject and detector, as in the event.

    >>> len(fingerprint(AlertKey("m", "1", "", "performance", "accuracy", "threshold")))
    32
    """
    return _hash([key.model, key.version, _segment(key), key.kind, key.subject, key.detector])


def incident_of(mark: str, starts_ms: int) -> str:
    """
    Id of the incident that an alert opens: blake2b-128 of the JSON array of its fingerprint and
    `starts_at`.

    >>> len(incident_of("1e6a331e0b2a661a342bf9c381499421", 1_760_000_000_123))
    32
    """
    return _hash([mark, rfc3339(starts_ms)])


def _segment(key: AlertKey) -> dict[str, str] | None:
    name, _, value = key.segment.partition("=")
    return {name: value} if key.segment else None


def _window(span: Span) -> Window:
    if not span.end_ms:
        return Window(None, None, span.count)
    return Window(rfc3339(span.start_ms), rfc3339(span.end_ms), span.count)


def alert_of(
    verdict: Verdict,
    status: Status,
    severity: Level,
    starts_ms: int,
    ends_ms: int | None,
    n: int,
    standing: Standing | None = None,
) -> Alert:
    """
    The event of the `n`-th transition of an episode that began at `starts_ms`.

    Without a standing it is the only alert of its incident.
    """
    key, mark = verdict.key, fingerprint(verdict.key)
    starts_at = rfc3339(starts_ms)
    standing = standing or Standing(incident=incident_of(mark, starts_ms))
    muted_ms = standing.muted_until_ms
    return Alert(
        id=_hash([mark, starts_at, status, n]),
        fingerprint=mark,
        status=status,
        severity=severity,
        kind=key.kind,
        model=key.model,
        version=key.version,
        segment=_segment(key),
        subject=key.subject,
        detector=key.detector,
        value=_finite(verdict.value),
        threshold=_finite(verdict.threshold),
        reference=verdict.baseline_id,
        direction=verdict.direction,
        window=_window(verdict.window),
        starts_at=starts_at,
        ends_at=None if ends_ms is None else rfc3339(ends_ms),
        incident=standing.incident,
        primary=standing.primary,
        notify=standing.notify,
        muted_until=None if muted_ms is None else rfc3339(muted_ms),
        acknowledged_by=standing.acknowledged_by,
        false_alarm=standing.false_alarm,
        summary=verdict.summary,
        evidence=verdict.evidence,
        labels={
            "alertname": f"Model{key.kind.title().replace('_', '')}",
            "model": key.model,
            "version": key.version,
            "severity": severity,
            "incident": standing.incident,
        },
        annotations={"summary": verdict.summary, **verdict.annotations},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def encode(alert: Alert) -> bytes:
    """The value of the record."""
    return msgspec.json.encode(alert)
