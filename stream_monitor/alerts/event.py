"""
The alert event: one JSON record on `alerts`.

Rule of the file: names and order are those of the contract. An id is a hash of what the alert is
about, so the same log gives the same ids.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import msgspec

from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey, Direction, Kind, Level, Verdict

Status = Literal["firing", "updated", "resolved"]


class Window(msgspec.Struct, frozen=True):
    start: str
    end: str
    count: int


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
    summary: str
    evidence: dict[str, Any]
    labels: dict[str, str]
    annotations: dict[str, str]


def _hash(parts: list[Any]) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()


def fingerprint(key: AlertKey) -> str:
    """
    Identifies what an alert is about, the same in every episode: blake2b-128 of the JSON array of
    its model, version, segment, kind, subject and detector, as in the event.

    >>> len(fingerprint(AlertKey("m", "1", "", "performance", "accuracy", "threshold")))
    32
    """
    return _hash([key.model, key.version, _segment(key), key.kind, key.subject, key.detector])


def _segment(key: AlertKey) -> dict[str, str] | None:
    name, _, value = key.segment.partition("=")
    return {name: value} if key.segment else None


def alert_of(
    verdict: Verdict, status: Status, severity: Level, starts_ms: int, ends_ms: int | None, n: int
) -> Alert:
    """The event of the `n`-th transition of an episode that began at `starts_ms`."""
    key, mark = verdict.key, fingerprint(verdict.key)
    starts_at = rfc3339(starts_ms)
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
        window=Window(
            rfc3339(verdict.window.start_ms), rfc3339(verdict.window.end_ms), verdict.window.count
        ),
        starts_at=starts_at,
        ends_at=None if ends_ms is None else rfc3339(ends_ms),
        summary=verdict.summary,
        evidence=verdict.evidence,
        labels={
            "alertname": f"Model{key.kind.title().replace('_', '')}",
            "model": key.model,
            "version": key.version,
            "severity": severity,
        },
        annotations={"summary": verdict.summary, **verdict.annotations},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def encode(alert: Alert) -> bytes:
    """The value of the record."""
    return msgspec.json.encode(alert)
