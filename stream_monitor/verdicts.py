"""
The values between monitors, alerts and stages: what a monitor concluded, and which records to
write.

Rule of the file: values only. Monitors make `Verdict`s, the alert lifecycle turns them into alert
events, and EVALUATE returns `Out` records. Nothing is computed here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from msgspec import Struct

from stream_monitor.schema import Reason

Kind = Literal[
    "performance",
    "concept_drift",
    "data_drift",
    "prediction_drift",
    "data_quality",
    "anomaly",
    "latency",
    "volume",
    "calibration",
    "freshness",
    "experiment",
    "fairness",
]
Level = Literal["ok", "info", "warning", "critical"]
LEVELS: tuple[Level, ...] = get_args(Level)
Direction = Literal["up", "down"]


class AlertKey(NamedTuple):
    """
    What an alert is about. Its fingerprint is the hash of these fields, and stays the same in every
    episode.
    """

    model: str
    version: str
    segment: str
    """`name=value`, or empty."""
    kind: Kind
    subject: str
    detector: str

    @property
    def title(self) -> str:
        """
        The name of the model version at the start of sentences.

        >>> key = AlertKey("fraud", "3", "", "freshness", "labels", "silence")
        >>> key.title, key._replace(version="").title
        ('fraud 3', 'fraud')
        """
        return f"{self.model} {self.version}" if self.version else self.model


class Span(Struct, frozen=True, array_like=True):
    """The rows of a measurement: event times in ms, and their number."""

    start_ms: int
    end_ms: int
    count: int


class Verdict(Struct, frozen=True, kw_only=True):
    """
    One judgement of one rule at one moment of log time.

    `level` is `ok` if the rule is satisfied. With too few rows there is no verdict at all. `clear`
    says that the value is past the hysteresis (`clear` of the threshold), so that a firing episode
    may end. Between the two a firing episode continues.
    """

    key: AlertKey
    level: Level
    clear: bool
    value: float
    threshold: float
    direction: Direction | None
    window: Span
    summary: str
    baseline_id: str = ""
    for_ms: int = 0
    """Dwell: how long the rule must be broken before the alert fires, ms."""
    cooldown_ms: int = 0
    """How long no new episode may begin after one ended, ms."""
    evidence: dict[str, object] = {}
    annotations: dict[str, str] = {}

    @classmethod
    def end(cls, key: AlertKey, log_ms: int, summary: str) -> Verdict:
        """The end of an alert that no rule judges any more."""
        return cls(
            key=key,
            level="ok",
            clear=True,
            value=0.0,
            threshold=0.0,
            direction=None,
            window=Span(log_ms, log_ms, 0),
            summary=summary,
            evidence={"guarantee": "none"},
        )


class Out(NamedTuple):
    """
    A record for one of our topics, by its logical name (without prefix): `alerts`, `anomalies`,
    `history`, `baselines`, or `lifecycle` for a verdict of an experiment.
    """

    topic: str
    key: bytes | None
    value: bytes


class Reject(NamedTuple):
    """
    A record that cannot be used.

    `message` is for people.
    """

    index: int  # type: ignore[assignment]
    """Position of the record in its batch."""
    reason: Reason
    message: str
