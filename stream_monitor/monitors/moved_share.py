"""
A number that changed by the share of one bin: missing values, a frequent value, or values that were
not there before.

Rule of the file: pure functions of counts. A bin is named only if its share is most of the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nextafter, sqrt
from typing import Any

import numpy as np

from stream_monitor.alerts.wording import apart, number, percent
from stream_monitor.arrays import Float

MOST = 0.75
"""Part of the gain in likelihood that is most of it, without what chance gives."""
LEAST = 4.0
"""Nats that it has at least (p = 0.005 for one bin): a gain within chance says nothing."""
RANGE_MOST = 1 / 3
"""Of more rows beyond what was known the mean says more."""
HALF, GONE = 0.5, 0.05
"""A value with less than `GONE` is gone: the first rows of a change may be of before it."""
WHOLE_BELOW = 1e15
"""Whole numbers below it are written without a point or an exponent."""


def moved_share(
    before: Float, after: Float, edges: Sequence[float] = ()
) -> tuple[str, dict[str, Any]] | None:
    """
    The bin whose share is most of a change, in words and as numbers; None: there is none.

    Parameters
    ----------
    before, after : (bins,) float64
        Counts: bins of values that ascend, then rows without a number.
    edges : (bins - 2,) float
        Between the bins of values; without them only missing values are named.

    Notes
    -----
    Twice the gain in log-likelihood of two laws over one is Wilks' statistic G. That of all bins is
    that of one bin against the rest plus that of the others among themselves. By chance half of the
    latter is h = (bins - 2) / 2, with the standard deviation √h. Of two bins that say the same the
    rarer one is named.

    Examples
    --------
    >>> before, after = np.array([0, 80, 920, 0, 0.0]), np.array([0, 170, 830, 0, 0.0])
    >>> moved_share(before, after, (-999.0, np.nextafter(-999.0, 0), 7.5))
    ('share of -999 from 8% to 17%', {'what': 'share', 'level': '-999', 'value': -999, \
'before': 0.08, 'after': 0.17})
    """
    rows, rows_now = float(before.sum()), float(after.sum())
    if not rows or not rows_now:
        return None
    named = _named(before, after, edges)
    all_rows = float(_gain(rows, rows_now))
    own = _gain(before, after)
    whole = float(own.sum()) - all_rows
    gains = own + _gain(rows - before, rows_now - after) - all_rows
    half = max(int(np.count_nonzero(before + after)) - 2, 0) / 2
    chance = half + sqrt(half)
    best = max(float(gains[k]) for k in named)
    if best <= 0 or best < max(MOST * (whole - chance), LEAST):
        return None
    k = min(
        (k for k in named if gains[k] >= best * (1 - 1e-9)),
        key=lambda k: (float(before[k] + after[k]), -k),
    )
    shares = {"before": float(before[k]) / rows, "after": float(after[k]) / rows_now}
    was, now = apart(*shares.values(), form=percent, digits=3)
    if k == len(before) - 1:
        return f"missing or broken values from {was} to {now}", {"what": "missing", **shares}
    level, at = _level(k, (-inf, *edges, inf))
    return f"share of {level} from {was} to {now}", {
        "what": "share",
        "level": level,
        **at,
        **shares,
    }


def _named(before: Float, after: Float, edges: Sequence[float]) -> list[int]:
    """
    The bins that can be named: missing values, values, and ranges that grew from almost nothing.
    Of a value that had most rows and is gone the mean says more.
    """
    found, ends = [len(before) - 1], (-inf, *edges, inf)
    for k in range(len(before) - 1 if edges else 0):
        was, now = float(before[k] / before.sum()), float(after[k] / after.sum())
        if _is_value(ends[k], ends[k + 1]):
            can = was <= HALF or now >= GONE
        else:
            rare = k in (0, len(before) - 2) or before[k] < 1
            can = rare and was < now <= RANGE_MOST
        if can:
            found.append(k)
    return found


def _is_value(low: float, high: float) -> bool:
    return nextafter(low, inf) >= high


def _level(k: int, ends: Sequence[float]) -> tuple[str, dict[str, Any]]:
    """The values of a bin: in words, and where they lie."""
    low, high = ends[k], ends[k + 1]
    if _is_value(low, high):
        value = _plain(low)
        return str(value), {"value": value}
    above, below = _plain(_shorter(low)), _plain(high)
    if low == -inf:
        return f"values below {_text(below)}", {"below": below}
    if high == inf:
        return f"values above {_text(above)}", {"above": above}
    return f"values between {_text(above)} and {_text(below)}", {"above": above, "below": below}


def _shorter(edge: float) -> float:
    """The lower edge of a bin; a value that has a bin of its own ends just below it."""
    return min(edge, nextafter(edge, -inf), key=lambda value: len(repr(value)))


def _plain(value: float) -> float:
    """A number as people write it: 4001, not 4001.0."""
    return int(value) if abs(value) < WHOLE_BELOW and value == int(value) else value


def _text(edge: float) -> str:
    return str(edge) if isinstance(edge, int) else number(edge)


def _gain(before: Any, after: Any) -> Float:
    """Entropy of counts that are two, less that of one; `x ln x` of 0 is 0."""
    x = np.maximum(np.array([before, after, np.add(before, after)], np.float64), 0.0)
    logs = x * np.log(np.where(x > 0, x, 1.0))
    found: Float = logs[0] + logs[1] - logs[2]
    return found
