"""
Did a field break in one segment only? Verdicts on the shares of missing and broken values by
segment.

Rule of the file: a segment is compared with its own first rows, and with the other segments of its
name. A field that breaks everywhere is an alert over all traffic, and no second one here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from stream_monitor.alerts.wording import apart, percent, signal
from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.segment_blocks import KEPT, ROWS
from stream_monitor.monitors.segment_quality import RULES, SegmentQuality
from stream_monitor.settings import Quality
from stream_monitor.stats.differences import many_z, newcombe_difference
from stream_monitor.stats.inference import is_back, wilson_interval
from stream_monitor.verdicts import Span, Verdict

WHAT = ("missing", "of the wrong type", "out of range", "of an unknown category")


class Fault(NamedTuple):
    """A rule that is broken in the newest rows of a segment, beside what is usual."""

    part: float
    rows: float
    usual: float
    rest: float
    """Share in the other segments of the same name."""
    limit: float
    bad: bool
    clear: bool


def fault_verdicts(
    context: Context, quality: SegmentQuality, name_of: Callable[[int], str], groups: list[Int]
) -> Iterator[Verdict]:
    """
    Verdicts on segments that have a full block since the last call.

    Parameters
    ----------
    context : Context
    quality : SegmentQuality
    name_of : callable
        The name of a segment by its number.
    groups : list of (k,) int64
        Numbers of the segments that share a name.
    """
    fresh, quality.fresh = quality.fresh, set()
    if not (quality.names and fresh):
        return
    names, margins = list(quality.names), _margins(context.settings.quality)
    for whole in groups:
        group = whole[whole < len(quality.blocks.rows)]
        z = many_z(len(group))
        for segment, column in _looked_at(quality, group, margins, fresh):
            fault = _fault(quality, context.settings.quality, segment, column, z)
            rule = column % len(RULES)
            if fault.bad or not fault.clear:
                quality.open.add((segment, column))
            else:
                quality.open.discard((segment, column))
            yield _verdict(context, names[column // len(RULES)], rule, name_of(segment), fault)


def _margins(quality: Quality) -> Float:
    """By rule: the share by which faults may be more than usual; infinite if nobody asks."""
    missing, broken = (
        np.inf if m is None else m for m in (quality.missing_ratio, quality.violation_ratio)
    )
    return np.array([missing, broken, broken, broken])


def _looked_at(
    quality: SegmentQuality, group: Int, margins: Float, fresh: set[int]
) -> list[tuple[int, int]]:
    """Segments and columns that may be beyond their margin, and those that were so."""
    blocks = quality.blocks
    here = np.array([n for n in group.tolist() if n in fresh and blocks.closed[n] > 1], np.int64)
    if not len(here):
        return []
    usual = blocks.first[here] / (np.maximum(blocks.firsts[here], 1) * ROWS)[:, None]
    limit = usual + np.tile(margins, len(quality.names))
    beyond = np.zeros(limit.shape, bool)
    for size in (1, KEPT):
        sums, rows = blocks.newest(size)
        beyond |= sums[here] / np.maximum(rows[here], 1)[:, None] > limit
    found = {(int(here[i]), int(column)) for i, column in np.argwhere(beyond)}
    return sorted(found | {pair for pair in quality.open if pair[0] in here})


def _fault(quality: SegmentQuality, given: Quality, segment: int, column: int, z: float) -> Fault:
    blocks, margin = quality.blocks, float(_margins(given)[column % len(RULES)])
    usual_rows = float(max(blocks.firsts[segment], 1) * ROWS)
    usual_part = float(blocks.first[segment, column])
    usual = usual_part / usual_rows
    least = min(KEPT, max(1, -(-given.min_rows // ROWS)))
    windows: list[tuple[float, float]] = []
    rests: list[tuple[float, float]] = []
    for size in (least, KEPT):
        for found, (sums, rows) in ((windows, blocks.newest(size)), (rests, blocks.rest(size))):
            found.append((float(sums[segment, column]), float(rows[segment])))
    found_at = None
    for at, ((part, n), (rest_part, rest_rows)) in enumerate(zip(windows, rests, strict=True)):
        low = (
            newcombe_difference(part, n, usual_part, usual_rows, z)[1]
            if usual_part
            else wilson_interval(part, n, z)[0]
        )
        apart_from_rest = bool(rest_rows) and (
            newcombe_difference(part, n, rest_part, rest_rows, z)[1] > 0
            and part / n - rest_part / rest_rows > margin
        )
        if n >= least * ROWS and low > margin and apart_from_rest:
            found_at = at
            break
    bad = found_at is not None
    clear = not bad and is_back(windows[0], windows[1], usual + margin)
    (part, n), (rest_part, rest_rows) = windows[found_at or 0], rests[found_at or 0]
    rest = rest_part / rest_rows if rest_rows else 0.0
    return Fault(part, n, usual, rest, usual + margin, bad, clear)


def _verdict(context: Context, feature: str, rule: int, segment: str, fault: Fault) -> Verdict:
    key = context.key("data_quality", feature, RULES[rule], segment)
    key_rule = "quality.violation_ratio" if rule else "quality.missing_ratio"
    said, limit = apart(fault.part / fault.rows, fault.limit, form=percent, digits=3)
    return Verdict(
        key=key,
        level="warning" if fault.bad else "ok",
        clear=fault.clear,
        value=fault.part / fault.rows,
        threshold=fault.limit,
        direction="up",
        window=Span(0, 0, int(fault.rows)),
        summary=f"{key.title}: {signal(feature)} is {WHAT[rule]} in {said} of rows of {segment} "
        f"({int(fault.part):,} of {int(fault.rows):,}; usual there {percent(fault.usual)}, in the "
        f"other segments {percent(fault.rest)}, limit {limit} by {key_rule})",
        baseline_id=context.baseline_id,
        cooldown_ms=context.settings.cooldown_ms,
        evidence={
            "rule": RULES[rule],
            "rows": int(fault.rows),
            "count": int(fault.part),
            "usual_ratio": fault.usual,
            "rest_ratio": fault.rest,
            "guarantee": "none",
        },
    )
