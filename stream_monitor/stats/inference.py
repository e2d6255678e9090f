"""
How sure a number is.

Rule of the file: intervals for what is judged, so that few rows cannot raise an alert.
"""

from __future__ import annotations

import math

Z = 2.5758293035489004
"""Normal quantile of a two-sided interval of 99 %."""


def wilson_interval(part: float, total: float, z: float = Z) -> tuple[float, float]:
    """
    Wilson score interval of a proportion.

    Parameters
    ----------
    part, total : float, events
    z : float
        Normal quantile; the default gives 99 %.

    Returns
    -------
    low, high : float, ratio
        (0, 1) when there is nothing.

    References
    ----------
    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Examples
    --------
    >>> low, high = wilson_interval(50, 100, 1.96)
    >>> round(low, 4), round(high, 4)
    (0.4038, 0.5962)
    """
    if total <= 0:
        return 0.0, 1.0
    share, square = part / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)
