"""
Every metric there is, in one table: name, type, labels, meaning.

Rule of the file: a metric that is not here does not exist. The exporter, the dashboards, the
alerting rules and `docs/metrics.md` read this table and nothing else.

`model_*` metrics are a fold of the log: `model` and `version` are their first labels, and each
series comes from one worker. `stream_monitor_*` metrics belong to the process: when several
partitions report the same series it is their sum. Two gauges carry a `quantile` label; they are of
type `summary`, since Prometheus keeps that label for summaries (`promtool check metrics`), but have
no `_sum` and `_count`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import isfinite
from typing import Literal

from msgspec import Struct

from stream_monitor.errors import ConfigError
from stream_monitor.settings import CoreSettings, CustomMetric

MetricType = Literal["counter", "gauge", "histogram", "summary"]

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RESERVED_LABELS = frozenset({"model", "version", "le", "quantile", "job", "instance", "group"})
SUFFIXES: dict[MetricType, tuple[str, ...]] = {
    "counter": ("_total", "_created"),
    "gauge": (),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("_sum", "_count", "_created"),
}
"""What the names of a family's series end with, besides its own name."""
CUSTOM_PREFIX = "model_custom_"
PSEUDO_FEATURES = ("__prediction__", "__score__", "__error__")


class Metric(Struct, frozen=True):
    """One family of series."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram without +Inf; empty when every series has edges of its own."""


_PERFORMANCE: dict[str, str] = {
    "accuracy": "Share of labelled predictions that were right.",
    "precision": "Precision of the positive class; weighted over classes when multiclass.",
    "recall": "Recall of the positive class; weighted over classes when multiclass.",
    "f1": "Harmonic mean of precision and recall; weighted over classes when multiclass.",
    "roc_auc": "Area under the ROC curve; one-vs-rest macro average when multiclass.",
    "log_loss": "Mean negative log-likelihood of the label, probabilities clipped at 1e-15.",
    "brier_score": "Mean squared error of the probabilities; summed over classes when multiclass.",
    "calibration_error": "Expected calibration error on 10 equal-width bins.",
    "mae": "Mean absolute error, in units of the label.",
    "rmse": "Root mean squared error, in units of the label.",
    "r2": "Coefficient of determination.",
    "bias": "Mean of prediction minus label, in units of the label.",
}
_SUPPORT: dict[str, str] = {
    "label_coverage_ratio": "Share of the window's predictions that have a label.",
    "window_labels": "Labelled predictions in the window.",
    "window_end_timestamp_seconds": "Event time at which the window ends, seconds since the epoch.",
}


def _model(
    name: str, kind: MetricType, text: str, *labels: str, buckets: tuple[float, ...] = ()
) -> Metric:
    return Metric(f"model_{name}", kind, ("model", "version", *labels), text, buckets)


def _process(name: str, kind: MetricType, text: str, *labels: str) -> Metric:
    return Metric(f"stream_monitor_{name}", kind, labels, text)


def _of_models() -> Iterable[Metric]:
    yield _model(
        "info",
        "gauge",
        "1 for each model version that is monitored.",
        "revision",
        "positive_class",
        "positive_class_source",
    )
    yield _model("predictions_total", "counter", "Predictions accepted, failed calls included.")
    yield _model("prediction_errors_total", "counter", "Predictions with status error.")
    yield _model("labels_total", "counter", "Predictions that have got a label.")
    yield _model("alerts_firing", "gauge", "Alert episodes that are firing.", "severity")
    yield _model(
        "prediction_latency_seconds",
        "histogram",
        "Latency of prediction calls.",
        buckets=LATENCY_BUCKETS_S,
    )
    yield _model(
        "latency_seconds",
        "summary",
        "Quantiles of the latency of prediction calls in a window.",
        "quantile",
        "window",
    )
    for name, text in (_PERFORMANCE | _SUPPORT).items():
        yield _model(name, "gauge", text, "window")
    yield _model(
        "drift_score", "gauge", "Statistic of a drift method, in its own unit.", "feature", "method"
    )
    yield _model(
        "drift_ratio",
        "gauge",
        "Drift score divided by its threshold; above 1 is drift.",
        "feature",
        "method",
    )
    yield _model(
        "drift_detected",
        "gauge",
        "1 while the drift method reports drift, else 0.",
        "feature",
        "method",
    )
    yield _model(
        "feature_missing_ratio",
        "gauge",
        "Share of rows in which the feature is missing or null.",
        "feature",
    )
    yield _model("feature_mean", "gauge", "Mean of a numeric feature.", "feature")
    yield _model(
        "feature_quantile", "summary", "Quantiles of a numeric feature.", "feature", "quantile"
    )
    yield _model(
        "feature_values",
        "histogram",
        "Values of a numeric feature on the edges of the reference.",
        "feature",
    )
    yield _model(
        "data_quality_violations_total",
        "counter",
        "Values that broke a rule of data quality.",
        "feature",
        "rule",
    )
    yield _model("anomalies_total", "counter", "Anomalies found.", "feature", "kind")
    for name, text in (_PERFORMANCE | _SUPPORT).items():
        if name != "label_coverage_ratio":  # predictions are not counted by segment
            yield _model(
                f"segment_{name}", "gauge", f"Within a segment: {text}", "segment", "window"
            )


