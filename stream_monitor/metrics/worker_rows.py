"""
The rows of the dashboard of the workers.

Rule of the file: as in `dashboards.py`.
"""

from __future__ import annotations

from stream_monitor.metrics import queries
from stream_monitor.metrics.panels import (
    PLACE,
    Row,
    by_instance,
    gauges,
    increases,
    rates,
    stat,
)


def rows() -> tuple[Row, ...]:
    """What is late, refused or left out."""
    return _state(), _reading(), _records(), _bounds()


def _state() -> Row:
    ready, build, late, behind = (
        f"stream_monitor_{name}"
        for name in ("ready", "build_info", "log_time_lag_seconds", "consumer_lag_records")
    )
    return "State", (
        stat("Workers ready", ready, f"sum({queries.selector(ready, *PLACE)})"),
        stat("Workers", build, f"sum({queries.selector(build, *PLACE)})"),
        stat("Highest lag in time", late, f"max({queries.selector(late, *PLACE)})"),
        stat("Records behind", behind, f"sum({queries.gauge(behind, *PLACE)})"),
    )


def _reading() -> Row:
    return "Reading", (
        gauges("Lag in time", "stream_monitor_log_time_lag_seconds", width=12),
        gauges("Records behind", "stream_monitor_consumer_lag_records", width=12),
    )


def _records() -> Row:
    return "Records", (
        rates("Records by outcome", "stream_monitor_records_total", width=12),
        rates("Labels by outcome", "stream_monitor_labels_total", width=12),
        rates("Dead letters", "stream_monitor_dead_letters_total"),
        rates("Refused predictions by model", "stream_monitor_predictions_refused_total"),
        rates("Alert events written", "stream_monitor_alert_events_total"),
        increases("Timestamps replaced", "stream_monitor_timestamps_replaced_total"),
    )


def _bounds() -> Row:
    return "Bounds", (
        by_instance("Predictions that wait", "stream_monitor_join_pending"),
        increases(
            "Predictions without label",
            "stream_monitor_predictions_expired_total",
            "stream_monitor_predictions_evicted_total",
        ),
        by_instance("State in memory", "stream_monitor_state_bytes"),
        increases("Limits reached", "stream_monitor_limit_hits_total"),
        increases("Monitors switched off", "stream_monitor_monitor_failures_total"),
        increases(
            "Not exported",
            "stream_monitor_series_dropped_total",
            "stream_monitor_scrape_errors_total",
        ),
    )
