"""
What is compared between segments: counts of one window, as shares and means of them.

Rule of the file: pure functions of counts. The window is one stretch of event time for all segments
of a version, so they are compared in the same hours; a late or corrected label changes it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stream_monitor.monitors.level import Loss
from stream_monitor.monitors.performance_windows import PerformanceWindows
from stream_monitor.monitors.segment_traffic import NUMBERS, ROW, SUM, Traffic
from stream_monitor.settings import ModelSettings
from stream_monitor.times import DAY_MS
from stream_monitor.windows.names import duration_ms


class Share(NamedTuple):
    """So many of so many rows."""

    part: float = 0.0
    total: float = 0.0

    def plus(self, other: Share) -> Share:
        """Both together."""
        return Share(self.part + other.part, self.total + other.total)

    def less(self, other: Share) -> Share:
        """Without the other."""
        return Share(self.part - other.part, self.total - other.total)


class Counts(NamedTuple):
    """
    One segment in a window.

    `shares` has `accuracy`, `precision`, `recall` and `false_positive_rate` of a classification,
    and `selection` (positive answers among all answers, with a label or without one). `loss` is of
    a regression.
    """

    shares: dict[str, Share]
    loss: Loss | None = None


def period_ms(settings: ModelSettings) -> int:
    """The stretch of time in which segments are compared: the longest window, otherwise a day."""
    found = [d for w in settings.windows if (d := duration_ms(w)) is not None]
    return max(found, default=DAY_MS)


def counts_of(windows: PerformanceWindows, end_ms: int, duration: int) -> Counts:
    """Counts of the labelled rows of a segment in a window that ends at `end_ms`."""
    found = windows.outcomes(end_ms, duration)
    if found is None:
        metrics, span = windows.between(end_ms, duration)
        return Counts({}, Loss.of_metrics(metrics, span.count))
    shares = {"accuracy": Share(found.right, found.rows)}
    if found.binary:
        shares |= {
            "precision": Share(found.hits, found.answered),
            "recall": Share(found.hits, found.labelled),
            "false_positive_rate": Share(found.answered - found.hits, found.rows - found.labelled),
        }
    return Counts(shares)


def selection_of(traffic: Traffic, segment: int, duration: int, positive: str) -> Share:
    """Positive answers of a segment among all of its answers in a window."""
    return Share(*traffic.positive(traffic.window(segment, duration), positive))


def mean_prediction(traffic: Traffic, segment: int, duration: int) -> float | None:
    """The mean of the numbers that were predicted in a window; None if there are none."""
    sums = traffic.window(segment, duration)
    return float(sums[SUM] / sums[NUMBERS]) if sums[NUMBERS] else None


def rows_of(traffic: Traffic, segment: int, duration: int) -> float:
    """Predictions of a segment in a window."""
    return float(traffic.window(segment, duration)[ROW])


def total_loss(losses: list[Loss]) -> Loss | None:
    """
    The loss of all these rows together.

    >>> total_loss([Loss(1.0, 0.0, 10), Loss(3.0, 0.0, 10)])
    Loss(mean=2.0, variance=1.0, rows=20)
    """
    rows = sum(each.rows for each in losses)
    if not rows:
        return None
    mean = math.fsum(each.mean * each.rows for each in losses) / rows
    square = math.fsum((each.variance + (each.mean - mean) ** 2) * each.rows for each in losses)
    return Loss(mean, square / rows, rows)
