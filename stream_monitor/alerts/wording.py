"""
The parts of alert summaries: names, windows, and readable numbers at any scale.

Rule of the file: pure text. Numbers have four significant digits, and more if two different numbers
would otherwise look the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

DIGITS = 4
DIGITS_MAX = 17
"""Two different floats differ within this many digits."""
PLAIN_FROM, PLAIN_BELOW = 1e-6, 1e15
"""Numbers between these two are written without an exponent."""
NAMES = {
    "__score__": "the score",
    "__prediction__": "the prediction",
    "__calibration__": "the calibration",
    "__latency__": "the latency",
    "latency_seconds": "the latency",
}
"""Of signals that are no feature."""


def number(value: float, digits: int = DIGITS) -> str:
    """
    A number with so many significant digits; whole digits are never cut off.

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


def apart(
    *values: float, form: Callable[[float, int], str] = number, digits: int = DIGITS
) -> tuple[str, ...]:
    """
    Numbers that are compared: different ones never look the same.

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


def signal(subject: str, *, binary: bool = True) -> str:
    """
    The name of a signal in sentences. Errors are a rate if they are 0 and 1 (`binary`).

    >>> [
    ...     signal(s)
    ...     for s in ("amount", "__error__", "__score__:fraud", "__prediction__", "__latency__")
    ... ]
    ['`amount`', 'the error rate', 'the score of class `fraud`', 'the prediction', 'the latency']
    """
    name, _, of = subject.partition(":")
    if subject == "__error__":
        return "the error rate" if binary else "the absolute error"
    if name == "__score__" and of:
        return f"the score of class `{of}`"
    return NAMES.get(subject, f"`{subject}`")


def labelled(window: str, rows: int) -> str:
    """
    A window of labelled predictions.

    >>> labelled("last_1000", 640), labelled("24h", 12_000)
    ('the last 640 labelled predictions', '24h (12,000 labelled predictions)')
    """
    return (
        f"the last {rows:,} labelled predictions"
        if window.startswith("last_")
        else f"{window} ({rows:,} labelled predictions)"
    )


def duration(seconds: float, digits: int = DIGITS - 1) -> str:
    """
    A length of time in its greatest fitting unit.

    >>> [duration(s) for s in (0.0125, 59, 600, 5400, 90000)]
    ['12.5 ms', '59 s', '10 min', '1.5 h', '25 h']
    """
    for unit, least in (("d", 172_800.0), ("h", 3_600.0), ("min", 120.0), ("s", 1.0)):
        if abs(seconds) >= least:
            per = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "s": 1.0}[unit]
            return f"{number(seconds / per, digits)} {unit}"
    return f"{number(seconds * 1e3, digits)} ms"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
