"""
Labelled rows of one population (a model version, or a slice of it) in windows, and their metrics.

Rule of the file: `last_N` is exact (the N rows with the greatest event time, then id hash). A time
window consists of panes of sums and ends at the label frontier, the greatest event time that has a
label. `all` is the sum of everything so far. A correction amends all three. Undefined metrics are
absent.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.origins import UNKNOWN
from stream_monitor.monitors import row_metrics
from stream_monitor.monitors.classes import CLASSES_MAX, Classes, Counted, Reading
from stream_monitor.monitors.judged import Judged
from stream_monitor.stats.auc_bins import AUC_BINS
from stream_monitor.stats.class_intervals import class_intervals
from stream_monitor.stats.class_sums import BY_SCORE, ClassSums, Outcomes, Positive
from stream_monitor.stats.metric_intervals import Interval
from stream_monitor.stats.regression_sums import RegressionSums
from stream_monitor.verdicts import Span
from stream_monitor.windows.names import duration_ms, last_n
from stream_monitor.windows.panes import HORIZON_MS, Panes, grouped_by_pane
from stream_monitor.windows.top_n import TopN

KnownTask = Literal["binary", "multiclass", "regression"]
PANE_MS = 10_000
ALL = "all"
"""Name of the window of all labelled rows."""
SCORED_CLASSES_MAX = 4
"""Class scores of a binary model that have time windows; further ones have none."""


class Layout(msgspec.Struct):
    """Which sums of classes there are."""

    classes: int = 2
    candidates: int = 0


class WindowsState(msgspec.Struct):
    """The state of windows of labelled rows."""

    layout: Layout | None
    """Layout of the sums; None for a regression."""
    slim: bool
    top: TopN
    panes: Panes
    total: Float
    """Sums of all rows."""
    first_ms: int = 0
    frontier_ms: int = 0
    """The first and the last event time that has a label."""


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
        self.counted = counted
        layout = None if counted is None else Layout()
        self.sums = _sums_of(layout, slim=slim)
        self.state = WindowsState(
            layout=layout,
            slim=slim,
            top=TopN(rows, {"predicted": "<f8", "actual": "<f8", "score": "<f8"}),
            panes=Panes(self.sums.width),
            total=np.zeros(self.sums.width),
        )

    @property
    def classes(self) -> Classes:
        """Codes of the classes of the version."""
        assert self.counted is not None
        return self.counted.classes

    # ---- rows in

    def add(self, rows: Judged) -> None:
        """Add labelled rows, first labels and corrections. O(rows)."""
        oldest = int(rows.time.min())
        self.state.first_ms = min(self.state.first_ms, oldest) if self.state.frontier_ms else oldest
        self.state.frontier_ms = max(self.state.frontier_ms, int(rows.time.max()))
        extra = self._class_scores(rows)
        first = ~rows.corrected
        if first.all():
            self.state.top.add(
                rows.time,
                rows.id,
                predicted=rows.predicted,
                actual=rows.actual,
                score=rows.score,
                **extra,
            )
        else:
            at = np.flatnonzero(first)
            self.state.top.add(
                rows.time[at],
                rows.id[at],
                predicted=rows.predicted[at],
                actual=rows.actual[at],
                score=rows.score[at],
                **{k: v[at] for k, v in extra.items()},
            )
            for i in np.flatnonzero(~first).tolist():
                self.state.top.amend(
                    int(rows.id[i]), int(rows.time[i]), actual=float(rows.actual[i])
                )
        starts, group = grouped_by_pane(rows.time, PANE_MS)
        self._fit(rows)
        sums = self._sums(rows, rows.actual, group, len(starts))
        if not first.all():
            again = np.flatnonzero(~first)
            old = rows.at(again)
            sums -= self._sums(old, old.previous, group[again], len(starts))
        self.state.panes.add_grouped(starts, sums)
        self.state.total += sums.sum(axis=0)
        self._tell()

    def _tell(self) -> None:
        """The classes are read as all rows of the version say, in its slices too."""
        if self.counted is not None and isinstance(self.sums, ClassSums) and not self.state.slim:
            self.counted.look_at(self.sums, self.state.total)

    def _class_scores(self, rows: Judged) -> dict[str, Float]:
        for i in range(rows.probabilities.shape[1]):
            if f"p{i}" not in self.state.top.column:
                self.state.top.add_column(f"p{i}", "<f8", np.nan)
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
        classes = self._places(self.sums)
        if (classes, candidates) != (self.sums.classes, self.sums.candidates):
            old, self.sums = self.sums, ClassSums(classes, candidates, self.sums.bins)
            self.state.layout = Layout(classes, candidates)
            self.state.panes.sums = self.sums.converted(self.state.panes.sums, old)
            self.state.panes.width = self.sums.width
            self.state.total = self.sums.converted(self.state.total[None], old)[0]

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
            counted.macro,
        )

    def window(
        self, name: str, only: str = "", until_ms: int | None = None
    ) -> tuple[dict[str, float], Span]:
        """
        Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has;
        empty when it has none. With `until_ms` it ends there, and may end some panes before.
        """
        if name == ALL:
            return self.everything()
        rows, sums, span = self._part(name, until_ms)
        if rows is None:
            return self._of_sums(sums), span
        if (
            only == "accuracy"
            and self.counted is not None
            and span.count
            and not (rows["predicted"] == BY_SCORE).any()
        ):
            right = np.count_nonzero((rows["predicted"] == rows["actual"]) & (rows["actual"] >= 0))
            return {"accuracy": float(right / len(rows["time"]))}, span
        return row_metrics.exact_metrics(rows, self.counted), span

    def intervals(self, name: str, until_ms: int | None = None) -> dict[str, Interval]:
        """Intervals of the metrics of a window (`metric_intervals`); some metrics have none."""
        rows, sums, _ = self._part(name, until_ms)
        if rows is not None:
            return row_metrics.exact_intervals(rows, self.counted)
        if isinstance(self.sums, RegressionSums):
            return self.sums.intervals(sums)
        of, sums, read = self._read(self.sums, sums)
        assert self.counted is not None
        return class_intervals(of, sums, read, self.counted.reading().task)

    def _part(
        self, name: str, until_ms: int | None
    ) -> tuple[row_metrics.TopRows | None, Float, Span]:
        """
        The rows of a window, or their sums, and its span. `last_N` has its rows, unless fewer than
        half of them are old enough: then it has whole panes of at least N rows.
        """
        n, panes, nothing = last_n(name), self.state.panes, np.empty(0)
        end_ms = self.state.frontier_ms
        if until_ms is not None and until_ms < end_ms:
            end_ms = panes.whole_until(until_ms)
        if n is None:
            sums, start, end = panes.window(end_ms, duration_ms(name) or 0)
            return None, sums, Span(start, end, int(sums[0]))
        rows = self.state.top.rows(n)
        if until_ms is not None and end_ms < self.state.frontier_ms:
            mature = rows["time"] <= until_ms
            if 2 * np.count_nonzero(mature) < n:
                sums, start, end = panes.newest(n, end_ms, HORIZON_MS, slice(1))
                return None, sums, Span(start, end, int(sums[0]))
            rows = {name: column[mature] for name, column in rows.items()}
        times = rows["time"]
        if self.counted is None and np.isnan(rows["actual"]).any():
            times = times[~np.isnan(rows["actual"])]
        return rows, nothing, _span(times)

    def everything(self) -> tuple[dict[str, float], Span]:
        """
        Metrics of all labelled rows so far; exact if `last_N` still has all of them.
        """
        n = int(self.state.total[0])
        if not n:
            return {}, Span(0, 0, 0)
        span = Span(self.state.first_ms, self.state.frontier_ms, n)
        rows = self.state.top.rows()
        if n == len(rows["time"]):
            return row_metrics.exact_metrics(rows, self.counted), span
        return self._of_sums(self.state.total), span

    def between(self, end_ms: int, duration: int) -> tuple[dict[str, float], Span]:
        """Metrics of the rows of a stretch of event time, from panes."""
        sums, start, end = self.state.panes.window(end_ms, duration)
        return self._of_sums(sums), Span(start, end, int(sums[0]))

    def _of_sums(self, sums: Float) -> dict[str, float]:
        if isinstance(self.sums, RegressionSums):
            return self.sums.metrics(sums)
        of, sums, read = self._read(self.sums, sums)
        assert self.counted is not None
        return getattr(of, self.counted.reading().task)(sums, read)  # type: ignore[no-any-return]

    def _read(self, of: ClassSums, sums: Float) -> tuple[ClassSums, Float, Positive]:
        """
        Sums with their layout, and how classes are read; with room for classes of the version that
        came since this slice had its last row.
        """
        assert self.counted is not None
        read = self._positive(self.counted)
        if max(read.positive, read.negative) < of.classes:
            return of, sums, read
        wider = ClassSums(self._places(of), of.candidates, of.bins)
        return wider, wider.converted(sums[None], of)[0], read

    def outcomes(self, end_ms: int, duration: int) -> Outcomes | None:
        """How the rows of a stretch of event time ended; None for a regression."""
        if isinstance(self.sums, RegressionSums):
            return None
        assert self.counted is not None
        of, sums, read = self._read(self.sums, self.state.panes.window(end_ms, duration)[0])
        return of.outcomes(sums, read, binary=self.counted.reading().task == "binary")

    def _places(self, sums: ClassSums) -> int:
        """For how many classes there must be room: all that the version has."""
        classes = sums.classes
        while classes < len(self.classes):
            classes = min(2 * classes, CLASSES_MAX)
        return classes

    def contradicted(self, name: str) -> tuple[int, int] | None:
        """
        Scores that contradict answers in a window `last_N` (see `row_metrics.contradicted`); None
        for a regression.
        """
        if self.counted is None:
            return None
        return row_metrics.contradicted(self.state.top.rows(last_n(name)), self.counted)

    def unexpected(self, name: str) -> tuple[dict[str, int], int, Span]:
        """Rows of a window `last_N` that do not fit the task, and the window."""
        rows = self.state.top.rows(last_n(name))
        return *row_metrics.unexpected(rows, self.counted), _span(rows["time"])

    def chance(self, name: str) -> tuple[float, float] | None:
        """Accuracies in a window `last_N` that need no model; None without rows of classes."""
        rows = self.state.top.rows(last_n(name))
        if self.counted is None or not len(rows["time"]):
            return None
        return row_metrics.chance(rows, self.counted, self._positive(self.counted))

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows and panes."""
        return sum(c.nbytes for c in self.state.top.column.values()) + self.state.panes.sums.nbytes

    # ---- snapshot

    @classmethod
    def restored(
        cls, state: WindowsState, rows: int, counted: Counted | None
    ) -> PerformanceWindows:
        """The windows of a snapshot; `rows` and `counted` are those of the version now."""
        windows = cls(counted, rows, slim=state.slim)
        windows.state, windows.sums = state, _sums_of(state.layout, slim=state.slim)
        windows.state.top.keep(rows)
        windows._tell()
        return windows

    def renumber(self, values: Float) -> None:
        """Become `as_regression`."""
        self.__dict__ = self.as_regression(values).__dict__

    def as_regression(self, values: Float) -> PerformanceWindows:
        """
        The same windows as those of a regression, with the number that each class stands for. They
        have the rows of `last_N`, and new panes of these.
        """
        windows, rows = (
            PerformanceWindows(None, self.state.top.n, slim=self.state.slim),
            self.state.top.rows(),
        )
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
                    origin=np.full(n, UNKNOWN),
                )
            )
        return windows


def _sums_of(layout: Layout | None, *, slim: bool) -> ClassSums | RegressionSums:
    """Sums of a layout; those of slices are without bins of scores."""
    if layout is None:
        return RegressionSums()
    return ClassSums(layout.classes, layout.candidates, 0 if slim else AUC_BINS)


def _span(times: Int) -> Span:
    """Span from the first to the last of ordered times; empty if there are none."""
    return Span(int(times[0]), int(times[-1]), len(times)) if len(times) else Span(0, 0, 0)
