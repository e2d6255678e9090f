"""
Hours of the day: a signal whose law depends on the hour is compared with what the same hour (UTC)
was on the days before.

Rule of the file: the counts of an hour join what is known of it when the hour is over. So they
depend on rows and times alone, and the newest rows are never part of their own reference.

Each signal has the counts of 24 hours, and of each hour how its two contrasts vary from day to day.
After `DAYS_LEAST` days a signal is *seasonal* if its hours differ by more than days do (the F
statistic of an analysis of variance) and by more than chance. Then its rows are compared with their
hour. The tolerance grows by two standard deviations of what the hour varies from day to day. Days
of the week are in `weeks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.pool_tilt import PoolTilt, Reference
from stream_monitor.detectors.slots import halve, take_in
from stream_monitor.detectors.weeks import Weeks, WeekState, day_of_week
from stream_monitor.times import HOUR_MS

HOURS = 24
DAYS_LEAST, DAYS_MAX = 14, 56
"""Days until hours are known; when so many days are in an hour, they are halved."""
HOUR_ROWS_MIN = 20
"""Rows of an hour on a day; with fewer the day does not count."""
SLOT_ROWS_MIN = 500
"""An hour with fewer rows is compared with the pool of all hours."""
SEASON_MIN = 0.05
"""Standard deviation between hours, in those of the signal, from which a signal is seasonal."""
RATIO_MIN, HOURS_MIN = 3.0, 6
"""Least F statistic and number of hours; an F of 3 occurs by chance once in 10⁵ signals."""
WANDER = 2.0
"""Standard deviations from day to day that are tolerated."""


class SeasonState(msgspec.Struct):
    """The hours of one signal in a snapshot."""

    slots: NDArray[np.float32]
    current: Float
    days: NDArray[np.int32]
    moments: NDArray[np.float32]
    seasonal: bool
    week: WeekState


class Seasons:
    """
    The hours of the day of a set of signals.

    Parameters
    ----------
    detector : PoolTilt
    counted : (counts,) int64
        Columns with counts among the sums of a chunk; the other columns are moments.
    targets : (counts,) int64
        Their places in the table of the detector, (signals · bins,).
    owner : (columns,) int64
        The signal of each column.

    Notes
    -----
    Memory is 31 float32 a column and 200 a signal, about 3.5 kB for a number of 20 bins. It is made
    when the first hour is over.
    """

    def __init__(self, detector: PoolTilt, counted: Int, targets: Int, owner: Int) -> None:
        self.detector, self._counted, self._targets = detector, counted, targets
        self._owner, signals = owner, len(detector.live)
        self.hour = -1
        """Hours since 1970 of the newest chunk; -1: there was none."""
        self.current: Float = np.zeros(len(owner))
        """Sums of the hour that is not over."""
        self.seasonal: NDArray[np.bool_] = np.zeros(signals, np.bool_)
        self.known: Reference | None = None
        """What the present hour is compared with; None: no signal is seasonal."""
        self.slots: NDArray[np.float32] | None = None
        self._days = np.zeros((HOURS, signals), np.int32)
        self._moments = np.zeros((3, HOURS, signals, 2), np.float32)
        """Mean of the contrasts of a day, their variance between days, that by sampling."""
        self.week = Weeks(owner, counted, signals, self._table, self._contrasts)

    @property
    def learnt(self) -> NDArray[np.bool_]:
        """(signals,): whether the hours of the day are known."""
        found: NDArray[np.bool_] = self._days.max(axis=0) >= DAYS_LEAST
        return found

    @property
    def matters(self) -> NDArray[np.bool_]:
        """(signals,): whether the law depends on the hour or on the day of the week."""
        found: NDArray[np.bool_] = self.seasonal | self.week.weekly
        return found

    def add(self, sums: Float, changed: NDArray[np.bool_]) -> None:
        """
        Rows of the present hour; `sums` (columns,). Those of a signal that has `changed` are left
        out, unless its hours are still being learnt: a season looks like changes until then.
        """
        self.week.add(sums, changed, day_of_week(self.hour))
        out = changed & self.learnt if changed.any() else changed
        self.current += np.where(out[self._owner], 0.0, sums) if out.any() else sums

    def leave(self, signal: int) -> None:
        """A signal has changed: the present hour is not as usual."""
        self.week.leave(signal, day_of_week(self.hour))
        if self.learnt[signal]:
            self.current[self._owner == signal] = 0.0

    def turn(self, hour: int) -> list[int]:
        """Another hour begins; the signals that turn out to be seasonal or weekly."""
        fresh = list[int]()
        if self.hour >= 0:
            self._join(self.hour % HOURS)
            if hour // HOURS != self.hour // HOURS:
                fresh = self._judge()
                weekly = self.week.end(day_of_week(self.hour))
                self._explain(weekly)
                fresh = sorted({*fresh, *weekly})
        self.hour = hour
        self.refer()
        return fresh

    def refer(self) -> None:
        """Find what the present hour is compared with."""
        self.known = None
        if self.slots is None or not self.matters.any():
            return
        hour, detector = self.hour % HOURS, self.detector
        pool, mask = self._table(self.slots[hour]), self.seasonal
        wander = self._wander(hour, pool)
        weekly = self.week.known(day := day_of_week(self.hour))
        if weekly.any():
            pool, only = self._of_week(pool, weekly, day), weekly & ~self.seasonal
            wander = np.where(only, self._wander_of_week(day, pool), wander)
            mask = mask | only
        mask = mask & (pool.sum(axis=1) >= SLOT_ROWS_MIN)
        allowed = detector.tolerances + np.where(mask, wander, 0.0)
        self.known = Reference(mask, pool, detector.penalties(allowed, pool))

    def _of_week(self, pool: Float, weekly: NDArray[np.bool_], day: int) -> Float:
        """The `pool` (signals, bins) of an hour as it is on a day, of the signals that differ."""
        assert self.slots is not None
        assert self.week.sums is not None
        own, every = (self._table(x) for x in (self.week.sums[day], self.slots.sum(axis=0)))
        ratio = _shares(own) / _shares(every)
        both = np.round(np.where(own + every > 0, (pool + 0.5) * ratio, 0.0))
        seasonal = self.seasonal[:, None]
        found: Float = np.where(weekly[:, None], np.where(seasonal, both, own), pool)
        return found

    def _explain(self, weekly: Sequence[int]) -> None:
        """What hours vary from day to day is less for signals that turn out to be weekly."""
        explained = self.week.explained().astype(np.float32)
        _, between, sampling = self._moments
        for s in weekly:
            between[:, s] = np.maximum(between[:, s] - explained[s], sampling[:, s])

    def usual(self, columns: Int, starts_ms: Sequence[int], rows: Float) -> Float:
        """
        What some columns usually are in the hours that buckets of rows span.

        Parameters
        ----------
        columns : (n,) int64
            Of one signal.
        starts_ms : sequence of int
            When each bucket begins, oldest first; the last one ends in the present hour.
        rows : (buckets,) float64

        Returns
        -------
        (buckets, n) float64
            Sums that as many rows usually have.
        """
        found, counts = np.empty((len(rows), len(columns))), np.isin(columns, self._counted)
        edges = [*(ms // HOUR_MS for ms in starts_ms), self.hour]
        for i, (first, last) in enumerate(pairwise(edges)):
            hours = range(first, min(max(last + 1, first + 1), first + 7 * HOURS))
            found[i] = sum(self._sums_of(columns, counts, hour) for hour in hours)
            found[i] *= rows[i] / max(float(found[i, counts].sum()), 1.0)
        return found

    def _sums_of(self, columns: Int, counts: NDArray[np.bool_], hour: int) -> Float:
        """Usual sums of one signal in an hour since 1970."""
        assert self.slots is not None
        signal, day = int(self._owner[columns[0]]), day_of_week(hour)
        slot: Float = self.slots[hour % HOURS, columns].astype(np.float64)
        if not self.week.known(day)[signal] or self.week.sums is None:
            return slot
        own: Float = self.week.sums[day, columns].astype(np.float64)
        if not self.seasonal[signal]:
            return own
        every = self.slots[:, columns].sum(axis=0, dtype=np.float64)
        found: Float = slot.copy()
        found[counts] = (slot[counts] + 0.5) * _shares(own[counts]) / _shares(every[counts])
        if not counts.all():
            means = [x[~counts] / max(float(x[counts].sum()), 1.0) for x in (slot, own, every)]
            mean = means[0][0] + means[1][0] - means[2][0]
            variance = max(means[0][1] - means[0][0] ** 2, 0.0)
            found[~counts] = found[counts].sum() * np.array([mean, variance + mean * mean])
        return found

    def state(self, signal: int) -> SeasonState | None:
        """One signal in a snapshot; None before its first hour."""
        own = self._owner == signal
        if self.hour < 0:
            return None
        return SeasonState(
            slots=np.empty((0, 0), np.float32) if self.slots is None else self.slots[:, own],
            current=self.current[own],
            days=self._days[:, signal].copy(),
            moments=self._moments[:, :, signal].copy(),
            seasonal=bool(self.seasonal[signal]),
            week=self.week.state(signal),
        )

    def load(self, signal: int, state: SeasonState) -> None:
        """Go on from a snapshot of a signal with the same bins; `refer` comes after all of them."""
        own = self._owner == signal
        if len(state.slots):
            self._room()[:, own] = state.slots
        self.current[own], self.seasonal[signal] = state.current, state.seasonal
        self._days[:, signal], self._moments[:, :, signal] = state.days, state.moments
        self.week.load(signal, state.week)

    def _room(self) -> NDArray[np.float32]:
        if self.slots is None:
            self.slots = np.zeros((HOURS, len(self._owner)), np.float32)
        return self.slots

    def _table(self, sums: Float | NDArray[np.float32]) -> Float:
        """Counts by signal and bin."""
        shape = self.detector.pools.shape[1:]
        found = np.zeros(shape[0] * shape[1])
        found[self._targets] = sums[self._counted]
        return found.reshape(shape)

    def _join(self, hour: int) -> None:
        """An hour is over."""
        slots, days = self._room(), self._days[hour]
        counts = self._table(self.current)
        rows = counts.sum(axis=1)
        ripe = rows >= HOUR_ROWS_MIN
        slots[hour] += self.current.astype(np.float32)
        self.current[:] = 0.0
        days += ripe
        day = day_of_week(self.hour)
        self.week.include(day, ripe)
        value, variance = self._contrasts(counts)
        if self.week.weekly.any():
            value = value - self.week.effects()[day]
        take_in(self._moments[:, hour], days, ripe, rows, (value, variance))
        full = days >= DAYS_MAX
        if full.any():
            halve(slots[hour], days, full, self._owner, self._counted)

    def _contrasts(self, counts: Float) -> tuple[Float, Float]:
        """Mean and variance of the contrasts of a row, (signals, 2) each."""
        rows = np.maximum(counts.sum(axis=1), 1.0)[:, None]
        mean = np.einsum("sb,sbk->sk", counts, self.detector.contrasts) / rows
        square = np.einsum("sb,sbk->sk", counts, self.detector.squares) / rows
        return mean, np.maximum(square - mean * mean, 1e-9)

    def _day_to_day(self) -> Float:
        """Variance between days of the contrasts of each hour, (24, signals, 2)."""
        days = self._days[:, :, None]
        found: Float = self._moments[1] * (days / np.maximum(days - 1.0, 1.0))
        return found

    def _judge(self) -> list[int]:
        """The signals that are found to be seasonal."""
        if self.slots is None or not self.learnt.any():
            return []
        used = (self._days >= DAYS_LEAST // 2)[:, :, None]
        hours = np.maximum(used.sum(axis=0), 2)
        mean = self._moments[0].astype(np.float64)
        middle = (used * mean).sum(axis=0) / hours
        between = (used * (mean - middle) ** 2).sum(axis=0) / (hours - 1)
        days = np.maximum(self._days, 1)[:, :, None]
        chance = (used * self._day_to_day() / days).sum(axis=0) / hours
        total = self._contrasts(self._table(self.slots.sum(axis=0, dtype=np.float64)))[1]
        found = (between - chance > SEASON_MIN**2 * total) & (between > RATIO_MIN * chance)
        fresh = (found & (hours >= HOURS_MIN)).any(axis=1) & self.learnt & ~self.seasonal
        self.seasonal |= fresh
        return [int(s) for s in np.flatnonzero(fresh)]

    def _wander(self, hour: int, pool: Float) -> Float:
        """
        (signals,): root of the χ² distance that an hour keeps from day to day; the hours beside it
        count half, because few days tell little of a variance. For the same reason the tolerance is
        greater at first (quantiles of Student's t, and the error of the mean).
        """
        beside = np.array([hour - 1, hour, hour + 1]) % HOURS
        weights = np.array([1.0, 2.0, 1.0])[:, None, None] * (self._days[beside] > 1)[:, :, None]
        beyond = (self._day_to_day() - self._moments[2])[beside]
        beyond = (weights * beyond).sum(axis=0) / np.maximum(weights.sum(axis=0), 1.0)
        beyond = (np.maximum(beyond, 0.0) / self._contrasts(pool)[1]).max(axis=1)
        few = 1 + 2 / np.maximum(self._days[hour], 1)
        found: Float = WANDER * few * np.sqrt(beyond)
        return found

    def _wander_of_week(self, day: int, pool: Float) -> Float:
        """(signals,): the same of a day, which it keeps from week to week."""
        few = 1 + 2 / np.maximum(self.week.days(day), 1)
        found: Float = (self.week.beyond() / self._contrasts(pool)[1]).max(axis=1)
        return WANDER * few * np.sqrt(found)


def _shares(counts: Float) -> Float:
    """Shares of the last axis, of counts with half a row more in each bin."""
    found: Float = (counts + 0.5) / np.maximum(counts.sum(axis=-1, keepdims=True), 1.0)
    return found
