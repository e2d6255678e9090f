"""
How far is a feature's window from its baseline? Sizes for people, on counts of the same bins or
categories.

Rule of the file: a distance is right within the error that docs/monitors.md states, or it is
absent. Free text has none, because its values are not counted one by one; nor has a window of few
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.monitors.baseline import VALUE_MAX, FeatureProfile
from stream_monitor.monitors.windowed import Windowed, is_constant, unit_of
from stream_monitor.stats import divergence
from stream_monitor.stats.binning import is_one_value

SUPPORT_MIN = 30
"""Values that a window needs: among fewer, chance alone makes any distance."""


def distances(
    profile: FeatureProfile, now: Windowed, only: Container[str] | None = None
) -> dict[str, float]:
    """
    Distances of one feature's window to its baseline, by method (all, or some); empty if there are
    too few rows to compare.
    """
    if now.counts.sum() < SUPPORT_MIN or not now.expected.sum() or len(now.expected) < 2:
        return {}
    expected, actual = now.expected[None], now.counts[None]
    found: dict[str, Callable[[], Float]] = {
        "psi": lambda: divergence.psi(expected, actual, unbiased=True),
        "js": lambda: divergence.jensen_shannon(expected, actual),
    }
    if profile.type == "category":
        found["chi2"] = lambda: divergence.chi2(expected, actual)
    else:
        found["ks"] = lambda: divergence.ks(expected, actual)
        if not is_constant(profile) and max(-profile.min, profile.max) < VALUE_MAX:
            # else there is no standard deviation to measure in
            found["wasserstein"] = lambda: np.array([wasserstein(profile, now)])
    wanted = {
        method: float(measure()[0])
        for method, measure in found.items()
        if only is None or method in only
    }
    return {method: value for method, value in wanted.items() if np.isfinite(value)}


def wasserstein(profile: FeatureProfile, now: Windowed) -> float:
    """
    Wasserstein-1 distance of a numeric feature's window to its baseline, in standard deviations of
    the baseline.

    Notes
    -----
    It is the area between the two distribution functions. Beyond the baseline's values it follows
    from the sums that are kept there, and is exact; in the first and the last bin too, if the
    functions do not cross in it. In between they are taken as straight within a bin.
    """
    unit = unit_of(profile)
    edges = (np.array(profile.edges) - profile.mean) / unit
    p, q = now.expected / now.expected.sum(), now.counts / now.counts.sum()
    tails = now.tails / now.counts.sum()
    beyond = max(q[0] * edges[0] - tails[0], 0.0) + max(tails[3] - q[-1] * edges[-1], 0.0)
    inside = divergence.area_between(np.cumsum(p)[:-1], np.cumsum(q)[:-1], edges)
    means = (np.array(profile.tail_means) - profile.mean) / unit
    one = is_one_value(np.array(profile.edges))
    for end, mean, total in ((0, means[0], tails[1]), (len(edges) - 2, means[1], tails[2])):
        if not one[end]:
            low, high = edges[end], edges[end + 1]
            before = float(p[: end + 1].sum() - q[: end + 1].sum()) * (high - low)
            inside[end] = abs(before + p[end + 1] * (high - mean) - (q[end + 1] * high - total))
    return float(beyond + inside.sum())
