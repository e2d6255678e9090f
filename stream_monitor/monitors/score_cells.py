"""
Cells of answers: the class that was answered and the bin of its score, of predictions and of
labelled rows alike.

Rule of the file: a served row and the same row with its label are in one cell. Classes are kept by
name, in places of their own; if there are more than `PLACES_MAX`, all have one place together, so
the order in which they came does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import Cells, class_name, class_text
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import OTHER
from stream_monitor.stats.binning import BinTable
from stream_monitor.stats.class_sums import BY_SCORE

_LOW = (0.001, 0.002, 0.005, 0.01, 0.02, *(k / 20 for k in range(1, 10)))
EDGES: Float = np.array([*_LOW, 0.5, *(round(1 - e, 3) for e in reversed(_LOW))])
"""Bins of a score; they are finer at both ends, and 0.5 begins one."""
BINS = len(EDGES) + 1
TABLE = BinTable([np.append(EDGES, np.inf)], np.zeros(1, np.int64))
HALF = BINS // 2
"""The first bin of scores of at least 0.5."""
PLACES_MAX = 8
SMALL = 256
"""Whole numbers below it are looked up as classes without sorting."""
NO_SCORE, SCORED = 0, 1
"""Columns of served rows: those without a score, and where the cells of the others begin."""


class Places(msgspec.Struct):
    """Names of classes, in places; the first is that of all which have none of their own."""

    names: list[str] = msgspec.field(default_factory=lambda: [OTHER])
    merged: bool = False

    def add(self, names: Iterable[str]) -> bool:
        """
        Give new names places; whether all places became one.

        >>> places = Places()
        >>> places.add(["1", "0", "1"]), places.names
        (False, ['__other__', '1', '0'])
        >>> places.add("abcdefghi"), places.names
        (True, ['__other__'])
        """
        if self.merged:
            return False
        self.names += [n for n in dict.fromkeys(names) if n not in self.names]
        if len(self.names) > PLACES_MAX + 1:
            self.names, self.merged = [OTHER], True
        return self.merged

    def of(self, name: str) -> int:
        """The place of a class; that of all others if it has none."""
        return self.names.index(name) if name in self.names else 0


def bins_of(scores: Float) -> Int:
    """
    Bins of scores.

    >>> bins_of(np.array([0.0, 0.4999, 0.5, 0.95, 1.0])).tolist()
    [0, 14, 15, 24, 29]
    """
    found: Int = TABLE.bins_of(scores[None])[0]
    return np.minimum(found, BINS - 1, out=found)  # NaN has none, and is left out


class Answers:
    """
    The answers of served rows: a class by number, and its score.

    Parameters
    ----------
    rows : Rows
    order : mapping of str to int
        Classes that have scores, in the order in which the join has them.

    Attributes
    ----------
    names : list of str
    name : (n,) int64
        Place in `names`, -1 if the score is the answer.
    score : (n,) float64
        NaN if the answer has no score.
    """

    def __init__(self, rows: Rows, order: Mapping[str, int]) -> None:
        columns = {name: i for i, name in enumerate(rows.columns)}
        n = len(rows.times_ms)
        of_class = {
            class_name(name[6:]): rows.cells[i]
            for name, i in columns.items()
            if name.startswith("score.")
        }
        scores = {n: of_class[n] for n in sorted(of_class, key=lambda n: order.get(n, SMALL))}
        self.score: Float = rows.cells[columns["score"]] if "score" in columns else _none(n)
        self.names: list[str] = []
        self.name = np.full(n, -1)
        if "prediction" in columns:
            self.names, self.name = _classes(rows.cells[columns["prediction"]], rows.texts)
        if scores:
            self._by_class(scores)

    def _by_class(self, scores: Mapping[str, Cells]) -> None:
        """The greatest class score is an answer where there is none; an answer has its own."""
        table = np.stack(list(scores.values()))
        known = are_numbers(table)
        best = np.where(known, table, -1.0).argmax(axis=0)
        without = (self.name < 0) & known.any(axis=0)
        self.names += [name for name in scores if name not in self.names]
        column = np.array([list(scores).index(n) if n in scores else -1 for n in self.names])
        place = np.array([self.names.index(name) for name in scores])
        self.name = np.where(without, place[best], self.name)
        at = np.where(self.name >= 0, column[self.name], -1)
        own = np.where(at >= 0, table[at, np.arange(table.shape[1])], np.nan)
        self.score = np.where(are_numbers(own), own, self.score)

    def cells(self, places: Places) -> Int:
        """Column of each row among the sums of served rows; new classes have places already."""
        to = np.array([*(places.of(name) for name in self.names), -1])
        found = SCORED + (to[self.name] + 1) * BINS + bins_of(self.score)
        known = are_numbers(self.score)
        return found if known.all() else np.where(known, found, NO_SCORE)


def _none(n: int) -> Float:
    return np.full(n, np.nan)


def _classes(cells: Cells, texts: list[str]) -> tuple[list[str], Int]:
    """Names of the classes of cells, and the place of each cell's among them; -1: it has none."""
    small = are_numbers(cells).all() and cells.min() >= 0 and cells.max() < SMALL
    codes = cells.astype(np.int64) if small else np.full(1, -1)
    if small and (codes == cells).all():  # nearly always
        there = np.flatnonzero(np.bincount(codes))
        place = np.zeros(SMALL, np.int64)
        place[there] = np.arange(len(there))
        return [str(code) for code in there.tolist()], place[codes]
    distinct, inverse = np.unique(cells.view(np.uint64), return_inverse=True)
    found = [class_text(cell, texts) for cell in distinct.view(np.float64).tolist()]
    names = list(dict.fromkeys(name for name in found if name is not None))
    return names, np.array([-1 if n is None else names.index(n) for n in found])[inverse]


def labelled_scores(
    rows: Judged, classes: Mapping[str, int], score_classes: Mapping[str, int]
) -> Float:
    """
    Score of the answer of each labelled row, NaN if there is none: that of its class, otherwise
    the plain one.
    """
    if not rows.probabilities.shape[1] or not len(rows.time):
        return rows.score
    codes = rows.predicted.astype(np.int64)
    column = np.full(max(len(classes), 1), -1)
    for name, place in score_classes.items():
        if name in classes and place < rows.probabilities.shape[1]:
            column[classes[name]] = place
    at = np.where(codes >= 0, column[np.maximum(codes, 0)], -1)
    own = np.where(at >= 0, rows.probabilities[np.arange(len(at)), at], np.nan)
    return np.where(are_numbers(own), own, rows.score)


def codes_of(rows: Judged, actual: Float) -> tuple[Int, Int]:
    """
    Code of the class that each labelled row counts for, -1 if it counts for none, and which of its
    three sums: wrong, right, or, of rows whose score is the answer, labels.
    """
    answer = rows.predicted.astype(np.int64)
    right = (rows.predicted == actual).astype(np.int64)
    plain = answer == BY_SCORE
    if not plain.any():  # nearly always
        return answer, right
    return np.where(plain, actual.astype(np.int64), answer), np.where(plain, 2, right)


def place_table(names: list[str], places: Places) -> Int:
    """The place of each code of a class, -1 if it has none yet, and of the code -1."""
    known = places.names
    found = [0 if places.merged else known.index(n) if n in known else -1 for n in names]
    return np.array([*found, 0])
