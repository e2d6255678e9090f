"""
How many requests a bad canary serves before the race of failures rolls it back.

Rule of the file: pure functions. The limit is that of the judgement (`alpha_guard`, guards, arms).
"""

from __future__ import annotations

import math

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.experiments.definition import SLOTS, Definition
from stream_monitor.stats.race_length import race_length

SHARES = (0.5, 0.9)


class Rollback(msgspec.Struct, frozen=True):
    """By when a share of such canaries is rolled back; a number is None if it is not followed."""

    share: float
    failures: float | None
    """First failures of units, of control and arm."""
    calls: float | None
    """Of all arms."""
    calls_of_arm: float | None
    days: float | None


class Raced(msgspec.Struct, frozen=True):
    """What the race of failures needs for an arm that fails so many times as often."""

    times: float
    arm: str
    needed: float
    """Evidence at which the arm is rolled back."""
    rollbacks: list[Rollback]


def raced(
    definition: Definition, times: float, mean: float, calls_a_day: float = math.nan
) -> Raced:
    """
    Requests until an arm is rolled back by the race of failures: the arm with the least traffic.

    Parameters
    ----------
    definition : Definition
    times : float
        How many times as often the arm fails.
    mean : float, ratio
        Share of the control's calls that fail.
    calls_a_day : float
        Of all arms; NaN: days are not known.

    Raises
    ------
    InputError
        A number cannot be.

    Notes
    -----
    Each failure is taken as the first one of its unit. Where users who failed come back and fail
    again, these calls come on top.

    Examples
    --------
    >>> from stream_monitor.experiments.definition import definition_of
    >>> event = {"model": "m", "experiment": "e", "arms": ["control", "canary"]}
    >>> event["weights"] = {"control": 95, "canary": 5}
    >>> event["primary"] = {"metric": "error", "effect": 0.005}
    >>> found = raced(definition_of(event), 10, 0.005)
    >>> [(r.failures, r.calls_of_arm) for r in found.rollbacks]
    [(16.0, 105.2), (30.0, 215.0)]
    """
    if not 1 < times < math.inf:
        raise InputError(f"--times {times:g}: expected a number above 1, such as 10")
    if not 0 < mean < 1:
        raise InputError(f"--mean {mean:g}: the share of calls that fail must be between 0 and 1")
    if mean * times >= 1:
        raise InputError(
            f"--times {times:g}: {times:g} times {mean:g} is no share; give a smaller number"
        )
    weights = [w / SLOTS for w in definition.weights]
    b = min(range(1, len(weights)), key=weights.__getitem__)
    pair = weights[0] + weights[b]
    if not min(weights[0], weights[b]) > 0:
        raise InputError("--weights: the control and the arm need traffic, or nothing is compared")
    share = weights[b] / pair
    guards = (len(definition.outcomes) + 1 + len(definition.races)) * (len(weights) - 1)
    needed = guards / definition.alpha_guard
    length = race_length(share, times, needed)
    rate = mean * (1 - share + share * times)
    found = []
    for part in SHARES:
        calls = length.requests(part, rate) / pair
        known = math.isfinite(calls)
        days = calls / calls_a_day
        found.append(
            Rollback(
                part,
                length.failures(part) if known else None,
                calls if known else None,
                round(calls * weights[b], 3) if known else None,
                days if math.isfinite(days) else None,
            )
        )
    return Raced(times, definition.arms[b].name, needed, found)
