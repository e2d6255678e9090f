"""
Sums of a chunk of rows by pane, one column for each thing that is counted of a feature.

Rule of the file: rows are in the order of their panes, and are added to `sums`, which has a row for
each pane of the chunk and the columns of a `Layout`. Each step is done for all features and panes
at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import (
    ABSENT,
    BOOL,
    NOT_FINITE,
    NULL,
    TEXT,
    TOO_BIG,
    WRONG_TYPE,
    Cells,
    arguments,
    class_name,
    tags,
)
from stream_monitor.monitors.chunks import Cut
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.newest import Batch
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.windowed import (
    ABOVE,
    BELOW,
    MISSING,
    OFFSET,
    PRESENT,
    RANGE,
    ROWS,
    SQUARES,
    SUM,
    TAILS,
    TYPE,
)

Z_MAX = 1e100
ALL_ROWS = -1
PLACES = {NULL: MISSING, ABSENT: MISSING, NOT_FINITE: RANGE, TOO_BIG: RANGE, WRONG_TYPE: TYPE}
"""By tag: the column that counts cells which are not a category."""


class Summed(NamedTuple):
    """A chunk that was summed, for those who count it by segment."""

    layout: Layout
    rows: Rows
    numeric: Cells
    """(features, n) cells of the numeric features, in the order of the rows."""
    category: Mapping[str, int]
    """Place of the column of each category feature that the rows have."""
    sums: Float
    """(width,) sums of all rows; what is 0 there is in no segment either."""


def standardised(layout: Layout, x: Cells) -> Float:
    """
    Distances from the mean of the baseline, in its standard deviations. Values are cut before
    squares could overflow, so one huge value cannot spoil a window.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        z: Float = (x - layout.mean[:, None]) / layout.sd[:, None]
    if (np.abs(z) > Z_MAX).any():
        z = np.clip(z, -Z_MAX, Z_MAX)
    return z


class Part(NamedTuple):
    """Chunks of one stream among those of a `ByChunk`."""

    segment: int
    """Number of the segment; `ALL_ROWS`: the whole stream."""
    cut: Cut
    first: int
    """Place of its first chunk."""
    at: Int | None = None
    """Its rows; None: all of them."""

    def last(self, chunk: int) -> int:
        """The row that ends a chunk."""
        row = int(np.searchsorted(self.cut.ids, chunk, side="right")) - 1
        return row if self.at is None else int(self.at[row])


class ByChunk(NamedTuple):
    """Where counts go beside the panes: to the chunks of the detectors."""

    parts: list[Part]
    ids: Int
    """(n,): the chunk of each row, in the order of panes."""
    sums: Float
    """(chunks, width): added to, but for the columns that no detector reads."""
    batch: Batch | None = None
    """Gets the column of each cell."""

    def each(self) -> Iterator[tuple[Part, Float]]:
        """The sums of the chunks of each stream."""
        for part in self.parts:
            yield part, self.sums[part.first : part.first + part.cut.chunks]


