"""
The picture of a confidence sequence: the difference of an arm from the control over time, with its
interval, and a line at no difference.

Rule of the file: SVG without a script, in colours of the page's style. It is drawn for a narrow
screen, so that its texts can be read on a telephone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

from stream_monitor.offline.replay import Course
from stream_monitor.times import DAY_MS, HOUR_MS

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 400, 52, 10, 8, 170
BOTTOM = TOP + HEIGHT


def sequence_chart(points: Sequence[Course], title: str) -> str:
    """
    The estimate and its interval over time; a dashed line is where a phase began.

    Parameters
    ----------
    points : sequence of Course
        Of one arm, at least one.
    title : str
    """
    low, high = _range(points)
    first_ms, last_ms = points[0].time_ms, max(points[-1].time_ms, points[0].time_ms + 1)

    def x(time_ms: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (time_ms - first_ms) / (last_ms - first_ms), 1)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (high - min(max(value, low), high)) / (high - low), 1)

    out = [*_levels(low, high, y, percent=points[0].percent), *_times(points, x)]
    for part in _phases(points):
        upper = [f"{x(p.time_ms)},{y(p.high)}" for p in part]
        lower = [f"{x(p.time_ms)},{y(p.low)}" for p in reversed(part)]
        line = " ".join(f"{x(p.time_ms)},{y(p.estimate)}" for p in part)
        out += [
            f'<polygon points="{" ".join(upper + lower)}" fill="var(--data)" opacity="0.22"/>',
            f'<polyline points="{line}" fill="none" stroke="var(--data)" stroke-width="1.6"/>',
        ]
        if part[0] is not points[0]:
            out.append(
                f'<path d="M{x(part[0].time_ms)} {TOP}V{BOTTOM}" stroke="var(--dim)" '
                'stroke-dasharray="4 3"/>'
            )
    caption = escape(title)
    return (
        f'<figure class="narrow"><svg viewBox="0 0 {WIDTH} {BOTTOM + 22}" role="img" '
        f'aria-label="{caption}">{"".join(out)}</svg><figcaption>{caption}</figcaption></figure>'
    )


def _range(points: Sequence[Course]) -> tuple[float, float]:
    """
    From the intervals of the later half: the first ones are very wide, and are cut off. No
    difference is always inside.
    """
    later = points[len(points) // 2 :]
    ends = [v for p in later for v in (p.low, p.estimate, p.high) if abs(v) != float("inf")]
    low, high = min(*ends, 0.0, 0.0), max(*ends, 0.0, 0.0)
    pad = (high - low) * 0.08 or 0.01
    return low - pad, high + pad


def _phases(points: Sequence[Course]) -> list[list[Course]]:
    starts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(points)) if a.phase != b.phase)]
    return [list(points[a:b]) for a, b in zip(starts, [*starts[1:], len(points)], strict=True)]


def _levels(low: float, high: float, y: Callable[[float], float], *, percent: bool) -> list[str]:
    """Five levels with their values, and a strong line at no difference."""
    out = [f'<path d="M{LEFT} {y(0.0)}H{WIDTH - RIGHT}" stroke="var(--fg)"/>']
    for i in range(5):
        level = low + (high - low) * i / 4
        text = f"{100 * level:+.2g} %" if percent else f"{level:+.3g}"
        out.append(
            f'<path d="M{LEFT} {y(level)}H{WIDTH - RIGHT}" stroke="var(--line)"/><text '
            f'x="{LEFT - 5}" y="{y(level) + 4}" text-anchor="end" fill="var(--dim)">{text}</text>'
        )
    return out


def _times(points: Sequence[Course], x: Callable[[int], float]) -> list[str]:
    """The age of the experiment at three places."""
    out = []
    for anchor, p in zip(
        ("start", "middle", "end"), (points[0], points[len(points) // 2], points[-1]), strict=True
    ):
        days = p.hours * HOUR_MS / DAY_MS
        age = f"day {days:.1f}" if days >= 2 else f"hour {p.hours:.1f}"
        out.append(
            f'<text x="{x(p.time_ms)}" y="{BOTTOM + 16}" text-anchor="{anchor}" '
            f'fill="var(--dim)">{age}</text>'
        )
    return out
