"""
Whether labels are classes or numbers, if the configuration leaves it open.

Rule of the file: rows are looked at one by one, in the order in which they were completed. So it
does not matter how they were cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.events.cells import BOOL, TEXT, Cells, class_text, tags
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.classes import Reading
from stream_monitor.settings import OTHER

Kind = Literal["classes", "numbers"]
DECIDE_LABELS = 100
"""Labelled rows after which it is decided at the latest."""
ODD_SHARE = 0.1
"""Numbers are the classes 0 and 1, or -1 and 1, when no more than this share of them is another."""
NUMBERS_MANY = 16
"""More classes than these, all of them numbers, may be a regression."""
NUMBERS_MANY = 16
"""More classes than these, all of them numbers, may be a regression."""
FRACTIONS = 10
"""
Labelled rows with fractions, or different fractions among the classes, that make labels numbers.
"""


def decided_kind(
    waiting: Iterable[tuple[Pairs, list[str]]], least: int, *, scored: bool
) -> tuple[Kind, bool] | None:
    """
    Decide whether labels are classes or numbers.

    They are classes as soon as a row without fractions has a score, or two names occurred and no
    number. They are numbers as soon as 10 rows had fractions. Otherwise the first 100 labelled rows
    decide. A
    few texts among numbers, or numbers beside 0 and 1 (or -1 and 1), decide nothing.

    Parameters
    ----------
    waiting : pairs and their texts
    least : int
        Number of rows after which it must be decided.
    scored : bool
        Whether there are class scores.

    Returns
    -------
    None or (kind, bool)
        The flag: they count as classes only because nearly all are 0 or 1. None: more rows are
        needed.
    """
    n = names = fractions = 0
    pairs_of_classes = {"0": 0, "-1": 0}
    """Rows of no other numbers than this one and 1."""
    found: set[str] = set()
    for pairs, texts in waiting:
        kinds = tags(np.stack([pairs.outcome, pairs.label]))
        named = ((kinds == TEXT) | (kinds == BOOL)).tolist()
        for i in range(min(len(pairs.row), DECIDE_LABELS - n)):
            n += 1
            cells = float(pairs.outcome[i]), float(pairs.label[i])
            classes = {t for c in cells if (t := class_text(c, texts)) is not None}
            fraction = any(map(is_fraction, classes))
            if not fraction and (scored or pairs.score[i] == pairs.score[i]):
                return "classes", False
            found |= classes
            fractions += fraction
            for negative in pairs_of_classes:
                pairs_of_classes[negative] += classes <= {negative, "1"}
            names += bool(named[0][i] and named[1][i]) and not fraction
            if names == n and len(found) > 1:
                return "classes", False
            if fractions >= FRACTIONS and not names:
                return "numbers", False
    if n < least:
        return None
    if names and 2 * names >= n:
        return "classes", False
    return (
        ("classes", not names)
        if n - max(pairs_of_classes.values()) <= ODD_SHARE * n
        else ("numbers", False)
    )


def numbers_of(cells: Cells, texts: list[str]) -> Float:
    """
    Cells as numbers, also numbers in texts; NaN if there is none.

    >>> numbers_of(np.array([2.0, np.nan]), []).tolist()
    [2.0, nan]
    """
    found: Float = np.where(cells == cells, cells, np.nan)  # noqa: PLR0124
    missing = np.isnan(found)
    if texts and missing.any():
        for i in np.flatnonzero(missing & (tags(cells) == TEXT)).tolist():
            name = class_text(float(cells[i]), texts) or ""
            found[i] = float(name) if is_number(name) else np.nan
    return found


def is_fraction(name: str) -> bool:
    """Whether a class is named by a number that is not whole."""
    return is_number(name) and not float(name).is_integer()


def is_number(name: str) -> bool:
    """Whether a class is named by a number."""
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def turned_out(reading: Reading, *, numeric: bool) -> tuple[bool, bool]:
    """
    Whether labels that seemed to be classes are numbers: they have fractions, or numbers beside 0
    and 1 are no longer rare.

    Parameters
    ----------
    reading : Reading
    numeric : bool
        Labels count as the classes 0 and 1 only because few of them were other numbers.

    Returns
    -------
    found, numeric : bool
        The second one is what `numeric` is from now on.
    """
    if numeric and (
        reading.task == "multiclass" or (len(reading.named) > NUMBERS_MANY and reading.many_further)
    ):
        numeric = all(is_number(name) for name in reading.named)
        return numeric, numeric
    fractions = sum(map(is_fraction, reading.named[2:])) >= FRACTIONS
    return fractions and all(is_number(n) for n in reading.named if n != OTHER), numeric
