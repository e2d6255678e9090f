"""
The performance of a model version in a snapshot, and which parts go on under other settings.

Rule of the file: rows that wait for labels, and counters, always go on. Windows go on if labels are
still of the same kind, classes or numbers. Because each part has its own condition, the stored form
(`PerformanceForm`) and the object (`Performance`) are two classes.
"""

from __future__ import annotations

import msgspec

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.level import Level
from stream_monitor.monitors.maturity import Maturity
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.performance_verdicts import Told
from stream_monitor.monitors.performance_windows import WindowsState
from stream_monitor.monitors.trend import Blocks


class PerformanceForm(msgspec.Struct):
    """The performance of a model version in a snapshot."""

    classes: dict[str, int]
    score_classes: dict[str, int]
    kind: str | None
    numeric: bool
    live: Reading | None
    waiting: list[Pairs]
    pairs: int
    trend: Blocks
    level: Level
    maturity: Maturity
    built: dict[str, float]
    told: Told
    windows: WindowsState | None


def form_of(performance: Performance) -> PerformanceForm:
    """The performance in a snapshot."""
    return PerformanceForm(
        classes=performance.classes,
        score_classes=performance.score_classes,
        kind=performance.kind,
        numeric=performance.numeric,
        live=performance.live,
        waiting=[pairs for pairs, _ in performance.waiting],
        pairs=performance.pairs,
        trend=performance.trend.state,
        level=performance.level,
        maturity=performance.maturity,
        built=performance.built,
        told=performance.told,
        windows=None if performance.windows is None else performance.windows.state,
    )


def load_performance(
    performance: Performance,
    form: PerformanceForm,
    texts: list[str],
    changes: Changes,
    *,
    anew: bool,
) -> bool:
    """
    Go on from the state of a snapshot; returns whether the windows of labelled rows go on.

    Another `positive_class`, or another task of classes, is another reading of the same sums. If
    numbers are classes now, or the reverse, windows begin again. Columns of class scores stay,
    because rows that wait for labels have them, and counters stay.
    """
    trend = performance.trend
    performance.score_classes.update(form.score_classes)
    performance.waiting = [(pairs, texts) for pairs in form.waiting]
    performance.pairs, performance.told = form.pairs, form.told
    trend.state.found = form.trend.found
    open_again = (
        performance.kind is None and "task" in changes.keys("performance") and form.kind is not None
    )
    if open_again or (performance.kind is not None and form.kind not in (None, performance.kind)):
        changes.begins_anew("performance", ["task"])
        return False
    if anew:
        return False
    performance.classes.update(form.classes)
    performance.kind, performance.numeric = form.kind or performance.kind, form.numeric
    performance.live = form.live
    if level := changes.keys("level"):
        changes.begins_anew("level of performance", level)
    else:
        performance.level, performance.built = form.level, form.built
    if delays := changes.keys("maturity"):
        changes.begins_anew("delays of labels", delays)
    else:
        performance.maturity = form.maturity
    trend.state.fell_from = form.trend.fell_from
    if trend_of := changes.keys("trend"):
        changes.begins_anew("trend of performance", trend_of)
    else:
        trend.state.group, trend.state.groups = form.trend.group, form.trend.groups
    if form.windows is not None:
        performance.windows = performance.restored(form.windows)
    return True
