"""
One experiment as a fold of the log: calls and labels in, sums by unit and races out.

Rule of the file: the weights that are in force at a row are the null hypothesis of everything that
is exact. So a change of weights begins a new phase, at its place in the log.

Theory of operation
-------------------
In go the calls of one model and the labels that they get, in the order of the log. Kept are, for
the judgement (`judgement.py`):

- Six sums for each arm and outcome, of its units (`units.py`). The unit, a user for example, is
  what was randomised. Its calls are alike, so variances are taken between units and not between
  calls.
- Races (`stats/failure_race.py`): of two arms, which has more units with a first failure than its
  share of the traffic explains.
- The number of units that were seen first, by arm. It must agree with the weights; otherwise the
  split is broken, and nothing else can be believed.

1. `_countable` leaves out rows that say nothing about the split, each with a reason that is
   counted: of no known arm, before the start, without a unit, within a minute of a change of
   weights, or of an arm that lost its traffic by a rollback, of which a server heard late.
2. `expose` gives each unit the arm in which this phase saw it first. Its calls in another arm are
   left out too, because they would make the arms alike.
3. Outcomes that are known at once (a latency, a failure) are added. Calls whose outcome needs a
   label wait (`waiting.py`) until they are `maturity` old, and are then judged with the label that
   they have. A label that comes later changes what was counted by the difference (`_amend`).
4. A new phase begins its sums again, because weights and so the users in an arm are others. Races
   and the evidence about the split go on, because each of their steps has the weights of its own
   row.

All of it is vectorised over the rows of a record: units are looked up once for each distinct one,
and sums are differences of `bincount`. A race is advanced by the first failures of a record
together, in the order of the log.

It must never happen that a row counts twice, that a unit counts in two arms of one phase, or that a
result depends on how the log was cut into records.

Five calls of three units. User 22 is in arm b (1), and its second call in the control (0) is left
out.

>>> from stream_monitor.experiments.definition import definition_of
>>> primary = {"metric": "latency_ms", "scale": "linear", "effect": 0.1}
>>> event = {"model": "fraud", "experiment": "e", "arms": ["control", "b"], "primary": primary}
>>> experiment = Experiment.begun(definition_of(event), 0, units_max=1_000, calls_max=1_000)
>>> none, fifth = np.zeros(5, np.int64), np.arange(5)
>>> calls = Calls(
...     row=fifth,
...     id=fifth.astype(np.uint64),
...     version=none,
...     time_ms=none,
...     now_ms=none,
...     unit=np.array([21, 22, 21, 22, 23], np.uint64),
...     has_unit=np.ones(5, bool),
...     arm=np.array([0, 1, 0, 0, 1]),
...     failed=np.zeros(5, bool),
...     values=np.array([[10.0, 12.0, 20.0, 11.0, 14.0]]),
... )
>>> experiment.add(calls)
>>> experiment.counts.tolist(), experiment.left_out  # units by arm
([1, 2], {'two_arms': 1})
>>> experiment.units.sums[:, 0, :3].tolist()  # by arm: units, calls, and the sum of latencies
[[1.0, 2.0, 30.0], [2.0, 2.0, 26.0]]
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.experiments.calls import Calls
from stream_monitor.experiments.definition import Definition, diverted
from stream_monitor.experiments.measures import Outcome
from stream_monitor.experiments.outcomes import fails, of_labels
from stream_monitor.experiments.units import Units
from stream_monitor.experiments.waiting import Waiting
from stream_monitor.join.rows import Pairs
from stream_monitor.stats import failure_race
from stream_monitor.stats.failure_race import Race
from stream_monitor.stats.sample_ratio import log_evidence_of_mismatch
from stream_monitor.stats.unit_sums import N
from stream_monitor.verdicts import Verdict

FAILURES, UNLABELLED, UNLABELLED_CONTROL, GUARDS = range(4)
"""
Races: more failed calls in the arm; more calls without a label at maturity in the arm; and more of
these in the control. From GUARDS on, those of the definition.
"""
REASONS = "unknown_arm two_arms before_start change rolled_back no_unit evicted"
LEFT_OUT = tuple(REASONS.split(" "))


class Experiment(msgspec.Struct, eq=False):
    """The state of one experiment; `begun` makes a new one."""

    definition: Definition
    started_ms: int
    """Log time."""
    units: Units
    waiting: Waiting | None
    """Calls that wait for their labels; None if no outcome needs a label."""
    races: list[list[Race]]
    """Races, by kind and arm."""
    weights: tuple[int, ...]
    """In force, in hundredths of a percent."""
    counts: Int
    """Units that were seen first under the present weights, by arm."""
    all_units: Int
    """Units that were ever seen first, by arm."""
    mature: Int
    """(arms, 2): calls of this phase that are mature, and those that have a label."""
    shares_at: list[list[float]] = []
    """By phase: the share of each arm in the traffic of it and the control."""
    log_e_before: float = 0.0
    """Evidence of a sample ratio mismatch under the weights before."""
    left_out: dict[str, int] = {}
    """Rows that do not count, by reason."""
    rows: int = 0
    changed_ms: int = 0
    looked_ms: int = 0
    """Log time of the last look."""
    progress_ms: int = 0
    """Age at which numbers were told last."""
    reported: dict[str, int] = {}
    stopped: bool = False
    dirty: bool = True
    """Whether something changed since the last look."""
    told: dict[str, dict[str, int]] = {}
    """By arm: each verdict that was written, with its phase."""
    alarms: dict[str, Verdict] = {}
    """By arm that was rolled back, or cannot be judged: its alert."""
    held: list[int] = []
    """Arms whose traffic the control has, because of their rollback and of no event."""

    @classmethod
    def begun(
        cls, definition: Definition, now_ms: int, units_max: int, calls_max: int
    ) -> Experiment:
        """
        An experiment that begins.

        Parameters
        ----------
        definition : Definition
        now_ms : int
            Log time.
        units_max, calls_max : int
            Units that are kept, and calls that wait for labels.
        """
        arms = len(definition.arms)
        labelled = sum(o.needs_label for o in (*definition.outcomes, *definition.races))
        races = GUARDS + len(definition.races)
        none = np.zeros(arms, np.int64)
        found = cls(
            definition=definition,
            started_ms=now_ms,
            looked_ms=now_ms,
            units=Units(
                arms,
                len(definition.outcomes),
                units_max,
                definition.window_ms,
                definition.maturity_ms if labelled else 0,
            ),
            waiting=Waiting(labelled, calls_max) if labelled else None,
            races=[[failure_race.start() for _ in range(arms - 1)] for _ in range(races)],
            weights=definition.weights,
            counts=none,
            all_units=none.copy(),
            mature=np.zeros((arms, 2), np.int64),
        )
        found._begin_phase()
        return found

    @property
    def of_labels(self) -> list[int]:
        """Outcomes that need a label."""
        return [i for i, o in enumerate(self.definition.outcomes) if o.needs_label]

    @property
    def of_calls(self) -> list[int]:
        """Outcomes that are known at once."""
        return [i for i, o in enumerate(self.definition.outcomes) if not o.needs_label]

    def _races(self, *, of_labels: bool) -> list[tuple[int, Outcome]]:
        """Races of the definition that need a label, or those that are known at once."""
        races = enumerate(self.definition.races, GUARDS)
        return [(race, o) for race, o in races if o.needs_label == of_labels]

    def _leave_out(self, reason: str, rows: int) -> None:
        if rows:
            self.left_out[reason] = self.left_out.get(reason, 0) + rows

    # ---- the split

    @property
    def phase(self) -> int:
        """1 from the start, one more with each change of weights."""
        return self.units.phase

    def _begin_phase(self) -> None:
        self.units.begin_phase()
        control = self.weights[0]
        self.shares_at.append([w / (w + control) if w + control else 0.0 for w in self.weights[1:]])
        self.mature[:] = 0
        self.dirty = True

    def reweigh(self, weights: tuple[int, ...], now_ms: int) -> None:
        """New weights: a new phase."""
        self.log_e_before = self.log_e_mismatch
        self.weights, self.counts[:] = weights, 0
        self.changed_ms = now_ms
        self._begin_phase()

    def change(self, weights: tuple[int, ...], despite: Collection[str], now_ms: int) -> None:
        """
        Weights of an event; an arm that was rolled back gets them if it is among `despite`.

        Routers do the same (`client/following.py`). What is in force here must be what they do, or
        the sample ratio would be a mismatch.
        """
        names = [arm.name for arm in self.definition.arms]
        self.held = []
        self._divert(weights, [b for b in self._rolled_back() if names[b] not in despite], now_ms)

    def hold(self, arms: Collection[int], now_ms: int) -> None:
        """Let the control take over from arms that were just rolled back, where that is wanted."""
        self._divert(self.weights, arms, now_ms)

    def _divert(self, weights: tuple[int, ...], arms: Collection[int], now_ms: int) -> None:
        if self.definition.on_rollback == "stop":
            self.held += [b for b in arms if weights[b]]
            weights = diverted(weights, arms)
        if weights != self.weights:
            self.reweigh(weights, now_ms)

    def _rolled_back(self) -> list[int]:
        arms = enumerate(self.definition.arms)
        return [b for b, arm in arms if "rollback" in self.told.get(arm.name, {})]

    @property
    def log_e_mismatch(self) -> float:
        """Log evidence that units do not arrive as the weights say."""
        return self.log_e_before + log_evidence_of_mismatch(self.counts.tolist(), self.weights)

    # ---- rows in

    def add(self, calls: Calls) -> None:
        """Calls, served and failed, in the order of the log."""
        self.rows += len(calls.row)
        counted = self._countable(calls)
        if not counted.any():
            return
        calls = calls.those(counted)
        row, kept, moved, new = self.units.expose(calls.unit, calls.arm, calls.now_ms)
        self._leave_out("two_arms", int(moved.sum()))
        self.counts += new
        self.all_units += new
        calls = calls.at(kept) if len(kept) < len(calls.row) else calls
        sequences, is_open = len(self.of_calls), self.units.is_open(row, calls.now_ms, calls.now_ms)
        groups = self.units.groups(row)
        for values, outcome in zip(calls.values[:sequences], self.of_calls, strict=True):
            known = is_open & ~np.isnan(values)
            some = (row, values, groups) if known.all() else (row[known], values[known])
            self.units.add(outcome, *some)
        failed = np.flatnonzero(calls.failed)
        self._fall(FAILURES, row[failed], calls.arm[failed], np.full(len(failed), self.phase))
        races = self._races(of_labels=False)
        for values, (race, of_race) in zip(calls.values[sequences:], races, strict=True):
            bad = np.flatnonzero(fails(of_race, values))
            self._fall(race, row[bad], calls.arm[bad], np.full(len(bad), self.phase))
        if self.waiting is not None:
            calls = calls.those(~calls.failed)
            self.waiting.add(
                calls.id, calls.version, calls.unit, calls.arm, self.phase, calls.now_ms
            )
        self.units.thin()
        self.dirty = True

    @property
    def settled_ms(self) -> int:
        """Log time from which calls count again after a change of weights."""
        return self.changed_ms + self.definition.settle_ms if self.changed_ms else 0

    @property
    def counted(self) -> list[int]:
        """By arm: outcomes of the primary metric in this phase."""
        return [int(n) for n in self.units.sums[:, 0, N]]

    def _countable(self, calls: Calls) -> Bool:
        w, counted = self.weights, np.ones(len(calls.row), np.bool_)
        without = [b for b in self._rolled_back() if not w[b]]
        reasons = (
            ("before_start", calls.time_ms < self.definition.at_ms),
            ("change", calls.now_ms < self.settled_ms),
            ("unknown_arm", calls.arm < 0),
            ("rolled_back", np.isin(calls.arm, without) if without else ~counted),
            ("no_unit", ~calls.has_unit if self.definition.unit != "event" else ~counted),
        )
        for reason, out in reasons:
            if out.any():
                self._leave_out(reason, int((counted & out).sum()))
                counted &= ~out
        return counted

    def _fall(self, race: int, row: Int, arm: Int, phase: Int) -> None:
        """First failures of units; the share is that of the phase in which each call was served."""
        first = self.units.fall(race, row)
        if not len(first):
            return
        shares = np.array(self.shares_at)[phase[first] - 1]
        for b in range(len(self.definition.arms) - 1):
            of_two = (arm[first] == 0) | (arm[first] == b + 1)
            in_arm = arm[first][of_two] == b + 1
            share = shares[of_two, b]
            self.races[race][b] = failure_race.advance(self.races[race][b], in_arm, share)
            if race == UNLABELLED:
                self.races[UNLABELLED_CONTROL][b] = failure_race.advance(
                    self.races[UNLABELLED_CONTROL][b], ~in_arm, 1 - share
                )

    def label(self, pairs: Pairs, texts: list[str], now_ms: Int) -> None:
        """Calls that got a label, or another one, in the order and at the log time of that."""
        if self.waiting is None:
            return
        of, seq = self.waiting.find(pairs.id, pairs.version)
        if not len(of):
            return
        pairs, now_ms, ring = pairs.at(of), now_ms[of], self.waiting.calls
        arrival = ring.get("arrival", seq)
        # a race knows the label that a call has at its maturity, wherever the log was cut
        timely = now_ms <= arrival + self.definition.maturity_ms
        for o, (_, of_race) in enumerate(self._races(of_labels=True), len(self.of_labels)):
            ring.put(f"x{o}", seq[timely], of_labels(of_race, pairs.at(timely), texts))
        if self.definition.window_ms:
            row = self.units.find(ring.get("unit", seq))
            is_open = np.flatnonzero(self.units.is_open(row, arrival, now_ms))
            pairs, seq = pairs.at(is_open), seq[is_open]
        mature = self.waiting.is_mature(seq)
        for o, outcome in enumerate(self.of_labels):
            values = of_labels(self.definition.outcomes[outcome], pairs, texts)
            before = ring.get(f"x{o}", seq)
            ring.put(f"x{o}", seq, values)
            if mature.any():
                self._amend(o, outcome, seq[mature], before[mature], values[mature])

    def _amend(self, o: int, outcome: int, seq: Int, before: Float, after: Float) -> None:
        """Labels of calls that were judged already, each call once."""
        assert self.waiting is not None
        ring = self.waiting.calls
        row = self.units.find(ring.get("unit", seq))
        here = (row >= 0) & (ring.get("phase", seq) == self.phase)
        counts = ring.get(f"counts{o}", seq) == 1
        had, has = ~np.isnan(before), ~np.isnan(after)
        changed = np.flatnonzero(here & counts & had)
        dn = np.where(has[changed], 0.0, -1.0)
        dx = np.where(has[changed], after[changed], 0.0) - before[changed]
        self.units.correct(outcome, row[changed], dn, dx)
        ring.put(f"counts{o}", seq[changed[~has[changed]]], 0)
        late = np.flatnonzero(here & ~counts & ~had & has)
        ring.put(f"counts{o}", seq[late], self.units.add(outcome, row[late], after[late]))
        self.dirty = True

    def tick(self, now_ms: int, keep_ms: int) -> None:
        """Judge the calls that came of age."""
        if self.waiting is not None:
            self._judge(self.waiting, now_ms, keep_ms)
        self.dirty |= self.units.close(now_ms)

    def _judge(self, waiting: Waiting, now_ms: int, keep_ms: int) -> None:
        found = waiting.mature(now_ms, self.definition.maturity_ms, keep_ms)
        self._leave_out("evicted", waiting.evicted - self.left_out.get("evicted", 0))
        if not len(found.seq):
            return
        self.dirty = True
        row = self.units.find(found.unit)
        labelled = ~np.isnan(found.values).all(axis=0)
        here = (row >= 0) & (found.phase == self.phase)
        arms = len(self.definition.arms)
        self.mature[:, 0] += np.bincount(found.arm[here], minlength=arms)
        self.mature[:, 1] += np.bincount(found.arm[here & labelled], minlength=arms)
        is_open = here & self.units.is_open(row, found.arrival, found.arrival)
        for o, outcome in enumerate(self.of_labels):
            known = np.flatnonzero(is_open & ~np.isnan(found.values[o]))
            counts = self.units.add(outcome, row[known], found.values[o][known])
            waiting.calls.put(f"counts{o}", found.seq[known], counts)
        for o, (race, of_race) in enumerate(self._races(of_labels=True), len(self.of_labels)):
            bad = np.flatnonzero((row >= 0) & fails(of_race, found.values[o]))
            self._fall(race, row[bad], found.arm[bad], found.phase[bad])
        if self.definition.maturity_ms:
            out = np.flatnonzero((row >= 0) & ~labelled)
            self._fall(UNLABELLED, row[out], found.arm[out], found.phase[out])

    @property
    def memory_bytes(self) -> int:
        """Bytes of units and of calls that wait."""
        return self.units.memory_bytes + (self.waiting.memory_bytes if self.waiting else 0)
