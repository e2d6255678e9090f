"""
The tables of `experiments`: how often two equal arms are told apart, how soon unequal ones are.

Rule of the file: the stream, the fold that judges it and the question are three arguments. Every
fold sees the same seeded rows, looks at every flush, and answers with a verdict or None. The folds
`by-event` and `peeking` are known to be wrong: they prove that the harness sees it.

    python bench/experiments.py                          # all tables
    python bench/experiments.py --table aa --runs 400    # as often as the acceptance asks
    python bench/experiments.py --fold worker --check    # the worker's own fold, and its bounds
    python bench/experiments.py --fold by-event --table aa --check     # misses them
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator

import numpy as np
from experiment_bench import Bench, Table, how_often, number, winners_max
from experiment_folds import ByEvent, Folds, Peeking, Question, plain
from experiment_streams import (
    Draw,
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
from experiment_tables import (
    table_labels,
    table_path,
    table_peeking,
    table_rollbacks,
    table_whole,
)
from experiment_worker import Worker

from stream_monitor.stats.confidence_sequences import UNIT_SHARE_MAX
from stream_monitor.stats.sample_size import Plan, plan, variances_of_shares

FOLDS: dict[str, Folds] = {
    "plain": plain,
    "worker": Worker,
    "by-event": ByEvent,
    "peeking": Peeking,
}


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


BY_EVENT_HOLDS = (
    "independent, 50/50",
    "20 events a unit, sd 0.1, mixed",
    "wrong first, then right: mixed",
    "wrong first, then right: arriving",
)
"""
Streams on which an analysis by event is not seen to be wrong: outcomes of a unit are nearly or
quite independent, or contradict each other.
"""


def table_aa(bench: Bench) -> Iterator[list[str]]:
    yield ["A/A stream, declares a winner", "the fold", "by event", "z > 1.96, peeking", "bound"]
    for name, stream in AA.items():
        if bench.wants(name):
            ours, by_event, peeking = (
                bench.run(stream, Question(), f) for f in (None, ByEvent, Peeking)
            )
            cells = [run.share() for run in (ours, by_event, peeking)]
            wrong = [peeking.count()] + [by_event.count()] * (name not in BY_EVENT_HOLDS)
            yield [name, *cells, bench.equal(name, ours.count(), wrong=min(wrong))]


def table_burn_in(bench: Bench) -> Iterator[list[str]]:
    burn_ins = ((2, 0, 1.0), (50, 0, 1.0), (200, 0, 1.0), (200, 20, 1.0), (200, 20, UNIT_SHARE_MAX))
    heads = [f"units {u}, rarer answers {e}" for u, e, _ in burn_ins[:-1]]
    yield ["A/A stream", *heads, f"and one unit at most {UNIT_SHARE_MAX:.0%}"]
    streams: list[tuple[str, Draw, Question]] = [
        ("yes/no 90 %", shares(0.9, 0.9), Question()),
        ("errors 0.5 %", shares(0.005, 0.005), Question(effect=0.005)),
        ("lognormal 2, ratio of means", lognormal(2), Question(0.2, scale="ratio")),
        ("lognormal 2, logarithm", logarithms(lognormal(2)), Question(0.2, is_log=True)),
    ]
    for name, draw, question in streams:
        for share in (0.5, 0.05, 0.01):
            row = f"{name}, {share:.0%} in the arm"
            if not bench.wants(row):
                continue
            stream = independent(draw, events=40_000, share=share)
            cells = []
            is_number = name.startswith("log")
            for units, answers, one in burn_ins:
                q = question._replace(
                    units_min=units, answers_min=0 if is_number else answers, one_unit_max=one
                )
                is_same = is_number and answers and one == 1
                can = bench.can(q) and not is_same
                cells.append(bench.run(stream, q).share() if can else "-")
            yield [row, *cells]


SOON = {"accuracy 90→88 %": (8_000.0, 14_500.0)}
"""Rows until half and until 80 % of unequal arms are told apart, at most."""


def _unequal() -> list[tuple[str, Draw, Question, float, Plan]]:
    """Unequal arms: outcomes, the question, the share of the arm, and what was planned."""
    two = variances_of_shares(0.9, -0.02)
    return [
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
            Question(math.log(1.05), answers_min=0, is_log=True),
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


def table_power(bench: Bench) -> Iterator[list[str]]:
    yield [
        "true difference",
        "t-test, 80 %",
        "planned: median · 80 %",
        "median · 80 % · 90 %",
        "bound",
    ]
    for name, draw, question, share, planned in _unequal():
        if not bench.wants(name):
            continue
        events = int(6 * planned.sequence.events)
        stream = independent(draw, events=events, share=share)
        found = bench.run(stream, question, flush=50)
        told = f"{planned.sequence_median.events:,.0f} · {planned.sequence.events:,.0f}"
        bound = "-"
        if name in SOON:
            most = SOON[name]
            holds = all(found.until(q) <= n for q, n in zip((0.5, 0.8), most, strict=True))
            bound = bench.bound(name, "≤ " + " · ".join(map(number, most)), holds=holds)
        cells = [f"{planned.t_test.events:,.0f}", told, found.median(0.5, 0.8, 0.9)]
        yield [name, *cells, bound]
    name = "worse by just the margin, promoted"
    if bench.wants(name):
        worse = independent(shares(0.9, 0.88), events=40_000)
        found = bench.run(worse, Question(not_worse=True))
        held = found.count("better", "promote") <= 0.025 * bench.runs
        bound = bench.bound(name, "≤ 2.5 %", holds=held)
        yield [name, "-", "-", found.share("better", "promote"), bound]


CANARY_REQUESTS = 150
"""Of a canary that fails ten times as often as 0.5 %, at 5 % of the traffic: the median."""


def table_canary(bench: Bench) -> Iterator[list[str]]:
    times_of = {2: 1_000, 5: 200, 10: 50}
    """How many times as often it fails, and rows a flush: a race is judged after every trial."""
    heads = [f"{k} times" for k in times_of]
    yield ["control fails, canary's share", *heads, "equal arms", "bound"]
    question = Question(alpha=1 / 400, about="failures")
    for base, share in ((0.005, 0.01), (0.005, 0.05), (0.005, 0.25), (0.02, 0.05)):
        if not bench.wants(f"{base:.1%}, {share:.0%}"):
            continue
        cells = []
        for times, flush in times_of.items():
            stream = independent(
                shares(base, times * base),
                events=int(3_000 / (base * share * times**3)),
                share=share,
            )
            found = bench.run(stream, question, flush=flush)
            in_arm = float(np.quantile(found.in_arm, 0.5, method="higher"))
            cells.append(f"{found.median(0.5, 0.9)} ({in_arm:,.0f})")
        alike = independent(shares(base, base), events=100_000, share=share)
        equal = bench.run(alike, question, flush=2_000)
        name, most = f"{base:.1%}, {share:.0%}", winners_max(bench.runs, question.alpha)
        bound = bench.bound(name, f"equal ≤ {most} of {bench.runs}", holds=equal.count() <= most)
        if (base, share) == (0.005, 0.05):
            wanted = f"10 times: ≤ {CANARY_REQUESTS} of the canary"
            bound += "; " + bench.bound(name, wanted, holds=in_arm <= CANARY_REQUESTS)
        yield [name, *cells, equal.share(), bound]
    if bench.wants("ramp"):
        up = ramp((0.01, 0.05, 0.25, 0.5), shares(0.005, 0.005), 100_000)
        # a flush has the weights of its first row, so a step must begin with one
        found, most = bench.run(up, question, flush=2_500), winners_max(bench.runs, question.alpha)
        name = "0.5%, ramp 1-5-25-50 %"
        bound = bench.bound(name, f"equal ≤ {most} of {bench.runs}", holds=found.count() <= most)
        yield [name, "-", "-", "-", found.share(), bound]


MISMATCH_UNITS = 12_000
"""Until half of all splits of 52 to 48 that were declared even are found."""


def table_sample_ratio(bench: Bench) -> Iterator[list[str]]:
    yield ["units go to the arm", "declared", "mismatch", "units, median", "bound"]
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

        found = bench.run(stream, Question(alpha=alpha, about="sample ratio"), flush=500)
        name = f"{true:.0%} for {declared:.0%}"
        bound = "-"
        if true == declared:
            bound = bench.equal(name, found.count())
        elif (true, declared) == (0.52, 0.5):
            held = found.until(0.5) <= MISMATCH_UNITS
            bound = bench.bound(name, f"≤ {MISMATCH_UNITS:,}", holds=held)
        yield [f"{true:.0%}", f"{declared:.0%}", found.share(), found.median(0.5), bound]


def table_small_arm(bench: Bench) -> Iterator[list[str]]:
    """The burn-in as it is shipped, where an arm is small."""
    yield ["A/A stream, share of the arm", "events", "judged at all", "declares a winner", "bound"]
    streams = [
        ("yes/no 90 %", shares(0.9, 0.9), Question(), (20_000, 60_000)),
        ("errors 0.5 %", shares(0.005, 0.005), Question(effect=0.005), (160_000, 190_000)),
    ]
    for name, draw, question, lengths in streams:
        for part, events in zip((0.05, 0.01), lengths, strict=True):
            row = f"{name}, {part:.0%}"
            if not (bench.wants(row) and bench.can(question)):
                continue
            stream = independent(draw, events=events, share=part)
            found = bench.run(stream, question, flush=events // 50)
            judged = how_often(sum(found.judged), bench.runs)
            bound = bench.equal(row, found.count())
            yield [row, f"{events:,}", judged, found.share(), bound]


TAILS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, arms: rng.normal(0, 1, len(arms)), 0.05),
    "lognormal 0.5": (lognormal(0.5), 0.03),
    "lognormal 1": (lognormal(1), 0.1),
    "lognormal 2": (lognormal(2), 2.5),
    # the cap is the 99 % quantile, known before the experiment
    "lognormal 2, cap": (lambda rng, a: np.minimum(lognormal(2)(rng, a), math.exp(4.652)), 1.0),
    "lognormal 2, scale log": (logarithms(lognormal(2)), 0.1),
    "Pareto 1.5": (lambda rng, arms: 1 + rng.pareto(1.5, len(arms)), 0.5),
    "gamma 0.5": (lambda rng, arms: rng.gamma(0.5, 1, len(arms)), 0.035),
    "counts, mean 2": (lambda rng, arms: rng.poisson(2, len(arms)).astype(float), 0.07),
    "counts, mean 0.02": (lambda rng, arms: rng.poisson(0.02, len(arms)).astype(float), 0.007),
    "purchases of 5 %": (
        lambda rng, a: lognormal(1)(rng, a) * 20 * (rng.random(len(a)) < 0.05),
        0.6,
    ),
}
"""Numbers, and effects of about a twentieth of their standard deviations."""
EVENTS_OF = {0.5: 20_000, 0.05: 60_000, 0.01: 120_000}


def table_tails(bench: Bench) -> Iterator[list[str]]:
    """Numbers without a bound: what the condition on single units is for."""
    yield [
        "A/A numbers, share of the arm",
        "declares a winner",
        "without a look at single units",
        "an arm 0.1 sd better: found",
        "bound",
    ]
    for name, (draw, effect) in TAILS.items():
        for part, events in EVENTS_OF.items():
            row = f"{name}, {part:.0%}"
            if not bench.wants(row):
                continue
            question = Question(effect, answers_min=0, is_log=name.endswith("scale log"))
            alike = independent(draw, events=events, share=part)
            better = independent(_better(draw, 2 * effect), events=events, share=part)
            ours, wrong, found = (
                bench.run(alike, question, flush=events // 100),
                bench.run(alike, question._replace(one_unit_max=1), plain, flush=events // 100),
                bench.run(better, question, flush=events // 100),
            )
            told = f"{found.share('better', 'promote')}; half by {found.median(0.5)}"
            yield [row, ours.share(), wrong.share(), told, bench.equal(row, ours.count())]


def _better(draw: Draw, by: float) -> Draw:
    return lambda rng, arms: draw(rng, arms) + by * arms


TABLES: dict[str, Table] = {
    "aa": table_aa,
    "small-arm": table_small_arm,
    "tails": table_tails,
    "labels": table_labels,
    "whole": table_whole,
    "rollbacks": table_rollbacks,
    "power": table_power,
    "canary": table_canary,
    "sample-ratio": table_sample_ratio,
    "burn-in": table_burn_in,
    "peeking": table_peeking,
    "path": table_path,
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
    parser.add_argument("--check", action="store_true", help="exit 1 if a row misses its bound")
    given = parser.parse_args()
    bench = Bench(FOLDS[given.fold], given.runs, given.seed, given.row, [])
    for name in given.table or TABLES:
        print(f"\n{name}, {given.runs} runs, fold: {given.fold}, seed {given.seed}\n")
        for i, row in enumerate(TABLES[name](bench)):
            print(f"| {' | '.join(row)} |", flush=True)
            if i == 0:
                print(f"|{'---|' * len(row)}")
    for missed in bench.missed:
        print(f"missed: {missed}", file=sys.stderr)
    if given.check and bench.missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
