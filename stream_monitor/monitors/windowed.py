"""
One feature in a window, as it is read from sums, and the counts that its baseline expects.

Rule of the file: pure functions of sums and a profile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.monitors.baseline import FENCE, FeatureProfile, fences_of

ROWS, PRESENT, MISSING, TYPE, RANGE, SUM, SQUARES, BELOW, ABOVE, OFFSET = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    13,
)
"""Columns of a feature in a pane; from OFFSET on it has a count for each bin or category."""
TAILS = (9, 10, 11, 12)
"""Columns of the sums of the standardised values in the first two and the last two bins."""
CONSTANT = 1e-12
"""A standard deviation of at most this times the mean is rounding."""
EMPTY: Float = np.zeros(0)


class Windowed(NamedTuple):
    """The statistics of one feature in a window."""

    rows: float
    missing: float
    counts: Float
    """Counts on the bins of the baseline (numbers), or by category; the last one has all others."""
    expected: Float
    """The counts of the baseline, in the same places."""
    mean: float | None = None
    sd: float | None = None
    tails: Float = EMPTY
    outliers: float = 0.0
    wrong_type: float = 0.0
    out_of_range: float = 0.0
    unknown: float = 0.0
    """Values of a category that is not allowed."""


def is_constant(profile: FeatureProfile) -> bool:
    """All values of the baseline are one, but for rounding."""
    return profile.sd <= CONSTANT * abs(profile.mean)


def unit_of(profile: FeatureProfile) -> float:
    """
    The unit in which a numeric feature is standardised: the standard deviation of the baseline; if
    it is 0, a hundredth of the mean, or 1.

    >>> from stream_monitor.monitors.baseline import numeric_profile
    >>> [unit_of(numeric_profile(np.array(v), 0)) for v in ([1.0, 3.0], [50.0, 50.0], [0.0, 0.0])]
    [1.0, 0.5, 1.0]
    """
    return abs(profile.mean) / 100 or 1.0 if is_constant(profile) else profile.sd


def expected_numbers(profile: FeatureProfile) -> Float:
    """The baseline's counts on its bins."""
    return np.array(profile.counts, np.float64)


def share_outside(profile: FeatureProfile, low: float, high: float) -> float:
    """
    Share of a numeric baseline's values that are less than `low` or greater than `high`: exact
    where these are values with a bin of their own, or beyond all values; else within the share of a
    bin (a twentieth).

    >>> from stream_monitor.monitors.baseline import numeric_profile
    >>> share_outside(numeric_profile(np.array([-1.0, 0.0, 5.0, 9.0]), 0), 0.0, 8.0)
    0.5
    """
    if not profile.count:
        return 0.0
    edges, below = np.array(profile.edges), np.cumsum(profile.counts)[:-1] / profile.count
    less = float(np.interp(low, edges, below, left=0.0, right=1.0))
    more = 1.0 - float(np.interp(np.nextafter(high, np.inf), edges, below, left=0.0, right=1.0))
    return min(less + more, 1.0)


def outlier_share(profile: FeatureProfile, fence: float) -> float:
    """
    Share of a numeric baseline outside its fences; where they are not those that its outliers were
    counted by, read off its bins.
    """
    if fence == FENCE:
        return profile.outliers / profile.count if profile.count else 0.0
    return share_outside(
        profile, *fences_of(profile.q1, profile.q3, profile.min, profile.max, fence)
    )
