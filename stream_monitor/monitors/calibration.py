"""
Are scores still as likely to be right as they were, and predictions of a regression as far off and
on the same side? The signal for the detector on counts.

Rule of the file: scores are compared with labels, part of the scores by part. So scores that become
higher or lower because the rows did are no evidence here; `__score__` is the signal of that.

A score that is a number is that of the positive class. Of class scores the greatest one counts,
against whether its class was right (the confidence of the answer: Guo et al. 2017). Of a regression
it is the residual: label less prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Bool, Float, Int, are_numbers
from stream_monitor.detectors.chances import learnt_chances
from stream_monitor.events.origins import NO_ORIGINS
from stream_monitor.monitors.baseline import numeric_profile
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.errors import CHUNK_LABELS, CHUNKS_MIN, WARM_LABELS
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.one_signal import OneSignal
from stream_monitor.monitors.schemes import Numbers, Scores
from stream_monitor.monitors.signals import FIRST_ERRORS
from stream_monitor.stats.class_sums import NO_CLASS

CALIBRATION = "__calibration__"
RESIDUALS, CONFIDENCE, SCORE = "residuals", "confidence", "score of "
"""Kinds of rows; that of a score has the name of the positive class behind it."""


class Scored(NamedTuple):
    """Labelled rows of one kind, as `Calibration` takes them."""

    kind: str
    values: Float
    """(2, n): scores and labels; of a regression (1, n) residuals."""
    times_ms: Int
    origin: Int = NO_ORIGINS
    """Where the labels came from."""


def residuals(rows: Judged, first: Bool) -> list[Scored]:
    """The first labels among the rows of a regression."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = rows.actual - rows.predicted
    first = first & np.isfinite(found)
    if not first.any():
        return []
    return [Scored(RESIDUALS, found[first][None], rows.time[first], rows.origin[first])]


def scores(
    rows: Judged, first: Bool, live: Reading | None, classes: Mapping[int, int]
) -> list[Scored]:
    """
    The first labels among the rows of a classification, by kind.

    Parameters
    ----------
    rows : Judged
    first : (n,) bool
    live : Reading or None
        Which class is the positive one.
    classes : mapping of int to int
        Code of the class of a column of class scores.
    """
    found, by_class = list[Scored](), np.zeros(len(first), bool)
    if rows.probabilities.shape[1]:
        filled = np.where(are_numbers(rows.probabilities), rows.probabilities, -1.0)
        best = filled.argmax(axis=1)
        score = filled.max(axis=1)
        by_class = first & (score >= 0)
        codes = np.array([classes.get(k, NO_CLASS) for k in range(filled.shape[1])])
        right = (codes[best] == rows.actual).astype(np.float64)
        there = by_class & (score <= 1)
        found += _some(CONFIDENCE, score, right, there, rows)
    if live is not None and live.task == "binary" and live.positive_code >= 0:
        known = (rows.actual == live.positive_code) | (rows.actual == live.negative_code)
        there = first & known & ~by_class & (rows.score >= 0) & (rows.score <= 1)
        positive = (rows.actual == live.positive_code).astype(np.float64)
        found += _some(SCORE + live.positive, rows.score, positive, there, rows)
    return found


def _some(kind: str, score: Float, label: Float, there: Bool, rows: Judged) -> list[Scored]:
    if not there.any():
        return []
    values = np.array([score[there], label[there]])
    return [Scored(kind, values, rows.time[there], rows.origin[there])]


class Calibration(OneSignal):
    """
    The calibration of a model version.

    Examples
    --------
    Scores that became too extreme while every answer stayed as right as it was:

    >>> rng = np.random.default_rng(1)
    >>> log_odds = 1.5 * rng.normal(size=4_000)
    >>> label = (rng.random(4_000) < 1 / (1 + np.exp(-log_odds))).astype(float)
    >>> log_odds[3_000:] *= 2
    >>> calibration = Calibration(lambda _: 0.005)
    >>> calibration.days = 300.0
    >>> score, times = 1 / (1 + np.exp(-log_odds)), np.arange(4_000) * 1_000
    >>> calibration.add([Scored("score of 1", np.array([score, label]), times)])
    True
    """

    name, chunk_rows, warm_rows, chunks_min = CALIBRATION, CHUNK_LABELS, WARM_LABELS, CHUNKS_MIN

    def add(self, parts: Sequence[Scored]) -> bool:
        """
        Add labelled rows in the order in which they were completed; whether a drift began or ended.

        Once a model has class scores, rows with another score are left out.
        """
        moved, at = False, 0
        while at < len(parts):
            kind, end = parts[at].kind, at + 1
            while end < len(parts) and parts[end].kind == kind:
                end += 1
            if kind == self.kind or self.kind != CONFIDENCE or kind == RESIDUALS:
                values = np.concatenate([p.values for p in parts[at:end]], axis=1)
                times_ms, origin = (
                    np.concatenate([getattr(p, name) for p in parts[at:end]])
                    for name in ("times_ms", "origin")
                )
                moved |= self.feed(kind, values, times_ms, origin)
            at = end
        return moved

    def learn(self, first: Float) -> Scores | Numbers | None:
        """Chances from the first labels; of a regression bins of residuals."""
        if first.shape[1] < FIRST_ERRORS:
            return None
        first = first[:, :FIRST_ERRORS]
        if self.kind == RESIDUALS:
            return Numbers(numeric_profile(first[0], 0), residuals=True)
        return Scores(learnt_chances(first[0], first[1]))
