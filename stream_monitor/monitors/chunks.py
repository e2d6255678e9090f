"""
Rows of a stream in chunks of equal size, for detectors on counts.

Rule of the file: chunks are cut by the number of rows alone, in the order of the log. So they do
not depend on how rows arrive together.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.times import DAY_MS, HOUR_MS

GAP_MAX_MS = HOUR_MS
"""
A chunk counts as at most so much time: a model that was silent for a month has not spent the budget
of a month.
"""
ROW_MIN_MS = 0.01
"""
Each row counts as at least so much time (100,000 rows a second). Without it evidence would stay 0
if all rows have one time.
"""


class Complete(NamedTuple):
    """Chunks that are complete."""

    sums: Float
    """(chunks, columns)"""
    days: Float
    """(chunks,): the time that each adds to the budget."""
    starts_ms: Int
    """(chunks,): event time of the first row."""
    ends_ms: Int
    """(chunks,): the newest event time so far."""


class Chunks(msgspec.Struct):
    """
    The chunk that is not complete yet.

    Examples
    --------
    >>> chunks, times = Chunks(2), np.array([0, 86_400, 86_400])
    >>> ids = chunks.ids(3)
    >>> ids.tolist()
    [0, 0, 1]
    >>> chunks.add(np.bincount(ids)[:, None].astype(float), times).days.tolist()
    [0.001]
    >>> chunks.rows, chunks.partial.tolist()
    (1, [1.0])
    """

    size: int
    rows: int = 0
    partial: Float | None = None
    start_ms: int = 0
    told_ms: int = -1
    """The newest event time at the end of the last chunk; -1: there was no row."""
    newest_ms: int = 0

    def ids(self, n: int) -> Int:
        """The chunk of each of the next rows, from 0."""
        found: Int = (self.rows + np.arange(n)) // self.size
        return found

    def add(self, sums: Float, times_ms: Int) -> Complete:
        """
        Add rows; `sums` are by the chunks of `ids`.

        Parameters
        ----------
        sums : (chunks, columns) float64
        times_ms : (n,) int64, ms
            Event times in the order of the log, n > 0.
        """
        n, rows, size = len(times_ms), self.rows, self.size
        if self.told_ms < 0:
            self.told_ms = self.newest_ms = int(times_ms[0])
        if rows == 0:
            self.start_ms = int(times_ms[0])
        if self.partial is not None:
            sums[0] += self.partial
        done = (rows + n) // size
        newest = np.maximum(np.maximum.accumulate(times_ms), self.newest_ms)
        last = np.arange(1, done + 1) * size - rows - 1
        ends, first = newest[last], last + 1
        starts = np.append(self.start_ms, times_ms[first[first < n]])
        elapsed = np.diff(np.append(self.told_ms, ends)).astype(np.float64)
        self.newest_ms, self.rows = int(newest[-1]), (rows + n) % size
        if done:
            self.told_ms, self.start_ms = int(ends[-1]), int(starts[-1])
        self.partial = sums[done].copy() if self.rows else None
        days = np.clip(elapsed, ROW_MIN_MS * size, GAP_MAX_MS) / DAY_MS
        return Complete(sums[:done], days, starts[:done], ends)

    def begin_anew(self) -> None:
        """Leave out the rows of the chunk that is not complete: they are counted in another way."""
        self.rows, self.partial = 0, None
