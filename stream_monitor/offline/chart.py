"""
The charts of a report over time: a metric with its limit and its reference, and when alerts fired.

Rule of the file: SVG that is part of the page, without a script. Widths are percent and heights are
pixels. Colours are variables of the page's style, and every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from math import floor, isfinite, log10
from typing import NamedTuple

from stream_monitor.alerts.wording import number
from stream_monitor.inputs.moments import parse_time_ms
from stream_monitor.offline.episodes import Episode
from stream_monitor.offline.markup import short
from stream_monitor.offline.replay import Point
from stream_monitor.times import DAY_MS, rfc3339

TOP, HEIGHT, BELOW, LANE = 16, 150, 20, 10
BOTTOM = TOP + HEIGHT
UNITS = 1_000
"""Width of the inner picture, in its own units."""
LANES_MAX, MARKS_MAX = 20, 20
"""Lines of alerts, and causes in a chart: the first, which are the worst."""


class Level(NamedTuple):
    """A level that a metric is compared with."""

    value: float
    name: str
    kind: str
    """`limit` or `reference`."""


class Mark(NamedTuple):
    """A cause: when it began, when it was found, and when it ended (None: it has not)."""

    name: str
    severity: str
    change_ms: int
    found_ms: int
    end_ms: int | None


class Scale(NamedTuple):
    """The positions of times and values in the chart."""

    first_ms: int
    last_ms: int
    low: float
    high: float

    def share(self, time_ms: float) -> float:
        """Horizontal position of a time, 0 to 1; times outside the chart are at its edges."""
        inside_ms = min(max(time_ms, self.first_ms), self.last_ms)
        return (inside_ms - self.first_ms) / (self.last_ms - self.first_ms)

    def x(self, time_ms: float) -> str:
        """Horizontal position of a time, in percent."""
        return f"{round(100 * self.share(time_ms), 2):g}%"

    def y(self, value: float) -> float:
        """Vertical position of a value, in pixels."""
        return round(TOP + HEIGHT * (self.high - value) / (self.high - self.low), 1)


def curve(
    metric: str,
    window: str,
    points: Sequence[Point],
    levels: Sequence[Level] = (),
    marks: Sequence[Mark] = (),
) -> str:
    """A metric over time, the levels that it is compared with, and the causes."""
    values = [p.metrics[metric] for p in points]
    inside = [v for v in (level.value for level in levels) if v == v]  # noqa: PLR0124 - NaN
    scale = _scale(points[0].time_ms, points[-1].time_ms, [*values, *inside])
    line = " ".join(
        f"{round(UNITS * scale.share(p.time_ms)):g},{scale.y(v):g}"
        for p, v in zip(points, values, strict=True)
    )
    marks = apart_enough(scale, marks[:MARKS_MAX])
    out = [
        *(_span(scale, mark) for mark in marks),
        *_grid(scale),
        *(_level(scale, level) for level in levels),
        (
            f'<svg viewBox="0 0 {UNITS} {BOTTOM}" width="100%" height="{BOTTOM}" '
            f'preserveAspectRatio="none"><polyline points="{line}" class="data"/></svg>'
        ),
        *(_sign(scale, mark) for mark in marks),
        *_times(scale),
    ]
    title = metric.replace("_", " ")
    said = "".join(f"; {level.name}: {number(level.value)}" for level in levels)
    caption = f"<strong>{escape(title)}</strong> over {escape(window)}{escape(said)}"
    first, last, least, most = (
        number(v) for v in (values[0], values[-1], min(values), max(values))
    )
    label = f"{title} from {first} to {last}, between {least} and {most}{said}"
    return (
        f'<figure class="curve"><figcaption>{caption}</figcaption><div class="plot"><svg '
        f'role="img" height="{BOTTOM + BELOW}" aria-label="{escape(label)}">{"".join(out)}</svg>'
        "</div></figure>"
    )


def _scale(first_ms: int, last_ms: int, values: Sequence[float]) -> Scale:
    """A scale with some room above and below, also if all values are equal."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return Scale(first_ms, max(last_ms, first_ms + 1), low - pad, high + pad)


def _grid(scale: Scale) -> list[str]:
    """Round levels with their values."""
    out = []
    for level in round_levels(scale.low, scale.high):
        y = scale.y(level)
        out.append(
            f'<line x2="100%" y1="{y}" y2="{y}" class="grid"/><text x="-6" y="{y + 4}" '
            f'text-anchor="end">{number(level, 3)}</text>'
        )
    return out


