"""
Grafana dashboards, generated from the catalogue.

Rule of the file: the content of a panel is written as a table of metrics. `panels.py` makes panels
from it, and `grafana.py` the JSON.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.metrics import queries, worker_rows
from stream_monitor.metrics.catalogue import CATALOGUE
from stream_monitor.metrics.estimate_panels import estimates
from stream_monitor.metrics.grafana import annotation, dashboard, variable
from stream_monitor.metrics.panels import (
    PLACE,
    Panel,
    Row,
    by_instance,
    gauges,
    increases,
    legend,
    matchers,
    rates,
    stat,
)


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards by file name."""
    return {"models.json": models(), "worker.json": worker(), "loop.json": loop()}


def models() -> dict[str, Any]:
    """Overview by model: traffic, performance, inputs, alerts."""
    alerts = annotation(
        "alerts",
        'ALERTS{alertstate="firing",model=~"$model"}',
        "{{alertname}}",
        "{{model}} {{version}} {{severity}}",
    )
    return dashboard(
        "models",
        [*_place_variables(), *_model_variables()],
        (_now(), _traffic(), _performance(), _inputs(), _segments(), _experiments()),
        [alerts],
    )


def worker() -> dict[str, Any]:
    """Health of the workers: what is late, refused or left out."""
    return dashboard("worker", _place_variables(), worker_rows.rows(), [])


def loop() -> dict[str, Any]:
    """The controller: runs, stages, and what waits; and the archive."""
    ours = '{__name__=~"stream_monitor_controller_active|stream_monitor_archive_holes"}'
    of_job = ours.replace("}", ', job=~"$job"}')
    return dashboard(
        "loop",
        [
            variable("job", f"label_values({ours}, job)"),
            variable("instance", f"label_values({of_job}, instance)"),
        ],
        (_controller(), _retraining(), _versions(), _archive()),
        [],
    )


def _controller() -> Row:
    active, waiting, ignored = (
        f"stream_monitor_controller_{name}"
        for name in ("active", "waiting", "events_ignored_total")
    )
    return "Controller", (
        stat("Active controllers", active, f"sum({queries.selector(active, *PLACE)})"),
        by_instance("Active", active),
        Panel(
            "Waits for",
            ((queries.gauge(waiting, *PLACE), ""),),
            "short",
            CATALOGUE[waiting].help,
            type="table",
        ),
        by_instance("Claim", "stream_monitor_controller_epoch"),
        gauges(
            "Last record", "stream_monitor_controller_last_record_timestamp_seconds", minimum=None
        ),
        increases("Events of older controllers", ignored),
    )


def _retraining() -> Row:
    return "Retraining", (
        increases("Runs by their end", "stream_monitor_retraining_runs_total"),
        gauges(
            "Step under way since",
            "stream_monitor_retraining_step_start_timestamp_seconds",
            minimum=None,
        ),
        increases("Refused triggers", "stream_monitor_triggers_refused_total"),
        gauges("Last end", "stream_monitor_retraining_end_timestamp_seconds", minimum=None),
    )


def _versions() -> Row:
    return "Versions", (
        gauges(
            "Share of the traffic", "stream_monitor_version_weight_ratio", maximum=1.0, width=12
        ),
        gauges("Stage", "stream_monitor_version_stage", maximum=1.0, width=12),
    )


def _archive() -> Row:
    def of(name: str) -> str:
        return f"stream_monitor_archive_{name}"

    return "Archive", (
        rates("Rows", of("rows_total")),
        increases("Files", of("files_total")),
        by_instance("Not on the disk", of("lag_records")),
        by_instance("Behind", of("lag_seconds")),
        by_instance("Holes", of("holes")),
        by_instance("Missing records", of("missing_records")),
        increases("Unreadable records", of("unreadable_total")),
        gauges("Last file", of("last_file_timestamp_seconds"), minimum=None),
        gauges("Last hole", of("last_hole_timestamp_seconds"), minimum=None),
    )


