"""
Labelled rows of one population (a model version, or a slice of it) in windows, and their metrics.

Rule of the file: `last_N` is exact (the N rows with the greatest event time, then id hash); a time
window is made of panes of sums and ends at the label frontier, the greatest event time that has a
label; `all` is the sum of everything since the beginning. A correction amends all three. What is
undefined is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.monitors import row_metrics
from stream_monitor.monitors.classes import CLASSES_MAX, Classes, Counted, Reading
from stream_monitor.monitors.judged import Judged
from stream_monitor.state import typed
from stream_monitor.stats.auc_bins import AUC_BINS
from stream_monitor.stats.class_sums import BY_SCORE, ClassSums, Positive
from stream_monitor.stats.regression_sums import RegressionSums
from stream_monitor.verdicts import Span
from stream_monitor.windows.names import duration_ms, last_n
from stream_monitor.windows.panes import Panes
from stream_monitor.windows.top_n import TopN

KnownTask = Literal["binary", "multiclass", "regression"]
PANE_MS = 10_000
ALL = "all"
"""Name of the window of all labelled rows."""
SCORED_CLASSES_MAX = 4
"""Class scores that a binary model may have; of further ones there are no time windows."""


class PerformanceWindows:
    """
    Windows of labelled rows.

    Parameters
    ----------
    counted : Counted or None
        The classes of the version and how they are read, shared with its slices; None for a
        regression.
    rows : int
        The greatest N of the windows `last_N`.
    slim : bool
        Of a slice: without ROC AUC over time windows, whose bins are nine tenths of a pane.
    """

    def __init__(self, counted: Counted | None, rows: int, *, slim: bool = False) -> None:
        self.counted, self.slim = counted, slim
        self.sums: ClassSums | RegressionSums = (
            RegressionSums() if counted is None else ClassSums(bins=0 if slim else AUC_BINS)
        )
        self.top = TopN(rows, {"predicted": "<f8", "actual": "<f8", "score": "<f8"})
        self.panes = Panes(self.sums.width)
        self.total = np.zeros(self.sums.width)
        self.first_ms, self.frontier_ms = 0, 0

    @property
    def classes(self) -> Classes:
        """Codes of the classes of the version."""
        assert self.counted is not None
        return self.counted.classes

    # ---- rows in

    def add(self, rows: Judged) -> None:
        """Take labelled rows in, first labels and corrections; O(rows)."""
        oldest = int(rows.time.min())
        self.first_ms = min(self.first_ms, oldest) if self.frontier_ms else oldest
        self.frontier_ms = max(self.frontier_ms, int(rows.time.max()))
        extra = self._class_scores(rows)
        first = ~rows.corrected
        if first.all():
            self.top.add(
                rows.time,
                rows.id,
                predicted=rows.predicted,
                actual=rows.actual,
                score=rows.score,
                **extra,
            )
        else:
            at = np.flatnonzero(first)
            self.top.add(
                rows.time[at],
                rows.id[at],
                predicted=rows.predicted[at],
                actual=rows.actual[at],
                score=rows.score[at],
                **{k: v[at] for k, v in extra.items()},
            )
            for i in np.flatnonzero(~first).tolist():
                self.top.amend(int(rows.id[i]), int(rows.time[i]), actual=float(rows.actual[i]))
        starts, group = np.unique(rows.time // PANE_MS, return_inverse=True)
        self._fit(rows)
        sums = self._sums(rows, rows.actual, group, len(starts))
        if not first.all():
            again = np.flatnonzero(~first)
            old = rows.take(again)
            sums -= self._sums(old, old.previous, group[again], len(starts))
        self.panes.add_grouped(starts * PANE_MS, sums)
        self.total += sums.sum(axis=0)
        self._tell()

    def _tell(self) -> None:
        """The classes are read as all rows of the version say, in its slices too."""
        if self.counted is not None and isinstance(self.sums, ClassSums) and not self.slim:
            self.counted.look_at(self.sums, self.total)

    def _class_scores(self, rows: Judged) -> dict[str, Float]:
        for i in range(rows.probabilities.shape[1]):
            if f"p{i}" not in self.top.column:
                self.top.add_column(f"p{i}", "<f8", np.nan)
        return {f"p{i}": rows.probabilities[:, i] for i in range(rows.probabilities.shape[1])}

    def _fit(self, rows: Judged) -> None:
        """The sums get room for the classes and scores that these rows have."""
        if not isinstance(self.sums, ClassSums):
            return
        candidates = self.sums.candidates
        if candidates == 0 and are_numbers(rows.score).any():
            candidates = 1
        scored = min(rows.probabilities.shape[1], SCORED_CLASSES_MAX)
        if scored and not (
            self.counted and self.counted.task != "binary" and len(self.counted.score_classes) > 2
        ):
            candidates = max(candidates, 1 + scored)
        classes = self.sums.classes
        while classes < len(self.classes):
            classes = min(2 * classes, CLASSES_MAX)
        if (classes, candidates) != (self.sums.classes, self.sums.candidates):
            old, self.sums = self.sums, ClassSums(classes, candidates, self.sums.bins)
            self.panes.sums, self.panes.width = (
                self.sums.converted(self.panes.sums, old),
                self.sums.width,
            )
            self.total = self.sums.converted(self.total[None], old)[0]

    def _sums(self, rows: Judged, actual: Float, group: Int, groups: int) -> Float:
        if isinstance(self.sums, RegressionSums):
            return self.sums.rows(rows.predicted, actual, group, groups)
        scores, class_scored = [rows.score], None
        codes = actual.astype(np.int64)
        if rows.probabilities.shape[1]:
            shares = row_metrics.normalised(rows.probabilities)
            assert self.counted is not None
            class_scored = row_metrics.class_losses(self.counted, shares, codes)
            scores += [shares[:, i] for i in range(min(shares.shape[1], SCORED_CLASSES_MAX))]
        return self.sums.rows(
            rows.predicted.astype(np.int64), codes, scores, class_scored, group, groups
        )

    # ---- windows out

    @property
    def reading(self) -> Reading | None:
        """How the classes are read; None for a regression."""
        return None if self.counted is None else self.counted.reading()

    @staticmethod
    def _positive(counted: Counted) -> Positive:
        reading = counted.reading()
        place = counted.score_classes.get(reading.positive)
        return Positive(
            reading.positive_code,
            reading.negative_code,
            (0,) if place is None or place >= SCORED_CLASSES_MAX else (0, 1 + place),
        )

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """
        Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has;
        empty when it has none.
        """
        if name == ALL:
            return self.everything()
        n = last_n(name)
        if n is None:
            return self.between(self.frontier_ms, duration_ms(name) or 0)
        rows = self.top.rows(n)
        times = rows["time"]
        if self.counted is None and np.isnan(rows["actual"]).any():
            times = times[~np.isnan(rows["actual"])]
        span = _span(times)
        if (
            only == "accuracy"
            and self.counted is not None
            and len(times)
            and not (rows["predicted"] == BY_SCORE).any()
        ):
            right = np.count_nonzero((rows["predicted"] == rows["actual"]) & (rows["actual"] >= 0))
            return {"accuracy": float(right / len(times))}, span
        return row_metrics.exact_metrics(rows, self.counted), span

    def everything(self) -> tuple[dict[str, float], Span]:
        """
        Metrics of all labelled rows since the beginning; exact where `last_N` still has them all.
        """
        n = int(self.total[0])
        if not n:
            return {}, Span(0, 0, 0)
        span = Span(self.first_ms, self.frontier_ms, n)
        rows = self.top.rows()
        if n == len(rows["time"]):
            return row_metrics.exact_metrics(rows, self.counted), span
        return self._of_sums(self.total), span

    def between(self, end_ms: int, duration: int) -> tuple[dict[str, float], Span]:
        """Metrics of the rows of a stretch of event time, from panes."""
        sums, start, end = self.panes.window(end_ms, duration)
        return self._of_sums(sums), Span(start, end, int(sums[0]))

    def _of_sums(self, sums: Float) -> dict[str, float]:
        if isinstance(self.sums, RegressionSums):
            return self.sums.metrics(sums)
        assert self.counted is not None
        task = self.counted.reading().task
        return getattr(self.sums, task)(sums, self._positive(self.counted))  # type: ignore[no-any-return]

    def contradicted(self, name: str) -> tuple[int, int] | None:
        """
        Scores that contradict answers in a window `last_N` (see `row_metrics.contradicted`); None
        for a regression.
        """
        if self.counted is None:
            return None
        return row_metrics.contradicted(self.top.rows(last_n(name)), self.counted)

    def unexpected(self, name: str) -> tuple[dict[str, int], int, Span]:
        """Rows of a window `last_N` that do not fit the task, and the window."""
        rows = self.top.rows(last_n(name))
        return *row_metrics.unexpected(rows, self.counted), _span(rows["time"])

    def chance(self, name: str) -> tuple[float, float] | None:
        """Accuracies in a window `last_N` that need no model; None without rows of classes."""
        rows = self.top.rows(last_n(name))
        if self.counted is None or not len(rows["time"]):
            return None
        return row_metrics.chance(rows, self.counted, self._positive(self.counted))

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows and panes."""
        return sum(c.nbytes for c in self.top.column.values()) + self.panes.sums.nbytes

    # ---- snapshot

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        layout = (
            [self.sums.classes, self.sums.candidates] if isinstance(self.sums, ClassSums) else None
        )
        kept = {
            "layout": layout,
            "slim": self.slim,
            "first_ms": self.first_ms,
            "frontier_ms": self.frontier_ms,
            "total": self.total.tobytes(),
        }
        return {**kept, "top": self.top, "panes": self.panes}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], rows: int, counted: Counted | None
    ) -> PerformanceWindows:
        """The windows of a snapshot; `rows` and `counted` are those of the version now."""
        windows = cls(counted, rows, slim=state["slim"])
        if state["layout"] is not None:
            windows.sums = ClassSums(
                state["layout"][0], state["layout"][1], 0 if state["slim"] else AUC_BINS
            )
        windows.first_ms, windows.frontier_ms = state["first_ms"], state["frontier_ms"]
        windows.total = np.frombuffer(state["total"], np.float64).copy()
        windows.top, windows.panes = typed(state["top"], TopN), typed(state["panes"], Panes)
        windows.top.keep(rows)
        windows._tell()
        return windows

    def renumber(self, values: Float) -> None:
        """Become `as_regression`."""
        self.__dict__ = self.as_regression(values).__dict__

    def as_regression(self, values: Float) -> PerformanceWindows:
        """
        The same rows as those of a regression, by the number that each class stands for: those of
        `last_N`, of which the panes begin anew.
        """
        windows, rows = PerformanceWindows(None, self.top.n, slim=self.slim), self.top.rows()
        n = len(rows["time"])
        if n:
            predicted, actual = (
                np.append(values, np.nan)[np.maximum(rows[c].astype(np.int64), -1)]
                for c in ("predicted", "actual")
            )
            windows.add(
                Judged(
                    time=rows["time"],
                    id=rows["id"],
                    corrected=np.zeros(n, bool),
                    predicted=predicted,
                    actual=actual,
                    score=rows["score"],
                    previous=actual,
                    probabilities=np.empty((n, 0)),
                    segment=np.zeros(n, np.int64),
                )
            )
        return windows


def _span(times: Int) -> Span:
    """From the first to the last of times in order; nothing where there are none."""
    return Span(int(times[0]), int(times[-1]), len(times)) if len(times) else Span(0, 0, 0)
