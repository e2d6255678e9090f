"""
Samples of a shard that belong to no model version: of its alerts, its join and its limits.

Rule of the file: it only reads. A counter is there at 0, because Prometheus would not see its first
increase otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from stream_monitor.alerts.event import Status
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.join.join import Join
from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors import bounds
from stream_monitor.monitors.containment import MONITORS
from stream_monitor.monitors.registry import Registry


def alert_samples(alerts: Alerts, registry: Registry, log_ms: int) -> Iterator[Sample]:
    """
    Alerts that fire, by version and severity, and the incidents that they make up; what people said
    about them; alert events by status; refused alerts.
    """
    by_severity: Counter[tuple[str, tuple[str, str, str]]] = Counter()
    for key, episode in alerts.firing():
        labels: tuple[str, str, str] = (key.model, key.version, episode.severity)
        what = "alerts_muted" if alerts.is_silent(episode) else "alerts_firing"
        by_severity[what, labels] += 1
        if alerts.acknowledged_by(episode, log_ms) is not None:
            by_severity["alerts_acknowledged", labels] += 1
    for incident in alerts.incidents.open.values():
        if incident.shown != "ok":
            labels = (incident.model, incident.version, incident.shown)
            by_severity["incidents_firing", labels] += 1
    for (what, labels), n in by_severity.items():
        yield Sample(f"model_{what}", labels, n)
    in_use = {(v.model, v.name) for v in registry.in_use() if not v.is_idle}
    for names in sorted(in_use | {names for names in alerts.said.false if not names[1]}):
        yield Sample("model_alerts_marked_false_total", names, alerts.said.false[names])
    for status in get_args(Status):
        yield Sample("stream_monitor_alert_events_total", (status,), alerts.counts[status])
    yield Sample("stream_monitor_limit_hits_total", ("alerts",), alerts.refused)


def join_samples(join: Join, partition: int, log_ms: int) -> Iterator[Sample]:
    """Predictions that wait for their label or left without it, and how late a label may be."""
    yield Sample("stream_monitor_join_pending", (), len(join.predictions))
    if (reach_ms := join.reach_ms(log_ms)) is not None:
        yield Sample("stream_monitor_join_reach_seconds", (str(partition),), reach_ms / 1e3)
    yield Sample("stream_monitor_predictions_expired_total", (), int(join.state.expired.sum()))
    yield Sample("stream_monitor_predictions_evicted_total", (), int(join.state.evicted.sum()))


def refusal_samples(registry: Registry, join: Join) -> Iterator[Sample]:
    """Monitors that were switched off, and things that lie beyond a limit."""
    off = Counter(monitor for version in registry.versions for monitor in version.contained.off)
    for monitor in MONITORS:
        yield Sample("stream_monitor_monitor_failures_total", (monitor,), off[monitor])
    hits = bounds.hits(registry, join)
    for limit in bounds.LIMITS:
        yield Sample("stream_monitor_limit_hits_total", (limit,), hits[limit])
