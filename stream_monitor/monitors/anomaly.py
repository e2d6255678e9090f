"""
Is something out of the ordinary? Fences for single values, the trend of performance, the pattern of
a feature by hour of day.

Rule of the file: judgements of blocks that the log alone cuts (rows counted, hours of event time),
so that they do not depend on how rows arrived. Single values are counted and sampled, never alarmed
on one by one: Tukey's fences flag 0.7 % of clean normal data and 8 % of lognormal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float
from stream_monitor.monitors.reference import FeatureProfile
from stream_monitor.settings import Anomalies

HOUR_MS = 3_600_000
HOURS = 24
DAYS_MAX, DAYS_MIN = 28, 7
"""Values of the same hour that a pattern is compared with."""
PATTERN_ROWS_MIN = 30
"""Rows of an hour that is judged."""
SD = 1
"""Place of the standard deviation in what is watched of an hour."""
IQR_SD = 1.349
"""Interquartile range of a normal distribution in its standard deviations."""
BLOCKS = 10
"""The trailing fences move this often within their window."""


class Fences:
    """
    Tukey's fences of numeric features: `fence` interquartile ranges below the first and above the
    third quartile, of the reference; where the quartiles are one value, the least and the greatest
    value.

    Parameters
    ----------
    profiles : list of FeatureProfile
    fence : float, IQRs
    """

    def __init__(self, profiles: list[FeatureProfile], fence: float) -> None:
        self.fence = fence
        self.q1 = np.array([f.q1 for f in profiles], np.float64)[:, None]
        self.q3 = np.array([f.q3 for f in profiles], np.float64)[:, None]
        self.low = np.array([f.min if f.count else -np.inf for f in profiles], np.float64)[:, None]
        self.high = np.array([f.max if f.count else np.inf for f in profiles], np.float64)[:, None]

    @property
    def spread(self) -> NDArray[np.bool_]:
        """Which features have quartiles that differ."""
        return (self.q3 > self.q1)[:, 0]

    def bounds(self, x: Float) -> tuple[Float, Float]:  # noqa: ARG002 - those of a trailing window depend on the rows
        """
        Low and high fence of (features, n) values in log order: (features, 1), or (features, n)
        where they move.
        """
        return self._around(self.q1, self.q3)

    def _around(self, q1: Float, q3: Float) -> tuple[Float, Float]:
        reach = self.fence * (q3 - q1)
        one = reach <= 0
        return np.where(one, self.low, q1 - reach), np.where(one, self.high, q3 + reach)

    def go_on_from(self, other: Any, at: list[int]) -> None:
        """
        Take over from the fences of another reference: the first features here were at these places
        there.
        """

    def state(self) -> Any:
        """Plain values for the snapshot."""
        return None

    def load(self, state: Any) -> None:
        """Go on from the state of a snapshot."""


class TrailingFences(Fences):
    """
    Fences of the last `rows` values of each feature (rolling IQR), of the reference until they are
    there.

    Notes
    -----
    They move after every tenth of the window, counted in rows, so that how rows were cut does not
    matter. A row is compared with rows before it, never with itself. O(rows) a move and feature; 8
    bytes a value and feature.
    """

    def __init__(self, profiles: list[FeatureProfile], fence: float, rows: int) -> None:
        super().__init__(profiles, fence)
        self.rows = rows
        self.block = max(1, rows // BLOCKS)
        self.values = np.full((len(profiles), rows), np.nan)
        self.seen = 0

    def bounds(self, x: Float) -> tuple[Float, Float]:
        features, n = x.shape
        low, high = np.empty((features, n)), np.empty((features, n))
        start = 0
        while start < n:
            end = min(n, start + self.block - self.seen % self.block)
            low[:, start:end], high[:, start:end] = self._around(self.q1, self.q3)
            self.values[:, (self.seen + np.arange(end - start)) % self.rows] = np.where(
                x[:, start:end] == x[:, start:end], x[:, start:end], np.nan
            )
            self.seen += end - start
            start = end
            if self.seen % self.block == 0 and self.seen >= self.rows:
                self._move()
        return low, high

    def _move(self) -> None:
        known = ~np.isnan(self.values).all(axis=1)
        if known.any():
            self.q1[known, 0], self.q3[known, 0] = np.nanquantile(
                self.values[known], (0.25, 0.75), axis=1
            )
            self.low[known, 0], self.high[known, 0] = (
                np.nanmin(self.values[known], axis=1),
                np.nanmax(self.values[known], axis=1),
            )

    def go_on_from(self, other: Any, at: list[int]) -> None:
        self.seen = other.seen
        for name in ("values", "q1", "q3", "low", "high"):
            getattr(self, name)[: len(at)] = getattr(other, name)[at]

    def state(self) -> Any:
        return {
            "values": self.values.tobytes(),
            "seen": self.seen,
            "q1": self.q1.tobytes(),
            "q3": self.q3.tobytes(),
            "low": self.low.tobytes(),
            "high": self.high.tobytes(),
        }

    def load(self, state: Any) -> None:
        if state is not None and len(state["values"]) == self.values.nbytes:
            self.values = (
                np.frombuffer(state["values"], np.float64).reshape(self.values.shape).copy()
            )
            self.q1, self.q3, self.low, self.high = (
                np.frombuffer(state[name], np.float64)[:, None].copy()
                for name in ("q1", "q3", "low", "high")
            )
            self.seen = state["seen"]


def fences(profiles: list[FeatureProfile], settings: Anomalies) -> Fences:
    """The fences that the configuration asks for."""
    return (
        TrailingFences(profiles, settings.fence, settings.trailing_rows)
        if settings.reference == "trailing"
        else Fences(profiles, settings.fence)
    )


def trend(values: list[float]) -> tuple[float, float]:
    """
    What a straight line through at least three values rises from the first to the last (the
    least-squares slope times their number less one), and its standard error.

    Examples
    --------
    >>> [round(v, 6) for v in trend([0.9, 0.88, 0.86, 0.84])]
    [-0.06, 0.0]
    """
    n = len(values)
    x, y = np.arange(n) - (n - 1) / 2, np.array(values)
    squares = float(x @ x)
    slope = float(x @ y) / squares
    rest = y - y.mean() - slope * x
    return slope * (n - 1), float(np.sqrt(rest @ rest / max(n - 2, 1) / squares)) * (n - 1)


class Pattern(NamedTuple):
    """What is watched of a feature's hour, and the uncertainty that sampling alone gives each."""

    values: tuple[float, float, float, float]
    """Mean, standard deviation, missing share, outlier share."""
    errors: tuple[float, float, float, float]
    """Standard errors of the four."""


