"""
Errors of rows that are not mature yet, where delays of labels depend on the class.

Rule of the file: detectors get errors in the order of their predictions then, once they are mature.
In the order in which labels come, the rows of a few hours would be of one class. What is asked and
when is decided by the log alone, so cuts and restarts do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.maturity import Maturity

WAITING_MAX = 1 << 17
"""Rows that wait; of more, every second one is left out from here on."""
LOOKS = 64
"""Looks for mature rows in the time of a cohort: each one goes through all that waits."""


class Told(NamedTuple):
    """Rows in the order in which detectors get them."""

    errors: Float
    """0 and 1."""
    times_ms: Int
    """Of the predictions."""
    origin: Int
    """Of the labels."""

    def at(self, index: slice | np.ndarray) -> Told:
        """A part of the rows."""
        return Told(self.errors[index], self.times_ms[index], self.origin[index])


def joined(parts: Sequence[Told]) -> Told:
    """Rows one part after the other."""
    return Told(
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.times_ms for part in parts]),
        np.concatenate([part.origin for part in parts]),
    )


NOBODY = Told(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))


class LateErrors(msgspec.Struct):
    """
    Errors that wait.

    Examples
    --------
    >>> late, rows = LateErrors(waits=True), np.array([30, 10, 20])
    >>> late.add(Told(np.array([1.0, 0.0, 1.0]), rows, rows))
    >>> found = late.take(20)
    >>> found.errors.tolist(), found.times_ms.tolist(), late.joined().times_ms.tolist()
    ([0.0, 1.0], [10, 20], [30])
    """

    waits: bool = False
    parts: list[Told] = []
    """Rows that wait, in the order in which their labels came."""
    waiting: int = 0
    """How many."""
    taken_ms: int = -1
    """Rows up to this event time were taken; a label that comes later still is left out."""
    newest_ms: int = -1
    """The newest event time."""
    every: int = 1
    """One row in so many is kept."""
    seen: int = 0

    def add(self, rows: Told) -> None:
        """Add rows, in the order in which their labels came."""
        if not len(rows.errors):
            return
        self.newest_ms = max(self.newest_ms, int(rows.times_ms.max()))
        if not self.waits:
            return
        first, n = 0, len(rows.errors)
        while first < n:
            chosen = (self.seen + np.arange(n - first)) % self.every == 0
            kept = first + np.flatnonzero(chosen & (rows.times_ms[first:] > self.taken_ms))
            room = WAITING_MAX - self.waiting
            # it is thinned at the very row for which there is no room, so that no cut shows
            end = int(kept[room]) if len(kept) > room else n
            here = kept[:room]
            if len(here):
                self.parts.append(rows.at(here))
                self.waiting += len(here)
            self.seen += end - first
            first = end
            if end < n:
                self.every *= 2
                self._keep(self.joined().at(slice(None, None, 2)))

    def turn(self, maturity: Maturity) -> Told | None:
        """
        Whether rows wait from here on; those that waited, if they need not any more.
        """
        if self.waits == maturity.depends:
            return None
        self.waits = maturity.depends
        if self.waits:
            # of these rows the detectors had those whose labels came first
            self.taken_ms = self.newest_ms
            return None
        return self.take(self.newest_ms)

    def mature(self, maturity: Maturity) -> Told | None:
        """The rows that are mature, if it is time to look for them."""
        until_ms = maturity.until_ms
        step_ms = maturity.period_ms // LOOKS
        if not self.waits or until_ms is None or until_ms < self.taken_ms + step_ms:
            return None
        return self.take(until_ms)

    def take(self, until_ms: int) -> Told:
        """Take the rows up to an event time, in the order of time."""
        rows = self.joined()
        order = np.argsort(rows.times_ms, kind="stable")
        due = order[: np.searchsorted(rows.times_ms[order], until_ms, side="right")]
        left = np.ones(len(order), np.bool_)
        left[due] = False
        self._keep(rows.at(left))
        self.taken_ms = max(self.taken_ms, until_ms)
        if self.every > 1 and self.waiting < WAITING_MAX // 4:
            self.every //= 2
        return rows.at(due)

    def joined(self) -> Told:
        """All rows that wait; they are one part from here on, wherever the log was cut."""
        if len(self.parts) > 1:
            self._keep(joined(self.parts))
        return self.parts[0] if self.parts else NOBODY

    def _keep(self, rows: Told) -> None:
        self.waiting = len(rows.errors)
        self.parts = [rows] if self.waiting else []
