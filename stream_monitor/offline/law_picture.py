"""
The picture of a law: its bins before and after, over each other, and the numbers as a table.

Rule of the file: SVG and HTML without a script. Widths are percent and heights are pixels, so texts
have their size at every width of the page. Every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import isfinite
from typing import NamedTuple

from stream_monitor.alerts.wording import number, percent
from stream_monitor.offline.laws import Bin, Law
from stream_monitor.offline.markup import count, details, prose, short, table

HEIGHT, BELOW = 130, 20
NAMES_MAX = 15
"""So many names have a bar each."""
LEVELS_MAX = 8
"""So few bins, some of one value, are drawn as names are."""
LABELLED_MAX = 12
"""So many bars have a name each, if it is short."""
TO_SCALE_MIN = 6
"""Bins that hold intervals only, from so many on, are as wide as their intervals."""
TAIL = 0.07
"""Width of an open bin at the end."""
GAP, SLOT = 0.05, 0.12
"""Between the numbers and what is no number, and the width of that."""
PARTS = 24
"""Bins that are narrower than such a part of the way are drawn together with the next one."""


class _Bar(NamedTuple):
    """A bar, in shares of the width; heights are shares of the greatest."""

    left: float
    width: float
    before: float
    after: float
    title: str


def law_picture(law: Law, name: str, text: str) -> str:
    """
    A figure of a law.

    Parameters
    ----------
    law : Law
    name : str
        Of the signal, for people.
    text : str
        What changed.
    """
    kept = [b for b in _kept(law)[0] if b.is_number]
    few = len(kept) <= LEVELS_MAX and any(b.is_value for b in kept)
    inside = _levels(law) if few or not kept else _numbers(law)
    caption = f"<strong>{prose(name)}</strong>{': ' if text else ''}{prose(text)}"
    return f'<figure class="law"><figcaption>{caption}</figcaption>{_legend(law)}{inside}</figure>'


def _legend(law: Law) -> str:
    kinds = (("was", law.before_is, law.before), ("now", law.after_is, law.after))
    spans = (
        f'<span class="{kind}">{escape(name)}, {count(round(sum(counts)), "row")}</span>'
        for kind, name, counts in kinds
        if any(counts)
    )
    return f'<p class="legend">{" ".join(spans)}</p>'


def _levels(law: Law) -> str:
    """Names: a bar each, with its shares in words."""
    law = fewer(law)
    shares = law.shares()
    kept = [(b, s, n) for b, s, n in zip(law.bins, shares, _counts(law), strict=True) if any(s)]
    most = max((max(s) for _, s, _ in kept), default=1.0)
    rows = "".join(
        f'<tr><th scope="row">{escape(short(b.text))}</th><td class="bars" '
        f'title="{escape(_title(b, n, s))}">'
        f'<i class="was" style="width:{_percent(s[0] / most)}"></i>'
        f'<i class="now" style="width:{_percent(s[1] / most)}"></i></td>'
        f"<td>{percent(s[0])}</td><td>{percent(s[1])}</td></tr>"
        for b, s, n in kept
    )
    head = '<th scope="col">value</th><td></td><th scope="col">was</th><th scope="col">is</th>'
    return f'<table class="levels"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def fewer(law: Law) -> Law:
    """
    A law whose least frequent names are together, if there are many.

    >>> law = Law(
    ...     "x",
    ...     0,
    ...     0,
    ...     0,
    ...     0,
    ...     tuple(Bin(f"c{k}") for k in range(40)),
    ...     tuple(map(float, range(40))),
    ...     (1.0,) * 40,
    ...     "",
    ...     "",
    ...     {},
    ... )
    >>> [b.text for b in fewer(law).bins][-2:], fewer(law).after[-1]
    (['c39', '26 others'], 26.0)
    """
    if len(law.bins) <= NAMES_MAX:
        return law
    most = [max(s) for s in law.shares()]
    order = sorted(range(len(most)), key=lambda k: -most[k])
    kept = sorted(order[: NAMES_MAX - 1])
    rest = order[NAMES_MAX - 1 :]
    before, after = (
        (*(c[k] for k in kept), sum(c[k] for k in rest)) for c in (law.before, law.after)
    )
    bins = (*(law.bins[k] for k in kept), Bin(f"{len(rest)} others"))
    return law._replace(bins=bins, before=before, after=after)


def _counts(law: Law) -> list[tuple[float, float]]:
    return list(zip(law.before, law.after, strict=True))


def _title(of: Bin, counts: tuple[float, float], shares: tuple[float, float]) -> str:
    was, now = (
        f"{percent(s)} ({count(round(n), 'row')})" for s, n in zip(shares, counts, strict=True)
    )
    return f"{of.text}: was {was}, is {now}"


def _numbers(law: Law) -> str:
    law = merged(law)
    bins, shares, counts = _kept(law)
    places, to_scale = _places(bins)
    # to scale, a share is an area, also that of rows without a number
    heights = [
        tuple(s / (w if to_scale else 1.0) for s in share)
        for share, (_, w) in zip(shares, places, strict=True)
    ]
    most = max((max(h) for h in heights), default=1.0) or 1.0
    bars = [
        _Bar(left, width, h[0] / most, h[1] / most, _title(b, n, s))
        for b, (left, width), h, n, s in zip(bins, places, heights, counts, shares, strict=True)
    ]
    label = f"{law.signal}: shares of {len(bins)} bins before and after; the table has the numbers"
    svg = (
        f'<svg role="img" height="{HEIGHT + BELOW}" aria-label="{escape(label)}">'
        f"{''.join(map(_bar, bars))}"
        f'<line x2="100%" y1="{HEIGHT}" y2="{HEIGHT}" class="axis"/>'
        f"{''.join(_ticks(bins, places, to_scale=to_scale))}</svg>"
    )
    rows = [
        (f"<td>{escape(b.text)}</td>", *(f"{round(x):,}" for x in n), *(percent(x) for x in s))
        for b, n, s in zip(bins, counts, shares, strict=True)
    ]
    names = ("value", law.before_is, law.after_is, "share", "share now")
    return svg + details("Numbers", table(names, rows, kind="plain"))


def merged(law: Law) -> Law:
    """
    A law whose narrow bins are joined, so that few rows do not look like peaks. Bins of one value
    stay.

    >>> bins = tuple(Bin("", x, x + w) for x, w in ((0.0, 10.0), (10.0, 0.1), (10.1, 0.3)))
    >>> law = Law("x", 0, 0, 0, 0, bins, (1.0, 2.0, 3.0), (0.0, 1.0, 0.0), "", "", {})
    >>> [b.text for b in merged(law).bins], merged(law).before
    (['0 to 10', '10 to 10.4'], (1.0, 5.0))
    """
    inner = [b for b in law.bins if b.is_number and isfinite(b.low) and isfinite(b.high)]
    if not inner or any(b.is_value for b in inner):
        return law
    least = (inner[-1].high - inner[0].low) / PARTS
    out: list[list[int]] = []
    for i, b in enumerate(law.bins):
        last = [law.bins[k] for k in out[-1]] if out else []
        if b in inner and last and last[0] in inner and last[-1].high - last[0].low < least:
            out[-1].append(i)
        else:
            out.append([i])
    joined = tuple(
        law.bins[k[0]] if len(k) == 1 else Bin("", law.bins[k[0]].low, law.bins[k[-1]].high)
        for k in out
    )
    before, after = (tuple(sum(c[i] for i in k) for k in out) for c in (law.before, law.after))
    return law._replace(bins=joined, before=before, after=after)


def _kept(law: Law) -> tuple[list[Bin], list[tuple[float, float]], list[tuple[float, float]]]:
    """Bins without the empty ones that say nothing: gaps between values, and no missing ones."""
    some_values = any(b.is_number and b.is_value for b in law.bins)
    every = list(zip(law.bins, law.shares(), _counts(law), strict=True))
    kept = [(b, s, n) for b, s, n in every if any(s) or (b.is_number and not some_values)] or every[
        :1
    ]
    bins, shares, counts = zip(*kept, strict=True)
    return list(bins), list(shares), list(counts)


def _places(bins: Sequence[Bin]) -> tuple[list[tuple[float, float]], bool]:
    """Left edge and width of each bar, and whether intervals are drawn to scale."""
    numbers = [b for b in bins if b.is_number]
    others = len(bins) - len(numbers)
    slot = min(1 / max(len(bins), 1), SLOT) if len(numbers) < TO_SCALE_MIN else SLOT
    room = 1.0 - others * slot - (GAP if others and numbers else 0.0)
    to_scale = len(numbers) >= TO_SCALE_MIN and not any(b.is_value for b in numbers)
    places, left = list[tuple[float, float]](), 0.0
    inner = [b for b in numbers if isfinite(b.low) and isfinite(b.high)]
    reach = inner[-1].high - inner[0].low if to_scale and inner else 0.0
    to_scale = to_scale and 0 < reach < float("inf")
    tails = len(numbers) - len(inner)
    for b in numbers:
        if to_scale and b in inner:
            width = (1 - TAIL * tails) * room * (b.high - b.low) / reach
        else:
            width = TAIL * room if to_scale else room / len(numbers)
        places.append((left, width))
        left += width
    left += GAP if others and numbers else 0.0
    for _ in range(others):
        places.append((left, slot))
        left += slot
    return places, to_scale


def _percent(share: float) -> str:
    """
    A length for CSS and SVG.

    >>> _percent(0.5), _percent(1 / 3), _percent(0.0)
    ('50%', '33.33%', '0%')
    """
    return f"{round(100 * share, 2):g}%"


def _bar(bar: _Bar) -> str:
    x, width = _percent(bar.left), _percent(bar.width)
    was, now = (round(HEIGHT * h, 1) for h in (bar.before, bar.after))
    parts = [f"<g><title>{escape(bar.title)}</title>"]
    if was:
        parts.append(
            f'<rect class="was" x="{x}" width="{width}" y="{round(HEIGHT - was, 1):g}" '
            f'height="{was:g}"/>'
        )
    if now:
        top = round(HEIGHT - now, 1)
        parts.append(
            f'<rect class="now" x="{x}" width="{width}" y="{top:g}" height="{now:g}"/>'
            f'<line class="now" x1="{x}" x2="{_percent(bar.left + bar.width)}" y1="{top:g}" '
            f'y2="{top:g}"/>'
        )
    return "".join(parts) + "</g>"


def _ticks(
    bins: Sequence[Bin], places: Sequence[tuple[float, float]], *, to_scale: bool
) -> list[str]:
    """Names under the axis, with room between them."""
    numbers = [i for i, b in enumerate(bins) if b.is_number]
    marks = [
        (places[i][0] + places[i][1] / 2, b.text) for i, b in enumerate(bins) if not b.is_number
    ]
    if to_scale:
        low, high = bins[numbers[0]].high, bins[numbers[-1]].low
        if not isfinite(bins[numbers[0]].low):
            start = places[numbers[0]][1]
        else:
            start, low = 0.0, bins[numbers[0]].low
        last = places[numbers[-1]]
        if isfinite(bins[numbers[-1]].high):
            end, high = last[0] + last[1], bins[numbers[-1]].high
        else:
            end = last[0]
        for part in (0.0, 0.5, 1.0):
            value = low + part * (high - low)
            marks.append((start + part * (end - start), number(value, 3)))
    elif len(numbers) <= LABELLED_MAX and all(len(bins[i].text) <= 3 for i in numbers):
        marks += [(places[i][0] + places[i][1] / 2, bins[i].text) for i in numbers]
    else:
        for i in sorted({numbers[len(numbers) * k // 4] for k in (1, 2, 3)} | {numbers[0]}):
            b = bins[i]
            if b.is_value:
                marks.append((places[i][0] + places[i][1] / 2, number(b.low, 3)))
            elif isfinite(b.low):
                marks.append((places[i][0], number(b.low, 3)))
    return [
        f'<text x="{_percent(x)}" y="{HEIGHT + 15}" text-anchor="{_anchor(x)}">'
        f"{escape(text)}</text>"
        for x, text in marks
    ]


def _anchor(x: float) -> str:
    return "start" if x < 0.06 else "end" if x > 0.94 else "middle"
