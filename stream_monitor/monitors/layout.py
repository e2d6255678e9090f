"""
The place of the sums of each feature in one vector, and how a feature is read from there.

Rule of the file: a baseline and the configured rules decide the layout, and it never changes.
Numeric features come first, then categories. Each has OFFSET columns of counts and moments
(`windowed.py`), then one for each bin or category. The last column of the vector counts all rows.
Why it is one vector is at the head of `inputs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.events.cells import class_name
from stream_monitor.monitors.baseline import FeatureProfile, Profile
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
from stream_monitor.settings import OTHER, Feature
from stream_monitor.stats.binning import BinTable


class Layout:
    """
    The columns of the features of a baseline.

    Parameters
    ----------
    profile : Profile
    rules : mapping of name to Feature
        Configured features; `min`, `max` and `categories` are used.
    """

    def __init__(self, profile: Profile, rules: Mapping[str, Feature]) -> None:
        self.profile, self.rules = profile, rules
        self.numeric = [n for n, f in profile.features.items() if f.type == "numeric"]
        self.category = [n for n, f in profile.features.items() if f.type == "category"]
        numeric = [profile.features[n] for n in self.numeric]
        self.mean = np.array([f.mean for f in numeric], np.float64)
        self.sd = np.array([unit_of(f) for f in numeric], np.float64)
        self.edges = [np.array([*f.edges, np.inf]) for f in numeric]
        of_numeric = [rules.get(n) for n in self.numeric]
        self.minimum = np.array(
            [r.min if r and r.min is not None else -np.inf for r in of_numeric], np.float64
        )
        self.maximum = np.array(
            [r.max if r and r.max is not None else np.inf for r in of_numeric], np.float64
        )
        self.bounded = bool(np.isfinite(self.minimum).any() or np.isfinite(self.maximum).any())
        self.categories = {n: self._categories(n, profile.features[n]) for n in self.category}
        widths = [OFFSET + len(f.edges) + 2 for f in numeric] + [
            OFFSET + len(self.categories[n]) + 1 for n in self.category
        ]
        ends = [0, *np.cumsum(widths, dtype=np.int64).tolist()]
        self.start: dict[str, int] = dict(zip(self.numeric + self.category, ends[:-1], strict=True))
        self.at: Int = np.array(ends[: len(numeric)], np.int64)
        tails = [
            (0, min(1, last), max(last - 1, 0), last) for f in numeric for last in [len(f.edges)]
        ]
        self.bins = BinTable(self.edges, self.at + OFFSET)
        self.tails: Int = (
            self.at[:, None] + OFFSET + np.array(tails, np.int64).reshape(-1, len(TAILS))
        ).ravel()
        self.heads: Int = (self.at[:, None] + np.arange(OFFSET)).ravel()
        self.width = ends[-1] + 1
        self.bare = frozenset(n for n, f in profile.features.items() if not f.count)
        """
        Features without a value in the baseline; they are learnt as soon as there are values.
        """
        self._unknown = {n: self._places_of_unknown(n) for n in self.category}

    def _categories(self, name: str, profile: FeatureProfile) -> dict[str, int]:
        """
        The place of each category: those of the baseline, and those of the configuration that it
        does not have.
        """
        rule = self.rules.get(name)
        more = (
            sorted({class_name(c) for c in (rule.categories or ())} - profile.categories.keys())
            if rule
            else []
        )
        return {c: i for i, c in enumerate([*(c for c in profile.categories if c != OTHER), *more])}

    def _allowed(self, name: str) -> frozenset[str] | None:
        """The categories that break no rule; None: all."""
        rule = self.rules.get(name)
        if rule is not None and rule.categories:
            return frozenset(class_name(c) for c in rule.categories)
        if name in self.bare:
            return None
        return (
            None
            if OTHER in self.profile.features[name].categories
            else frozenset(self.profile.features[name].categories)
        )

    def all_windowed(self, vector: Float) -> dict[str, Windowed]:
        """Every feature of a vector of sums."""
        return {name: self.windowed(name, vector) for name in self.start}

    def windowed(self, name: str, vector: Float) -> Windowed:
        """One feature of a vector of sums."""
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
        return float(counts[self.unknown_places(name)].sum())

    def unknown_places(self, name: str) -> NDArray[np.bool_]:
        """Which of the places of a feature's categories, all others last, are not allowed."""
        return self._unknown[name]

    def _places_of_unknown(self, name: str) -> NDArray[np.bool_]:
        allowed = self._allowed(name)
        if allowed is None:
            return np.zeros(len(self.categories[name]) + 1, bool)
        return np.array([*(c not in allowed for c in self.categories[name]), True])

    def columns(self) -> dict[str, tuple[int, int]]:
        """By feature: its first column in the vector of sums, and the number of its columns."""
        starts = [*self.start.values(), self.width - 1]  # a baseline may have no features
        return {
            name: (at, end - at)
            for name, at, end in zip(self.start, starts, starts[1:], strict=False)
        }
