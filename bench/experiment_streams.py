"""
Seeded streams of two arms, for `experiments.py`: outcomes in the order of a log.

Rule of the file: a stream is columns; nothing here knows how it will be judged. In an A/A stream
the arms are alike in everything but their share of traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float, Int, Bool = NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]
Random = np.random.Generator


class Rows(NamedTuple):
    """Rows of a log, in its order."""

    unit: Int
    """Numbers from 0 on."""
    arm: Int
    """0 is the control."""
    rank: Int
    """Which outcome of its unit: 0 is the first one."""
    dn: Float
    dx: Float
    """A new outcome is 1 and its value; a corrected one is 0 and the change of its value."""
    share: Float
    """Share of the arm in the traffic when the row was exposed."""

    def cut(self, flush: int) -> Iterator[Rows]:
        """Flushes of so many rows."""
        for start in range(0, len(self.unit), flush):
            yield Rows(*(column[start : start + flush] for column in self))


Stream = Callable[[Random], Rows]
Draw = Callable[[Random, Int], Float]
"""Outcomes of calls, by their arms."""


def _rows(
    rng: Random, time: Float, unit: Int, x: Float, share: float, corrected: Float | None = None
) -> Rows:
    """Rows in the order of their times; units are in the arms by a draw."""
    order = np.argsort(time, kind="stable")
    time, unit, x = time[order], unit[order], x[order]
    by_unit = np.argsort(unit, kind="stable")
    rank = np.empty(len(unit), np.int64)
    starts = np.flatnonzero(np.diff(unit[by_unit], prepend=-1))
    rank[by_unit] = np.arange(len(unit)) - np.repeat(starts, np.diff(starts, append=len(unit)))
    dn = np.ones(len(unit))
    if corrected is not None:  # some labels are wrong first
        change = corrected[order] - x
        at = np.flatnonzero(change)
        unit, rank = np.append(unit, unit[at]), np.append(rank, rank[at])
        dn, x = np.append(dn, np.zeros(len(at))), np.append(x, change[at])
        later = np.append(time, time[at] + rng.exponential(0.05 * np.ptp(time), len(at)))
        order = np.argsort(later, kind="stable")
        unit, rank, dn, x = unit[order], rank[order], dn[order], x[order]
    arm = (rng.random(int(unit.max()) + 1) < share).astype(np.int64)
    return Rows(unit, arm[unit], rank, dn, x, np.full(len(unit), share))


def _yes(rng: Random, p: Float) -> Float:
    return (rng.random(len(p)) < p).astype(np.float64)


def independent(draw: Draw, *, events: int = 20_000, share: float = 0.5) -> Stream:
    """Every event is a unit; `draw` gives outcomes by arm."""

    def stream(rng: Random) -> Rows:
        arm = (rng.random(events) < share).astype(np.int64)
        zeros = np.zeros(events, np.int64)
        x = draw(rng, arm)
        return Rows(np.arange(events), arm, zeros, np.ones(events), x, np.full(events, share))

    return stream


def shares(control: float, arm: float) -> Draw:
    """Yes/no outcomes with these shares of yes."""
    return lambda rng, arms: _yes(rng, np.where(arms == 1, arm, control))


def lognormal(sigma: float, change: float = 0.0) -> Draw:
    """Heavy-tailed outcomes; the logarithm of the arm is `change` higher."""
    return lambda rng, arms: np.exp(rng.normal(0, sigma, len(arms)) + change * arms)


def logarithms(draw: Draw) -> Draw:
    """The logarithms of outcomes."""
    return lambda rng, arms: np.log(draw(rng, arms))


def clustered(
    *,
    units: int = 1_500,
    events: int = 20,
    sd: float = 0.1,
    arriving: bool = False,
    ageing: bool = False,
    wrong: float = 0.0,
    share: float = 0.5,
) -> Stream:
    """
    Yes/no outcomes of units that differ: their rates have this standard deviation.

    Units come and go at any time, or arrive and stay; `ageing`: their rates fall with their age;
    `wrong`: share of labels that are wrong first and corrected later.
    """

    def stream(rng: Random) -> Rows:
        unit = np.repeat(np.arange(units), events)
        rate = np.clip(rng.normal(0.8, sd, units), 0, 1)[unit]
        born = rng.random(units)[unit] if arriving or ageing else np.zeros(len(unit))
        time = born + (1 - born) * rng.random(len(unit))
        rate = np.clip(rate - 0.5 * (time - born), 0, 1) if ageing else rate
        x = _yes(rng, rate)
        first = np.where(rng.random(len(x)) < wrong, 1 - x, x)
        return _rows(rng, time, unit, first, share, x if wrong else None)

    return stream


def pareto_activity(*, events: int = 30_000, bursts: bool = False, sd: float = 0.2) -> Stream:
    """Units of 1 to 2,000 events, Pareto (1.2); in bursts each has its events in one go."""

    def stream(rng: Random) -> Rows:
        size = np.minimum(rng.pareto(1.2, events) + 1, 2_000).astype(np.int64)
        size = size[: int(np.searchsorted(np.cumsum(size), events)) + 1]
        unit = np.repeat(np.arange(len(size)), size)
        rate = np.clip(rng.normal(0.7, sd, len(size)), 0, 1)[unit]
        born = rng.random(len(size))[unit]
        time = born + 1e-3 * rng.random(len(unit)) if bursts else rng.random(len(unit))
        return _rows(rng, time, unit, _yes(rng, rate), 0.5)

    return stream


def learning(*, units: int = 2_000, events: int = 20, arriving: bool = False) -> Stream:
    """Every unit is wrong in its first half and right afterwards: negative correlation."""

    def stream(rng: Random) -> Rows:
        unit = np.repeat(np.arange(units), events)
        place = np.tile(np.arange(events), units)
        born = rng.random(units)[unit] if arriving else np.zeros(len(unit))
        time = born + (1 - born) * (place + rng.random(len(unit))) / events
        return _rows(rng, time, unit, (place >= events // 2) * 1.0, 0.5)

    return stream


def ramp(steps: tuple[float, ...], draw: Draw, events: int) -> Stream:
    """Every event is a unit; the share of the arm goes up in equal steps."""

    def stream(rng: Random) -> Rows:
        share = np.repeat(steps, -(-events // len(steps)))[:events]
        arm = (rng.random(events) < share).astype(np.int64)
        zeros = np.zeros(events, np.int64)
        return Rows(np.arange(events), arm, zeros, np.ones(events), draw(rng, arm), share)

    return stream
