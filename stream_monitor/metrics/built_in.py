"""
The families of series that every worker has, as two tables: of models, and of the process.

Rule of the file: one entry per family, in the order of export. Families that users define are in
`catalogue.py`; other modules read that, not these tables.
"""

from __future__ import annotations

from stream_monitor.metrics.metric import Metric, MetricType
from stream_monitor.metrics.of_segments import OF_SEGMENTS

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PERFORMANCE: dict[str, str] = {
    "accuracy": "Share of labelled predictions that were correct.",
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
_ESTIMATED: dict[str, str] = {
    f"estimated_{name}": f"{text} of the newest predictions, estimated from their scores without "
    "labels; absent while the estimate is not valid."
    for name, text in (
        ("accuracy", "Accuracy"),
        ("precision", "Precision of the positive class (binary)"),
        ("recall", "Recall of the positive class (binary)"),
        ("f1", "F1 of the positive class (binary)"),
    )
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


def _experiment(name: str, kind: MetricType, text: str, *labels: str) -> Metric:
    return Metric(f"model_experiment_{name}", kind, ("model", "experiment", *labels), text)


def _process(name: str, kind: MetricType, text: str, *labels: str) -> Metric:
    return Metric(f"stream_monitor_{name}", kind, labels, text)


OF_MODELS: tuple[Metric, ...] = (
    _model(
        "info",
        "gauge",
        "1 for each model version that is monitored.",
        "revision",
        "positive_class",
        "positive_class_source",
        "commit",
        "stage",
    ),
    _model("predictions_total", "counter", "Accepted predictions, including failed calls."),
    _model("prediction_errors_total", "counter", "Predictions with status error."),
    _model("labels_total", "counter", "Predictions that have a label."),
    _model(
        "incidents_firing",
        "gauge",
        "Incidents that fire, by their worst alert that nobody muted or called false. One cause is "
        "one incident: page on these.",
        "severity",
    ),
    _model(
        "alerts_firing",
        "gauge",
        "Alert episodes that are firing, without those in `model_alerts_muted`.",
        "severity",
    ),
    _model(
        "alerts_muted",
        "gauge",
        "Alert episodes that are firing, and that a person muted or called false, or of which a "
        "person silenced the incident.",
        "severity",
    ),
    _model(
        "alerts_acknowledged",
        "gauge",
        "Alert episodes that are firing or muted, and that somebody works on.",
        "severity",
    ),
    _model(
        "alerts_marked_false_total",
        "counter",
        "Alert episodes that a person called a false alarm.",
    ),
    _model(
        "alarm_budget_per_day",
        "gauge",
        "False alarms of drift a day that the budget allows this version, as a mean of many days.",
    ),
    _model(
        "prediction_latency_seconds",
        "histogram",
        "Latency of prediction calls.",
        buckets=LATENCY_BUCKETS_S,
    ),
    _model(
        "latency_seconds",
        "summary",
        "Quantiles of the latency of prediction calls in a window.",
        "quantile",
        "window",
    ),
    *(
        _model(name, "gauge", text, "window")
        for name, text in (_PERFORMANCE | _SUPPORT | _ESTIMATED).items()
    ),
    _model(
        "estimate_valid",
        "gauge",
        "1 while labels agree with the accuracy that was estimated without them; 0 with the reason "
        "why there is no estimate.",
        "reason",
    ),
    _model(
        "estimate_difference",
        "gauge",
        "Accuracy less the estimated one, over the labelled predictions that check the estimate.",
    ),
    _model(
        "metric_lower",
        "gauge",
        "Lower end of the interval of a performance metric by which thresholds are judged.",
        "metric",
        "window",
    ),
    _model(
        "metric_upper",
        "gauge",
        "Upper end of the interval of a performance metric by which thresholds are judged.",
        "metric",
        "window",
    ),
    _model(
        "drift_score", "gauge", "Statistic of a drift method, in its own unit.", "feature", "method"
    ),
    _model(
        "drift_ratio",
        "gauge",
        "Drift score divided by its threshold; above 1 is drift.",
        "feature",
        "method",
    ),
    _model(
        "drift_detected",
        "gauge",
        "1 while the drift method reports drift, otherwise 0.",
        "feature",
        "method",
    ),
    _model(
        "feature_missing_ratio",
        "gauge",
        "Share of rows in which the feature is missing or null.",
        "feature",
    ),
    _model("feature_mean", "gauge", "Mean of a numeric feature.", "feature"),
    _model("feature_quantile", "summary", "Quantiles of a numeric feature.", "feature", "quantile"),
    _model(
        "feature_values",
        "histogram",
        "Values of a numeric feature on the edges of the baseline.",
        "feature",
    ),
    _model(
        "data_quality_violations_total",
        "counter",
        "Values that broke a rule of data quality.",
        "feature",
        "rule",
    ),
    _model("anomalies_total", "counter", "Anomalies found.", "feature", "kind"),
    _experiment("units_total", "counter", "Units that an experiment has seen.", "arm"),
    _experiment(
        "estimate",
        "gauge",
        "Difference of an arm from the control, in units of the metric; a ratio minus 1 where "
        "logarithms are compared.",
        "arm",
        "metric",
    ),
    _experiment("lower", "gauge", "Lower end of the interval of the difference.", "arm", "metric"),
    _experiment("upper", "gauge", "Upper end of the interval of the difference.", "arm", "metric"),
    _experiment(
        "evidence_ratio",
        "gauge",
        "Evidence against an arm divided by what a verdict needs; above 1 it is rolled back, or "
        "the experiment is a mismatch.",
        "arm",
        "test",
    ),
    _experiment("verdict", "gauge", "1 for the verdict on an arm.", "arm", "verdict"),
    _experiment(
        "coverage_ratio", "gauge", "Share of mature calls that have a label.", "arm", "metric"
    ),
    _experiment(
        "rows_left_out_total", "counter", "Rows that an experiment does not count.", "reason"
    ),
    *(
        _model(f"segment_{name}", "gauge", f"Within a segment: {text}", "segment", "window")
        for name, text in (_PERFORMANCE | _SUPPORT).items()
        if name != "label_coverage_ratio"
    ),
    *OF_SEGMENTS,
)
OF_THE_PROCESS: tuple[Metric, ...] = (
    _process("build_info", "gauge", "Always 1; the running versions.", "version", "python"),
    _process(
        "config_info",
        "gauge",
        "Always 1; consumer group of the worker, and hash of the configuration.",
        "group",
        "hash",
    ),
    _process("ready", "gauge", "1 if all assigned partitions are open and caught up, otherwise 0."),
    _process("records_total", "counter", "Records by topic and outcome.", "topic", "outcome"),
    _process(
        "labels_total",
        "counter",
        "Labels by outcome; `evicted`: they or their prediction had left a full store.",
        "outcome",
    ),
    _process(
        "dead_letters_total", "counter", "Records written to dead-letters.", "topic", "reason"
    ),
    _process(
        "predictions_refused_total",
        "counter",
        "Records of predictions that could not be used, by the model that they name; empty if "
        "no model can be read.",
        "model",
    ),
    _process(
        "consumer_lag_records",
        "gauge",
        "Records in the partition that are not read yet.",
        "topic",
        "partition",
    ),
    _process(
        "source_wait_seconds_total",
        "counter",
        "Time that the partition waited for another that is behind in event time.",
        "topic",
        "partition",
    ),
    _process(
        "log_time_lag_seconds",
        "gauge",
        "Wall clock minus the greatest log time that is evaluated of the partition.",
        "topic",
        "partition",
    ),
    _process("join_pending", "gauge", "Predictions that wait for a label or for a correction."),
    _process(
        "join_reach_seconds",
        "gauge",
        "How late labels may be before limits.pending evicts their prediction, at the present "
        "rate of predictions.",
        "partition",
    ),
    _process(
        "predictions_expired_total",
        "counter",
        "Predictions that left the join without a label because of their age.",
    ),
    _process(
        "predictions_evicted_total",
        "counter",
        "Predictions that left the join early because limits.pending was reached.",
    ),
    _process(
        "timestamps_replaced_total",
        "counter",
        "Events whose time was replaced: more than five minutes ahead of their record, or more "
        "than five seconds ahead of the log.",
    ),
    _process(
        "clock_offset_seconds",
        "gauge",
        "How far the clock of the worker is ahead of the broker's, by the records that it writes.",
    ),
    _process(
        "log_time_jumps_total",
        "counter",
        "Jumps of log time that were ignored, because the clock that dated a record of "
        "observations was wrong.",
    ),
    _process(
        "limit_hits_total",
        "counter",
        "Values that were refused or counted as __other__ because a limit was reached.",
        "limit",
    ),
    _process(
        "monitor_failures_total",
        "counter",
        "Monitors that were switched off for a model because they raised an exception.",
        "monitor",
    ),
    _process(
        "experiment_events_refused_total",
        "counter",
        "Events of experiments that cannot be used, by type; `experiment_refused` on lifecycle "
        "says why.",
        "type",
    ),
    _process("alert_events_total", "counter", "Alert events that were written.", "status"),
    _process(
        "lost_records",
        "gauge",
        "Records that retention deleted before they were read, since this worker started.",
        "topic",
        "partition",
    ),
    _process("state_bytes", "gauge", "Estimated memory of the state of evaluation."),
    _process(
        "series_dropped_total",
        "counter",
        "Series left out of a scrape because of limits.series, summed over scrapes.",
    ),
    _process(
        "scrape_errors_total",
        "counter",
        "Sources and samples that could not be exported, summed over scrapes.",
    ),
)
