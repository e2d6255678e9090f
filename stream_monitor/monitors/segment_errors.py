"""
Errors of every segment, in blocks of first labels that the log cuts.

Rule of the file: a first label counts once, as the error of that moment, like in a detector. A
correction changes the windows of the segment (`segments`), never what was counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.level import Loss
from stream_monitor.monitors.segment_blocks import KEPT, ROWS, Blocks, Members, by_segment
from stream_monitor.stats.exact_sums import GREATEST, LIMBS, exact_sums, exact_total

SIZES = 64
"""Bins of the absolute error of a regression: powers of 2 from 2**-32 on."""
NUMBERS = 2 * LIMBS + SIZES
"""Columns of a regression: exact sums of errors and of their squares, then `SIZES`."""
JUMP = 0.1
"""A block with so many more errors than the first ones is not learnt as usual."""
JUMP_ERRORS = 4.0
"""
Nor one of a regression whose mean error is greater by so many standard errors and by a tenth.
"""


class SegmentErrors(msgspec.Struct):
    """Errors by segment."""

    kind: str = ""
    """`classes` or `numbers`; empty before the first label."""
    blocks: Blocks = msgspec.field(default_factory=lambda: Blocks(1))
    fresh: set[int] = set()
    """Segments with a block that was not judged yet."""

    def add(
        self,
        errors: Float,
        members: Members,
        kind: str,
    ) -> None:
        """
        Count errors of labelled rows. O(rows).

        Parameters
        ----------
        errors : (n,) float64
            0 or 1, or absolute errors of a regression; NaN: not a first label, or not known.
        members : Members
        kind : {"classes", "numbers"}
        """
        if kind != self.kind:
            self.kind, self.blocks, self.fresh = kind, Blocks(_width(kind)), set()
        with np.errstate(invalid="ignore"):
            known = errors < GREATEST**0.5
        self.blocks.room(members.total, _width(kind))
        for slices, group in zip(members.members.T, members.groups, strict=True):
            inside = np.flatnonzero(known & (slices >= 0))
            if len(inside):
                of, mine = slices[inside], errors[inside]
                for done in self.blocks.add(of, members.total, group, self._summed(of, mine)):
                    self.fresh |= set(done.tolist())
                    self._learn(done)

    def _summed(self, slices: Int, errors: Float) -> Callable[[Int, int], Float]:
        if self.kind == "classes":
            return lambda at, n: by_segment(slices[at], errors[at], n)

        def numbers(at: Int, n: int) -> Float:
            of, mine = slices[at], errors[at]
            out = np.zeros((n, NUMBERS))
            out[:, : 2 * LIMBS] = exact_sums(np.stack([mine, mine * mine]), of, n)
            size = np.clip(np.frexp(mine)[1] + 32, 0, SIZES - 1)
            counts = np.bincount(of * SIZES + np.where(mine > 0, size, 0), minlength=n * SIZES)
            out[:, 2 * LIMBS :] = counts.reshape(n, SIZES)
            return out

        return numbers

    def _learn(self, done: Int) -> None:
        """The first blocks say what is usual, but not one that is much worse than those before."""
        for segment in done.tolist():
            usual, now = self.usual(segment), self.loss(self.blocks.kept[segment, 0], ROWS)
            if usual is None or now is None:
                jumped = now is None and self.kind != "classes"
            elif self.kind == "classes":
                jumped = now.mean - usual.mean > JUMP
            else:
                error = np.sqrt(usual.variance / usual.rows + now.variance / now.rows)
                over = now.mean - usual.mean
                jumped = over > max(JUMP * usual.mean, JUMP_ERRORS * float(error))
            if self.blocks.firsts[segment] < KEPT and not jumped:
                self.blocks.learn(np.array([segment]))

    # ---- what is told

    def loss(self, sums: Float, rows: float) -> Loss | None:
        """The mean loss of sums, its variance among the rows and how many they are."""
        if not rows:
            return None
        if self.kind == "classes":
            wrong = float(sums[0]) / rows
            return Loss(wrong, wrong * (1 - wrong), rows)
        total, squares = (exact_total(sums[k * LIMBS : (k + 1) * LIMBS]) for k in (0, 1))
        mean = float(total / int(rows))
        return Loss(mean, max(float(squares / int(rows) - (total / int(rows)) ** 2), 0.0), rows)

    def usual(self, segment: int) -> Loss | None:
        """The loss of the first blocks of a segment."""
        return self.loss(self.blocks.first[segment], int(self.blocks.firsts[segment]) * ROWS)

    def take_fresh(self) -> Iterator[int]:
        """Segments with a full block since the last call."""
        fresh, self.fresh = self.fresh, set()
        return iter(sorted(fresh))

    def moved(self, places: dict[int, int], segments: int) -> SegmentErrors:
        """The same errors with segments under other numbers."""
        fresh = {places[n] for n in self.fresh if n in places}
        return SegmentErrors(self.kind, self.blocks.moved(places, segments), fresh)


def _width(kind: str) -> int:
    return 1 if kind == "classes" else NUMBERS
