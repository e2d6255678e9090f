"""
Slices of the traffic of a model: the slices of each prediction, and how well the model does in
each.

Rule of the file: a slice is `name=value`, from a name under `segments` of the event or from a
feature, which is cut into ranges if it is a number. Through the join a row carries one small
number, the code of its combination of slices. Values beyond `limits.segments` are `__other__`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Int
from stream_monitor.events.cells import Cells
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.performance_windows import PerformanceWindows, WindowsState
from stream_monitor.monitors.rows import category_of
from stream_monitor.settings import OTHER, Segment

Restored = Callable[[WindowsState], PerformanceWindows]
COMBINATIONS_MAX = 10_000
"""Further combinations of slices are in none."""
CODE_MAX = 65_535
"""The join keeps a code in two bytes."""
NONE = -1


def range_name(cut: tuple[float, ...], i: int) -> str:
    """
    The i-th range between cut points, as an interval that holds its lower end.

    >>> [range_name((18.0, 65.0), i) for i in range(3)]
    ['<18', '[18,65)', '>=65']
    """
    if i == 0:
        return f"<{cut[0]:g}"
    return f">={cut[-1]:g}" if i == len(cut) else f"[{cut[i - 1]:g},{cut[i]:g})"


class SegmentsForm(msgspec.Struct):
    """Slices in a snapshot."""

    names: list[str]
    """Of the definitions, in the order that a combination has."""
    ids: list[tuple[str, str]]
    """Name and value of each slice, by its number."""
    members: list[tuple[int, ...]]
    windows: dict[int, WindowsState]
    told: list[int]
    overflowed: int


class Segments:
    """
    The slices of one model version.

    Parameters
    ----------
    defined : tuple of Segment
    limit : int
        Greatest number of values of a name; further ones are `__other__`.
    windows : callable
        Makes the windows of one slice.

    Notes
    -----
    A slice needs the rows of its greatest `last_N`, and panes of about 300 bytes; both are made
    when its first label comes.
    """

    def __init__(
        self, defined: tuple[Segment, ...], limit: int, windows: Callable[[], PerformanceWindows]
    ) -> None:
        self.defined, self.limit, self._windows = defined, limit, windows
        self.ids: dict[tuple[str, str], int] = {}
        """Numbers of slices, by name and value."""
        self.members: list[tuple[int, ...]] = [(NONE,) * len(defined)]
        """
        By code: the slices of a combination; of a code of an earlier configuration what is left of
        them.
        """
        self.combinations: dict[tuple[int, ...], int] = {self.members[0]: 0}
        self.windows: dict[int, PerformanceWindows] = {}
        self.overflowed = 0
        self._told: set[int] = set()
        self._used = [0] * len(defined)

    # ---- rows in

    def codes(self, columns: tuple[str, ...], cells: Cells, texts: list[str]) -> Int:
        """
        The combination of slices of each row.

        Parameters
        ----------
        columns : tuple of str, cells : (columns, n)
        texts : list of str
            Dictionary of the cells.

        Returns
        -------
        (n,) int64
        """
        ids = np.stack(
            [self._values(d, columns, cells, texts) for d in range(len(self.defined))], axis=1
        )
        distinct, inverse = np.unique(ids, axis=0, return_inverse=True)
        table = np.array([self._combination(tuple(c)) for c in distinct.tolist()], np.int64)
        found: Int = table[inverse.ravel()]
        return found

    def _combination(self, ids: tuple[int, ...]) -> int:
        code = self.combinations.get(ids)
        if code is None:
            if len(self.combinations) >= COMBINATIONS_MAX or len(self.members) > CODE_MAX:
                self.overflowed += 1
                return 0
            code = self.combinations[ids] = len(self.members)
            self.members.append(ids)
        return code

    def _values(self, d: int, columns: tuple[str, ...], cells: Cells, texts: list[str]) -> Int:
        """Number of the slice of each row under one definition; NONE if it has no value."""
        name, cut = self.defined[d].name, self.defined[d].cut
        column = next(
            (columns.index(c) for c in (f"segments.{name}", f"features.{name}") if c in columns),
            None,
        )
        if column is None:
            return np.full(cells.shape[1], NONE, np.int64)
        distinct, inverse = np.unique(
            np.ascontiguousarray(cells[column]).view(np.uint64), return_inverse=True
        )
        values = distinct.view(np.float64)
        if cut:
            ranges = np.searchsorted(cut, values, side="right")
            found = [
                self._id(d, range_name(cut, int(i))) if not math.isnan(v) else NONE
                for v, i in zip(values.tolist(), ranges, strict=True)
            ]
        else:
            found = [
                NONE if (text := category_of(v, texts)) is None else self._id(d, text)
                for v in values.tolist()
            ]
        return np.array(found, np.int64)[inverse]

    def _id(self, d: int, value: str) -> int:
        key = self.defined[d].name, value
        number = self.ids.get(key)
        if number is None:
            if self._used[d] >= self.limit and value != OTHER:
                self.overflowed += 1
                return self._id(d, OTHER)
            self._used[d] += value != OTHER
            number = self.ids[key] = len(self.ids)
        return number

    def add(self, rows: Judged) -> None:
        """Add labelled rows to the windows of their slices."""
        members = np.array(self.members, np.int64)[rows.segment]
        for d in range(len(self.defined)):
            for number in np.unique(members[:, d]).tolist():
                if number != NONE:
                    windows = self.windows.get(number)
                    if windows is None:
                        windows = self.windows[number] = self._windows()
                    windows.add(rows.at(members[:, d] == number))
                    self._told.add(number)

    # ---- what is told

    def changed(self) -> Iterator[tuple[str, PerformanceWindows]]:
        """Slices with new labels since the last call."""
        told, self._told = sorted(self._told), set()
        names = list(self.ids)
        for number in told:
            yield "=".join(names[number]), self.windows[number]

    def look_again(self) -> None:
        """All slices are to be judged: by other rules."""
        self._told = set(self.windows)

    def __iter__(self) -> Iterator[tuple[str, PerformanceWindows]]:
        names = list(self.ids)
        return (
            ("=".join(names[number]), windows) for number, windows in sorted(self.windows.items())
        )

    # ---- snapshot

    def form(self) -> SegmentsForm:
        """The slices in a snapshot."""
        return SegmentsForm(
            names=[d.name for d in self.defined],
            ids=list(self.ids),
            members=self.members,
            windows={number: w.state for number, w in self.windows.items()},
            told=sorted(self._told),
            overflowed=self.overflowed,
        )

    def go_on_without(self, given: int) -> None:
        """So many codes were given while there were no slices: each stands for no slice."""
        self.members = [(NONE,) * len(self.defined)] * given

    def load(
        self, form: SegmentsForm, restored: Restored, changes: Changes, *, windows: bool
    ) -> None:
        """
        Go on from a snapshot.

        Slices with another definition begin again. Codes keep their place, because rows that wait
        for labels have them; each code means what is left of its combination.

        Parameters
        ----------
        form : SegmentsForm
        restored : callable
            Makes windows from their state.
        changes : Changes
        windows : bool
            Whether the windows go on; otherwise only the meaning of codes does.
        """
        before = {name: k for k, name in enumerate(form.names)}
        goes_on = {
            d.name: k
            for k, d in enumerate(self.defined)
            if d.name in before and not changes.keys("segment", d.name)
        }
        number: dict[int, int] = {}
        for old, (name, value) in enumerate(form.ids):
            if name in goes_on:
                number[old] = self._id(goes_on[name], value)
        at = [before[d.name] if d.name in goes_on else NONE for d in self.defined]
        self.members = [
            tuple(NONE if k == NONE else number.get(c[k], NONE) for k in at) for c in form.members
        ]
        self.combinations = {}
        for code, member in enumerate(self.members):
            self.combinations.setdefault(member, code)
        self.overflowed = form.overflowed
        names = list(self.ids)
        own = {old: new for old, new in number.items() if names[new] == form.ids[old]}
        if windows:
            self.windows = {own[old]: restored(w) for old, w in form.windows.items() if old in own}
            self._told = {own[old] for old in form.told if old in own}
        for name in before:
            if keys := changes.keys("segment", name):
                changes.begins_anew(f"segment {name}", keys)
        for name in sorted({form.ids[old][0] for old in number.keys() - own.keys()}):
            changes.begins_anew(
                f"values of segment {name} beyond the first {self.limit}", ["limits.segments"]
            )
