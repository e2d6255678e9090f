"""
How right a model was at its best: what its accuracy is compared with when nobody set a threshold.

Rule of the file: the level comes from the profile that was built with labels, else from the first labelled rows, and few of them, so
that a slow fall is not learnt as the level. Later blocks of rows raise it when they are better beyond doubt, and never lower it.
"""

from __future__ import annotations

import math
from typing import Any

ROWS_MAX = 1_000
"""Rows of a block; fewer where `baseline.rows` is less."""
MARGIN = 0.05
"""A fall by less than this is not alarmed on."""
Z = 5.0
"""
Nor one within so many standard errors of the difference. A window of 1,000 rows is one of 3,000 independent ones in three million,
looked at five times: a normal difference is beyond 5 in about one of 1,000 such runs.
"""
Z_BETTER = 6.0
"""A block replaces the level when it is better by so many standard errors."""


class Level:
    """
    The level of accuracy of one model version.

    Examples
    --------
    >>> level = Level(500)
    >>> level.add(600, 570)
    >>> level.accuracy, round(level.limit(0.9, 1_000), 3)
    (0.95, 0.879)
    """

    def __init__(self, rows: int) -> None:
        self.block = max(1, min(rows, ROWS_MAX))
        self.accuracy: float | None = None
        self.rows = 0.0
        self._now = [0.0, 0.0]

    def use(self, accuracy: float, rows: float) -> None:
        """Take the level of a profile."""
        self.accuracy, self.rows = accuracy, rows

    def add(self, rows: int, right: int) -> None:
        """Labelled rows, in the order in which their labels came."""
        self._now[0] += rows
        self._now[1] += right
        if self._now[0] < self.block:
            return
        n, accuracy = self._now[0], self._now[1] / self._now[0]
        self._now = [0.0, 0.0]
        if self.accuracy is None or accuracy - self.accuracy > Z_BETTER * self._error(accuracy, n):
            self.use(accuracy, n)

    def limit(self, value: float, rows: float) -> float:
        """Below which the accuracy `value` of `rows` rows is a fall; there must be a level."""
        assert self.accuracy is not None
        return self.accuracy - max(MARGIN, Z * self._error(value, rows))

    def _error(self, value: float, rows: float) -> float:
        """Standard error of the difference between the level and an accuracy."""
        both = self.rows + rows
        if self.accuracy is None or not both:
            return 0.0
        p = (self.accuracy * self.rows + value * rows) / both
        return math.sqrt(max(p * (1 - p), 1 / both) * (1 / self.rows + 1 / rows))

    def state(self) -> list[float | None]:
        """Plain values for the snapshot."""
        return [self.accuracy, self.rows, *self._now]

    def load(self, state: list[Any]) -> None:
        """Go on from the state of a snapshot."""
        self.accuracy, self.rows, *self._now = state
