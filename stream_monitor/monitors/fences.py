"""
Is a value out of the ordinary? Fences around the values of each feature.

Rule of the file: fences move after blocks of rows that the log alone cuts, so that they do not
depend on how rows arrived. Single values are counted and sampled, never alarmed on one by one:
Tukey's fences flag 0.7 % of clean normal data and 8 % of lognormal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.settings import Anomalies

BLOCKS = 10
"""The trailing fences move this often within their window."""


class Fences:
    """
    Tukey's fences of numeric features: `fence` interquartile ranges below the first and above the
    third quartile, of the baseline; where the quartiles are one value, the least and the greatest
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
        Take over from the fences of another baseline: the first features here were at these places
        there.
        """

    def state(self) -> Any:
        """Plain values for the snapshot."""
        return None

    def load(self, state: Any) -> None:
        """Go on from the state of a snapshot."""


class TrailingFences(Fences):
    """
    Fences of the last `rows` values of each feature (rolling IQR), of the baseline until they are
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
