"""
Replays of the same data with and without drifts: how often something is told that is not there, and
how soon what is there.

Rule of the file: the data is read once for all of them. A trial begins as a copy of the replay
without drifts, at the row where its drift begins; what it tells beyond that replay is its finding.
"""

from __future__ import annotations

import copy
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.config.injection_settings import Drift, Injection
from stream_monitor.errors import InputError
from stream_monitor.inputs.merge import Event
from stream_monitor.offline.alarms import Alarm, alarms_of
from stream_monitor.offline.injecting import Injector, Place, Survey
from stream_monitor.offline.replay import Replay
from stream_monitor.times import DAY_MS

BLOCK_EVENTS = 1_000
KINDS_OF = {
    "score": ("prediction_drift", "calibration"),
    "prediction": ("prediction_drift",),
    "latency_ms": ("latency",),
    "flip": ("concept_drift", "performance", "calibration"),
    "drop": ("volume", "freshness"),
}
"""
By field, or by kind of drift: kinds of alerts that name it. A feature is named by its subject.
"""


class Finding(NamedTuple):
    """What a trial told."""

    row: int
    """Row at which the drift began."""
    start_ms: int
    changed: int
    """Events that were changed or left out."""
    alarms: list[Alarm]
    """Alarms within the horizon that the replay without drifts does not have, the first first."""
    rows: int | None
    """Rows until the first of them; None if there is none."""
    by_chance: bool
    """Whether the replay without drifts has an alarm that begins within the horizon too."""

    @property
    def lasted_ms(self) -> int | None:
        """Time until the first alarm."""
        return self.alarms[0].start_ms - self.start_ms if self.alarms else None


class Outcome(NamedTuple):
    """All trials of one drift."""

    drift: Drift
    findings: list[Finding]


def names(drift: Drift, alarm: Alarm) -> bool:
    """
    Whether an alarm is about what a drift changed.

    >>> alarm = Alarm("m", "1", "", "data_drift", "x", "d", "warning", 0, None, "")
    >>> names(Drift(kind="stuck", field="features.x"), alarm), names(Drift(kind="flip"), alarm)
    (True, False)
    >>> names(Drift(kind="stuck", field="features.y"), alarm._replace(first="y"))
    True
    """
    if drift.field.startswith("features."):
        return drift.field.removeprefix("features.") in (alarm.subject, alarm.first)
    return alarm.kind in KINDS_OF[drift.field or drift.kind]


class Trial:
    """A replay with drifts, from the row on where the first begins."""

    def __init__(self, replay: Replay, injectors: list[Injector], row: int) -> None:
        self.replay: Replay | None = replay
        self.injectors, self.row = injectors, row
        self.told: list[Alarm] = []
        """Its alarms; known when it has ended."""

    def feed(self, events: Iterable[Event]) -> None:
        """Put the drifts into events, and replay them."""
        for injector in self.injectors:
            events = injector.events(events)
        if self.replay is not None:
            self.replay.feed(events)

    def end(self, *, close: bool) -> None:
        """End it, and keep only what it told; `close` if the data ends here."""
        replay, self.replay = self.replay, None
        if replay is not None:
            (replay.close if close else replay.rest)()
            self.told = alarms_of(json.loads(value) for value in replay.alerts())

    def finding(self, number: int, horizon: int, clean: Sequence[Alarm]) -> Finding:
        """What was told of one of its drifts; `clean` are the alarms without drifts."""
        injector = self.injectors[number]
        times, start_ms = injector.times, injector.start_ms or 0
        end_ms = times[min(horizon, len(times)) - 1] if times else start_ms
        # what is judged a tick after the last row counts as well
        last = len(times) < horizon
        known = {_unended(a) for a in clean}
        within = [a for a in self.told if a.start_ms >= start_ms and (last or a.start_ms <= end_ms)]
        found = [a for a in within if _unended(a) not in known]
        rows = min(bisect_right(times, found[0].start_ms), len(times)) if found else None
        by_chance = any(start_ms <= a.start_ms <= end_ms for a in clean)
        return Finding(self.row, start_ms, injector.changed, found, rows, by_chance)


def _unended(alarm: Alarm) -> Alarm:
    return alarm._replace(end_ms=None, severity="", summary="", first="")


