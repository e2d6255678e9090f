"""
The families of series of segments, beside their performance metrics, which `built_in.py` makes of
those of the model.

Rule of the file: one entry per family, in the order of export.
"""

from __future__ import annotations

from stream_monitor.metrics.metric import Metric, MetricType


def _model(name: str, kind: MetricType, text: str, *labels: str) -> Metric:
    return Metric(f"model_{name}", kind, ("model", "version", *labels), text)


OF_SEGMENTS: tuple[Metric, ...] = (
    _model("segment_predictions_total", "counter", "Served predictions of a segment.", "segment"),
    _model(
        "segment_traffic_ratio",
        "gauge",
        "Share of a segment among the predictions that have a value of this name; the difference "
        "between two windows is its change.",
        "segment",
        "window",
    ),
    _model(
        "segment_positive_ratio",
        "gauge",
        "Share of positive answers of a binary model, with a label or without one.",
        "segment",
        "window",
    ),
    _model(
        "segment_prediction_mean",
        "gauge",
        "Mean of the predictions of a regression.",
        "segment",
        "window",
    ),
    _model(
        "segment_missing_ratio",
        "gauge",
        "Share of the newest 200 rows of a segment without this feature; absent if it was never "
        "missing there.",
        "segment",
        "feature",
    ),
    _model(
        "segment_violations_total",
        "counter",
        "Values of a segment that broke a rule of data quality.",
        "segment",
        "feature",
        "rule",
    ),
    _model(
        "segment_drift_score",
        "gauge",
        "Distance of the newest 1,000 rows of a segment from its first ones.",
        "segment",
        "feature",
        "method",
    ),
    _model(
        "segment_drift_detected",
        "gauge",
        "1 while any feature (`data_drift`), the score or prediction (`prediction_drift`) or the "
        "errors (`concept_drift`) of a segment have drifted, else 0.",
        "segment",
        "kind",
    ),
    _model(
        "segment_gap",
        "gauge",
        "How much worse a segment is than the others of its name together.",
        "segment",
        "metric",
    ),
    _model("segment_gap_lower", "gauge", "Lower end of its interval.", "segment", "metric"),
    _model("segment_gap_upper", "gauge", "Upper end of its interval.", "segment", "metric"),
    _model(
        "worst_segment_gap_lower",
        "gauge",
        "The greatest lower end of all gaps of a model version; `model_worst_segment_gap` has its "
        "segment.",
        "metric",
    ),
    _model(
        "worst_segment_gap",
        "gauge",
        "The gap with the greatest lower end, and its segment.",
        "segment",
        "metric",
    ),
    _model(
        "fairness_rate_ratio",
        "gauge",
        "Share of positive answers, and true and false positive rates, of a group.",
        "segment",
        "rate",
    ),
    _model(
        "fairness",
        "gauge",
        "A group compared with the reference: a difference, or the ratio of disparate impact.",
        "segment",
        "metric",
    ),
    _model("fairness_lower", "gauge", "Lower end of its interval.", "segment", "metric"),
    _model("fairness_upper", "gauge", "Upper end of its interval.", "segment", "metric"),
)
