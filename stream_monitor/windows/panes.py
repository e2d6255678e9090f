"""
Panes of event time: sums that are added, aged into coarser panes and read as windows.

Rule of the file: the same rows give the same window, in whatever order and pieces they came.

Theory of operation
-------------------
In go sums of rows, by the start of the 10-second pane of their event time. Out come the sums of a
window, with the real bounds of the window.

A pane is one row of a matrix of sums, with a start and a span. Everything that is measured of a
window must therefore be a sum (counts, moments, bins), because sums of panes add up to the sums of
the window. As the watermark (the greatest event time) moves on, six panes of 10 s become one of a
minute, then one of ten minutes, then one of an hour (`LADDER`). So a month takes about a thousand
panes, and a window is exact to the width that panes of its age have.

The width of a pane depends on its age alone. So a row that comes late is added to the wide pane
that its age has now, and the result is the same as if it had come in time. Whether panes were
already merged must not show either: they are merged before every look (`_compact`), and in a
snapshot. A wider pane is used only when all of it is old enough, so panes never overlap.

Panes are sorted by start, so a window is one slice of the matrix and one sum over it. Nearly always
new rows belong to the newest pane, and adding them is one addition of vectors.

Five rows: three in the first 20 s, one ten minutes later, and then a late one of second 20.

>>> panes = Panes(width=1)  # one sum: the number of rows
>>> panes.add_grouped(np.array([0, 10_000]), np.array([[1.0], [2.0]]))
>>> panes.add_grouped(np.array([600_000]), np.array([[1.0]]))
>>> panes.add_grouped(np.array([20_000]), np.array([[1.0]]))
>>> form = panes.packed()  # the first minute is one pane now, and has the late row too
>>> form.starts.tolist(), form.spans.tolist(), form.sums.ravel().tolist()
([0, 600000], [60000, 10000], [4.0, 1.0])
>>> sums, start, end = panes.window(end_ms=603_000, duration_ms=600_000)
>>> sums.tolist(), start, end  # it was to begin at 10 s; its first pane begins at 0
([5.0], 0, 610000)
"""

from __future__ import annotations

from typing import Self

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.state import Packed

Ladder = tuple[tuple[int, int | None], ...]
LADDER: Ladder = ((10_000, 300_000), (60_000, 7_200_000), (600_000, 86_400_000), (3_600_000, None))
"""Widths of panes, each with the age up to which panes have it, ms; None: for ever."""
HORIZON_MS = 31 * 86_400_000


def grouped_by_pane(times_ms: Int, pane_ms: int) -> tuple[Int, Int]:
    """
    Starts of the panes of rows, ascending, and the place of each row's among them.

    Parameters
    ----------
    times_ms : (n,) int64, n > 0
    pane_ms : int, ms

    Examples
    --------
    >>> [x.tolist() for x in grouped_by_pane(np.array([12, 25, 14]), 10)]
    [[10, 20], [0, 1, 0]]
    """
    pane = times_ms // pane_ms
    if (pane == pane[0]).all():  # nearly always
        return pane[:1] * pane_ms, np.zeros(len(pane), np.int64)
    starts, group = np.unique(pane, return_inverse=True)
    return starts * pane_ms, group


class PanesForm(msgspec.Struct):
    """Panes in a snapshot."""

    watermark_ms: int
    dropped: float
    starts: Int
    spans: Int
    sums: Float


