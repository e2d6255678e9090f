"""
How often answers are right, by bin of a score: the least-squares monotone function of counts.

Rule of the file: counts in, shares out. A bin without rows is not guessed: it lies between its
neighbours, and says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int

Pool = tuple[int, int, int, int]
"""First and last bin, rows, and rows that were right."""


class RightShares(NamedTuple):
    """
    Shares of right answers by cell; a cell is one bin of one stratum, all in one row.

    Neighbouring cells with one share are a pool: what is not known of one is not known of all.
    """

    share: Float
    """(cells,) ratio."""
    low: Float
    high: Float
    """(cells,) Bounds of the share by its neighbours; equal to it where the cell has rows."""
    pools: Float
    """(cells, pools) 1 where a cell belongs to a pool; a cell without rows belongs to none."""
    near: Float
    """(cells,) The share with two rows more, one of them right, so that it is never 0 or 1."""
    variance: Float
    """(pools,) Variance of the share of a pool, because its rows are a sample."""
    rows: int
    """Rows from which the shares are known."""


def pooled(rows: Int, right: Int) -> list[Pool]:
    """
    Pools of bins whose shares ascend strictly (pool adjacent violators), of bins that have rows.

    Parameters
    ----------
    rows, right : (bins,) int64

    Notes
    -----
    Shares are compared as fractions of whole numbers, so the result is exact. O(bins).

    References
    ----------
    M. Ayer, H. D. Brunk, G. M. Ewing, W. T. Reid, E. Silverman, An empirical distribution function
    for sampling with incomplete information, Annals of Mathematical Statistics 26 (1955).

    Examples
    --------
    >>> pooled(np.array([10, 10, 0, 10]), np.array([5, 3, 0, 9]))
    [(0, 1, 20, 8), (3, 3, 10, 9)]
    """
    found: list[Pool] = []
    for at, (n, r) in enumerate(zip(rows.tolist(), right.tolist(), strict=True)):
        if not n:
            continue
        pool = (at, at, n, r)
        while found and found[-1][3] * pool[2] >= pool[3] * found[-1][2]:
            first, _, more, also = found.pop()
            pool = (first, at, more + pool[2], also + pool[3])
        found.append(pool)
    return found


def right_shares(rows: Int, right: Int) -> RightShares:
    """
    Monotone shares of right answers in each stratum, ascending or descending, whichever is nearer
    to the counts.

    Parameters
    ----------
    rows, right : (strata, bins) int64

    Examples
    --------
    >>> found = right_shares(np.array([[10, 10, 0, 10]]), np.array([[9, 5, 0, 1]]))
    >>> found.share.tolist(), found.low.tolist(), found.high.tolist()
    ([0.9, 0.5, 0.3, 0.1], [0.9, 0.5, 0.1, 0.1], [0.9, 0.5, 0.5, 0.1])
    """
    bins = rows.shape[1]
    share, low, high = np.full(rows.size, 0.5), np.zeros(rows.size), np.ones(rows.size)
    of_cell = np.full(rows.size, -1)
    near, variance = np.full(rows.size, 0.5), list[float]()
    for stratum in range(len(rows)):
        found = _nearer(rows[stratum], right[stratum])
        base = stratum * bins
        for i, (first, last, n, r) in enumerate(found):
            here = slice(base + first, base + last + 1)
            share[here] = low[here] = high[here] = r / n
            of_cell[here], near[here] = len(variance), (r + 1) / (n + 2)
            variance.append((r + 1) / (n + 2) * (n - r + 1) / (n + 2) / n)
            if i:  # bins without rows between two pools
                before = found[i - 1]
                gap = slice(base + before[1] + 1, base + first)
                ends = sorted((before[3] / before[2], r / n))
                share[gap] = near[gap] = sum(ends) / 2
                low[gap], high[gap] = ends
        if found:
            _beyond(found, share, near, low, high, base, bins)
    pools = np.zeros((rows.size, len(variance)))
    pools[np.flatnonzero(of_cell >= 0), of_cell[of_cell >= 0]] = 1.0
    return RightShares(share, low, high, pools, near, np.array(variance), int(rows.sum()))


def _beyond(
    found: list[Pool], share: Float, near: Float, low: Float, high: Float, base: int, bins: int
) -> None:
    """Bins before the first pool and after the last one: beyond what is known, as it goes on."""
    (first, _, n, r), (_, last, m, s) = found[0], found[-1]
    ascends = r * m <= s * n
    for gap, value, up in (
        (slice(base, base + first), r / n, not ascends),
        (slice(base + last + 1, base + bins), s / m, ascends),
    ):
        share[gap] = near[gap] = value
        low[gap] = value if up and len(found) > 1 else 0.0
        high[gap] = value if not up and len(found) > 1 else 1.0


def _nearer(rows: Int, right: Int) -> list[Pool]:
    """Pools of the ascending or of the descending function, whichever is nearer to the counts."""
    up = pooled(rows, right)
    down = [(a, b, n, n - r) for a, b, n, r in pooled(rows, rows - right)]
    return max((up, down), key=lambda found: sum(r * r / n for _, _, n, r in found))
