"""
Is a value out of the ordinary? Fences around the values of each feature.

Rule of the file: fences move after blocks of rows that the log alone cuts, so that they do not
depend on how rows arrived. Single values are counted and sampled, never alarmed on one by one:
Tukey's fences flag 0.7 % of clean normal data and 8 % of lognormal.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, are_numbers
from stream_monitor.monitors.baseline import FeatureProfile
from stream_monitor.settings import Anomalies

BLOCKS = 10
"""The trailing fences move this often within their window."""


class Quartiles(msgspec.Struct):
    """Fences of each feature, (features, 1)."""

    q1: Float
    q3: Float
    low: Float
    """The least value."""
    high: Float
    """The greatest value."""


class Trailing(msgspec.Struct):
    """The newest values of the features."""

    quartiles: Quartiles
    values: Float
    """A ring, (features, rows)."""
    seen: int = 0
    """Rows so far."""


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

    state: Trailing | None = None
    """The state that rows change; None while fences are those of a baseline."""

    def __init__(self, profiles: list[FeatureProfile], fence: float) -> None:
        self.fence = fence
        self.quartiles = Quartiles(
            q1=_column([f.q1 for f in profiles]),
            q3=_column([f.q3 for f in profiles]),
            low=_column([f.min if f.count else -np.inf for f in profiles]),
            high=_column([f.max if f.count else np.inf for f in profiles]),
        )

    @property
    def spread(self) -> NDArray[np.bool_]:
        """Which features have quartiles that differ."""
        return (self.quartiles.q3 > self.quartiles.q1)[:, 0]

    def bounds(self, x: Float) -> tuple[Float, Float]:  # noqa: ARG002 - those of a trailing window depend on the rows
        """
        Low and high fences of (features, n) values in the order of the log: (features, 1), or
        (features, n) if they move.
        """
        return self._around(self.quartiles)

    def _around(self, of: Quartiles) -> tuple[Float, Float]:
        reach = self.fence * (of.q3 - of.q1)
        one = reach <= 0
        return np.where(one, of.low, of.q1 - reach), np.where(one, of.high, of.q3 + reach)

    def go_on_from(self, other: Fences, at: list[int]) -> None:
        """
        Take over from the fences of another baseline: the first features here were at these places
        there.
        """

    def load(self, state: Trailing) -> None:
        """Go on from the state of a snapshot, if it has as many features and rows."""


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

    state: Trailing

    def __init__(self, profiles: list[FeatureProfile], fence: float, rows: int) -> None:
        super().__init__(profiles, fence)
        self.rows = rows
        self.block = max(1, rows // BLOCKS)
        self.state = Trailing(self.quartiles, np.full((len(profiles), rows), np.nan))

    def bounds(self, x: Float) -> tuple[Float, Float]:
        features, n = x.shape
        low, high = np.empty((features, n)), np.empty((features, n))
        start, state = 0, self.state
        while start < n:
            end = min(n, start + self.block - state.seen % self.block)
            here = x[:, start:end]
            low[:, start:end], high[:, start:end] = self._around(state.quartiles)
            at = (state.seen + np.arange(end - start)) % self.rows
            state.values[:, at] = np.where(are_numbers(here), here, np.nan)
            state.seen += end - start
            start = end
            if state.seen % self.block == 0 and state.seen >= self.rows:
                self._move()
        return low, high

    def _move(self) -> None:
        state, of = self.state, self.quartiles
        known = ~np.isnan(state.values).all(axis=1)
        if known.any():
            values = state.values[known]
            of.q1[known, 0], of.q3[known, 0] = np.nanquantile(values, (0.25, 0.75), axis=1)
            of.low[known, 0], of.high[known, 0] = (
                np.nanmin(values, axis=1),
                np.nanmax(values, axis=1),
            )

    def go_on_from(self, other: Fences, at: list[int]) -> None:
        assert isinstance(other, TrailingFences)
        n, old, new = len(at), other.state, self.state
        new.seen, new.values[:n] = old.seen, old.values[at]
        for name in Quartiles.__struct_fields__:
            getattr(new.quartiles, name)[:n] = getattr(old.quartiles, name)[at]

    def load(self, state: Trailing) -> None:
        if state.values.shape == self.state.values.shape:
            self.state, self.quartiles = state, state.quartiles


def _column(values: list[float]) -> Float:
    return np.array(values, np.float64)[:, None]


def fences(profiles: list[FeatureProfile], settings: Anomalies) -> Fences:
    """The fences that the configuration asks for."""
    return (
        TrailingFences(profiles, settings.fence, settings.trailing_rows)
        if settings.reference == "trailing"
        else Fences(profiles, settings.fence)
    )
