"""
Names under which the columns of a prediction are watched.

Rule of the file: pure functions of the name of a column.
"""

from __future__ import annotations

from stream_monitor.events.cells import class_name
from stream_monitor.monitors.drift import CLASS_SCORE


def feature_name(column: str) -> str | None:
    """Name of the feature of a column; None for the others."""
    return column[9:] if column.startswith("features.") else None


def output_name(column: str) -> str | None:
    """Names under which scores and prediction are watched like features."""
    if column.startswith("score."):
        return CLASS_SCORE + class_name(column[6:])
    return {"score": "__score__", "prediction": "__prediction__"}.get(column)