def add_numbers(
    layout: Layout,
    x: Cells,
    z: Float,
    fences: tuple[Float, Float],
    starts: Int,
    sums: Float,
    chunks: Sequence[ByChunk] = (),
) -> None:
    """
    Add moments, bins, values outside the fences, missing, wrong and out-of-range values.

    Parameters
    ----------
    layout : Layout
    x : (features, n) cells
        Of the numeric features, in the order of panes.
    z : (features, n) float64
        The same, standardised.
    fences : two of (features, 1) or (features, n) float64
    starts : (panes,) int64
        The first row of each pane.
    sums : (panes, width) float64
        Added to.
    chunks : sequence of ByChunk
    """
    n, at = x.shape[1], layout.at
    lengths = np.diff(np.append(starts, n))
    head = np.zeros((len(starts), len(at), OFFSET))
    finite = are_numbers(x)
    head[:, :, ROWS] = lengths[:, None]
    if finite.all():
        head[:, :, PRESENT] = lengths[:, None]
    else:
        tag = tags(x)
        head[:, :, MISSING] = _by_pane((tag == NULL) | (tag == ABSENT), starts)
        head[:, :, TYPE] = _by_pane((tag == TEXT) | (tag == BOOL) | (tag == WRONG_TYPE), starts)
        head[:, :, RANGE] = _by_pane((tag == NOT_FINITE) | (tag == TOO_BIG), starts)
        head[:, :, PRESENT] = _by_pane(finite, starts)
        z = np.where(finite, z, 0.0)
    if layout.bounded:
        head[:, :, RANGE] += _by_pane(
            (x < layout.minimum[:, None]) | (x > layout.maximum[:, None]), starts
        )
    head[:, :, SUM] = np.add.reduceat(z, starts, axis=1).T
    head[:, :, SQUARES] = np.add.reduceat(z * z, starts, axis=1).T
    head[:, :, BELOW] = _by_pane(x < fences[0], starts)
    head[:, :, ABOVE] = _by_pane(x > fences[1], starts)
    # One count for all features and panes: bins of later panes are moved by whole vectors.
    bins = layout.bins.bins_of(x)
    for of in chunks:
        if of.batch is not None:
            of.batch.numbers = bins
        places = (bins + of.ids * layout.width).ravel()
        of.sums[:] += np.bincount(places, minlength=of.sums.size).reshape(of.sums.shape)
    if len(starts) > 1:
        bins = bins + np.repeat(np.arange(len(starts)) * layout.width, lengths)
    places = bins.ravel()
    sums += np.bincount(places, minlength=sums.size).reshape(sums.shape)
    tails = np.bincount(places, z.ravel(), minlength=sums.size).reshape(sums.shape)[:, layout.tails]
    head[:, :, TAILS[0] : TAILS[-1] + 1] = tails.reshape(len(starts), len(at), len(TAILS))
    sums[:, layout.heads] = head.reshape(len(starts), -1)


def add_categories(
    layout: Layout,
    cells: Cells,
    where: Mapping[str, int],
    texts: list[str],
    starts: Int,
    sums: Float,
    chunks: Sequence[ByChunk] = (),
) -> None:
    """
    Add counts by category, missing and wrong values; parameters are those of `add_numbers`.

    `where` has the column of each feature in `cells`. All values of other features are missing.
    """
    lengths = np.diff(np.append(starts, cells.shape[1]))
    for name in layout.category:
        base, known = layout.start[name], layout.categories[name]
        sums[:, base + ROWS] = lengths
        if name not in where:
            sums[:, base + MISSING] = lengths
            for of in chunks:
                of.sums[:, base + MISSING] += np.bincount(of.ids, minlength=len(of.sums))
            continue
        distinct, inverse = np.unique(
            np.ascontiguousarray(cells[where[name]]).view(np.uint64), return_inverse=True
        )
        place, width = (
            slots(distinct.view(np.float64), known, texts)[inverse],
            OFFSET + len(known) + 1,
        )
        for of in chunks:
            if of.batch is not None:
                of.batch.levels[name] = place
            found = np.bincount(place + of.ids * width, minlength=len(of.sums) * width)
            of.sums[:, base : base + width] += found.reshape(-1, width)
        if len(starts) > 1:
            place = place + np.repeat(np.arange(len(starts)) * width, lengths)
        sums[:, base : base + width] += np.bincount(place, minlength=len(starts) * width).reshape(
            -1, width
        )
        sums[:, base + PRESENT] = sums[:, base + OFFSET : base + width].sum(axis=1)


def slots(distinct: Cells, known: Mapping[str, int], texts: list[str]) -> Int:
    """The column of each value among those of its feature."""
    rest = len(known)
    found = []
    for cell, tag, argument in zip(
        distinct.tolist(), tags(distinct).tolist(), arguments(distinct).tolist(), strict=True
    ):
        if tag in PLACES:
            found.append(PLACES[tag])
        else:
            category = (
                class_name(texts[argument])
                if tag == TEXT
                else "01"[argument]
                if tag == BOOL
                else repr(int(cell))
                if cell == int(cell)
                else repr(cell)
            )
            found.append(OFFSET + known.get(category, rest))
    return np.array(found, np.int64)


def _by_pane(mask: NDArray[np.bool_], starts: Int) -> Float:
    """Counts of a (features, n) mask by pane, (panes, features)."""
    if len(starts) == 1:  # nearly always
        return np.asarray(np.count_nonzero(mask, axis=1)[None], np.float64)
    return np.add.reduceat(mask.view(np.uint8), starts, axis=1, dtype=np.int64).T.astype(np.float64)
