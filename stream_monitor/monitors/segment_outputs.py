"""
Score and prediction of every segment, as counts on the bins of their baseline, in blocks that the
log cuts.

Rule of the file: only counts; they are for people. Detectors have chunks of their own
(`segment_drift.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.segment_blocks import KEPT, Blocks, Members
from stream_monitor.monitors.sums import Summed, slots
from stream_monitor.monitors.windowed import OFFSET
from stream_monitor.stats.binning import bins_of


class SegmentOutputs(msgspec.Struct):
    """Counts of score and prediction by segment."""

    at: dict[str, tuple[int, int]] = {}
    """By signal: its first column, and how many it has."""
    blocks: Blocks = msgspec.field(default_factory=lambda: Blocks(0))

    def add(
        self,
        chunk: Summed,
        members: Members,
    ) -> None:
        """Count the rows of a chunk. O(rows x signals)."""
        signals = _signals(chunk)
        if signals != self.at:  # another baseline: its bins mean something else
            self.at, self.blocks = signals, Blocks(sum(n for _, n in signals.values()))
        self.blocks.room(members.total, self.blocks.width)
        columns, width = self._columns(chunk), self.blocks.width
        for slices, group in zip(members.members.T, members.groups, strict=True):
            inside = np.flatnonzero(slices >= 0)
            if not len(inside):
                continue
            of = slices[inside]
            # nearly always every row is inside, and no copy is needed
            mine = columns if len(inside) == len(slices) else columns[:, inside]

            def summed(at: Int, n: int, of: Int = of, mine: Int = mine) -> Float:
                column = mine[:, at]
                place = np.where(column >= 0, of[at] * width + column, -1).ravel()
                found = np.bincount(place[place >= 0], minlength=n * width)
                return found.astype(np.float64).reshape(n, width)

            for done in self.blocks.add(of, members.total, group, summed):
                self.blocks.learn(done[self.blocks.firsts[done] < KEPT])

    def _columns(self, chunk: Summed) -> Int:
        """(signals, n): the column of each row, -1 if it has none."""
        layout, rows = chunk.layout, chunk.rows
        starts = np.array([self.at[name][0] for name in layout.numeric], np.int64)
        found = bins_of(np.ascontiguousarray(chunk.numeric), layout.edges, starts)
        if len(starts):
            ends = starts + [self.at[name][1] for name in layout.numeric]
            found[found >= ends[:, None]] = -1  # no number
        more = []
        for name in layout.category:
            place = np.full(len(rows.times_ms), -1)
            if name in chunk.category:
                values, inverse = np.unique(
                    np.ascontiguousarray(rows.cells[chunk.category[name]]).view(np.uint64),
                    return_inverse=True,
                )
                known = layout.categories[name]
                slot = slots(values.view(np.float64), known, rows.texts) - OFFSET
                place = np.where(slot >= 0, slot + self.at[name][0], -1)[inverse]
            more.append(place)
        return np.vstack([found, *more]) if more else found

    def moved(self, places: dict[int, int], segments: int) -> SegmentOutputs:
        """The same counts with segments under other numbers."""
        return SegmentOutputs(at=self.at, blocks=self.blocks.moved(places, segments))

    def compared(self, segment: int) -> Iterator[tuple[str, Float, Float]]:
        """
        (signal, counts of the first blocks, counts of the newest ones) of a segment that has enough
        of both.
        """
        if segment < len(self.blocks.rows) and self.blocks.closed[segment] >= 2 * KEPT:
            newest = self.blocks.newest(KEPT)[0][segment]
            for signal, (start, n) in self.at.items():
                here = slice(start, start + n)
                yield signal, self.blocks.first[segment, here], newest[here]


def _signals(chunk: Summed) -> dict[str, tuple[int, int]]:
    layout = chunk.layout
    widths = {n: len(e) for n, e in zip(layout.numeric, layout.edges, strict=True)}
    widths |= {n: len(layout.categories[n]) + 1 for n in layout.category}
    found, start = {}, 0
    for name, width in widths.items():
        found[name], start = (start, width), start + width
    return found
