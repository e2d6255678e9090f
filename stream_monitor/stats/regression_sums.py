"""
Performance of a regression as sums, so that panes of time can be added.

Rule of the file: one float64 vector a pane with a fixed layout; vectors of the same rows add up to
exactly the same numbers however the rows are cut, because every sum is kept exactly
(`exact_sums.py`).
"""

from __future__ import annotations

import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.stats.exact_sums import GREATEST, LIMBS, exact_sums, exact_total, square_parts
from stream_monitor.stats.metric_intervals import Interval, mean_interval


class RegressionSums:
    """
    Layout: rows, rows whose values are too great to be squared, then exact sums: of errors, of
    absolute errors, of their squares, of labels, and of their squares. An error is prediction less
    label.
    """

    width = 2 + 5 * LIMBS

    @staticmethod
    def rows(predicted: Float, actual: Float, group: Int, groups: int) -> Float:
        """Sums by group of rows, (groups, width); rows whose label is not a number are left out."""
        known = are_numbers(predicted) & are_numbers(actual)
        if not known.all():
            predicted, actual, group = predicted[known], actual[known], group[known]
        with np.errstate(over="ignore"):
            error = predicted - actual
            fits = (np.abs(error) < GREATEST**0.5) & (np.abs(actual) < GREATEST**0.5)
        out = np.zeros((groups, RegressionSums.width))
        out[:, 0] = np.bincount(group, minlength=groups)
        if not fits.all():
            out[:, 1] = np.bincount(group, ~fits, groups)
            error, actual, group = error[fits], actual[fits], group[fits]
        square, rest = square_parts(actual)
        n = len(error)
        values = np.stack([error, np.abs(error), error * error, actual, square])
        sums = exact_sums(values, group, groups)
        if n and rest.any():
            sums[:, 4 * LIMBS :] += exact_sums(rest[None], group, groups)
        out[:, 2:] = sums
        return out

    @staticmethod
    def metrics(sums: Float) -> dict[str, float]:
        """
        Metrics of (width,) sums; R² is absent if the label does not vary, and all are absent if a
        value was too great.
        """
        n, beyond = int(sums[0]), int(sums[1])
        if not n or beyond:
            return {}
        error, absolute, squares, y, y2 = (exact_total(c) for c in sums[2:].reshape(5, LIMBS))
        found = {
            "mae": float(absolute / n),
            "rmse": float(np.sqrt(float(squares / n))),
            "bias": float(error / n),
        }
        spread = y2 - y * y / n
        if n > 1 and spread > 0:
            found["r2"] = float(1 - squares / spread)
        return found

    @staticmethod
    def intervals(sums: Float) -> dict[str, Interval]:
        """
        Intervals of the mean absolute error and of the bias of (width,) sums; the others have none,
        because sums do not tell how squares vary.
        """
        n, beyond = int(sums[0]), int(sums[1])
        if n < 2 or beyond:
            return {}
        error, absolute, squares = (
            float(exact_total(c) / n) for c in sums[2 : 2 + 3 * LIMBS].reshape(3, LIMBS)
        )
        return {
            name: mean_interval(mean, squares - mean * mean, n)
            for name, mean in (("mae", absolute), ("bias", error))
        }


def regression_intervals(predicted: Float, actual: Float) -> dict[str, Interval]:
    """
    Intervals of the metrics of rows of a regression, by the variance of what one row adds to each.

    Parameters
    ----------
    predicted, actual : (n,) float64
        NaN if there is no number; such rows are left out.

    Notes
    -----
    RMSE and R² by the delta method (influence functions).

    Examples
    --------
    >>> actual = np.arange(1_000.0)
    >>> found = regression_intervals(actual + np.where(actual % 2, 1.0, 3.0), actual)
    >>> [round(end, 2) for end in found["mae"]]
    [1.89, 2.11]
    """
    known = are_numbers(predicted) & are_numbers(actual)
    predicted, actual = predicted[known], actual[known]
    n = len(actual)
    if n < 2:
        return {}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        error = predicted - actual
        absolute, squares = np.abs(error), error * error
        found = {
            "mae": mean_interval(float(absolute.mean()), float(absolute.var()), n),
            "bias": mean_interval(float(error.mean()), float(error.var()), n),
        }
        low, high = mean_interval(float(squares.mean()), float(squares.var()), n)
        found["rmse"] = max(low, 0.0) ** 0.5, high**0.5 if high >= 0 else np.nan
        away = (actual - actual.mean()) ** 2
        spread = float(away.mean())
        if spread:
            unexplained = float(squares.mean()) / spread
            adds = (squares - unexplained * away) / spread
            found["r2"] = mean_interval(1 - unexplained, float(adds.var()), n)
    return {k: v for k, v in found.items() if np.isfinite(v).all()}


def regression_metrics(predicted: Float, actual: Float) -> dict[str, float]:
    """
    Metrics of rows of a regression; undefined ones, and those too great for a float, are absent.

    Parameters
    ----------
    predicted, actual : (n,) float64
        NaN if there is no number; such rows are left out.

    Examples
    --------
    >>> regression_metrics(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    {'mae': 1.0, 'rmse': 1.4142135623730951, 'bias': -1.0, 'r2': 0.11111111111111116}
    """
    known = are_numbers(predicted) & are_numbers(actual)
    predicted, actual = predicted[known], actual[known]
    n = len(actual)
    if not n:
        return {}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        error = predicted - actual
        scale = float(np.abs(error).max()) or 1.0
        found = {
            "mae": float(np.abs(error).mean()),
            "rmse": scale * float(np.sqrt(np.mean((error / scale) ** 2))),
            "bias": float(error.mean()),
        }
        away = actual - actual.mean()
        unit = float(np.abs(away).max())
        if n > 1 and actual.min() < actual.max() and unit:
            found["r2"] = 1 - float((error / unit) @ (error / unit)) / float(
                (away / unit) @ (away / unit)
            )
    return {k: v for k, v in found.items() if np.isfinite(v)}