class Panes(Packed[PanesForm]):
    """
    Sums by event time.

    Parameters
    ----------
    width : int
        Number of sums of a pane.
    ladder : tuple of (pane width, greatest age), ms
    horizon_ms : int, ms
        Panes that are so much older than the watermark are dropped, and counted in `dropped`.

    Notes
    -----
    The arrays have room for more panes than the `used` ones at their beginning. A snapshot has only
    these.
    """

    Form = PanesForm

    def __init__(self, width: int, ladder: Ladder = LADDER, horizon_ms: int = HORIZON_MS) -> None:
        self.width, self.ladder, self.horizon_ms = width, ladder, horizon_ms
        self.starts: Int = np.empty(0, np.int64)
        self.spans: Int = np.empty(0, np.int64)
        self.sums: Float = np.zeros((0, width))
        self.used = 0
        self.watermark_ms = 0
        self.dropped = 0.0

    def add_grouped(self, starts: Int, sums: Float) -> None:
        """
        Add sums to panes.

        Parameters
        ----------
        starts : (n,) int64, ms
            Distinct starts of panes of the finest width.
        sums : (n, width) float64
        """
        self.watermark_ms = max(self.watermark_ms, int(starts.max()))
        if len(starts) == 1 and self._grows(int(starts[0])):  # nearly always
            self.sums[self.used - 1] += sums[0]
            return
        spans = self._span_of(starts)
        starts = starts // spans * spans
        if len(starts) > 1:
            starts, spans, sums = _merged(starts, spans, sums)
        # each start is either there, and its sums grow, or it is inserted; `inside` only keeps the
        # comparison within the array
        place = np.searchsorted(self.starts[: self.used], starts)
        inside = np.minimum(place, max(self.used - 1, 0))
        known = (
            (place < self.used) & (self.starts[inside] == starts)
            if self.used
            else np.zeros(len(starts), bool)
        )
        self.sums[place[known]] += sums[known]
        if not known.all():
            self._insert(starts[~known], spans[~known], sums[~known])

    def _grows(self, start_ms: int) -> bool:
        """Whether this is the newest pane, and too young for a wider one."""
        width, oldest = self.ladder[0]
        return (
            self.used > 0
            and bool(self.starts[self.used - 1] == start_ms)
            and bool(self.spans[self.used - 1] == width)
            and (oldest is None or self.watermark_ms - start_ms < oldest)
        )

    def _insert(self, starts: Int, spans: Int, sums: Float) -> None:
        """Add panes that are not there yet."""
        n = len(starts)
        # room is made by merging old panes first, so the arrays stay as small as the ladder allows
        if self.used + n > len(self.starts):
            self._compact()
        if self.used + n > len(self.starts):
            capacity = max(16, 2 * (self.used + n))
            self.starts, self.spans = (
                np.resize(self.starts, capacity),
                np.resize(self.spans, capacity),
            )
            grown = np.zeros((capacity, self.width))
            grown[: self.used] = self.sums[: self.used]
            self.sums = grown
        newer = self.used == 0 or starts[0] > self.starts[self.used - 1]
        end = self.used + n
        self.starts[self.used : end], self.spans[self.used : end], self.sums[self.used : end] = (
            starts,
            spans,
            sums,
        )
        self.used = end
        if not newer:
            order = np.argsort(self.starts[:end], kind="stable")
            for column in (self.starts, self.spans, self.sums):
                column[:end] = column[:end][order]

    def _span_of(self, starts: Int) -> Int:
        """
        Widths of the panes that rows of these times belong to.

        It is the wider one as soon as all of that pane is old enough, so no pane overlaps another.
        """
        spans = np.full(len(starts), self.ladder[0][0], np.int64)
        for (_, oldest), (width, _) in zip(self.ladder, self.ladder[1:], strict=False):
            spans[self.watermark_ms - (starts // width * width + width) >= (oldest or 0)] = width
        return spans

    def _compact(self) -> None:
        """Give every pane the width that its age has, and drop panes beyond the horizon."""
        gone = int(np.searchsorted(self.starts[: self.used], self.watermark_ms - self.horizon_ms))
        if gone:
            self.dropped += gone
            for column in (self.starts, self.spans, self.sums):
                column[: self.used - gone] = column[gone : self.used].copy()
            self.used -= gone
        starts, sums = self.starts[: self.used], self.sums[: self.used]
        spans = self._span_of(starts)
        # a late row may have been given a wide pane whose narrow ones were not merged yet
        twice = np.append(False, starts[1:] == starts[:-1])[: len(starts)]
        aged = np.flatnonzero((spans != self.spans[: self.used]) | twice)
        if not len(aged):
            return  # nearly always: nothing has come of age since the last look
        starts = starts // spans * spans
        first = int(np.searchsorted(starts, starts[aged[0]]))  # older panes stay as they are
        starts, spans, sums = _merged(starts[first:], spans[first:], sums[first:])
        self.used = first + len(starts)
        (
            self.starts[first : self.used],
            self.spans[first : self.used],
            self.sums[first : self.used],
        ) = starts, spans, sums

    def window(self, end_ms: int, duration_ms: int) -> tuple[Float, int, int]:
        """
        The sums of a window.

        Parameters
        ----------
        end_ms, duration_ms : int, ms
            The window ends with the pane that contains `end_ms` and reaches back by `duration_ms`.
            Its beginning is rounded outwards, to a whole pane of the width at that age.

        Returns
        -------
        sums : (width,) float64
        start, end : int, ms
            The real bounds: rows with start <= time < end are in the window.
        """
        self._compact()
        start, end = self._bounds(end_ms, duration_ms)
        low, high = np.searchsorted(self.starts[: self.used], [start, end])
        return self.sums[low:high].sum(axis=0), start, end

    def whole_until(self, time_ms: int) -> int:
        """A time in the newest pane that has no row after `time_ms`."""
        return time_ms - int(self._span_of(np.array([time_ms]))[0])

    def _bounds(self, end_ms: int, duration_ms: int) -> tuple[int, int]:
        """The bounds of a window, rounded outwards to whole panes."""
        finest = self.ladder[0][0]
        end = end_ms // finest * finest + finest
        wanted = end - duration_ms
        span = int(self._span_of(np.array([wanted]))[0])
        return wanted // span * span, end

    def newest(
        self, least: float, end_ms: int, reach_ms: int, counted: slice = slice(None)
    ) -> tuple[Float, int, int]:
        """
        The sums of as few panes as have enough rows, up to the pane that contains `end_ms`.

        Parameters
        ----------
        least : float
            Sum of the columns `counted` that is enough. If a window of `reach_ms` has less, the
            result is that window.
        end_ms, reach_ms : int, ms
        counted : slice
            Columns that count rows.

        Returns
        -------
        sums : (width,) float64
        start, end : int, ms
            The real bounds, as `window` returns them.
        """
        self._compact()
        least_start, end = self._bounds(end_ms, reach_ms)
        low, high = np.searchsorted(self.starts[: self.used], [least_start, end])
        counts = self.sums[low:high, counted].sum(axis=1)[::-1].cumsum()
        enough = int(np.searchsorted(counts, least)) + 1
        first = max(high - enough, low)
        start = int(self.starts[first]) if first < high else least_start
        return self.sums[first:high].sum(axis=0), start, end

    def take_until(self, time_ms: int) -> Float:
        """
        The sums of all panes that have no row at or after `time_ms`; they are 0 from here on.

        Returns
        -------
        sums : (width,) float64

        Examples
        --------
        >>> panes = Panes(width=1)
        >>> panes.add_grouped(np.array([0, 10_000]), np.array([[1.0], [2.0]]))
        >>> [panes.take_until(t).tolist() for t in (19_999, 20_000)], panes.sums.sum()
        ([[1.0], [2.0]], np.float64(0.0))
        """
        self._compact()
        there = slice(self.used)
        whole = np.flatnonzero(self.starts[there] + self.spans[there] <= time_ms)
        sums: Float = self.sums[whole].sum(axis=0)
        self.sums[whole] = 0.0
        return sums

    def lay_out(self, old: Int, new: Int, width: int) -> None:
        """
        Give all panes another vector of sums.

        Parameters
        ----------
        old, new : (n,) int64
            Columns of the old vector, and their places in the new one. All others begin at 0.
        width : int
            Length of the new vector.
        """
        sums = np.zeros((len(self.sums), width))
        sums[:, new] = self.sums[:, old]
        self.sums, self.width = sums, width

    def packed(self) -> PanesForm:
        self._compact()  # otherwise the bytes would show when somebody last looked at a window
        there = slice(self.used)
        return PanesForm(
            watermark_ms=self.watermark_ms,
            dropped=self.dropped,
            starts=self.starts[there],
            spans=self.spans[there],
            sums=self.sums[there],
        )

    @classmethod
    def unpacked(cls, form: PanesForm) -> Self:
        panes = cls(form.sums.shape[1])
        panes.watermark_ms, panes.dropped = form.watermark_ms, form.dropped
        panes.starts, panes.spans, panes.sums = form.starts, form.spans, form.sums
        panes.used = len(form.starts)
        return panes


def _merged(starts: Int, spans: Int, sums: Float) -> tuple[Int, Int, Float]:
    """Panes with the same start as one; the result is sorted by start."""
    order = np.argsort(starts, kind="stable")
    starts, spans, sums = starts[order], spans[order], sums[order]
    at = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))
    return starts[at], np.maximum.reduceat(spans, at), np.add.reduceat(sums, at, axis=0)
