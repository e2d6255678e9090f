"""
Rows of one model version on their way into its monitors.

Rule of the file: cells as they came, with the dictionary of their texts. Nothing is judged here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.cells import (
    ABSENT_CELL,
    BOOL,
    INTEGER_MAX,
    TEXT,
    Cells,
    arguments,
    class_text,
    tags,
)
from stream_monitor.events.origins import NO_ORIGINS

NO_SEGMENTS: Int = np.empty(0, np.int64)


class Rows(NamedTuple):
    """
    Rows of one model version: cells (columns, n) as they came, and the dictionary of their texts.

    `origin` says where each row came from (`origins.py`), and is empty if that is not known.
    `segment` (codes of combinations of segments) is empty unless the model has segments.
    """

    columns: tuple[str, ...]
    cells: Cells
    times_ms: Int
    texts: list[str]
    origin: Int = NO_ORIGINS
    segment: Int = NO_SEGMENTS

    def at(self, index: Any) -> Rows:
        """The rows at an index of numpy: a slice, a mask, or places."""
        return Rows(
            self.columns,
            self.cells[:, index],
            self.times_ms[index],
            self.texts,
            self.origin[index] if len(self.origin) else self.origin,
            self.segment[index] if len(self.segment) else self.segment,
        )


class Points(NamedTuple):
    """Values of one feature outside the fences, of one chunk."""

    feature: str
    values: Float
    fences: tuple[Float, Float]
    iqr: Float
    """0 if both quartiles are one value; the fences are then the least and the greatest value."""
    times_ms: Int
    origin: Int


def category_of(cell: float, texts: list[str]) -> str | None:
    """The category of a cell; None if it is missing or not a category."""
    if not math.isnan(cell):
        return repr(int(cell)) if cell == int(cell) else repr(float(cell))
    one = np.array([cell])
    tag, argument = int(tags(one)[0]), int(arguments(one)[0])
    if tag == TEXT:
        return texts[argument]
    return ("false", "true")[argument] if tag == BOOL else None


def columns_at(cells: Cells, places: Int) -> Cells:
    """The columns at these places of (columns, n) cells; -1 is a column of absent cells."""
    if len(places) and places[0] >= 0 and (np.diff(places) == 1).all():
        return cells[places[0] : places[0] + len(places)]  # nearly always: no copy
    out = cells[np.maximum(places, 0)] if len(cells) else np.empty((len(places), cells.shape[1]))
    out[places < 0] = ABSENT_CELL
    return out


def with_numbers(rows: Rows, column: str) -> Rows:
    """
    The rows, with classes of a column that are written as text or as switches as the numbers that
    they are (`class_name`).

    >>> from stream_monitor.events.cells import TRUE_CELL, boxed
    >>> cells = np.array([[0.0, TRUE_CELL, boxed(TEXT, 0), boxed(TEXT, 1)]])
    >>> with_numbers(
    ...     Rows(("prediction",), cells, np.arange(4), ["1.0", "01"]), "prediction"
    ... ).cells.tolist()
    [[0.0, 1.0, 1.0, nan]]
    """
    at = rows.columns.index(column) if column in rows.columns else -1
    if at < 0 or not np.isin(tag := tags(rows.cells[at]), (TEXT, BOOL)).any():
        return rows
    named = np.flatnonzero((tag == TEXT) | (tag == BOOL))
    values, place = np.unique(rows.cells[at][named].view(np.uint64), return_inverse=True)
    cells = rows.cells.copy()
    cells[at, named] = np.array([_number(v, rows.texts) for v in values.view(np.float64).tolist()])[
        place
    ]
    return rows._replace(cells=cells)


def _number(cell: float, texts: list[str]) -> float:
    """The number that a class is named by; the cell itself if there is none."""
    name = class_text(cell, texts) or ""
    try:
        number = float(name)
    except ValueError:
        return cell
    return number if abs(number) <= INTEGER_MAX and class_text(number, []) == name else cell


def column_named(rows: Rows, names: Callable[[str], str | None], name: str) -> Cells:
    """The column of a feature; absent cells if the rows do not have it."""
    for i, column in enumerate(rows.columns):
        if names(column) == name:
            found: Cells = rows.cells[i]
            return found
    return np.full(len(rows.times_ms), ABSENT_CELL)


def merged(rows: list[Rows]) -> Iterator[Rows]:
    """
    Neighbours with the same columns and no texts, joined, so that they are reduced as one chunk.
    """
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and _alike(rows[start], rows[end]):
            continue
        run = rows[start:end]
        yield run[0] if len(run) == 1 else _concatenated(run)
        start = end


def _alike(first: Rows, other: Rows) -> bool:
    """
    Whether rows can be joined. After a restart those that wait may have no segments while later
    ones have.
    """
    return (
        first.columns == other.columns
        and not first.texts
        and not other.texts
        and bool(len(first.segment)) == bool(len(other.segment))
    )


def _concatenated(run: list[Rows]) -> Rows:
    """Rows with the same columns and no texts as one."""
    cells, times = (
        np.concatenate([r.cells for r in run], axis=1),
        np.concatenate([r.times_ms for r in run]),
    )
    origin = np.concatenate([r.origin for r in run])
    segment = np.concatenate([r.segment for r in run])
    return Rows(run[0].columns, cells, times, [], origin, segment)
