"""
Rows of all experiments of a shard, until they are taken in together.

Rule of the file: a pass over ten rows costs as much as one over a thousand. So rows of a record
only wait here, whatever number of experiments wants them, and are sorted by model when they are
taken in. What an experiment gets does not depend on how often that is.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Int
from stream_monitor.events.cells import Cells, remap, text_indices
from stream_monitor.join.rows import Joined, Pairs, Predictions
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.version import Version

END = np.iinfo(np.int64).max
T = TypeVar("T", "Waiting", "Labelled")


class Part(Protocol):
    """Rows of predictions of one layout, in the order of `Record.predictions`."""

    @property
    def rows(self) -> Rows: ...
    @property
    def version(self) -> Int: ...
    @property
    def failed(self) -> Bool | None: ...


class Record(NamedTuple):
    """The rows of a record, after the join."""

    parts: Sequence[Part]
    predictions: Predictions
    joined: Joined
    now_ms: Int
    """Log time of each row."""
    versions: Sequence[Version]
    """Versions of the shard, by code."""
    texts: list[str]
    """Dictionary of outcomes."""


class Waiting(NamedTuple):
    """Calls of one layout that wait; `row` is their place in the log."""

    rows: Rows
    row: Int
    id: NDArray[np.uint64]
    version: Int
    now_ms: Int
    failed: Bool

    def at(self, index: Any) -> Waiting:
        """The calls at an index of numpy: a slice, a mask, or places."""
        return Waiting(self.rows.at(index), *(c[index] for c in self[1:]))


class Labelled(NamedTuple):
    """Calls that got a label, or another one, in the order of that."""

    pairs: Pairs
    now_ms: Int
    """Log time of that."""

    def at(self, index: Any) -> Labelled:
        """The calls at an index of numpy: a slice, a mask, or places."""
        return Labelled(self.pairs.at(index), self.now_ms[index])


class OfModel(NamedTuple):
    """What waits for one model: calls by layout, and labels; no part has a call twice."""

    calls: list[Waiting]
    labels: list[Labelled]


def stretches(events: list[tuple[int, str]]) -> Iterator[tuple[int, int, str | None]]:
    """
    Rows between events: (first, end, the event at `end`).

    >>> list(stretches([(3, "{}")])) == [(0, 3, "{}"), (3, END, None)]
    True
    """
    start = 0
    for row, event in events:
        yield start, row, event
        start = row
    yield start, END, None


class Inbox:
    """
    Rows that wait; it is empty at every look, event and snapshot.

    Parameters
    ----------
    models : sequence of str
        Rows of these models are kept.
    columns : container of str, optional
        Columns that are kept; all if it is None.

    Notes
    -----
    A record costs about 50 µs and 0.05 µs a row.
    """

    def __init__(self, models: Sequence[str] = (), columns: Container[str] | None = ()) -> None:
        self.models, self.columns = models, columns
        self.rows = 0
        """Calls and labels that wait."""
        self.versions: Sequence[Version] = ()
        self.texts: list[str] = []
        """Dictionary of labels."""
        self._names: dict[str, int] = {}
        """Dictionary of the calls, for all records that wait."""
        self._calls: dict[tuple[str, ...], list[Waiting]] = {}
        self._labels: list[Labelled] = []
        self._place = 0
        self._numbers = np.full(1, -1)

    def take(self, record: Record, start: int = 0, end: int = END) -> None:
        """Rows of a record with start <= place < end wait."""
        self.versions, self.texts = record.versions, record.texts
        if len(self._numbers) != len(record.versions) + 1:
            numbers = {model: i for i, model in enumerate(self.models)}
            # rows of no version have the code -1, and so the last number
            self._numbers = np.array([numbers.get(v.model, -1) for v in record.versions] + [-1])
        at = 0
        for part in record.parts:
            here = slice(at, at := at + len(part.version))
            row = record.predictions.row[here]
            wanted = self._wanted(row, part.version, start, end)
            self._wait(record, part, here, wanted & ~record.joined.duplicate[here])
        for pairs in record.joined.pairs:
            index = np.flatnonzero(self._wanted(pairs.row, pairs.version, start, end))
            if len(index):
                found = pairs.at(index[np.argsort(pairs.row[index], kind="stable")])
                # no outcome asks for probabilities
                found = found._replace(probabilities=np.empty((len(index), 0)))
                self._labels.append(Labelled(found, record.now_ms[found.row]))
                self.rows += len(index)
        self._place += len(record.now_ms)

    def _wanted(self, row: Int, version: Int, start: int, end: int) -> Bool:
        found: Bool = self._numbers[version] >= 0
        if start or end < END:
            found &= (row >= start) & (row < end)
        return found

    def _wait(self, record: Record, part: Part, here: slice, wanted: Bool) -> None:
        index: Any = slice(None) if wanted.all() else np.flatnonzero(wanted)
        row = record.predictions.row[here][index]
        if not len(row):
            return
        columns = part.rows.columns
        if self.columns is not None:
            columns = tuple(c for c in columns if c in self.columns)
        cells = part.rows.cells[[part.rows.columns.index(c) for c in columns]][:, index]
        failed = np.zeros(len(part.version), bool) if part.failed is None else part.failed
        waiting = Waiting(
            rows=Rows(
                columns, self._renamed(cells, part.rows.texts), part.rows.times_ms[index], []
            ),
            row=row + self._place,
            id=record.predictions.id[here][index],
            version=part.version[index],
            now_ms=record.now_ms[row],
            failed=failed[index],
        )
        self._calls.setdefault(columns, []).append(waiting)
        self.rows += len(row)

    def _renamed(self, cells: Cells, texts: list[str]) -> Cells:
        """Cells with the dictionary of this inbox instead of that of their record."""
        used = text_indices(cells) if texts else np.empty(0, np.int64)
        if not len(used):
            return cells
        table = np.zeros(len(texts), np.int64)
        for i in used.tolist():
            table[i] = self._names.setdefault(texts[i], len(self._names))
        return remap(cells, table)

    def drained(self) -> dict[str, OfModel]:
        """What waited, by model; nothing waits afterwards."""
        found = {model: OfModel([], []) for model in self.models} if self.rows else {}
        texts = list(self._names)
        for parts in self._calls.values():
            together = _joined(parts, texts)
            for number, calls in _by_number(self._numbers[together.version], together):
                found[self.models[number]].calls.append(calls)
        for number, labels in self._labelled():
            found[self.models[number]].labels.append(labels)
        self._names, self._calls, self._labels = {}, {}, []
        self.rows = self._place = 0
        return found

    def _labelled(self) -> Iterator[tuple[int, Labelled]]:
        """Labels by the number of their model: all at once, if none of them corrects another."""
        if not self._labels:
            return
        parts, times = zip(*self._labels, strict=True)
        pairs = Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        together = Labelled(pairs, np.concatenate(times))
        for number, labels in _by_number(self._numbers[pairs.version], together):
            if len(np.unique(labels.pairs.id)) == len(labels.now_ms):
                yield number, labels
                continue
            for part in self._labels:
                of_model = np.flatnonzero(self._numbers[part.pairs.version] == number)
                if len(of_model):
                    yield number, part.at(of_model)


def _joined(parts: list[Waiting], texts: list[str]) -> Waiting:
    """Calls of one layout and dictionary, one after the other."""
    rows = Rows(
        parts[0].rows.columns,
        np.concatenate([p.rows.cells for p in parts], axis=1),
        np.concatenate([p.rows.times_ms for p in parts]),
        texts,
    )
    columns = (np.concatenate(column) for column in zip(*(p[1:] for p in parts), strict=True))
    return Waiting(rows, *columns)


def _by_number(numbers: Int, rows: T) -> Iterator[tuple[int, T]]:
    """Rows by the number of their model, in their order."""
    if (numbers == numbers[0]).all():
        yield int(numbers[0]), rows
        return
    order = np.argsort(numbers, kind="stable")
    ordered: Int = numbers[order]
    rows = rows.at(order)
    ends: list[int] = [*(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(ordered)]
    for start, end in pairwise([0, *ends]):
        yield int(ordered[start]), rows.at(slice(start, end))
