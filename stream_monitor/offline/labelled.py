"""
Labelled rows at one moment of a replay, and what is read off them: who was taken for whom, whether
scores mean what they say, and how far a regression is off.

Rule of the file: at most `ROWS_MAX` rows, the newest ones. Numbers are counts of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.row_metrics import exact_metrics, scores_of
from stream_monitor.offline.laws import Bin
from stream_monitor.stats.class_sums import BY_SCORE
from stream_monitor.stats.classification import CALIBRATION_BINS, calibration_bins
from stream_monitor.stats.inference import wilson_interval

ROWS_MAX = 5_000
CLASSES_MAX = 8
"""Classes with a row of their own in a confusion matrix; the others are together."""
OTHERS, NONE = "other classes", "none"
RESIDUAL_BINS = 16


class Labelled(NamedTuple):
    """Labelled rows, ascending by time."""

    task: str
    start_ms: int
    end_ms: int
    predicted: Float
    """Codes of classes, -1 for none; or numbers."""
    actual: Float
    score: Float
    """Of the positive class; of several classes that of the answer. NaN if there is none."""
    classes: tuple[str, ...]
    """Names by code."""
    positive: int
    """Code of the positive class; -1 if there is none."""
    metrics: dict[str, float]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.actual)

    @property
    def hits(self) -> Float:
        """(rows,): 1 if what the score is about came true."""
        of_positive = self.actual == self.positive
        found: Float = (of_positive if self.positive >= 0 else self.predicted == self.actual) * 1.0
        return found

    @property
    def residuals(self) -> Float:
        """(rows,) prediction minus label, where both are numbers."""
        found = self.predicted - self.actual
        return found[np.isfinite(found)]


def labelled_rows(performance: Performance, newest: int | None) -> Labelled | None:
    """
    The newest rows of a model version, or all that it still has; None if there are none.
    """
    windows = performance.windows
    if windows is None:
        return None
    rows = windows.state.top.rows(None if newest is None else max(newest, 1))
    rows = {name: column[-ROWS_MAX:].copy() for name, column in rows.items()}
    if not len(rows["time"]):
        return None
    score, classes, positive = rows["score"], tuple[str, ...](), -1
    predicted = rows["predicted"]
    if windows.counted is not None:
        reading = windows.counted.reading()
        classes = tuple(windows.counted.classes)
        positive = reading.positive_code if reading.task == "binary" else -1
        score = scores_of(rows, windows.counted)
        if positive >= 0 and reading.negative_code >= 0:
            by_score = np.where(rows["score"] >= 0.5, positive, reading.negative_code)
            predicted = np.where(predicted == BY_SCORE, by_score, predicted)
    return Labelled(
        task=performance.task or "",
        start_ms=int(rows["time"][0]),
        end_ms=int(rows["time"][-1]),
        predicted=predicted,
        actual=rows["actual"],
        score=score,
        classes=classes,
        positive=positive,
        metrics=exact_metrics(rows, windows.counted),
    )


class Confusion(NamedTuple):
    """Rows by label and answer."""

    names: tuple[str, ...]
    answers: tuple[str, ...]
    counts: Int
    """(labels, answers)."""


def confusions(samples: Sequence[Labelled]) -> list[Confusion]:
    """
    The confusion matrices of samples of one model, with the same classes in the same order: the
    positive one first, then by frequency of their labels.

    Examples
    --------
    >>> rows = Labelled(
    ...     "binary",
    ...     0,
    ...     1,
    ...     *map(np.array, ([0.0, 1, 1], [0.0, 1, 0], [0.5] * 3)),
    ...     ("no", "yes"),
    ...     1,
    ...     {},
    ... )
    >>> found = confusions([rows])[0]
    >>> found.names, found.counts.tolist()
    (('yes', 'no'), [[1, 0], [1, 1]])
    """
    longest = max(samples, key=lambda s: len(s.classes))
    names, k = longest.classes, len(longest.classes)
    codes = [(_codes(s.actual, k), _codes(s.predicted, k)) for s in samples]
    labels, answers = (
        np.bincount(np.concatenate([pair[i] for pair in codes]), minlength=k + 1)[:k]
        for i in (0, 1)
    )
    seen = labels + answers  # a class may be answered and never be a label
    order = sorted(
        (int(c) for c in np.flatnonzero(seen)),
        key=lambda c: (c != longest.positive, -int(labels[c]), names[c]),
    )
    shown = order if len(order) <= CLASSES_MAX else order[: CLASSES_MAX - 1]
    rest, none = len(shown), len(shown) + 1
    place = np.full(k + 1, rest)
    place[shown], place[k] = np.arange(len(shown)), none
    titles = [*(names[c] for c in shown), OTHERS, NONE]
    tables = [
        np.bincount(place[a] * (none + 1) + place[p], minlength=(none + 1) ** 2).reshape(
            none + 1, none + 1
        )
        for a, p in codes
    ]
    total = np.sum(tables, axis=0)
    down = [i for i in range(none + 1) if i < rest or total[i].any()]
    across = [i for i in range(none + 1) if i < rest or total[:, i].any()]
    return [
        Confusion(
            tuple(titles[i] for i in down),
            tuple(titles[i] for i in across),
            table[np.ix_(down, across)],
        )
        for table in tables
    ]


def _codes(of: Float, classes: int) -> Int:
    """Codes of classes; the last one is none."""
    codes = np.where(are_numbers(of), of, -1).astype(np.int64)
    return np.where((codes >= 0) & (codes < classes), codes, classes)


class Reliable(NamedTuple):
    """A bin of scores: rows, their mean score, the share that came true, and its 99 % interval."""

    rows: int
    score: float
    share: float
    low: float
    high: float


def reliability(sample: Labelled) -> list[Reliable]:
    """
    Scores and what came true, in ten bins of equal width; empty without scores.

    Examples
    --------
    >>> rows = Labelled(
    ...     "binary", 0, 1, *map(np.array, ([1.0, 1], [1.0, 0], [0.9, 0.94])), ("no", "yes"), 1, {}
    ... )
    >>> [(r.rows, round(r.score, 2), r.share) for r in reliability(rows)]
    [(2, 0.92, 0.5)]
    """
    known = are_numbers(sample.score) & (sample.actual >= 0)
    score, hits = sample.score[known], sample.hits[known]
    if not len(score) or sample.task == "regression":
        return []
    at = calibration_bins(score)
    rows, scores, true = (
        np.bincount(at, weights, CALIBRATION_BINS) for weights in (None, score, hits)
    )
    return [
        Reliable(int(n), float(s / n), float(h / n), *wilson_interval(float(h), float(n)))
        for n, s, h in zip(rows, scores, true, strict=True)
        if n
    ]


def residual_laws(samples: Sequence[Labelled]) -> tuple[list[Bin], list[list[float]]]:
    """
    Counts of the residuals of samples on common bins, which follow the first sample: equal ones
    between its 1 % and 99 % quantiles, and one on each side.
    """
    residuals = [s.residuals for s in samples]
    if not len(residuals[0]):
        return [], []
    low, high = np.quantile(residuals[0], (0.01, 0.99))
    if not low < high:
        low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
    edges = np.linspace(low, high, RESIDUAL_BINS + 1)
    counts = [
        np.bincount(np.searchsorted(edges, r, side="right"), minlength=RESIDUAL_BINS + 2)
        for r in residuals
    ]
    ends = [-inf, *edges.tolist(), inf]
    bins = [Bin("", a, b) for a, b in pairwise(ends)]
    return bins, [c.astype(float).tolist() for c in counts]
