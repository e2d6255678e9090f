"""
Exact metrics of the labelled rows of a window, and whether answers, scores and labels contradict
each other.

Rule of the file: pure functions of the rows of a window `last_N` and of how classes are read.
Undefined metrics are absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.monitors.classes import Counted, Reading
from stream_monitor.stats.class_intervals import class_intervals
from stream_monitor.stats.class_sums import ClassSums, Positive
from stream_monitor.stats.classification import log_losses, roc_auc, roc_auc_macro
from stream_monitor.stats.metric_intervals import Interval, auc_interval, mean_interval
from stream_monitor.stats.regression_sums import regression_intervals, regression_metrics

TopRows = Mapping[str, NDArray[Any]]
"""Columns of the rows of `TopN`."""


class _Scored(NamedTuple):
    """Rows of a classification, ready for their metrics."""

    reading: Reading
    codes: Int
    score: Float
    """Of the positive class; NaN if there is none."""
    shares: Float
    sums: ClassSums
    vector: Float
    positive: Positive
    losses: tuple[Float, Float] | None
    """Log loss and Brier score of class scores, by row."""


def _scored(rows: TopRows, counted: Counted) -> _Scored:
    predicted, actual, score = rows["predicted"], rows["actual"], rows["score"]
    group = np.zeros(len(predicted), np.int64)
    codes, reading = actual.astype(np.int64), counted.reading()
    shares = _shares(rows)
    scores, class_scored = [score], None
    positive = Positive(reading.positive_code, reading.negative_code, macro=counted.macro)
    if shares.shape[1]:
        class_scored = class_losses(counted, shares, codes)
        if reading.task == "binary":
            place = counted.score_classes.get(reading.positive, len(shares[0]))
            of_classes = (
                shares[:, place] if place < shares.shape[1] else np.full(len(group), np.nan)
            )
            score = np.where(np.isnan(of_classes), score, of_classes)
            scores.append(of_classes)
            positive = positive._replace(candidates=(0, 1))
    sums = ClassSums(len(counted.classes) + 1, len(scores) if reading.task == "binary" else 0, 0)
    vector = sums.rows(predicted.astype(np.int64), codes, scores, class_scored, group, 1)[0]
    return _Scored(reading, codes, score, shares, sums, vector, positive, class_scored)


def scores_of(rows: TopRows, counted: Counted) -> Float:
    """
    By row the score of the positive class; of several classes the class score of the answer. NaN
    if there is none.
    """
    of = _scored(rows, counted)
    if of.reading.task == "binary":
        return of.score
    answered = rows["predicted"].astype(np.int64)
    names, score = list(counted.classes), np.full(len(answered), np.nan)
    for place, name in enumerate(list(counted.score_classes)[: of.shares.shape[1]]):
        if name in names:
            mine = answered == names.index(name)
            score[mine] = of.shares[mine, place]
    return score


def exact_metrics(rows: TopRows, counted: Counted | None) -> dict[str, float]:
    """Metrics of rows; `counted` is None for a regression."""
    if not len(rows["predicted"]):
        return {}
    if counted is None:
        return regression_metrics(rows["predicted"], rows["actual"])
    of = _scored(rows, counted)
    found: dict[str, float] = getattr(of.sums, of.reading.task)(of.vector, of.positive)
    area = _area(counted, of.score, of.codes, of.shares)
    return found if area is None else {**found, "roc_auc": area}


def exact_intervals(rows: TopRows, counted: Counted | None) -> dict[str, Interval]:
    """
    Intervals of the metrics of rows (`metric_intervals`). The multiclass ROC AUC, an average over
    classes, has none.
    """
    if not len(rows["predicted"]):
        return {}
    if counted is None:
        return regression_intervals(rows["predicted"], rows["actual"])
    of = _scored(rows, counted)
    task = of.reading.task
    found = class_intervals(of.sums, of.vector, of.positive, task)
    scored = are_numbers(of.score) & (of.codes >= 0)
    if task == "multiclass" and of.losses is not None:
        losses = {"log_loss": of.losses[0], "brier_score": of.losses[1]}
    elif task == "binary" and of.reading.positive_code >= 0 and scored.any():
        score, true = of.score[scored], of.codes[scored] == of.reading.positive_code
        losses = {
            "log_loss": log_losses(np.where(true, score, 1 - score)),
            "brier_score": (score - true) ** 2,
        }
        _, at = np.unique(score, return_inverse=True)
        counts = (np.bincount(at, which).astype(np.float64) for which in (~true, true))
        area = auc_interval(*counts)
        found |= {} if area is None else {"roc_auc": area}
    else:
        losses = {}
    for name, loss in losses.items():
        known = loss[are_numbers(loss)]
        if len(known) > 1:
            low, high = mean_interval(float(known.mean()), float(known.var()), len(known))
            found[name] = max(low, 0.0), high
    return found


def _area(counted: Counted, score: Float, codes: Int, shares: Float) -> float | None:
    """ROC AUC of rows."""
    reading = counted.reading()
    if reading.task == "binary":
        scored = are_numbers(score) & (codes >= 0)
        return (
            None
            if reading.positive_code < 0
            else roc_auc(score[scored], codes[scored] == reading.positive_code)
        )
    known = ~np.isnan(shares).all(axis=1) if shares.shape[1] else np.zeros(len(codes), bool)
    if not known.any():
        return None
    place = {
        counted.classes[name]: i
        for name, i in counted.score_classes.items()
        if name in counted.classes
    }
    columns = np.array([place.get(int(a), -1) for a in codes[known].tolist()], np.int64)
    return roc_auc_macro(shares[known], columns)


def class_losses(counted: Counted, shares: Float, actual: Int) -> tuple[Float, Float]:
    """
    Log loss and Brier score of each row from its class scores; NaN if it has none.

    Parameters
    ----------
    counted : Counted
    shares : (n, classes) float64
        Normalised class scores.
    actual : (n,) int64
        Codes of the labels.
    """
    # The last place is read by a label without a code, -1: no class score is its own.
    column = np.full(len(counted.classes) + 1, -1, np.int64)
    for name, place in counted.score_classes.items():
        if name in counted.classes and place < shares.shape[1]:
            column[counted.classes[name]] = place
    at = column[actual]
    given = np.where(at >= 0, shares[np.arange(len(shares)), np.maximum(at, 0)], 0.0)
    known = shares[:, 0] == shares[:, 0]
    loss = np.where(known, log_losses(np.nan_to_num(given)), np.nan)
    return loss, np.where(known, (shares * shares).sum(axis=1) - 2 * given + 1, np.nan)


def contradicted(rows: TopRows, counted: Counted) -> tuple[int, int] | None:
    """
    Rows with a score of at least 0.5 and an answer, and how many of these answers are the other
    class; None if these are not the majority, or if scores and answers agree.

    Scores contradict answers if they are lower in rows that answer the positive class.
    """
    reading = counted.reading()
    if reading.task != "binary" or reading.positive_code < 0:
        return None
    predicted, score = rows["predicted"], rows["score"]
    shares = _shares(rows)
    place = counted.score_classes.get(reading.positive, -1)
    if 0 <= place < shares.shape[1]:
        score = np.where(np.isnan(shares[:, place]), score, shares[:, place])
    both = (predicted >= 0) & are_numbers(score)
    if not both.all():
        predicted, score = predicted[both], score[both]
    answered = predicted == reading.positive_code
    high = score >= 0.5
    rows_high, other = np.count_nonzero(high), np.count_nonzero(high & ~answered)
    n, m = np.count_nonzero(answered), len(answered)
    if (
        2 * other <= rows_high
        or n in (0, m)
        or score[answered].sum() / n >= score[~answered].sum() / (m - n)
    ):
        return None
    return int(rows_high), int(other)


def unexpected(rows: TopRows, counted: Counted | None) -> tuple[dict[str, int], int]:
    """
    Rows by class beyond the two of a binary model, and how many these are together (a regression's:
    beside its numbers).
    """
    if counted is None:
        return {}, int((np.isnan(rows["actual"]) | np.isnan(rows["predicted"])).sum())
    codes = {name: counted.classes[name] for name in counted.reading().unexpected}
    found = {
        name: n
        for name, code in codes.items()
        if (n := int(((rows["actual"] == code) | (rows["predicted"] == code)).sum()))
    }
    either = (
        np.isin(rows["actual"], list(codes.values()))
        | np.isin(rows["predicted"], list(codes.values()))
        if found
        else np.empty(0)
    )
    return found, int(either.sum())


def chance(rows: TopRows, counted: Counted, positive: Positive) -> tuple[float, float] | None:
    """Accuracies that need no model (see `ClassSums.chance`)."""
    sums = ClassSums(len(counted.classes) + 1, 0, 0)
    group = np.zeros(len(rows["time"]), np.int64)
    vector = sums.rows(
        rows["predicted"].astype(np.int64),
        rows["actual"].astype(np.int64),
        [rows["score"]],
        None,
        group,
        1,
    )[0]
    return sums.chance(vector, positive)


def normalised(probabilities: Float) -> Float:
    """
    Class scores divided by their sum, as scikit-learn does; rows without any, or of zeros, are NaN.

    Parameters
    ----------
    probabilities : (n, classes) float64

    Examples
    --------
    >>> normalised(np.array([[0.4, 0.4], [np.nan, 0.5], [0.0, 0.0]])).tolist()
    [[0.5, 0.5], [0.0, 1.0], [nan, nan]]
    """
    p = np.nan_to_num(probabilities)
    total = p.sum(axis=1, keepdims=True)
    return np.where(total > 0, p / np.where(total > 0, total, 1.0), np.nan)


def _shares(rows: TopRows) -> Float:
    """Normalised class scores of the rows of `last_N`; (n, 0) if there are none."""
    columns = sorted((c for c in rows if c[0] == "p" and c[1:].isdigit()), key=lambda c: int(c[1:]))
    return (
        normalised(np.stack([rows[c] for c in columns], axis=1))
        if columns
        else np.empty((len(rows["time"]), 0))
    )
