"""
Numbers, tables and lists of a report.

Rule of the file: text in, HTML out. Every text from the input is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

TEXTS = ("what", "kind", "detector", "reason", "what is wrong with it", "why", "what changed")
"""Headings of columns whose cells are texts, not numbers."""
NAME_MAX = 80
"""Characters of a name that are shown."""


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


def short(text: str) -> str:
    """
    A name of at most `NAME_MAX` characters.

    >>> short("x" * 100) == "x" * 79 + "…", short("amount")
    (True, 'amount')
    """
    return text if len(text) <= NAME_MAX else text[: NAME_MAX - 1] + "…"


def prose(text: str) -> str:
    """
    A sentence, in which names stand between backticks.

    >>> prose("the mean of `<b>` rose")
    'the mean of <code>&lt;b&gt;</code> rose'
    """
    parts = re.split(r"`([^`]+)`", text)
    return "".join(
        f"<code>{escape(short(part))}</code>" if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )


def sentence(text: str) -> str:
    """
    A sentence with a capital, unless it begins with a name.

    >>> sentence("the mean rose"), sentence("`x` is missing"), sentence("limits.versions is 20")
    ('The mean rose', '`x` is missing', 'limits.versions is 20')
    """
    word = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if word.strip(",:").isalpha() else text


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", kind: str = "stack"
) -> str:
    """
    A table; cells are HTML already, headings and caption are not. On a narrow screen each row of a
    `stack` becomes a list of its cells.
    """
    marks = (
        [f' data-h="{escape(h)}"' for h in head] if kind.startswith("stack") else [""] * len(head)
    )
    lines = "".join(
        '<tr role="row">'
        + "".join(
            f'<td role="cell"{mark}{cell[3:]}'
            if cell.startswith("<td")
            else f'<td role="cell"{mark}>{cell}</td>'
            for cell, mark in zip(row, marks, strict=False)
        )
        + "</tr>"
        for row in rows
    )
    names = "".join(
        f'<th role="columnheader" scope="col"{" class=text" if h in TEXTS else ""}>{escape(h)}</th>'
        for h in head
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table role="table" class="{kind}">{above}<thead role="rowgroup">'
        f'<tr role="row">{names}</tr></thead><tbody role="rowgroup">{lines}</tbody></table></div>'
    )


def words(inside: str) -> str:
    """A cell of a table whose content, HTML already, is text."""
    return f'<td class="text"><span>{inside}</span></td>'


def details(summary: str, inside: str, *, is_open: bool = False) -> str:
    """Something that opens on request; the summary is not HTML."""
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{escape(summary)}</summary>{inside}</details>"


def sentences(heading: str, texts: Sequence[str]) -> str:
    """A list under a heading; nothing without texts."""
    return (
        f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{prose(s)}</li>' for s in texts)}</ul>"
        if texts
        else ""
    )
