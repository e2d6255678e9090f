"""
Tables of whole experiments, for `experiments.py`: labels with delay, ramps, several arms, canaries.

Rule of the file: what judges is the worker's own registry of experiments (`experiment_registry.py`)
as it is shipped, whatever `--fold` says. Columns that are known to be wrong stand beside it, and a
row where they are not seen to be wrong proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from experiment_bench import WINNER, Bench, how_often
from experiment_folds import Peeking, Question, Sequence
from experiment_registry import is_verdict, told, told_by_log
from experiment_stories import EVEN, RAMP, UP, Stories, corrected, delayed, falling, whole
from experiment_streams import Rows, independent, shares

FALSE_ROLLBACKS = 0.01


def rows_as_labels_come(stories: Stories, rng: np.random.Generator) -> Rows:
    """
    A story for a plain fold: labels when they come, whatever the weights were. A user in two arms
    is two units.
    """
    story = stories(rng)
    call, label = story.labels.call, story.labels.label
    once = np.sort(np.unique(call, return_index=True)[1])  # first labels: a correction is left out
    call, label = call[once], label[once]
    arm = story.calls.arm[call]
    unit = 2 * story.calls.unit[call] + arm
    right = (story.calls.prediction[call] == label).astype(np.float64)
    n = len(call)
    return Rows(unit, arm, np.zeros(n, np.int64), np.ones(n), right, np.full(n, 0.5))


def winners(told_of: list[list[str]]) -> int:
    return sum(any(v in WINNER for v in verdicts) for verdicts in told_of)


def _cell(told_of: list[list[str]]) -> str:
    """Winners, and mismatches if there are any."""
    found = how_often(winners(told_of), len(told_of))
    mismatches = sum("mismatch" in verdicts for verdicts in told_of)
    return found + (f"; mismatch {mismatches / len(told_of):.1%}" if mismatches else "")


def table_labels(bench: Bench) -> Iterator[list[str]]:
    """Labels whose delay depends on the class."""
    maturities = ("0s", "10d", "20d")
    heads = [f"maturity {m}" for m in maturities]
    yield ["A/A, labels with delay, declares a winner", "as labels come, pooled", *heads, "bound"]
    cases = {
        "50/50": (EVEN, False, maturities),
        "ramp 5→50 % on day 7": (RAMP, False, maturities),
        "positives of b are labelled sooner": (EVEN, True, ("10d", "20d")),
    }
    for name, (weights, sooner, held) in cases.items():
        if not bench.wants(name):
            continue
        pooled = delayed(weights, sooner=sooner)
        plain = bench.run(lambda rng, of=pooled: rows_as_labels_come(of, rng), Question(), Sequence)
        found = {m: bench.tell(delayed(weights, m, sooner=sooner)) for m in maturities}
        cells = [plain.share(), *(_cell(found[m]) for m in maturities)]
        wrong = None if name == "50/50" else plain.count()
        bound = bench.equal(name, *(winners(found[m]) for m in held), wrong=wrong)
        yield [name, *cells, bound if len(held) == 3 else f"{bound} (10d, 20d)"]


def table_whole(bench: Bench) -> Iterator[list[str]]:
    """Experiments of equal arms with all they have."""
    yield ["A/A, a whole experiment, promote or rollback", "the worker", "pooled", "bound"]
    cases: dict[str, tuple[Stories, bool]] = {
        "92→88 % while the weight goes 5→50 %, no delay": (falling(), True),
        "10 % of labels corrected later, ramp": (corrected(), False),
        "3 arms, 3 outcomes, 20 calls a user": (whole(((0, (34, 33, 33)),)), False),
        "90/10, units are events": (whole(((0, (90, 10)),), users=20_000, each=1), False),
    }
    for name, (stories, shows_pooled) in cases.items():
        if bench.wants(name):
            found, cell, wrong = bench.tell(stories), "-", None
            if shows_pooled:
                pooled = bench.run(
                    lambda rng, of=stories: rows_as_labels_come(of, rng), Question(), Sequence
                )
                cell, wrong = pooled.share(), pooled.count()
            bound = bench.equal(name, winners(found), wrong=wrong)
            yield [name, _cell(found), cell, bound]


def table_rollbacks(bench: Bench) -> Iterator[list[str]]:
    """Canaries that are as good as the control: whole experiments with two guards."""
    yield [
        "canary as good as the control, 0.5 % fail",
        "rolled back",
        "promote or rollback",
        "bound",
    ]
    cases = {
        "1→5→25→50 %, same users, 20 calls each": whole(UP, steps=(1, 5, 25, 50)),
        "5 %, calls are units": whole(((0, (95, 5)),), users=30_000, each=1),
    }
    for name, stories in cases.items():
        if bench.wants(name):
            found = bench.tell(stories)
            said = sum("rollback" in verdicts for verdicts in found)
            held = said <= FALSE_ROLLBACKS * bench.runs
            bound = bench.bound(name, f"rolled back ≤ {FALSE_ROLLBACKS:.0%}", holds=held)
            bound += "; " + bench.equal(name, winners(found))
            yield [name, how_often(said, bench.runs), _cell(found), bound]


def table_peeking(bench: Bench) -> Iterator[list[str]]:
    """One planned test, looked at often: how often it declares a winner among equal arms."""
    yield ["A/A, z > 1.96 at any look", "looks", "calls a look", "declares a winner"]
    for name, looks, calls in (
        ("one look", 1, 20_160),
        ("every day for 14 days", 14, 1_440),
        ("every hour for 14 days", 336, 60),
    ):
        if bench.wants(name):
            stream = independent(shares(0.9, 0.9), events=looks * calls)
            question = Question(units_min=2, answers_min=5)
            found = bench.run(stream, question, Peeking, flush=calls)
            yield [name, f"{looks:,}", f"{calls:,}", found.share()]


def table_path(bench: Bench) -> Iterator[list[str]]:
    """Whether columns and the whole way through a log tell the same verdicts."""
    cases: dict[str, Stories] = {
        "labels with delay": delayed(RAMP, "10d", users=600),
        "labels sooner": delayed(EVEN, "10d", users=1_000, sooner=True),
        "labels corrected": corrected(users=150),
        "three arms": whole(((0, (34, 33, 33)),), users=150),
        "canary, 10 times the failures": whole(UP, users=300, fails=0.02, times=10),
        "units are events": whole(((0, (90, 10)),), users=3_000, each=1),
    }
    yield ["story", "calls and labels", "verdicts", "told", "the same through a log", "bound"]
    for name, stories in cases.items():
        if not bench.wants(name):
            continue
        events = verdicts = told_events = same = 0
        for i in range(bench.runs):
            story = stories(np.random.default_rng((bench.seed, i)))
            ours, by_log = told(story), told_by_log(story)
            events += len(story.calls.unit) + len(story.labels.call)
            verdicts += sum(is_verdict(v) for v in ours)
            told_events += len(ours)
            same += [v["id"] for v in ours] == [v["id"] for v in by_log]
        bound = bench.bound(name, "all", holds=same == bench.runs)
        cells = [f"{events:,}", str(verdicts), str(told_events), f"{same} of {bench.runs}"]
        yield [name, *cells, bound]
