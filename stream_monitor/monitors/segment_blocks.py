"""
Counts of each segment in blocks of so many of its own rows, cut by the log alone.

Rule of the file: a block has exactly `ROWS` rows of one segment, in the order of the log, wherever
records and chunks end. All segments are counted at once, as rows of a matrix; a segment is known
by its number.

Theory of operation
-------------------
A window by time says little of a small segment, because it has few rows there. A block always has
as many. The block that fills is `now`; the newest full ones are `kept`; `first` is the sum of the
first ones, which are what is usual in this segment.

What happens everywhere is no news of a segment. So each block has beside it what all segments of
its name had while it filled (`around`), to the very row. That begins after the first block of a
segment: before it, nobody knew of the segment.

Whoever adds rows gives a function that sums any of them by segment. Nearly always no block ends
within a chunk, so the function is called once for all of its rows. Otherwise it is called for the
rows up to the end of the blocks, and so on.

Three segments, blocks of 200 rows, one column: how many rows were wrong.

>>> blocks, slices = Blocks(1), np.repeat([0, 2, 0], [300, 10, 150])
>>> wrong = np.arange(460) % 2 == 0
>>> summed = lambda at, n: by_segment(slices[at], wrong[at], n)
>>> [done.tolist() for done in blocks.add(slices, 3, np.arange(3), summed)]
[[0], [0]]
>>> blocks.now.ravel().tolist(), blocks.rows.tolist()
([25.0, 0.0, 5.0], [50, 0, 10])
>>> blocks.kept[0, :, 0].tolist(), blocks.closed.tolist()
([100.0, 100.0, 0.0, 0.0, 0.0], [2, 0, 0])
>>> rest, rows = blocks.rest(1)
>>> rest[0].tolist(), rows.tolist()  # of the second block: 210 rows came while it filled
([5.0], [10, 0, 0])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int

ROWS = 200
"""Rows of a block."""
KEPT = 5
"""Blocks of the steady window, and those that say what is usual."""
Summed = Callable[[Any, int], Float]
"""The sums, (segments, width), of the rows at an index, for so many segments."""


class Members(NamedTuple):
    """The segments of the rows of a chunk."""

    members: Int
    """(n, definitions): the number of the segment of each row, -1 for none."""
    groups: tuple[Int, ...]
    """By definition: the numbers of its segments."""
    total: int
    """How many segments there are."""


def by_segment(slices: Int, values: Any, segments: int) -> Float:
    """One column of sums by segment: of (n,) `values`, or the rows themselves if it is None."""
    found: Float = np.bincount(slices, values, segments).astype(np.float64)
    return found[:, None]


class Blocks(msgspec.Struct):
    """
    Blocks of every segment.

    Parameters
    ----------
    width : int
        Columns of sums.
    """

    width: int
    now: Float = msgspec.field(default_factory=lambda: np.empty((0, 0)))
    """(segments, width): the block that fills."""
    rows: Int = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    """(segments,): rows of the block that fills."""
    kept: Float = msgspec.field(default_factory=lambda: np.empty((0, KEPT, 0)))
    """(segments, KEPT, width): the newest full blocks, the newest first."""
    closed: Int = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    """(segments,): full blocks so far."""
    first: Float = msgspec.field(default_factory=lambda: np.empty((0, 0)))
    """(segments, width): sums of the blocks that say what is usual."""
    firsts: Int = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    """(segments,): how many these are."""
    around: Float = msgspec.field(default_factory=lambda: np.empty((0, 0)))
    """(segments, width): what all segments of the name had since the block that fills began."""
    around_rows: Int = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    kept_around: Float = msgspec.field(default_factory=lambda: np.empty((0, KEPT, 0)))
    """(segments, KEPT, width): the same of the blocks in `kept`."""
    kept_around_rows: Int = msgspec.field(default_factory=lambda: np.empty((0, KEPT), np.int64))
    first_rest: Float = msgspec.field(default_factory=lambda: np.empty((0, 0)))
    """(segments, width): what the other segments had beside the first blocks, but one."""
    first_rest_rows: Int = msgspec.field(default_factory=lambda: np.empty(0, np.int64))

    def room(self, segments: int, width: int) -> None:
        """Make room for so many segments and columns; what is there keeps its place."""
        if len(self.rows) >= segments and self.now.shape[1] == width:
            return
        n, self.width = max(segments, len(self.rows)), width
        for names, shape in (
            (("now", "first", "around", "first_rest"), (n, width)),
            (("kept", "kept_around"), (n, KEPT, width)),
            (("kept_around_rows",), (n, KEPT)),
            (("rows", "closed", "firsts", "around_rows", "first_rest_rows"), (n,)),
        ):
            for name in names:
                setattr(self, name, _grown(getattr(self, name), shape))

    def add(self, slices: Int, segments: int, group: Int, summed: Summed) -> Iterator[Int]:
        """
        Add rows, in the order of the log. O(rows).

        Parameters
        ----------
        slices : (n,) int64
            Number of the segment of each row.
        segments : int
            How many segments there are.
        group : (k,) int64
            The segments that share the name of these.
        summed : callable

        Yields
        ------
        (k,) int64
            Segments whose block has just ended; `kept` has it in its first place.
        """
        self.room(segments, self.width)
        segments = len(self.rows)
        counts = np.bincount(slices, minlength=segments)
        known = group[group < segments]
        known = known[self.closed[known] > 0]
        if not (self.rows + counts >= ROWS).any():
            sums = summed(slice(None), segments)
            self.now += sums
            self.rows += counts
            self.around[known] += sums.sum(axis=0)
            self.around_rows[known] += len(slices)
            return
        whole = summed(slice(None), segments).sum(axis=0)
        before: dict[int, tuple[Float, int]] = {}
        """By segment: what came before its last block ended in this chunk."""
        order = np.argsort(slices, kind="stable")
        starts = np.cumsum(counts) - counts
        place = np.empty(len(slices), np.int64)
        place[order] = np.arange(len(slices)) - np.repeat(starts, counts)
        block = (place + self.rows[slices]) // ROWS
        for number in range(int(block.max()) + 1):
            at = np.flatnonzero(block == number)
            self.now += summed(at, segments)
            self.rows += np.bincount(slices[at], minlength=segments)
            done = np.flatnonzero(self.rows == ROWS)
            for segment in done.tolist():
                end = int(at[slices[at] == segment][-1]) + 1
                came = summed(np.arange(end), segments).sum(axis=0)
                past, rows = before.get(segment, (0.0, 0))
                self.around[segment] += came - past
                self.around_rows[segment] += end - rows
                before[segment] = came, end
            if len(done):
                self._close(done)
                yield done
        others = np.setdiff1d(known, list(before))
        self.around[others] += whole
        self.around_rows[others] += len(slices)
        for segment, (came, end) in before.items():
            self.around[segment] = whole - came
            self.around_rows[segment] = len(slices) - end

    def _close(self, done: Int) -> None:
        known = (self.closed[done] > 0)[:, None]
        for kept, now in ((self.kept, self.now[done]), (self.kept_around, self.around[done])):
            kept[done, 1:] = kept[done, :-1]
            kept[done, 0] = now
        self.kept_around[done, 0] *= known
        self.kept_around_rows[done, 1:] = self.kept_around_rows[done, :-1]
        self.kept_around_rows[done, 0] = self.around_rows[done] * known[:, 0]
        for name in ("now", "rows", "around", "around_rows"):
            getattr(self, name)[done] = 0
        self.closed[done] += 1

    def learn(self, segments: Int) -> None:
        """The newest block of these segments is one of those that say what is usual there."""
        self.first[segments] += self.kept[segments, 0]
        self.firsts[segments] += 1
        there = segments[self.kept_around_rows[segments, 0] > 0]
        self.first_rest[there] += self.kept_around[there, 0] - self.kept[there, 0]
        self.first_rest_rows[there] += self.kept_around_rows[there, 0] - ROWS

    def newest(self, blocks: int) -> tuple[Float, Int]:
        """
        Sums of the newest full blocks of every segment, at most so many, and their rows.

        Returns
        -------
        sums : (segments, width) float64
        rows : (segments,) int64
        """
        there = np.minimum(self.closed, min(blocks, KEPT))
        return self.kept[:, : min(blocks, KEPT)].sum(axis=1), there * ROWS

    def rest(self, blocks: int) -> tuple[Float, Int]:
        """What the other segments of the name had while these blocks filled, as in `newest`."""
        some = self.kept_around_rows[:, :blocks] > 0
        own = (self.kept[:, :blocks] * some[:, :, None]).sum(axis=1)
        rows = self.kept_around_rows[:, :blocks].sum(axis=1) - ROWS * some.sum(axis=1)
        return self.kept_around[:, :blocks].sum(axis=1) - own, rows

    def moved(self, places: dict[int, int], segments: int) -> Blocks:
        """The same blocks with segments at other places: `places` by the number before."""
        found = Blocks(self.width)
        if not len(self.rows):
            return found
        found.room(segments, self.width)
        old = [number for number in places if number < len(self.rows)]
        new = [places[number] for number in old]
        for name in self.__struct_fields__[1:]:
            getattr(found, name)[new] = getattr(self, name)[old]
        return found

    def clear(self, columns: Int) -> None:
        """Forget these columns: what they count has another meaning now."""
        for sums in (self.now, self.first, self.around, self.first_rest):
            sums[:, columns] = 0.0
        for kept in (self.kept, self.kept_around):
            kept[:, :, columns] = 0.0


def _grown(before: Any, shape: tuple[int, ...]) -> Any:
    """An array of zeros with the values that are there in the first places."""
    found = np.zeros(shape, before.dtype)
    found[tuple(slice(n) for n in before.shape)] = before
    return found
