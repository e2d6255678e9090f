"""
The settings of the core and of the worker: plain frozen values, already parsed and checked.

Rule of the file: a setting is a fact, never a behaviour. The package `config` turns `monitor.yaml`
and the environment into these structs; all others only read them. Durations are integers of
milliseconds, and their names end in `_ms`. In `monitor.yaml` the same key has no suffix, and is
written as `50ms 2s 10m 24h 30d`.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import field

from stream_monitor.frozen import Frozen, Secret, in_order, plain
from stream_monitor.lifecycle_settings import Archive, Lifecycle
from stream_monitor.times import DAY_MS, MINUTE_MS, UNITS_MS

Severity = Literal["info", "warning", "critical"]
Task = Literal["auto", "binary", "multiclass", "regression"]
OTHER = "__other__"
"""The name under which everything beyond one of the `Limits` is counted together."""


class Threshold(Frozen, frozen=True):
    """
    One rule on one metric; `min` or `max` (or both) may be given. A bare number means `min` (`max`
    if smaller is better).
    """

    min: float | None = None
    max: float | None = None
    severity: Severity = "warning"
    window: str | None = None
    min_labels: int = 100
    for_ms: int = field(default=0, name="for")
    clear: float | None = None
    judge: Literal["bound", "value"] = "bound"


class Labels(Frozen, frozen=True):
    max_delay_ms: int = DAY_MS


class Baseline(Frozen, frozen=True):
    source: Literal["learn", "file"] = "learn"
    rows: int = 5_000
    path: str | None = None


class Feature(Frozen, frozen=True):
    type: Literal["auto", "numeric", "category", "text"] = "auto"
    min: float | None = None
    max: float | None = None
    categories: tuple[str, ...] | None = None
    pattern: str | None = None
    required: bool = False
    unique: bool = False
    max_missing: float | None = None

    def __post_init__(self) -> None:
        if self.categories is not None:
            in_order(self, "categories", sorted(set(self.categories)))


class Drift(Frozen, frozen=True):
    """
    Detectors by signal, each `{METHOD: {PARAMETER: value}}`; an empty mapping switches the signal
    off.

    `thresholds` raises alerts on distances from the baseline (`psi js ks wasserstein chi2`).
    """

    errors: dict[str, dict[str, float]] = field(default_factory=lambda: {"evidence": {}})
    score: dict[str, dict[str, float]] = field(default_factory=lambda: {"evidence": {}})
    prediction: dict[str, dict[str, float]] = field(default_factory=lambda: {"evidence": {}})
    features: dict[str, dict[str, float]] = field(default_factory=lambda: {"evidence": {}})
    calibration: dict[str, dict[str, float]] = field(default_factory=lambda: {"evidence": {}})
    latency: dict[str, dict[str, float]] = field(
        default_factory=lambda: {"evidence": {"tolerance": 0.02}}
    )
    thresholds: dict[str, float] = field(default_factory=dict)
    severity: Severity = "warning"

    def __post_init__(self) -> None:
        names = "errors", "score", "prediction", "features", "calibration", "latency", "thresholds"
        for name in names:
            in_order(self, name, getattr(self, name))


class Anomalies(Frozen, frozen=True):
    fence: float = 1.5
    reference: Literal["baseline", "trailing"] = "baseline"
    trailing_rows: int = 1_000
    share: float = 0.05
    sample: float = 0.01
    topic: bool = False
    trend_windows: int = 10
    trend_slope: float = -0.1
    pattern_z: float = 6.0
    pattern_windows: int = 2


LOOKED_AT = (1, 5, 25)
"""
Rows of the windows that are judged, as multiples of `quality.min_rows`: the newest rows show
something new first; then the steady window; a long window shows what is only a little beyond its
limit.
"""
STEADY = 1
"""Which of them is the steady one, in which distances are judged."""


class Quality(Frozen, frozen=True):
    missing_ratio: float | None = 0.1
    violation_ratio: float | None = 0.05
    repeated_ratio: float | None = None
    unknown_field_ratio: float | None = None
    min_rows: int = 200


class Calls(Frozen, frozen=True):
    """Limits of latency and failures, compared with the first calls; `None` is `off`."""

    latency_factor: float | None = 3.0
    error_share: float | None = 0.02


PREDICTIONS_MS = 10 * MINUTE_MS


class Freshness(Frozen, frozen=True):
    """
    Silence that raises an alert; `None` is `off`. At its default the limit is longer for a model
    that is usually silent for longer.
    """

    predictions_ms: int | None = PREDICTIONS_MS
    labels_ms: int | None = None


class CustomMetric(Frozen, frozen=True):
    """
    A metric of one field: `prediction`, `score`, `latency_ms` or `features.NAME`. Its labels are
    names of segments.
    """

    type: Literal["counter", "gauge", "histogram", "summary"]
    field: str
    help: str = ""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    quantiles: tuple[float, ...] = (0.5, 0.95, 0.99)

    def __post_init__(self) -> None:
        for name in ("labels", "buckets", "quantiles"):
            in_order(self, name, sorted(getattr(self, name)))


class Metrics(Frozen, frozen=True):
    custom: dict[str, CustomMetric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        in_order(self, "custom", self.custom)


class Segment(Frozen, frozen=True):
    """
    A segment: a name under `segments` of the event, or a feature; a numeric one is split at points.
    """

    name: str
    cut: tuple[float, ...] = ()


class GapLimits(Frozen, frozen=True):
    """By metric: how much worse than the rest a segment may be; `None` is `off`."""

    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    mae: float | None = None


class SegmentAlerts(Frozen, frozen=True):
    """What of a segment is an alert."""

    level: bool = True
    max_gap: GapLimits = GapLimits()
    min_labels: int = 100
    severity: Severity = "warning"


class FairnessLimits(Frozen, frozen=True):
    """Limits between two groups; `None` is `off`."""

    statistical_parity_difference: float | None = None
    disparate_impact_ratio: float | None = None
    equal_opportunity_difference: float | None = None
    false_positive_rate_difference: float | None = None
    equalized_odds_difference: float | None = None


class Fairness(Frozen, frozen=True):
    """Comparison of the groups of one segment: with one of them, or with all the others."""

    reference: str | None = None
    limits: FairnessLimits = FairnessLimits()
    min_rows: int = 100
    severity: Severity = "warning"


def days_of(budget: str) -> float:
    """Days for each false alarm of a budget, such as `1/30d`."""
    count, _, duration = budget.partition("/")
    unit = duration.lstrip("0123456789")
    return int(duration.removesuffix(unit)) * UNITS_MS[unit] / DAY_MS / int(count)


class ModelSettings(Frozen, frozen=True):
    """Settings that may differ by model (`defaults` and each entry of `models`)."""

    task: Task = "auto"
    positive_class: str | None = None
    average: Literal["weighted", "macro"] = "weighted"
    windows: tuple[str, ...] = ("last_1000", "1h", "24h")
    labels: Labels = Labels()
    baseline: Baseline = Baseline()
    features: dict[str, Feature] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    segment_alerts: SegmentAlerts = SegmentAlerts()
    fairness: dict[str, Fairness] = field(default_factory=dict)
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    drift: Drift = Drift()
    anomalies: Anomalies = Anomalies()
    quality: Quality = Quality()
    freshness: Freshness = Freshness()
    calls: Calls = Calls()
    metrics: Metrics = Metrics()
    alarm_budget: str = "1/30d"
    cooldown_ms: int = 5 * MINUTE_MS
    retire_after_ms: int = 7 * DAY_MS

    def __post_init__(self) -> None:
        for name in ("features", "fairness", "thresholds"):
            in_order(self, name, getattr(self, name))
        in_order(self, "segments", sorted(self.segments, key=lambda s: s.name))

    @property
    def days_per_alarm(self) -> float:
        """
        Days for each false alarm of drift that the budget allows.

        >>> ModelSettings(alarm_budget="10/1d").days_per_alarm
        0.1
        """
        return days_of(self.alarm_budget)

    @property
    def silence_ms(self) -> int:
        """
        Time without predictions and labels after which a version retires, ms. It is at least so
        long that no label may still come.
        """
        return max(self.retire_after_ms, self.labels.max_delay_ms)


class Limits(Frozen, frozen=True):
    """
    Limits per partition of `observations` (`series`: per worker), so that the fold stays
    deterministic.
    """

    models: int = 100
    versions: int = 20
    features: int = 200
    segments: int = 50
    categories: int = 50
    pending: int = 500_000
    series: int = 50_000
    fleet_alarm_budget: str | None = None


class Privacy(Frozen, frozen=True):
    raw_values: bool = False


class CoreSettings(Frozen, frozen=True):
    """All settings of EVALUATE. Snapshots and history contain their hash."""

    defaults: ModelSettings = ModelSettings()
    models: dict[str, ModelSettings] = field(default_factory=dict)
    limits: Limits = Limits()
    privacy: Privacy = Privacy()

    def __post_init__(self) -> None:
        in_order(self, "models", self.models)

    @property
    def hash(self) -> str:
        """
        Identifies this configuration: blake2b-64 (hex) of its JSON in `plain` values.

        Configurations with the same meaning have the same hash.
        """
        return hashlib.blake2b(
            msgspec.json.encode(plain(self), order="sorted"), digest_size=8
        ).hexdigest()

    def of(self, model: str) -> ModelSettings:
        """Settings of one model: its own if configured, otherwise the defaults."""
        return self.models.get(model, self.defaults)


class Security(Frozen, frozen=True):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    username: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: Secret | None = None


class KafkaSettings(Frozen, frozen=True):
    bootstrap_servers: str = "127.0.0.1:9092"
    topic_prefix: str = ""
    create_topics: bool = True
    security: Security = Security()


class HttpSettings(Frozen, frozen=True):
    host: str = "127.0.0.1"
    port: int = 9108
    cert_file: str | None = None
    key_file: str | None = None
    token: Secret | None = None

    def url(self, port: int) -> str:
        """
        The address of the server.

        >>> HttpSettings(host="::1", cert_file="tls.crt", key_file="tls.key").url(9108)
        'https://[::1]:9108'
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert_file else 'http'}://{host}:{port}"


class WorkerSettings(Frozen, frozen=True):
    group: str = "stream-monitor"
    instance_id: str | None = None
    processing_guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    flush_interval_ms: int = 50
    alert_interval_ms: int = 250
    max_source_skew_ms: int | None = 1_000
    max_source_wait_ms: int = 5 * MINUTE_MS
    shutdown_timeout_ms: int = 10_000
    max_record_bytes: int = 1_048_576
    on_corrupt: Literal["stop", "skip"] = "stop"
    on_poison: Literal["skip", "stop"] = "skip"
    on_lost: Literal["continue", "fail"] = "continue"
    metrics: HttpSettings = HttpSettings()


class Settings(Frozen, frozen=True):
    """The whole of `monitor.yaml`."""

    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    core: CoreSettings = CoreSettings()
    archive: Archive = Archive()
    lifecycle: Lifecycle = Lifecycle()