def _errors_share(by: tuple[str, ...]) -> str:
    name, whole = "model_prediction_errors_total", "model_predictions_total"
    return (
        f"{queries.rate(name, *matchers(name), by=by, interval='$__rate_interval')} / "
        f"{queries.rate(whole, *matchers(whole), by=by, interval='$__rate_interval')}"
    )


def _now() -> Row:
    predictions, accuracy, coverage, firing, incidents = (
        "model_predictions_total",
        "model_accuracy",
        "model_label_coverage_ratio",
        "model_alerts_firing",
        "model_incidents_firing",
    )
    return "Now", (
        stat(
            "Predictions a second",
            predictions,
            queries.rate(predictions, *matchers(predictions), by=(), interval="$__rate_interval"),
        ),
        stat(
            "Lowest accuracy",
            accuracy,
            f"min({queries.selector(accuracy, *matchers(accuracy))})",
            maximum=1.0,
        ),
        stat(
            "Lowest label coverage",
            coverage,
            f"min({queries.selector(coverage, *matchers(coverage))})",
            maximum=1.0,
        ),
        stat("Incidents", incidents, f"sum({queries.gauge(incidents, *matchers(incidents))})"),
        Panel(
            "Alerts firing by model",
            ((queries.gauge(firing, *matchers(firing)) + " > 0", ""),),
            "short",
            CATALOGUE[firing].help,
            type="table",
            width=12,
        ),
        gauges("Alerts firing over time", firing, width=12),
        gauges("Muted alerts", "model_alerts_muted"),
        gauges("Acknowledged alerts", "model_alerts_acknowledged"),
        increases("Alerts marked false", "model_alerts_marked_false_total"),
        _false_alarms(),
    )


def _false_alarms() -> Panel:
    """What people called false, beside what the budget allows in the same time."""
    marked, budget = "model_alerts_marked_false_total", "model_alarm_budget_per_day"
    false = queries.increase(marked, *matchers(marked), interval="30d")
    allowed = f"30 * {queries.gauge(budget, *matchers(budget))}"
    return Panel(
        "Marked false in 30 days, and the budget",
        ((false, f"{legend(('model', 'version'))} false"), (allowed, "budget")),
        "short",
        f"{CATALOGUE[marked].help} The budget is of alerts of drift; people may mark others too.",
    )


def _traffic() -> Row:
    histogram, measured = "model_prediction_latency_seconds", "model_latency_seconds"
    latency = tuple(
        (
            queries.quantile(share, histogram, *matchers(histogram), interval="$__rate_interval"),
            f"p{share * 100:g} {legend(('model', 'version'))}",
        )
        for share in (0.5, 0.95, 0.99)
    )
    return "Traffic", (
        rates("Predictions", "model_predictions_total"),
        Panel(
            "Failed calls",
            ((_errors_share(("model", "version")), legend(("model", "version"))),),
            "percentunit",
            "Share of prediction calls with status error.",
        ),
        rates("Labels", "model_labels_total"),
        Panel(
            "Latency",
            latency,
            "s",
            "Quantiles of the latency of prediction calls in the interval of the graph, from "
            "the histogram.",
            width=12,
        ),
        gauges("Latency by window", measured, width=12),
    )


def _performance() -> Row:
    return "Performance", (
        gauges("Accuracy", "model_accuracy", unit="percentunit", maximum=1.0),
        gauges(
            "Precision, recall and F1",
            "model_precision",
            "model_recall",
            "model_f1",
            unit="percentunit",
            maximum=1.0,
        ),
        *estimates(),
        gauges("Intervals", "model_metric_lower", "model_metric_upper", unit="none", minimum=None),
        gauges("ROC AUC", "model_roc_auc", unit="none", maximum=1.0),
        gauges("Log loss and Brier score", "model_log_loss", "model_brier_score", unit="none"),
        gauges("Calibration error", "model_calibration_error", unit="none"),
        gauges("Errors of regression", "model_mae", "model_rmse", unit="none"),
        gauges("R²", "model_r2", unit="none", minimum=None, maximum=1.0),
        gauges("Bias of regression", "model_bias", unit="none", minimum=None),
        gauges("Label coverage", "model_label_coverage_ratio", maximum=1.0),
        gauges("Labels in the window", "model_window_labels"),
        gauges("End of the window", "model_window_end_timestamp_seconds", minimum=None),
    )


