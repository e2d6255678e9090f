"""
What is known of times that come again: sums by hour of the day, or by day of the week, and how
their contrasts vary each time.

Rule of the file: arrays are changed in place; they belong to `seasons.py` and `weeks.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int


def take_in(
    moments: NDArray[np.float32],
    times: NDArray[np.int32],
    ripe: Bool,
    rows: Float,
    contrasts: tuple[Float, Float],
) -> None:
    """
    Take one more time of a slot into what is known of its contrasts (Welford 1962).

    Parameters
    ----------
    moments : (3, signals, contrasts) float32
        Mean of the contrasts, their variance from time to time, and that by sampling.
    times : (signals,) int32
        How often the slot was there, this time included.
    ripe : (signals,) bool
        Which signals have enough rows this time.
    rows : (signals,) float64
    contrasts : two of (signals, contrasts) float64
        Mean and variance of a row.
    """
    mean, between, sampling = moments
    value, variance = contrasts
    rate = (ripe / np.maximum(times, 1))[:, None]
    step = value - mean
    sampling += rate * (variance / np.maximum(rows, 1)[:, None] - sampling)
    between += rate * ((1 - rate) * step**2 - between)
    mean += rate * step


def halve(
    sums: NDArray[np.float32], times: NDArray[np.int32], full: Bool, owner: Int, counted: Int
) -> None:
    """
    Halve what is known of a slot for the signals that are `full` (signals,), so that it forgets.

    `sums` (columns,) have the signals `owner` (columns,); those in `counted` stay whole numbers.
    """
    times[full] //= 2
    sums[:] = np.where(full[owner], sums / 2, sums)
    sums[counted] = np.floor(sums[counted])
