"""
Is the input still what the model was built for? Statistics of features (or of score and prediction)
in panes, against a baseline.

Rule of the file: rows become sums, and only sums are kept: per pane and feature the counts of
missing, wrong and out-of-range values, the first two moments (standardised by the baseline, so
they neither overflow nor cancel) and the counts on the bins of the baseline. While no baseline is
there, the rows themselves wait for it. Detectors get the rows in log order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import (
    ABSENT,
    Cells,
    tags,
)
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.fences import Fences, fences
from stream_monitor.monitors.late import Late
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.learning import Names, learn_feature, learn_features
from stream_monitor.monitors.rows import Points, Rows, column_named, columns_at
from stream_monitor.monitors.sums import add_categories, add_numbers, standardised
from stream_monitor.monitors.unique import Unique
from stream_monitor.monitors.windowed import (
    MISSING,
    RANGE,
    ROWS,
    TYPE,
    Windowed,
)
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
        Name of the feature of a column of the record, or None when it does not belong here.
    settings : ModelSettings
    limits : Limits
        Features beyond `features` are counted as unknown, under `__other__`.
    profile : Profile or None
        The baseline; None to learn it from the first `settings.baseline.rows` rows.
    learnt : callable
        Told the baseline when it was learnt.
    values : callable
        Gets (name, standardised finite values, their event times) of each numeric feature of each
        chunk, in log order.
    points : callable or None
        Gets the values outside the fences of each chunk; None: nobody asks for them.
    """

    layout: Layout
    """Where sums are; it is there as soon as the baseline is."""

    def __init__(
        self,
        names: Names,
        settings: ModelSettings,
        limits: Limits,
        profile: Profile | None = None,
        learnt: Callable[[Profile], None] = lambda _: None,
        values: Callable[[str, Float, Int], None] = lambda *_: None,
        points: Callable[[Points], None] | None = None,
    ) -> None:
        self.names, self.settings, self.limits = names, settings, limits
        self._learnt, self._tell_values, self._tell_points = learnt, values, points
        self.profile: Profile | None = None
        self.rows = 0
        self.waiting: list[Rows] = []
        self.waiting_rows = 0
        self.unknown: dict[str, int] = {}
        self.unknown_at: dict[str, int] = {}  # the last row of each
        self.extends = False
        """The baseline was learnt, not given: features that come later are learnt too."""
        self.late = Late(settings.baseline.rows)
        self.uniques: dict[str, Unique] = {
            name: Unique() for name, rule in settings.features.items() if rule.unique
        }
        if profile is not None:
            self.use(profile)

    def use(self, profile: Profile) -> None:
        """Take a baseline; nothing may have been folded before."""
        self.profile = profile
        self.layout = Layout(profile, self.settings.features)
        found = [profile.features[n] for n in self.layout.numeric]
        self.fences: Fences = fences(found, self.settings.anomalies)
        self.panes = Panes(self.layout.width)
        self.totals = np.zeros(self.layout.width)
        self._plans: dict[tuple[str, ...], Plan] = {}

    def add(self, rows: Rows) -> None:
        """Take rows in; O(cells), about 0.1 µs a cell."""
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
        Exactly the first `count` of the waiting rows make the baseline, however they were cut; all
        of them are folded afterwards.
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
        """
        Take rows in; from the row after the last that a late feature is learnt from on, it is
        watched.
        """
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
        The baseline gets the features that are complete.

        What was summed goes on, by name; theirs begins anew, but for counters.
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
        take, put = np.array([*counters, *sums, (-1, -1)], np.int64).T
        panes.lay_out(take[len(counters) :], put[len(counters) :], self.layout.width)
        self.panes, self.totals[put] = panes, totals[take]
        self.fences.go_on_from(fences, [numeric.index(name) for name in known if name in numeric])
        self._learnt(self.profile)

    def _sum(self, rows: Rows) -> None:
        """Sums of a chunk by pane."""
        times, layout = rows.times_ms, self.layout
        numeric, category, unknown, _ = self._plan(rows.columns)
        x = columns_at(rows.cells, numeric)
        bounds = self.fences.bounds(x)
        z = standardised(self.layout, x)
        pane, cells, ordered, limits, scaled = times // PANE_MS, rows.cells, x, bounds, z
        if len(pane) > 1 and (pane[1:] < pane[:-1]).any():
            order = np.argsort(pane, kind="stable")
            pane, cells, ordered, scaled = pane[order], cells[:, order], x[:, order], z[:, order]
            limits = tuple(b[:, order] if b.shape[1] > 1 else b for b in bounds)  # type: ignore[assignment]
        starts = np.flatnonzero(np.append(True, pane[1:] != pane[:-1]))
        sums = np.zeros((len(starts), self.layout.width))
        if self.layout.numeric:
            add_numbers(layout, ordered, scaled, limits, starts, sums)
        if self.layout.category:
            add_categories(layout, cells, category, rows.texts, starts, sums)
        sums[:, -1] = np.diff(np.append(starts, len(pane)))
        if unknown:
            there = tags(rows.cells[list(unknown.values())]) != ABSENT
            for name, seen in zip(unknown, there, strict=True):
                self._unknown(name, seen)
        for name, unique in self.uniques.items():
            unique.add(column_named(rows, self.names, name), rows.texts)
        self.panes.add_grouped(pane[starts] * PANE_MS, sums)
        self.totals += sums.sum(axis=0)
        self.rows += len(times)
        if self._tell_points is not None:
            for points in self._points(x, bounds, rows):
                self._tell_points(points)
        self._values(z, times)

    def _points(self, x: Cells, bounds: tuple[Float, Float], rows: Rows) -> Iterator[Points]:
        """Single values outside the fences."""
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
        """Where features are in these columns."""
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

    def _unknown(self, name: str, seen: NDArray[np.bool_]) -> None:
        if seen.any():
            key = (
                name if name in self.unknown or len(self.unknown) < self.limits.features else OTHER
            )
            self.unknown[key] = self.unknown.get(key, 0) + int(seen.sum())
            self.unknown_at[key] = self.rows + int(seen.nonzero()[0][-1])

    def _values(self, z: Float, times: Int) -> None:
        for i, name in enumerate(self.layout.numeric):
            if name in self.layout.bare:
                continue
            values = z[i]
            finite = are_numbers(values)
            when = times
            if not finite.all():
                values, when = values[finite], times[finite]
            self._tell_values(name, values, when)

    def window(self, end_ms: int, duration_ms: int) -> tuple[dict[str, Windowed], int, int]:
        """Every feature in the window that ends at `end_ms`, with the window's bounds."""
        if self.profile is None:
            return {}, end_ms, end_ms
        vector, start, end = self.panes.window(end_ms, duration_ms)
        return self.layout.all_windowed(vector), start, end

    def go_on(self) -> None:
        """Rows that waited for a baseline which is there now, from elsewhere, are folded."""
        if self.profile is not None:
            waiting, self.waiting, self.waiting_rows = self.waiting, [], 0
            for rows in waiting:
                self._fold(rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes, or of the rows that wait for a baseline."""
        return (
            self.panes.sums.nbytes + self.late.memory_bytes
            if self.profile is not None
            else sum(r.cells.nbytes for r in self.waiting)
        )
