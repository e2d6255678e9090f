"""
What a model version shows: samples for Prometheus, and its part of `summary.json`.

Rule of the file: it only reads. Undefined values are left out.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.detectors.base import EVIDENCE
from stream_monitor.metrics.samples import AnySample, HistogramSample, Sample
from stream_monitor.monitors import drift, quality, readings
from stream_monitor.monitors.distances import distances
from stream_monitor.monitors.estimate_verdicts import estimate_samples, estimate_summary
from stream_monitor.monitors.evidence_verdicts import GROUPS
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.performance_windows import ALL, PerformanceWindows
from stream_monitor.monitors.releases import NOT_THERE, Release
from stream_monitor.monitors.segment_exposition import drift_samples, segment_samples
from stream_monitor.monitors.thresholds import judged_metrics, newest_rows
from stream_monitor.monitors.version import Version
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.stats.binning import is_one_value
from stream_monitor.stats.quantiles import quantile_of_bins
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey
from stream_monitor.windows.names import duration_ms

QUANTILES = (0.25, 0.5, 0.75)
HISTOGRAM_FEATURES_MAX = 20


def version_samples(
    version: Version, firing: Container[AlertKey] = (), release: Release = NOT_THERE
) -> Iterator[AnySample]:
    """
    Every sample of one model version; `firing` are the alerts that fire, `release` what
    `lifecycle` says of it.
    """
    names = (version.model, version.name)
    volume = version.volume
    about = (version.baseline_id[:12], *version.performance.positive_class)
    yield Sample("model_info", (*names, *about, release.revision, release.stage), 1)
    yield Sample("model_predictions_total", names, volume.predictions + volume.failures)
    yield Sample("model_prediction_errors_total", names, volume.failures)
    yield Sample("model_labels_total", names, version.labels)
    if volume.latency_counts.sum():
        yield HistogramSample(
            "model_prediction_latency_seconds",
            names,
            tuple(volume.latency_counts.tolist()),
            volume.latency_sum_s,
        )
    yield from _performance(version, names)
    yield from estimate_samples(version.context, version.estimate, version.watermark_ms)
    yield from _latency(version, names)
    for inputs in (version.features, version.outputs):
        yield from _inputs(version, inputs, names, firing)
    yield from _signals(version, names, firing)
    yield from _anomalies(version, names)
    if version.segments is not None:
        for segment, windows in version.segments:
            yield from _windows(
                windows, "model_segment_", (*names, segment), version.settings.windows
            )
        yield from segment_samples(version.context, version.segments, version.performance, names)
    yield from _evidence(version, names)
    if version.custom is not None:
        yield from version.custom.samples(names)


def _windows(
    windows: PerformanceWindows, prefix: str, labels: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[Sample]:
    """Metrics of a population in each window, with its support."""
    for window in names:
        metrics, span = windows.window(window)
        for metric, value in metrics.items():
            yield Sample(prefix + metric, (*labels, window), value)
        if span.count:
            yield Sample(f"{prefix}window_labels", (*labels, window), span.count)
            yield Sample(
                f"{prefix}window_end_timestamp_seconds", (*labels, window), span.end_ms / 1e3
            )


def _anomalies(version: Version, names: tuple[str, str]) -> Iterator[Sample]:
    for feature, n in version.patterns.count.items():
        yield Sample("model_anomalies_total", (*names, feature, "pattern"), n)
    if version.performance.trend.state.found:
        yield Sample(
            "model_anomalies_total",
            (*names, "__error__", "trend"),
            version.performance.trend.state.found,
        )


def _performance(version: Version, names: tuple[str, str]) -> Iterator[Sample]:
    if version.performance.windows is None:
        return
    yield from _windows(version.performance.windows, "model_", names, version.settings.windows)
    yield from _intervals(version, version.performance.windows, names)
    for window in version.settings.windows:
        _, span = version.performance.window(window, "accuracy")
        coverage = _coverage(version, window, span.start_ms, span.end_ms, span.count)
        if coverage is not None:
            yield Sample("model_label_coverage_ratio", (*names, window), coverage)


def _intervals(
    version: Version, windows: PerformanceWindows, names: tuple[str, str]
) -> Iterator[Sample]:
    """
    Intervals of all metrics of the newest rows, and elsewhere of those that a threshold judges.
    """
    newest, until_ms = newest_rows(version.settings), version.performance.maturity.until_ms
    for window in version.settings.windows:
        judged = judged_metrics(version.settings, window)
        if window != newest and not judged:
            continue
        for metric, ends in windows.intervals(window, until_ms).items():
            if window == newest or metric in judged:
                for name, end in zip(("lower", "upper"), ends, strict=True):
                    if math.isfinite(end):
                        yield Sample(f"model_metric_{name}", (*names, metric, window), end)


def _coverage(
    version: Version, window: str, start_ms: int, end_ms: int, labels: int
) -> float | None:
    """
    Share of the predictions between the window's bounds that have a label. For `last_N` the bounds
    are those of the panes around them, where both counts have the same rows.
    """
    windows = version.performance.windows
    if not labels or windows is None:
        return None
    if duration_ms(window) is None:
        sums, start_ms, end_ms = windows.state.panes.window(end_ms, end_ms - start_ms)
        labels = int(sums[0])
    rows = version.volume.rows_between(start_ms, end_ms)
    return min(labels / rows, 1.0) if rows else None


def _latency(version: Version, names: tuple[str, str]) -> Iterator[Sample]:
    for window in version.settings.windows:
        duration = duration_ms(window)
        if duration is not None:
            for q, seconds in version.volume.quantiles(version.watermark_ms, duration):
                yield Sample("model_latency_seconds", (*names, f"{q:g}", window), seconds)


def _inputs(
    version: Version, inputs: Inputs, names: tuple[str, str], firing: Container[AlertKey]
) -> Iterator[AnySample]:
    found, _, _ = inputs.window(version.watermark_ms, version.window_ms())
    for feature, now in found.items():
        if now.rows:
            yield Sample("model_feature_missing_ratio", (*names, feature), now.missing / now.rows)
        assert inputs.profile is not None
        profile = inputs.profile.features[feature]
        if now.mean is not None:
            yield Sample("model_feature_mean", (*names, feature), now.mean)
            for q in QUANTILES:
                value_at = quantile_of_bins(
                    now.counts, np.array(profile.edges), q, whole=profile.whole
                )
                if value_at is not None:
                    yield Sample("model_feature_quantile", (*names, feature, f"{q:g}"), value_at)
        for method, value in distances(profile, now).items():
            yield Sample("model_drift_score", (*names, feature, method), value)
            threshold = version.settings.drift.thresholds.get(method)
            if threshold:
                yield Sample("model_drift_ratio", (*names, feature, method), value / threshold)
                yield Sample(
                    "model_drift_detected",
                    (*names, feature, method),
                    float(drift.alert_of(version.context, feature, method) in firing),
                )
    yield from _totals(inputs, names)


def _totals(inputs: Inputs, names: tuple[str, str]) -> Iterator[AnySample]:
    for feature, rule, n in readings.violations(inputs):
        yield Sample("model_data_quality_violations_total", (*names, feature, rule), n)
    for feature, n in readings.points(inputs):
        yield Sample("model_anomalies_total", (*names, feature, "point"), n)
    if inputs.profile is not None and len(inputs.layout.numeric) <= HISTOGRAM_FEATURES_MAX:
        for feature in inputs.layout.numeric:
            counts, total = readings.histogram(inputs, feature)
            if counts.sum():
                bounds, shown = buckets(np.array(inputs.profile.features[feature].edges), counts)
                yield HistogramSample(
                    "model_feature_values", (*names, feature), shown, total, bounds
                )


def buckets(edges: Float, counts: Float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """
    Upper bounds as Prometheus has them (a bucket holds its bound) and the counts between them: the
    bin of one value ends with it.

    >>> buckets(np.array([0.0, np.nextafter(0.0, 1.0), 5.0]), np.array([1.0, 7.0, 2.0, 3.0]))
    ((0.0, 5.0), (8.0, 2.0, 3.0))
    """
    one = is_one_value(edges)
    begins = np.append(one, False)
    bounds = np.where(np.append(False, one), np.roll(edges, 1), edges)[~begins[: len(edges)]]
    shown = np.diff(
        np.append(0.0, np.append(np.cumsum(counts)[:-1][~begins[: len(edges)]], counts.sum()))
    )
    return tuple(bounds.tolist()), tuple(shown.tolist())


def _signals(
    version: Version, names: tuple[str, str], firing: Container[AlertKey]
) -> Iterator[Sample]:
    for subject, signal in version.signals.items():
        for method, detector in signal.detectors.items():
            yield Sample("model_drift_score", (*names, subject, method), detector.score)
            yield Sample(
                "model_drift_detected",
                (*names, subject, method),
                float(drift.alert_of(version.context, subject, method) in firing),
            )
            threshold = signal.threshold(method)
            if threshold:
                yield Sample(
                    "model_drift_ratio", (*names, subject, method), detector.score / threshold
                )


def _evidence(version: Version, names: tuple[str, str]) -> Iterator[Sample]:
    allowed = 1 / (version.settings.days_per_alarm * version.sharers())
    yield Sample("model_alarm_budget_per_day", names, allowed)
    for (kind, _), group in zip(GROUPS, version.drifts, strict=True):
        if version.segments is not None and group.sliced is not None:
            yield from drift_samples(version.segments, kind, group.sliced, names)
        if group.evidence is not None:
            drifted = {w.name for w, _ in group.evidence.open()}
            for subject, days, bound in group.scores():
                of = (*names, subject, EVIDENCE)
                yield Sample("model_drift_score", of, days)
                yield Sample("model_drift_ratio", of, days / bound)
                yield Sample("model_drift_detected", of, float(subject in drifted))


def version_summary(version: Version, waiting: Mapping[str, int]) -> dict[str, Any]:
    """The part of `summary.json` of one model version."""
    windows: dict[str, Any] = {}
    for window in (*version.settings.windows, ALL):
        metrics, span = version.performance.window(window)
        if span.count:
            coverage = _coverage(version, window, span.start_ms, span.end_ms, span.count)
            found = {
                "start": rfc3339(span.start_ms),
                "end": rfc3339(span.end_ms),
                "labels": span.count,
                **({} if coverage is None else {"coverage": coverage}),
                **metrics,
            }
            windows[window] = found
    out: dict[str, Any] = {
        "predictions": version.volume.predictions + version.volume.failures,
        "labels": version.labels,
        **waiting,
        "windows": windows,
        "features": {
            name: _feature(version, name, now)
            for name, now in version.features.window(version.watermark_ms, version.window_ms())[
                0
            ].items()
        },
    }
    if opinions := _opinions(version):
        out["second_opinions"] = opinions
    if version.performance.task is not None:
        out["task"] = version.performance.task
        out["task_source"] = "found" if version.settings.task == "auto" else "configured"
    if version.performance.task == "binary":
        positive, source = version.performance.positive_class
        out["positive_class"], out["positive_class_source"] = positive or None, source or None
        if unexpected := version.performance.counted.reading().unexpected:
            out["unexpected_classes"] = list(unexpected)
    out["estimate"] = estimate_summary(version.context, version.estimate, version.watermark_ms)
    if version.baseline_id:
        out["baseline"] = version.baseline_id
    if version.features.profile is not None and (
        broken := quality.breaches(version.features.profile, version.settings)
    ):
        out["broken_rules"] = broken
    return out


def _opinions(version: Version) -> dict[str, dict[str, int]]:
    """By detector named in the configuration: its signals and values, and how often it fired."""
    found: dict[str, dict[str, int]] = {}
    for signal in version.signals.values():
        for method in signal.detectors:
            of = found.setdefault(method, {"signals": 0, "values": 0, "firings": 0})
            of["signals"] += 1
            of["values"] += signal.state.rows
            of["firings"] += signal.state.firings.get(method, 0)
    return found


def _feature(version: Version, name: str, now: Windowed) -> dict[str, Any]:
    assert version.features.profile is not None
    out: dict[str, Any] = {"drift": distances(version.features.profile.features[name], now)}
    if now.rows:
        out["missing_ratio"] = now.missing / now.rows
    out["rows"] = int(now.counts.sum())
    if now.mean is not None:
        out["mean"] = now.mean
    signal = version.signals.get(name)
    if signal is not None:
        out["drift"] |= {method: d.score for method, d in signal.detectors.items()}
    for subject, days, _ in version.features.drift.scores():
        if subject == name:
            out["drift"][EVIDENCE] = days
    return out
