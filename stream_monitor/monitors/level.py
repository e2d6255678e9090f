"""
The best level of a model: its accuracy, or the error of a regression, is compared with it if nobody
set a threshold.

Rule of the file: the level comes from a baseline that was built with labels, otherwise from the
first labelled rows. These are few, so that a slow fall is not learnt as the level. Later blocks of
rows replace it if they are better beyond doubt, never if they are worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float

ROWS_MAX = 1_000
"""Rows of a block; fewer if `baseline.rows` is less."""
MARGIN, MARGIN_ERROR = 0.05, 0.2
"""
A fall of the accuracy by less than this, and a rise of the mean absolute error by less than this
share of it, are not alarmed on.
"""
Z = 5.0
"""
Nor one within so many standard errors of the difference. A window of 1,000 rows is one of 3,000
independent ones in three million, looked at five times: a normal difference is beyond 5 in about
one of 1,000 such runs.
"""
Z_BETTER = 6.0
"""A block replaces the level when it is better by so many standard errors."""


class Loss(NamedTuple):
    """
    Mean loss of rows (share of wrong answers, or mean absolute error), its variance among the rows,
    and how many they are.
    """

    mean: float
    variance: float
    rows: float

    @classmethod
    def of_metrics(cls, found: Mapping[str, float], rows: float) -> Loss | None:
        """
        The loss in the metrics of a baseline; None if they have none.

        >>> (
        ...     Loss.of_metrics({"mae": 3.0, "rmse": 5.0}, 10),
        ...     Loss.of_metrics({"accuracy": 0.5}, 10),
        ...     Loss.of_metrics({}, 10),
        ... )
        (Loss(mean=3.0, variance=16.0, rows=10), Loss(mean=0.5, variance=0.25, rows=10), None)
        """
        if not rows > 0:
            return None
        if "accuracy" in found:
            return cls(1 - found["accuracy"], found["accuracy"] * (1 - found["accuracy"]), rows)
        mae, rmse = found.get("mae", math.nan), found.get("rmse", math.nan)
        return (
            cls(mae, max(rmse * rmse - mae * mae, 0.0), rows)
            if math.isfinite(mae) and abs(rmse) < 1e150
            else None
        )


class Level(msgspec.Struct):
    """
    The level of loss of one model version.

    Parameters
    ----------
    block : int, rows
        Of a block, at most ROWS_MAX.

    Examples
    --------
    >>> level = Level(500)
    >>> level.add(np.array([1.0] * 25 + [0.0] * 475), "classes")
    >>> level.loss.mean, round(1 - level.limit(Loss(0.1, 0.09, 1_000), "classes"), 3)
    (0.05, 0.884)
    """

    block: int
    loss: Loss | None = None
    built: bool = False
    """Whether the level comes from a baseline."""
    mature: bool = False
    """Whether the level comes from rows that were mature, while not all of them are."""
    now: Float = msgspec.field(default_factory=lambda: np.empty(0))
    """Losses since the last block."""

    def __post_init__(self) -> None:
        self.block = max(1, min(self.block, ROWS_MAX))

    def use(self, found: Mapping[str, float]) -> None:
        """Take the level of the metrics of a profile, if it has any."""
        self.loss = Loss.of_metrics(found, found.get("labels", 0.0))
        self.built = self.loss is not None

    def take(self, found: Mapping[str, float], rows: float) -> None:
        """
        Take the level of mature rows. The first rows are no level where labels of one class come
        first.
        """
        if not self.built and not self.mature and rows >= self.block:
            self.loss, self.mature = Loss.of_metrics(found, rows), True

    def add(self, losses: Float, kind: str) -> None:
        """Losses of labelled rows, in the order in which their labels came."""
        self.now = np.append(self.now, losses)
        while len(self.now) >= self.block:
            block, self.now = self.now[: self.block], self.now[self.block :]
            with np.errstate(over="ignore", invalid="ignore"):
                loss = Loss(float(block.mean()), float(block.var()), float(self.block))
            if math.isfinite(loss.variance) and (
                self.loss is None or self.loss.mean - loss.mean > Z_BETTER * self._error(loss, kind)
            ):
                self.loss, self.built = loss, False

    def limit(self, now: Loss, kind: str) -> float:
        """
        Above which the mean loss of these rows is worse than the level; there must be a level.
        """
        assert self.loss is not None
        margin = MARGIN if kind == "classes" else MARGIN_ERROR * self.loss.mean
        return self.loss.mean + max(margin, Z * self._error(now, kind))

    def _error(self, now: Loss, kind: str) -> float:
        """
        Standard error of the difference between the level and a loss, if both are of one model.

        Of answers by the share of wrong ones that the level allows, with one standard error and one
        wrong answer added: the rows that are asked about do not widen it. Of a regression by the
        variance of both, each by its own rows: that of few rows with one huge error is great, and
        so no single error is an alarm.
        """
        assert self.loss is not None
        known = self.loss
        if kind != "classes":
            return math.sqrt(known.variance / known.rows + now.variance / now.rows)
        wrong = min(known.mean + math.sqrt(known.variance / known.rows) + 1 / known.rows, 0.5)
        return math.sqrt(wrong * (1 - wrong) * (1 / known.rows + 1 / now.rows))
