"""
One fault in one of 20 features: is it named first? A table of `detection.py`.

Rule of the file: who is first is read from the verdict, as a person reads it in the alert.
"""

from __future__ import annotations

from collections.abc import Callable

import detection_feeds as feeds
import numpy as np
from detection_streams import LEVEL_CELLS, Float, mixed
from detection_tables import head, line

from stream_monitor.events.cells import ABSENT_CELL
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.settings import ModelSettings

NUMBERS, ZEROS, LEVELS = range(11), range(11, 14), range(16, 20)
"""Places of the kinds of features among those of `mixed`."""
ROWS, AFTER = 8_000, 4_000
Fault = Callable[[np.random.Generator, Float], Float]


def _part(share: float, cell: float) -> Fault:
    return lambda rng, x: np.where(rng.random(len(x)) < share, cell, x)


def _some(share: float, value: float) -> Fault:
    def made(rng: np.random.Generator, x: Float) -> Float:
        x = x.copy()
        x[rng.random(len(x)) < share] = value
        return x

    return made


FAULTS: dict[str, tuple[range, Fault]] = {
    "mean +0.5 sd": (NUMBERS, lambda _, x: x + 0.5),
    "mean -1 sd": (NUMBERS, lambda _, x: x - 1.0),
    "unit × 100": (NUMBERS, lambda _, x: x * 100),
    "sign changed": (range(6, 9), lambda _, x: -x),
    "standard deviation × 1.5": (NUMBERS, lambda _, x: x * 1.5),
    "stuck": (NUMBERS, lambda _, x: np.full(len(x), x[0])),
    "missing in 10 %": (NUMBERS, _some(0.1, ABSENT_CELL)),
    "missing everywhere": (NUMBERS, _some(1.0, ABSENT_CELL)),
    "0 instead of a value in 20 %": (range(6), _part(0.2, 0.0)),
    "zeros 60 to 80 %": (ZEROS, _part(0.5, 0.0)),
    "new category in 10 %": (LEVELS, _some(0.1, LEVEL_CELLS[-1])),
    "categories swapped": (LEVELS, lambda _, x: _swapped(x)),
}


def _swapped(x: Float) -> Float:
    """The most frequent category is written as a rare one, and the reverse."""
    bits, (one, other) = x.view(np.uint64), LEVEL_CELLS[[0, 5]].view(np.uint64)
    found = bits.copy()
    found[bits == one], found[bits == other] = other, one
    return found.view(np.float64)


def faults(runs: int) -> None:
    """Share of faults that the alert names first."""
    print(f"\n### One fault in one of 20 features, {runs} runs\n")
    head("fault", "runs", "found", "named first", "alone in the alert")
    total = np.zeros(4, np.int64)
    for number, (name, (places, fault)) in enumerate(FAULTS.items()):
        told = np.zeros(4, np.int64)
        for run in range(number, runs, len(FAULTS)):
            told += _one(np.random.default_rng([16, run]), places, fault)
        line([name, *told.tolist()])
        total += told
    line(["**all**", *total.tolist()])
    print(f"\nNamed first in {total[2] / max(total[0], 1):.1%} of the runs; to reach: 95 %.")


def _one(rng: np.random.Generator, places: range, fault: Fault) -> list[int]:
    x, at = mixed(rng, ROWS + AFTER), int(rng.choice(places))
    x[at, ROWS:] = fault(rng, x[at, ROWS:])
    of = feeds.inputs(5_000, feeds.BOUNDS["features"], len(x))
    feeds.openings(of, x, feeds.times(x.shape[1]))
    context = Context("m", "", ModelSettings())
    told = [
        v
        for v in drift_verdicts(context, [of.drift.evidence, None, None], [of.profile])
        if v.level != "ok"
    ]
    named = [c["subject"] for v in told for c in v.evidence["contributors"]]  # type: ignore[index]
    right = f"f{at}"
    return [1, right in named, bool(named) and named[0] == right, named == [right]]
