"""
What a replay remembers for its report: the laws of a signal before and after it drifted, and
labelled rows at the moments that matter.

Rule of the file: it reads the state after a fold and never changes it. What is kept is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.evaluate import Shard
from stream_monitor.inputs.moments import parse_time_ms
from stream_monitor.monitors.distances import distances
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.evidence import Drifted, Evidence
from stream_monitor.monitors.evidence_verdicts import GROUPS, METHOD, contributors, scales
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.one_signal import OneSignal
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.offline.labelled import ROWS_MAX, Labelled, labelled_rows
from stream_monitor.offline.laws import (
    Bin,
    Law,
    bins_of_law,
    bins_of_scheme,
    bins_of_window,
)
from stream_monitor.times import rfc3339

OUTPUTS_MAX, FEATURES_MAX, ROWS_MIN = 3, 3, 200
"""Answers and features that are shown as they are at the end, if their window has enough rows."""
LAWS_MAX, SAMPLES_MAX, VERSIONS_MAX = 300, 40, 60
ERROR_KINDS = ("performance", "calibration", "concept_drift")
"""Kinds of alerts that labelled rows explain."""
MISSING = Bin("missing")


class Watch(NamedTuple):
    """What was watched of a model version, at the end."""

    budget: str
    signals: dict[str, tuple[int, int]]
    """By kind of drift: signals with a detector, and those of them whose evidence counts."""
    rows: int
    """Rows of features that detectors have seen."""
    limits: dict[str, tuple[tuple[str, float], ...]]
    """Configured thresholds: by metric `min`, `max` with their values."""
    reference: dict[str, float]
    """Metrics of the baseline, or of the first labelled rows."""
    reference_is: str


class Witness:
    """Looks on while events are folded."""

    def __init__(self) -> None:
        self.laws: dict[tuple[str, ...], Law] = {}
        """By model, version, kind, signal, and when it changed (RFC 3339), or began to fire."""
        self.samples: dict[tuple[str, ...], Labelled] = {}
        """By model, version, and `first`, `end` or fingerprint and start of an alert."""
        self.at_end: dict[tuple[str, str], list[Law]] = {}
        """By version: answers and features as they are at the end, beside the baseline."""
        self.watched: dict[tuple[str, str], Watch] = {}
        self._waits: dict[tuple[str, str], bool] = {}
        self._open: dict[tuple[str, str, str], bytes] = {}
        """By group: which of its signals had an open drift at the last look."""

    def look(self, shard: Shard) -> None:
        """After a fold, before its alerts are taken away."""
        for version in shard.versions:
            self._first(version)
            self._drifts(version)
        alerts = [msgspec.json.decode(o.value) for o in shard.outbox if o.topic == "alerts"]
        of = {(v.model, v.name): v for v in shard.versions} if alerts else {}
        for alert in alerts:
            found = of.get((alert["model"], alert["version"]))
            if found is not None and alert["status"] != "resolved" and alert["segment"] is None:
                self._alert(found, alert)

    def _first(self, version: Version) -> None:
        """The first block of labelled rows is what later ones are compared with."""
        at = version.model, version.name
        if not self._waits.setdefault(at, len(self._waits) < VERSIONS_MAX):
            return
        if version.performance.pairs >= version.performance.level.block:
            self._waits[at] = False
            self._keep((*at, "first"), labelled_rows(version.performance, None))

    def _keep(self, key: tuple[str, ...], sample: Labelled | None) -> None:
        if sample is not None:
            self.samples[key] = sample

    def _drifts(self, version: Version) -> None:
        """Laws of the drifts that began since the last look."""
        for kind, of in _groups(version):
            streams = _streams(version, of)
            key = version.model, version.name, kind
            now = b"".join(evidence.openings.open.tobytes() for evidence in streams.values())
            if any(now) and self._open.get(key) != now:
                for law in _laws_of_drift(version, kind, of, streams):
                    self._add((*key, law.signal, rfc3339(law.change_ms)), law)
            self._open[key] = now

    def _alert(self, version: Version, alert: Mapping[str, Any]) -> None:
        key = version.model, version.name, alert["kind"]
        if alert["detector"] != METHOD:
            law = _law_of_window(version, alert)
            if law is not None:
                self._add((*key, law.signal, alert["starts_at"]), law)
        of_errors = alert["kind"] in ERROR_KINDS and alert["status"] == "firing"
        if of_errors and sum(len(k) > 3 for k in self.samples) < SAMPLES_MAX:
            rows = _rows_since(version, alert)
            sample = labelled_rows(version.performance, rows)
            self._keep((*key[:2], alert["fingerprint"], alert["starts_at"]), sample)

    def _add(self, key: tuple[str, ...], law: Law) -> None:
        if len(self.laws) < LAWS_MAX:
            self.laws.setdefault(key, law)

    def close(self, shards: Iterable[Shard]) -> None:
        """At the end of the input."""
        for shard in shards:
            for version in shard.versions:
                at = version.model, version.name
                first = self.samples.get((*at, "first"))
                self.watched[at] = _watch(version, first)
                if at in self._waits:
                    self.at_end[at] = _at_end(version)
                    self._keep((*at, "end"), labelled_rows(version.performance, None))


def _groups(version: Version) -> list[tuple[str, DriftGroup]]:
    return [(kind, of) for (kind, _), of in zip(GROUPS, version.drifts, strict=True)]


def _streams(version: Version, of: DriftGroup) -> dict[str, Evidence]:
    """The detectors of a group: of all rows (named ""), and of each segment."""
    if of.evidence is None:
        return {}
    found = {"": of.evidence}
    if version.segments is not None and of.sliced is not None:
        names = version.segments.name_of
        found |= {names(n): e for n, e in sorted(of.sliced.evidence.items())}
    return found


def _laws_of_drift(
    version: Version, kind: str, of: DriftGroup, streams: Mapping[str, Evidence]
) -> list[Law]:
    """The laws before and after of all signals of a group that have an open drift."""
    profiles = (version.features.profile, version.outputs.profile)
    scale = scales(profiles, version.errors.scale)
    sliced = [(name, evidence) for name, evidence in streams.items() if name]
    found = []
    for change in contributors(streams[""], scale, sliced):
        opened = streams[change.get("segment", "")].open()
        watched, drifted = next(pair for pair in opened if pair[0].name == change["subject"])
        if isinstance(of, OneSignal):
            bins = bins_of_scheme(of.scheme)
        else:
            inputs = version.features if kind == GROUPS[0][0] else version.outputs
            assert inputs.profile is not None
            bins = bins_of_law(watched, inputs.profile.features.get(watched.name))
        found.append(_law(drifted, bins, change))
    return found


def _law(drifted: Drifted, bins: Sequence[Bin], change: Mapping[str, Any]) -> Law:
    n = len(bins)
    return Law(
        signal=change["subject"],
        change_ms=drifted.change_ms,
        found_ms=drifted.found_ms,
        change_row=drifted.change_row,
        found_row=drifted.found_row,
        bins=tuple(bins),
        before=tuple(np.maximum(drifted.before[:n], 0.0).tolist()),
        after=tuple(drifted.after[:n].tolist()),
        before_is="before",
        after_is="since the change",
        change=change,
    )


def _law_of_window(version: Version, alert: Mapping[str, Any]) -> Law | None:
    """The baseline and the window of a feature or an output that another detector alarms on."""
    judged = alert["window"]
    end_ms, start_ms = (parse_time_ms(judged[end]) or 0 for end in ("end", "start"))
    length_ms = end_ms - start_ms if judged["count"] else version.window_ms()
    for inputs in (version.features, version.outputs):
        if inputs.profile is not None and alert["subject"] in inputs.profile.features:
            windows, *span = inputs.window(end_ms or version.watermark_ms, length_ms)
            return _beside(inputs, alert["subject"], windows, span, "window of the alert")
    return None


def _beside(
    inputs: Inputs, name: str, windows: Mapping[str, Windowed], span: Sequence[int], is_: str
) -> Law:
    """A feature or an output in its baseline, and in a window."""
    assert inputs.profile is not None
    feature, now = inputs.profile.features[name], windows[name]
    broken = (
        (MISSING, feature.missing, now.missing),
        (Bin("wrong type"), feature.wrong_type, now.wrong_type),
        (Bin("out of range"), feature.out_of_range, now.out_of_range),
    )
    kept = [b for b in broken if b[1] or b[2]]
    bins = bins_of_window(feature, tuple(inputs.layout.categories.get(name, ())))
    return Law(
        signal=name,
        change_ms=span[0],
        found_ms=span[1],
        change_row=0,
        found_row=0,
        bins=(*bins, *(b for b, _, _ in kept)),
        before=(*_counts(now.expected), *(float(x) for _, x, _ in kept)),
        after=(*_counts(now.counts), *(float(x) for _, _, x in kept)),
        before_is="baseline",
        after_is=is_,
        change={},
    )


def _at_end(version: Version) -> list[Law]:
    """Answers, then the features that are farthest from the baseline, in the last window."""
    found = []
    for inputs, most in ((version.outputs, OUTPUTS_MAX), (version.features, FEATURES_MAX)):
        if inputs.profile is None:
            continue
        windows, *span = inputs.window(version.watermark_ms, version.window_ms())
        profiles = inputs.profile.features
        far = {
            name: distances(profiles[name], now, ("js",)).get("js", 0.0)
            + abs(
                now.missing / max(now.rows, 1.0)
                - profiles[name].missing / max(profiles[name].rows, 1)
            )
            for name, now in windows.items()
            if now.counts.sum() >= ROWS_MIN
        }
        names = sorted(far, key=lambda name: (-far[name], name))[:most]
        found += [_beside(inputs, name, windows, span, "at the end") for name in names]
    return found


def _counts(counts: Float) -> list[float]:
    return [float(c) for c in counts]


def _rows_since(version: Version, alert: Mapping[str, Any]) -> int:
    """The labelled rows since errors changed, or those of the window that the alert is about."""
    group = version.calibration if alert["kind"] == "calibration" else version.errors
    evidence = group.evidence
    drifted = None if evidence is None else evidence.drifted.get(group.name)
    if alert["detector"] == METHOD and evidence is not None and drifted is not None:
        return min(evidence.rows - drifted.change_row + group.chunks.rows, ROWS_MAX)
    return min(int(alert["window"]["count"]) or ROWS_MAX, ROWS_MAX)


def _watch(version: Version, first: Labelled | None) -> Watch:
    signals = {}
    for kind, of in _groups(version):
        if of.evidence is not None:
            ready = of.evidence.rows >= of.evidence.detector.warm_rows
            n = len(of.evidence.watched)
            signals[kind] = (n, n if ready else 0)
    built = {k: v for k, v in version.performance.built.items() if k != "labels"}
    thresholds = version.settings.thresholds
    drift = version.features.drift.evidence
    return Watch(
        budget=version.settings.alarm_budget,
        signals=signals,
        rows=0 if drift is None else drift.rows,
        limits={
            metric: tuple(
                (end, value)
                for end, value in (("min", limit.min), ("max", limit.max))
                if value is not None
            )
            for metric, limit in thresholds.items()
        },
        reference=built or ({} if first is None else first.metrics),
        reference_is="the baseline"
        if built
        else ""
        if first is None
        else f"the first {first.rows:,} labelled rows",
    )
