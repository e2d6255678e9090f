"""
All verdicts on segments: broken fields, own levels, gaps and fairness.

Rule of the file: it reads what `segments` has counted. Gaps and fairness are looked at every ten
seconds of log time, because they sum panes of every segment.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_monitor.events.cells import class_name
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.fairness import compared as compared_groups
from stream_monitor.monitors.fairness import fairness_verdicts
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.segment_counts import (
    Counts,
    counts_of,
    period_ms,
    selection_of,
)
from stream_monitor.monitors.segment_faults import fault_verdicts
from stream_monitor.monitors.segment_gaps import Gap, gap_verdicts, gaps
from stream_monitor.monitors.segment_level import level_verdicts
from stream_monitor.monitors.segments import Segments
from stream_monitor.monitors.thresholds import threshold_verdicts
from stream_monitor.verdicts import Verdict


def limits(context: Context, segments: Segments, performance: Performance) -> Iterator[Verdict]:
    """Verdicts of the configured thresholds on the segments that changed."""
    until_ms = performance.maturity.until_ms
    for segment, windows in segments.changed():
        key = context.key("performance", "", "threshold", segment)
        yield from threshold_verdicts(context.settings, windows, key, until_ms)


def at_once(context: Context, segments: Segments) -> Iterator[Verdict]:
    """Verdicts on blocks that ended since the last call."""
    groups = list(segments.groups().values())
    yield from fault_verdicts(context, segments.quality, segments.name_of, groups)
    if context.settings.segment_alerts.level:
        yield from level_verdicts(context, segments.errors, segments.name_of, groups)
    else:
        segments.errors.fresh = set()


def counts(context: Context, segments: Segments, performance: Performance) -> dict[int, Counts]:
    """
    Counts of every segment with labels or answers in the window in which segments are compared.
    """
    duration, found = period_ms(context.settings), dict[int, Counts]()
    if performance.windows is not None:
        end_ms = performance.windows.state.frontier_ms
        found = {n: counts_of(w, end_ms, duration) for n, w in sorted(segments.windows.items())}
    # without labels only a configured class is known to be the positive one
    positive = performance.positive_class[0] or class_name(context.settings.positive_class or "")
    for name, group in segments.groups().items() if positive else ():
        for n in group.tolist() if name in context.settings.fairness else ():
            known = found.get(n, Counts({}))
            share = selection_of(segments.traffic, n, duration, positive)
            found[n] = known._replace(shares={**known.shares, "selection": share})
    return found


def gaps_of(context: Context, segments: Segments, found: dict[int, Counts]) -> list[Gap]:
    """The gaps of all segments with enough labels."""
    groups = list(segments.groups().values())
    return gaps(groups, found, context.settings.segment_alerts.min_labels)


def compared(context: Context, segments: Segments, performance: Performance) -> Iterator[Verdict]:
    """Verdicts on gaps and on fairness, where there are limits."""
    rules = context.settings
    limited = rules.fairness or any(
        getattr(rules.segment_alerts.max_gap, name) is not None
        for name in rules.segment_alerts.max_gap.__struct_fields__
    )
    if not limited:
        return
    found, groups = counts(context, segments, performance), segments.groups()
    yield from gap_verdicts(context, gaps_of(context, segments, found), segments.name_of)
    for name, rule in rules.fairness.items():
        pairs = compared_groups(rule, groups[name], found, segments.name_of)
        yield from fairness_verdicts(context, rule, pairs, segments.name_of)