def _of_the_process() -> Iterable[Metric]:
    yield _process("build_info", "gauge", "1; what is running.", "version", "python")
    yield _process(
        "config_info",
        "gauge",
        "1; consumer group of the worker, and hash of the configuration of the evaluation.",
        "group",
        "hash",
    )
    yield _process(
        "ready", "gauge", "1 when all assigned partitions are open and caught up, else 0."
    )
    yield _process(
        "records_total", "counter", "Records by topic and what became of them.", "topic", "outcome"
    )
    yield _process(
        "labels_total",
        "counter",
        "Labels by what became of them; `evicted`: they or their prediction had left a full store.",
        "outcome",
    )
    yield _process(
        "dead_letters_total", "counter", "Records written to dead-letters.", "topic", "reason"
    )
    yield _process(
        "predictions_refused_total",
        "counter",
        "Records of predictions that could not be used, by the model that they name; empty: "
        "none can be read.",
        "model",
    )
    yield _process(
        "consumer_lag_records",
        "gauge",
        "Records in the partition that were not read yet.",
        "topic",
        "partition",
    )
    yield _process(
        "source_wait_seconds_total",
        "counter",
        "Time in which the partition waited for one that is behind in event time.",
        "topic",
        "partition",
    )
    yield _process(
        "log_time_lag_seconds",
        "gauge",
        "Wall clock minus the greatest time folded from the partition.",
        "topic",
        "partition",
    )
    yield _process(
        "join_pending", "gauge", "Predictions that wait for a label or for a correction."
    )
    yield _process(
        "join_reach_seconds",
        "gauge",
        "How late labels may be before limits.pending evicts their prediction, at the rate of "
        "the predictions kept.",
        "partition",
    )
    yield _process(
        "predictions_expired_total",
        "counter",
        "Predictions that left the join without a label because of their age.",
    )
    yield _process(
        "predictions_evicted_total",
        "counter",
        "Predictions that left the join early because limits.pending was reached.",
    )
    yield _process(
        "timestamps_replaced_total",
        "counter",
        "Events dated more than five minutes ahead of their record, which got its time, or "
        "more than five seconds ahead of the log, which got the log's.",
    )
    yield _process(
        "clock_offset_seconds",
        "gauge",
        "How far the clock of the worker is ahead of the broker's, by the records it writes.",
    )
    yield _process(
        "log_time_jumps_total",
        "counter",
        "Jumps of log time that were not followed: a record of observations dated by a clock "
        "that is wrong.",
    )
    yield _process(
        "limit_hits_total",
        "counter",
        "Things that were refused or folded into __other__ because a limit was reached.",
        "limit",
    )
    yield _process(
        "monitor_failures_total",
        "counter",
        "Monitors switched off for a model because they raised.",
        "monitor",
    )
    yield _process("alert_events_total", "counter", "Alert events written.", "status")
    yield _process(
        "lost_records",
        "gauge",
        "Records that retention deleted before they were read, since this worker started.",
        "topic",
        "partition",
    )
    yield _process("state_bytes", "gauge", "Estimated memory of the state of evaluation.")
    yield _process(
        "series_dropped_total",
        "counter",
        "Series left out of a scrape because of limits.series, added up over scrapes.",
    )
    yield _process(
        "scrape_errors_total",
        "counter",
        "Sources and samples that could not be exported, added up over scrapes.",
    )


