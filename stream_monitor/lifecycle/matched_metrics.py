"""
Metrics of two models on matched rows.

Rule of the file: pure numpy. A metric that is a mean has an outcome for each row. Any other is a
function of sums over rows, or the area under the ROC curve; these take weights of units, for the
bootstrap. What is not defined is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.lifecycle.comparison import (
    Measure,
    Paired,
    by_unit,
    paired_bootstrap,
    paired_means,
)
from stream_monitor.stats.classification import log_losses

Needs = Literal["class", "number", "probability", "score"]


class Truth(NamedTuple):
    """The labels of the rows."""

    code: Int
    """(n,) class of each row."""
    number: Float
    """(n,) the label as a number."""
    positive: int
    """Code of the positive class, which may not occur; -1: metrics are of each class."""
    classes: int


class Said(NamedTuple):
    """What a model said about the rows."""

    code: Int
    """(n,) class of its answer."""
    number: Float
    """(n,) its answer as a number."""
    score: Float
    """(n,) probability of the positive class."""


Outcomes = Callable[[Truth, Said], Float]
"""Columns of a metric: (n,) float64 for a mean, else (n, columns) float64 to be summed."""


class Metric(NamedTuple):
    """How a metric is made. Without `outcomes` it is the area under the ROC curve."""

    needs: Needs
    outcomes: Outcomes | None
    of_sums: Callable[[Float], Float] | None = None
    """(samples, columns) float64 to (samples,) float64; None: it is the mean of the outcomes."""
    less_is_better: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether differences of outcomes say all about it."""
        return self.outcomes is not None and self.of_sums is None


def _is_right(truth: Truth, said: Said) -> Float:
    found: Float = (truth.code == said.code).astype(np.float64)
    return found


def _is_wrong(truth: Truth, said: Said) -> Float:
    return 1 - _is_right(truth, said)


def _is_positive(truth: Truth) -> Float:
    found: Float = (truth.code == truth.positive).astype(np.float64)
    return found


def _brier(truth: Truth, said: Said) -> Float:
    found: Float = np.square(said.score - _is_positive(truth))
    return found


def _away(truth: Truth, said: Said) -> Float:
    return np.abs(said.number - truth.number)


def _squared(truth: Truth, said: Said) -> Float:
    found: Float = np.square(said.number - truth.number)
    return found


def _log_loss(truth: Truth, said: Said) -> Float:
    given = np.where(truth.code == truth.positive, said.score, 1 - said.score)
    return np.column_stack([log_losses(given), np.ones(len(given))])


def _squares(truth: Truth, said: Said) -> Float:
    y = truth.number - truth.number.mean()
    return np.column_stack([_squared(truth, said), np.ones(len(y)), y, y * y])


def _hits(truth: Truth, said: Said) -> Float:
    """Hits, predictions and labels of the positive class, or of each class, side by side."""
    classes = np.arange(truth.classes) if truth.positive < 0 else np.array([truth.positive])
    actual = truth.code[:, None] == classes
    predicted = said.code[:, None] == classes
    return np.concatenate([actual & predicted, predicted, actual], axis=1).astype(np.float64)


def _ratio(above: Float, below: Float) -> Float:
    found: Float = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return found


def _of_classes(part: Callable[[Float, Float, Float], Float]) -> Callable[[Float], Float]:
    """The metric of the positive class; of several classes the mean weighted by labels."""

    def value(sums: Float) -> Float:
        hits, predicted, actual = np.split(sums, 3, axis=1)
        found = part(hits, predicted, actual)
        if found.shape[1] == 1:
            return found[:, 0]
        return _ratio((np.nan_to_num(found) * actual).sum(axis=1), actual.sum(axis=1))

    return value


