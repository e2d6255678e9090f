"""
Slices of the traffic of a model: the slices of each prediction, and what is counted in each:
traffic, broken fields, score and prediction, errors, and how well the model does.

Rule of the file: a slice is `name=value`, from a name under `segments` of the event or from a
feature, which is cut into ranges if it is a number. Through the join a row carries one small
number, the code of its combination of slices. Values beyond `limits.segments` are `__other__`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.cells import Cells
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.performance_windows import PerformanceWindows, WindowsState
from stream_monitor.monitors.rows import Rows, category_of
from stream_monitor.monitors.segment_blocks import Members
from stream_monitor.monitors.segment_errors import SegmentErrors
from stream_monitor.monitors.segment_outputs import SegmentOutputs
from stream_monitor.monitors.segment_quality import SegmentQuality
from stream_monitor.monitors.segment_traffic import Traffic
from stream_monitor.monitors.sums import Summed
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
    traffic: Traffic
    quality: SegmentQuality
    outputs: SegmentOutputs
    errors: SegmentErrors


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
    when its first label comes. Panes of traffic have about 60 bytes; blocks of its fields and
    outputs have 7 numbers a column.
    """

    def __init__(
        self,
        defined: tuple[Segment, ...],
        limit: int,
        windows: Callable[[], PerformanceWindows],
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
        self._members: Int = np.array(self.members, np.int64)
        self._names: list[str] = []
        self._groups: tuple[Int, ...] = ()
        self._grouped = -1
        self.windows: dict[int, PerformanceWindows] = {}
        self.traffic, self.quality = Traffic(), SegmentQuality()
        self.outputs, self.errors = SegmentOutputs(), SegmentErrors()
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

    def _of(self, codes: Int, n: int) -> Int:
        """(n, definitions): numbers of the slices of rows by code; rows without codes have none."""
        if len(self._members) != len(self.members):
            self._members = np.array(self.members, np.int64)
        if not len(codes):
            return np.full((n, len(self.defined)), NONE, np.int64)
        found: Int = self._members[codes]
        return found

    def members_of(self, codes: Int, n: int) -> Members:
        """The slices of rows by code, with the slices that share a name."""
        if self._grouped != len(self.ids):
            self._grouped, groups = len(self.ids), self.groups()
            self._groups = tuple(groups[d.name] for d in self.defined)
        return Members(self._of(codes, n), self._groups, len(self.ids))

    def count(self, rows: Rows) -> None:
        """Count predictions that were served."""
        self.traffic.add(rows, self._of(rows.segment, len(rows.times_ms)))

    def count_fields(self, chunk: Summed) -> None:
        """Count missing and broken values of features."""
        rows = chunk.rows
        self.quality.add(chunk, self.members_of(rows.segment, len(rows.times_ms)))

    def count_outputs(self, chunk: Summed) -> None:
        """Count score and prediction on the bins of their baseline."""
        members = self.members_of(chunk.rows.segment, len(chunk.rows.times_ms))
        self.outputs.add(chunk, members)

    def add(self, rows: Judged, errors: Float, kind: str) -> None:
        """
        Add labelled rows to the windows of their slices, and the errors of first labels (NaN: none)
        to their blocks.
        """
        known = self.members_of(rows.segment, len(rows.time))
        members = known.members
        self.errors.add(errors, known, kind)
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
        for number in told:
            yield self.name_of(number), self.windows[number]

    def look_again(self) -> None:
        """All slices are to be judged: by other rules."""
        self._told = set(self.windows)

    def name_of(self, number: int) -> str:
        """The name of a slice by its number: `name=value`."""
        if len(self._names) != len(self.ids):
            self._names = ["=".join(key) for key in self.ids]
        return self._names[number]

    def groups(self) -> dict[str, Int]:
        """By name of a definition: numbers of its slices."""
        found: dict[str, list[int]] = {d.name: [] for d in self.defined}
        for (name, _), number in self.ids.items():
            found[name].append(number)
        return {name: np.array(numbers, np.int64) for name, numbers in found.items()}

    def __iter__(self) -> Iterator[tuple[str, PerformanceWindows]]:
        return ((self.name_of(number), windows) for number, windows in sorted(self.windows.items()))

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
            traffic=self.traffic,
            quality=self.quality,
            outputs=self.outputs,
            errors=self.errors,
        )

    def go_on_without(self, given: int) -> None:
        """So many codes were given while there were no slices: each stands for no slice."""
        self.members = [(NONE,) * len(self.defined)] * given
        self._members = np.empty(0, np.int64)

    def load(
        self, form: SegmentsForm, restored: Restored, changes: Changes, *, windows: bool, rows: bool
    ) -> dict[int, int]:
        """
        Go on from a snapshot; the numbers of slices that go on, by those in the snapshot.

        Slices with another definition begin again. Codes keep their place, because rows that wait
        for labels have them; each code means what is left of its combination.

        Parameters
        ----------
        form : SegmentsForm
        restored : callable
            Makes windows from their state.
        changes : Changes
        windows : bool
            Whether windows and errors of labelled rows go on.
        rows : bool
            Whether what is counted of predictions goes on. The meaning of codes always does.
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
        self._members = np.empty(0, np.int64)
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
        same = len(own) == len(form.ids) == len(names) and all(o == n for o, n in own.items())
        if windows:
            self.errors = form.errors if same else form.errors.moved(own, len(names))
        if rows:
            self.traffic = form.traffic.moved(own)
            self.quality = form.quality if same else form.quality.moved(own, len(names))
            self.outputs = form.outputs if same else form.outputs.moved(own, len(names))
        for name in before:
            if keys := changes.keys("segment", name):
                changes.begins_anew(f"segment {name}", keys)
        for name in sorted({form.ids[old][0] for old in number.keys() - own.keys()}):
            changes.begins_anew(
                f"values of segment {name} beyond the first {self.limit}", ["limits.segments"]
            )
        return own
