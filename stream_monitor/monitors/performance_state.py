"""
The performance of a model version in a snapshot, and what of it goes on under other settings.

Rule of the file: rows that wait for labels and counters always go on. Windows go on where labels
are still of the same kind, classes or numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from stream_monitor.join.rows import packed_pairs, unpacked_pairs
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.performance import Performance


def performance_state(performance: Performance) -> dict[str, Any]:
    """Plain values for the snapshot."""
    return {
        "classes": dict(performance.classes),
        "score_classes": dict(performance.score_classes),
        "kind": performance.kind,
        "numeric": performance.numeric,
        "live": None if performance.live is None else list(performance.live),
        "waiting": [packed_pairs(p) for p, _ in performance.waiting],
        "counts": [performance.pairs, performance.trend.found],
        "fell_from": performance.trend.fell_from,
        "block": performance.trend.block.tolist(),
        "blocks": performance.trend.blocks,
        "level": performance.level.state(),
        "built": performance.built,
        "told": performance.told.state(),
        "windows": None if performance.windows is None else performance.windows.state(),
    }


def load_performance(
    performance: Performance,
    state: Mapping[str, Any],
    texts: list[str],
    changes: Changes,
    *,
    anew: bool,
) -> bool:
    """
    Go on from the state of a snapshot; whether the windows of labelled rows do.

    Another `positive_class`, or another task of classes, is another reading of the same sums.
    Numbers that are classes now, and classes that are numbers, begin anew. Columns of class
    scores stay, since rows that wait for labels have them, and counters do.
    """
    performance.score_classes.update(state["score_classes"])
    performance.waiting = [(unpacked_pairs(p), texts) for p in state["waiting"]]
    performance.pairs, performance.trend.found = state["counts"]
    performance.told.load(state["told"])
    open_again = (
        performance.kind is None
        and "task" in changes.keys("performance")
        and state["kind"] is not None
    )
    if open_again or (
        performance.kind is not None and state["kind"] not in (None, performance.kind)
    ):
        changes.begins_anew("performance", ["task"])
        return False
    if anew:
        return False
    performance.classes.update(state["classes"])
    performance.kind, performance.numeric = state["kind"] or performance.kind, state["numeric"]
    if state["live"]:
        performance.live = msgspec.convert(state["live"], Reading)
    if level := changes.keys("level"):
        changes.begins_anew("level of performance", level)
    else:
        performance.level.load(state["level"])
        performance.built = dict(state["built"])
    performance.trend.fell_from = state["fell_from"]
    if trend_of := changes.keys("trend"):
        changes.begins_anew("trend of performance", trend_of)
    else:
        performance.trend.block = np.array(state["block"], np.float64)
        performance.trend.blocks = list(state["blocks"])
    if state["windows"] is not None:
        performance.windows = performance.restored(state["windows"])
    return True
