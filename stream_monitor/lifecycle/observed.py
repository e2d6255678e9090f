"""
What EVALUATE wrote about models: alerts, and the history of each version.

Rule of the file: it takes records in any order of their topics, and answers. It keeps the alerts
that fire, and labels and metrics by minute for as long as `history` is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from stream_monitor.alerts.marks import Marks
from stream_monitor.errors import UNREADABLE
from stream_monitor.lifecycle.actions import Firing
from stream_monitor.lifecycle.minutes import Minutes
from stream_monitor.lifecycle.model import ms_of
from stream_monitor.times import DAY_MS, HOUR_MS, MINUTE_MS

KEPT_MS = 31 * DAY_MS
ALERTS_MAX = 50_000
NONE = Minutes()


Clock = Callable[[], int]
"""Milliseconds since 1970."""


class _Alert(msgspec.Struct):
    fingerprint: str
    status: str
    severity: str
    kind: str
    model: str
    version: str
    starts_at: str
    summary: str


class _Minute(msgspec.Struct):
    model: str
    version: str
    start: str
    end: str
    labels: int
    metrics: dict[str, float]


class Observed:
    """
    Alerts and history of all models.

    Examples
    --------
    >>> observed = Observed(lambda: 0)
    >>> observed.take(
    ...     "history",
    ...     b'{"model": "m", "version": "v1.0.0", "start": "1970-01-01T00:01:00Z", '
    ...     b'"end": "1970-01-01T00:02:00Z", "labels": 7, "metrics": {"accuracy": 0.5}}',
    ... )
    >>> observed.labels("m", "v1.0.0", 0), observed.metrics("m", "v1.0.0", 0, 120_000)
    (7, {'accuracy': 0.5, 'labels': 7.0})
    """

    def __init__(self, now_ms: Clock) -> None:
        self._now_ms = now_ms
        self._alerts: dict[str, _Alert] = {}
        self._minutes: dict[str, dict[str, Minutes]] = {}
        """By model and version."""
        self._swept_ms: dict[str, int] = {}
        """By model: when old minutes were last forgotten, in log time."""
        self._marks = Marks()

    def take(self, topic: str, value: bytes | None) -> None:
        """A record of `alerts`, `history` or `lifecycle`."""
        if value is None:
            return
        try:
            if topic == "alerts":
                self._alert(msgspec.json.decode(value, type=_Alert))
            elif topic == "history":
                self._minute(msgspec.json.decode(value, type=_Minute))
            else:
                self._marks.take(value)
        except UNREADABLE:
            return

    def _alert(self, alert: _Alert) -> None:
        self._alerts.pop(alert.fingerprint, None)
        if alert.status != "resolved":
            self._alerts[alert.fingerprint] = alert
            if len(self._alerts) > ALERTS_MAX:
                del self._alerts[next(iter(self._alerts))]

    def _minute(self, m: _Minute) -> None:
        start_ms, end_ms = ms_of(m.start), ms_of(m.end)
        if end_ms - start_ms > MINUTE_MS:
            return  # there is a record for each hour too
        of_version = self._minutes.setdefault(m.model, {})
        of_version.setdefault(m.version, Minutes()).add(start_ms, m.labels, m.metrics)
        if start_ms - self._swept_ms.get(m.model, start_ms - HOUR_MS) >= HOUR_MS:
            self._swept_ms[m.model] = start_ms
            for version, minutes in list(of_version.items()):
                minutes.forget(start_ms - KEPT_MS)
                if not minutes:
                    del of_version[version]

    # ---- answers

    def firing(self, model: str) -> list[Firing]:
        """Alerts of a model that fire, without those that are muted or were called false."""
        now = datetime.fromtimestamp(self._now_ms() / 1e3, UTC)
        return [
            Firing(a.fingerprint, a.kind, a.severity, a.version, ms_of(a.starts_at), a.summary)
            for a in self._alerts.values()
            if a.model == model
            and not any(
                mark.type in ("muted", "false_alarm")
                for mark in self._marks.of(a.fingerprint, a.starts_at, now)
            )
        ]

    def labels(self, model: str, version: str | None, since_ms: int) -> int:
        """Labelled calls since a time, by whole minutes of log time."""
        of_version = self._minutes.get(model, {})
        wanted = of_version.values() if version is None else [of_version.get(version, NONE)]
        return sum(minutes.labels(since_ms) for minutes in wanted)

    def metrics(self, model: str, version: str, since_ms: int, until_ms: int) -> dict[str, float]:
        """Means of the metrics of a version, weighted by labels, and `labels`."""
        return self._minutes.get(model, {}).get(version, NONE).metrics(since_ms, until_ms)
