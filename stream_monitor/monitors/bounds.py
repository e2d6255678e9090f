"""
What the shard says of itself: limits that were reached, labels that nobody takes.

Rule of the file: one alert a limit, however many things lie beyond it; it ends an hour (log time) after the last of them. Most labels of an hour being orphans is one
alert a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.events.join import Join
from stream_monitor.monitors.registry import OTHER, Registry
from stream_monitor.settings import DAY_MS, ModelSettings
from stream_monitor.verdicts import AlertKey, Span, Verdict

HOUR_MS = 3_600_000
UNHEARD_MS = 2 * HOUR_MS
ORPHANS_SHARE, ORPHANS_MIN = 0.5, 100
"""Share of the labels of an hour that may be orphans, and from how many labels on that is judged."""


def hits(registry: Registry, join: Join) -> Counter[str]:
    """Things beyond a limit since the beginning, by the limit."""
    found = Counter(registry.hits)
    found["pending"] = int(join.evicted.sum())
    for version in registry.versions:
        found["features"] += version.features.unknown.get(OTHER, 0)
        found["segments"] += version.segments.overflowed if version.segments is not None else 0
    return Counter({name: n for name, n in found.items() if n})


def retirement(key: AlertKey, settings: ModelSettings, log_ms: int) -> Verdict:
    """Ends what fires for a version that retires."""
    return _end(key, log_ms, f"nobody used this version for {settings.silence_ms / DAY_MS:.3g} days; it is not monitored until somebody does")


def unheard(alerts: Alerts, registry: Registry, changed_ms: int, log_ms: int) -> Iterator[Verdict]:
    """
    Ends what fires without a rule: the configuration changed at `changed_ms`, and for `UNHEARD_MS` since then nothing has judged it, though its model has been used.

    Every rule judges at least once an hour while its model gets what it gets, predictions or labels and predictions.
    """
    if not changed_ms or log_ms - changed_ms < UNHEARD_MS:
        return
    silent = [key for key, episode in alerts.firing() if episode.heard_ms <= changed_ms]
    if not silent:
        return
    used_ms: dict[str, int] = {OTHER: log_ms}
    for version in registry.versions:
        times = [ms for ms in (version.volume.last_prediction_ms, version.volume.last_label_ms) if ms]
        for name in (version.model, f"{version.model}/{version.name}"):
            used_ms[name] = max(used_ms.get(name, 0), min(times, default=0))  # what is judged by labels is not judged without them
    for key in silent:
        name = f"{key.model}/{key.version}" if key.version else key.model
        if used_ms.get(name, 0) - changed_ms >= UNHEARD_MS:
            yield _end(key, log_ms, f"no rule has judged {key.subject} since the configuration changed")


def _end(key: AlertKey, log_ms: int, why: str) -> Verdict:
    return Verdict(
        key=key,
        level="ok",
        clear=True,
        value=0.0,
        threshold=0.0,
        direction=None,
        window=Span(log_ms, log_ms, 0),
        summary=f"{key.model}{' ' + key.version if key.version else ''}: {why}",
        evidence={"guarantee": "none"},
    )


class Bounds:
    """When a limit was last reached, and the labels of the running hour."""

    def __init__(self) -> None:
        self.known: dict[str, list[int]] = {}
        """By limit: things beyond it, and the log time of the last."""
        self.hour = 0
        self.labels: dict[int, list[int]] = {}
        """By model code: labels that left the store and orphans among them, up to the running hour."""

    def judge(self, partition: int, registry: Registry, join: Join, log_ms: int) -> Iterator[Verdict]:
        """Verdicts, once a second of log time."""
        for name, n in hits(registry, join).items():
            known = self.known.setdefault(name, [0, log_ms])
            if n > known[0]:
                known[:] = n, log_ms
            known[0] = min(known[0], n)  # some are counted anew under another configuration
            yield self._limit(partition, name, registry, known, log_ms)
        if log_ms // HOUR_MS > self.hour:
            self.hour = log_ms // HOUR_MS
            for model, gone in join.labels_gone.items():
                now = [gone, join.orphans.get(model, 0)]
                before = self.labels.get(model, [0, 0])
                self.labels[model] = now
                if now[0] - before[0] >= ORPHANS_MIN:
                    yield self._orphans(registry.model_names[model], now[0] - before[0], now[1] - before[1], log_ms)

    @staticmethod
    def _limit(partition: int, name: str, registry: Registry, known: list[int], log_ms: int) -> Verdict:
        limit = getattr(registry.settings.limits, name)
        reached = log_ms - known[1] < HOUR_MS
        what = "predictions were forgotten before their label came" if name == "pending" else f"{name} are counted under {OTHER}"
        return Verdict(
            key=AlertKey(OTHER, "", f"partition={partition}", "data_quality", f"limits.{name}", "threshold"),
            level="warning" if reached else "ok",
            clear=not reached,
            value=float(known[0]),
            threshold=float(limit),
            direction="up",
            window=Span(known[1], log_ms, known[0]),
            summary=f"limits.{name} = {limit:,} is reached in partition {partition} of observations: further {what}",
            evidence={"guarantee": "none"},
        )

    @staticmethod
    def _orphans(model: str, labels: int, orphans: int, log_ms: int) -> Verdict:
        share = orphans / labels
        return Verdict(
            key=AlertKey(model, "", "", "data_quality", "labels", "threshold"),
            level="warning" if share > ORPHANS_SHARE else "ok",
            clear=share <= ORPHANS_SHARE,
            value=share,
            threshold=ORPHANS_SHARE,
            direction="up",
            window=Span(log_ms - HOUR_MS, log_ms, labels),
            summary=f"{model}: {share:.0%} of {labels:,} labels met no prediction of their id before labels.max_delay was over",
            evidence={"labels": labels, "orphans": orphans, "guarantee": "none"},
        )

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {"known": self.known, "hour": self.hour, "labels": self.labels}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Bounds:
        """The bounds of a snapshot."""
        found = cls()
        found.known, found.hour = {k: list(v) for k, v in state["known"].items()}, state["hour"]
        found.labels = {int(k): list(v) for k, v in state["labels"].items()}
        return found
