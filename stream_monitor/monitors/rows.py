"""
Rows of one model version on their way into its monitors.

Rule of the file: cells as they came, with the dictionary of their texts; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import ABSENT_CELL, BOOL, TEXT, Cells, arguments, tags

Float = NDArray[np.float64]
Int = NDArray[np.int64]
ORIGIN = np.dtype([("source", "<u2"), ("offset", "<i8")])
"""Where a row came from: a number of the shard for the source partition, and the offset there."""
NO_ORIGIN = np.empty(0, ORIGIN)


class Rows(NamedTuple):
    """Rows of one model version: cells (columns, n) as they came, and the dictionary of their texts. `origin` is there only where somebody asks for it."""

    columns: tuple[str, ...]
    cells: Cells
    times_ms: Int
    texts: list[str]
    origin: NDArray[np.void] = NO_ORIGIN

    def part(self, at: Any) -> Rows:
        """Some of the rows."""
        return Rows(self.columns, self.cells[:, at], self.times_ms[at], self.texts, self.origin[at] if len(self.origin) else self.origin)


class Points(NamedTuple):
    """Values of one feature outside the fences, of one chunk."""

    feature: str
    values: Float
    quartiles: tuple[Float, Float]
    times_ms: Int
    origin: NDArray[np.void]


def category_of(cell: float, texts: list[str]) -> str | None:
    """The category a cell stands for; None when it is missing or no category at all."""
    if cell == cell:  # noqa: PLR0124
        return repr(int(cell)) if cell == int(cell) else repr(float(cell))
    one = np.array([cell])
    tag, argument = int(tags(one)[0]), int(arguments(one)[0])
    if tag == TEXT:
        return texts[argument]
    return ("false", "true")[argument] if tag == BOOL else None


def packed_rows(rows: Rows) -> tuple[Any, ...]:
    """Rows as bytes."""
    return rows.columns, rows.cells.tobytes(), rows.times_ms.tobytes(), rows.texts, rows.origin.tobytes()


def unpacked_rows(state: Any) -> Rows:
    """The rows of `packed_rows`."""
    columns, cells, times, texts, origin = state
    when = np.frombuffer(times, np.int64)
    return Rows(tuple(columns), np.frombuffer(cells, np.float64).reshape(len(columns), len(when)), when, list(texts), np.frombuffer(origin, ORIGIN))


def taken(cells: Cells, take: Int) -> Cells:
    """Rows of cells in the order wanted; -1 is a row of absent cells."""
    if len(take) and take[0] >= 0 and (np.diff(take) == 1).all():
        return cells[take[0] : take[0] + len(take)]
    out = cells[np.maximum(take, 0)] if len(cells) else np.empty((len(take), cells.shape[1]))
    out[take < 0] = ABSENT_CELL
    return out


def column_named(rows: Rows, names: Callable[[str], str | None], name: str) -> Cells:
    """The column of a feature, absent cells where the rows do not have it."""
    for i, column in enumerate(rows.columns):
        if names(column) == name:
            found: Cells = rows.cells[i]
            return found
    return np.full(len(rows.times_ms), ABSENT_CELL)


def concatenated(run: list[Rows]) -> Rows:
    """Rows with the same columns and no texts as one."""
    cells, times = np.concatenate([r.cells for r in run], axis=1), np.concatenate([r.times_ms for r in run])
    return Rows(run[0].columns, cells, times, [], np.concatenate([r.origin for r in run]))
