"""
Numbers as people write them: with groups of thousands, decimal commas, money and percent.

Rule of the file: one cell at a time. A cell such as 1,234 has two readings; its whole column
decides which one is right (`columns`).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Decimal = Literal["point", "comma"]

_MONEY = re.compile(r"^([+-]?)[$€£¥]\s?|\s?[$€£¥]$")
_SPACES = re.compile(r"(?<=\d)[ '’\u00a0\u202f](?=\d{3}(?:\D|$))")
GROUPS = {mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:\{mark}\d{{3}})+") for mark in ",."}
"""By mark: whole numbers whose thousands are grouped with it."""
_DIGITS = re.compile(r"[+-]?\d[\d.,]*(?:[eE][+-]?\d+)?|[+-]?[.,]\d+(?:[eE][+-]?\d+)?")


class Written(NamedTuple):
    """A cell that may be a number in one of these forms."""

    body: str
    """Digits, marks and exponent, without money sign, percent and blanks between groups."""
    percent: bool
    says: Decimal | None
    """The only decimal mark that fits; None if both readings are numbers."""


def written(cell: str) -> Written | None:
    """
    Split a cell into its parts; None if it is not a number in any form.

    Examples
    --------
    >>> [
    ...     written(c).says
    ...     for c in ("1,234.5", "1.234,5", "12,5", "1,234", "1.234", "12.5", "1,234,567", "7")
    ... ]
    ['point', 'comma', 'comma', None, None, 'point', 'point', None]
    >>> written("12,5 %"), written("$1 234"), written("5O.1"), written("1,23,4")
    (Written(body='12,5', percent=True, says='comma'), Written(body='1234', percent=False, says=None), None, None)
    """  # noqa: E501
    body = cell.strip().replace("−", "-")
    percent = body.endswith("%")
    body = _MONEY.sub(r"\1", body[:-1].rstrip() if percent else body)
    body = _SPACES.sub("", body)
    if not _DIGITS.fullmatch(body):
        return None
    mantissa = re.split("[eE]", body, maxsplit=1)[0]
    point, comma = _fits(mantissa, ".", ","), _fits(mantissa, ",", ".")
    if not (point or comma):
        return None
    return Written(body, percent, None if point and comma else "point" if point else "comma")


def _fits(mantissa: str, mark: str, group: str) -> bool:
    """Whether the mantissa is a number with this decimal mark and this mark between thousands."""
    whole, _, fraction = mantissa.partition(mark)
    if mark in fraction or group in fraction:
        return False
    return group not in whole or bool(GROUPS[group].fullmatch(whole))


def value_of(found: Written, decimal: Decimal) -> float | None:
    """
    The number of a cell with this decimal mark; None if the cell cannot have that mark.

    Examples
    --------
    >>> (
    ...     value_of(written("1,234"), "point"),
    ...     value_of(written("1,234"), "comma"),
    ...     value_of(written("12,5%"), "comma"),
    ... )
    (1234.0, 1.234, 0.125)
    >>> value_of(written("12,5"), "point")
    """
    if found.says not in (None, decimal):
        return None
    body = (
        found.body.replace(",", "")
        if decimal == "point"
        else found.body.replace(".", "").replace(",", ".")
    )
    number = float(body)
    # 15 digits: the division must not turn 14.1 % into 0.14099999999999999
    return float(f"{number / 100:.15g}") if found.percent else number
