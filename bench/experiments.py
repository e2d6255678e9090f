"""
The tables of `experiments`: how often two equal arms are told apart, how soon unequal ones are.

Rule of the file: the stream, the fold that judges it and the question are three arguments. Every
fold sees the same seeded rows, looks at every flush, and answers with a verdict or None. The folds
`by event` and `1.96` are known to be wrong: they prove that the harness sees it.

    python bench/experiments.py                          # all tables
    python bench/experiments.py --table aa --runs 400    # as often as the acceptance asks
    python bench/experiments.py --fold worker            # the worker's own fold
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from experiment_folds import ByEvent, Folds, Peeking, Question, plain
from experiment_streams import (
    Rows,
    Stream,
    clustered,
    independent,
    learning,
    logarithms,
    lognormal,
    pareto_activity,
    ramp,
    shares,
)
from experiment_worker import Worker

from stream_monitor.stats.inference import wilson_interval
from stream_monitor.stats.sample_size import plan, variances_of_shares

FOLDS: dict[str, Folds] = {"plain": plain, "worker": Worker}


class Runs(NamedTuple):
    """What came of the runs of one fold."""

    verdicts: list[str | None]
    rows: list[float]
    """Rows until the verdict; infinite without one."""
    in_arm: list[float]
    """Those of them that were in the arm."""

    def share(self, *wanted: str) -> str:
        """How often a verdict was said, with its 95 % interval."""
        said = sum(v in wanted if wanted else v is not None for v in self.verdicts)
        low, high = wilson_interval(said, len(self.verdicts), 1.96)
        return f"{said / len(self.verdicts):.1%} [{low:.1%}, {high:.1%}]"

    def median(self, *quantiles: float) -> str:
        """Rows until the verdict, by quantile."""
        found = [float(np.quantile(self.rows, q, method="higher")) for q in quantiles]
        return " · ".join("never" if math.isinf(n) else f"{n:,.0f}" for n in found)


class Bench(NamedTuple):
    """What a table is made with."""

    fold: Folds
    runs: int
    seed: int
    row: str = ""
    """Only rows whose name has this text."""

    def wants(self, name: str) -> bool:
        return self.row in name

    def can(self, question: Question) -> bool:
        """Whether the fold answers such a question at all."""
        try:
            self.fold(question)
        except ValueError:
            return False
        return True

    def run(
        self, stream: Stream, question: Question, fold: Folds | None = None, flush: int = 200
    ) -> Runs:
        """Judge seeded streams, each up to its verdict."""
        found = Runs([], [], [])
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
        return found


AA: dict[str, Stream] = {
    "independent, 50/50": independent(shares(0.9, 0.9)),
    "20 events a unit, sd 0.1, mixed": clustered(),
    "20 a unit, sd 0.2, units arrive and stay": clustered(sd=0.2, arriving=True),
    "50 a unit, sd 0.2, mixed": clustered(sd=0.2, events=50, units=800),
    "50 a unit, sd 0.2, arriving": clustered(sd=0.2, events=50, units=800, arriving=True),
    "Pareto activity (1.2)": pareto_activity(),
    "units that age": clustered(ageing=True),
    "wrong first, then right: mixed": learning(),
    "wrong first, then right: arriving": learning(arriving=True),
    "10 % of labels wrong first, corrected later": clustered(wrong=0.1),
    "Pareto activity in bursts": pareto_activity(bursts=True),
}


def table_aa(bench: Bench) -> list[list[str]]:
    rows = [["A/A stream, declares a winner", "the fold", "by event", "z > 1.96, peeking"]]
    for name, stream in AA.items():
        if bench.wants(name):
            found = [bench.run(stream, Question(), f).share() for f in (None, ByEvent, Peeking)]
            rows.append([name, *found])
    return rows


def table_burn_in(bench: Bench) -> list[list[str]]:
    burn_ins = ((2, 0), (50, 0), (200, 0), (200, 20))
    rows = [["A/A stream", *(f"units {u}, rarer answers {e}" for u, e in burn_ins)]]
    streams: list[tuple[str, Callable[[np.random.Generator, np.ndarray], np.ndarray], Question]] = [
        ("yes/no 90 %", shares(0.9, 0.9), Question()),
        ("errors 0.5 %", shares(0.005, 0.005), Question(effect=0.005)),
        ("lognormal 2, ratio of means", lognormal(2), Question(0.2, scale="ratio")),
        ("lognormal 2, logarithm", logarithms(lognormal(2)), Question(0.2)),
    ]
    for name, draw, question in streams:
        for share in (0.5, 0.05, 0.01):
            row = f"{name}, {share:.0%} in the arm"
            if not bench.wants(row):
                continue
            stream = independent(draw, events=40_000, share=share)
            cells = []
            for units, answers in burn_ins:
                if (name.startswith("log") and answers) or not bench.can(
                    question._replace(units_min=units, answers_min=answers)
                ):
                    cells.append("-")
                    continue
                q = question._replace(units_min=units, answers_min=answers)
                cells.append(bench.run(stream, q).share())
            rows.append([row, *cells])
    return rows


def table_power(bench: Bench) -> list[list[str]]:
    rows = [["true difference", "t-test, 80 %", "planned: median · 80 %", "median · 80 % · 90 %"]]
    two = variances_of_shares(0.9, -0.02)
    cases = [
        ("accuracy 90→88 %", shares(0.9, 0.88), Question(), 0.5, plan(0.02, two)),
        (
            "accuracy 90→85 %, planned for 2 %",
            shares(0.9, 0.85),
            Question(),
            0.5,
            plan(0.02, variances_of_shares(0.9, -0.05), true_effect=0.05),
        ),
        (
            "error 1→2 %",
            shares(0.01, 0.02),
            Question(effect=0.01),
            0.5,
            plan(0.01, variances_of_shares(0.01, 0.01), rarer_share=0.01),
        ),
        (
            "latency +5 %, lognormal 0.5, logarithm",
            logarithms(lognormal(0.5, math.log(1.05))),
            Question(math.log(1.05), answers_min=0),
            0.5,
            plan(math.log(1.05), (0.25, 0.25)),
        ),
        (
            "accuracy 90→88 %, 10/90",
            shares(0.9, 0.88),
            Question(),
            0.1,
            plan(0.02, two, weights=(9, 1)),
        ),
        (
            "not worse by 2 %, equal",
            shares(0.9, 0.9),
            Question(not_worse=True),
            0.5,
            plan(0.02, (0.09, 0.09)),
        ),
    ]
    for name, draw, question, share, planned in cases:
        if not bench.wants(name):
            continue
        events = int(6 * planned.sequence.events)
        stream = independent(draw, events=events, share=share)
        found = bench.run(stream, question, flush=50)
        told = f"{planned.sequence_median.events:,.0f} · {planned.sequence.events:,.0f}"
        rows.append([name, f"{planned.t_test.events:,.0f}", told, found.median(0.5, 0.8, 0.9)])
    if not bench.wants("worse by just the margin"):
        return rows
    worse = independent(shares(0.9, 0.88), events=40_000)
    found = bench.run(worse, Question(not_worse=True))
    rows.append(["worse by just the margin, promoted", "-", "-", found.share("better", "promote")])
    return rows


def table_canary(bench: Bench) -> list[list[str]]:
    rows = [["control fails, canary's share", *(f"{k} times" for k in (2, 5, 10)), "equal arms"]]
    question = Question(alpha=1 / 400, about="failures")
    for base, share in ((0.005, 0.01), (0.005, 0.05), (0.005, 0.25), (0.02, 0.05)):
        if not bench.wants(f"{base:.1%}, {share:.0%}"):
            continue
        cells = []
        for times in (2, 5, 10):
            stream = independent(
                shares(base, times * base),
                events=int(20_000 / (base * share * times**3)),
                share=share,
            )
            found = bench.run(stream, question)
            in_arm = float(np.quantile(found.in_arm, 0.5, method="higher"))
            cells.append(f"{found.median(0.5, 0.9)} ({in_arm:,.0f})")
        equal = independent(shares(base, base), events=100_000, share=share)
        cells.append(bench.run(equal, question).share())
        rows.append([f"{base:.1%}, {share:.0%}", *cells])
    if not bench.wants("ramp"):
        return rows
    up = ramp((0.01, 0.05, 0.25, 0.5), shares(0.005, 0.005), 100_000)
    equal_arms = bench.run(up, question).share()
    rows.append(["0.5%, ramp 1-5-25-50 %", "-", "-", "-", equal_arms])
    return rows


def table_sample_ratio(bench: Bench) -> list[list[str]]:
    rows = [["units go to the arm", "declared", "mismatch", "units, median"]]
    cases = ((0.5, 0.5), (0.01, 0.01), (0.52, 0.5), (0.55, 0.5), (0.02, 0.01))
    for true, declared in cases:
        if not bench.wants(f"{true:.0%}"):
            continue
        alpha = 0.05 if true == declared else 0.001

        def stream(
            rng: np.random.Generator, true: float = true, declared: float = declared
        ) -> Rows:
            rows = independent(shares(0.5, 0.5), events=30_000, share=true)(rng)
            return rows._replace(share=np.full(len(rows.unit), declared))

        found = bench.run(stream, Question(alpha=alpha, about="sample ratio"))
        rows.append([f"{true:.0%}", f"{declared:.0%}", found.share(), found.median(0.5)])
    return rows


TABLES: dict[str, Callable[[Bench], list[list[str]]]] = {
    "aa": table_aa,
    "burn-in": table_burn_in,
    "power": table_power,
    "canary": table_canary,
    "sample-ratio": table_sample_ratio,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", action="append", choices=TABLES, help="which; all by default")
    parser.add_argument("--fold", choices=FOLDS, default="plain", help="what judges")
    parser.add_argument("--runs", type=int, default=100, help="streams a cell")
    parser.add_argument("--row", default="", help="only rows whose name has this text")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    for name in given.table or TABLES:
        rows = TABLES[name](Bench(FOLDS[given.fold], given.runs, given.seed, given.row))
        print(f"\n{name}, {given.runs} runs, fold: {given.fold}\n")
        for i, row in enumerate(rows):
            print(f"| {' | '.join(row)} |", flush=True)
            if i == 0:
                print(f"|{'---|' * len(row)}")


if __name__ == "__main__":
    main()
