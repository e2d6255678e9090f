"""
Ways to judge a stream of two arms, for `experiments.py`.

Rule of the file: a fold sees flushes of rows and answers with a verdict or None. `Sequence`, `Race`
and `SampleRatio` are the statistics of the package on a plain fold; `ByEvent` and `Peeking` are
known to be wrong. The worker's own fold is in `experiment_worker.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from experiment_streams import Rows

from stream_monitor.stats.confidence_sequences import UNIT_SHARE_MAX, half_width
from stream_monitor.stats.failure_race import advance, start
from stream_monitor.stats.sample_ratio import log_evidence_of_mismatch
from stream_monitor.stats.unit_sums import (
    difference,
    effective_units,
    log_ratio,
    rarer_answers,
    unit_terms,
)


class Question(NamedTuple):
    """What is asked of a stream."""

    effect: float = 0.02
    """Of a ratio its logarithm."""
    alpha: float = 0.05
    scale: str = "difference"
    """Or `ratio`, of means."""
    units_min: float = 200
    answers_min: float = 20
    """Burn-in: effective units, and the rarer answer, of each arm. 0 for no yes/no outcome."""
    one_unit_max: float = UNIT_SHARE_MAX
    """Nothing is decided where one unit is a greater share of the variance of its arm."""
    is_log: bool = False
    """Outcomes are logarithms."""
    cap: int = 50
    """So many first outcomes of a unit count."""
    value_max: float | None = None
    """Greater values count as this."""
    not_worse: bool = False
    """Decided when the arm is surely not worse than the effect, or surely worse."""
    about: str = "means"
    """Or `failures` (an outcome of 1 is one), or `sample ratio`."""


class Fold(Protocol):
    """Something that judges a stream, flush by flush."""

    judged: bool
    """Whether the burn-in was ever over."""

    def add(self, rows: Rows) -> str | None:
        """The verdict after these rows; None to go on."""


Folds = Callable[[Question], Fold]


class Sequence:
    """Sums by unit and the confidence sequence: what the package says."""

    def __init__(self, question: Question) -> None:
        self.q, self.sums = question, np.zeros((2, 6))
        self.n = self.x = self.arm = np.zeros(0)
        self.judged = False

    def add(self, rows: Rows) -> str | None:
        self.fold(Rows(*(column[rows.rank < self.q.cap] for column in rows)))
        return self.verdict()

    def fold(self, rows: Rows) -> None:
        units, first, back = np.unique(rows.unit, return_index=True, return_inverse=True)
        if len(units) and units[-1] >= len(self.n):
            more = np.zeros(2 * int(units[-1]) + 2 - len(self.n))
            self.n, self.x = np.append(self.n, more), np.append(self.x, more)
            self.arm = np.append(self.arm, more)
        self.arm[units] = rows.arm[first]
        before = unit_terms(self.n[units], self.x[units])
        self.n[units] += np.bincount(back, rows.dn, len(units))
        self.x[units] += np.bincount(back, rows.dx, len(units))
        change = unit_terms(self.n[units], self.x[units]) - before
        for arm in (0, 1):
            self.sums[arm] += change[rows.arm[first] == arm].sum(axis=0)

    def ready(self) -> bool:
        return bool(
            min(map(effective_units, self.sums)) >= self.q.units_min
            and (not self.q.answers_min or min(map(rarer_answers, self.sums)) >= self.q.answers_min)
        )

    def contrast(self) -> tuple[float, float]:
        of = log_ratio if self.q.scale == "ratio" else difference
        return of(self.sums[0], self.sums[1])

    def half(self, variance: float) -> float:
        return half_width(variance, self.q.effect, self.q.alpha)

    def verdict(self) -> str | None:
        if not self.ready():
            return None
        self.judged = True
        estimate, variance = self.contrast()
        half = self.half(variance)
        if self.q.not_worse:
            better, worse = estimate - half > -self.q.effect, estimate + half < -self.q.effect
        else:
            better, worse = estimate - half > 0, estimate + half < 0
        if (better or worse) and self.hangs_on_one_unit():
            return None
        return "better" if better else "worse" if worse else None

    def hangs_on_one_unit(self) -> bool:
        return any(self.share_of_one(arm) > self.q.one_unit_max for arm in (0, 1))

    def share_of_one(self, arm: int) -> float:
        of = (self.n > 0) & (self.arm == arm)
        n, x = self.n[of], self.x[of]
        squares = (x - n * x.sum() / n.sum()) ** 2
        return float(squares.max() / squares.sum()) if squares.sum() else 1.0


class ByEvent(Sequence):
    """The same, of events that are taken for independent: wrong where units have several."""

    def hangs_on_one_unit(self) -> bool:
        return False

    def add(self, rows: Rows) -> str | None:
        for arm in (0, 1):
            of = rows.arm == arm
            n, x = rows.dn[of].sum(), rows.dx[of].sum()
            # outcomes are 0 or 1, so that x² is x
            self.sums[arm] += (n, n, x, n, x, x)
        return self.verdict()


class Peeking(Sequence):
    """A test for one planned look, looked at at every flush: wrong."""

    def half(self, variance: float) -> float:
        return 1.96 * math.sqrt(variance)

    def hangs_on_one_unit(self) -> bool:
        return False


class Race:
    """The race of first failures; an outcome of 1 is a failure."""

    judged = True

    def __init__(self, question: Question) -> None:
        self.q, self.race, self.failed = question, start(), np.zeros(0, np.bool_)

    def add(self, rows: Rows) -> str | None:
        at = np.flatnonzero(rows.dx > 0)
        unit, first = np.unique(rows.unit[at], return_index=True)
        if len(unit) and unit[-1] >= len(self.failed):
            more = np.zeros(2 * int(unit[-1]) + 2 - len(self.failed), np.bool_)
            self.failed = np.append(self.failed, more)
        trials = at[np.sort(first[~self.failed[unit]])]
        self.failed[unit] = True
        self.race = advance(self.race, rows.arm[trials] == 1, rows.share[trials])
        return "rollback" if self.race.peak > -math.log(self.q.alpha) else None


class SampleRatio:
    """Units seen for the first time against the declared weights."""

    judged = True

    def __init__(self, question: Question) -> None:
        self.q, self.counts = question, np.zeros(2, np.int64)

    def add(self, rows: Rows) -> str | None:
        new = (rows.rank == 0) & (rows.dn > 0)
        self.counts += np.bincount(rows.arm[new], minlength=2)
        share = float(rows.share[-1])
        e = log_evidence_of_mismatch(self.counts.tolist(), (1 - share, share))
        return "mismatch" if e > -math.log(self.q.alpha) else None


PLAIN: dict[str, Folds] = {"means": Sequence, "failures": Race, "sample ratio": SampleRatio}


def plain(question: Question) -> Fold:
    """The plain fold for what is asked."""
    return PLAIN[question.about](question)
