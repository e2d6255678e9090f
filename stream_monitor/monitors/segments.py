"""
Slices of a model's traffic: which of them a prediction belongs to, and how well the model does in each.

Rule of the file: a slice is `name=value`, of a name under `segments` of the event or of a feature, cut into ranges where it is a number. A row carries one small number,
the code of its combination of slices, through the join. Beyond `limits.segments` values are `__other__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import Cells
from stream_monitor.monitors.performance_windows import Judged, PerformanceWindows
from stream_monitor.monitors.rows import category_of
from stream_monitor.settings import Segment

Int = NDArray[np.int64]
COMBINATIONS_MAX = 10_000
"""Further combinations of slices are in none."""
CODE_MAX = 65_535
"""The join keeps a code in two bytes."""
OTHER = "__other__"
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


class Segments:
    """
    The slices of one model version.

    Parameters
    ----------
    defined : tuple of Segment
    limit : int
        Values of a slice that are told apart.
    windows : callable
        Makes the windows of one slice.

    Notes
    -----
    A slice takes the rows of its greatest `last_N` and its panes (about 300 bytes each); they are made when its first label comes.
    """

    def __init__(self, defined: tuple[Segment, ...], limit: int, windows: Callable[[], PerformanceWindows]) -> None:
        self.defined, self.limit, self._windows = defined, limit, windows
        self.ids: dict[str, int] = {}
        self.combinations: dict[tuple[int, ...], int] = {(NONE,) * len(defined): 0}
        self.windows: dict[int, PerformanceWindows] = {}
        self.overflowed = 0
        self._base = 0
        """Codes below it were given under other definitions, and are in no slice."""
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
        ids = np.stack([self._values(d, columns, cells, texts) for d in range(len(self.defined))], axis=1)
        distinct, inverse = np.unique(ids, axis=0, return_inverse=True)
        table = np.array([self._combination(tuple(c)) for c in distinct.tolist()], np.int64)
        found: Int = self._base + table[inverse.ravel()]
        return found

    def _combination(self, ids: tuple[int, ...]) -> int:
        code = self.combinations.get(ids)
        if code is None:
            if len(self.combinations) >= COMBINATIONS_MAX:
                self.overflowed += 1
                return 0
            code = self.combinations[ids] = len(self.combinations)
        return code

    def _values(self, d: int, columns: tuple[str, ...], cells: Cells, texts: list[str]) -> Int:
        """Number of the slice of each row under one definition; NONE where it has no value."""
        name, cut = self.defined[d].name, self.defined[d].cut
        column = next((columns.index(c) for c in (f"segments.{name}", f"features.{name}") if c in columns), None)
        if column is None:
            return np.full(cells.shape[1], NONE, np.int64)
        distinct, inverse = np.unique(np.ascontiguousarray(cells[column]).view(np.uint64), return_inverse=True)
        values = distinct.view(np.float64)
        if cut:
            ranges = np.searchsorted(cut, values, side="right")
            found = [self._id(d, range_name(cut, int(i))) if v == v else NONE for v, i in zip(values.tolist(), ranges, strict=True)]  # noqa: PLR0124
        else:
            found = [NONE if (text := category_of(v, texts)) is None else self._id(d, text) for v in values.tolist()]
        return np.array(found, np.int64)[inverse]

    def _id(self, d: int, value: str) -> int:
        text = f"{self.defined[d].name}={value}"
        number = self.ids.get(text)
        if number is None:
            if self._used[d] >= self.limit and value != OTHER:
                self.overflowed += 1
                return self._id(d, OTHER)
            self._used[d] += value != OTHER
            number = self.ids[text] = len(self.ids)
        return number

    def add(self, rows: Judged) -> None:
        """Labelled rows, each to the windows of its slices."""
        members = np.array(list(self.combinations), np.int64)[np.maximum(rows.segment - self._base, 0)]
        for d in range(len(self.defined)):
            for number in np.unique(members[:, d]).tolist():
                if number != NONE:
                    windows = self.windows.get(number)
                    if windows is None:
                        windows = self.windows[number] = self._windows()
                    windows.add(rows.take(members[:, d] == number))
                    self._told.add(number)

    # ---- what is told

    def changed(self) -> Iterator[tuple[str, PerformanceWindows]]:
        """Slices with new labels since the last call."""
        told, self._told = sorted(self._told), set()
        names = list(self.ids)
        for number in told:
            yield names[number], self.windows[number]

    def __iter__(self) -> Iterator[tuple[str, PerformanceWindows]]:
        names = list(self.ids)
        return ((names[number], windows) for number, windows in sorted(self.windows.items()))

    # ---- snapshot

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "defined": [[d.name, list(d.cut)] for d in self.defined],
            "base": self._base,
            "ids": list(self.ids),
            "combinations": [list(c) for c in self.combinations],
            "windows": [[number, w.state()] for number, w in self.windows.items()],
            "told": sorted(self._told),
            "overflowed": self.overflowed,
        }

    def load(self, state: Mapping[str, Any], restored: Callable[[Mapping[str, Any]], PerformanceWindows]) -> None:
        """Go on from the state of a snapshot. Under other definitions the slices begin anew: the codes of rows that still wait mean something else."""
        if state["defined"] != [[d.name, list(d.cut)] for d in self.defined]:
            base = state["base"] + len(state["combinations"])
            self._base = base if base + COMBINATIONS_MAX <= CODE_MAX else 0
            return
        self._base = state["base"]
        self.ids = {name: i for i, name in enumerate(state["ids"])}
        self.combinations = {tuple(c): i for i, c in enumerate(state["combinations"])}
        self.windows = {number: restored(w) for number, w in state["windows"]}
        self._told, self.overflowed = set(state["told"]), state["overflowed"]
        for name in self.ids:
            for d, segment in enumerate(self.defined):
                self._used[d] += name.startswith(f"{segment.name}=") and name != f"{segment.name}={OTHER}"
