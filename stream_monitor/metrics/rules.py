"""
Prometheus alerting rules, generated from the catalogue.

Rule of the file: the workers judge models, Prometheus judges the workers. So the rules for models
forward the incidents that fire (`model_incidents_firing`) and watch only what no worker can report
about itself. Thresholds of a model stay in one place, `monitor.yaml`.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.metrics.queries import by_group, gauge, newly, rate, selector

PROCESS = ("job", "instance")
MODEL = ("model", "version")
REJECTED_SHARE = 0.01
REFUSED_SHARE = 0.05
REPLACED_SHARE = 0.01
ERROR_SHARE = 0.05
CLOCK_S = 5
LAG_S = 60
WAITS_FOR_A_PERSON = "approval|inconclusive|deadline|mismatch|refused|weights"
FAILED_S = 3_600
"""How long a failed run is told, s."""
HOLE_S = 86_400
"""How long a hole of the archive is told, s."""
LATE_S = 21_600
"""A quarter of the time that `observations` is kept, s."""
URGENT = 'severity=~"warning|critical"'


def rules() -> dict[str, Any]:
    """The rule file as plain data: groups of recording and alerting rules."""
    return {
        "groups": [
            {"name": "stream-monitor-recording", "rules": _recording()},
            {"name": "stream-monitor-worker", "rules": _worker()},
            {"name": "stream-monitor-models", "rules": _models()},
            {"name": "stream-monitor-loop", "rules": _loop()},
            {"name": "stream-monitor-archive", "rules": _archive()},
        ]
    }


def _alert(
    name: str, expression: str, when: tuple[str, str | None], summary: str, description: str
) -> dict[str, Any]:
    """
    An alert; `when` is how long it must hold and its severity (None keeps the severity of the
    series).
    """
    wait, severity = when
    labels = {"labels": {"severity": severity}} if severity else {}
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        **labels,
        "annotations": {"summary": summary, "description": description},
    }


def _recording() -> list[dict[str, Any]]:
    predictions, errors = (
        by_group(f"model_{name}_total", by=MODEL, over=("rate", "5m"))
        for name in ("predictions", "prediction_errors")
    )
    return [
        {"record": "group_model_version:model_predictions:rate5m", "expr": predictions},
        {
            "record": "group_model_version:model_prediction_errors:ratio_rate5m",
            "expr": f"{errors} / {predictions}",
        },
    ]


def _worker() -> list[dict[str, Any]]:
    return [
        _alert(
            "StreamMonitorAbsent",
            f"absent({selector('stream_monitor_build_info')})",
            ("2m", "critical"),
            "No stream-monitor worker is scraped",
            "Nobody watches the models. See whether workers run and whether Prometheus "
            "reaches them.",
        ),
        _alert(
            "StreamMonitorNotReady",
            f"{gauge('stream_monitor_ready', by=PROCESS)} == 0",
            ("5m", "critical"),
            "{{ $labels.instance }} has not been ready for 5 minutes",
            "Ask /ready of the worker for the reason, and run `stream-monitor doctor`.",
        ),
        _alert(
            "StreamMonitorBehind",
            f"{gauge('stream_monitor_log_time_lag_seconds', by=(*PROCESS, 'topic', 'partition'))} "
            f"> {LAG_S}",
            ("5m", "warning"),
            "{{ $labels.topic }}/{{ $labels.partition }} is {{ $value | humanizeDuration }} behind",
            "Metrics and alerts of its models are that late. Add workers (up to the number of "
            "partitions) or give them more CPU.",
        ),
        _alert(
            "StreamMonitorClock",
            f"abs({gauge('stream_monitor_clock_offset_seconds', by=PROCESS)}) > {CLOCK_S}",
            ("1m", "warning"),
            "The clock of {{ $labels.instance }} is {{ $value | humanizeDuration }} from that "
            "of its broker",
            "Keep the clocks of workers and brokers in step (NTP). Windows and alerts go by "
            "the broker's; its log and its lag are dated wrong.",
        ),
        *_unusable(),
        _alert(
            "StreamMonitorTwoConfigurations",
            "count by (job, group) "
            f"({gauge('stream_monitor_config_info', by=('job', 'group', 'hash'))}) > 1",
            ("5m", "warning"),
            "Workers of the group {{ $labels.group }} have {{ $value }} configurations",
            "A model is judged by the one or the other, as partitions go from worker to "
            "worker. Finish the rollout; `stream-monitor doctor` shows which partition has "
            "which.",
        ),
        *_left_out(),
    ]


def _unusable() -> list[dict[str, Any]]:
    """Rules for input that a worker refuses or corrects."""
    rejected = rate("stream_monitor_dead_letters_total", by=(*PROCESS, "topic"))
    replaced, taken = (
        rate("stream_monitor_timestamps_replaced_total", by=("job",)),
        rate("stream_monitor_records_total", 'outcome="forwarded"', by=("job",)),
    )
    read = rate(
        "stream_monitor_records_total", 'outcome=~"forwarded|rejected"', by=(*PROCESS, "topic")
    )
    return [
        _alert(
            "StreamMonitorDeadLetters",
            f"{rejected} / {read} > {REJECTED_SHARE}",
            ("10m", "warning"),
            "{{ $value | humanizePercentage }} of what {{ $labels.instance }} reads of {{ "
            "$labels.topic }} cannot be used",
            "See `stream-monitor dead-letters list` for reasons and examples.",
        ),
        _alert(
            "StreamMonitorEventsAhead",
            f"{replaced} / {taken} > {REPLACED_SHARE}",
            ("10m", "warning"),
            "{{ $value | humanizePercentage }} of the events that {{ $labels.job }} reads are "
            "dated in the future",
            "The clock of a producer is ahead, or its timestamps have another unit. They "
            "count at the time at which they came; `stream-monitor doctor` looks at the "
            "newest.",
        ),
    ]


def _left_out() -> list[dict[str, Any]]:
    """Rules for data that a worker leaves out, at a limit or after a fault."""
    return [
        _alert(
            "StreamMonitorRecordsLost",
            f"{gauge('stream_monitor_lost_records', by=(*PROCESS, 'topic', 'partition'))} > 0",
            ("0m", "critical"),
            "{{ $value }} records of {{ $labels.topic }}/{{ $labels.partition }} were deleted "
            "before they were read",
            "Retention is shorter than the workers were away: counts have a gap there. Make "
            "it longer. The alert ends when the worker is started again.",
        ),
        _alert(
            "StreamMonitorEvicting",
            newly("stream_monitor_predictions_evicted_total", by=PROCESS),
            ("0m", "warning"),
            "{{ $labels.instance }} drops predictions before their labels can come",
            "limits.pending is reached: raise it, or shorten labels.max_delay.",
        ),
        _alert(
            "StreamMonitorLimitReached",
            newly("stream_monitor_limit_hits_total", by=(*PROCESS, "limit")),
            ("0m", "warning"),
            "{{ $labels.instance }} has reached limits.{{ $labels.limit }}",
            "What comes beyond the limit is not monitored on its own. Raise the limit, or "
            "find who sends so many.",
        ),
        _alert(
            "StreamMonitorSeriesDropped",
            newly("stream_monitor_series_dropped_total", by=PROCESS),
            ("10m", "warning"),
            "{{ $labels.instance }} leaves series out of its metrics",
            "limits.series is reached: detail by feature of the largest models is missing. "
            "Raise it, or monitor fewer features.",
        ),
        _alert(
            "StreamMonitorScrapeErrors",
            newly("stream_monitor_scrape_errors_total", by=PROCESS),
            ("10m", "warning"),
            "{{ $labels.instance }} cannot export some of its metrics",
            "Its log names them. This is a fault of stream-monitor: please report it.",
        ),
        _alert(
            "StreamMonitorMonitorFailed",
            newly("stream_monitor_monitor_failures_total", by=(*PROCESS, "monitor")),
            ("0m", "warning"),
            "The monitor {{ $labels.monitor }} was switched off for a model",
            "It raised; the others go on. The alert on the topic alerts names the model. This "
            "is a fault of stream-monitor: please report it.",
        ),
    ]


def _models() -> list[dict[str, Any]]:
    name, firing = "model_predictions_total", "model_incidents_firing"
    refused = newly("stream_monitor_predictions_refused_total", by=("job", "model"))
    accepted = f"sum by (job, model) (increase({name}[15m])) or ({refused}) * 0"
    seen, before = (
        by_group(name, by=MODEL, over=("increase", interval)) for interval in ("30m", "1d")
    )
    is_new = f"{by_group(name, by=MODEL)} > 0 unless on ({', '.join(MODEL)}) {name} offset 1d"
    return [
        _alert(
            "ModelIncidentsFiring",
            f"{by_group(firing, URGENT, by=(*MODEL, 'severity'), function='max')} > 0",
            ("0m", None),
            "{{ $labels.model }} {{ $labels.version }}: {{ $value }} incident(s) of severity {{ "
            "$labels.severity }}",
            "What and why: `stream-monitor alerts`, or the topic alerts. `alerts ack`, `mute` and "
            "`false` tell what you know of it.",
        ),
        _alert(
            "ModelPredictionErrors",
            f"group_model_version:model_prediction_errors:ratio_rate5m > {ERROR_SHARE}",
            ("5m", "warning"),
            "{{ $value | humanizePercentage }} of the calls of {{ $labels.model }} {{ "
            "$labels.version }} fail",
            "The model server reports status error.",
        ),
        _alert(
            "ModelPredictionsRefused",
            f"({refused}) / (({refused}) + ({accepted})) > {REFUSED_SHARE}",
            ("0m", "warning"),
            "{{ $value | humanizePercentage }} of the predictions of {{ $labels.model }} in "
            "the last 15 minutes cannot be used",
            "What is refused is rarely a random sample, so its metrics may be wrong. See "
            "`stream-monitor dead-letters list`.",
        ),
        _alert(
            "ModelSilent",
            f"{seen} == 0 and ({before} > 0 or ({is_new}))",
            ("0m", "warning"),
            "{{ $labels.model }} {{ $labels.version }} has made no prediction for 30 minutes",
            "The model server is down, or its events do not arrive on the topic predictions. "
            "A version that was replaced is silent for a day and then forgotten.",
        ),
    ]


def _loop() -> list[dict[str, Any]]:
    """Rules for the controller. Where none was ever scraped, none of them fires."""
    active = "stream_monitor_controller_active"
    was_there = f"max by (job) (max_over_time({selector(active)}[1d]))"
    ended = gauge(
        "stream_monitor_retraining_end_timestamp_seconds", 'end="failed"', by=("job", "model")
    )
    waits = gauge(
        "stream_monitor_controller_waiting",
        f'reason=~"{WAITS_FOR_A_PERSON}"',
        by=("job", "model", "reason"),
    )
    return [
        _alert(
            "StreamMonitorNoController",
            f"{was_there} unless on (job) {gauge(active, by=('job',))} == 1",
            ("5m", "warning"),
            "No controller of {{ $labels.job }} is active",
            "Models are served and watched, and routers still stop a bad version; nothing is "
            "retrained or promoted. Start `stream-monitor controller`, and see its log.",
        ),
        _alert(
            "StreamMonitorRunFailed",
            f"time() - {ended} < {FAILED_S}",
            ("0m", "warning"),
            "A retraining of {{ $labels.model }} failed {{ $value | humanizeDuration }} ago",
            "`stream-monitor retrain history` says which step and why, `retrain log` has its "
            "last lines. The version in production stays. The alert ends after an hour.",
        ),
        _alert(
            "StreamMonitorWaitsForPerson",
            f"{waits} == 1",
            ("5m", "warning"),
            "{{ $labels.model }} waits for a person: {{ $labels.reason }}",
            "`stream-monitor retrain status` and `deploy status` say for what, and which command "
            "ends it.",
        ),
    ]


def _archive() -> list[dict[str, Any]]:
    """Rules for the archive of training data. Where none was ever scraped, none of them fires."""
    holes, by = "stream_monitor_archive_holes", ("job",)
    was_there = f"max by (job) (max_over_time({selector(holes)}[1d]))"
    return [
        _alert(
            "StreamMonitorNoArchive",
            f"{was_there} unless on (job) {gauge(holes, by=by)}",
            ("15m", "warning"),
            "No archive of {{ $labels.job }} is running",
            "What Kafka deletes before it is archived is missing from training data for ever: "
            "after 24 hours by default. Start `stream-monitor archive`, and see its log.",
        ),
        _alert(
            "StreamMonitorArchiveLate",
            f"{gauge('stream_monitor_archive_lag_seconds', by=PROCESS)} > {LATE_S}",
            ("15m", "warning"),
            "The archive of {{ $labels.instance }} is {{ $value | humanizeDuration }} behind",
            "Kafka keeps observations for 24 hours by default; what it deletes before it is "
            "archived is missing from training data. See the log of the archive, and its disk.",
        ),
        _alert(
            "StreamMonitorArchiveHole",
            f"time() - {gauge('stream_monitor_archive_last_hole_timestamp_seconds', by=by)} "
            f"< {HOLE_S}",
            ("0m", "warning"),
            "The archive of {{ $labels.job }} lost rows; found {{ $value | humanizeDuration }} ago",
            "It was down for longer than Kafka keeps observations, or met records that it cannot "
            "read. The manifest of `stream-monitor collect` names offsets and times. "
            "Train on another range, or know what is missing. The alert ends after a day.",
        ),
    ]
