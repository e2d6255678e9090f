"""
Missing and broken values of every feature, by segment.

Rule of the file: it counts; what is judged is in `segment_faults`. Only rows with a fault cost
anything, because the sums of all traffic say which features have some.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.cells import (
    ABSENT,
    BOOL,
    NOT_FINITE,
    NULL,
    TEXT,
    TOO_BIG,
    WRONG_TYPE,
    Cells,
    tags,
)
from stream_monitor.monitors.segment_blocks import KEPT, ROWS, Blocks, Members
from stream_monitor.monitors.sums import Summed, slots
from stream_monitor.monitors.windowed import MISSING, OFFSET, RANGE, TYPE

RULES = ("missing", "type", "range", "category")
"""Columns of a feature, in this order."""
JUMP = 0.1
"""A block with so many more faults than the first ones is not learnt as usual."""


def faults(chunk: Summed) -> Iterator[tuple[str, int, Int]]:
    """
    Of each feature and rule that some rows of a chunk break: its name, the place in `RULES`, and
    these rows. What no row breaks costs nothing: the sums of the chunk say so.
    """
    layout, sums = chunk.layout, chunk.sums
    heads = np.stack([sums[layout.at + column] for column in (MISSING, TYPE, RANGE)])
    broken = np.flatnonzero(heads.any(axis=0))
    if len(broken):
        x = chunk.numeric[broken]
        tag, low, high = tags(x), layout.minimum[broken, None], layout.maximum[broken, None]
        masks = (
            (tag == NULL) | (tag == ABSENT),
            (tag == TEXT) | (tag == BOOL) | (tag == WRONG_TYPE),
            (tag == NOT_FINITE) | (tag == TOO_BIG) | (x < low) | (x > high),
        )
        for rule, mask in enumerate(masks):
            for i in np.flatnonzero(mask.any(axis=1)).tolist():
                yield layout.numeric[broken[i]], rule, np.flatnonzero(mask[i])
    for name in layout.category:
        now = layout.windowed(name, sums)
        if now.missing or now.wrong_type or now.out_of_range or now.unknown:
            yield from _faults_of_category(chunk, name)


def _faults_of_category(chunk: Summed, name: str) -> Iterator[tuple[str, int, Int]]:
    layout = chunk.layout
    if name not in chunk.category:
        yield name, 0, np.arange(len(chunk.rows.times_ms))
        return
    values, inverse = np.unique(
        np.ascontiguousarray(chunk.rows.cells[chunk.category[name]]).view(np.uint64),
        return_inverse=True,
    )
    cells: Cells = values.view(np.float64)
    place = slots(cells, layout.categories[name], chunk.rows.texts)
    unknown = np.append(np.zeros(OFFSET, bool), layout.unknown_places(name))[place]
    for rule, mask in enumerate((place == MISSING, place == TYPE, place == RANGE, unknown)):
        if mask.any():
            yield name, rule, np.flatnonzero(mask[inverse])


class SegmentQuality(msgspec.Struct):
    """Missing and broken values by segment, feature and rule."""

    names: dict[str, int] = {}
    """Features that had a fault anywhere, in the order of their columns."""
    blocks: Blocks = msgspec.field(default_factory=lambda: Blocks(0))
    total: Float = msgspec.field(default_factory=lambda: np.empty((0, 0)))
    """(segments, columns): faults so far."""
    fresh: set[int] = set()
    """Segments with a block that was not judged yet."""
    open: set[tuple[int, int]] = set()
    """Segments and columns whose last verdict was not that all is well."""

    def add(self, chunk: Summed, of: Members) -> None:
        """
        Count the rows of a chunk, and their faults. O(rows + faults).

        Parameters
        ----------
        chunk : Summed
        of : Members
        """
        found = list(faults(chunk))
        for name, _, _ in found:
            self.names.setdefault(name, len(self.names))
        width = len(self.names) * len(RULES)
        self.blocks.room(of.total, width)
        # every fault is a cell of (row, column)
        row = np.concatenate([np.empty(0, np.int64), *(rows for _, _, rows in found)])
        column = np.concatenate(
            [
                np.empty(0, np.int64),
                *(np.full(len(r), len(RULES) * self.names[n] + k) for n, k, r in found),
            ]
        )
        for slices, group in zip(of.members.T, of.groups, strict=True):
            self._add(slices, group, row, column)

    def _add(self, slices: Int, group: Int, row: Int, column: Int) -> None:
        inside = np.flatnonzero(slices >= 0)
        if not len(inside):
            return
        width = self.blocks.width

        def summed(at: Int, segments: int) -> Float:
            """The faults of those rows at an index of the rows inside."""
            if not len(row):
                return np.zeros((segments, width))
            wanted = np.zeros(len(slices), bool)
            wanted[inside[at]] = True
            kept = wanted[row]
            place = slices[row[kept]] * width + column[kept]
            found: Float = np.bincount(place, minlength=segments * width).astype(np.float64)
            return found.reshape(segments, width)

        n = len(self.blocks.rows)
        if self.total.shape != self.blocks.now.shape:
            before, self.total = self.total, np.zeros((n, width))
            self.total[tuple(slice(k) for k in before.shape)] = before
        self.total += summed(np.arange(len(inside)), n)
        for done in self.blocks.add(slices[inside], n, group, summed):
            self.fresh |= set(done.tolist())
            self._learn(done)

    def _learn(self, done: Int) -> None:
        """The first blocks say what is usual, but not one that is much worse than those before."""
        blocks = self.blocks
        n = blocks.firsts[done][:, None]
        usual = blocks.first[done] / np.maximum(n, 1)
        jumped = (n > 0) & (blocks.kept[done, 0] - usual > JUMP * ROWS)
        blocks.learn(done[(n[:, 0] < KEPT) & ~jumped.any(axis=1)])

    def moved(self, places: dict[int, int], segments: int) -> SegmentQuality:
        """The same counts with segments under other numbers."""
        total = np.zeros((segments, self.total.shape[1]))
        for old, new in places.items():
            if old < len(self.total):
                total[new] = self.total[old]
        return SegmentQuality(
            names=self.names,
            blocks=self.blocks.moved(places, segments),
            total=total,
            fresh={places[n] for n in self.fresh if n in places},
            open={(places[n], column) for n, column in self.open if n in places},
        )

    def forget(self, features: set[str]) -> None:
        """Begin again with features that are counted in another way now."""
        first = [len(RULES) * self.names[n] for n in features & self.names.keys()]
        at = np.array([column + k for column in first for k in range(len(RULES))], np.int64)
        at = at[at < self.blocks.width]
        self.blocks.clear(at)
        if self.total.size:
            self.total[:, at] = 0.0
        self.open = {(n, column) for n, column in self.open if column not in at}

    # ---- what is told

    def violations(self, segment: int) -> Iterator[tuple[str, str, float]]:
        """(feature, rule, count) of what was broken in a segment."""
        if segment < len(self.total):
            counts = self.total[segment].reshape(-1, len(RULES))
            for name, i in self.names.items():
                if i < len(counts):
                    yield from ((name, r, n) for r, n in zip(RULES, counts[i], strict=True) if n)

    def missing(self, segment: int) -> Iterator[tuple[str, float]]:
        """
        (feature, share of rows without it) in the newest full block of a segment, of features that
        were missing there at some time.
        """
        if segment >= len(self.total) or not self.blocks.closed[segment]:
            return
        newest = self.blocks.kept[segment, 0]
        for name, i in self.names.items():
            if len(RULES) * i < len(newest) and self.total[segment, len(RULES) * i]:
                yield name, float(newest[len(RULES) * i]) / ROWS
