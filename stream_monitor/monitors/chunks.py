"""
Rows of a stream in chunks, for detectors on counts.

Rule of the file: chunks are cut by the rows and their times alone, in the order of the log. So they
do not depend on how rows arrive together.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.origins import NO_ORIGINS, UNKNOWN
from stream_monitor.times import DAY_MS, HOUR_MS

SIZE_FACTOR_MAX = 32
TARGET_MS = 250
"""
With dense traffic chunks grow, so that one takes about so long: what they cost is per chunk.
"""
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


class Cut(NamedTuple):
    """How the next rows are cut."""

    ids: Int
    """(n,): the chunk of each row, from 0; the last one may not be complete."""
    rows: Int
    """(chunks,): rows of those that are complete."""
    days: Float
    """(chunks,): the time that each adds to the budget."""
    starts_ms: Int
    """(chunks,): event time of the first row."""
    ends_ms: Int
    """(chunks,): the newest event time so far."""
    origins: Int
    """(chunks,): where the first row came from."""

    @property
    def starts(self) -> Int:
        """The first of these rows in each chunk."""
        return np.flatnonzero(np.append(True, self.ids[1:] != self.ids[:-1]))

    @property
    def chunks(self) -> int:
        """Number of chunks, one that is not complete included."""
        return int(self.ids[-1]) + 1


MOMENT_UNIT, MOMENT_MAX = 2.0**-16, 1_024.0
"""
Moments are sums of multiples of the unit, of values that are cut at the greatest: such sums are
exact in whatever order, up to 2^17 rows of greatest values.
"""
UNITS_MAX = MOMENT_MAX / MOMENT_UNIT


def moments(z: Float, starts: Int) -> tuple[Float, Float]:
    """
    Sums of standardised values and of their squares by chunk, of the last axis; NaN counts as 0.

    >>> [m.tolist() for m in moments(np.array([1.0, 2.0, np.nan, 3.0]), np.array([0, 2]))]
    [[3.0, 3.0], [5.0, 9.0]]
    """
    units = z / MOMENT_UNIT
    np.rint(np.clip(units, -UNITS_MAX, UNITS_MAX, out=units), out=units)
    total = np.add.reduceat(units, starts, axis=-1)
    if np.isnan(total).any():
        units[np.isnan(units)] = 0.0
        total = np.add.reduceat(units, starts, axis=-1)
    units *= units
    units *= MOMENT_UNIT
    squares = np.add.reduceat(np.rint(units, out=units), starts, axis=-1)
    return total * MOMENT_UNIT, squares * MOMENT_UNIT


def chunk_moments(z: Float, ids: Int) -> tuple[Int, Float, Float]:
    """
    The chunks that rows are in, ascending, and their `moments`; `ids` (n,) are those of the rows in
    the order of the log, in which those of other segments may stand between.

    >>> [m.tolist() for m in chunk_moments(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0]))]
    [[0, 1], [4.0, 2.0], [10.0, 4.0]]
    """
    if (ids[1:] < ids[:-1]).any():
        order = np.argsort(ids, kind="stable")
        ids, z = ids[order], z[..., order]
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    return ids[starts], *moments(z, starts)


class Chunks(msgspec.Struct):
    """
    The chunk that is not complete yet.

    Parameters
    ----------
    least : int
        Rows of a chunk; with dense traffic they are up to `SIZE_FACTOR_MAX` times as many.
    target_ms : int
        How long a chunk takes then.

    Examples
    --------
    >>> chunks = Chunks(2)
    >>> cut = chunks.cut(np.array([0, 86_400, 86_400]))
    >>> cut.ids.tolist(), cut.rows.tolist(), cut.days.tolist()
    ([0, 0, 1], [2], [0.001])
    >>> chunks.whole(np.bincount(cut.ids)[:, None].astype(float), cut).tolist()
    [[2.0]]
    >>> chunks.rows, chunks.partial.tolist()
    (1, [1.0])
    """

    least: int
    target_ms: int = TARGET_MS
    size: int = 0
    """Rows of the chunk that is not complete; 0: `least`."""
    rows: int = 0
    partial: Float | None = None
    start_ms: int = 0
    origin: int = UNKNOWN
    """Where its first row came from."""
    told_ms: int = -1
    """The newest event time at the end of the last chunk; -1: there was no row."""
    newest_ms: int = 0

    def cut(self, times_ms: Int, origin: Int = NO_ORIGINS) -> Cut:
        """
        Cut the next rows.

        Parameters
        ----------
        times_ms : (n,) int64, ms
            Event times in the order of the log.
        origin : (n,) int64
            Where the rows came from; empty if that is not known.
        """
        n, first = len(times_ms), -self.rows
        newest = np.maximum(np.maximum.accumulate(times_ms), self.newest_ms)
        if self.told_ms < 0:
            self.told_ms = int(times_ms[0])
        size = self.size or self.least
        rows, days, starts, ends = list[int](), list[float](), list[int](), list[int]()
        bounds, origins = [0], list[int]()
        while first + size <= n:
            if first >= 0:
                self._begin(first, times_ms, origin)
            starts.append(self.start_ms)
            origins.append(self.origin)
            first += size
            end = int(newest[first - 1])
            elapsed = end - self.told_ms
            rows.append(size)
            days.append(min(max(elapsed, ROW_MIN_MS * size), GAP_MAX_MS) / DAY_MS)
            ends.append(end)
            bounds.append(first)
            self.told_ms = end
            if elapsed < self.target_ms / 2:
                size = min(2 * size, SIZE_FACTOR_MAX * self.least)
            elif elapsed > 2 * self.target_ms:
                size = max(size // 2, self.least)
        self.newest_ms, self.size, self.rows = int(newest[-1]), size, n - first
        if 0 <= first < n:
            self._begin(first, times_ms, origin)
        lengths = np.diff([*bounds, n] if bounds[-1] < n else bounds)
        return Cut(
            ids=np.repeat(np.arange(len(lengths)), lengths),
            rows=np.array(rows, np.int64),
            days=np.array(days, np.float64),
            starts_ms=np.array(starts, np.int64),
            ends_ms=np.array(ends, np.int64),
            origins=np.array(origins, np.int64),
        )

    def _begin(self, first: int, times_ms: Int, origin: Int) -> None:
        """A chunk begins at this row."""
        self.start_ms = int(times_ms[first])
        self.origin = int(origin[first]) if len(origin) else UNKNOWN

    def whole(self, sums: Float, cut: Cut) -> Float:
        """
        The sums of the chunks that are complete; those of the last one are kept if it is not.

        `sums` (chunks, columns) float64 are those of the rows that were cut, and are added to.
        """
        if self.partial is not None:
            sums[0] += self.partial
        done = len(cut.rows)
        self.partial = sums[done].copy() if self.rows else None
        return sums[:done]

    def begin_anew(self) -> None:
        """Leave out the rows of the chunk that is not complete: they are counted in another way."""
        self.rows, self.partial = 0, None
