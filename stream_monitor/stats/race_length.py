"""
How long a race of first failures lasts, before it is run: requests until a bad arm is rolled back.

Rule of the file: pure functions, and no chance in them: the distribution is computed, not drawn.
The evidence after a number of failures depends only on how many of them were in the arm, so the
paths that have not crossed yet are a row of probabilities.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.stats.failure_race import HAZARDS

FAILURES_MAX = 4_000
"""Longer races are not followed."""
ENOUGH = 0.999


class Length(NamedTuple):
    """When a race ends, as a distribution over first failures in both arms."""

    ended: Float
    """Chance that it has ended after 0, 1, 2, … failures."""

    def failures(self, share: float) -> float:
        """By how many failures this share of the races has ended; infinite if not followed."""
        found = int(np.searchsorted(self.ended, share))
        return float(found) if found < len(self.ended) else math.inf

    def requests(self, share: float, rate: float) -> float:
        """
        By how many requests of both arms this share of the races has ended.

        Parameters
        ----------
        share : float, ratio
        rate : float, ratio
            Share of the requests of both arms that fail.
        """
        at = self.failures(share)
        if not math.isfinite(at):
            return math.inf
        low, high = 0, math.ceil(at / rate) + 1
        while self._by(high, rate) < share:
            low, high = high, 2 * high
            if high * rate > 2 * len(self.ended):
                return math.inf
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._by(middle, rate) >= share else (middle, high)
        return float(high)

    def _by(self, requests: int, rate: float) -> float:
        """Chance that it has ended after so many requests: the number of failures is binomial."""
        mean = requests * rate
        wide = 8 * math.sqrt(mean + 1) + 8
        k = np.arange(max(0, int(mean - wide)), min(requests, int(mean + wide)) + 1)
        log_p = np.array([_log_choose(requests, n) for n in k.tolist()])
        log_p += k * math.log(rate) + (requests - k) * math.log1p(-rate)
        return float(np.exp(log_p) @ self.ended[np.minimum(k, len(self.ended) - 1)])


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def race_length(share: float, times: float, needed: float) -> Length:
    """
    The distribution of the length of a race.

    Parameters
    ----------
    share : float, ratio
        Share of the arm in the traffic of it and the control.
    times : float
        How many times as often units of the arm fail.
    needed : float
        Evidence at which the arm is rolled back.

    Returns
    -------
    Length

    Notes
    -----
    Exact for units that fail independently. It takes about 0.1 s where thousands of failures are
    needed, and is followed for 4,000 of them. The evidence is that of `failure_race.advance`.

    Examples
    --------
    >>> found = race_length(0.05, 10.0, 400.0)
    >>> found.failures(0.5), round(found.requests(0.5, 0.00725))
    (16.0, 2311)
    """
    odds = share * times
    in_arm = odds / (odds + 1 - share)
    hazards = np.array(HAZARDS)
    won, lost = np.log(hazards), np.log1p(share * (hazards - 1))
    alive, ended = np.ones(1), [0.0]
    for n in range(1, FAILURES_MAX + 1):
        after = np.zeros(len(alive) + 1)
        after[:-1] = alive * (1 - in_arm)
        after[1:] += alive * in_arm
        least = _least_to_cross(n, len(after), won, lost, math.log(needed))
        ended.append(ended[-1] + float(after[least:].sum()))
        alive = after[:least]
        if ended[-1] >= ENOUGH:
            break
    return Length(np.array(ended))


def _least_to_cross(n: int, size: int, won: Float, lost: Float, needed: float) -> int:
    """Fewest failures in the arm, of n, with which the evidence is over the limit."""
    low, high = 0, size
    while low < high:
        k = (low + high) // 2
        logs = k * won - n * lost
        top = float(logs.max())
        if top + math.log(float(np.exp(logs - top).mean())) > needed:
            high = k
        else:
            low = k + 1
    return low
