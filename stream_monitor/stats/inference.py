"""
Intervals of shares and means: how certain a number is.

Rule of the file: judgements use intervals, so few rows can neither raise an alert nor end one.
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
    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927).

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
    half = (
        z
        / (1 + square / total)
        * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    )
    return max(middle - half, 0.0), min(middle + half, 1.0)


BACK_Z = 2.0
"""Normal quantile of the upper end by which a share is back."""


def is_back(newest: tuple[float, float], steady: tuple[float, float], limit: float) -> bool:
    """
    Whether a share that was beyond its limit is within it again.

    The share of the newest rows must be within the limit, and either this is certain, or the share
    of more rows is within it too. Otherwise a share of few rows near its limit would end its alert
    by chance.

    Parameters
    ----------
    newest, steady : (part, rows)
        Counts of the newest rows, and of more of them.
    limit : float, ratio

    Examples
    --------
    >>> (
    ...     is_back((0, 200), (90, 1_000), 0.05),
    ...     is_back((8, 200), (70, 1_000), 0.05),
    ...     is_back((8, 200), (40, 1_000), 0.05),
    ... )
    (True, False, True)
    """
    within = newest[0] <= limit * newest[1]
    return within and (
        wilson_interval(*newest, BACK_Z)[1] <= limit or steady[0] <= limit * steady[1]
    )
