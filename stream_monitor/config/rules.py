"""
The meaning of each key and its values beyond its type: one table for the checker, the JSON Schema
and the docs.

Rule of the file: types, names and defaults are in `settings.py` and are not repeated here. Every
key of `monitor.yaml` has its line (`tests/unit/test_config_command.py` checks it).
"""

from __future__ import annotations

from typing import Any

from stream_monitor import lifecycle_settings
from stream_monitor import settings as s
from stream_monitor.config import injection_rules, lifecycle_rules, limit_rules, segment_rules
from stream_monitor.config.forms import LAST_N_MAX
from stream_monitor.config.rule import Rule
from stream_monitor.times import DAY_MS, HOUR_MS

SECRETS = frozenset({"password", "key_password", "token"})
"""
Keys whose values are never shown, and come only from the environment or from files of their own.
"""
SHOWN: dict[tuple[str, ...], frozenset[str]] = {
    ("kafka", "security"): frozenset(
        {"protocol", "sasl_mechanism", "username", "ca_file", "cert_file", "key_file"}
    ),
    ("worker", "metrics"): frozenset({"host", "port", "cert_file", "key_file"}),
}
"""
Sections that contain a secret, and the keys whose values may be shown. Other values may not,
because the value of a mistyped key may be the secret.
"""

TOP: dict[str, Any] = {
    "kafka": s.KafkaSettings,
    "worker": s.WorkerSettings,
    "defaults": s.ModelSettings,
    "models": dict[str, s.ModelSettings],
    "limits": s.Limits,
    "privacy": s.Privacy,
    "archive": lifecycle_settings.Archive,
    "lifecycle": lifecycle_settings.Lifecycle,
}
"""The keys at the top of the file."""
TOP_TEXTS = {
    "kafka": "How to reach Kafka.",
    "worker": "How a worker runs.",
    "defaults": "Settings that apply to every model.",
    "models": "By name of the model: its own settings. The rest comes from `defaults`.",
    "limits": "Limits of memory, per partition of `observations` (`series`: per worker).",
    "privacy": "What may leave the worker.",
    "archive": "Rows that are kept for training, as `stream-monitor archive` writes them.",
    "lifecycle": "The loop: what retrains a model, and how a new version gets traffic.",
}


