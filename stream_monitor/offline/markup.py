"""
Numbers, tables and lists of a report.

Rule of the file: text in, HTML out. Every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

TEXTS = ("what", "kind", "detector", "reason", "what is wrong with it", "why")
"""Headings of columns whose cells are texts, not numbers."""


def count(n: int, noun: str) -> str:
    """
    So many of something.

    >>> count(1, "row"), count(2_000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def when(text: str | None) -> str:
    """A time to the minute."""
    return "" if text is None else escape(text[:16].replace("T", " "))


def number(value: Any) -> str:
    """A number with four digits; text is escaped."""
    return (
        ""
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else escape(str(value))
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already, a heading is not."""
    lines = "".join(
        "<tr>"
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    names = "".join(
        f'<th class="text">{escape(h)}</th>' if h in TEXTS else f"<th>{escape(h)}</th>"
        for h in head
    )
    return f'<div class="scroll"><table><tr>{names}</tr>{lines}</table></div>'


def sentences(heading: str, texts: Sequence[str]) -> str:
    """A list under a heading; nothing without texts."""
    return (
        f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(s)}</li>' for s in texts)}</ul>"
        if texts
        else ""
    )