class Trials:
    """
    Runs all trials of a file of drifts beside the replay without them.

    Parameters
    ----------
    injection : Injection
    survey : Survey
    replay : callable
        Makes a replay that has read nothing.
    baseline_rows : int
        Rows from which a baseline is learnt: no random place is among them.

    Raises
    ------
    InputError
        The data cannot have such a drift, or has too few rows.

    Notes
    -----
    Cost: one replay, and `horizon` rows of one for each repeat.
    """

    def __init__(
        self,
        injection: Injection,
        survey: Survey,
        replay: Callable[[], Replay],
        baseline_rows: int,
    ) -> None:
        self.injection, self.survey = injection, survey
        for number, drift in enumerate(injection.drifts):
            survey.check(drift, f"drifts.{number}")
        self.clean = replay()
        self.shown = self.clean
        """The replay whose output is shown: with all drifts at once, if there are no repeats."""
        self.whole: Trial | None = None
        self.rows = 0
        """Rows that were folded, in all replays together."""
        self.outcomes = [Outcome(drift, []) for drift in injection.drifts]
        self._trials: list[tuple[int, Trial]] = []
        self._begins: list[tuple[int, int, int]] = []
        if injection.repeats:
            self._choose(baseline_rows)
        else:
            injectors = [
                Injector(d, Place.of(d, survey), survey, [injection.seed, n])
                for n, d in enumerate(injection.drifts)
            ]
            self.shown = replay()
            self.whole = Trial(self.shown, injectors, 0)

    def _choose(self, baseline_rows: int) -> None:
        """Random rows at which each trial begins."""
        injection = self.injection
        first = injection.after if injection.after is not None else round(1.2 * baseline_rows)
        last = self.survey.rows - injection.horizon
        if last <= first:
            raise InputError(
                f"{self.survey.rows:,} rows are too few: a random place needs {first:,} rows "
                f"before it (`after`, baseline.rows) and {injection.horizon:,} after it (`horizon`)"
            )
        random = np.random.default_rng(injection.seed)
        self._begins = sorted(
            (int(row), number, repeat)
            for number in range(len(injection.drifts))
            for repeat, row in enumerate(random.integers(first, last, injection.repeats))
        )

    def run(self, events: Iterable[Event], show: Callable[[int], None] = lambda _: None) -> None:
        """Replay the events, once without drifts and once for each trial."""
        running: list[tuple[int, Trial]] = []
        waiting, at = list(reversed(self._begins)), 0
        for block in _blocks(events, [row for row, _, _ in self._begins]):
            while waiting and waiting[-1][0] == at:
                row, number, repeat = waiting.pop()
                trial = self._trial(row, number, repeat)
                running.append((number, trial))
                self._trials.append((number, trial))
            rows = sum(event[0] == "predictions" for event in block)
            self.clean.feed(block)
            for _, trial in running:
                trial.feed(block)
            if self.whole is not None:
                self.whole.feed(block)
            at += rows
            self.rows += rows * (1 + len(running) + (self.whole is not None))
            show(self.rows)
            running = [each for each in running if self._goes_on(each[1])]
        self.clean.close()
        for _, trial in running:
            trial.end(close=True)
        clean, horizon = self.alarms(), self.injection.horizon
        for number, trial in self._trials:
            self.outcomes[number].findings.append(trial.finding(0, horizon, clean))
        if self.whole is not None:
            self.whole.end(close=True)
            for number, outcome in enumerate(self.outcomes):
                outcome.findings.append(self.whole.finding(number, horizon, clean))

    def _trial(self, row: int, number: int, repeat: int) -> Trial:
        drift, injection = self.injection.drifts[number], self.injection
        place = Place.of(drift, self.survey)._replace(row=None)
        seed = [injection.seed, number, repeat]
        return Trial(copy.deepcopy(self.clean), [Injector(drift, place, self.survey, seed)], row)

    def _goes_on(self, trial: Trial) -> bool:
        """Whether a trial has not seen its horizon; otherwise it ends."""
        if len(trial.injectors[0].times) < self.injection.horizon:
            return True
        trial.end(close=False)
        return False

    def alarms(self) -> list[Alarm]:
        """The alarms without drifts."""
        return alarms_of(json.loads(value) for value in self.clean.alerts())

    @property
    def days(self) -> float:
        """Length of the data."""
        return (self.survey.last_ms - self.survey.first_ms) / DAY_MS

    def report(self) -> dict[str, Any]:
        """All that was found, as JSON."""
        alarms = self.alarms()
        by_kind = Counter(f"{a.kind} {a.subject}" for a in alarms)
        return {
            "schema": 1,
            "rows": self.survey.rows,
            "days": self.days,
            "horizon": self.injection.horizon,
            "without_drifts": {
                "alarms": len(alarms),
                "a_day": len(alarms) / self.days if self.days else None,
                "per_100k_rows": 1e5 * len(alarms) / self.survey.rows if self.survey.rows else None,
                "about": dict(by_kind.most_common()),
            },
            "drifts": [_of(outcome) for outcome in self.outcomes],
        }


def _of(outcome: Outcome) -> dict[str, Any]:
    drift, findings = outcome
    found = [f for f in findings if f.alarms]
    n = len(findings)

    def spread(values: list[int]) -> dict[str, float] | None:
        if not values:
            return None
        return {"median": float(np.median(values)), "p90": float(np.quantile(values, 0.9))}

    return {
        "drift": drift.title,
        "runs": n,
        "found": len(found),
        "found_share": len(found) / n if n else None,
        "by_chance_share": sum(f.by_chance for f in findings) / n if n else None,
        "named_first_share": (
            sum(names(drift, f.alarms[0]) for f in found) / len(found) if found else None
        ),
        "delay_rows": spread([f.rows for f in found if f.rows is not None]),
        "delay_ms": spread([f.lasted_ms for f in found if f.lasted_ms is not None]),
        "first": dict(
            Counter(f"{f.alarms[0].kind} {f.alarms[0].subject}" for f in found).most_common()
        ),
        "trials": [
            {
                "row": f.row,
                "changed": f.changed,
                "delay_rows": f.rows,
                "delay_ms": f.lasted_ms,
                "alarms": [f"{a.kind} {a.subject}" for a in f.alarms],
            }
            for f in findings
        ],
    }


def _blocks(events: Iterable[Event], cuts: Sequence[int]) -> Iterator[list[Event]]:
    """Events in blocks, one of which ends before each of these rows of predictions."""
    rest, row = sorted(set(cuts), reverse=True), 0
    block: list[Event] = []
    for event in events:
        if event[0] == "predictions":
            if rest and row == rest[-1]:
                rest.pop()
                yield block
                block = []
            row += 1
        block.append(event)
        if len(block) >= BLOCK_EVENTS:
            yield block
            block = []
    yield block
