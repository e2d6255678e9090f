"""
Weights of an experiment as slots: which arm owns which of the 10,000 slots.

Rule of the file: pure functions on tables of ranges. A table is carried by the event on
`lifecycle`, so a router needs no history. A change of weights moves slots only from arms that
shrink to arms that grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

SLOTS = 10_000
"""A slot is a hundredth of a percent."""

Ranges = list[tuple[int, str]]
"""(first slot after the range, arm), ascending; the last ends at `SLOTS`."""

_FLOAT_DIGITS = 9
"""A float such as 0.1 + 0.2 is read as what was meant."""


def shares(weights: Mapping[str, float | Decimal]) -> dict[str, int]:
    """
    Give each arm its number of slots; together they are `SLOTS`.

    Parameters
    ----------
    weights : mapping of arm to number >= 0
        Usually percent. Each weight is a part of the sum of all weights, so 3 and 1 are 75 % and
        25 %.

    Returns
    -------
    dict of arm to int
        Slots, in the order of `weights`.

    Raises
    ------
    ValueError
        A weight is not a finite number >= 0, all are 0, or a part is not a whole hundredth of a
        percent. Rounding would give an arm another share than the one that is written down.

    Examples
    --------
    >>> shares({"control": 99, "b": 1})
    {'control': 9900, 'b': 100}
    >>> shares({"control": 1, "b": 1, "c": 1})
    Traceback (most recent call last):
    ...
    ValueError: weights.control: 1 of 3 is not a whole hundredth of a percent; write {'control': \
33.34, 'b': 33.33, 'c': 33.33}
    """
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(
            f"weights: expected an object of arm to percent, got {weights!r}; "
            'write {"control": 99, "b": 1}'
        )
    parts = {name: _part(name, weight) for name, weight in weights.items()}
    total = sum(parts.values())
    if total == 0:
        raise ValueError(f"weights: all are 0 in {dict(weights)!r}; give one arm more than 0")
    exact = {name: part * SLOTS / total for name, part in parts.items()}
    for name, slots in exact.items():
        if slots.denominator != 1:
            raise ValueError(
                f"weights.{name}: {weights[name]} of {float(total):g} is not a whole hundredth of "
                f"a percent; write {_rounded(exact)!r}"
            )
    return {name: int(slots) for name, slots in exact.items()}


def reassign(
    old: Iterable[tuple[int, str]],
    weights: Mapping[str, float | Decimal],
    *,
    control: str | None = None,
) -> Ranges:
    """
    Make the table of new weights from the table before, so that as few slots move as can be.

    Half of the sum of |change| moves, and no slot leaves an arm that grows. The control keeps its
    lowest slots, every other arm its highest, so an arm that grows and shrinks again keeps its
    oldest keys.

    Parameters
    ----------
    old : ranges
        The table before; empty for a new experiment.
    weights : mapping of arm to number >= 0
        As for `shares`. Arms may come and go.
    control : str, optional
        The arm that keeps its lowest slots; the first of `weights` if left out.

    Returns
    -------
    list of (int, str)
        The table, to be written as `ranges` of the event.

    Raises
    ------
    ValueError
        The weights or the old table are wrong.

    Notes
    -----
    A few milliseconds: it is made for whoever starts or changes an experiment, not for a call.

    Examples
    --------
    >>> table = reassign([], {"control": 99, "b": 1})
    >>> table, reassign(table, {"control": 75, "b": 25})
    ([(9900, 'control'), (10000, 'b')], [(7500, 'control'), (10000, 'b')])
    """
    want = shares(weights)
    control = next(iter(want)) if control is None else control
    own: dict[str, list[int]] = {name: [] for name in want}
    free: list[int] = []
    start = 0
    for end, name in checked(old) if (old := list(old)) else []:
        own.setdefault(name, []).extend(range(start, end))
        start = end
    free.extend(range(start, SLOTS))
    for name, slots in own.items():
        keep = min(len(slots), want.get(name, 0))
        cut = keep if name == control else len(slots) - keep
        low, high = slots[:cut], slots[cut:]
        own[name], lost = (low, high) if name == control else (high, low)
        free.extend(lost)
    free.sort()
    for name, slots in own.items():
        missing = want.get(name, 0) - len(slots)
        cut = missing if name == control else len(free) - missing
        low, high = free[:cut], free[cut:]
        gained, free = (low, high) if name == control else (high, low)
        slots.extend(gained)
    owner = [""] * SLOTS
    for name, slots in own.items():
        for slot in slots:
            owner[slot] = name
    return [
        (slot + 1, owner[slot])
        for slot in range(SLOTS)
        if slot + 1 == SLOTS or owner[slot + 1] != owner[slot]
    ]


def checked(ranges: Any) -> Ranges:
    """
    Read a table of ranges as JSON has it.

    Raises
    ------
    ValueError
        It is not a list of [end, arm] with ends that ascend to `SLOTS`.

    Examples
    --------
    >>> checked([[9900, "control"], [10000, "b"]])
    [(9900, 'control'), (10000, 'b')]
    >>> checked([[9900, "control"]])
    Traceback (most recent call last):
    ...
    ValueError: ranges: the last range must end at 10000, not at 9900
    """
    if not isinstance(ranges, (list, tuple)) or not ranges:
        raise ValueError(f"ranges: expected a list of [end, arm], got {ranges!r}")
    table: Ranges = []
    end = 0
    for i, item in enumerate(ranges):
        pair = item if isinstance(item, (list, tuple)) and len(item) == 2 else (None, None)
        if type(pair[0]) is not int or not isinstance(pair[1], str) or not pair[1]:
            raise ValueError(f'ranges[{i}]: expected [end, arm] such as [9900, "b"], got {item!r}')
        if not end < pair[0] <= SLOTS:
            raise ValueError(
                f"ranges[{i}]: expected an end above {end} and up to {SLOTS}, got {pair[0]}"
            )
        end = pair[0]
        table.append((end, pair[1]))
    if end != SLOTS:
        raise ValueError(f"ranges: the last range must end at {SLOTS}, not at {end}")
    return table


def _part(name: Any, weight: Any) -> Fraction:
    if not isinstance(name, str) or not name:
        raise ValueError(f"weights: the name of an arm must be text, got {name!r}")
    number = isinstance(weight, (int, float, Decimal)) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or weight < 0:
        raise ValueError(f"weights.{name}: expected a number of at least 0, got {weight!r}")
    exact = round(weight, _FLOAT_DIGITS) if isinstance(weight, float) else weight
    return Fraction(str(exact))


def _rounded(exact: Mapping[str, Fraction]) -> dict[str, float]:
    """Weights by largest remainder, in percent: what could have been written instead."""
    slots = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: slots[name] - exact[name])
    for name in by_remainder[: SLOTS - sum(slots.values())]:
        slots[name] += 1
    return {name: value / 100 for name, value in slots.items()}
