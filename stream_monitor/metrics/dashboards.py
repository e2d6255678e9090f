"""
Grafana dashboards, generated from the catalogue.

Rule of the file: what a panel shows is written as a table of metrics; titles, units, legends and
descriptions follow from the catalogue unless a better word is given. Dashboards are for
provisioning: one datasource variable, stable uids, no inputs, not editable in place.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from stream_monitor.metrics import queries
from stream_monitor.metrics.catalogue import CATALOGUE

SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
PLACE = ('job=~"$job"', 'instance=~"$instance"')
PANEL_TYPES = Literal["timeseries", "stat", "table"]


class Panel(Struct, frozen=True):
    """One panel: pairs of expression and legend."""

    title: str
    targets: tuple[tuple[str, str], ...]
    unit: str
    description: str
    type: PANEL_TYPES = "timeseries"
    width: int = 8
    height: int = 8
    minimum: float | None = 0.0
    maximum: float | None = None


Row = tuple[str, tuple[Panel, ...]]


def dashboards() -> dict[str, dict[str, Any]]:
    """All dashboards by file name."""
    return {"models.json": models(), "worker.json": worker()}


def models() -> dict[str, Any]:
    """Overview by model: traffic, performance, inputs, alerts."""
    alerts = _annotation(
        "alerts",
        'ALERTS{alertstate="firing",model=~"$model"}',
        "{{alertname}}",
        "{{model}} {{version}} {{severity}}",
    )
    return _dashboard(
        "models",
        [*_place_variables(), *_model_variables()],
        (_now(), _traffic(), _performance(), _inputs(), _segments()),
        [alerts],
    )


def worker() -> dict[str, Any]:
    """Health of the workers: is anything late, refused or left out?"""
    return _dashboard(
        "worker", _place_variables(), (_state(), _reading(), _records(), _bounds()), []
    )


def _matchers(name: str) -> tuple[str, ...]:
    """Matchers by the variables that the labels of a metric have."""
    known = [
        label
        for label in ("model", "version", "window", "feature", "segment")
        if label in CATALOGUE[name].labels and name.startswith("model_")
    ]
    return (*PLACE, *(f'{label}=~"${label}"' for label in known))


def _legend(labels: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels) or "all"


def _unit(name: str) -> str:
    for suffix, unit in (
        ("_timestamp_seconds", "dateTimeFromNow"),
        ("_seconds", "s"),
        ("_bytes", "decbytes"),
        ("_ratio", "percentunit"),
        ("_accuracy", "percentunit"),
        ("_total", "ops"),
    ):
        if name.endswith(suffix):
            return unit
    return "short"


def _title(name: str) -> str:
    return (
        name.removeprefix("model_")
        .removeprefix("stream_monitor_")
        .removesuffix("_total")
        .replace("_", " ")
        .capitalize()
    )


def _gauges(
    title: str,
    *names: str,
    unit: str | None = None,
    maximum: float | None = None,
    minimum: float | None = 0.0,
    width: int = 8,
) -> Panel:
    """Gauges over time, by all their labels."""
    targets = tuple(
        (
            queries.gauge(name, *_matchers(name)),
            (f"{_title(name)} " if len(names) > 1 else "") + _legend(CATALOGUE[name].labels),
        )
        for name in names
    )
    description = " ".join(dict.fromkeys(CATALOGUE[name].help for name in names))
    return Panel(
        title,
        targets,
        unit or _unit(names[0]),
        description,
        minimum=minimum,
        maximum=maximum,
        width=width,
    )


def _rates(
    title: str, *names: str, unit: str = "ops", by: tuple[str, ...] | None = None, width: int = 8
) -> Panel:
    """Counters by the second."""
    targets = tuple(
        (
            queries.rate(name, *_matchers(name), by=by, interval="$__rate_interval"),
            (f"{_title(name)} " if len(names) > 1 else "")
            + _legend(CATALOGUE[name].labels if by is None else by),
        )
        for name in names
    )
    return Panel(
        title,
        targets,
        unit,
        " ".join(f"Per second: {CATALOGUE[name].help}" for name in names),
        width=width,
    )


def _increases(title: str, *names: str, width: int = 8) -> Panel:
    """Counters that should stand still, by process."""
    targets = tuple(
        (
            queries.increase(
                name,
                *_matchers(name),
                by=("instance", *CATALOGUE[name].labels),
                interval="$__rate_interval",
            ),
            f"{_title(name)} {_legend(('instance', *CATALOGUE[name].labels))}",
        )
        for name in names
    )
    return Panel(
        title, targets, "short", " ".join(CATALOGUE[name].help for name in names), width=width
    )


def _stat(title: str, name: str, expression: str, *, maximum: float | None = None) -> Panel:
    """One number, with unit and description of the metric."""
    return Panel(
        title,
        ((expression, title),),
        _unit(name),
        CATALOGUE[name].help,
        type="stat",
        width=6,
        height=4,
        maximum=maximum,
    )


def _errors_share(by: tuple[str, ...]) -> str:
    name, whole = "model_prediction_errors_total", "model_predictions_total"
    return (
        f"{queries.rate(name, *_matchers(name), by=by, interval='$__rate_interval')} / "
        f"{queries.rate(whole, *_matchers(whole), by=by, interval='$__rate_interval')}"
    )


def _now() -> Row:
    predictions, accuracy, coverage, firing = (
        "model_predictions_total",
        "model_accuracy",
        "model_label_coverage_ratio",
        "model_alerts_firing",
    )
    return "Now", (
        _stat(
            "Predictions a second",
            predictions,
            queries.rate(predictions, *_matchers(predictions), by=(), interval="$__rate_interval"),
        ),
        _stat(
            "Lowest accuracy",
            accuracy,
            f"min({queries.selector(accuracy, *_matchers(accuracy))})",
            maximum=1.0,
        ),
        _stat(
            "Lowest label coverage",
            coverage,
            f"min({queries.selector(coverage, *_matchers(coverage))})",
            maximum=1.0,
        ),
        _stat("Alerts firing", firing, f"sum({queries.gauge(firing, *_matchers(firing))})"),
        Panel(
            "Alerts firing by model",
            ((queries.gauge(firing, *_matchers(firing)) + " > 0", ""),),
            "short",
            CATALOGUE[firing].help,
            type="table",
            width=12,
        ),
        _gauges("Alerts firing over time", firing, width=12),
    )


def _traffic() -> Row:
    histogram, measured = "model_prediction_latency_seconds", "model_latency_seconds"
    latency = tuple(
        (
            queries.quantile(share, histogram, *_matchers(histogram), interval="$__rate_interval"),
            f"p{share * 100:g} {_legend(('model', 'version'))}",
        )
        for share in (0.5, 0.95, 0.99)
    )
    return "Traffic", (
        _rates("Predictions", "model_predictions_total"),
        Panel(
            "Failed calls",
            ((_errors_share(("model", "version")), _legend(("model", "version"))),),
            "percentunit",
            "Share of prediction calls with status error.",
        ),
        _rates("Labels", "model_labels_total"),
        Panel(
            "Latency",
            latency,
            "s",
            "Quantiles of the latency of prediction calls in the interval of the graph, from "
            "the histogram.",
            width=12,
        ),
        _gauges("Latency by window", measured, width=12),
    )


def _performance() -> Row:
    return "Performance", (
        _gauges("Accuracy", "model_accuracy", unit="percentunit", maximum=1.0),
        _gauges(
            "Precision, recall and F1",
            "model_precision",
            "model_recall",
            "model_f1",
            unit="percentunit",
            maximum=1.0,
        ),
        _gauges("ROC AUC", "model_roc_auc", unit="none", maximum=1.0),
        _gauges("Log loss and Brier score", "model_log_loss", "model_brier_score", unit="none"),
        _gauges("Calibration error", "model_calibration_error", unit="none"),
        _gauges("Errors of regression", "model_mae", "model_rmse", unit="none"),
        _gauges("R²", "model_r2", unit="none", minimum=None, maximum=1.0),
        _gauges("Bias of regression", "model_bias", unit="none", minimum=None),
        _gauges("Label coverage", "model_label_coverage_ratio", maximum=1.0),
        _gauges("Labels in the window", "model_window_labels"),
        _gauges("End of the window", "model_window_end_timestamp_seconds", minimum=None),
    )


def _inputs() -> Row:
    return "Inputs", (
        _gauges("Drift score by feature", "model_drift_score", unit="none", width=12),
        _gauges("Drift score / threshold", "model_drift_ratio", unit="none", width=12),
        _gauges("Drift reported", "model_drift_detected", maximum=1.0),
        _gauges("Missing values", "model_feature_missing_ratio", maximum=1.0),
        _rates("Violations of data quality", "model_data_quality_violations_total"),
        _rates("Anomalies", "model_anomalies_total"),
        _gauges("Mean", "model_feature_mean", unit="none", minimum=None),
        _gauges("Quantiles", "model_feature_quantile", unit="none", minimum=None),
        Panel(
            "Median from the histogram",
            (
                (
                    queries.quantile(
                        0.5,
                        "model_feature_values",
                        *_matchers("model_feature_values"),
                        interval="$__rate_interval",
                    ),
                    _legend(CATALOGUE["model_feature_values"].labels),
                ),
            ),
            "none",
            CATALOGUE["model_feature_values"].help + " Its median in the interval of the graph.",
            minimum=None,
        ),
    )


def _segments() -> Row:
    return "Segments", (
        _gauges("Accuracy by segment", "model_segment_accuracy", maximum=1.0),
        _gauges("F1 by segment", "model_segment_f1", maximum=1.0),
        _gauges("Mean absolute error by segment", "model_segment_mae"),
        _gauges("Labels by segment", "model_segment_window_labels"),
    )


def _state() -> Row:
    ready, build, late, behind = (
        f"stream_monitor_{name}"
        for name in ("ready", "build_info", "log_time_lag_seconds", "consumer_lag_records")
    )
    return "State", (
        _stat("Workers ready", ready, f"sum({queries.selector(ready, *PLACE)})"),
        _stat("Workers", build, f"sum({queries.selector(build, *PLACE)})"),
        _stat("Highest lag in time", late, f"max({queries.selector(late, *PLACE)})"),
        _stat("Records behind", behind, f"sum({queries.gauge(behind, *PLACE)})"),
    )


def _reading() -> Row:
    return "Reading", (
        _gauges("Lag in time", "stream_monitor_log_time_lag_seconds", width=12),
        _gauges("Records behind", "stream_monitor_consumer_lag_records", width=12),
    )


def _records() -> Row:
    return "Records", (
        _rates("Records by outcome", "stream_monitor_records_total", width=12),
        _rates("Labels by outcome", "stream_monitor_labels_total", width=12),
        _rates("Dead letters", "stream_monitor_dead_letters_total"),
        _rates("Refused predictions by model", "stream_monitor_predictions_refused_total"),
        _rates("Alert events written", "stream_monitor_alert_events_total"),
        _increases("Timestamps replaced", "stream_monitor_timestamps_replaced_total"),
    )


def _by_instance(title: str, name: str) -> Panel:
    return Panel(
        title,
        ((queries.gauge(name, *PLACE, by=("instance",)), "{{instance}}"),),
        _unit(name),
        CATALOGUE[name].help,
    )


def _bounds() -> Row:
    return "Bounds", (
        _by_instance("Predictions that wait", "stream_monitor_join_pending"),
        _increases(
            "Predictions without label",
            "stream_monitor_predictions_expired_total",
            "stream_monitor_predictions_evicted_total",
        ),
        _by_instance("State in memory", "stream_monitor_state_bytes"),
        _increases("Limits reached", "stream_monitor_limit_hits_total"),
        _increases("Monitors switched off", "stream_monitor_monitor_failures_total"),
        _increases(
            "Not exported",
            "stream_monitor_series_dropped_total",
            "stream_monitor_scrape_errors_total",
        ),
    )


def _dashboard(
    name: str,
    variables: list[dict[str, Any]],
    rows: tuple[Row, ...],
    annotations: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "uid": f"stream-monitor-{name}",
        "title": f"stream-monitor / {name}",
        "tags": ["stream-monitor"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": annotations},
        "links": [
            {
                "title": "stream-monitor",
                "type": "dashboards",
                "tags": ["stream-monitor"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": False,
            }
        ],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "hide": 0,
                },
                *variables,
            ]
        },
        "panels": _laid_out(rows),
    }


def _laid_out(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, content in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            }
        )
        top, left, tallest = top + 1, 0, 0
        for panel in content:
            if left + panel.width > COLUMNS:
                top, left, tallest = top + tallest, 0, 0
            panels.append(
                _panel(
                    len(panels) + 1,
                    panel,
                    {"h": panel.height, "w": panel.width, "x": left, "y": top},
                )
            )
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    bounds = {
        name: value
        for name, value in (("min", panel.minimum), ("max", panel.maximum))
        if value is not None
    }
    table = panel.type == "table"
    shapes: dict[str, dict[str, Any]] = {
        "timeseries": {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
        },
        "table": {"showHeader": True},
    }
    shape: dict[str, Any] = {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **bounds}, "overrides": []},
        "options": shapes[panel.type],
        "targets": [
            {
                "refId": chr(ord("A") + nth),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": table,
                "range": not table,
                "format": "table" if table else "time_series",
            }
            for nth, (expression, legend) in enumerate(panel.targets)
        ],
    }
    if table:
        shape["transformations"] = [
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "firing"}},
            }
        ]
    return shape


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _place_variables() -> list[dict[str, Any]]:
    """
    Job, consumer group and instance.

    No series but one has the group: it is a choice of instances, of which "All" are those of the
    group.
    """
    info = CATALOGUE["stream_monitor_config_info"].name
    job, group = (
        _variable("job", f"label_values({info}, job)"),
        _variable("group", f'label_values({info}{{job=~"$job"}}, group)'),
    )
    instance = _variable(
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
    }
    found: list[dict[str, Any]] = []
    for label, name in sources.items():
        narrower = (
            () if label == "model" else ("model",) if label == "version" else ("model", "version")
        )
        known = [*PLACE, *(f'{other}=~"${other}"' for other in narrower)]
        found.append(_variable(label, f"label_values({queries.selector(name, *known)}, {label})"))
    return found


def _annotation(name: str, expression: str, title: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": expression,
        "titleFormat": title,
        "textFormat": text,
        "step": "60s",
    }