RULES: dict[type, dict[str, Rule]] = {
    s.KafkaSettings: {
        "bootstrap_servers": Rule(
            "Addresses of some brokers, as text or as a list.", form="brokers"
        ),
        "topic_prefix": Rule("Prefix of the names of all topics.", form="prefix"),
        "create_topics": Rule("Create missing topics; otherwise the worker waits for them."),
        "security": Rule("How to connect."),
    },
    s.Security: {
        "protocol": Rule("Protocol of the connection."),
        "sasl_mechanism": Rule("How to log in, if the protocol begins with SASL."),
        "username": Rule("User name for the login."),
        "password": Rule(
            "Secret: only as an environment variable. A variable that ends in `_FILE` names "
            "a file with the secret."
        ),
        "ca_file": Rule("Trusted certificate authorities (PEM), instead of those of the system."),
        "cert_file": Rule("Certificate (PEM) of this client."),
        "key_file": Rule("Private key (PEM) of this client."),
        "key_password": Rule(
            "Secret: password of the private key, only as an environment variable."
        ),
    },
    s.WorkerSettings: {
        "group": Rule("Consumer group. The workers of one group share the work.", form="name"),
        "instance_id": Rule(
            "Static membership: a name that this worker keeps over restarts (of its pod), "
            "so that a short restart moves no partitions.",
            form="name",
        ),
        "processing_guarantee": Rule(
            "`at_least_once` needs no transactions and may repeat alerts after a crash."
        ),
        "auto_offset_reset": Rule(
            "Where a new group starts to read predictions and labels. Events of experiments are "
            "read from the first."
        ),
        "flush_interval": Rule(
            "How long decoded rows wait before they are written.", low=1, high=60_000
        ),
        "alert_interval": Rule(
            "How often a transaction ends. Alerts become visible then.", low=1, high=60_000
        ),
        "max_source_skew": Rule(
            "How far (in event time) a partition of `predictions` or `labels` may be read "
            "ahead of the slowest one that has records waiting; `off`: no limit.",
            low=0,
            high=86_400_000,
        ),
        "max_source_wait": Rule(
            "How long a partition waits at most for the same other partitions.",
            low=1_000,
            high=86_400_000,
        ),
        "shutdown_timeout": Rule("How long a clean stop may take.", low=0, high=3_600_000),
        "max_record_bytes": Rule(
            "Larger source records become dead letters.", low=1_024, high=100_000_000
        ),
        "on_corrupt": Rule(
            "If a batch of `predictions` or `labels` is broken on the broker's disk: `stop` "
            "ends the worker (73); `skip` continues after the batch, with a dead letter "
            "that names its offsets."
        ),
        "on_poison": Rule(
            "If a record has ended the worker three times: `skip` sets it aside as a dead "
            "letter; `stop` lets the worker end each time."
        ),
        "on_lost": Rule(
            "If retention deleted records before they were read or processed: `continue` "
            "counts them and continues after the gap; `fail` ends the worker (71) before "
            "anything is committed."
        ),
        "metrics": Rule("The HTTP endpoint with `/metrics`, `/live` and `/ready`."),
    },
    s.HttpSettings: {
        "host": Rule("Address to listen on; 0.0.0.0 means all.", form="name"),
        "port": Rule(
            "Port; 0 means a free one, which the first line of the worker's output names.",
            low=0,
            high=65_535,
        ),
        "cert_file": Rule("Certificate (PEM) of this server. With it the endpoint speaks https."),
        "key_file": Rule("Private key (PEM, without a password) of this server."),
        "token": Rule(
            "Secret: only as an environment variable. `/metrics` then requires "
            "`Authorization: Bearer …`; `/live` and `/ready` stay open."
        ),
    },
    s.ModelSettings: {
        "task": Rule("What the model does; `auto` decides by its first labels."),
        "positive_class": Rule(
            "Positive class of a binary model. By default it is found by its name, by the "
            "score, or as the rarer class.",
            form="class",
        ),
        "average": Rule(
            "How precision, recall and F1 of several classes are averaged: `weighted` by how often "
            "a class is true, or `macro`, the plain mean over classes."
        ),
        "windows": Rule(
            "Windows of the performance metrics: a number of labelled rows, or a duration "
            "of event time (in steps of 10 s).",
            form="windows",
        ),
        "labels": Rule("How labels are matched."),
        "baseline": Rule("The baseline that later rows are compared with."),
        "features": Rule("By name: what you know of a feature. Other features are learnt."),
        "segments": Rule(
            "Segments: names under `segments` of the event, or features; `FEATURE: [cut, "
            "points]` splits a number into ranges.",
            form="segments",
        ),
        "segment_alerts": Rule("What of a segment is an alert."),
        "fairness": Rule("By name of a segment: its groups are compared (binary models only)."),
        "thresholds": Rule(
            "By metric: a limit beyond which an alert fires. A bare number is `min`, or "
            "`max` if less is better; `off` removes an inherited threshold.",
            form="thresholds",
        ),
        "drift": Rule("Detectors and distances."),
        "anomalies": Rule("Values that differ from the baseline."),
        "quality": Rule("Missing and broken values."),
        "freshness": Rule("Silence that raises an alert."),
        "calls": Rule("Slow and failed calls."),
        "metrics": Rule("Metrics of your own."),
        "alarm_budget": Rule(
            "How many false alarms of drift a model may raise in how much time, over all its "
            "signals together.",
            form="budget",
        ),
        "cooldown": Rule(
            "How long the same alert must not fire again after it ended.",
            low=0,
            high=30 * DAY_MS,
        ),
        "retire_after": Rule(
            "A version that nobody uses for this long (and at least for `labels.max_delay`) "
            "retires: its series and alerts end, and its place under `limits` is free. Its "
            "baseline, windows and counters stay for when it is used again.",
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
            "`learn`: from the first rows; `file`: a profile made by `stream-monitor "
            "baseline build`."
        ),
        "rows": Rule("Number of rows to learn from.", low=1, high=1_000_000),
        "path": Rule("Path of the profile, relative to `monitor.yaml`.", form="name"),
    },
    s.Feature: {
        "type": Rule("Type of the feature; `auto` decides by the first rows."),
        "min": Rule("Smaller numbers are violations."),
        "max": Rule("Greater numbers are violations."),
        "categories": Rule("Known values; others are violations.", form="categories"),
        "pattern": Rule(
            "Regular expression for the whole value, of its first 256 characters; others are "
            "violations. Without back-references and lookaround, so that time is bounded."
        ),
        "required": Rule("A missing value is a violation."),
        "unique": Rule("A repeated value is a violation."),
        "max_missing": Rule(
            "The alert fires above this share of missing values, instead of `missing_ratio`.",
            low=0,
            high=1,
        ),
    },
    s.Segment: {
        "name": Rule("Name of the segment or feature.", form="name"),
        "cut": Rule("Points that split a number into ranges, ascending."),
    },
    s.Threshold: {
        "min": Rule("The alert fires below this value."),
        "max": Rule("The alert fires above this value."),
        "severity": Rule("Severity of the alert."),
        "window": Rule("One of `windows`; by default the first `last_N`.", form="window"),
        "min_labels": Rule(
            "The metric is not judged with fewer labelled rows in the window.",
            low=1,
            high=LAST_N_MAX,
        ),
        "for": Rule(
            "How long the metric must be beyond the limit before the alert fires.",
            low=0,
            high=30 * DAY_MS,
        ),
        "clear": Rule("The alert ends past this value; by default the threshold."),
        "judge": Rule(
            "`bound`: the alert fires when the end of the interval that favours the model is "
            "beyond the limit; `value`: as soon as the metric is."
        ),
    },
    s.Drift: {
        "errors": Rule("Detectors on errors, by name; `off` for none.", form="methods"),
        "score": Rule("Detectors on the score.", form="methods"),
        "prediction": Rule("Detectors on the prediction.", form="methods"),
        "features": Rule("Detectors on each numeric feature.", form="methods"),
        "calibration": Rule("`evidence` on scores against labels, or residuals.", form="methods"),
        "latency": Rule("`evidence` on latency that rises, or its tail.", form="methods"),
        "thresholds": Rule(
            "By distance to the baseline (`psi js ks wasserstein chi2`): the alert fires "
            "above this value, if the distance is beyond chance.",
            form="distances",
        ),
        "severity": Rule("Severity of drift alerts."),
    },
    s.Anomalies: {
        "fence": Rule(
            "How many interquartile ranges a value may lie outside the quartiles.",
            above=0,
            high=1_000,
        ),
        "reference": Rule("Use the quartiles of the baseline, or of the rows before."),
        "trailing_rows": Rule(
            "How many rows before are used with `reference: trailing`.", low=20, high=1_000_000
        ),
        "share": Rule(
            "The alert fires if the share of values outside the fences exceeds that of the "
            "baseline by this much.",
            low=0,
            high=1,
        ),
        "sample": Rule(
            "Share of the rows with such values that goes to the topic `anomalies`.", low=0, high=1
        ),
        "topic": Rule("Write these rows to the topic."),
        "trend_windows": Rule(
            "Number of blocks of accuracy, precision, recall and F1 (or R² of a regression) to "
            "which trends are fitted.",
            low=3,
            high=1_000,
        ),
        "trend_slope": Rule(
            "The alert fires if one of these metrics changes by this much over these blocks, "
            "and the change is beyond chance.",
            low=-1_000,
            high=1_000,
        ),
        "pattern_z": Rule(
            "Robust z-score by which an hour of a feature may differ from the same hour of "
            "earlier days.",
            above=0,
            high=1_000,
        ),
        "pattern_windows": Rule(
            "How many hours in a row must differ before the alert fires.", low=1, high=1_000
        ),
    },
    s.Quality: {
        "missing_ratio": Rule(
            "The alert fires if the share of missing values exceeds that of the baseline by "
            "this much; `off` for none. No value of a `required` feature may be missing.",
            low=0,
            high=1,
        ),
        "violation_ratio": Rule(
            "The alert fires if the share of values with a wrong type, out of range, of an "
            "unknown category or not of their pattern is above this; `off` for none.",
            low=0,
            high=1,
        ),
        "repeated_ratio": Rule(
            "The alert fires if the share of repeated values of a `unique` feature is above this; "
            "`off` for none.",
            low=0,
            high=1,
        ),
        "unknown_field_ratio": Rule(
            "The alert fires if the share of rows with a field that neither the baseline nor "
            "`features` has is above this; `off` for none.",
            low=0,
            high=1,
        ),
        "min_rows": Rule("Fewer rows are not judged.", low=1, high=1_000_000),
    },
    s.Freshness: {
        "predictions": Rule(
            "The alert fires after this long without a prediction; `off` for never. At the "
            "default it waits longer for a model that is usually silent for longer.",
            low=1_000,
            high=366 * DAY_MS,
        ),
        "labels": Rule(
            "The alert fires after this long without a label; `off` for never.",
            low=1_000,
            high=366 * DAY_MS,
        ),
    },
    s.Calls: {
        "latency_factor": Rule(
            "A call is slow if it takes this many times the 95 % quantile of the first "
            "calls. The alert fires if more than 5 % of the calls are slow; `off` for none.",
            low=1,
            high=1_000,
        ),
        "error_share": Rule(
            "The alert fires if the share of failed calls exceeds one and a half times that "
            "of the first calls by this much; `off` for none.",
            low=0,
            high=1,
        ),
    },
    s.Metrics: {"custom": Rule("By name: a metric of one field, exported as `model_custom_NAME`.")},
    s.CustomMetric: {
        "type": Rule("Type of the metric."),
        "field": Rule("Field that is measured.", form="field"),
        "help": Rule("Help text of the metric."),
        "labels": Rule("Segments that become labels of the metric."),
        "buckets": Rule("Upper bounds of the buckets of a histogram."),
        "quantiles": Rule("Quantiles of a summary."),
    },
    s.Privacy: {"raw_values": Rule("Show raw feature values and ids in alerts and anomalies.")},
    **limit_rules.RULES,
    **segment_rules.RULES,
    **lifecycle_rules.RULES,
    **injection_rules.RULES,
}
