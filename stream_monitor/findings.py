"""
The result of a check of `doctor`: one line.

Rule of the file: plain values. A finding that is not ok says what to do.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Status = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One line of the report."""

    check: str
    status: Status
    detail: str
    advice: str = ""


def span(ms: int) -> str:
    """
    A length of time as `monitor.yaml` writes it.

    Examples
    --------
    >>> span(86_400_000), span(5_400_000), span(250)
    ('1d', '90m', '250ms')
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size and not ms % size:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def about(ms: int) -> str:
    """
    A length of time for people.

    Examples
    --------
    >>> about(7_300_000), about(250)
    ('2 h', '250 ms')
    """
    for unit, size in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= 2 * size:
            return f"{ms / size:.0f} {unit}"
    return f"{ms} ms"
