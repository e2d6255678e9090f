"""
For how many hours has latency been far above what the same hours were on the days before? While
the hours of the day are being learnt, this tells a service that became slow from a busy hour.

Rule of the file: whole hours count, by chunks in the order of the log. An hour that fewer than
`DAYS_MIN` days have shown counts as usual: after a weekend, Monday is slow. So does one that was as
slow on any of these days: half an hour of trouble on some day hides a change at that hour.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.times import HOUR_MS

HOURS = 24
DAYS_MIN = 4
CALLS_MIN = 50
"""Calls of an hour; with fewer it says nothing."""
STAYS = 3
"""So many such hours in a row are no busy hour."""
FACTOR = 1.5
"""An hour counts if calls take so many times as long (geometric mean) as on any day before."""


class SlowHours(msgspec.Struct):
    """
    Hours of the day, and the slow hours until now.

    Examples
    --------
    Five days, the last one twice as slow from its third hour on:

    >>> slow = SlowHours()
    >>> for hour in range(102):
    ...     log2_ms = 5.0 + (hour >= 98)
    ...     slow.add(np.array([hour * HOUR_MS]), np.array([100.0]), np.array([100 * log2_ms]))
    >>> slow.run
    3
    """

    hour: int = -1
    """Hours since 1970 of the newest chunk; -1: there was none."""
    calls: float = 0.0
    total: float = 0.0
    """Calls of that hour, and the sum of their logarithms to the base of 2."""
    most: Float = msgspec.field(default_factory=lambda: np.full(HOURS, -np.inf))
    """(24,): the greatest mean of an hour on a day before."""
    days: Int = msgspec.field(default_factory=lambda: np.zeros(HOURS, np.int64))
    """(24,): on how many days that hour was there."""
    run: int = 0
    """Whole hours in a row that were far above all days before, until now."""

    def add(self, ends_ms: Int, calls: Float, totals: Float) -> None:
        """
        Take chunks in: when each ended, its calls, and the sum of their logarithms; (chunks,) each.
        """
        hours = ends_ms // HOUR_MS
        starts = np.flatnonzero(np.append(True, hours[1:] != hours[:-1]))
        sums = (np.add.reduceat(x, starts).tolist() for x in (calls, totals))
        for hour, n, total in zip(hours[starts].tolist(), *sums, strict=True):
            if hour != self.hour:
                self._turn(hour)
            self.calls, self.total = self.calls + n, self.total + total

    def _turn(self, hour: int) -> None:
        """Another hour begins."""
        if self.calls >= CALLS_MIN:
            at, mean = self.hour % HOURS, self.total / self.calls
            slow = self.days[at] >= DAYS_MIN and mean >= self.most[at] + math.log2(FACTOR)
            self.run = self.run + 1 if slow else 0
            self.days[at] += 1
            self.most[at] = max(self.most[at], mean)
        self.hour, self.calls, self.total = hour, 0.0, 0.0
