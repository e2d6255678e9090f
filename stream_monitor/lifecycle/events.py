"""
The events of the loop on `lifecycle`, one class for each type.

Rule of the file: an event says what happened or what a person wants, never how it is done: there
are no commands, paths or addresses in it. Its `id` is a hash of what makes it unique, so an event
that is written twice counts once. A reader ignores types and fields that it does not know.

Events of experiments are in `experiments/definition.py`, marks on alerts in `alerts/marks.py`.

>>> event = Trigger(model="churn", at="2026-01-01T00:00:00Z", cause="person", by="ana").named()
>>> event.id, decode(encode(event)) == event
('cd18828f29a7f35602ec469691f352f8', True)
>>> decode(b'{"type": "experiment_started", "model": "churn"}') is None
True
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, ClassVar, Literal, Self

import msgspec
from msgspec import Struct

from stream_monitor.errors import UNREADABLE

SCHEMA = 1
RESULT_BYTES_MAX, LOG_BYTES_MAX = 16_384, 4_096
Cause = Literal["alert", "schedule", "labels", "person"]
Outcome = Literal["started", "done", "again", "failed", "skipped"]
"""`again`: it failed and is started once more."""
StageName = Literal["shadow", "canary", "production", "retired"]
End = Literal["done", "failed", "cancelled", "rejected", "refused"]
RefusalKind = Literal[
    "run",
    "rollout",
    "paused",
    "cooldown",
    "rolled_back",
    "max_a_week",
    "bad_data",
    "few_labels",
]
"""Why a trigger starts no run, to be counted by."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all events have. `at` is RFC 3339 in UTC."""

    UNIQUE: ClassVar[tuple[str, ...]] = ("at", "by")
    """Fields that make an event unique, beside its type and model."""

    model: str
    at: str
    id: str = ""
    by: str = "controller"
    epoch: int | None = None
    """Of the controller that wrote it; None: a person did."""

    def named(self) -> Self:
        """The event with its id: blake2b-128 of its type, its model and its unique fields."""
        key = [self.__struct_config__.tag, self.model, *(getattr(self, f) for f in self.UNIQUE)]
        found = blake2b(msgspec.json.encode(key), digest_size=16).hexdigest()
        return msgspec.structs.replace(self, id=found)


class Claim(Event, frozen=True, tag="claim"):
    """
    A controller begins. The offset of this record is its epoch. It is written a second time, with
    the epoch; from there on older ones count no more.
    """

    UNIQUE = ("at", "host")
    host: str


class Trigger(Event, frozen=True, tag="trigger"):
    """Something asks for a retraining; the answer is `accepted` or `refused`."""

    UNIQUE = ("cause", "fingerprint", "starts_at", "at")
    cause: Cause
    fingerprint: str | None = None
    starts_at: str | None = None
    """When the episode of the alert began."""
    again: int = 0
    """How often this episode was refused before; it is asked again when limits allow it."""
    comment: str | None = None

    def named(self) -> Self:
        """One episode of an alert is one trigger, however often it is written."""
        if self.fingerprint is None:
            return super().named()
        key = msgspec.json.encode(
            ["trigger", self.model, self.fingerprint, self.starts_at, self.again]
        )
        return msgspec.structs.replace(self, id=blake2b(key, digest_size=16).hexdigest())


class Accepted(Event, frozen=True, tag="accepted"):
    """A run begins: its plan is fixed, whatever the configuration says later."""

    UNIQUE = ("trigger",)
    trigger: str
    run: str
    steps: tuple[str, ...]
    since: str | None = None
    """Rows before it are not collected."""
    until: str | None = None
    approval: bool = False
    """The run waits for a person before its first step."""


class Refused(Event, frozen=True, tag="refused"):
    """A trigger that starts no run, and why."""

    UNIQUE = ("trigger",)
    trigger: str
    reason: str
    kind: RefusalKind | None = None


class Retraining(Event, frozen=True, tag="retraining"):
    """A step of a run."""

    UNIQUE = ("run", "step", "attempt", "outcome")
    run: str
    step: str
    outcome: Outcome
    attempt: int = 1
    result: dict[str, Any] = {}
    log: str = ""
    """The last lines of its log."""
    reason: str = ""


class Ended(Event, frozen=True, tag="ended"):
    """A run is over."""

    UNIQUE = ("run",)
    run: str
    end: End
    reason: str = ""
    version: str | None = None


class Approved(Event, frozen=True, tag="approved"):
    """A person lets a run, or the promotion of a version, go on."""

    UNIQUE = ("run", "version", "at", "by")
    run: str | None = None
    version: str | None = None
    comment: str | None = None


