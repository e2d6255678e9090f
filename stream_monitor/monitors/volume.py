"""
How many, how fast, and how long ago: predictions, failures, latency, freshness of one model
version.

Rule of the file: counts and sums; quantiles come from a histogram of latency with a relative error
of at most 2.2 %.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.wording import apart, duration
from stream_monitor.arrays import Float, are_numbers
from stream_monitor.metrics.built_in import LATENCY_BUCKETS_S
from stream_monitor.monitors import latency
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.latency import FirstCalls
from stream_monitor.monitors.silence import Silences
from stream_monitor.settings import PREDICTIONS_MS
from stream_monitor.stats.quantiles import LATENCY_EDGES, latency_bins, latency_quantile
from stream_monitor.verdicts import Span, Verdict
from stream_monitor.windows.panes import HORIZON_MS, Panes, grouped_by_pane

PANE_MS = 10_000
SERVED, FAILED = np.array([1.0, 0.0]), np.array([0.0, 1.0])


class Volume(msgspec.Struct):
    """Counters of one model version, and the latency of its predictions."""

    predictions: int = 0
    failures: int = 0
    last_prediction_ms: int = 0
    """Log time, as the next."""
    last_label_ms: int = 0
    latency_counts: Float = msgspec.field(
        default_factory=lambda: np.zeros(len(LATENCY_BUCKETS_S) + 1)
    )
    latency_sum_s: float = 0.0
    panes: Panes = msgspec.field(default_factory=lambda: Panes(len(LATENCY_EDGES) + 1))
    rows: Panes = msgspec.field(default_factory=lambda: Panes(2))
    """Served and failed calls."""
    first: FirstCalls = msgspec.field(default_factory=FirstCalls)
    silences: Silences = msgspec.field(default_factory=Silences)

    def add(self, times_ms: NDArray[np.int64], latency_ms: NDArray[np.float64] | None) -> None:
        """Take predictions in; latency may be missing (NaN)."""
        self.predictions += len(times_ms)
        starts, group = grouped_by_pane(times_ms, PANE_MS)
        self.rows.add_grouped(starts, np.bincount(group)[:, None] * SERVED)
        if latency_ms is None:
            return
        known = are_numbers(latency_ms)
        if not known.any():
            return
        if not known.all():
            latency_ms = latency_ms[known]
            starts, group = grouped_by_pane(times_ms[known], PANE_MS)
        seconds = latency_ms / 1e3
        self.latency_counts += np.bincount(
            np.searchsorted(LATENCY_BUCKETS_S, seconds), minlength=len(self.latency_counts)
        )
        self.latency_sum_s += float(seconds.sum())
        bins = latency_bins(latency_ms)
        self.first.add_latency(bins)
        width = len(LATENCY_EDGES) + 1
        sums = (
            np.bincount(group * width + bins, minlength=len(starts) * width)
            .reshape(len(starts), width)
            .astype(np.float64)
        )
        self.panes.add_grouped(starts, sums)

    def add_failed(self, times_ms: NDArray[np.int64]) -> None:
        """Take failed calls in; they are counted already."""
        starts, group = grouped_by_pane(times_ms, PANE_MS)
        self.rows.add_grouped(starts, np.bincount(group)[:, None] * FAILED)

    def verdicts(self, context: Context, watermark_ms: int) -> Iterator[Verdict]:
        """Verdicts on latency and failures of recent calls, against the first ones."""
        self.first.add_calls(self.predictions, self.failures)
        yield from latency.verdicts(context, self.first, self.panes, self.rows, watermark_ms)

    def quantiles(self, end_ms: int, duration_ms: int) -> Iterator[tuple[float, float]]:
        """(quantile, seconds) of the latency in a window; nothing when it is empty."""
        counts, _, _ = self.panes.window(end_ms, duration_ms)
        if counts.sum() > 0:
            for q in (0.5, 0.95, 0.99):
                yield q, latency_quantile(counts, q) / 1e3

    def rows_between(self, start_ms: int, end_ms: int) -> float | None:
        """
        Predictions with start <= event time < end; None if these are not bounds of panes any more.
        """
        sums, first, last = self.rows.window(end_ms - 1, end_ms - start_ms)
        return float(sums[0]) if (first, last) == (start_ms, end_ms) else None

    def served_until(self, time_ms: int) -> float:
        """Predictions up to an event time, of those that still have panes."""
        return float(self.rows.window(time_ms, HORIZON_MS)[0][0])

    def heard_at_most(self, now_ms: int) -> None:
        """Log time did not jump after all: nothing was heard after it."""
        self.last_prediction_ms, self.last_label_ms = (
            min(self.last_prediction_ms, now_ms),
            min(self.last_label_ms, now_ms),
        )
        self.silences.heard_at_most(now_ms)

    def heard(self, calls: int, log_ms: int) -> None:
        """Predictions came, served or failed."""
        self.silences.heard(calls, log_ms)
        self.last_prediction_ms = log_ms

    def freshness(self, context: Context, now_ms: int) -> Iterator[Verdict]:
        """Verdicts on silence, in log time."""
        given_ms = context.settings.freshness
        if self.last_prediction_ms:
            self.silences.now_ms = max(now_ms - self.last_prediction_ms, 0)
        usual_ms = self.silences.usual_ms() if given_ms.predictions_ms == PREDICTIONS_MS else 0.0
        for subject, last, given in (
            ("predictions", self.last_prediction_ms, given_ms.predictions_ms),
            ("labels", self.last_label_ms, given_ms.labels_ms),
        ):
            if given is None or not last:
                continue
            silent = now_ms - last
            limit = max(float(given), usual_ms) if subject == "predictions" else float(given)
            said, bound = apart(silent / 1e3, limit / 1e3, form=duration)
            why = (
                "longer than it is usually silent; `freshness.predictions` sets a limit"
                if limit > given
                else f"freshness.{subject}"
            )
            text = (
                (
                    f"no {subject} for {said}, longer than {bound} ({why}); see whether their "
                    "producer runs"
                )
                if silent > limit
                else f"{subject} come again"
            )
            key = context.key("freshness", subject, "silence")
            yield Verdict(
                key=key,
                level="warning" if silent > limit else "ok",
                clear=silent <= limit,
                value=silent / 1e3,
                threshold=limit / 1e3,
                direction="up",
                window=Span(last, now_ms, 0),
                summary=f"{key.title}: {text}",
                evidence={"last_ms": last, "guarantee": "none"},
            )
