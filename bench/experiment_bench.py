"""
Runs of a stream or a story, counted; what the tables of `experiments.py` are made with.

Rule of the file: a cell says how often, with its 95 % interval, and nothing is left out. A bound is
a cell too: whether the numbers of its row keep it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from experiment_folds import Folds, Question
from experiment_registry import is_verdict, told
from experiment_stories import Stories
from experiment_streams import Stream

from stream_monitor.stats.inference import wilson_interval

WINNER = ("promote", "rollback")
MISSED = "MISSED"


def how_often(said: int, of: int) -> str:
    """How often something was said, with its 95 % interval."""
    low, high = wilson_interval(said, of, 1.96)
    return f"{said / of:.1%} [{low:.1%}, {high:.1%}]"


def winners_max(runs: int, alpha: float = 0.05) -> int:
    """
    So many winners among equal arms are within two standard errors of alpha.

    >>> winners_max(400)
    28
    """
    return math.floor(alpha * runs + 2 * math.sqrt(alpha * (1 - alpha) * runs))


class Runs(NamedTuple):
    """What came of the runs of one fold."""

    verdicts: list[str | None]
    rows: list[float]
    """Rows until the verdict; infinite without one."""
    in_arm: list[float]
    """Those of them that were in the arm."""
    judged: list[bool]
    """Whether the burn-in was ever over."""

    def count(self, *wanted: str) -> int:
        """How many runs had one of these verdicts; without names: any."""
        return sum(v in wanted if wanted else v is not None for v in self.verdicts)

    def share(self, *wanted: str) -> str:
        """How often a verdict was said, with its 95 % interval."""
        return how_often(self.count(*wanted), len(self.verdicts))

    def until(self, quantile: float) -> float:
        """Rows until the verdict, by quantile."""
        return float(np.quantile(self.rows, quantile, method="higher"))

    def median(self, *quantiles: float) -> str:
        """Rows until the verdict, by quantile."""
        return " · ".join(number(self.until(q)) for q in quantiles)


def number(n: float) -> str:
    """A number of rows; an infinite one is never."""
    return "never" if math.isinf(n) else f"{n:,.0f}"


class Bench(NamedTuple):
    """What a table is made with."""

    fold: Folds
    runs: int
    seed: int
    row: str = ""
    """Only rows whose name has this text."""
    missed: list[str] = []  # noqa: RUF012  # one list for each bench, given by `main`

    def wants(self, name: str) -> bool:
        return self.row in name

    def can(self, question: Question) -> bool:
        """Whether the fold answers such a question at all."""
        try:
            self.fold(question)
        except ValueError:
            return False
        return True

    def bound(self, name: str, wanted: str, *, holds: bool) -> str:
        """The cell of a bound; a missed one is remembered for `--check`."""
        if not holds:
            self.missed.append(f"{name}: {wanted}")
        return f"{wanted}: {'holds' if holds else MISSED}"

    def equal(self, name: str, *counts: int, wrong: int | None = None) -> str:
        """
        The bound of equal arms: not more winners than chance explains. An analysis that is known
        to be wrong here must have more (`wrong`), or the row would prove nothing.
        """
        most = winners_max(self.runs)
        found = self.bound(name, f"≤ {most} of {self.runs}", holds=max(counts) <= most)
        if wrong is None:
            return found
        return found + "; " + self.bound(name, "a wrong one more", holds=wrong > most)

    def run(
        self, stream: Stream, question: Question, fold: Folds | None = None, flush: int = 200
    ) -> Runs:
        """Judge seeded streams, each up to its verdict."""
        found = Runs([], [], [], [])
        for i in range(self.runs):
            rows = stream(np.random.default_rng((self.seed, i)))
            judge, seen, in_arm, verdict = (fold or self.fold)(question), 0, 0, None
            for part in rows.cut(flush):
                seen, in_arm = seen + len(part.arm), in_arm + int(part.arm.sum())
                verdict = judge.add(part)
                if verdict is not None:
                    break
            found.verdicts.append(verdict)
            found.rows.append(seen if verdict else math.inf)
            found.in_arm.append(in_arm if verdict else math.inf)
            found.judged.append(judge.judged)
        return found

    def tell(self, stories: Stories) -> list[list[str]]:
        """
        Tell seeded stories to the worker's own fold; the verdicts of each, without repetition.
        """
        found = []
        for i in range(self.runs):
            story = stories(np.random.default_rng((self.seed, i)))
            verdicts = told(story, until=(*WINNER, "mismatch"))
            found.append(list(dict.fromkeys(v["verdict"] for v in verdicts if is_verdict(v))))
        return found


Table = Callable[[Bench], Iterator[list[str]]]
"""The rows of a table, the heads first, as they are found."""
