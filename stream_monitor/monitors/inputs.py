"""
Is the input still what the model was built for? Statistics of features (or of score and prediction) in panes, against a reference.

Rule of the file: rows become sums, and only sums are kept: per pane and feature the counts of missing, wrong and out-of-range values, the first two moments
(standardised by the reference, so they neither overflow nor cancel) and the counts above each edge of the reference. While no reference is there, the rows
themselves wait for it. Detectors get the rows in log order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import ABSENT, BOOL, NOT_FINITE, NULL, TEXT, TOO_BIG, WRONG_TYPE, Cells, tags
from stream_monitor.monitors.anomaly import Fences, fences
from stream_monitor.monitors.learning import Names, learn_features
from stream_monitor.monitors.reference import FeatureProfile, Profile
from stream_monitor.monitors.rows import Points, Rows, category_of, column_named, taken
from stream_monitor.monitors.unique import Unique
from stream_monitor.settings import Limits, ModelSettings
from stream_monitor.stats.binning import bin_counts
from stream_monitor.windows.panes import Panes

Float = NDArray[np.float64]
Int = NDArray[np.int64]
PANE_MS = 10_000
EDGES_MAX = 19
OTHER = "__other__"
Z_MAX = 1e100
CONSTANT = 1e-12
"""A standard deviation that is no more than this times the mean is rounding."""
PRESENT, MISSING, TYPE, RANGE, SUM, SQUARES, BELOW, ABOVE, ROWS, OFFSET = range(10)
"""Columns of a feature in a pane; from OFFSET on numeric features have the counts at or above each edge, categories a count each.
Each has its own ROWS, since one may begin anew while the others go on."""
RULES = {MISSING: "missing", TYPE: "type", RANGE: "range"}


class Windowed(NamedTuple):
    """What is known of one feature in a window."""

    rows: float
    missing: float
    mean: float | None
    sd: float | None
    counts: Float
    """On the bins of the reference (numeric) or by category; empty for text."""
    outliers: float
    violations: float
    """Values of the wrong type, out of range or of an unknown category."""


def unit_of(profile: FeatureProfile) -> float:
    """
    The unit in which a numeric feature is standardised: the reference's standard deviation; where that is nothing, a hundredth of the mean, or 1.

    >>> from stream_monitor.monitors.reference import numeric_profile
    >>> [unit_of(numeric_profile(np.array(v), 0)) for v in ([1.0, 3.0], [50.0, 50.0], [0.0, 0.0])]
    [1.0, 0.5, 1.0]
    """
    return profile.sd if profile.sd > CONSTANT * abs(profile.mean) else abs(profile.mean) / 100 or 1.0


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

    def __init__(self, names: Names, settings: ModelSettings, limits: Limits, profile: Profile | None = None, learnt: Callable[[Profile], None] = lambda _: None) -> None:
        self.names, self.settings, self.limits = names, settings, limits
        self._learnt = learnt
        self.profile: Profile | None = None
        self.rows = 0
        self.waiting: list[Rows] = []
        self.waiting_rows = 0
        self.unknown: dict[str, int] = {}
        self.on_values: Callable[[str, Float, Int], None] = lambda *_: None
        """Called with (name, standardised finite values, their event times) of each numeric feature of each chunk, in log order."""
        self.on_points: Callable[[Points], None] | None = None
        """Called with the values outside the fences of each chunk, where somebody asks for them."""
        self.uniques: dict[str, Unique] = {name: Unique() for name, rule in settings.features.items() if rule.unique}
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
        self.edges = np.full((len(found), EDGES_MAX), np.inf)
        for i, f in enumerate(found):
            self.edges[i, : len(f.quantiles)] = f.quantiles
        rules = [self.settings.features.get(n) for n in self.numeric]
        self.minimum = np.array([r.min if r and r.min is not None else -np.inf for r in rules], np.float64)
        self.maximum = np.array([r.max if r and r.max is not None else np.inf for r in rules], np.float64)
        self.categories = {n: self._categories(n, profile.features[n]) for n in self.category}
        self.width_numeric = OFFSET + EDGES_MAX
        self.start: dict[str, int] = {n: i * self.width_numeric for i, n in enumerate(self.numeric)}
        width = len(self.numeric) * self.width_numeric
        for n in self.category:
            self.start[n] = width
            width += OFFSET + len(self.categories[n]) + 1
        self.panes = Panes(width + 1)
        self.width = width + 1
        self.totals = np.zeros(self.width)
        self._index: dict[tuple[str, ...], tuple[Int, dict[str, int], dict[str, int]]] = {}

    def _categories(self, name: str, profile: FeatureProfile) -> dict[str, int]:
        rule = self.settings.features.get(name)
        known = rule.categories if rule and rule.categories else tuple(profile.categories or ())
        return {c: i for i, c in enumerate(known)}

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
        """Exactly the first `count` of the waiting rows make the reference, however they were cut; all of them are folded afterwards."""
        wanted, first, left = count, [], []
        for rows in self.waiting:
            n = min(len(rows.times_ms), wanted)
            wanted -= n
            if n:
                first.append(rows.part(slice(n)))
            if n < len(rows.times_ms):
                left.append(rows.part(slice(n, None)))
        self.waiting, self.waiting_rows = [], 0
        profile = Profile(features=learn_features(first, self.names, self.settings, self.limits), rows=count)
        self.use(profile)
        self._learnt(profile)
        for rows in first + left:
            self._fold(rows)

    def _fold(self, rows: Rows) -> None:
        """Sums of a chunk by pane."""
        times = rows.times_ms
        take, where, unknown = self._plan(rows.columns)
        x = taken(rows.cells, take)
        bounds = self.fences.bounds(x)
        pane, cells, ordered, limits = times // PANE_MS, rows.cells, x, bounds
        if len(pane) > 1 and (pane[1:] < pane[:-1]).any():
            order = np.argsort(pane, kind="stable")
            pane, cells, ordered = pane[order], cells[:, order], x[:, order]
            limits = tuple(b[:, order] if b.shape[1] > 1 else b for b in bounds)  # type: ignore[assignment]
        starts = np.flatnonzero(np.append(True, pane[1:] != pane[:-1]))
        sums = np.zeros((len(starts), self.width))
        if self.numeric:
            self._numeric(ordered, limits, starts, sums)
        if self.category:
            self._named(cells, where, rows.texts, starts, sums)
        sums[:, -1] = np.diff(np.append(starts, len(pane)))
        if unknown:
            seen = (tags(rows.cells[list(unknown.values())]) != ABSENT).sum(axis=1)
            for name, n in zip(unknown, seen.tolist(), strict=True):
                self._unknown(name, n)
        for name, unique in self.uniques.items():
            unique.add(column_named(rows, self.names, name), rows.texts)
        self.panes.add_grouped(pane[starts] * PANE_MS, sums)
        self.totals += sums.sum(axis=0)
        self.rows += len(times)
        if self.on_points is not None:
            self._points(x, bounds, rows)
        self._values(x, times)

    def _points(self, x: Cells, bounds: tuple[Float, Float], rows: Rows) -> None:
        """Tell of single values outside the fences."""
        assert self.on_points is not None
        reach = 1 + 2 * self.fences.fence
        for i, feature in enumerate(self.numeric):
            low, high = bounds[0][i], bounds[1][i]
            at = np.flatnonzero((x[i] < low) | (x[i] > high))
            if len(at):
                below, above = (np.broadcast_to(b, len(x[i]))[at] for b in (low, high))
                iqr = (above - below) / reach
                self.on_points(Points(feature, x[i][at], (below + self.fences.fence * iqr, above - self.fences.fence * iqr), rows.times_ms[at], rows.origin[at]))

    def _plan(self, columns: tuple[str, ...]) -> tuple[Int, dict[str, int], dict[str, int]]:
        """Where each numeric feature is in these columns (-1: absent), where the others are, and those that nobody knows."""
        found = self._index.get(columns)
        if found is None:
            place = {name: i for i, c in enumerate(columns) if (name := self.names(c)) is not None}
            take = np.array([place.get(n, -1) for n in self.numeric], np.int64)
            unknown = {name: i for name, i in place.items() if name not in self.start}
            if len(self._index) > 256:
                self._index.clear()
            found = self._index[columns] = take, {n: place[n] for n in self.category if n in place}, unknown
        return found

    def _unknown(self, name: str, n: int) -> None:
        if n:
            key = name if name in self.unknown or len(self.unknown) < self.limits.features else OTHER
            self.unknown[key] = self.unknown.get(key, 0) + n

    def _standardised(self, x: Cells) -> Float:
        """Distances from the reference's mean in its standard deviations; what would overflow is cut, so that one huge value cannot spoil a window."""
        with np.errstate(over="ignore", invalid="ignore"):
            z: Float = (x - self.mean[:, None]) / self.sd[:, None]
        if (np.abs(z) > Z_MAX).any():
            z = np.clip(z, -Z_MAX, Z_MAX)
        return z

    def _numeric(self, x: Cells, fences: tuple[Float, Float], starts: Int, sums: Float) -> None:
        """Moments, edges, fences, missing, wrong and out-of-range values of (features, n) cells; writes (panes, features * width) of `sums`."""
        features, n = x.shape
        out = sums[:, : features * self.width_numeric].reshape(len(starts), features, self.width_numeric)
        finite = x == x  # noqa: PLR0124
        out[:, :, ROWS] = np.diff(np.append(starts, n))[:, None]
        if finite.all():
            z = self._standardised(x)
            out[:, :, PRESENT] = np.diff(np.append(starts, n))[:, None]
        else:
            tag = tags(x)
            out[:, :, MISSING] = _by_pane((tag == NULL) | (tag == ABSENT), starts)
            out[:, :, TYPE] = _by_pane((tag == TEXT) | (tag == BOOL) | (tag == WRONG_TYPE), starts)
            out[:, :, RANGE] = _by_pane((tag == NOT_FINITE) | (tag == TOO_BIG), starts)
            out[:, :, PRESENT] = _by_pane(finite, starts)
            z = np.where(finite, self._standardised(x), 0.0)
        if np.isfinite(self.minimum).any() or np.isfinite(self.maximum).any():
            out[:, :, RANGE] += _by_pane((x < self.minimum[:, None]) | (x > self.maximum[:, None]), starts)
        out[:, :, SUM] = np.add.reduceat(z, starts, axis=1).T
        out[:, :, SQUARES] = np.add.reduceat(z * z, starts, axis=1).T
        above = bin_counts(x.T, self.edges, np.append(starts, n))
        out[:, :, OFFSET:] = above
        out[:, :, BELOW] = _by_pane(x < fences[0], starts)
        out[:, :, ABOVE] = _by_pane(x > fences[1], starts)

    def _named(self, cells: Cells, where: Mapping[str, int], texts: list[str], starts: Int, sums: Float) -> None:
        n = cells.shape[1]
        segment = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))
        for name in self.category:
            base, known = self.start[name], self.categories[name]
            sums[:, base + ROWS] = np.diff(np.append(starts, n))
            if name not in where:
                sums[:, base + MISSING] = sums[:, base + ROWS]
                continue
            distinct, inverse = np.unique(np.ascontiguousarray(cells[where[name]]).view(np.uint64), return_inverse=True)
            kind = np.array([self._named_slot(v, known, texts) for v in distinct.view(np.float64).tolist()], np.int64)
            np.add.at(sums, (segment, base + kind[inverse]), 1.0)
            sums[:, base + PRESENT] = sums[:, base + OFFSET : base + OFFSET + len(known) + 1].sum(axis=1)

    @staticmethod
    def _named_slot(cell: float, known: Mapping[str, int], texts: list[str]) -> int:
        category = category_of(cell, texts)
        if category is None:
            return MISSING if int(tags(np.array([cell]))[0]) in (NULL, ABSENT) else TYPE
        return OFFSET + known.get(category, known.get(OTHER, len(known)))

    def _values(self, x: Cells, times: Int) -> None:
        z = self._standardised(x)
        for i, name in enumerate(self.numeric):
            values = z[i]
            finite = values == values  # noqa: PLR0124
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
        base = self.start[name]
        rows, present, missing = (float(vector[base + c]) for c in (ROWS, PRESENT, MISSING))
        broken = float(vector[base + TYPE] + vector[base + RANGE])
        if name in self.categories:
            counts = vector[base + OFFSET : base + OFFSET + len(self.categories[name]) + 1]
            return Windowed(rows, missing, None, None, counts, 0.0, broken + float(counts[-1]))
        i = self.numeric.index(name)
        mean = sd = None
        if present:
            z = vector[base + SUM] / present
            mean = float(self.mean[i] + self.sd[i] * z)
            sd = float(self.sd[i] * np.sqrt(max(vector[base + SQUARES] / present - z * z, 0.0)))
        edges = len(self.profile.features[name].quantiles) if self.profile else 0
        above = np.concatenate([[present], vector[base + OFFSET : base + OFFSET + edges], [0.0]])
        return Windowed(rows, missing, mean, sd, above[:-1] - above[1:], float(vector[base + BELOW] + vector[base + ABOVE]), broken)

    def violations(self) -> Iterator[tuple[str, str, float]]:
        """(feature, rule, count) of everything that broke a rule since the beginning."""
        if self.profile is not None:
            for name, base in self.start.items():
                for column, rule in RULES.items():
                    if self.totals[base + column]:
                        yield name, rule, float(self.totals[base + column])
                if name in self.categories and self.totals[base + OFFSET + len(self.categories[name])]:
                    yield name, "category", float(self.totals[base + OFFSET + len(self.categories[name])])
        for name, unique in self.uniques.items():
            if unique.repeated:
                yield name, "unique", float(unique.repeated)
        for name, n in self.unknown.items():
            yield name, "unknown_field", float(n)

    def points(self) -> Iterator[tuple[str, float]]:
        """(feature, count) of values outside the fences since the beginning."""
        if self.profile is not None:
            for name in self.numeric:
                yield name, float(self.totals[self.start[name] + BELOW] + self.totals[self.start[name] + ABOVE])

    def histogram(self, name: str) -> tuple[Float, float]:
        """Counts on the bins of the reference since the beginning, and the sum of the values."""
        assert self.profile is not None
        base, i = self.start[name], self.numeric.index(name)
        edges = len(self.profile.features[name].quantiles)
        present = self.totals[base + PRESENT]
        above = np.concatenate([[present], self.totals[base + OFFSET : base + OFFSET + edges], [0.0]])
        return above[:-1] - above[1:], float(self.mean[i] * present + self.sd[i] * self.totals[base + SUM])

    def columns(self) -> dict[str, list[int]]:
        """By feature: where its columns are in the vector of sums, and how many."""
        names = list(self.start)
        ends = [*(self.start[n] for n in names[1:]), self.width - 1]
        return {name: [self.start[name], end - self.start[name]] for name, end in zip(names, ends, strict=True)}

    def go_on(self) -> None:
        """Rows that waited for a reference which is there now, from elsewhere, are folded."""
        if self.profile is not None:
            waiting, self.waiting, self.waiting_rows = self.waiting, [], 0
            for rows in waiting:
                self._fold(rows)

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes, or of the rows that wait for a reference."""
        return self.panes.sums.nbytes if self.profile is not None else sum(r.cells.nbytes for r in self.waiting)

    def learning(self) -> Iterator[str]:
        """Names seen while the reference is learnt."""
        seen: dict[str, None] = {}
        for rows in self.waiting:
            seen.update(dict.fromkeys(n for c in rows.columns if (n := self.names(c)) is not None))
        yield from seen


def _by_pane(mask: NDArray[np.bool_], starts: Int) -> Float:
    """Counts of a (features, n) mask by pane, (panes, features)."""
    return np.add.reduceat(mask.view(np.uint8), starts, axis=1, dtype=np.int64).T.astype(np.float64)
