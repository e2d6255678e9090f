"""
The chart of a report: a metric over time, and under it a line for every alert.

Rule of the file: SVG that is part of the page, without a script. Colours are variables of the
page's style, and every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from stream_monitor.inputs.moments import parse_time_ms
from stream_monitor.offline.episodes import Episode
from stream_monitor.offline.replay import Point
from stream_monitor.times import rfc3339

WIDTH, LEFT, RIGHT, TOP, HEIGHT, LANE = 760, 150, 12, 10, 190, 18
BOTTOM = TOP + HEIGHT
LANES_MAX = 20
DAYS_MS = 10 * 86_400_000
"""Span from which on the times of a chart are dates, ms."""


class Scale(NamedTuple):
    """The positions of times and values in the chart."""

    first_ms: int
    last_ms: int
    low: float
    high: float

    def x(self, time_ms: float) -> float:
        """Horizontal position of a time; times outside the chart are at its edges."""
        inside_ms = min(max(time_ms, self.first_ms), self.last_ms)
        share = (WIDTH - LEFT - RIGHT) * (inside_ms - self.first_ms)
        return round(LEFT + share / (self.last_ms - self.first_ms), 1)

    def y(self, value: float) -> float:
        return round(TOP + HEIGHT * (self.high - value) / (self.high - self.low), 1)


def chart(metric: str, window: str, points: Sequence[Point], found: Sequence[Episode]) -> str:
    """The metric over time, and under it a line for every alert, from its firing to its end."""
    lanes = list(dict.fromkeys(e.lane for e in found))[:LANES_MAX]
    values = [p.metrics[metric] for p in points]
    scale = _scale(points[0].time_ms, points[-1].time_ms, values)
    line = " ".join(
        f"{scale.x(p.time_ms)},{scale.y(v)}" for p, v in zip(points, values, strict=True)
    )
    out = [
        *_grid(scale),
        (
            f'<polyline points="{line}" fill="none" stroke="var(--data)" stroke-width="1.6" '
            'stroke-linejoin="round"/>'
        ),
        *_lane_names(lanes),
        *(_bar(scale, e, lanes.index(e.lane)) for e in found if e.lane in lanes),
    ]
    end = BOTTOM + 26 + LANE * len(lanes)
    caption = (
        f"{metric} over {escape(window)}{' and, below, when each alert fired' if lanes else ''}"
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {end}" role="img" '
        f'aria-label="{caption}">{"".join(out)}</svg><figcaption>{caption}</figcaption></figure>'
    )


def _scale(first_ms: int, last_ms: int, values: Sequence[float]) -> Scale:
    """A scale with some room above and below, also if all values are equal."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    return Scale(first_ms, max(last_ms, first_ms + 1), low - pad, high + pad)


def _grid(scale: Scale) -> list[str]:
    """Five levels with their values, and five times."""
    first_ms, last_ms, low, high = scale
    out = []
    for i in range(5):
        level, time_ms = low + (high - low) * i / 4, first_ms + (last_ms - first_ms) * i // 4
        out.append(
            f'<path d="M{LEFT} {scale.y(level)}H{WIDTH - RIGHT}" stroke="var(--line)"/><text '
            f'x="{LEFT - 6}" y="{scale.y(level) + 4}" text-anchor="end" '
            f'fill="var(--dim)">{level:.3g}</text>'
        )
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        when = (
            rfc3339(time_ms)[:10]
            if last_ms - first_ms > DAYS_MS
            else rfc3339(time_ms)[5:19].replace("T", " ")
        )
        out.append(
            f'<text x="{scale.x(time_ms)}" y="{BOTTOM + 16}" text-anchor="{anchor}" '
            f'fill="var(--dim)">{when}</text>'
        )
    return out


def _lane_names(lanes: Sequence[str]) -> list[str]:
    names = [lane if len(lane) <= 24 else lane[:23] + "…" for lane in lanes]
    return [
        f'<text x="{LEFT - 6}" y="{BOTTOM + 38 + LANE * i}" text-anchor="end" '
        f'fill="var(--dim)">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]


def _bar(scale: Scale, e: Episode, lane: int) -> str:
    """The bar of an episode in its lane, at least wide enough to be visible."""
    last_ms = scale.last_ms
    a = scale.x(parse_time_ms(e.start) or 0)
    b = scale.x(last_ms if e.end is None else parse_time_ms(e.end) or last_ms)
    what = escape(f"{e.start} to {e.end or 'the end'}: {e.first['summary']}")
    return (
        f'<rect x="{a}" y="{BOTTOM + 30 + LANE * lane}" width="{max(round(b - a, 1), 2)}" '
        f'height="10" rx="2" fill="var(--{escape(e.severity)})"><title>{what}</title></rect>'
    )
