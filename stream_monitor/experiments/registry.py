"""
All experiments of a shard: which rows each gets, and which verdicts are written.

Rule of the file: a verdict on an arm is written once in a phase, with an id that is the hash of
experiment, arm, phase and verdict. `rollback` and `mismatch` stay once they are said. A definition
that cannot work is refused, counted and told, because a fold cannot stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.errors import InputError
from stream_monitor.experiments.alarms import alarm_of, judged, unjudged
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
from stream_monitor.experiments.judgement import FINAL, ArmVerdict, is_new, look, standing
from stream_monitor.experiments.outcomes import columns_of
from stream_monitor.experiments.telling import (
    progress_age,
    progress_event,
    refused_event,
    verdict_event,
)
from stream_monitor.times import HOUR_MS
from stream_monitor.verdicts import Out, Verdict

UNJUDGED_MAX = 64
"""Refused starts that are remembered; beyond them the oldest are forgotten."""
OF_MODEL_MAX, OF_SHARD_MAX, UNITS_MAX = 4, 16, 200_000
FULL_ROWS = 4_000
"""Rows of an experiment that are taken in at once."""
LOOK_MS = 2_000
"""
Log time from look to look, some ticks. To take in and to judge a row costs nearly as much as a
hundred of them; and routers take up to 5 s to act on a verdict, a person minutes.
"""


class ExperimentsState(msgspec.Struct):
    """Experiments by model and name."""

    of_model: dict[str, dict[str, Experiment]] = {}
    refused: dict[str, int] = {}
    """Events that could not be used, by their type."""
    unjudged: dict[str, dict[str, Verdict]] = {}
    """By model and name: the alert on an experiment whose start was refused, until its stop."""
    looked_ms: int = 0
    """Log time of the last look at all experiments."""


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

    def take_event(self, text: str, now_ms: int) -> list[Out]:
        """An event of `lifecycle`, at its place in the log; returns what is told of it."""
        event: dict[str, Any] = msgspec.json.decode(text)
        kind = event.get("type")
        try:
            if kind == STARTED:
                self._start(event, now_ms)
            elif kind == CHANGED:
                self._change(event, now_ms)
            elif kind == STOPPED:
                self._stop(event)
        except InputError as e:
            refused = self.state.refused
            refused[str(kind)] = refused.get(str(kind), 0) + 1
            if kind == STARTED:
                self._leave_unjudged(event, str(e), now_ms)
            return [refused_event(event, str(e), now_ms)]
        return []

    def _start(self, event: Mapping[str, Any], now_ms: int) -> None:
        definition = definition_of(event)
        check_maturity(definition, self.keep_ms(definition.model))
        of_name = self.state.of_model.setdefault(definition.model, {})
        found = of_name.get(definition.name)
        if found is not None:
            if found.stopped and found.definition != definition:
                raise InputError(
                    f"experiment {definition.name!r} was stopped, and a name is used once; start "
                    "it with another name"
                )
            return  # said again: it goes on
        for name in [n for n, e in of_name.items() if e.stopped]:
            if len(of_name) >= OF_MODEL_MAX:
                del of_name[name]
        running = sum(not e.stopped for e in self)
        if len(of_name) >= OF_MODEL_MAX:
            raise InputError(
                f"model {definition.model!r} has {len(of_name)} running experiments "
                f"({', '.join(of_name)}), and no model may have more; stop one, and start this one "
                "with another name"
            )
        if running >= OF_SHARD_MAX:
            raise InputError(
                f"{running} experiments run in this partition of observations, and no partition "
                "may have more; stop one, and start this one with another name"
            )
        of_name[definition.name] = Experiment.begun(definition, now_ms, UNITS_MAX, self.calls_max)
        self._judge_again(definition.model, definition.name)

    def _change(self, event: Mapping[str, Any], now_ms: int) -> None:
        changed = changed_of(event)
        found = self.state.of_model.get(changed.model, {}).get(changed.name)
        if found is None:
            raise InputError(_unknown(changed.name))
        if found.stopped:
            raise InputError(f"experiment {changed.name!r} was stopped and cannot be changed")
        if found.phase >= PHASES_MAX:
            raise InputError(
                f"experiment {changed.name!r} has {PHASES_MAX} phases already; stop it and start "
                "another one"
            )
        weights = shares_of(changed.weights, [arm.name for arm in found.definition.arms])
        found.change(weights, changed.despite, now_ms)

    def _stop(self, event: Mapping[str, Any]) -> None:
        model, name = str(event.get("model")), str(event.get("experiment"))
        found = self.state.of_model.get(model, {}).get(name)
        known = self._judge_again(model, name)
        if found is None and not known:
            raise InputError(_unknown(name))
        if found is not None:
            found.stopped = True

    def _leave_unjudged(self, event: Mapping[str, Any], reason: str, now_ms: int) -> None:
        model, name = event["model"], event.get("experiment")
        running = isinstance(name, str) and any(
            e.definition.name == name for e in self.running(model)
        )
        if not isinstance(name, str) or not name or running:
            return
        kept = self.state.unjudged
        kept.setdefault(model, {})[name] = unjudged(model, name, reason, now_ms)
        if sum(map(len, kept.values())) > UNJUDGED_MAX:
            oldest = next(iter(kept))
            self._judge_again(oldest, next(iter(kept[oldest])))

    def _judge_again(self, model: str, name: str) -> bool:
        """Nothing is unjudged under this name any more; whether there was something."""
        of_name = self.state.unjudged.get(model, {})
        known = of_name.pop(name, None) is not None
        if known and not of_name:
            del self.state.unjudged[model]
        return known

    # ---- rows

    def fold(self, record: Record, events: list[tuple[int, str]]) -> list[Out]:
        """
        Take the rows of a record; returns what is told of its events.

        Parameters
        ----------
        record : Record
        events : list of (place in the record, JSON)
            Events of experiments, ascending; each counts from its place on.
        """
        out: list[Out] = []
        for start, end, event in stretches(events):
            if self._inbox is None:
                self._inbox = self._opened()
            self._inbox.take(record, start, end)
            if self._inbox.rows >= FULL_ROWS * len(self._inbox.models):
                self.settle()
            if event is not None:
                self.settle()
                self._inbox = None
                out += self.take_event(event, int(record.now_ms[end]))
        return out

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

    def tick(self, now_ms: int, log_position: int, *, at_once: bool = False) -> list[Out]:
        """
        Judge the experiments if `LOOK_MS` went by, or at once; returns new verdicts, and numbers
        between them.
        """
        if now_ms // LOOK_MS == self.state.looked_ms // LOOK_MS and not at_once:
            return []
        self.state.looked_ms = now_ms
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
            back: list[int] = []
            if experiment.dirty or aged:
                experiment.dirty, experiment.looked_ms = False, now_ms
                for found in look(experiment, now_ms, lean=True):
                    told = self._tell(experiment, found, now_ms, log_position)
                    out += told
                    back += [found.number] if told and found.verdict == "rollback" else []
            out += self._progress(experiment, now_ms, log_position)
            experiment.hold(back, now_ms)  # which may begin a phase
        return out

    def _progress(self, experiment: Experiment, now_ms: int, log_position: int) -> list[Out]:
        """The numbers of the arms for which they are due."""
        d = experiment.definition
        age_ms = progress_age(now_ms - experiment.started_ms, d.longest_ms)
        aged = age_ms > experiment.progress_ms
        enough = [
            arm.name
            for arm, n in zip(d.arms, experiment.counted, strict=True)
            if 0 < d.report_at <= n and experiment.reported.get(arm.name) != experiment.phase
        ]
        if not aged and not enough:
            return []
        experiment.progress_ms = age_ms
        experiment.reported |= dict.fromkeys(enough, experiment.phase)
        return [
            progress_event(experiment, found, now_ms, log_position, why)
            for found in standing(experiment, now_ms)
            for why in (
                # without traffic there is nothing new
                [f"{age_ms // HOUR_MS} h"] if aged and experiment.weights[found.number] else []
            )
            + ([f"{d.report_at} outcomes"] if found.arm in enough else [])
        ]

    def _tell(
        self, experiment: Experiment, found: ArmVerdict, now_ms: int, log_position: int
    ) -> list[Out]:
        if not is_new(experiment, found.arm, found.verdict):
            return []
        experiment.told.setdefault(found.arm, {})[found.verdict] = experiment.phase
        if found.verdict in FINAL:
            experiment.alarms[found.arm] = alarm_of(experiment, found, now_ms)
        return [verdict_event(experiment, found, now_ms, log_position)]

    def judged(self, alerts: Alerts, now_ms: int) -> Iterator[Verdict]:
        """Verdicts of all alerts on experiments, and the ends of those that nothing judges."""
        yield from judged(self, self.state.unjudged, alerts, now_ms)

    def close(self, now_ms: int, log_position: int) -> list[Out]:
        """The end of the input: where no verdict was told, how it stands."""
        return [
            verdict_event(experiment, found, now_ms, log_position)
            for experiment in self
            for found in look(experiment, now_ms)
            if not experiment.told.get(found.arm)
        ]


def _unknown(name: str) -> str:
    return f"there is no experiment {name!r}: its start is missing, or was refused"
