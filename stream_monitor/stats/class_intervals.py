"""
Intervals of the metrics of a classifier, from the sums of `class_sums`.

Rule of the file: the sums alone decide, so a window of panes has the intervals of its rows.
"""

from __future__ import annotations

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.stats.class_sums import SCORED, ClassSums, Positive
from stream_monitor.stats.classification import CALIBRATION_BINS
from stream_monitor.stats.metric_intervals import (
    Interval,
    auc_interval,
    calibration_interval,
    f1_interval,
    macro_intervals,
    share_interval,
    weighted_intervals,
)


def class_intervals(of: ClassSums, sums: Float, read: Positive, task: str) -> dict[str, Interval]:
    """
    Intervals of the metrics of a window (`metric_intervals`).

    Parameters
    ----------
    of : ClassSums
        The layout.
    sums : (width,) float64
    read : Positive
    task : {"binary", "multiclass"}

    Returns
    -------
    dict of metric to interval
        Log loss has none, because sums do not tell how it varies.

    Examples
    --------
    >>> of = ClassSums(2, 0, 0)
    >>> answers, labels = np.array([1] * 90 + [0] * 110), np.array([1] * 100 + [0] * 100)
    >>> sums = of.rows(answers, labels, [], None, np.zeros(200, np.int64), 1)[0]
    >>> found = class_intervals(of, sums, Positive(1, 0), "binary")
    >>> [round(end, 3) for end in found["recall"]]
    [0.764, 0.973]
    """
    n = float(sums[0])
    right, hits, predicted, actual = of.answers(sums, read)
    if not n or right is None:
        return {}
    found: dict[str, Interval | None] = {"accuracy": share_interval(right / n, n)}
    p = read.positive
    if task == "multiclass":
        average = macro_intervals if read.macro else weighted_intervals
        found |= average(hits, predicted, actual)
        if sums[2]:
            low, high = share_interval(float(sums[4] / sums[2]) / 2, float(sums[2]))
            found["brier_score"] = 2 * low, 2 * high
    elif p >= 0:
        table = float(hits[p]), float(predicted[p]), float(actual[p])
        for name, rows in (("precision", table[1]), ("recall", table[2])):
            found[name] = share_interval(table[0] / rows, rows) if rows else None
        found["f1"] = f1_interval(*table) if table[1] and table[2] else None
        if of.candidates and (p < of.slots - 1 or of.classes <= of.slots):
            found |= _of_scores(of, sums, read)
    return {k: v for k, v in found.items() if v is not None}


def _of_scores(of: ClassSums, sums: Float, read: Positive) -> dict[str, Interval | None]:
    block = of.of_positive(sums, read)
    bins = block[:, 3 : 3 + CALIBRATION_BINS]
    total, metrics = float(bins.sum()), of.of_scores(sums, read)
    if not total:
        return {}
    brier, error = metrics["brier_score"], metrics["calibration_error"]
    found: dict[str, Interval | None] = {"brier_score": share_interval(brier or 0.0, total)}
    found["calibration_error"] = calibration_interval(
        bins.sum(axis=0), error or 0.0, bins[read.positive]
    )
    if metrics.get("roc_auc") is not None:
        others = np.arange(of.slots) != read.positive
        negatives, positives = block[others, SCORED:].sum(axis=0), block[read.positive, SCORED:]
        found["roc_auc"] = auc_interval(negatives, positives)
    return found
