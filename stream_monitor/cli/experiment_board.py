"""
The experiments of a cluster, read from `lifecycle`.

Rule of the file: the state is what the worker would make of the same events, in the same order: a
name that is started again goes on, and what cannot work is left out and counted. What the worker
says of them (verdicts, numbers, refusals) is there once, by id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from stream_monitor.cli.terminal import readable
from stream_monitor.client.routing import Router
from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.experiments.definition import (
    CHANGED,
    PHASES_MAX,
    STARTED,
    STOPPED,
    Definition,
    changed_of,
    definition_of,
    diverted,
    shares_of,
)
from stream_monitor.experiments.telling import PROGRESS, REFUSED, VERDICT

if TYPE_CHECKING:
    from stream_monitor.settings import Settings


Ends = tuple[float | None, float | None]
"""An interval; an end that is None is infinite, or not defined."""


class Evidence(msgspec.Struct, frozen=True):
    """What a verdict says of one outcome, of the race of failures, or of the sample ratio."""

    estimate: float | None = None
    interval: Ends | None = None
    ready: bool = False
    waits_for: dict[str, tuple[float, float]] = {}
    coverage: Ends | None = None
    first: tuple[int, int] | None = None
    share: float = 0.0
    e: float | None = None
    needed: float = 0.0


class Planned(msgspec.Struct, frozen=True):
    """What a textbook says of one outcome."""

    t: float | None = None
    p: float | None = None
    d: float | None = None
    d_interval: Ends = (None, None)
    h: float | None = None
    h_interval: Ends = (None, None)


class VerdictEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An `experiment_verdict` or `experiment_progress` event, as far as it is shown."""

    type: str = VERDICT
    model: str
    experiment: str
    id: str
    arm: str
    phase: int
    verdict: str
    at: str
    because: list[str] = []
    hours: float = 0.0
    units: dict[str, int] = {}
    complete: dict[str, int] = {}
    """With a window: units that count."""
    left_out: dict[str, int] = {}
    evidence: dict[str, Evidence] = {}
    fixed_horizon: dict[str, Planned] = {}


class RefusedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An `experiment_refused` event."""

    id: str
    model: str
    at: str
    refused: str
    reason: str
    experiment: str = ""

    @property
    def text(self) -> str:
        """What was refused, and why."""
        return f"refused: {self.refused.removeprefix('experiment_')}: {self.reason}"


class Known:
    """One experiment: its events, and what follows from them."""

    def __init__(self, definition: Definition, event: dict[str, Any]) -> None:
        self.definition = definition
        self.started = event
        self.changes: list[dict[str, Any]] = []
        self.stopped: dict[str, Any] | None = None
        self.declared = definition.weights
        """Weights as the newest event says."""
        self.weights = definition.weights
        """In force: the control may have taken over from arms that were rolled back."""
        self.phase = 1
        self.looks: dict[str, VerdictEvent] = {}
        """
        Verdicts and the numbers between them by id, the oldest first: the same event may be written
        twice without transactions.
        """
        self.told: list[dict[str, Any]] = []
        """The events of these."""
        self.refusals: list[RefusedEvent] = []
        self.refused = False
        """The worker refused its start, so nothing judges it."""
        self._router = Router.from_event({**event, "arms": self._arms()})

    def _arms(self) -> list[dict[str, str | None]]:
        return [{"name": a.name, "version": a.version} for a in self.definition.arms]

    @property
    def names(self) -> list[str]:
        """The arms, the control first."""
        return [arm.name for arm in self.definition.arms]

    @property
    def router(self) -> Router:
        """The router of the servers that follow."""
        return self._router.without(
            n for n, w in zip(self.names, self.weights, strict=True) if not w
        )

    @property
    def verdicts(self) -> list[VerdictEvent]:
        """The oldest first."""
        return [v for v in self.looks.values() if v.type == VERDICT]

    @property
    def rolled_back(self) -> set[str]:
        """Arms that get no traffic unless an event says so in spite of their rollback."""
        return {v.arm for v in self._rollbacks}

    @property
    def _rollbacks(self) -> list[VerdictEvent]:
        honoured = self.names[1:] if self.definition.on_rollback == "stop" else ()
        return [v for v in self.verdicts if v.verdict == "rollback" and v.arm in honoured]

    @property
    def percent(self) -> dict[str, float]:
        """Weights in force."""
        return {n: w / 100 for n, w in zip(self.names, self.weights, strict=True)}

    @property
    def is_running(self) -> bool:
        return self.stopped is None and not self.refused

    def change(self, event: dict[str, Any]) -> None:
        """An `experiment_changed` event of this experiment."""
        weights = shares_of(changed_of(event).weights, self.names)
        if self.stopped is not None or self.phase >= PHASES_MAX:
            raise InputError("it cannot be changed any more")
        self._router = Router.from_event(event, self._router)
        self.changes.append(event)
        self.declared = weights
        self._count_phases()

    def add(self, look: VerdictEvent, event: dict[str, Any]) -> None:
        """An `experiment_verdict` or `experiment_progress` event of this experiment."""
        if look.id not in self.looks:
            self.looks[look.id] = look
            self.told.append(event)
            self._count_phases()

    def _count_phases(self) -> None:
        """
        Phase and weights as the worker counts them.

        A verdict names its phase. So it came before the change that ended this phase, even if it
        was written after it.
        """
        self.phase, self.weights = 1, self.definition.weights
        back: set[str] = set()
        for change in [*self.changes, None]:
            while new := {v.arm for v in self._rollbacks if v.phase == self.phase} - back:
                back |= new
                self._divert(self.weights, new)
            if change is not None:
                weights, despite = changed_of(change)[2:]
                self._divert(shares_of(weights, self.names), back - set(despite))

    def _divert(self, weights: tuple[int, ...], back: set[str]) -> None:
        found = diverted(weights, [self.names.index(arm) for arm in back])
        self.phase += found != self.weights
        self.weights = found

    def newest(self, arm: str) -> VerdictEvent | None:
        """The newest verdict on an arm."""
        return next((v for v in reversed(self.verdicts) if v.arm == arm), None)

    def refuse(self, event: RefusedEvent) -> None:
        """The worker refused an event of this experiment."""
        self.refusals.append(event)
        self.refused |= event.refused == STARTED and self.stopped is None and not self.looks


class ExperimentBoard:
    """Experiments by model and name, in the order in which they were started."""

    def __init__(self) -> None:
        self.experiments: dict[tuple[str, str], Known] = {}
        self.unusable = 0
        """Events of experiments that a worker refuses too."""
        self.refusals: dict[str, RefusedEvent] = {}
        """By id: what a worker refused."""

    def take(self, value: bytes | None) -> None:
        """A record of `lifecycle`; what is not of an experiment is left out."""
        try:
            event = msgspec.json.decode(value or b"")
        except UNREADABLE:
            return
        kind = event.get("type") if isinstance(event, dict) else None
        if not isinstance(kind, str) or not kind.startswith("experiment_"):
            return
        try:
            self._take(kind, event)
        except (InputError, LookupError, OverflowError, *UNREADABLE):
            self.unusable += 1

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        if kind == STARTED:
            definition = definition_of(event)
            key = definition.model, definition.name
            if key not in self.experiments:
                self.experiments[key] = Known(definition, event)
            return
        if kind == REFUSED:
            refusal = msgspec.convert(event, RefusedEvent)
            about = self.experiments.get((refusal.model, refusal.experiment))
            if refusal.id not in self.refusals and about is not None:
                about.refuse(refusal)
            self.refusals[refusal.id] = refusal
            return
        key = str(event.get("model")), str(event.get("experiment"))
        if kind == STOPPED and key not in self.experiments:
            self._forget(*key)
            return
        known = self.experiments[key]
        if kind == CHANGED:
            known.change(event)
        elif kind == STOPPED:
            known.stopped = event
        elif kind in {VERDICT, PROGRESS}:
            known.add(msgspec.convert(event, VerdictEvent), event)

    def _forget(self, model: str, name: str) -> None:
        """An experiment that never was one is stopped."""
        gone = [r.id for r in self.unknown(model) if r.experiment == name]
        if not gone:
            raise LookupError(name)
        for id_ in gone:
            del self.refusals[id_]

    def running(self, model: str) -> list[Known]:
        """Experiments of a model that are not stopped."""
        return [e for (m, _), e in self.experiments.items() if m == model and e.is_running]

    def unknown(self, model: str | None) -> list[RefusedEvent]:
        """Refusals about experiments of which nothing else is known."""
        return [
            r
            for r in self.refusals.values()
            if model in {None, r.model} and (r.model, r.experiment) not in self.experiments
        ]

    def unread(self, name: str, model: str | None) -> RefusedEvent | None:
        """The newest refusal of an experiment of which nothing else is known."""
        fitting = [r for r in self.unknown(model) if r.experiment == name]
        return fitting[-1] if fitting else None

    def found(self, name: str, model: str | None) -> Known:
        """
        The experiment of this name.

        Raises
        ------
        InputError
            There is none, or more than one model has one.
        """
        from stream_monitor.inputs.options import did_you_mean

        fitting = [e for (m, n), e in self.experiments.items() if n == name and model in {None, m}]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            models = ", ".join(sorted(e.definition.model for e in fitting))
            raise InputError(f"{name!r} is an experiment of {models}; say which with --model")
        refused = self.unread(name, model)
        if refused is not None:
            raise InputError(readable(f"experiment {name!r} of {refused.model} was {refused.text}"))
        names = [n for m, n in self.experiments if model in {None, m}]
        of = f" of {model}" if model else ""
        hint = did_you_mean(name, names) or " `stream-monitor experiment list` shows them."
        raise InputError(readable(f"there is no experiment {name!r}{of}.{hint}"))


def board_of(values: Iterable[bytes | None]) -> ExperimentBoard:
    """The board after these records."""
    board = ExperimentBoard()
    for value in values:
        board.take(value)
    return board


def read_board(settings: Settings) -> ExperimentBoard:
    """
    Read all of `lifecycle`.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses. A topic that does not exist is empty.
    """
    from stream_monitor.kafka.records import TopicReader

    async def read() -> ExperimentBoard:
        async with TopicReader(settings, ["lifecycle"]) as records:
            return board_of([record.value async for record in records.whole()])

    return asyncio.run(read())
