"""
All experiments of a shard: which rows each gets, and which verdicts are written.

Rule of the file: a verdict on an arm is written once in a phase, with an id that is the hash of
experiment, arm, phase and verdict. `rollback` and `mismatch` stay once they are said. A definition
that cannot work is refused and counted, because a fold cannot stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.experiments.alarms import alarm_of
from stream_monitor.experiments.calls import calls_of
from stream_monitor.experiments.definition import (
    CHANGED,
    PHASES_MAX,
    STARTED,
    STOPPED,
    changed_of,
    check_maturity,
    definition_of,
    shares_of,
)
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.inbox import Inbox, Record, stretches
from stream_monitor.experiments.judgement import FINAL, ArmVerdict, fixed_horizon, hours, look
from stream_monitor.experiments.outcomes import columns_of
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import Out

SCHEMA = 1
OF_MODEL_MAX, OF_SHARD_MAX, UNITS_MAX = 4, 16, 200_000
FULL_ROWS = 2_000
"""Rows of an experiment that are taken in at once."""


class ExperimentsState(msgspec.Struct):
    """Experiments by model and name."""

    of_model: dict[str, dict[str, Experiment]] = {}
    refused: dict[str, int] = {}
    """Events that could not be used, by their type."""


class Experiments:
    """
    Experiments by model and name.

    Parameters
    ----------
    calls_max : int
        Calls that wait for labels, in each.
    keep_ms : callable
        How long predictions of a model wait for labels.
    """

    def __init__(self, calls_max: int, keep_ms: Callable[[str], int]) -> None:
        self.calls_max, self.keep_ms = calls_max, keep_ms
        self.state = ExperimentsState()
        self._inbox: Inbox | None = None

    def __iter__(self) -> Iterator[Experiment]:
        return (e for of_name in self.state.of_model.values() for e in of_name.values())

    def running(self, model: str) -> list[Experiment]:
        """Experiments that take rows of a model."""
        return [e for e in self.state.of_model.get(model, {}).values() if not e.stopped]

    # ---- events

    def take_event(self, text: str, now_ms: int) -> None:
        """An event of `lifecycle`, at its place in the log."""
        event: dict[str, Any] = msgspec.json.decode(text)
        kind = event.get("type")
        try:
            if kind == STARTED:
                self._start(event, now_ms)
            elif kind == CHANGED:
                self._change(event, now_ms)
            elif kind == STOPPED:
                self._stop(event)
        except InputError:
            refused = self.state.refused
            refused[str(kind)] = refused.get(str(kind), 0) + 1

    def _start(self, event: Mapping[str, Any], now_ms: int) -> None:
        definition = definition_of(event)
        check_maturity(definition, self.keep_ms(definition.model))
        of_name = self.state.of_model.setdefault(definition.model, {})
        if definition.name in of_name:  # said again: it goes on
            return
        for name in [n for n, e in of_name.items() if e.stopped]:
            if len(of_name) >= OF_MODEL_MAX:
                del of_name[name]
        running = sum(not e.stopped for e in self)
        if len(of_name) >= OF_MODEL_MAX or running >= OF_SHARD_MAX:
            raise InputError(f"there are {running} experiments already")
        of_name[definition.name] = Experiment.begun(definition, now_ms, UNITS_MAX, self.calls_max)

    def _change(self, event: Mapping[str, Any], now_ms: int) -> None:
        changed = changed_of(event)
        found = self.state.of_model.get(changed.model, {}).get(changed.name)
        if found is None or found.stopped or found.phase >= PHASES_MAX:
            raise InputError("there is no such experiment that can be changed")
        weights = shares_of(changed.weights, [arm.name for arm in found.definition.arms])
        found.change(weights, changed.despite, now_ms)

    def _stop(self, event: Mapping[str, Any]) -> None:
        found = self.state.of_model.get(str(event.get("model")), {}).get(
            str(event.get("experiment"))
        )
        if found is None:
            raise InputError("there is no such experiment")
        found.stopped = True

    # ---- rows

    def fold(self, record: Record, events: list[tuple[int, str]]) -> None:
        """
        Take the rows of a record.

        Parameters
        ----------
        record : Record
        events : list of (place in the record, JSON)
            Events of experiments, ascending; each counts from its place on.
        """
        for start, end, event in stretches(events):
            if self._inbox is None:
                self._inbox = self._opened()
            self._inbox.take(record, start, end)
            if self._inbox.rows >= FULL_ROWS * len(self._inbox.models):
                self.settle()
            if event is not None:
                self.settle()
                self._inbox = None
                self.take_event(event, int(record.now_ms[end]))

    def _opened(self) -> Inbox:
        """An inbox for the experiments that run."""
        running = [e for e in self if not e.stopped]
        columns = [columns_of(e.definition) for e in running]
        known = [c for c in columns if c is not None]
        return Inbox(
            list(dict.fromkeys(e.definition.model for e in running)),
            set().union(*known) if len(known) == len(columns) else None,
        )

    def settle(self) -> None:
        """Take in what waits in the inbox."""
        if self._inbox is None:
            return
        versions, texts = self._inbox.versions, self._inbox.texts
        for model, waiting in self._inbox.drained().items():
            for experiment in self.running(model):
                if waiting.calls:
                    experiment.add(calls_of(experiment.definition, waiting.calls, versions))
                for labels in waiting.labels:
                    experiment.label(labels.pairs, texts, labels.now_ms)

    def tick(self, now_ms: int, log_position: int) -> list[Out]:
        """Judge the experiments that are due; returns new verdicts."""
        out = []
        self.settle()
        for experiment in self:
            if experiment.stopped:
                continue
            d = experiment.definition
            experiment.tick(now_ms, self.keep_ms(d.model))
            aged = any(
                experiment.looked_ms < experiment.started_ms + limit <= now_ms
                for limit in (d.least_ms, d.longest_ms)
            )
            if experiment.dirty or aged:
                experiment.dirty, experiment.looked_ms = False, now_ms
                back = []
                for found in look(experiment, now_ms):
                    told = self._tell(experiment, found, now_ms, log_position)
                    out += told
                    back += [found.number] if told and found.verdict == "rollback" else []
                experiment.hold(back, now_ms)
        return out

    def _tell(
        self, experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int
    ) -> list[Out]:
        told = experiment.told.setdefault(found.arm, {})
        final = any(verdict in told for verdict in FINAL)
        if found.verdict == "continue" or final or told.get(found.verdict) == experiment.phase:
            return []
        told[found.verdict] = experiment.phase
        if found.verdict in FINAL:
            experiment.alarms[found.arm] = alarm_of(experiment, found, now_ms)
        return [verdict_event(experiment, found, now_ms, log_position)]

    def close(self, now_ms: int, log_position: int) -> list[Out]:
        """The end of the input: where no verdict was told, how it stands."""
        return [
            verdict_event(experiment, found, now_ms, log_position)
            for experiment in self
            for found in look(experiment, now_ms)
            if not experiment.told.get(found.arm)
        ]


def verdict_id(name: str, arm: str, phase: int, verdict: str) -> str:
    """
    The id of a verdict, the same wherever and whenever the log is folded.

    >>> verdict_id("fraud-17", "b", 2, "rollback")
    '700436f45c95fd21dde62bb1959e8126'
    """
    key = "\x00".join((name, arm, str(phase), verdict))
    return blake2b(key.encode(), digest_size=16).hexdigest()


def verdict_event(experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int) -> Out:
    """The `experiment_verdict` event of an arm."""
    d = experiment.definition
    names = [arm.name for arm in d.arms]
    units = dict(zip(names, experiment.all_units.tolist(), strict=True))
    event = {
        "schema": SCHEMA,
        "type": "experiment_verdict",
        "model": d.model,
        "at": rfc3339(now_ms),
        "experiment": d.name,
        "id": verdict_id(d.name, found.arm, experiment.phase, found.verdict),
        "arm": found.arm,
        "phase": experiment.phase,
        "verdict": found.verdict,
        "because": found.because,
        "log_position": log_position,
        "hours": round(hours(experiment, now_ms), 3),
        "units": units,
        "unit": d.unit,
        "left_out": {reason: n for reason, n in experiment.left_out.items() if n},
        "evidence": found.evidence,
        "fixed_horizon": fixed_horizon(experiment, found.number),
    }
    return Out("lifecycle", d.model.encode(), msgspec.json.encode(event))