def pattern(
    rows: float, present: float, mean: float, sd: float, missing: float, outliers: float
) -> Pattern:
    """
    The vector of one hour of a feature.

    Examples
    --------
    >>> pattern(100, 90, 5.0, 3.0, 10, 9).values
    (5.0, 3.0, 0.1, 0.1)
    """

    def share(part: float, whole: float) -> tuple[float, float]:
        p = part / whole
        smooth = (part + 1) / (whole + 2)
        return p, float(np.sqrt(smooth * (1 - smooth) / whole))

    m, o = share(missing, rows), share(outliers, present)
    return Pattern(
        (mean, sd, m[0], o[0]),
        (sd / float(np.sqrt(present)), sd / float(np.sqrt(2 * present)), m[1], o[1]),
    )


def _ratio_z(found: Pattern, past: Float) -> float:
    """
    Robust z of the logarithm of a standard deviation; infinite where one is 0, which is for its
    value to judge.
    """
    sd = found.values[SD]
    if sd <= 0 or past.min() <= 0:
        return float("inf")
    q1, median, q3 = np.quantile(np.log(past), (0.25, 0.5, 0.75))
    return float(abs(np.log(sd) - median) / max((q3 - q1) / IQR_SD, found.errors[SD] / sd))


class Patterns:
    """
    Hours of one model version's features, each against the same hour of the days before.

    Notes
    -----
    Robust z: distance to the median of up to 28 earlier values of this hour of day, in IQR / 1.349
    of them or, where that is less, in standard errors of the value itself. A standard deviation is
    compared by its logarithm too, and the lesser z counts: on heavy tails one value makes it
    several times as great, which is little in ratio; and that of a rare flag is 0 by chance, which
    is little in value. Judged from 7 earlier values on. 21 kB a feature when full.
    """

    def __init__(self) -> None:
        self.next_ms = 0
        """Start of the first hour that was not judged yet."""
        self.history: dict[str, list[list[tuple[float, ...]]]] = {}
        self.z: dict[str, float] = {}
        """The greatest |z| of the last judged hour."""
        self.running: dict[str, int] = {}
        """Hours in a row beyond the limit."""
        self.count: dict[str, int] = {}
        """Anomalous patterns since the beginning."""

    def judge(self, feature: str, hour_ms: int, found: Pattern, settings: Anomalies) -> bool:
        """
        Compare an hour with the same hour of earlier days, and remember it; whether it was judged.
        """
        slots = self.history.setdefault(feature, [[] for _ in range(HOURS)])
        slot = slots[hour_ms // HOUR_MS % HOURS]
        judged = len(slot) >= DAYS_MIN
        if judged:
            past = np.array(slot)
            q1, median, q3 = np.quantile(past, (0.25, 0.5, 0.75), axis=0)
            scale = np.maximum(np.maximum((q3 - q1) / IQR_SD, found.errors), 1e-300)
            z = np.abs((np.array(found.values) - median) / scale)
            z[SD] = min(z[SD], _ratio_z(found, past[:, SD]))
            self.z[feature] = float(z.max())
            beyond = self.z[feature] > settings.pattern_z
            self.running[feature] = self.running.get(feature, 0) + 1 if beyond else 0
            if self.running[feature] == settings.pattern_windows:
                self.count[feature] = self.count.get(feature, 0) + 1
        slot.append(found.values)
        del slot[:-DAYS_MAX]
        return judged

    def begin_anew(self) -> None:
        """Forget the days before: their shares of outliers are of other fences."""
        self.history, self.z, self.running = {}, {}, {}

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "next_ms": self.next_ms,
            "history": self.history,
            "z": self.z,
            "running": self.running,
            "count": self.count,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Patterns:
        """The hours of a snapshot."""
        patterns = cls()
        patterns.next_ms, patterns.z, patterns.running, patterns.count = (
            state["next_ms"],
            dict(state["z"]),
            dict(state["running"]),
            dict(state["count"]),
        )
        patterns.history = {
            f: [[tuple(v) for v in slot] for slot in slots] for f, slots in state["history"].items()
        }
        return patterns


def hours_to_judge(next_ms: int, first_ms: int, watermark_ms: int) -> Iterator[int]:
    """
    Starts of the hours that are over since the last one that was judged; of a long gap only the
    last day's.
    """
    end = watermark_ms // HOUR_MS * HOUR_MS
    start = max(next_ms, first_ms // HOUR_MS * HOUR_MS, end - HOURS * HOUR_MS)
    return iter(range(start, end, HOUR_MS))