class Rejected(Event, frozen=True, tag="rejected"):
    """A person does not."""

    UNIQUE = ("run", "version", "at", "by")
    run: str | None = None
    version: str | None = None
    comment: str | None = None


class Cancelled(Event, frozen=True, tag="cancelled"):
    """A person ends a run."""

    UNIQUE = ("run", "at", "by")
    run: str
    comment: str | None = None


class Version(Event, frozen=True, tag="version"):
    """A version came to be: its tag is on the remote."""

    UNIQUE = ("version",)
    version: str
    tag: str
    revision: str
    data: dict[str, str] = {}
    """Hashes of its data, by path."""
    artifact: dict[str, str] = {}
    """Hashes of its model files, by path."""
    metrics: dict[str, float] = {}
    reference: str = ""
    """Id of its baseline."""
    run: str | None = None
    reason: str = ""


class Reference(Event, frozen=True, tag="reference"):
    """
    A part of the baseline profile of a version; if the version is empty, of all that are new from
    then on. The parts follow each other.
    """

    UNIQUE = ("version", "reference", "part")
    version: str
    reference: str
    """Id of the profile."""
    part: int
    parts: int
    content: str
    """Base64 of a piece of the compressed profile."""


class Rollout(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version on its way into production, as the newest `stage` event says."""

    version: str
    against: str | None
    """The champion; None: there is none."""
    experiment: str
    stages: tuple[float, ...]
    """Percent of the traffic, ascending."""
    step: int
    """Index of the stage that is in force."""
    since: str
    """When it began, RFC 3339."""
    state: Literal["running", "approval", "late", "paused", "watch"] = "running"
    """`late`: the deadline is over and a person is asked; `watch`: it is promoted."""
    run: str | None = None
    by: str = ""
    """The person who asked for it; empty: a run led to it."""


class Stage(Event, frozen=True, tag="stage"):
    """The stages of all versions of a model; the newest one counts."""

    UNIQUE = ("stages", "rollout", "reason", "at")
    stages: dict[str, StageName]
    rollout: Rollout | None = None
    reference: str = ""
    """Id of the baseline of the version in production."""
    reason: str = ""
    answers: str = ""
    """Id of the `asked` that it answers; one that came later is still to be answered."""


class Deployment(Event, frozen=True, tag="deployment"):
    """A command of a deployment: done, failed, or taken back."""

    UNIQUE = ("experiment", "step", "command", "outcome")
    experiment: str
    step: int
    command: str
    outcome: Literal["done", "failed", "taken_back", "not_taken_back"]
    log: str = ""


class Compared(Event, frozen=True, tag="compared"):
    """How the model did before and after a promotion; the same version can be promoted again."""

    UNIQUE = ("version", "against", "experiment")
    version: str
    against: str
    before: dict[str, float]
    """Metrics of the champion before, and `labels`."""
    after: dict[str, float]
    experiment: str = ""
    """Of the rollout that ended with the promotion."""


class Asked(Event, frozen=True, tag="asked"):
    """A person asks for a rollout, the next stage, or the way back."""

    UNIQUE = ("what", "version", "at", "by")
    what: Literal["start", "promote", "rollback"]
    version: str | None = None
    comment: str | None = None


class Paused(Event, frozen=True, tag="paused"):
    """Nothing goes forward; a rollback still does."""

    until: str | None = None
    comment: str | None = None


class Resumed(Event, frozen=True, tag="resumed"):
    """It goes on."""

    comment: str | None = None


AnyEvent = (
    Claim
    | Trigger
    | Accepted
    | Refused
    | Retraining
    | Ended
    | Approved
    | Rejected
    | Cancelled
    | Version
    | Reference
    | Stage
    | Deployment
    | Compared
    | Asked
    | Paused
    | Resumed
)
_decoder = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder(order="deterministic")


def decode(value: bytes | None) -> AnyEvent | None:
    """An event of a record on `lifecycle`; None if it is of others or cannot be read."""
    if value is None:
        return None
    try:
        event: AnyEvent = _decoder.decode(value)
    except UNREADABLE:
        return None
    return event


def encode(event: Event) -> bytes:
    """The value of the record."""
    return _encoder.encode({"schema": SCHEMA, **msgspec.to_builtins(event)})


def run_of(trigger: str) -> str:
    """
    The id of the run that a trigger starts.

    >>> run_of("cd18828f29a7f35602ec469691f352f8")
    'a504df6c0be7'
    """
    return blake2b(trigger.encode(), digest_size=6).hexdigest()
