"""
Numbers as a person reads them, at any scale.

Rule of the file: pure text. Four significant digits are enough, until two numbers that differ would look the same: then there are as many as show the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

DIGITS = 4
DIGITS_MAX = 17
"""Two different floats differ within so many."""
PLAIN_FROM, PLAIN_BELOW = 1e-6, 1e15
"""Numbers between them are written without an exponent."""


def number(value: float, digits: int = DIGITS) -> str:
    """
    A number with so many significant digits; whole digits are never cut away.

    Examples
    --------
    >>> [number(v) for v in (0.75, 1e-6, 123456.789, 1e300, -2.5e-9, 0.0, float("inf"))]
    ['0.75', '0.000001', '123,457', '1e300', '-2.5e-9', '0', 'infinite']
    """
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite" if value > 0 else "-infinite"
    if not value:
        return "0"
    if not PLAIN_FROM <= abs(value) < PLAIN_BELOW:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{_trimmed(mantissa)}e{int(exponent)}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return _trimmed(f"{value:,.{decimals}f}")


def percent(value: float, digits: int = DIGITS - 1) -> str:
    """
    A share in percent.

    >>> [percent(v) for v in (0.5, 0.12345, 1.0, 2e-7)]
    ['50%', '12.3%', '100%', '0.00002%']
    """
    return f"{number(value * 100, digits)}%"


def apart(*values: float, form: Callable[[float, int], str] = number, digits: int = DIGITS) -> tuple[str, ...]:
    """
    Numbers that are compared: those that differ never look the same.

    Examples
    --------
    >>> apart(0.99991, 0.9999), apart(0.756, 0.8), apart(1e300, 2e300)
    (('0.99991', '0.9999'), ('0.756', '0.8'), ('1e300', '2e300'))
    >>> apart(0.50001, 0.5, form=percent)
    ('50.001%', '50%')
    """
    texts = tuple(form(value, digits) for value in values)
    while digits < DIGITS_MAX and len(set(texts)) < len(set(values)):
        digits += 1
        texts = tuple(form(value, digits) for value in values)
    return texts


def named(model: str, version: str) -> str:
    """
    A model version as sentences begin.

    >>> named("fraud", "3"), named("fraud", "")
    ('fraud 3', 'fraud')
    """
    return f"{model} {version}" if version else model


def duration(seconds: float) -> str:
    """
    A time in its greatest fitting unit.

    >>> [duration(s) for s in (0.0125, 59, 600, 5400, 90000)]
    ['12.5 ms', '59 s', '10 min', '1.5 h', '25 h']
    """
    for unit, least in (("d", 172_800.0), ("h", 3_600.0), ("min", 120.0), ("s", 1.0)):
        if abs(seconds) >= least:
            per = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "s": 1.0}[unit]
            return f"{number(seconds / per, 3)} {unit}"
    return f"{number(seconds * 1e3, 3)} ms"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