METRICS: dict[str, Metric] = {
    "accuracy": Metric("class", _is_right),
    "error_rate": Metric("class", _is_wrong, None, True),
    "brier": Metric("probability", _brier, None, True),
    "absolute_error": Metric("number", _away, None, True),
    "squared_error": Metric("number", _squared, None, True),
    "log_loss": Metric("probability", _log_loss, lambda s: _ratio(s[:, 0], s[:, 1]), True),
    "rmse": Metric("number", _squares, lambda s: np.sqrt(_ratio(s[:, 0], s[:, 1])), True),
    "r2": Metric(
        "number", _squares, lambda s: 1 - _ratio(s[:, 0], s[:, 3] - _ratio(s[:, 2] ** 2, s[:, 1]))
    ),
    "precision": Metric(
        "class", _hits, _of_classes(lambda hits, predicted, _: _ratio(hits, predicted))
    ),
    "recall": Metric("class", _hits, _of_classes(lambda hits, _, actual: _ratio(hits, actual))),
    "f1": Metric("class", _hits, _of_classes(lambda h, p, a: _ratio(2 * h, p + a))),
    "roc_auc": Metric("score", None),
}
"""Metrics by name, as `experiments` and `thresholds` have them."""
ALIASES = {
    "auc": "roc_auc",
    "brier_score": "brier",
    "mae": "absolute_error",
    "mse": "squared_error",
}


def compared(
    metric: Metric,
    truth: Truth,
    said: tuple[Said, Said],
    units: Int | None = None,
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Paired:
    """
    Champion and challenger by a metric.

    Parameters
    ----------
    metric : Metric
    truth : Truth
    said : (champion, challenger)
    units : (n,) int64 or None
        Codes of units from 0 on; None: each row is a unit.
    alpha : float
        Of each of the two bounds.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Paired

    Examples
    --------
    >>> truth = Truth(np.array([0, 1, 1, 0]), np.array([0.0, 1, 1, 0]), positive=1, classes=2)
    >>> said = [
    ...     Said(np.array(code), np.array(code, float), np.array(score))
    ...     for code, score in (
    ...         ([0, 1, 0, 0], [0.1, 0.9, 0.4, 0.5]),
    ...         ([0, 1, 1, 0], [0.1, 0.9, 0.6, 0.5]),
    ...     )
    ... ]
    >>> [compared(METRICS[m], truth, tuple(said)).gain for m in ("accuracy", "recall", "roc_auc")]
    [0.25, 0.5, 0.25]
    """
    less = metric.less_is_better
    if metric.is_mean:
        assert metric.outcomes is not None
        first, other = (metric.outcomes(truth, s) for s in said)
        return paired_means(first, other, units, alpha=alpha, less_is_better=less)
    many = len(truth.code) if units is None else int(units.max(initial=-1)) + 1
    measure = _by_sums(metric, truth, said, units) if metric.outcomes else _auc(truth, said, units)
    rows = 0 if metric.outcomes else len(truth.code)
    return paired_bootstrap(measure, many, seed=seed, rows=rows, alpha=alpha, less_is_better=less)


def _by_sums(metric: Metric, truth: Truth, said: tuple[Said, Said], units: Int | None) -> Measure:
    assert metric.outcomes is not None
    assert metric.of_sums is not None
    of_sums = metric.of_sums
    first, other = (
        np.column_stack([by_unit(c, units) for c in metric.outcomes(truth, s).T]) for s in said
    )
    return lambda weights: (of_sums(weights @ first), of_sums(weights @ other))


def _auc(truth: Truth, said: tuple[Said, Said], units: Int | None) -> Measure:
    first, other = (_area(s.score, truth.code == truth.positive, units) for s in said)
    return lambda weights: (first(weights), other(weights))


def _area(score: Float, positive: Bool, units: Int | None) -> Callable[[Float], Float]:
    """
    The area under the ROC curve by weights of units: the chance that a positive row scores above a
    negative one, ties counting half. The rows are sorted once.
    """
    ups, downs = np.flatnonzero(positive), np.flatnonzero(~positive)
    downs = downs[np.argsort(score[downs], kind="stable")]
    first, last = (np.searchsorted(score[downs], score[ups], side) for side in ("left", "right"))
    unit_up, unit_down = (ups, downs) if units is None else (units[ups], units[downs])

    def area(weights: Float) -> Float:
        up = weights[:, unit_up]
        below = np.zeros((len(weights), len(downs) + 1))
        np.cumsum(weights[:, unit_down], axis=1, out=below[:, 1:])
        won = np.einsum("ij,ij->i", up, below[:, first] + below[:, last]) / 2
        return _ratio(won, up.sum(axis=1) * below[:, -1])

    return area
