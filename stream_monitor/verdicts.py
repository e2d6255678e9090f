"""
Where everything meets: what a monitor concluded, and what the world shall be told.

Rule of the file: values only. Monitors make `Verdict`s, the alert lifecycle turns them into alert
events, EVALUATE hands out `Out` records; nobody here does anything.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

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
]
Level = Literal["ok", "info", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("ok", "info", "warning", "critical")


class AlertKey(NamedTuple):
    """
    What an alert is about; its fingerprint is the hash of these and stays the same in every
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
        The model version as sentences begin.

        >>> key = AlertKey("fraud", "3", "", "freshness", "labels", "silence")
        >>> key.title, key._replace(version="").title
        ('fraud 3', 'fraud')
        """
        return f"{self.model} {self.version}" if self.version else self.model


class Span(Struct, frozen=True, array_like=True):
    """The rows a measurement was made on: event times in ms, and how many."""

    start_ms: int
    end_ms: int
    count: int


class Verdict(Struct, frozen=True, kw_only=True):
    """
    One judgement of one rule at one moment of log time.

    `level` is `ok` when the rule is satisfied. With too little support there is no verdict at all.
    `clear` says that the value is past the hysteresis (`clear` of the threshold), so that a firing
    episode may end; between the two a firing episode stays.
    """

    key: AlertKey
    level: Level
    clear: bool
    value: float
    threshold: float
    direction: Literal["up", "down"] | None
    window: Span
    summary: str
    baseline_id: str = ""
    for_ms: int = 0
    """Dwell: how long the rule must be broken before the alert fires."""
    cooldown_ms: int = 0
    """After an episode ended, how long no new one may begin."""
    evidence: dict[str, object] = {}
    annotations: dict[str, str] = {}


class Out(NamedTuple):
    """
    A record for one of our topics, by its logical name (without prefix): `alerts`, `anomalies`,
    `history`, `baselines`.
    """

    topic: str
    key: bytes | None
    value: bytes


class Reject(NamedTuple):
    """
    A record that cannot be used.

    `reason` is of the closed set `schema.REJECT_REASONS`; `message` is for people.
    """

    index: int  # type: ignore[assignment]
    """Position in the batch it came in."""
    reason: str
    message: str
