"""
The families of series that a controller has: the loop of each model, and the process itself.

Rule of the file: one entry per family, in the order of export, as in `built_in.py`. A worker has
none of them, and a controller has none of a worker's, so that rules tell the two apart.
"""

from __future__ import annotations

from stream_monitor.metrics.metric import Metric, MetricType


def _loop(name: str, kind: MetricType, text: str, *labels: str) -> Metric:
    return Metric(f"stream_monitor_{name}", kind, labels, text)


OF_THE_LOOP: tuple[Metric, ...] = (
    _loop(
        "controller_active",
        "gauge",
        "1 if this controller is the active one and has read the whole log, otherwise 0.",
    ),
    _loop("controller_epoch", "gauge", "Offset of the claim of the active controller."),
    _loop(
        "controller_last_record_timestamp_seconds",
        "gauge",
        "When the controller last read a record, seconds since the epoch.",
    ),
    _loop(
        "controller_events_ignored_total",
        "counter",
        "Events on lifecycle that do not count, because a controller with an older claim wrote "
        "them.",
    ),
    _loop(
        "controller_waiting",
        "gauge",
        "1 for what the run or the rollout of a model waits for; absent if for nothing.",
        "model",
        "reason",
    ),
    _loop(
        "triggers_refused_total",
        "counter",
        "Triggers that started no run, by the reason.",
        "model",
        "reason",
    ),
    _loop("retraining_runs_total", "counter", "Runs that ended, by their end.", "model", "end"),
    _loop(
        "retraining_end_timestamp_seconds",
        "gauge",
        "When a run last ended so, seconds since the epoch.",
        "model",
        "end",
    ),
    _loop(
        "retraining_step_start_timestamp_seconds",
        "gauge",
        "When the step under way began, seconds since the epoch; absent without a run.",
        "model",
        "step",
    ),
    _loop(
        "version_stage",
        "gauge",
        "1 for the stage of each version that is not retired.",
        "model",
        "version",
        "stage",
    ),
    _loop(
        "version_weight_ratio",
        "gauge",
        "Share of the traffic that a version is given, 0 to 1, as routers read it.",
        "model",
        "version",
    ),
)
