"""
What each key means and which values it takes, beyond its type: one table for the checker, the JSON
Schema and the docs.

Rule of the file: types, names and defaults are those of `settings.py` and are not repeated here;
every key of `monitor.yaml` has its line (`tests/unit/test_config_command.py` says so).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stream_monitor import settings as s
from stream_monitor.config.forms import LAST_N_MAX
from stream_monitor.times import DAY_MS, HOUR_MS

SECRETS = frozenset({"password", "key_password", "token"})
"""
Values that are never shown, and that are taken from the environment and from files of their own
only.
"""
SHOWN: dict[tuple[str, ...], frozenset[str]] = {
    ("kafka", "security"): frozenset(
        {"protocol", "sasl_mechanism", "username", "ca_file", "cert_file", "key_file"}
    ),
    ("worker", "metrics"): frozenset({"host", "port", "cert_file", "key_file"}),
}
"""
Sections that hold a secret, and the values in them that may be shown: what was given under a
mistyped key may be the secret.
"""

TOP: dict[str, Any] = {
    "kafka": s.KafkaSettings,
    "worker": s.WorkerSettings,
    "defaults": s.ModelSettings,
    "models": dict[str, s.ModelSettings],
    "limits": s.Limits,
    "privacy": s.Privacy,
}
"""The keys of the file."""
TOP_TEXTS = {
    "kafka": "Where Kafka is.",
    "worker": "How a worker runs.",
    "defaults": "What holds for every model.",
    "models": "By name of the model: what differs for it; the rest is taken from `defaults`.",
    "limits": "Bounds of memory, by partition of observations (`series`: by worker).",
    "privacy": "What may leave the worker.",
}


class Rule(NamedTuple):
    """
    One key.

    `low` and `high` are inclusive, `above` is not; of a duration they are ms. `form` names a way of
    writing that the type does not tell.
    """

    text: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    form: str = ""


RULES: dict[type, dict[str, Rule]] = {
    s.KafkaSettings: {
        "bootstrap_servers": Rule("Brokers to begin with, or a list of them.", form="brokers"),
        "topic_prefix": Rule("Put before the names of all topics.", form="prefix"),
        "create_topics": Rule("Make the topics that are missing; else the worker waits for them."),
        "security": Rule("How to connect."),
    },
    s.Security: {
        "protocol": Rule("Of the connection."),
        "sasl_mechanism": Rule("How to log in, where the protocol begins with SASL."),
        "username": Rule("Who logs in."),
        "password": Rule(
            "Secret: only as an environment variable; one that ends in `_FILE` names a file "
            "that holds it."
        ),
        "ca_file": Rule("Certificates (PEM) that are trusted, instead of the system's."),
        "cert_file": Rule("Certificate (PEM) of this client."),
        "key_file": Rule("Its key (PEM)."),
        "key_password": Rule(
            "Secret of the key: only as an environment variable, as the password."
        ),
    },
    s.WorkerSettings: {
        "group": Rule("Consumer group. Workers of one group share the work.", form="name"),
        "instance_id": Rule(
            "Static membership: a name that this worker keeps over restarts (of its pod), so "
            "that a short restart moves no partitions.",
            form="name",
        ),
        "processing_guarantee": Rule(
            "`at_least_once` needs no transactions and may repeat alerts after a crash."
        ),
        "auto_offset_reset": Rule("Where a new group begins."),
        "flush_interval": Rule(
            "How long decoded rows wait before they are written.", low=1, high=60_000
        ),
        "alert_interval": Rule(
            "How often a transaction ends, which makes alerts visible.", low=1, high=60_000
        ),
        "max_source_skew": Rule(
            "How far (event time) a partition of `predictions` or `labels` may be read ahead "
            "of the slowest that has records waiting; `off`: each as fast as it comes.",
            low=0,
            high=86_400_000,
        ),
        "max_source_wait": Rule(
            "How long a partition waits at most for the same others, whatever they have.",
            low=1_000,
            high=86_400_000,
        ),
        "shutdown_timeout": Rule("How long a clean stop may take.", low=0, high=3_600_000),
        "max_record_bytes": Rule(
            "Larger source records are dead letters.", low=1_024, high=100_000_000
        ),
        "on_corrupt": Rule(
            "A batch of `predictions` or `labels` that is broken on the broker's disk: `stop` "
            "ends the worker (73); `skip` goes on after it, with a dead letter that names its "
            "place."
        ),
        "on_poison": Rule(
            "What has ended the worker three times at the same position: `skip` sets the "
            "record aside as a dead letter; `stop` lets the worker end each time."
        ),
        "on_lost": Rule(
            "Records that retention deleted before they were read or folded: `continue` "
            "counts them and goes on behind them; `fail` ends the worker (71) before anything "
            "is committed."
        ),
        "metrics": Rule("Where `/metrics`, `/live` and `/ready` are."),
    },
    s.HttpSettings: {
        "host": Rule("Address to listen on; 0.0.0.0 is all of them.", form="name"),
        "port": Rule(
            "Port; 0 is a free one, which the worker's first line tells.", low=0, high=65_535
        ),
        "cert_file": Rule("Certificate (PEM) of this server: with it the endpoint speaks https."),
        "key_file": Rule("Its key (PEM, without a password)."),
        "token": Rule(
            "Secret: only as an environment variable. `/metrics` is then for those who send "
            "`Authorization: Bearer …`; `/live` and `/ready` are for all."
        ),
    },
    s.ModelSettings: {
        "task": Rule("What the model does; `auto` finds out from its first labels."),
        "positive_class": Rule(
            "Of a binary model; by default found by name, by score, or the rarer class.",
            form="class",
        ),
        "windows": Rule(
            "Windows of the performance metrics: labelled rows, or event time (in steps of 10 s).",
            form="windows",
        ),
        "labels": Rule("About labels."),
        "baseline": Rule("The baseline that later rows are compared with."),
        "features": Rule("By name: what is known of a feature; others are learnt."),
        "segments": Rule(
            "Slices: names under `segments` of the event, or features; `FEATURE: [cut, "
            "points]` cuts a number into ranges.",
            form="segments",
        ),
        "thresholds": Rule(
            "By metric: an alert when it is worse. A bare number is `min`, or `max` where "
            "less is better; `off` takes an inherited one away.",
            form="thresholds",
        ),
        "drift": Rule("Detectors of change."),
        "anomalies": Rule("Values that are unlike the baseline."),
        "quality": Rule("Missing and broken values."),
        "freshness": Rule("Silence that is an alert."),
        "calls": Rule("Slow and failed calls."),
        "metrics": Rule("Metrics of your own."),
        "cooldown": Rule(
            "After an alert ended, how long the same may not begin again.",
            low=0,
            high=30 * DAY_MS,
        ),
        "retire_after": Rule(
            "A version that nobody uses for so long, and for `labels.max_delay`, retires: its "
            "series go, what fires for it ends, its place under `limits` is free. "
            "Its baseline, windows and counters stay for when it is used again.",
            low=HOUR_MS,
            high=3_660 * DAY_MS,
        ),
    },
    s.Labels: {
        "max_delay": Rule(
            "How long a prediction waits for its label, and how long repeated ids are recognised.",
            low=0,
            high=366 * DAY_MS,
        )
    },
    s.Baseline: {
        "source": Rule(
            "`learn`: from the first rows; `file`: a profile of `stream-monitor baseline build`."
        ),
        "rows": Rule("Rows to learn from.", low=1, high=1_000_000),
        "path": Rule("The file, relative to `monitor.yaml`.", form="name"),
    },
    s.Feature: {
        "type": Rule("`auto` decides by the first rows."),
        "min": Rule("Smaller numbers are violations."),
        "max": Rule("Greater numbers are violations."),
        "categories": Rule("Values that are known; others are violations.", form="categories"),
        "required": Rule("A missing value is a violation."),
        "unique": Rule("A repeated value is a violation."),
    },
    s.Segment: {
        "name": Rule("Name of the segment or feature.", form="name"),
        "cut": Rule("Points that cut a number into ranges, ascending."),
    },
    s.Threshold: {
        "min": Rule("Alert below it."),
        "max": Rule("Alert above it."),
        "severity": Rule("Of the alert."),
        "window": Rule("One of `windows`; by default the first `last_N`.", form="window"),
        "min_labels": Rule(
            "With fewer labelled rows in the window nothing is judged.", low=1, high=LAST_N_MAX
        ),
        "for": Rule("How long it must be so before the alert fires.", low=0, high=30 * DAY_MS),
        "clear": Rule(
            "The alert ends when the metric is past this value; by default the threshold."
        ),
    },
    s.Drift: {
        "errors": Rule(
            "Detectors on the errors of the model (concept drift), by name with their "
            "parameters; `off` for none.",
            form="methods",
        ),
        "score": Rule("Detectors on the score.", form="methods"),
        "prediction": Rule("Detectors on the prediction.", form="methods"),
        "features": Rule("Detectors on each numeric feature.", form="methods"),
        "thresholds": Rule(
            "By distance to the baseline (`psi js ks wasserstein chi2`): alert above it, "
            "when it is beyond chance.",
            form="distances",
        ),
        "severity": Rule("Of drift alerts."),
    },
    s.Anomalies: {
        "fence": Rule(
            "Interquartile ranges beyond the quartiles that a value may lie.", above=0, high=1_000
        ),
        "reference": Rule("Quartiles of the baseline, or of the rows before."),
        "trailing_rows": Rule(
            "How many rows before, with `reference: trailing`.", low=20, high=1_000_000
        ),
        "share": Rule(
            "Share of values outside the fences, beyond that of the baseline, that is an alert.",
            low=0,
            high=1,
        ),
        "sample": Rule("Share of such rows that goes to the topic `anomalies`.", low=0, high=1),
        "topic": Rule("Write them there."),
        "trend_windows": Rule(
            "Windows of accuracy (or R² of a regression) that a trend is fitted to.",
            low=3,
            high=1_000,
        ),
        "trend_slope": Rule(
            "Change of accuracy (or R²) along these windows that is an alert when it is "
            "beyond chance too.",
            low=-1_000,
            high=1_000,
        ),
        "pattern_z": Rule(
            "Robust z by which an hour of a feature may differ from the same hour of earlier days.",
            above=0,
            high=1_000,
        ),
        "pattern_windows": Rule(
            "Hours in a row that must differ before it is an alert.", low=1, high=1_000
        ),
    },
    s.Quality: {
        "missing_ratio": Rule(
            "Share of missing values, beyond that of the baseline, that is an alert; `off` "
            "for none. Of a `required` feature none may be missing.",
            low=0,
            high=1,
        ),
        "violation_ratio": Rule(
            "Share of values of the wrong type, out of range or of an unknown category that "
            "is an alert; `off` for none.",
            low=0,
            high=1,
        ),
        "min_rows": Rule("Fewer rows are not judged.", low=1, high=1_000_000),
    },
    s.Freshness: {
        "predictions": Rule(
            "No prediction for so long; at the default, where the model is usually silent for "
            "longer, longer than that. `off` for never.",
            low=1_000,
            high=366 * DAY_MS,
        ),
        "labels": Rule("No label for so long; `off` for never.", low=1_000, high=366 * DAY_MS),
    },
    s.Calls: {
        "latency_factor": Rule(
            "A call is slow when it takes so many times what 95 % of the first calls took; "
            "more than 5 % of slow calls are an alert. `off` for none.",
            low=1,
            high=1_000,
        ),
        "error_share": Rule(
            "Share of failed calls, beyond one and a half times that of the first calls, that "
            "is an alert; `off` for none.",
            low=0,
            high=1,
        ),
    },
    s.Metrics: {"custom": Rule("By name: a metric of one field, exported as `model_custom_NAME`.")},
    s.CustomMetric: {
        "type": Rule("Of the metric."),
        "field": Rule("What is measured.", form="field"),
        "help": Rule("Its help text."),
        "labels": Rule("Segments that become labels."),
        "buckets": Rule("Upper edges of a histogram."),
        "quantiles": Rule("Of a summary."),
    },
    s.Limits: {
        "models": Rule(
            "Models that nobody configured; the rest are counted as `__other__`.", low=1
        ),
        "versions": Rule("Versions of a model.", low=1),
        "features": Rule("Features of a model version.", low=1),
        "segments": Rule("Values of a segment.", low=1),
        "categories": Rule("Categories of a feature.", low=1),
        "pending": Rule(
            "Predictions, and labels, that are kept; when there are more, those that have "
            "their label go first, then the oldest. It decides how late labels may be.",
            low=1_000,
            high=50_000_000,
        ),
        "series": Rule("Series that a worker exports.", low=100, high=10_000_000),
    },
    s.Privacy: {"raw_values": Rule("Show raw feature values and ids in alerts and anomalies.")},
}
