"""
Days of the week: a signal whose law depends on the day is compared with what the same day (UTC) was
in the weeks before.

Rule of the file: the counts of a day join what is known of it when the day is over, for the same
reasons as those of an hour (`seasons.py`).

Each signal has the counts of seven days, and of each day how its two contrasts vary from week to
week. After `WEEKS_LEAST` weeks a signal is *weekly* if its days differ by more than weeks do. Its
law in an hour of the week is that of the hour times that of the day, divided by that of all rows,
bin by bin: what the hour does and what the day does add up in the logarithm. So 31 laws stand for
168, and are known after four weeks instead of months. What an hour of one day has of its own beyond
that is not known.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.detectors.slots import halve, take_in

DAYS, WEEKS_LEAST, WEEKS_MAX = 7, 4, 8
"""When a day of the week has so many days, they are halved."""
DAY_ROWS_MIN, DAYS_MIN = 100, 5
"""Rows of a day that counts, and days of the week that must be known."""
WEEK_MIN, RATIO_MIN = 0.05, 10.0
"""
Least standard deviation between days in those of the signal, and least F statistic: four weeks of
seven days have an F of 10 by chance once in 40,000 signals.
"""


class WeekState(msgspec.Struct):
    """The days of the week of one signal in a snapshot."""

    sums: NDArray[np.float32]
    today: Float
    days: NDArray[np.int32]
    moments: NDArray[np.float32]
    hours: NDArray[np.int32]
    weekly: bool


def day_of_week(hour: int) -> int:
    """
    The day of an hour since 1970, from 0 (Monday).

    >>> day_of_week(0), day_of_week(23), day_of_week(24)
    (3, 3, 4)
    """
    return (hour // 24 + 3) % DAYS


class Weeks:
    """
    The days of the week of a set of signals.

    Parameters
    ----------
    owner : (columns,) int64
        The signal of each column of sums.
    counted : (counts,) int64
        Columns with counts; the other columns are moments.
    signals : int
    table : callable
        Returns the counts of sums by signal and bin.
    contrasts : callable
        Returns mean and variance of the two contrasts of counts.
    """

    def __init__(
        self,
        owner: Int,
        counted: Int,
        signals: int,
        table: Callable[[Float | NDArray[np.float32]], Float],
        contrasts: Callable[[Float], tuple[Float, Float]],
    ) -> None:
        self._owner, self._counted = owner, counted
        self._table, self._contrasts = table, contrasts
        self.sums: NDArray[np.float32] | None = None
        """By day; it is made when the first day is over."""
        self.today: Float = np.zeros(len(owner))
        self.weekly: Bool = np.zeros(signals, np.bool_)
        self._days = np.zeros((DAYS, signals), np.int32)
        self._moments = np.zeros((3, DAYS, signals, 2), np.float32)
        """Mean of the contrasts of a day, their variance between weeks, that by sampling."""
        self._hours = np.zeros((DAYS, signals), np.int32)
        """Hours of each day that are part of what is known of hours of the day."""

    @property
    def learnt(self) -> Bool:
        """(signals,): whether the days of the week are known."""
        found: Bool = self._used.sum(axis=0) >= DAYS_MIN
        return found

    @property
    def complete(self) -> Bool:
        """(signals,): whether every day of the week is known."""
        return np.asarray(self._used.all(axis=0), np.bool_)

    @property
    def _used(self) -> Bool:
        found: Bool = self._days >= WEEKS_LEAST
        return found

    def known(self, day: int) -> Bool:
        """(signals,): those that are weekly, and know this day."""
        found: Bool = self.weekly & self._used[day]
        return found

    def add(self, sums: Float, changed: Bool, day: int) -> None:
        """
        Rows of today; `sums` (columns,). Those of a signal that has `changed` (signals,) are left
        out once this day is known: until then a weekend looks like a change.
        """
        out = changed & self._used[day] if changed.any() else changed
        self.today += np.where(out[self._owner], 0.0, sums) if out.any() else sums

    def leave(self, signal: int, day: int) -> None:
        """A signal has changed: today is not as usual."""
        if self._used[day, signal]:
            self.today[self._owner == signal] = 0.0

    def include(self, day: int, ripe: Bool) -> None:
        """An hour of this day joins what is known of the hour, of the signals `ripe` (signals,)."""
        self._hours[day] += ripe

    def end(self, day: int) -> list[int]:
        """A day is over; the signals that turn out to be weekly."""
        sums, days = self._room(), self._days[day]
        counts = self._table(self.today)
        rows = counts.sum(axis=1)
        ripe = rows >= DAY_ROWS_MIN
        sums[day] += self.today.astype(np.float32)
        self.today[:] = 0.0
        days += ripe
        take_in(self._moments[:, day], days, ripe, rows, self._contrasts(counts))
        full = days >= WEEKS_MAX
        if full.any():
            halve(sums[day], days, full, self._owner, self._counted)
            self._hours[:, full] //= 2
        return self._judge()

    def _judge(self) -> list[int]:
        if not (self.learnt & ~self.weekly).any():
            return []
        assert self.sums is not None
        used, days = self._used[:, :, None], np.maximum(self._days, 1)[:, :, None]
        n = np.maximum(used.sum(axis=0), 2)
        mean = self._moments[0].astype(np.float64)
        middle = (used * mean).sum(axis=0) / n
        between = (used * (mean - middle) ** 2).sum(axis=0) / (n - 1)
        chance = (used * self._week_to_week() / days).sum(axis=0) / n
        total = self._contrasts(self._table(self.sums.sum(axis=0, dtype=np.float64)))[1]
        found = (between - chance > WEEK_MIN**2 * total) & (between > RATIO_MIN * chance)
        fresh = found.any(axis=1) & self.learnt & ~self.weekly
        self.weekly |= fresh
        return [int(s) for s in np.flatnonzero(fresh)]

    def _week_to_week(self) -> Float:
        """Variance between weeks of the contrasts of each day, (7, signals, 2)."""
        days = self._days[:, :, None]
        found: Float = self._moments[1] * (days / np.maximum(days - 1.0, 1.0))
        return found

    def effects(self) -> Float:
        """
        (7, signals, 2): how far the contrasts of each day are from those of all hours that are
        known; 0 of a signal that is not weekly.
        """
        known = (self._used & self.weekly)[:, :, None]
        mean = self._moments[0].astype(np.float64)
        found: Float = np.where(known, mean - (self._weights * mean).sum(axis=0), 0.0)
        return found

    @property
    def _weights(self) -> Float:
        """Shares of the days among the hours that are known, (7, signals, 1)."""
        found: Float = (self._hours / np.maximum(self._hours.sum(axis=0), 1))[:, :, None]
        return found

    def explained(self) -> Float:
        """(signals, 2): the variance between days that is the day of the week."""
        found: Float = (self._weights * self.effects() ** 2).sum(axis=0)
        return found

    def beyond(self) -> Float:
        """(signals, 2): variance between weeks, without that by sampling, of all days together."""
        used = self._used[:, :, None]
        beyond = used * (self._week_to_week() - self._moments[2])
        found: Float = np.maximum(beyond.sum(axis=0) / np.maximum(used.sum(axis=0), 1), 0.0)
        return found

    def days(self, day: int) -> NDArray[np.int32]:
        """(signals,): how many such days are known."""
        found: NDArray[np.int32] = self._days[day]
        return found

    def _room(self) -> NDArray[np.float32]:
        if self.sums is None:
            self.sums = np.zeros((DAYS, len(self._owner)), np.float32)
        return self.sums

    def state(self, signal: int) -> WeekState:
        """One signal in a snapshot."""
        own = self._owner == signal
        return WeekState(
            sums=np.empty((0, 0), np.float32) if self.sums is None else self.sums[:, own],
            today=self.today[own],
            days=self._days[:, signal].copy(),
            moments=self._moments[:, :, signal].copy(),
            hours=self._hours[:, signal].copy(),
            weekly=bool(self.weekly[signal]),
        )

    def load(self, signal: int, state: WeekState) -> None:
        """Go on from a snapshot of a signal with the same bins."""
        own = self._owner == signal
        if len(state.sums):
            self._room()[:, own] = state.sums
        self.today[own], self.weekly[signal] = state.today, state.weekly
        self._days[:, signal], self._moments[:, :, signal] = state.days, state.moments
        self._hours[:, signal] = state.hours
