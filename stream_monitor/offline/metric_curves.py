"""
The metrics of a report over time, each with its limit and its reference.

Rule of the file: text in, text out. A limit is what the configuration or an alert says; a reference
is the baseline, or the first labelled rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stream_monitor.alerts.wording import apart
from stream_monitor.offline.alarms import ms_of
from stream_monitor.offline.chart import Level, Mark, curve
from stream_monitor.offline.episodes import Cause, Episode
from stream_monitor.offline.replay import Point
from stream_monitor.offline.witness import Witness
from stream_monitor.times import rfc3339

MAIN_METRICS = ("accuracy", "mae")
"""The metric that stands for a model: the first of these that exists."""
LABELS_MIN = 100
"""A curve begins where its window has so many rows: the first ones jump by chance."""
GREATER_IS_WORSE = ("mae", "rmse", "log_loss", "brier_score", "calibration_error")


class Curves:
    """The metrics of all versions over time."""

    def __init__(
        self,
        summary: Mapping[str, Any],
        points: Iterable[Point],
        found: Iterable[Episode],
        witness: Witness,
    ) -> None:
        self.witness = witness
        self.windows: dict[tuple[str, str], str] = {}
        """By version: the window of its points."""
        self.limits: dict[tuple[str, str, str], float] = {}
        """By version and metric: the limit that an alert was about."""
        self.of: dict[tuple[str, str], list[Point]] = {}
        for point in points:
            self.of.setdefault((point.model, point.version), []).append(point)
        for model, inside in summary["models"].items():
            for version, v in inside["versions"].items():
                self.windows[model, version] = next(iter(v["windows"]), "")
        for e in found:
            first = e.first
            at = first["model"], first["version"], first["subject"]
            if (
                first["detector"] == "threshold"
                and first["segment"] is None
                and e.told["threshold"] is not None
                and first["severity"] != "info"
            ):
                self.limits.setdefault(at, e.told["threshold"])

    def main_metric(self, at: tuple[str, str]) -> str | None:
        """The metric that stands for a version."""
        points = self.of.get(at, ())
        return next((m for m in MAIN_METRICS if any(m in p.metrics for p in points)), None)

    def metrics(self, at: tuple[str, str]) -> list[str]:
        """The metrics that a version has over time, the main one first."""
        names = dict.fromkeys(m for p in self.of.get(at, ()) for m in p.metrics)
        return sorted(names, key=lambda m: m != self.main_metric(at))

    def draw(self, at: tuple[str, str], metric: str, marks: Sequence[Mark] = ()) -> str:
        """The curve of a metric."""
        known = [p for p in self.of[at] if metric in p.metrics]
        points = [p for p in known if p.labels >= LABELS_MIN] or known
        return curve(metric, self.windows.get(at, ""), points, self._levels(at, metric), marks)

    def main(self, cause: Cause, marks: Sequence[Mark]) -> str:
        """The curve of the main metric of the version of a cause; empty if there is none."""
        at = cause.model, cause.version
        metric = self.main_metric(at)
        return "" if metric is None else self.draw(at, metric, marks)

    def _levels(self, at: tuple[str, str], metric: str) -> list[Level]:
        watch = self.witness.watched.get(at)
        found = []
        if watch is not None:
            for end, value in watch.limits.get(metric, ()):
                found.append(Level(value, f"limit ({end})", "limit"))
            if metric in watch.reference:
                value = watch.reference[metric]
                found.append(Level(value, f"reference ({watch.reference_is})", "reference"))
        if (*at, metric) in self.limits and not any(level.kind == "limit" for level in found):
            found.append(Level(self.limits[*at, metric], "limit (of the alert)", "limit"))
        return found

    def harm(self, cause: Cause) -> str:
        """How far the main metric went while a cause lasted; empty if it is not known."""
        at = cause.model, cause.version
        metric, watch = self.main_metric(at), self.witness.watched.get(at)
        if metric is None or watch is None or metric not in watch.reference:
            return ""
        end_ms = float("inf") if cause.end is None else ms_of(cause.end)
        mine = [
            p
            for p in self.of[at]
            if metric in p.metrics and ms_of(cause.start) <= p.time_ms <= end_ms
        ]
        if not mine:
            return ""
        sign = 1 if metric in GREATER_IS_WORSE else -1
        worst = max(mine, key=lambda p: sign * p.metrics[metric])
        was, now = apart(watch.reference[metric], worst.metrics[metric])
        clock = rfc3339(worst.time_ms)[:16].replace("T", " ")
        return (
            f"{metric} was {was} over {watch.reference_is}; at its worst it was {now} over "
            f"{self.windows.get(at, '')} ({clock})"
        )
