"""
Is the input still what the model was built for? Statistics of features (or of score and prediction)
in panes, against a baseline.

Rule of the file: rows become sums, and only sums are kept. While there is no baseline, the rows
themselves wait for it. Detectors get the rows in the order of the log.

Theory of operation
-------------------
In go rows of one model version: cells (columns, n), and the event time of each row. A cell is a
float64; what is no number (missing, a text, too big …) is a NaN whose bits say what it is
(`events/cells.py`). Out come, of any window, the sums of each feature (`Windowed`). From these the
monitors compute PSI, shares of missing values, means and so on.

1. The first `baseline.rows` rows wait and make the baseline; then they are folded like any others.
2. The baseline and the configured rules decide the `Layout`: where each feature has its columns in
   one vector of sums. So a window of all features is one sum over a matrix of panes.
3. A chunk is sorted by pane, only if it has several out of order. Then each statistic is computed
   for all features and panes at once (`sums.py`): moments by `reduceat`, and the counts of all bins
   of all features by one `bincount`.
4. Moments are of (x - mean) / sd of the baseline: squares of large numbers would overflow.
5. A feature that comes later is learnt from its own first rows (`late.py`). The vector then gets
   columns, and the sums that are there move to their new places by name.

A window never depends on how rows were cut into chunks, and a cell that is no number takes part in
no arithmetic. What is counted in another way begins again.

Five rows, of which three make the baseline (mean 2, standard deviation 0.82).

>>> from stream_monitor.events.cells import ABSENT_CELL
>>> from stream_monitor.settings import Baseline
>>> told = []
>>> inputs = Inputs(
...     names=lambda column: column,
...     settings=ModelSettings(baseline=Baseline(rows=3)),
...     limits=Limits(),
...     values=lambda name, z, times_ms: told.append((name, z.round(2).tolist())),
... )
>>> inputs.add(Rows(("x",), np.array([[1.0, 2.0]]), np.array([0, 1_000]), []))
>>> inputs.waiting_rows, inputs.profile is None
(2, True)
>>> inputs.add(
...     Rows(("x",), np.array([[3.0, 5.0, ABSENT_CELL]]), np.array([2_000, 11_000, 3_000]), [])
... )
>>> told  # by chunk, those that waited included; detectors know one scale for all features
[('x', [-1.22, 0.0]), ('x', [1.22]), ('x', [3.67])]
>>> windows, start_ms, end_ms = inputs.window(11_000, 20_000)
>>> x = windows["x"]
>>> x.rows, x.missing, x.mean, x.outliers, (start_ms, end_ms)
(5.0, 1.0, 2.75, 1.0, (0, 20000))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import ABSENT, Cells, tags
from stream_monitor.monitors.baseline import Profile, within
from stream_monitor.monitors.faults import Faults
from stream_monitor.monitors.fences import Fences, fences
from stream_monitor.monitors.input_drift import InputDrift
from stream_monitor.monitors.late import Late
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.learning import Names, learn_feature, learn_features
from stream_monitor.monitors.rows import Points, Rows, columns_at
from stream_monitor.monitors.sums import Summed, add_categories, add_numbers, standardised
from stream_monitor.monitors.value_rules import Broken, ValueRules
from stream_monitor.monitors.windowed import MISSING, RANGE, ROWS, TYPE, Windowed
from stream_monitor.settings import OTHER, Limits, ModelSettings
from stream_monitor.windows.panes import Panes

PANE_MS = 10_000
COUNTERS = (ROWS, MISSING, TYPE, RANGE)  # mean the same under any baseline
PLANS_MAX = 256
"""Sets of columns whose plan is kept; a client may send any number of them."""


class Plan(NamedTuple):
    """Where features are in the columns of a chunk."""

    numeric: Int
    """Place of the column of each numeric feature; -1: the rows do not have it."""
    category: dict[str, int]
    """Place of the column of each category feature that the rows have."""
    unknown: dict[str, int]
    """Place of the column of each feature that the baseline does not have."""
    late: dict[str, int]
    """Place of the column of each feature that may still be learnt."""


class Inputs:
    """
    Statistics of a set of columns of one model version.

    Parameters
    ----------
    names : callable
        Name of the feature of a column; None for a column that is none.
    settings : ModelSettings
    limits : Limits
        Features beyond the limit `features` are counted as unknown, under `__other__`.
    profile : Profile or None
        The baseline; None: it is learnt from the first `settings.baseline.rows` rows.
    learnt : callable
        Gets the baseline when it was learnt.
    values : callable or None
        Gets (name, standardised finite values, their event times) of each numeric feature of each
        chunk, in the order of the log.
    points, sliced : callable or None
        Get of each chunk the values outside the fences, and all of it after it was summed.
    tolerance : callable
        Returns the tolerance of the detector on counts of a signal; None: it has none.
    """

    layout: Layout
    """Places of the sums of each feature; the attribute exists as soon as there is a baseline."""

    def __init__(
        self,
        names: Names,
        settings: ModelSettings,
        limits: Limits,
        profile: Profile | None = None,
        learnt: Callable[[Profile], None] = lambda _: None,
        values: Callable[[str, Float, Int], None] | None = None,
        points: Callable[[Points], None] | None = None,
        sliced: Callable[[Summed], None] | None = None,
        tolerance: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self.names, self.settings, self.limits = names, settings, limits
        self._learnt, self._tell_values, self._tell_points = learnt, values, points
        self._sliced = sliced
        self.profile: Profile | None = None
        self.rows = 0
        self.waiting: list[Rows] = []
        self.waiting_rows = 0
        self.unknown: dict[str, int] = {}
        self.unknown_at: dict[str, int] = {}
        """By unknown feature: the number of the last row that had it."""
        self.extends = False
        """The baseline was learnt, not given: features that come later are learnt too."""
        self.left_out: list[str] = []
        """Features of a given baseline that are beyond the limit."""
        self.late = Late(settings.baseline.rows)
        self.value_rules = ValueRules(names, settings)
        self.drift = InputDrift(tolerance)
        if profile is not None:
            self.give(profile)

    def give(self, profile: Profile) -> None:
        """Use a baseline that somebody made, as far as the limit `features` lets it."""
        most, first = self.limits.features, self.settings.features
        kept, self.left_out = within(profile, most, first)
        self.use(kept)

    def use(self, profile: Profile) -> None:
        """Use a baseline; nothing may have been folded before."""
        self.profile = profile
        self.layout = Layout(profile, self.settings.features)
        numeric = [profile.features[n] for n in self.layout.numeric]
        self.fences: Fences = fences(numeric, self.settings.anomalies)
        self.panes = Panes(self.layout.width)
        self.totals = np.zeros(self.layout.width)
        self._plans: dict[tuple[str, ...], Plan] = {}
        self.drift.use(self.layout)

    def add(self, rows: Rows) -> None:
        """Fold rows, or let them wait for the baseline. O(cells), about 0.1 µs a cell."""
        if not len(rows.times_ms):
            return
        if self.profile is None:
            self.waiting.append(rows)
            self.waiting_rows += len(rows.times_ms)
            if self.waiting_rows >= self.settings.baseline.rows:
                self.learn(self.settings.baseline.rows)
            return
        self._fold(rows)

    def learn(self, count: int) -> None:
        """
        Learn the baseline from exactly the first `count` rows that wait, then fold all of them.
        """
        wanted, first, left = count, [], []
        for rows in self.waiting:
            n = min(len(rows.times_ms), wanted)
            wanted -= n
            if n:
                first.append(rows.at(slice(n)))
            if n < len(rows.times_ms):
                left.append(rows.at(slice(n, None)))
        self.waiting, self.waiting_rows = [], 0
        profile = Profile(
            features=learn_features(first, self.names, self.settings, self.limits), rows=count
        )
        self.extends = True
        self.use(profile)
        self._learnt(profile)
        for rows in first + left:
            self._fold(rows)

    def _fold(self, rows: Rows) -> None:
        """Fold rows. A late feature is watched from the row after those it is learnt from."""
        # Each round ends at the row that completes a late feature, because the layout changes
        # there. Nearly always nothing is late, and there is one round.
        while len(rows.times_ms):
            end, complete, late = len(rows.times_ms), list[str](), self._plan(rows.columns).late
            if late or self.late.cells:
                assert self.profile is not None
                numeric = self.layout.bare.intersection(self.layout.numeric)
                known = self.profile.features.keys() | self.late.cells.keys()
                end, complete = self.late.add(
                    rows.cells, rows.texts, late, numeric, self.limits.features - len(known)
                )
            self._sum(rows if end == len(rows.times_ms) else rows.at(slice(end)))
            if complete:
                self._extend(complete)
            rows = rows.at(slice(end, None))

    def _extend(self, names: list[str]) -> None:
        """
        Add features to the baseline that are complete.

        The sums of the other features go on, by name. Those of the new ones begin again, except for
        the counters, which mean the same under any baseline.
        """
        assert self.profile is not None
        learnt = {
            name: learn_feature(name, [self.late.pop(name)], self.settings, self.limits)
            for name in names
        }
        before, panes, totals, fences, numeric = (
            self.layout.columns(),
            self.panes,
            self.totals,
            self.fences,
            self.layout.numeric,
        )
        known = {name: f for name, f in self.profile.features.items() if name not in learnt}
        self.use(msgspec.structs.replace(self.profile, features=known | learnt))
        now = self.layout.columns()
        sums = [
            (of[0] + k, now[name][0] + k)
            for name, of in before.items()
            if name in known
            for k in range(of[1])
        ]
        counters = [
            (before[name][0] + k, now[name][0] + k)
            for name in learnt
            if name in before
            for k in COUNTERS
        ]
        # (-1, -1) is the last column, which counts rows. Totals keep the counters of a new feature,
        # because counters must not fall; its panes begin again.
        old, new = np.array([*counters, *sums, (-1, -1)], np.int64).T
        panes.lay_out(old[len(counters) :], new[len(counters) :], self.layout.width)
        self.panes, self.totals[new] = panes, totals[old]
        self.fences.go_on_from(fences, [numeric.index(name) for name in known if name in numeric])
        if self.extends:  # one that was given stays the one that was given
            self._learnt(self.profile)

    def _sum(self, rows: Rows) -> None:
        """Add the sums of a chunk to its panes."""
        times, layout = rows.times_ms, self.layout
        numeric, category, unknown, _ = self._plan(rows.columns)
        x = columns_at(rows.cells, numeric)
        bounds = self.fences.bounds(x)
        z = standardised(self.layout, x)
        # Sums need the order of panes, detectors that of the log: `x` and `z` stay as they came,
        # and the sorted copies are made only if a chunk goes back to an earlier pane.
        pane, cells, ordered, limits, scaled = times // PANE_MS, rows.cells, x, bounds, z
        if len(pane) > 1 and (pane[1:] < pane[:-1]).any():
            order = np.argsort(pane, kind="stable")
            pane, cells, ordered, scaled = pane[order], cells[:, order], x[:, order], z[:, order]
            limits = tuple(b[:, order] if b.shape[1] > 1 else b for b in bounds)  # type: ignore[assignment]
        else:
            order = None
        starts = np.flatnonzero(np.append(True, pane[1:] != pane[:-1]))
        sums = np.zeros((len(starts), self.layout.width))
        chunks = self.drift.begin(layout, z, rows, order)
        by_chunk = chunks if order is None else [c._replace(ids=c.ids[order]) for c in chunks]
        if self.layout.numeric:
            add_numbers(layout, ordered, scaled, limits, starts, sums, by_chunk)
        if self.layout.category:
            add_categories(layout, cells, category, rows.texts, starts, sums, by_chunk)
        sums[:, -1] = np.diff(np.append(starts, len(pane)))
        broken = self.value_rules.broken(rows, self._unknown_rows(rows, unknown))
        self.drift.newest.judge(Faults(layout, x, self.value_rules.names, broken).of)
        self.value_rules.add(broken, order, pane[starts] * PANE_MS, starts)
        self.panes.add_grouped(pane[starts] * PANE_MS, sums)
        self.totals += (of_chunk := sums.sum(axis=0))
        self.rows += len(times)
        if self._sliced is not None:
            self._sliced(Summed(layout, rows, x, category, of_chunk))
        if self._tell_points is not None:
            for points in self._points(x, bounds, rows):
                self._tell_points(points)
        if self._tell_values is not None:
            self._values(z, times, self._tell_values)
        self.drift.add(chunks)

    def _points(self, x: Cells, bounds: tuple[Float, Float], rows: Rows) -> Iterator[Points]:
        """The single values of a chunk that are outside the fences, by feature."""
        for i, feature in enumerate(self.layout.numeric):
            at = np.flatnonzero((x[i] < bounds[0][i]) | (x[i] > bounds[1][i]))
            if len(at):
                low, high = (np.broadcast_to(b[i], len(x[i]))[at] for b in bounds)
                iqr = (
                    (high - low) / (1 + 2 * self.fences.fence)
                    if self.fences.spread[i]
                    else np.zeros(len(at))
                )
                yield (
                    Points(feature, x[i][at], (low, high), iqr, rows.times_ms[at], rows.origin[at])
                )

    def _plan(self, columns: tuple[str, ...]) -> Plan:
        """The plan for these columns; it is kept, because the same ones come again and again."""
        plan = self._plans.get(columns)
        if plan is None:
            place = {name: i for i, c in enumerate(columns) if (name := self.names(c)) is not None}
            unknown = {name: i for name, i in place.items() if name not in self.layout.start}
            if len(self._plans) > PLANS_MAX:
                self._plans.clear()
            late = {
                name: i
                for name, i in place.items()
                if name in self.layout.bare or (self.extends and name not in self.layout.start)
            }
            plan = self._plans[columns] = Plan(
                numeric=np.array([place.get(n, -1) for n in self.layout.numeric], np.int64),
                category={n: place[n] for n in self.layout.category if n in place},
                unknown=unknown,
                late=late,
            )
        return plan

    def _unknown_rows(self, rows: Rows, unknown: dict[str, int]) -> Broken | None:
        """
        Count the fields that the baseline does not have; the rows with one that nobody described.
        """
        if not unknown:
            return None
        there = tags(rows.cells[list(unknown.values())]) != ABSENT
        for name, seen in zip(unknown, there, strict=True):
            self._unknown(name, seen)
        described = self.value_rules.described
        nobodys: Broken = there[[name not in described for name in unknown]].any(axis=0)
        return nobodys

    def _unknown(self, name: str, seen: NDArray[np.bool_]) -> None:
        """Count the rows that have a feature which the baseline does not have."""
        if seen.any():
            key = (
                name if name in self.unknown or len(self.unknown) < self.limits.features else OTHER
            )
            self.unknown[key] = self.unknown.get(key, 0) + int(seen.sum())
            self.unknown_at[key] = self.rows + int(seen.nonzero()[0][-1])

    def _values(self, z: Float, times: Int, tell: Callable[[str, Float, Int], None]) -> None:
        """Pass the standardised values of each feature on to detectors."""
        for i, name in enumerate(self.layout.numeric):
            if name in self.layout.bare:  # its mean and unit are not known yet
                continue
            values = z[i]
            finite = are_numbers(values)
            when = times
            if not finite.all():
                values, when = values[finite], times[finite]
            tell(name, values, when)

    def window(self, end_ms: int, duration_ms: int) -> tuple[dict[str, Windowed], int, int]:
        """Every feature in the window that ends at `end_ms`, and the bounds of that window, ms."""
        if self.profile is None:
            return {}, end_ms, end_ms
        vector, start, end = self.panes.window(end_ms, duration_ms)
        return self.layout.all_windowed(vector), start, end

    def go_on(self) -> None:
        """Fold the rows that waited, if a baseline was given meanwhile."""
        if self.profile is not None:
            waiting, self.waiting, self.waiting_rows = self.waiting, [], 0
            for rows in waiting:
                self._fold(rows)

    @property
    def memory_bytes(self) -> int:
        """Memory of the panes, or of the rows that wait for a baseline, bytes."""
        return (
            self.panes.sums.nbytes + self.late.memory_bytes
            if self.profile is not None
            else sum(r.cells.nbytes for r in self.waiting)
        )
