"""
Labelled rows as numbers, ready to be counted: codes of classes, or the values of a regression.

Rule of the file: pure functions of labelled predictions and of the classes of the version. A new
class gets its code here, in the order of the rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import Cells, class_text
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.classes import Classes, Reading
from stream_monitor.monitors.performance_kind import numbers_of
from stream_monitor.settings import OTHER
from stream_monitor.stats.class_sums import BY_SCORE, NO_CLASS


class Judged(NamedTuple):
    """
    Labelled rows as numbers: codes of classes (an answer may be NO_CLASS or BY_SCORE), or the
    values of a regression, NaN if there is none.
    """

    time: Int
    id: NDArray[np.uint64]
    corrected: NDArray[np.bool_]
    predicted: Float
    actual: Float
    score: Float
    previous: Float
    """The label before, if this row is a correction."""
    probabilities: Float
    """(n, classes), or (n, 0)."""
    segment: Int
    origin: Int
    """Where the label came from."""

    def at(self, index: Any) -> Judged:
        """The rows at an index of numpy: a slice, a mask, or places."""
        return Judged(*(c[index] for c in self))


def as_numbers(pairs: Pairs, texts: list[str]) -> Judged:
    """
    Rows of a regression. A text that does not stand for a number has no value, and its row is in no
    metric.
    """
    predicted, actual, previous = (
        numbers_of(c, texts) for c in (pairs.outcome, pairs.label, pairs.previous)
    )
    return Judged(
        time=pairs.time,
        id=pairs.id,
        corrected=pairs.corrected,
        predicted=predicted,
        actual=actual,
        score=pairs.score,
        previous=previous,
        probabilities=np.empty((len(actual), 0)),
        segment=pairs.segment,
        origin=pairs.origin,
    )


def as_classes(pairs: Pairs, texts: list[str], classes: Classes, score_classes: Classes) -> Judged:
    """
    Rows with codes of predicted, actual and previous class. A row without an answer has the class
    of its greatest class score, or BY_SCORE.
    """
    actual = _codes(pairs.label, texts, classes)
    previous = (
        _codes(pairs.previous, texts, classes)
        if pairs.corrected.any()
        else np.full(len(actual), float(NO_CLASS))
    )
    predicted = _codes(pairs.outcome, texts, classes)
    if OTHER in classes:  # classes without a place of their own are still told apart
        for i in np.flatnonzero((predicted == classes[OTHER]) & (actual == predicted)).tolist():
            if class_text(float(pairs.outcome[i]), texts) != class_text(
                float(pairs.label[i]), texts
            ):
                predicted[i] = NO_CLASS
    if pairs.probabilities.shape[1]:
        scored = ~np.isnan(pairs.probabilities).all(axis=1)
        best = np.where(scored, np.nan_to_num(pairs.probabilities, nan=-1.0).argmax(axis=1), 0)
        names = {column: classes[name] for name, column in score_classes.items()}
        by_score = np.array([names.get(b, NO_CLASS) for b in best.tolist()], np.float64)
        predicted = np.where((predicted < 0) & scored, by_score, predicted)
    without = predicted < 0
    if without.any():
        predicted = np.where(without & are_numbers(pairs.score), float(BY_SCORE), predicted)
    return Judged(
        time=pairs.time,
        id=pairs.id,
        corrected=pairs.corrected,
        predicted=predicted,
        actual=actual,
        score=pairs.score,
        previous=previous,
        probabilities=pairs.probabilities,
        segment=pairs.segment,
        origin=pairs.origin,
    )


def delay_groups(rows: Judged) -> Int:
    """
    Group of each row whose labels may have delays of their own: twice the class of the label, and 1
    more if the answer was wrong (or, where a score is the answer, high).
    """
    high = np.where(rows.predicted == BY_SCORE, rows.score >= 0.5, rows.predicted != rows.actual)
    return 2 * rows.actual.astype(np.int64) + high


def number_errors(rows: Judged) -> Float:
    """Absolute errors of a regression; NaN if there is none, or it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        errors: Float = np.abs(rows.predicted - rows.actual)
    errors[~np.isfinite(errors)] = np.nan
    return errors


def answers(rows: Judged, live: Reading | None) -> Float:
    """Codes of the answers; a score without one counts as `class_errors` says, if it can."""
    by_score = rows.predicted == BY_SCORE
    if live is None or not by_score.any():
        return rows.predicted
    codes = np.where(rows.score >= 0.5, live.positive_code, live.negative_code)
    return np.where(by_score, codes, rows.predicted)


def class_errors(rows: Judged, live: Reading | None) -> Float:
    """
    0 if the answer is right, 1 if it is wrong, NaN if it is not known.

    Parameters
    ----------
    rows : Judged
    live : Reading or None
        By this reading a score without an answer counts as one: the positive class from 0.5 on.
    """
    wrong: Float = (rows.predicted != rows.actual).astype(np.float64)
    by_score = rows.predicted == BY_SCORE
    if not by_score.any():
        return wrong
    if live is None or min(live.positive_code, live.negative_code) < 0:
        return np.where(by_score, np.nan, wrong)
    found: Float = (answers(rows, live) != rows.actual).astype(np.float64)
    return found


def _codes(cells: Cells, texts: list[str], classes: Classes) -> Float:
    """Class codes of cells, NO_CLASS if there is none."""
    distinct, inverse = np.unique(np.ascontiguousarray(cells).view(np.uint64), return_inverse=True)
    codes = [
        NO_CLASS if (t := class_text(c, texts)) is None else classes[t]
        for c in distinct.view(np.float64).tolist()
    ]
    return np.array(codes, np.float64)[inverse]
