"""
The settings of the loop: what retrains a model, what compares it, how it is deployed.

Rule of the file: a command stands here and nowhere else. An event on `lifecycle` can name a run, a
step or a version, never a command, a path or an address. Durations end in `_ms` and are written
without it, as in `settings.py`.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import field

from stream_monitor.frozen import Frozen
from stream_monitor.times import DAY_MS, HOUR_MS, MINUTE_MS

GIVEN = frozenset(
    f"STREAM_MONITOR_{name}"
    for name in (
        "ANCHOR_TAG",
        "CHAMPION",
        "CHAMPION_TAG",
        "COMMAND",
        "DATA",
        "MODEL",
        "RESULT",
        "RUN",
        "SINCE",
        "UNTIL",
        "VERSION",
        "WEIGHTS",
    )
)
"""
Variables that a command of a run or a deployment gets. They are no keys of the configuration, so
that a step can call our own commands.
"""
OWN_STEPS = ("approval", "collect", "decide", "register")
"""Steps of every run; those of a project have other names."""
ARTIFACT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_/-]*[A-Za-z0-9])?")
ARTIFACT_MAX = 128
"""What may stand before the @ of a tag: GTO and git must take it."""
METRICS = (
    "accuracy",
    "error_rate",
    "brier",
    "absolute_error",
    "squared_error",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "log_loss",
    "rmse",
    "r2",
)
"""By which a challenger is compared with the champion."""
Kind = Literal[
    "performance",
    "concept_drift",
    "data_drift",
    "prediction_drift",
    "calibration",
    "latency",
    "volume",
    "anomaly",
]


class AlertTrigger(Frozen, frozen=True):
    """Alerts that ask for a retraining. Alerts on quality and freshness never do."""

    kinds: tuple[Kind, ...] = ("performance", "concept_drift")
    severity: Literal["info", "warning", "critical"] = "warning"
    for_ms: int = field(default=10 * MINUTE_MS, name="for")


class Triggers(Frozen, frozen=True):
    alerts: AlertTrigger | None = None
    schedule: str | None = None
    new_labels: int | None = None


class RunLimits(Frozen, frozen=True):
    """Protection against a loop that retrains without end; a person is not limited by it."""

    cooldown_ms: int = DAY_MS
    max_a_week: int = 2
    min_new_labels: int = 1_000
    approval: Literal["none", "run", "promotion"] = "none"
    two_people: bool = False


class Collect(Frozen, frozen=True):
    range_ms: int = 30 * DAY_MS
    since_alert: bool = True
    output: str = "data/collected.parquet"


class Step(Frozen, frozen=True):
    """One command of a retraining, in the work tree of the run."""

    name: str
    command: tuple[str, ...]
    timeout_ms: int = HOUR_MS
    retries: int = 0
    environment: tuple[str, ...] = ()


class Decide(Frozen, frozen=True):
    """When a challenger is better than the champion."""

    metric: str = "accuracy"
    rule: Literal["better", "not worse"] = "better"
    margin: float = 0.01
    alpha: float = 0.05
    min_rows: int = 500
    segments: tuple[str, ...] = ()
    segment_margin: float = 0.05
    unit: str | None = None
    positive_class: str | None = None
    latency_ratio: float = 1.2
    size_ratio: float = 2.0
    champion: str = "predictions/champion.parquet"
    challenger: str = "predictions/challenger.parquet"
    anchor: str = "predictions/anchor.parquet"


class DeployCommand(Frozen, frozen=True):
    """A command at each change of weights, and the one that takes it back."""

    name: str
    command: tuple[str, ...]
    rollback: tuple[str, ...] = ()
    timeout_ms: int = 10 * MINUTE_MS
    environment: tuple[str, ...] = ()


class Deploy(Frozen, frozen=True):
    """The stages of a rollout, in percent of the traffic, and what each waits for."""

    stages: tuple[float, ...] = (0, 1, 5, 25, 100)
    metric: str = "accuracy"
    effect: float = 0.02
    goal: Literal["better", "not worse"] = "not worse"
    unit: str = "user"
    maturity_ms: int = 0
    settle_ms: int = MINUTE_MS
    min_labels: int = 200
    min_time_ms: int = 10 * MINUTE_MS
    deadline_ms: int = DAY_MS
    on_deadline: Literal["ask", "rollback"] = "ask"
    watch_ms: int = HOUR_MS
    commands: tuple[DeployCommand, ...] = ()


class ModelLoop(Frozen, frozen=True):
    """The loop of one model. `repository` is a clone with git, and with DVC if it has `.dvc`."""

    repository: str
    remote: str = "origin"
    base: str = "main"
    artifact: str | None = None
    branch: str | None = None
    verify_tags: bool = False
    triggers: Triggers = Triggers()
    limits: RunLimits = RunLimits()
    collect: Collect | None = Collect()
    steps: tuple[Step, ...] = ()
    decide: Decide = Decide()
    deploy: Deploy = Deploy()
    keep_runs: int = 20


class Lifecycle(Frozen, frozen=True):
    work: str = "lifecycle-work"
    port: int = 9109
    models: dict[str, ModelLoop] = field(default_factory=dict)


class Archive(Frozen, frozen=True):
    """Rows as they came, for training; without a path nothing is kept."""

    path: str | None = None
    keep_ms: int | None = 90 * DAY_MS
    drop: tuple[str, ...] = ()
    flush_interval_ms: int = MINUTE_MS
    port: int = 9110
