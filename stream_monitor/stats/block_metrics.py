"""
Metrics of blocks of labelled rows from a few sums, for many blocks at once, and the error of a line
through them.

Rule of the file: pure functions of arrays whose last axes are the sums of one block. An undefined
metric is NaN.
"""

from __future__ import annotations

import numpy as np

from stream_monitor.arrays import Float, Int

NUMBERS = 4
"""Sums of a block of a regression: rows, squared errors, labels and their squares."""


def class_metrics(counts: Float, positive: int | None, *, macro: bool) -> dict[str, Float]:
    """
    Accuracy, precision, recall and F1 of blocks, as `stats.classification` defines them.

    Parameters
    ----------
    counts : (..., 3, classes) float64, rows
        Hits, answers and labels of each class.
    positive : int or None
        Code of the positive class of a binary model, -1 if it is not known; None: multiclass.
    macro : bool
        Plain averages over the classes of a block, instead of those by support.

    Returns
    -------
    dict of str to (...) float64
        Without precision, recall and F1 if the positive class is not known.

    Examples
    --------
    >>> counts = np.array([[[3.0, 1.0], [4.0, 2.0], [3.0, 3.0]]])
    >>> {name: round(v.item(), 3) for name, v in class_metrics(counts, 1, macro=False).items()}
    {'accuracy': 0.667, 'precision': 0.5, 'recall': 0.333, 'f1': 0.4}
    """
    hits, predicted, actual = np.moveaxis(counts, -2, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"accuracy": hits.sum(axis=-1) / actual.sum(axis=-1)}
        if positive is not None:
            if positive < 0:
                return found
            h, p, a = (c[..., positive] for c in (hits, predicted, actual))
            found |= {"precision": h / p, "recall": h / a}
            return found | {"f1": np.where((p > 0) & (a > 0), 2 * h / (p + a), np.nan)}
        there = predicted + actual > 0
        weight = there.astype(np.float64) if macro else actual
        weight = weight / weight.sum(axis=-1, keepdims=True)
        return found | {
            name: (np.where(below > 0, above / below, 0.0) * weight).sum(axis=-1)
            for name, above, below in (
                ("precision", hits, predicted),
                ("recall", hits, actual),
                ("f1", 2 * hits, predicted + actual),
            )
        }


def r2(sums: Float) -> Float:
    """
    R² of blocks of a regression.

    Parameters
    ----------
    sums : (..., 4) float64

    Examples
    --------
    >>> r2(np.array([[4.0, 1.0, 8.0, 20.0], [1.0, 0.0, 2.0, 4.0]])).tolist()
    [0.75, nan]
    """
    n, squares, y, y2 = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = y2 - y * y / n
        return np.where(spread > 0, 1 - squares / spread, np.nan)


def line_weights(n: int) -> Float:
    """
    What each of `n` (at least three) values adds to the rise of their least-squares line, from the
    first to the last.

    >>> line_weights(3).tolist()
    [-1.0, 0.0, 1.0]
    """
    x = np.arange(n) - (n - 1) / 2
    weights: Float = x / (x @ x) * (n - 1)
    return weights


def scatter_error(values: Float) -> float:
    """
    The standard error of the rise of a line, from the scatter of its values around it.

    Parameters
    ----------
    values : (n,) float64

    Examples
    --------
    >>> scatter_error(np.array([0.9, 0.8, 0.7])), round(scatter_error(np.array([0.0, 1.0, 0.0])), 3)
    (0.0, 1.155)
    """
    n = len(values)
    x = np.arange(n) - (n - 1) / 2
    slope = x @ values / (x @ x)
    rest = values - values.mean() - slope * x
    return round(float(np.sqrt(rest @ rest / max(n - 2, 1) / (x @ x))) * (n - 1), 12)


def jackknife_error(values: Float, without: Float, groups: Int) -> float:
    """
    The standard error of the rise of a line, from rows that are left out of its blocks.

    Parameters
    ----------
    values : (n,) float64
        Of the blocks.
    without : (n, k) float64
        Of each block without one of its `k` groups of rows; NaN: undefined, and not used.
    groups : (n,) int64
        Number of groups of each block.

    Notes
    -----
    The delete-a-group jackknife (P. S. Kott, Journal of Official Statistics 17, 2001): the variance
    of one block is (k - 1)/k times the sum of squares around the mean; blocks are independent. It
    needs no formula for a metric, and rows that depend on their neighbours make it larger.

    Examples
    --------
    >>> round(jackknife_error(np.zeros(3), np.array([[-1.0, 1.0]] * 3), np.full(3, 2)), 6)
    1.414214
    """
    middle = np.nanmean(without, axis=1, keepdims=True)
    squares = np.nansum((without - middle) ** 2, axis=1) * (groups - 1) / groups
    return float(np.sqrt(line_weights(len(values)) ** 2 @ squares))
