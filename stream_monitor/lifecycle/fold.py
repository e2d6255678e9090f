"""
What the events of `lifecycle` add up to: runs, versions, stages and the rollout of each model.

Rule of the file: no configuration, no clock, no file. The same records give the same state, also
after the configuration changed; what the configuration decided is in the events (a plan of steps,
the stages of a rollout). An event of an older controller counts no more, and an event with an id
that was seen counts once. Routers and workers do not see every claim, so an epoch begins here too
when it is said, and all readers agree on what counts. An epoch is the offset of a claim, so no
record can carry one that is not below its own offset: such a record is forged, and ignored.

>>> from stream_monitor.lifecycle.events import encode
>>> fold = Fold()
>>> trigger = Trigger(model="churn", at="2026-01-01T00:00:00Z", cause="person", by="ana").named()
>>> fold.take(encode(trigger))
>>> fold.take(encode(trigger))
>>> [t.by for t in fold.of("churn").pending.values()]
['ana']
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from stream_monitor.errors import UNREADABLE
from stream_monitor.lifecycle.events import (
    Accepted,
    AnyEvent,
    Approved,
    Asked,
    Cancelled,
    Claim,
    Compared,
    Deployment,
    Ended,
    Event,
    Paused,
    Reference,
    Refused,
    Rejected,
    Resumed,
    Retraining,
    Rollout,
    Stage,
    Trigger,
    Version,
    decode,
)
from stream_monitor.lifecycle.model import (
    APPROVAL,
    DECIDE,
    REGISTER,
    Model,
    Run,
    Trial,
    bounded,
)

RUNS_MAX, IDS_MAX, REFUSED_MAX, TRIALS_MAX = 100, 100_000, 100, 50
ANSWERED_MAX, CHAMPIONS_MAX = 10_000, 50
VERSIONS_MAX = 1_000


class Fold:
    """The state of all models, after the records that were taken."""

    def __init__(self) -> None:
        self.epoch = -1
        self.models: dict[str, Model] = {}
        self.ids: dict[str, None] = {}
        self.ignored = 0
        """Events of older controllers, and of none: their epoch is not below their offset."""
        self._takers: dict[type[Event], Callable[[Model, Any], None]] = {
            Trigger: _trigger,
            Accepted: _accepted,
            Refused: _refused,
            Retraining: _retraining,
            Ended: _ended,
            Approved: _approved,
            Rejected: _rejected,
            Cancelled: _cancelled,
            Version: _version,
            Stage: _stage,
            Deployment: _deployment,
            Compared: _compared,
            Asked: _asked,
            Paused: _paused,
            Resumed: _resumed,
        }

    def of(self, model: str) -> Model:
        """The state of a model; empty if nothing was said about it."""
        return self.models.setdefault(model, Model())

    def take(self, value: bytes | None, offset: int | None = None) -> None:
        """
        A record of `lifecycle`; what is of others is skipped.

        Parameters
        ----------
        value : bytes or None
        offset : int or None
            Of the record; None: it is not known, so a forged epoch is not found.
        """
        event = decode(value)
        if event is None:
            self._experiment(value, offset)
        elif (
            not self._is_stale(event.epoch, offset)
            and self._is_new(event)
            and not isinstance(event, Claim | Reference)
        ):
            model = self.of(event.model)
            self._takers[type(event)](model, event)
            for oldest in _oldest(model.answered, ANSWERED_MAX):
                self.ids.pop(oldest, None)  # so that it may be asked again, if it still fires

    def _is_stale(self, epoch: int | None, offset: int | None) -> bool:
        """By the newest epoch that was said: the claim itself may be forgotten after a year."""
        if epoch is None:
            return False
        stale = epoch < self.epoch or (offset is not None and epoch >= offset)
        self.epoch = self.epoch if stale else epoch
        self.ignored += stale
        return stale

    def _is_new(self, event: AnyEvent) -> bool:
        if not event.id:
            return True
        if event.id in self.ids:
            return False
        self.ids[event.id] = None
        _oldest(self.ids, IDS_MAX)
        return True

    def _experiment(self, value: bytes | None, offset: int | None) -> None:
        try:
            event = msgspec.json.decode(value or b"", type=_OfExperiment)
        except UNREADABLE:
            return
        if self._is_stale(event.epoch, offset):
            return
        model = self.of(event.model)
        if event.type == "experiment_started":
            ours = model.rollout is not None and model.rollout.experiment == event.experiment
            made = Trial(event.weights or {}, event.at, event.by, ours)
            model.trials.setdefault(event.experiment, made)
            _forget(model.trials, TRIALS_MAX)
        trial = model.trials.get(event.experiment)
        if trial is None:
            return
        if event.type == "experiment_changed":
            trial.phase += event.weights != trial.weights
            trial.weights, trial.by, trial.progress = event.weights or {}, event.by, {}
        elif event.type == "experiment_refused" and event.refused == "experiment_started":
            trial.refused = event.reason
        elif event.type == "experiment_stopped":
            trial.stopped, trial.keep = True, event.keep
        elif event.type in ("experiment_verdict", "experiment_progress") and event.arm:
            if event.phase >= trial.phase:
                trial.progress = msgspec.json.decode(value or b"")
            if trial.verdicts.get(event.arm) not in ("rollback", "mismatch"):
                trial.verdicts[event.arm] = event.verdict or "continue"
                trial.because[event.arm] = (
                    [event.because] if isinstance(event.because, str) else event.because
                )


class _OfExperiment(msgspec.Struct):
    """The fields of the events of experiments that the loop reads."""

    type: str
    model: str
    experiment: str
    at: str = ""
    by: str = ""
    epoch: int | None = None
    weights: dict[str, float] | None = None
    keep: str | None = None
    refused: str = ""
    reason: str = ""
    arm: str | None = None
    phase: int = 1
    verdict: str | None = None
    because: list[str] | str = []


def _trigger(m: Model, e: Trigger) -> None:
    if e.id not in m.answered:
        m.pending[e.id] = e
    if e.cause == "schedule":
        m.scheduled = e.at


def _answer(m: Model, trigger: str) -> Trigger | None:
    m.answered[trigger] = None
    return m.pending.pop(trigger, None)


def _accepted(m: Model, e: Accepted) -> None:
    trigger = _answer(m, e.trigger)
    if trigger is None or m.current is not None or e.run in m.runs:
        return
    steps = (APPROVAL, *e.steps) if e.approval else e.steps
    m.runs[e.run] = Run(
        run=e.run,
        trigger=trigger,
        steps=steps,
        at=e.at,
        changed=e.at,
        since=e.since,
        until=e.until,
        step=steps[0],
    )
    m.current = e.run
    _forget(m.runs, RUNS_MAX)


def _refused(m: Model, e: Refused) -> None:
    if _answer(m, e.trigger) is not None:
        m.refused = [*m.refused, e][-REFUSED_MAX:]
        m.held_back[e.trigger] = None
        _oldest(m.held_back, ANSWERED_MAX)
        kind = e.kind or ""
        m.refusals[kind] = m.refusals.get(kind, 0) + 1


def _retraining(m: Model, e: Retraining) -> None:
    run = m.runs.get(e.run)
    if run is None or run.step != e.step or run.end is not None:
        return  # a repeat, or of a run that is over
    run.changed = e.at
    if e.outcome == "started":
        run.started, run.attempt = True, e.attempt
    elif e.outcome == "again":
        run.attempt, run.started = e.attempt + 1, False
    elif e.outcome == "failed":
        run.failed = e.reason or f"{e.step} failed"
    else:
        run.results[e.step] = e.result
        following = run.steps.index(e.step) + 1
        run.step = run.steps[following] if following < len(run.steps) else None
        run.attempt, run.started = 1, False
        version = e.result.get("version")
        if e.step == REGISTER and isinstance(version, str):
            run.version = version


def _ended(m: Model, e: Ended) -> None:
    run = m.runs.get(e.run)
    if run is None or run.end is not None:
        return
    run.end, run.reason, run.changed, run.step = e.end, e.reason, e.at, None
    run.version = e.version or run.version
    m.ended[e.end] = m.ended.get(e.end, 0) + 1
    m.ended_at[e.end] = e.at
    if m.current == e.run:
        m.current = None


def _approved(m: Model, e: Approved) -> None:
    m.rolled_back = None
    run = m.runs.get(e.run or "")
    if run is not None and run.end is None:
        run.approved_by = e.by
    if e.version is not None:
        who = m.approved.setdefault(e.version, [])
        who += [] if e.by in who else [e.by]


def _rejected(m: Model, e: Rejected) -> None:
    run = m.runs.get(e.run or "")
    if run is not None and run.end is None:
        run.rejected_by = e.by
    if e.version is not None:
        m.rejected[e.version] = e.by
        _forget(m.rejected, VERSIONS_MAX)


def _cancelled(m: Model, e: Cancelled) -> None:
    run = m.runs.get(e.run)
    if run is not None and run.end is None:
        run.cancelled_by = e.by


def _version(m: Model, e: Version) -> None:
    m.versions.setdefault(e.version, e)
    used = {m.anchor, *m.champions, *(v for v, s in m.stages.items() if s != "retired")}
    for old in [v for v in m.versions if v not in used][: max(len(m.versions) - VERSIONS_MAX, 0)]:
        del m.versions[old]


def _stage(m: Model, e: Stage) -> None:
    was = m.rollout
    if was is not None and e.rollout is None and e.stages.get(was.version) == "retired":
        m.rolled_back = e.at
    _anchor(m, e)
    m.stage, m.stages = e, bounded(e.stages)
    if e.rollout is not None and e.rollout.state == "watch":
        m.promoted = e.rollout
    _champion(m)
    before = [v for v in m.deployed if v not in e.stages]
    m.deployed = dict.fromkeys([*before, *e.stages])
    _forget(m.deployed, VERSIONS_MAX)
    if e.by != "controller":
        m.rolled_back = m.asked = None
    elif m.asked is not None and e.answers == m.asked.id:
        m.asked = None
    now = m.rollout
    begins = was is None or now is None or was.state == "paused" or was.step != now.step
    if begins and now is not None and now.state == "running":
        _weights_are_ours(m)


def _champion(m: Model) -> None:
    """A way back forgets from where it came, so that the next one goes further."""
    now = m.champion
    if now is None or now == next(reversed(m.champions), None):
        return
    if now in m.champions:
        del m.champions[m.champions.index(now) + 1 :]
    else:
        m.champions = [*m.champions, now][-CHAMPIONS_MAX:]


def _weights_are_ours(m: Model) -> None:
    """After a person changed the weights, a person lets the rollout go on."""
    if m.trial is not None:
        m.trial.by = "controller"


def _anchor(m: Model, e: Stage) -> None:
    """
    A version that stays in production after its rollout is the anchor if it was proved better, or a
    person wants it. One that is only not worse is none: margins would add up.
    """
    now = next((v for v, s in e.stages.items() if s == "production"), None)
    if now is None or e.rollout is not None:
        return
    by_person = e.by != "controller" and now != m.champion
    was = m.rollout
    proved = was is not None and was.version == now and _is_proved(m, was)
    if m.anchor is None or by_person or proved:
        m.anchor = now


def _is_proved(m: Model, rollout: Rollout) -> bool:
    if rollout.run is None or rollout.version in m.approved:
        return True  # a person registered it, or let it go on
    run = m.runs.get(rollout.run)
    if run is None:
        return False
    decided = run.results.get(DECIDE, {})
    bound = (decided.get("anchor") or decided).get("lower")
    return run.approved_by is not None or (isinstance(bound, int | float) and bound > 0)


def _deployment(m: Model, e: Deployment) -> None:
    m.deployments.setdefault(e.experiment, []).append(e)
    _forget(m.deployments, TRIALS_MAX)


def _compared(m: Model, e: Compared) -> None:
    m.compared = e


def _asked(m: Model, e: Asked) -> None:
    m.asked = e
    m.rolled_back = None
    if e.version is not None and e.what != "rollback":
        m.rejected.pop(e.version, None)  # whoever asks for it knows
        if e.what == "start":
            m.approved.pop(e.version, None)


def _paused(m: Model, e: Paused) -> None:
    m.paused = e


def _resumed(m: Model, _: Resumed) -> None:
    m.paused = None
    m.rolled_back = None
    _weights_are_ours(m)


def _oldest(known: dict[str, None], most: int) -> list[str]:
    """If there are more, drop a tenth and tell which; to look for one each time would cost more."""
    gone = list(islice(known, most // 10)) if len(known) > most else []
    for each in gone:
        del known[each]
    return gone


def _forget(of_name: dict[str, Any], most: int) -> None:
    """Drop the oldest entries beyond so many."""
    for old in list(of_name)[:-most]:
        del of_name[old]
