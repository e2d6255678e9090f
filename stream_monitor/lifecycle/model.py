"""
The state of a model in the loop: its versions, its stages, its runs, and what people said.

Rule of the file: structs only; `fold.py` changes them, and nobody else does.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stream_monitor.events.parse import text_time
from stream_monitor.lifecycle.events import (
    Asked,
    Compared,
    Deployment,
    End,
    Paused,
    Refused,
    Rollout,
    Stage,
    StageName,
    Trigger,
    Version,
)
from stream_monitor.lifecycle.tags import in_order

APPROVAL, COLLECT, DECIDE, REGISTER = "approval", "collect", "decide", "register"
"""Steps of our own; the others are the project's."""
RETIRED_MAX = 500
"""Retired versions that a `stage` event names."""


class Run(msgspec.Struct):
    """One retraining."""

    run: str
    trigger: Trigger
    steps: tuple[str, ...]
    at: str
    """When it began."""
    changed: str
    """When it last went on."""
    since: str | None = None
    until: str | None = None
    step: str | None = None
    """The step that is to be done; None: it is over."""
    attempt: int = 1
    started: bool = False
    """Whether the step was begun."""
    results: dict[str, dict[str, Any]] = {}
    approved_by: str | None = None
    rejected_by: str | None = None
    cancelled_by: str | None = None
    failed: str | None = None
    """Why it cannot go on."""
    end: End | None = None
    reason: str = ""
    version: str | None = None

    @property
    def automatic(self) -> bool:
        """Whether no person started it."""
        return self.trigger.cause != "person"


class Trial(msgspec.Struct):
    """What is known of an experiment: the split of a rollout."""

    weights: dict[str, float]
    at: str
    by: str = "controller"
    """Who set the weights."""
    of_rollout: bool = False
    """A rollout began it, so the loop ends it as well."""
    stopped: bool = False
    keep: str | None = None
    refused: str | None = None
    """Why the worker does not judge it."""
    verdicts: dict[str, str] = {}
    """By arm: the newest verdict; `rollback` and `mismatch` stay."""
    because: dict[str, list[str]] = {}
    phase: int = 1
    progress: dict[str, Any] = {}
    """The newest event with numbers."""

    def difference(self, metric: str) -> str:
        """A metric, with its newest difference to the champion and the bounds."""
        match self.progress.get("evidence", {}).get(metric, {}):
            case {"estimate": float(value), "interval": [float(low), float(high)]}:
                return f"{metric} {value:+.3g} [{low:+.3g}, {high:+.3g}]"
        return metric

    @property
    def counted(self) -> str:
        """How many answers with a label each version has, behind a reason; empty: not known."""
        counts = self.progress.get("outcomes", {})
        return f"; labels: {', '.join(f'{v} {n}' for v, n in counts.items())}" if counts else ""


class Model(msgspec.Struct):
    """The state of one model."""

    pending: dict[str, Trigger] = {}
    """Triggers without an answer, by id."""
    answered: dict[str, None] = {}
    """Triggers that were answered, the oldest first."""
    refused: list[Refused] = []
    """The newest ones."""
    held_back: dict[str, None] = {}
    """Ids of all triggers that were refused."""
    scheduled: str | None = None
    """The newest time of the schedule that was a trigger."""
    runs: dict[str, Run] = {}
    current: str | None = None
    versions: dict[str, Version] = {}
    stages: dict[str, StageName] = {}
    stage: Stage | None = None
    """The newest one."""
    deployed: dict[str, None] = {}
    """
    Versions that had a stage, those that have one now last; they get none again unless a person
    asks.
    """
    asked: Asked | None = None
    """What a person asks for, and nothing was done about yet."""
    approved: dict[str, list[str]] = {}
    """By version: who approved its promotion."""
    rejected: dict[str, str] = {}
    paused: Paused | None = None
    trials: dict[str, Trial] = {}
    deployments: dict[str, list[Deployment]] = {}
    """By experiment, in their order."""
    ended: dict[End, int] = {}
    """How many runs ended so."""
    ended_at: dict[End, str] = {}
    refusals: dict[str, int] = {}
    """How many triggers were refused, by kind."""
    rolled_back: str | None = None
    """When a version was last taken back; None after a person spoke."""
    promoted: Rollout | None = None
    """The newest rollout that ended in production; its `since` is the promotion."""
    compared: Compared | None = None
    """How the newest version in production does, beside the one before."""
    champions: list[str] = []
    """Versions that were in production, without those from which it went back; the last is now."""
    anchor: str | None = None
    """The last version that was proved better, or approved by a person."""

    @property
    def champion(self) -> str | None:
        """The version in production."""
        return next((v for v, s in self.stages.items() if s == "production"), None)

    def paused_by(self, now_ms: int) -> str | None:
        """Who paused it; None: nobody, or the time is over."""
        p = self.paused
        return p.by if p is not None and (p.until is None or now_ms < ms_of(p.until)) else None

    @property
    def before(self) -> str | None:
        """The version that was in production before; None: there was none."""
        return self.champions[-2] if len(self.champions) > 1 else None

    @property
    def rollout(self) -> Rollout | None:
        """The rollout that is under way."""
        return self.stage.rollout if self.stage else None

    @property
    def trial(self) -> Trial | None:
        """The experiment of the rollout."""
        return self.trials.get(self.rollout.experiment) if self.rollout else None


def bounded(stages: dict[str, StageName]) -> dict[str, StageName]:
    """
    Stages without the oldest retired versions: the next event is made of them, and it has to fit
    into a record.
    """
    retired = in_order(v for v, s in stages.items() if s == "retired")[:-RETIRED_MAX]
    return {v: s for v, s in stages.items() if v not in retired} if retired else stages


def ms_of(at: str | None) -> int:
    """
    Milliseconds since 1970 of a time of an event; 0 if it is none.

    >>> ms_of("1970-01-01T00:00:01Z"), ms_of("soon")
    (1000, 0)
    """
    return text_time(at) or 0 if at else 0