def round_levels(low: float, high: float) -> list[float]:
    """
    Three to five round numbers between two.

    >>> round_levels(0.57, 0.79), round_levels(3.0, 3_100.0)
    ([0.6, 0.65, 0.7, 0.75], [1000.0, 2000.0, 3000.0])
    """
    if not isfinite(high - low):
        return []
    step = 10.0 ** floor(log10(high - low))
    for part in (5.0, 2.0, 1.0, 0.5, 0.2, 0.1):
        fine = step * part
        first, last = -int(-low // fine), int(high // fine)
        if last - first >= 2:
            return [float(f"{k * fine:.12g}") for k in range(first, last + 1)]
    return []


def _times(scale: Scale) -> list[str]:
    """The first time, one in the middle and the last."""
    first_ms, last_ms = scale.first_ms, scale.last_ms
    form = slice(0, 10) if last_ms - first_ms > 10 * DAY_MS else slice(5, 16)
    return [
        f'<text x="{scale.x(time_ms)}" y="{BOTTOM + 16}" text-anchor="{anchor}">'
        f"{rfc3339(time_ms)[form].replace('T', ' ')}</text>"
        for time_ms, anchor in (
            (first_ms, "start"),
            ((first_ms + last_ms) // 2, "middle"),
            (last_ms, "end"),
        )
    ]


def _level(scale: Scale, level: Level) -> str:
    y = scale.y(level.value)
    at, anchor = ("0", "start") if level.kind == "limit" else ("100%", "end")
    return (
        f'<line x2="100%" y1="{y}" y2="{y}" class="{level.kind}"/>'
        f'<text x="{at}" y="{y - 4}" text-anchor="{anchor}" class="{level.kind}">'
        f"{level.kind}</text>"
    )


def _span(scale: Scale, mark: Mark) -> str:
    """From the beginning of a cause to its end."""
    end_ms = scale.last_ms if mark.end_ms is None else mark.end_ms
    a, b = scale.share(mark.change_ms), scale.share(end_ms)
    return (
        f'<rect x="{scale.x(mark.change_ms)}" y="{TOP}" '
        f'width="{max(round(100 * (b - a), 2), 0.3):g}%" '
        f'height="{HEIGHT}" class="span {escape(mark.severity)}"/>'
    )


def _sign(scale: Scale, mark: Mark) -> str:
    """A line where a cause was found, and its number above."""
    x, share = scale.x(mark.found_ms), scale.share(mark.found_ms)
    anchor = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
    return (
        f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" class="found {escape(mark.severity)}"/>'
        f'<text x="{x}" y="12" text-anchor="{anchor}" class="sign">{escape(mark.name)}</text>'
    )


def apart_enough(scale: Scale, marks: Sequence[Mark]) -> list[Mark]:
    """
    Marks whose numbers would be on top of each other share one.

    >>> scale = Scale(0, 1_000, 0.0, 1.0)
    >>> [
    ...     m.name
    ...     for m in apart_enough(
    ...         scale,
    ...         [
    ...             Mark("1", "info", 0, 10, None),
    ...             Mark("2", "info", 0, 20, None),
    ...             Mark("3", "info", 0, 500, None),
    ...         ],
    ...     )
    ... ]
    ['1 2', '', '3']
    """
    ordered = sorted(marks, key=lambda m: m.found_ms)
    named = [m.name for m in ordered]
    for i, (a, b) in reversed(list(enumerate(pairwise(ordered)))):
        if scale.share(b.found_ms) - scale.share(a.found_ms) < 0.06:
            named[i], named[i + 1] = f"{named[i]} {named[i + 1]}", ""
    return [m._replace(name=name) for m, name in zip(ordered, named, strict=True)]


def lanes(found: Sequence[Episode], first_ms: int, last_ms: int) -> str:
    """A line for every alert, from its firing to its end."""
    names = list(dict.fromkeys(e.lane for e in found))
    scale = Scale(first_ms, max(last_ms, first_ms + 1), 0.0, 1.0)
    rows = "".join(
        f'<div class="lane"><span>{escape(short(name))}</span><svg role="img" height="{LANE}" '
        f'aria-label="{escape(short(name))}">'
        f'<line x2="100%" y1="{LANE // 2}" y2="{LANE // 2}" class="grid"/>'
        f"{''.join(_bar(scale, e) for e in found if e.lane == name)}</svg></div>"
        for name in names[:LANES_MAX]
    )
    more = f"<p class=dim>and {len(names) - LANES_MAX:,} more</p>" if names[LANES_MAX:] else ""
    return (
        '<figure class="lanes"><figcaption><strong>When each alert fired</strong></figcaption>'
        f"{rows}{more}</figure>"
    )


def _bar(scale: Scale, e: Episode) -> str:
    """The bar of an episode in its lane, at least wide enough to be visible."""
    start_ms = parse_time_ms(e.start) or 0
    end_ms = scale.last_ms if e.end is None else parse_time_ms(e.end) or scale.last_ms
    width = max(round(100 * (scale.share(end_ms) - scale.share(start_ms)), 2), 0.5)
    x = min(round(100 * scale.share(start_ms), 2), 99.5)
    what = escape(f"{e.start} to {e.end or 'the end'}: {e.first['summary']}")
    return (
        f'<rect x="{x:g}%" y="0" width="{width:g}%" height="{LANE}" rx="2" '
        f'class="bar {escape(e.severity)}"><title>{what}</title></rect>'
    )
