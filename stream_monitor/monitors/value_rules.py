"""
Rules on single values that no baseline knows: patterns, values that must occur once, and fields
that nobody described.

Rule of the file: a rule has two columns in panes of event time, the rows that it was asked of and
those that broke it. They are found again by the name of the rule, and by its pattern.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.events.cells import BOOL, TEXT, Cells, arguments, tags
from stream_monitor.events.pattern import Pattern
from stream_monitor.monitors.learning import Names
from stream_monitor.monitors.rows import Rows, category_of, column_named
from stream_monitor.monitors.unique import Unique
from stream_monitor.settings import ModelSettings
from stream_monitor.windows.panes import Panes

FIELDS = "__features__"
"""The subject of the rule on unknown fields."""
Broken = NDArray[np.bool_]


class ValueRulesForm(msgspec.Struct):
    """Rules on single values in a snapshot."""

    uniques: dict[str, Unique] = {}
    names: list[tuple[str, str, str]] = []
    panes: Panes | None = None
    totals: Float | None = None


class ValueRules:
    """
    The rules on single values of one model version.

    Parameters
    ----------
    names : callable
        Name of the feature of a column.
    settings : ModelSettings
        `features` and `quality.unknown_field_ratio` are used.
    """

    def __init__(self, names: Names, settings: ModelSettings) -> None:
        self._names_of = names
        of_features = names("features.x") is not None  # otherwise it is score and prediction
        mine = settings.features if of_features else {}
        self.patterns = {
            name: Pattern(rule.pattern) for name, rule in mine.items() if rule.pattern is not None
        }
        self.uniques = {name: Unique() for name, rule in mine.items() if rule.unique}
        self.described = frozenset(mine)
        """Features that the configuration names; they are not unknown."""
        self.names: list[tuple[str, str, str]] = [
            *((name, "pattern", pattern.text) for name, pattern in self.patterns.items()),
            *((name, "unique", "") for name in self.uniques),
        ]
        """Feature, rule and pattern, in the order of the columns."""
        if settings.quality.unknown_field_ratio is not None and of_features:
            self.names.append((FIELDS, "unknown_field", ""))
        self.panes = Panes(2 * len(self.names) + 1)
        self.totals = np.zeros(self.panes.width)

    def broken(self, rows: Rows, unknown: Broken | None) -> list[Broken]:
        """
        By rule, which rows break it.

        Parameters
        ----------
        rows : Rows
            In the order of the log.
        unknown : (n,) bool or None
            Rows with a field that neither baseline nor configuration has; None: no row has one.

        Notes
        -----
        Patterns: O(different values of the rows); about 0.1 µs a row, and 1 µs a different text.
        """
        found = []
        for name, rule, _ in self.names:
            if rule == "unknown_field":
                found.append(np.zeros(len(rows.times_ms), bool) if unknown is None else unknown)
                continue
            cells = column_named(rows, self._names_of, name)
            found.append(
                self.uniques[name].add(cells, rows.texts)
                if rule == "unique"
                else not_matching(self.patterns[name], cells, rows.texts)
            )
        return found

    def add(self, broken: list[Broken], order: Int | None, pane_ms: Int, starts: Int) -> None:
        """
        Add rows to panes.

        Parameters
        ----------
        broken : list of (n,) bool
            In the order of the log, as `broken` returns it.
        order : (n,) int64 or None
            The order of panes; None: that of the log.
        pane_ms : (panes,) int64, ms
        starts : (panes,) int64
            The first row of each pane.
        """
        if not self.names:
            return
        matrix = np.array(broken)
        if order is not None:
            matrix = matrix[:, order]
        sums = np.empty((len(starts), self.panes.width))
        sums[:, ::2] = np.diff(np.append(starts, matrix.shape[1]))[:, None]
        sums[:, 1::2] = np.add.reduceat(matrix, starts, axis=1, dtype=np.int64).T
        self.panes.add_grouped(pane_ms, sums)
        self.totals += sums.sum(axis=0)

    def counts(self, sums: Float) -> dict[tuple[str, str], tuple[float, float]]:
        """By feature and rule: rows that break it, and rows that it was asked of."""
        return {
            (name, rule): (float(sums[2 * i + 1]), float(sums[2 * i]))
            for i, (name, rule, _) in enumerate(self.names)
        }

    def form(self) -> ValueRulesForm:
        """The rules in a snapshot."""
        return ValueRulesForm(self.uniques, self.names, self.panes, self.totals)

    def load(self, form: ValueRulesForm) -> None:
        """Go on with the rules that are what they were; others begin again."""
        self.uniques |= {name: u for name, u in form.uniques.items() if name in self.uniques}
        if form.panes is None or form.totals is None:
            return
        before = {name: i for i, name in enumerate(form.names)}
        both = [(before[name], i) for i, name in enumerate(self.names) if name in before]
        old, new = np.array(
            [(2 * i + k, 2 * j + k) for i, j in both for k in (0, 1)] + [(-1, -1)], np.int64
        ).T
        form.panes.lay_out(old, new, self.panes.width)
        self.totals[new] = form.totals[old]
        self.panes = form.panes


def not_matching(pattern: Pattern, cells: Cells, texts: list[str]) -> Broken:
    r"""
    Which values are not of a pattern. Numbers and booleans count as they are written (`7`, `0.5`,
    `true`); missing values, lists and numbers that are not exact are of other rules.

    >>> from stream_monitor.events.cells import ABSENT_CELL, TRUE_CELL, Texts
    >>> texts = Texts()
    >>> cells = np.array([7.0, 0.5, ABSENT_CELL, TRUE_CELL, texts["12"], texts["x"]])
    >>> not_matching(Pattern(r"\d+"), cells, texts.names).tolist()
    [False, True, False, True, False, True]
    """
    tag = tags(cells)
    there = np.flatnonzero((tag == -1) | (tag == TEXT) | (tag == BOOL))
    broken = np.zeros(len(cells), bool)
    bits = np.ascontiguousarray(cells[there]).view(np.uint64)
    values, place = np.unique(bits, return_inverse=True)
    distinct = values.view(np.float64)
    parts = distinct.tolist(), tags(distinct).tolist(), arguments(distinct).tolist()
    found = [
        not pattern.matches(texts[i] if tag == TEXT else category_of(cell, texts) or "")
        for cell, tag, i in zip(*parts, strict=True)
    ]
    broken[there] = np.array(found, bool)[place]
    return broken
