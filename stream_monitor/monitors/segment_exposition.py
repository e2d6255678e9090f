"""
What segments show beside their performance metrics: traffic, broken fields, drift, gaps and
fairness.

Rule of the file: it only reads. What has too few rows is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors import segment_verdicts
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.fairness import RATES, compared
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.segment_counts import (
    Counts,
    mean_prediction,
    rows_of,
    selection_of,
)
from stream_monitor.monitors.segment_drift import SegmentDrift
from stream_monitor.monitors.segments import Segments
from stream_monitor.stats import divergence
from stream_monitor.windows.names import duration_ms

Names = tuple[str, str]


def segment_samples(
    context: Context, segments: Segments, performance: Performance, names: Names
) -> Iterator[Sample]:
    """Samples of all segments of a version."""
    yield from _traffic(context, segments, performance, names)
    yield from _fields(segments, names)
    found = segment_verdicts.counts(context, segments, performance)
    yield from _gaps(context, segments, found, names)
    yield from _fairness(context, segments, found, names)


def drift_samples(
    segments: Segments, kind: str, sliced: SegmentDrift, names: Names
) -> Iterator[Sample]:
    """Whether any signal of a group has an open drift, by segment with detectors."""
    for n, evidence in sorted(sliced.evidence.items()):
        found = any(drifted.open for drifted in evidence.drifted.values())
        labels = (*names, segments.name_of(n), kind)
        yield Sample("model_segment_drift_detected", labels, float(found))


def _traffic(
    context: Context, segments: Segments, performance: Performance, names: Names
) -> Iterator[Sample]:
    traffic, positive = segments.traffic, performance.positive_class[0]
    durations = [(w, d) for w in context.settings.windows if (d := duration_ms(w)) is not None]
    for group in segments.groups().values():
        here = [n for n in group.tolist() if n in traffic.rows]
        for n in here:
            labels = (*names, segments.name_of(n))
            yield Sample("model_segment_predictions_total", labels, traffic.rows[n])
        for window, duration in durations:
            rows = {n: rows_of(traffic, n, duration) for n in here}
            for n in here if any(rows.values()) else ():
                shown = (*names, segments.name_of(n), window)
                yield Sample("model_segment_traffic_ratio", shown, rows[n] / sum(rows.values()))
                if positive:
                    share = selection_of(traffic, n, duration, positive)
                    if share.total:
                        ratio = share.part / share.total
                        yield Sample("model_segment_positive_ratio", shown, ratio)
                elif performance.task == "regression":
                    mean = mean_prediction(traffic, n, duration)
                    if mean is not None:
                        yield Sample("model_segment_prediction_mean", shown, mean)


def _fields(segments: Segments, names: Names) -> Iterator[Sample]:
    for group in segments.groups().values():
        for n in group.tolist():
            labels = (*names, segments.name_of(n))
            for feature, share in segments.quality.missing(n):
                yield Sample("model_segment_missing_ratio", (*labels, feature), share)
            for feature, rule, count in segments.quality.violations(n):
                yield Sample("model_segment_violations_total", (*labels, feature, rule), count)
            for signal, first, now in segments.outputs.compared(n):
                if first.sum() and now.sum():
                    found = float(divergence.psi(first[None], now[None], unbiased=True)[0])
                    if np.isfinite(found):
                        yield Sample("model_segment_drift_score", (*labels, signal, "psi"), found)


def _gaps(
    context: Context, segments: Segments, found: dict[int, Counts], names: Names
) -> Iterator[Sample]:
    worst: dict[str, tuple[float, float, str]] = {}
    for each in segment_verdicts.gaps_of(context, segments, found):
        labels = (*names, segments.name_of(each.segment), each.metric)
        yield Sample("model_segment_gap", labels, each.gap)
        yield Sample("model_segment_gap_lower", labels, each.low)
        yield Sample("model_segment_gap_upper", labels, each.high)
        if each.metric not in worst or each.low > worst[each.metric][0]:
            worst[each.metric] = each.low, each.gap, labels[2]
    for metric, (low, gap, segment) in worst.items():
        yield Sample("model_worst_segment_gap_lower", (*names, metric), low)
        yield Sample("model_worst_segment_gap", (*names, segment, metric), gap)


def _fairness(
    context: Context, segments: Segments, found: dict[int, Counts], names: Names
) -> Iterator[Sample]:
    groups = segments.groups()
    for name, rule in context.settings.fairness.items():
        for n in groups[name].tolist():
            labels = (*names, segments.name_of(n))
            for rate, counted in RATES.items():
                share = found[n].shares.get(counted) if n in found else None
                if share is not None and share.total >= rule.min_rows:
                    value = share.part / share.total
                    yield Sample("model_fairness_rate_ratio", (*labels, rate), value)
        for each in compared(rule, groups[name], found, segments.name_of):
            of = (*names, segments.name_of(each.segment), each.metric)
            yield Sample("model_fairness", of, each.value)
            yield Sample("model_fairness_lower", of, each.low)
            yield Sample("model_fairness_upper", of, each.high)