def _inputs() -> Row:
    return "Inputs", (
        gauges("Drift score by feature", "model_drift_score", unit="none", width=12),
        gauges("Drift score / threshold", "model_drift_ratio", unit="none", width=12),
        gauges("Drift reported", "model_drift_detected", maximum=1.0),
        gauges("Missing values", "model_feature_missing_ratio", maximum=1.0),
        rates("Violations of data quality", "model_data_quality_violations_total"),
        rates("Anomalies", "model_anomalies_total"),
        gauges("Mean", "model_feature_mean", unit="none", minimum=None),
        gauges("Quantiles", "model_feature_quantile", unit="none", minimum=None),
        Panel(
            "Median from the histogram",
            (
                (
                    queries.quantile(
                        0.5,
                        "model_feature_values",
                        *matchers("model_feature_values"),
                        interval="$__rate_interval",
                    ),
                    legend(CATALOGUE["model_feature_values"].labels),
                ),
            ),
            "none",
            CATALOGUE["model_feature_values"].help + " Its median in the interval of the graph.",
            minimum=None,
        ),
    )


def _segments() -> Row:
    return "Segments", (
        gauges("Accuracy by segment", "model_segment_accuracy", maximum=1.0),
        gauges("F1 by segment", "model_segment_f1", maximum=1.0),
        gauges("Mean absolute error by segment", "model_segment_mae"),
        gauges("Labels by segment", "model_segment_window_labels"),
        gauges("Traffic by segment", "model_segment_traffic_ratio", maximum=1.0),
        gauges("Missing values by segment", "model_segment_missing_ratio", maximum=1.0),
        gauges("Segments that drifted", "model_segment_drift_detected", maximum=1.0),
        gauges("Worse than the other segments, at least", "model_segment_gap_lower"),
        gauges("Fairness", "model_fairness"),
    )


def _experiments() -> Row:
    name = "model_experiment_verdict"
    return "Experiments", (
        Panel(
            "Verdicts",
            ((queries.gauge(name, *matchers(name)), ""),),
            "short",
            CATALOGUE[name].help,
            type="table",
            width=12,
        ),
        gauges(
            "Difference from the control, with its interval",
            "model_experiment_estimate",
            "model_experiment_lower",
            "model_experiment_upper",
            unit="none",
            minimum=None,
            width=12,
        ),
        gauges("Evidence / needed", "model_experiment_evidence_ratio", unit="none"),
        rates("New units", "model_experiment_units_total"),
        gauges("Labels of mature calls", "model_experiment_coverage_ratio", maximum=1.0),
        rates("Rows left out", "model_experiment_rows_left_out_total"),
    )


def _place_variables() -> list[dict[str, Any]]:
    """
    Variables for job, consumer group and instance.

    Only one series has the label group, so the group is a choice of instances; its "All" means the
    instances of the group.
    """
    info = CATALOGUE["stream_monitor_config_info"].name
    job, group = (
        variable("job", f"label_values({info}, job)"),
        variable("group", f'label_values({info}{{job=~"$job"}}, group)'),
    )
    instance = variable(
        "instance", f'label_values({info}{{job=~"$job",group=~"$group"}}, instance)'
    )
    return [job, group, instance | {"allValue": None}]


def _model_variables() -> list[dict[str, Any]]:
    sources = {
        "model": "model_predictions_total",
        "version": "model_predictions_total",
        "window": "model_window_labels",
        "feature": "model_feature_missing_ratio",
        "segment": "model_segment_window_labels",
        "experiment": "model_experiment_units_total",
    }
    found: list[dict[str, Any]] = []
    for label, name in sources.items():
        narrower = (
            ()
            if label == "model"
            else ("model",)
            if label in {"version", "experiment"}
            else ("model", "version")
        )
        known = [*PLACE, *(f'{other}=~"${other}"' for other in narrower)]
        found.append(variable(label, f"label_values({queries.selector(name, *known)}, {label})"))
    return found