CATALOGUE: dict[str, Metric] = {
    metric.name: metric for metric in (*_of_models(), *_of_the_process())
}
"""Every metric by name, in the order in which it is exported."""


def custom_metric(name: str, settings: CustomMetric) -> Metric:
    """
    The family of one metric a user defined: `model_custom_NAME`, labelled by model, version and the
    segments asked for.

    A counter gets `_total` at its end when the name lacks it. A character of a segment's name that
    a label cannot have becomes `_`.

    Examples
    --------
    >>> custom_metric(
    ...     "basket_value", CustomMetric(type="gauge", field="features.basket", labels=("country",))
    ... ).labels
    ('model', 'version', 'country')
    >>> custom_metric("refusals", CustomMetric(type="counter", field="prediction")).name
    'model_custom_refusals_total'
    """
    full = CUSTOM_PREFIX + name
    if settings.type == "counter" and not full.endswith("_total"):
        full += "_total"
    labels = (
        "model",
        "version",
        *(re.sub(r"^(?=\d)|[^a-zA-Z0-9_]", "_", label) for label in settings.labels),
    )
    buckets = tuple(sorted(settings.buckets)) if settings.type == "histogram" else ()
    return Metric(
        full,
        settings.type,
        labels,
        settings.help or f"{settings.field}, as defined under metrics.custom.{name}.",
        buckets,
    )


def series_names(metric: Metric) -> frozenset[str]:
    """
    Every name that a series of a family may have, and that of the family itself.

    Examples
    --------
    >>> sorted(series_names(Metric("shop_orders_total", "counter", (), "Orders.")))
    ['shop_orders', 'shop_orders_created', 'shop_orders_total']
    """
    base = metric.name.removesuffix("_total") if metric.type == "counter" else metric.name
    return frozenset({metric.name, base, *(base + suffix for suffix in SUFFIXES[metric.type])})


def _problem(name: str, metric: Metric, quantiles: tuple[float, ...]) -> str | None:
    """Why Prometheus would refuse a custom metric, or None."""
    if not re.fullmatch(r"[a-zA-Z0-9_]+", name):
        return "a name has letters, digits and _ only"
    ends = (
        ()
        if metric.type == "counter"
        else ("_total", "_bucket", "_sum", "_count", "_created", "_info")
    )
    end = next((end for end in ends if metric.name.endswith(end)), None)
    if end is not None:
        return (
            f"a {metric.type} has no name that ends with {end}, since Prometheus takes it for a "
            "series of another"
        )
    if metric.type == "summary" and len(set(quantiles)) < len(quantiles):
        return "a quantile is given twice"
    for label in metric.labels[2:]:
        if not label:
            return "a label needs a name"
        if label in RESERVED_LABELS or label.startswith("__"):
            return f"the label {label!r} is reserved"
        if metric.labels.count(label) > 1:
            return f"two segments both become the label {label!r}"
    edges = metric.buckets
    if metric.type == "histogram" and not (
        edges and all(map(isfinite, edges)) and all(low < high for low, high in pairwise(edges))
    ):
        return "buckets must be at least one finite number, each given once"
    return None


def custom_metrics(settings: CoreSettings) -> Mapping[str, Metric]:
    """
    All families that users defined, by their full name.

    Raises
    ------
    ConfigError
        A name, label or bucket that Prometheus would refuse, or two models that define one name
        with another type, other labels or other buckets.
    """
    found: dict[str, Metric] = {}
    problems: list[str] = []
    for where, model in (
        ("defaults", settings.defaults),
        *((f"models.{name}", entry) for name, entry in settings.models.items()),
    ):
        for name, entry in model.metrics.custom.items():
            metric = custom_metric(name, entry)
            problem = _problem(name, metric, entry.quantiles)
            other = found.setdefault(metric.name, metric)
            if problem is None and (other.type, other.labels, other.buckets) != (
                metric.type,
                metric.labels,
                metric.buckets,
            ):
                problem = (
                    "differs in type, labels or buckets from another metric of that name; one "
                    "name is one family, choose another name"
                )
            beside = next(
                (
                    n
                    for n, m in found.items()
                    if n != metric.name and series_names(m) & series_names(metric)
                ),
                None,
            )
            if problem is None and beside is not None:
                problem = f"has series of the same name as {beside}; choose another name"
            if problem:
                problems.append(f"{where}.metrics.custom.{name}: {problem}")
    if problems:
        raise ConfigError(problems)
    return found
