"""
Panes of event time: sums that are added, aged into coarser panes and read as windows.

Rule of the file: the same rows give the same window, in whatever order and pieces they came. A pane
is one row of a matrix of sums; adding is addition, so panes merge associatively. As the watermark
moves on, panes of 10 s become panes of a minute, of ten minutes, of an hour: a row that comes late
goes to the pane that its age has.
"""

from __future__ import annotations

from typing import Self

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.state import Packed

Ladder = tuple[tuple[int, int | None], ...]
LADDER: Ladder = ((10_000, 300_000), (60_000, 7_200_000), (600_000, 86_400_000), (3_600_000, None))
"""Width of a pane in ms, and the age up to which panes keep it."""
HORIZON_MS = 31 * 86_400_000


class PanesForm(msgspec.Struct):
    """The bytes of panes."""

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
        Length of the vector of sums of a pane.
    ladder : tuple of (pane width, greatest age), ms
    horizon_ms : int, ms
        Panes older than this before the watermark are dropped, and counted in `dropped`.

    Notes
    -----
    There is room for more panes than there are; a snapshot has only those that are there.
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
        Add sums of panes.

        Parameters
        ----------
        starts : (n,) int64, ms
            Distinct starts of panes of the finest width.
        sums : (n, width) float64
        """
        self.watermark_ms = max(self.watermark_ms, int(starts.max()))
        spans = self._span_of(starts)
        starts = starts // spans * spans
        if (
            self.used
            and len(starts) == 1
            and self.starts[self.used - 1] == starts[0]
            and self.spans[self.used - 1] == spans[0]
        ):
            self.sums[self.used - 1] += sums[0]  # nearly always: the newest pane grows
            return
        if len(starts) > 1:
            starts, spans, sums = _merged(starts, spans, sums)
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

    def _insert(self, starts: Int, spans: Int, sums: Float) -> None:
        n = len(starts)
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
        Width of the pane that rows of this time belong to: the wider one as soon as all of it is
        old enough, so that no pane overlaps another.
        """
        spans = np.full(len(starts), self.ladder[0][0], np.int64)
        for (_, oldest), (width, _) in zip(self.ladder, self.ladder[1:], strict=False):
            spans[self.watermark_ms - (starts // width * width + width) >= (oldest or 0)] = width
        return spans

    def _compact(self) -> None:
        """Every pane gets the width of its age; what lies beyond the horizon goes."""
        gone = int(np.searchsorted(self.starts[: self.used], self.watermark_ms - self.horizon_ms))
        if gone:
            self.dropped += gone
            for column in (self.starts, self.spans, self.sums):
                column[: self.used - gone] = column[gone : self.used].copy()
            self.used -= gone
        starts, sums = self.starts[: self.used], self.sums[: self.used]
        spans = self._span_of(starts)
        twice = np.append(False, starts[1:] == starts[:-1])[
            : len(starts)
        ]  # a row was added while panes came of age
        aged = np.flatnonzero((spans != self.spans[: self.used]) | twice)
        if not len(aged):
            return  # nearly always: nothing has come of age since the last look
        starts = starts // spans * spans
        first = int(np.searchsorted(starts, starts[aged[0]]))  # what is older stays as it is
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
            The window ends with the pane that holds `end_ms`, and reaches back by `duration_ms`,
            rounded outwards to whole panes of the age its beginning has.

        Returns
        -------
        sums : (width,) float64
        start, end : int, ms
            Its real bounds: rows with start <= time < end are in it.
        """
        self._compact()
        start, end = self._bounds(end_ms, duration_ms)
        low, high = np.searchsorted(self.starts[: self.used], [start, end])
        return self.sums[low:high].sum(axis=0), start, end

    def _bounds(self, end_ms: int, duration_ms: int) -> tuple[int, int]:
        """Bounds of a window, rounded outwards to whole panes."""
        finest = self.ladder[0][0]
        end = end_ms // finest * finest + finest
        wanted = end - duration_ms
        span = int(self._span_of(np.array([wanted]))[0])
        return wanted // span * span, end

    def newest(
        self, least: float, end_ms: int, reach_ms: int, counted: slice = slice(None)
    ) -> tuple[Float, int, int]:
        """
        The sums of the fewest panes, up to the one that holds `end_ms`, whose rows are enough.

        Parameters
        ----------
        least : float
            What the columns `counted` add up to; where a window of `reach_ms` has less, it is that
            window.
        end_ms, reach_ms : int, ms
        counted : slice
            Columns that count rows.

        Returns
        -------
        sums : (width,) float64
        start, end : int, ms
            As of `window`.
        """
        self._compact()
        least_start, end = self._bounds(end_ms, reach_ms)
        low, high = np.searchsorted(self.starts[: self.used], [least_start, end])
        counts = self.sums[low:high, counted].sum(axis=1)[::-1].cumsum()
        enough = int(np.searchsorted(counts, least)) + 1
        first = max(high - enough, low)
        start = int(self.starts[first]) if first < high else least_start
        return self.sums[first:high].sum(axis=0), start, end

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
        self._compact()  # so that it does not show when somebody looked at a window last
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
    """Panes with the same start become one."""
    order = np.argsort(starts, kind="stable")
    starts, spans, sums = starts[order], spans[order], sums[order]
    at = np.flatnonzero(np.append(True, starts[1:] != starts[:-1]))
    return starts[at], np.maximum.reduceat(spans, at), np.add.reduceat(sums, at, axis=0)
