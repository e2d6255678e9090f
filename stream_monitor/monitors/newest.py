"""
The newest rows of a group of signals by bin, so that an alert names some rows that show a change.

Rule of the file: which rows are named follows from the log alone. They are among the last ones up
to the row with which a drift was found, wherever records and batches end.

Theory of operation
-------------------
A batch of rows comes with the bins that its sums were made of; nothing is counted again. A drift
may be found within a batch, so the batch is kept as it is until the detectors have seen it. After
that only its last rows are copied, for drifts that a later row completes.

>>> newest = Newest(("x",), (0,))
>>> newest.begin(Batch(np.arange(4), NO_CODES, np.array([[0, 2, 2, 1]])))
>>> newest.end()
>>> newest.begin(Batch(np.arange(4, 7), NO_CODES, np.array([[2, 2, 0]])))
>>> newest.found("x", (2,), 1, 5), newest.found("x", (2,), 1, 2)  # of five rows, and of two
([1, 2, 4, 5], [4, 5])
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Int
from stream_monitor.events.origins import NO_ORIGINS

CELLS, ROWS_MIN, ROWS_MAX = 4_096, 64, 256
"""Bins that are kept of a group, and rows: fewer of a group with many signals."""
NAMED_MAX = 5
"""Rows that an alert names."""
NO_CODES: Int = np.empty(0, np.int64)
NO_BIN = -1
Show = Callable[[str, tuple[int, ...], int, int], list[int]]
"""
Gives origins of rows of a signal in some columns: among the last so many up to the end of a chunk.
"""


class NewestForm(msgspec.Struct):
    """The newest rows in a snapshot."""

    origin: Int
    segment: Int
    bins: dict[str, NDArray[np.int32]]
    """By signal: columns from that where the signal begins."""
    faults: dict[str, NDArray[np.uint8]]
    """By signal: bits of the rules of data quality that rows break."""


class Batch(msgspec.Struct):
    """Rows on their way through the detectors, in the order of the log."""

    origin: Int
    segment: Int
    """Codes of combinations of segments; empty if there are none."""
    numbers: Int | None = None
    """(numeric signals, n): the column of each cell."""
    levels: dict[str, Int] = {}
    """By category: columns from that where it begins."""
    place: Int | None = None
    """(n,): where each row is in `numbers` and `levels`; None: they are in its order too."""
    faults: Callable[[slice, NDArray[np.int32]], NDArray[np.uint8]] | None = None
    """Gives the bits of some rows, of which it gets the bins."""


class Newest:
    """
    The newest rows of a group of signals.

    Parameters
    ----------
    names : sequence of str
        Signals, numeric ones first.
    starts : sequence of int
        The column where each begins.
    absent : int
        Column of a category without a cell, from where the category begins.
    """

    def __init__(self, names: Sequence[str], starts: Sequence[int], absent: int = 0) -> None:
        self.at = {name: i for i, name in enumerate(names)}
        self.starts, self.absent = np.array(starts, np.int64), absent
        self.rows = min(max(CELLS // max(len(names), 1), ROWS_MIN), ROWS_MAX)
        self.origin, self.segment = NO_ORIGINS, NO_CODES
        self.bins = np.empty((len(names), 0), np.int32)
        self.faults = np.empty((len(names), 0), np.uint8)
        self.batch: Batch | None = None

    def begin(self, batch: Batch) -> None:
        """Rows come; nothing is kept of them if nobody knows where they came from."""
        self.batch = batch if len(batch.origin) else None
        if len(batch.segment) != len(batch.origin):
            batch.segment = np.zeros(len(batch.origin), np.int64)

    def judge(self, faults: Callable[[slice, NDArray[np.int32]], NDArray[np.uint8]]) -> None:
        """Say which rules the rows break."""
        if self.batch is not None:
            self.batch.faults = faults

    def end(self) -> None:
        """The detectors have seen the rows."""
        batch, self.batch = self.batch, None
        if batch is None:
            return
        first = max(len(batch.origin) - self.rows, 0)
        here = slice(first, None)
        bins = self._bins(batch, here)
        if batch.faults is None:
            faults = np.zeros((len(self.at), bins.shape[1]), np.uint8)
        else:
            faults = batch.faults(here, bins)
        kept = min(len(self.origin), self.rows - bins.shape[1])
        if not kept:
            self.bins, self.faults = bins, faults
            self.origin, self.segment = batch.origin[first:].copy(), batch.segment[first:].copy()
            return
        old = slice(len(self.origin) - kept, None)
        self.bins = np.concatenate([self.bins[:, old], bins], axis=1)
        self.faults = np.concatenate([self.faults[:, old], faults], axis=1)
        self.origin = np.concatenate([self.origin[old], batch.origin[first:]])
        self.segment = np.concatenate([self.segment[old], batch.segment[first:]])

    def _bins(self, batch: Batch, here: slice) -> NDArray[np.int32]:
        """(signals, rows): columns of the rows at these places of the log."""
        index = here if batch.place is None else batch.place[here]
        numbers = 0 if batch.numbers is None else len(batch.numbers)
        out = np.empty((len(self.at), len(batch.origin[here])), np.int32)
        if batch.numbers is not None:
            out[:numbers] = batch.numbers[:, index]
        for name, i in self.at.items():
            if i >= numbers:
                level = batch.levels.get(name)
                out[i] = self.starts[i] + (self.absent if level is None else level[index])
        return out

    def found(
        self,
        name: str,
        columns: Sequence[int],
        last: int,
        rows: int,
        mine: Callable[[Int], Bool] | None = None,
    ) -> list[int]:
        """
        Where some rows came from: the newest `NAMED_MAX` in these columns of a signal.

        Parameters
        ----------
        name : str
        columns : sequence of int
        last : int
            Place in the batch of the last row that counts.
        rows : int
            How many rows of the stream count.
        mine : callable, optional
            Tells of codes of segments whether rows belong to the stream; without it all do.
        """
        batch = self.batch
        if batch is None:
            return []
        first = last + 1 - self.rows
        old, new = slice(max(len(self.origin) + first, 0), None), slice(max(first, 0), last + 1)
        if first >= 0:
            old = slice(len(self.origin), None)
        i = self.at[name]
        bins = np.concatenate([self.bins[i, old], self._bins(batch, new)[i]])
        origin = np.concatenate([self.origin[old], batch.origin[new]])
        of_stream = np.arange(len(bins))
        if mine is not None:
            segment = np.concatenate([self.segment[old], batch.segment[new]])
            of_stream = np.flatnonzero(mine(segment))
        of_stream = of_stream[-rows:]
        shown = of_stream[np.isin(bins[of_stream], columns)][-NAMED_MAX:]
        return [int(o) for o in origin[shown]]

    def faulty(self, name: str, bit: int) -> list[int]:
        """Where the newest `NAMED_MAX` rows came from that break a rule."""
        if name not in self.at:
            return []
        broken = np.flatnonzero(self.faults[self.at[name]] & bit)[-NAMED_MAX:]
        return [int(o) for o in self.origin[broken]]

    def form(self) -> NewestForm:
        """In a snapshot."""
        found = np.where(self.bins < 0, NO_BIN, self.bins - self.starts[:, None]).astype(np.int32)
        names = self.at.items() if len(self.origin) else ()
        faults = {name: self.faults[i] for name, i in names}
        return NewestForm(self.origin, self.segment, {n: found[i] for n, i in names}, faults)

    def load(self, form: NewestForm, changed: Collection[str] = ()) -> None:
        """
        Go on from a snapshot; of a signal that was not there, or is in `changed`, nothing is known.
        """
        first = max(len(form.origin) - self.rows, 0)
        self.origin, self.segment = form.origin[first:], form.segment[first:]
        self.bins = np.full((len(self.at), len(self.origin)), NO_BIN, np.int32)
        self.faults = np.zeros(self.bins.shape, np.uint8)
        for name, i in self.at.items():
            if name in form.bins and name not in changed:
                self.faults[i] = form.faults[name][first:]
                bins = form.bins[name][first:]
                self.bins[i] = np.where(bins < 0, NO_BIN, bins + self.starts[i])

    @property
    def memory_bytes(self) -> int:
        """Bytes of the rows that are kept."""
        return sum(a.nbytes for a in (self.bins, self.faults, self.origin, self.segment))
