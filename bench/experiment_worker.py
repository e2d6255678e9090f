"""
The worker's own fold of an experiment behind the question of `experiments.py`.

Rule of the file: columns go straight into the state of an experiment, without a log: what is
measured are sums, races and verdicts as the worker has them. A flush is a second of log time.
"""

from __future__ import annotations

import math

import numpy as np
from experiment_folds import Question
from experiment_streams import Rows

from stream_monitor.experiments.definition import definition_of
from stream_monitor.experiments.experiment import Calls, Experiment
from stream_monitor.experiments.judgement import FIRST_PHASE, look
from stream_monitor.experiments.registry import UNITS_MAX
from stream_monitor.experiments.units import KEY_BITS
from stream_monitor.stats.confidence_sequences import (
    RARER_MIN,
    UNIT_SHARE_MAX,
    UNITS_MIN,
)

START_MS, FLUSH_MS = 1_760_000_000_000, 1_000
NEVER = 1e-12
GUARDS = 2
"""The primary outcome and the race of failures share `alpha_guard`."""


class Worker:
    """An experiment of one outcome that is known at once."""

    def __init__(self, question: Question) -> None:
        burn_in = question.units_min, question.one_unit_max
        shipped = burn_in == (UNITS_MIN, UNIT_SHARE_MAX) and question.answers_min in (0, RARER_MIN)
        if question.scale == "ratio" or not shipped:
            raise ValueError("the worker has no ratio of plain means, and one burn-in")
        self.q, self.now_ms = question, START_MS
        self.judged = False
        self.experiment: Experiment | None = None
        self.rng = np.random.default_rng(1)

    def begun(self, share: float) -> Experiment:
        """The experiment, with the weights of its first row."""
        is_share = bool(self.q.answers_min)
        event = {
            "model": "m",
            "experiment": "x",
            "arms": ["control", "b"],
            "weights": {"control": 100 - 100 * share, "b": 100 * share},
            "primary": {
                "metric": "error" if is_share else "features.value",
                # values are logarithms already, as the worker has them from its rows
                "effect": math.expm1(self.q.effect) if self.q.is_log else self.q.effect,
                "scale": "log" if self.q.is_log else "linear",
                "cap": self.q.value_max,
                "better": "more",
                "goal": "not worse" if self.q.not_worse else "better",
            },
            # the chance of an error is all for what is asked
            "alpha": self.q.alpha / FIRST_PHASE if self.q.about == "means" else NEVER,
            "alpha_guard": GUARDS * self.q.alpha if self.q.about == "failures" else NEVER,
            "alpha_mismatch": self.q.alpha if self.q.about == "sample ratio" else NEVER,
            "duration": [0, "1000d"],
        }
        return Experiment.begun(definition_of(event), START_MS, UNITS_MAX, 1)

    def add(self, rows: Rows) -> str | None:
        self.now_ms += FLUSH_MS
        if self.experiment is None:
            self.experiment = self.begun(round(float(rows.share[0]), 4))
        weight = round(10_000 * float(rows.share[0]))
        if weight != self.experiment.weights[1]:
            self.experiment.reweigh((10_000 - weight, weight), self.now_ms)
            self.now_ms += 60_000  # until then nothing is counted
        new = np.flatnonzero(rows.dn)
        self.experiment.add(self.calls(rows, new))
        corrected = np.flatnonzero(rows.dn == 0)
        if len(corrected):
            row = self.experiment.units.find(keys(rows.unit[corrected]))
            self.experiment.units.correct(0, row, np.zeros(len(row)), rows.dx[corrected])
        (told,) = look(self.experiment, self.now_ms)
        self.judged |= told.evidence[self.experiment.definition.outcomes[0].metric]["ready"]
        return None if told.verdict in ("continue", "inconclusive") else told.verdict

    def calls(self, rows: Rows, new: np.ndarray) -> Calls:
        """Rows as calls."""
        n, about_failures = len(new), self.q.about == "failures"
        time_ms, cap = np.full(n, self.now_ms), self.q.value_max
        return Calls(
            row=new,
            id=self.rng.integers(1, 2**63, n, np.uint64),
            version=np.zeros(n, np.int64),
            time_ms=time_ms,
            now_ms=time_ms,
            unit=keys(rows.unit[new]),
            has_unit=np.ones(n, bool),
            arm=rows.arm[new],
            failed=(rows.dx[new] > 0) if about_failures else np.zeros(n, bool),
            values=np.minimum(rows.dx[new], math.inf if cap is None else cap)[None],
        )


def keys(unit: np.ndarray) -> np.ndarray:
    """Hashes of units: an odd factor moves every number to a place of its own."""
    mixed = (unit.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return mixed & np.uint64((1 << KEY_BITS) - 1)
