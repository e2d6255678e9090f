"""
Is the input still what the model was built for? Statistics of features (or of score and prediction)
in panes, against a reference.

Rule of the file: rows become sums, and only sums are kept: per pane and feature the counts of
missing, wrong and out-of-range values, the first two moments (standardised by the reference, so
they neither overflow nor cancel) and the counts on the bins of the reference. While no reference is
there, the rows themselves wait for it. Detectors get the rows in log order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
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
from stream_monitor.monitors.fences import Fences, fences
from stream_monitor.monitors.late import Late
from stream_monitor.monitors.learning import Names, learn_feature, learn_features
from stream_monitor.monitors.reference import FeatureProfile, Profile
from stream_monitor.monitors.rows import Points, Rows, column_named, taken
from stream_monitor.monitors.unique import Unique
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
    Windowed,
    expected_numbers,
    unit_of,
)
from stream_monitor.settings import Limits, ModelSettings
from stream_monitor.stats.binning import bins_of
from stream_monitor.windows.panes import Panes

PANE_MS = 10_000
OTHER = "__other__"
Z_MAX = 1e100
PLACES = {NULL: MISSING, ABSENT: MISSING, NOT_FINITE: RANGE, TOO_BIG: RANGE, WRONG_TYPE: TYPE}
"""Where cells are counted that stand for no category."""
COUNTERS = (ROWS, MISSING, TYPE, RANGE)  # mean the same under any reference


class Plan(NamedTuple):
    """Where features are in the columns of a chunk."""

    take: Int
    """Of each numeric one; -1: absent."""
    where: dict[str, int]
    """Categories."""
    unknown: dict[str, int]
    """Those that the reference does not have."""
    late: dict[str, int]
    """Those that are yet to be learnt."""


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
        The reference; None to learn it from the first `settings.baseline.rows` rows.
    learnt : callable
        Told the reference when it was learnt.
    """

    def __init__(
        self,
        names: Names,
        settings: ModelSettings,
        limits: Limits,
        profile: Profile | None = None,
        learnt: Callable[[Profile], None] = lambda _: None,
    ) -> None:
        self.names, self.settings, self.limits = names, settings, limits
        self._learnt = learnt
        self.profile: Profile | None = None
        self.rows = 0
        self.waiting: list[Rows] = []
        self.waiting_rows = 0
        self.unknown: dict[str, int] = {}
        self.unknown_at: dict[str, int] = {}  # the last row of each
        self.on_values: Callable[[str, Float, Int], None] = lambda *_: None
        """
        Called with (name, standardised finite values, their event times) of each numeric feature of
        each chunk, in log order.
        """
        self.on_points: Callable[[Points], None] | None = None
        """Called with the values outside the fences of each chunk, where somebody asks for them."""
        self.extends = False
        """The reference was learnt, not given: features that come later are learnt too."""
        self.late = Late(settings.baseline.rows)
        self.uniques: dict[str, Unique] = {
            name: Unique() for name, rule in settings.features.items() if rule.unique
        }
        if profile is not None:
            self.use(profile)

    def use(self, profile: Profile) -> None:
        """Take a reference; nothing may have been folded before."""
        self.profile = profile
        self.numeric = [n for n, f in profile.features.items() if f.type == "numeric"]
        self.category = [n for n, f in profile.features.items() if f.type == "category"]
        found = [profile.features[n] for n in self.numeric]
        self.mean = np.array([f.mean for f in found], np.float64)
        self.sd = np.array([unit_of(f) for f in found], np.float64)
        self.fences: Fences = fences(found, self.settings.anomalies)
        self.edges = [np.array([*f.edges, np.inf]) for f in found]
        rules = [self.settings.features.get(n) for n in self.numeric]
        self.minimum = np.array(
            [r.min if r and r.min is not None else -np.inf for r in rules], np.float64
        )
        self.maximum = np.array(
            [r.max if r and r.max is not None else np.inf for r in rules], np.float64
        )
        self.bounded = bool(np.isfinite(self.minimum).any() or np.isfinite(self.maximum).any())
        self.categories = {n: self._categories(n, profile.features[n]) for n in self.category}
        widths = [OFFSET + len(f.edges) + 2 for f in found] + [
            OFFSET + len(self.categories[n]) + 1 for n in self.category
        ]
        ends = [0, *np.cumsum(widths, dtype=np.int64).tolist()]
        self.start: dict[str, int] = dict(zip(self.numeric + self.category, ends[:-1], strict=True))
        width = ends[-1]
        self.at: Int = np.array(ends[: len(found)], np.int64)
        tails = [
            (0, min(1, last), max(last - 1, 0), last) for f in found for last in [len(f.edges)]
        ]
        self.tails: Int = (
            self.at[:, None] + OFFSET + np.array(tails, np.int64).reshape(-1, len(TAILS))
        ).ravel()
        self.heads: Int = (self.at[:, None] + np.arange(OFFSET)).ravel()
        self.panes = Panes(width + 1)
        self.width = width + 1
        self.totals = np.zeros(self.width)
        self.bare = frozenset(n for n, f in profile.features.items() if not f.count)
        """
        Features of which the reference has no value: they are learnt as soon as there are some.
        """
        self._index: dict[tuple[str, ...], Plan] = {}

    def _categories(self, name: str, profile: FeatureProfile) -> dict[str, int]:
        """
        The place of each category: those of the reference, and those of the configuration that it
        does not have.
        """
        rule = self.settings.features.get(name)
        more = (
            sorted({class_name(c) for c in (rule.categories or ())} - profile.categories.keys())
            if rule
            else []
        )
        return {c: i for i, c in enumerate([*(c for c in profile.categories if c != OTHER), *more])}

    def _allowed(self, name: str) -> frozenset[str] | None:
        """The categories that break no rule; None: all."""
        assert self.profile is not None
        rule = self.settings.features.get(name)
        if rule is not None and rule.categories:
            return frozenset(class_name(c) for c in rule.categories)
        if name in self.bare:
            return None
        return (
            None
            if OTHER in self.profile.features[name].categories
            else frozenset(self.profile.features[name].categories)
        )

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
        Exactly the first `count` of the waiting rows make the reference, however they were cut; all
        of them are folded afterwards.
        """
        wanted, first, left = count, [], []
        for rows in self.waiting:
            n = min(len(rows.times_ms), wanted)
            wanted -= n
            if n:
                first.append(rows.part(slice(n)))
            if n < len(rows.times_ms):
                left.append(rows.part(slice(n, None)))
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
                numeric = self.bare.intersection(self.numeric)
                known = self.profile.features.keys() | self.late.cells.keys()
                end, complete = self.late.take(
                    rows.cells, rows.texts, late, numeric, self.limits.features - len(known)
                )
            self._sum(rows if end == len(rows.times_ms) else rows.part(slice(end)))
            if complete:
                self._extend(complete)
            rows = rows.part(slice(end, None))

    def _extend(self, names: list[str]) -> None:
        """
        The reference gets the features that are complete.

        What was summed goes on, by name; theirs begins anew, but for counters.
        """
        assert self.profile is not None
        learnt = {
            name: learn_feature(name, [self.late.pop(name)], self.settings, self.limits)
            for name in names
        }
        before, panes, totals, fences, numeric = (
            self.columns(),
            self.panes,
            self.totals,
            self.fences,
            self.numeric,
        )
        known = {name: f for name, f in self.profile.features.items() if name not in learnt}
        self.use(msgspec.structs.replace(self.profile, features=known | learnt))
        now = self.columns()
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
        panes.lay_out(take[len(counters) :], put[len(counters) :], self.width)
        self.panes, self.totals[put] = panes, totals[take]
        self.fences.go_on_from(fences, [numeric.index(name) for name in known if name in numeric])
        self._learnt(self.profile)

    def _sum(self, rows: Rows) -> None:
        """Sums of a chunk by pane."""
        times = rows.times_ms
        take, where, unknown, _ = self._plan(rows.columns)
        x = taken(rows.cells, take)
        bounds = self.fences.bounds(x)
        z = self._standardised(x)
        pane, cells, ordered, limits, scaled = times // PANE_MS, rows.cells, x, bounds, z
        if len(pane) > 1 and (pane[1:] < pane[:-1]).any():
            order = np.argsort(pane, kind="stable")
            pane, cells, ordered, scaled = pane[order], cells[:, order], x[:, order], z[:, order]
            limits = tuple(b[:, order] if b.shape[1] > 1 else b for b in bounds)  # type: ignore[assignment]
        starts = np.flatnonzero(np.append(True, pane[1:] != pane[:-1]))
        sums = np.zeros((len(starts), self.width))
        if self.numeric:
            self._numeric(ordered, scaled, limits, starts, sums)
        if self.category:
            self._named(cells, where, rows.texts, starts, sums)
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
        if self.on_points is not None:
            self._points(x, bounds, rows)
        self._values(z, times)

    def _points(self, x: Cells, bounds: tuple[Float, Float], rows: Rows) -> None:
        """Tell of single values outside the fences."""
        assert self.on_points is not None
        for i, feature in enumerate(self.numeric):
            at = np.flatnonzero((x[i] < bounds[0][i]) | (x[i] > bounds[1][i]))
            if len(at):
                low, high = (np.broadcast_to(b[i], len(x[i]))[at] for b in bounds)
                iqr = (
                    (high - low) / (1 + 2 * self.fences.fence)
                    if self.fences.spread[i]
                    else np.zeros(len(at))
                )
                self.on_points(
                    Points(feature, x[i][at], (low, high), iqr, rows.times_ms[at], rows.origin[at])
                )

    def _plan(self, columns: tuple[str, ...]) -> Plan:
        """Where features are in these columns."""
        found = self._index.get(columns)
        if found is None:
            place = {name: i for i, c in enumerate(columns) if (name := self.names(c)) is not None}
            take = np.array([place.get(n, -1) for n in self.numeric], np.int64)
            unknown = {name: i for name, i in place.items() if name not in self.start}
            if len(self._index) > 256:
                self._index.clear()
            late = {
                name: i
                for name, i in place.items()
                if name in self.bare or (self.extends and name not in self.start)
            }
            found = self._index[columns] = Plan(
                take, {n: place[n] for n in self.category if n in place}, unknown, late
            )
        return found

    def _unknown(self, name: str, seen: NDArray[np.bool_]) -> None:
        if seen.any():
            key = (
                name if name in self.unknown or len(self.unknown) < self.limits.features else OTHER
            )
            self.unknown[key] = self.unknown.get(key, 0) + int(seen.sum())
            self.unknown_at[key] = self.rows + int(seen.nonzero()[0][-1])

    def _standardised(self, x: Cells) -> Float:
        """
        Distances from the reference's mean in its standard deviations; what would overflow is cut,
        so that one huge value cannot spoil a window.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            z: Float = (x - self.mean[:, None]) / self.sd[:, None]
        if (np.abs(z) > Z_MAX).any():
            z = np.clip(z, -Z_MAX, Z_MAX)
        return z

    def _numeric(
        self, x: Cells, z: Float, fences: tuple[Float, Float], starts: Int, sums: Float
    ) -> None:
        """
        Moments, bins, fences, missing, wrong and out-of-range values of (features, n) cells, added
        to (panes, width) of `sums`.
        """
        n, at = x.shape[1], self.at
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
        if self.bounded:
            head[:, :, RANGE] += _by_pane(
                (x < self.minimum[:, None]) | (x > self.maximum[:, None]), starts
            )
        head[:, :, SUM] = np.add.reduceat(z, starts, axis=1).T
        head[:, :, SQUARES] = np.add.reduceat(z * z, starts, axis=1).T
        head[:, :, BELOW] = _by_pane(x < fences[0], starts)
        head[:, :, ABOVE] = _by_pane(x > fences[1], starts)
        bins = bins_of(x, self.edges, at + OFFSET)
        if len(starts) > 1:
            bins += np.repeat(np.arange(len(starts)) * self.width, lengths)
        bins = bins.ravel()
        sums += np.bincount(bins, minlength=sums.size).reshape(sums.shape)
        tails = np.bincount(bins, z.ravel(), minlength=sums.size).reshape(sums.shape)[:, self.tails]
        head[:, :, TAILS[0] : TAILS[-1] + 1] = tails.reshape(len(starts), len(at), len(TAILS))
        sums[:, self.heads] = head.reshape(len(starts), -1)

    def _named(
        self, cells: Cells, where: Mapping[str, int], texts: list[str], starts: Int, sums: Float
    ) -> None:
        lengths = np.diff(np.append(starts, cells.shape[1]))
        for name in self.category:
            base, known = self.start[name], self.categories[name]
            sums[:, base + ROWS] = lengths
            if name not in where:
                sums[:, base + MISSING] = lengths
                continue
            distinct, inverse = np.unique(
                np.ascontiguousarray(cells[where[name]]).view(np.uint64), return_inverse=True
            )
            place, width = (
                self._slots(distinct.view(np.float64), known, texts)[inverse],
                OFFSET + len(known) + 1,
            )
            if len(starts) > 1:
                place += np.repeat(np.arange(len(starts)) * width, lengths)
            sums[:, base : base + width] += np.bincount(
                place, minlength=len(starts) * width
            ).reshape(-1, width)
            sums[:, base + PRESENT] = sums[:, base + OFFSET : base + width].sum(axis=1)

    @staticmethod
    def _slots(distinct: Cells, known: Mapping[str, int], texts: list[str]) -> Int:
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

    def _values(self, z: Float, times: Int) -> None:
        for i, name in enumerate(self.numeric):
            if name in self.bare:
                continue
            values = z[i]
            finite = are_numbers(values)
            when = times
            if not finite.all():
                values, when = values[finite], times[finite]
            self.on_values(name, values, when)

    def window(self, end_ms: int, duration_ms: int) -> tuple[dict[str, Windowed], int, int]:
        """Every feature in the window that ends at `end_ms`, with the window's bounds."""
        if self.profile is None:
            return {}, end_ms, end_ms
        vector, start, end = self.panes.window(end_ms, duration_ms)
        return {name: self.windowed(name, vector) for name in self.start}, start, end

    def windowed(self, name: str, vector: Float) -> Windowed:
        """One feature of a vector of sums."""
        assert self.profile is not None
        profile, base = self.profile.features[name], self.start[name]
        rows, present, missing, wrong, out = (
            float(vector[base + c]) for c in (ROWS, PRESENT, MISSING, TYPE, RANGE)
        )
        if name in self.categories:
            counts = vector[base + OFFSET : base + OFFSET + len(self.categories[name]) + 1]
            known = np.array(
                [profile.categories.get(c, 0) for c in self.categories[name]], np.float64
            )
            expected = np.append(known, profile.categories.get(OTHER, 0))
            return Windowed(
                rows=rows,
                missing=missing,
                counts=counts,
                expected=expected,
                wrong_type=wrong,
                out_of_range=out,
                unknown=self._unknown_of(name, counts),
            )
        i, mean, sd = self.numeric.index(name), None, None
        if present:
            z = vector[base + SUM] / present
            mean = float(self.mean[i] + self.sd[i] * z)
            sd = float(self.sd[i] * np.sqrt(max(vector[base + SQUARES] / present - z * z, 0.0)))
        return Windowed(
            rows=rows,
            missing=missing,
            mean=mean,
            sd=sd,
            counts=vector[base + OFFSET : base + OFFSET + len(profile.edges) + 1],
            expected=expected_numbers(profile),
            tails=vector[base + np.array(TAILS)],
            outliers=float(vector[base + BELOW] + vector[base + ABOVE]),
            wrong_type=wrong,
            out_of_range=out,
        )

    def _unknown_of(self, name: str, counts: Float) -> float:
        """How many of the values counted by category are of one that is not allowed."""
        allowed = self._allowed(name)
        if allowed is None:
            return 0.0
        return float(
            counts[-1]
            + sum(counts[i] for c, i in self.categories[name].items() if c not in allowed)
        )

    def columns(self) -> dict[str, list[int]]:
        """By feature: where its columns are in the vector of sums, and how many."""
        starts = [*self.start.values(), self.width - 1]  # a reference may have no features
        return {
            name: [at, end - at]
            for name, at, end in zip(self.start, starts, starts[1:], strict=False)
        }

    def go_on(self) -> None:
        """Rows that waited for a reference which is there now, from elsewhere, are folded."""
        if self.profile is not None:
            waiting, self.waiting, self.waiting_rows = self.waiting, [], 0
            for rows in waiting:
                self._fold(rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes, or of the rows that wait for a reference."""
        return (
            self.panes.sums.nbytes + self.late.memory_bytes
            if self.profile is not None
            else sum(r.cells.nbytes for r in self.waiting)
        )


def _by_pane(mask: NDArray[np.bool_], starts: Int) -> Float:
    """Counts of a (features, n) mask by pane, (panes, features)."""
    if len(starts) == 1:  # nearly always
        return np.asarray(np.count_nonzero(mask, axis=1)[None], np.float64)
    return np.add.reduceat(mask.view(np.uint8), starts, axis=1, dtype=np.int64).T.astype(np.float64)
