"""
Labelled rows of one population (a model version, or a slice of it) in windows, and their metrics.

Rule of the file: `last_N` is exact (the N rows with the greatest event time, then id hash); a time window is made of panes of sums and ends at the label frontier, the
greatest event time that has a label. A correction amends both. What is undefined is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.stats.classification import log_losses, roc_auc, roc_auc_macro
from stream_monitor.stats.performance_sums import AUC_BINS, BinarySums, MulticlassSums, RegressionSums
from stream_monitor.verdicts import Span
from stream_monitor.windows.names import duration_ms, last_n
from stream_monitor.windows.panes import Panes
from stream_monitor.windows.top_n import TopN

Float = NDArray[np.float64]
Int = NDArray[np.int64]
KnownTask = Literal["binary", "multiclass", "regression"]
CLASSES_MAX = 256
PANE_MS = 10_000
OTHER = "__other__"


class Classes(dict[str, int]):
    """Class texts of one model version to codes, in order of appearance, bounded."""

    def __missing__(self, text: str) -> int:
        if len(self) >= CLASSES_MAX - 1 and text != OTHER:
            return self[OTHER]
        code = self[text] = len(self)
        return code


class Judged(NamedTuple):
    """Labelled rows whose values the task has made numbers: classes are codes (binary: 1 is the positive class), values of a regression are themselves."""

    time: Int
    id: NDArray[np.uint64]
    corrected: NDArray[np.bool_]
    predicted: Float
    actual: Float
    score: Float
    previous: Float
    """What the label was, where it is corrected."""
    probabilities: Float
    """(n, classes), or (n, 0)."""
    segment: Int

    def take(self, at: Any) -> Judged:
        """Some of the rows."""
        return Judged(*(c[at] for c in self))


class PerformanceWindows:
    """
    Windows of labelled rows.

    Parameters
    ----------
    task : {"binary", "multiclass", "regression"}
    rows : int
        The greatest N of the windows `last_N`.
    classes, score_classes : Classes
        Codes of classes, and the columns of class scores; shared with the other populations of the version.
    shift : float
        A regression's sums are of labels less this, so that they do not cancel.
    slim : bool
        Without ROC AUC over time windows, whose bins are nine tenths of a pane.
    """

    def __init__(self, task: KnownTask, rows: int, classes: Classes, score_classes: Classes, *, shift: float = 0.0, slim: bool = False) -> None:
        self.task, self.classes, self.score_classes, self.slim = task, classes, score_classes, slim
        self.sums = BinarySums() if task == "binary" else RegressionSums(shift) if task == "regression" else MulticlassSums(8)
        self.top = TopN(rows, {"predicted": "<f8", "actual": "<f8", "score": "<f8"})
        self.panes = Panes(self._width)
        self.frontier_ms = 0

    @property
    def _width(self) -> int:
        return self.sums.width - 2 * AUC_BINS if self.slim and isinstance(self.sums, BinarySums) else self.sums.width

    # ---- rows in

    def add(self, rows: Judged) -> None:
        """Take labelled rows in, first labels and corrections; O(rows)."""
        self.frontier_ms = max(self.frontier_ms, int(rows.time.max()))
        extra = self._class_scores(rows)
        first = ~rows.corrected
        if first.all():
            self.top.add(rows.time, rows.id, predicted=rows.predicted, actual=rows.actual, score=rows.score, **extra)
        else:
            at = np.flatnonzero(first)
            self.top.add(rows.time[at], rows.id[at], predicted=rows.predicted[at], actual=rows.actual[at], score=rows.score[at], **{k: v[at] for k, v in extra.items()})
            for i in np.flatnonzero(~first).tolist():
                self.top.amend(int(rows.id[i]), int(rows.time[i]), actual=float(rows.actual[i]))
        starts, group = np.unique(rows.time // PANE_MS, return_inverse=True)
        sums = self._sums(rows, rows.actual, group, len(starts))
        if not first.all():
            again = np.flatnonzero(~first)
            old = rows.take(again)
            sums -= self._sums(old, old.previous, group[again], len(starts))
        self.panes.add_grouped(starts * PANE_MS, sums[:, : self._width])

    def _class_scores(self, rows: Judged) -> dict[str, Float]:
        if self.task != "multiclass":
            return {}
        for i in range(rows.probabilities.shape[1]):
            if f"p{i}" not in self.top.column:
                self.top.add_column(f"p{i}", "<f8", np.nan)
        return {f"p{i}": rows.probabilities[:, i] for i in range(rows.probabilities.shape[1])}

    def _sums(self, rows: Judged, actual: Float, group: Int, groups: int) -> Float:
        if isinstance(self.sums, RegressionSums):
            return self.sums.rows(rows.predicted, actual, group, groups)
        if isinstance(self.sums, BinarySums):
            return self.sums.rows(rows.predicted == 1, actual == 1, rows.score, group, groups)
        if len(self.classes) > self.sums.classes:
            self._widen(max(len(self.classes), 2 * self.sums.classes))
        loss, brier = self._scored(rows.probabilities, actual)
        return self.sums.rows(rows.predicted.astype(np.int64), actual.astype(np.int64), loss, brier, group, groups)

    def _scored(self, probabilities: Float, actual: Float) -> tuple[Float, Float]:
        """Log loss and Brier score of each row from its class scores, NaN without."""
        n, k = probabilities.shape
        if not k:
            return np.full(n, np.nan), np.full(n, np.nan)
        p = np.nan_to_num(probabilities)
        column = np.full(len(self.classes) + 1, -1, np.int64)
        for name, place in self.score_classes.items():
            column[self.classes[name] if self.classes[name] < len(column) else -1] = place
        at = column[actual.astype(np.int64)]
        given = np.where(at >= 0, p[np.arange(n), np.maximum(at, 0)], 0.0)
        total = p.sum(axis=1)
        known = total > 0
        loss = np.where(known, log_losses(given / np.where(known, total, 1.0)), np.nan)
        return loss, np.where(known, (p * p).sum(axis=1) - 2 * given + 1, np.nan)

    def _widen(self, classes: int) -> None:
        """More classes than the panes have room for."""
        assert isinstance(self.sums, MulticlassSums)
        wide = MulticlassSums(classes)
        old, n = self.sums.classes, self.panes.used
        sums = np.zeros((len(self.panes.starts), wide.width))
        sums[:n, :5] = self.panes.sums[:n, :5]
        for i in range(3):
            sums[:n, 5 + i * classes : 5 + i * classes + old] = self.panes.sums[:n, 5 + i * old : 5 + (i + 1) * old]
        self.panes.sums, self.panes.width, self.sums = sums, wide.width, wide

    def to_multiclass(self, positive: int, negative: int) -> None:
        """What was binary becomes multiclass: its two classes get the codes that they have among all. Exact but for ROC AUC, which begins anew."""
        assert isinstance(self.sums, BinarySums)
        wide, n = MulticlassSums(max(8, len(self.classes))), self.panes.used
        rows, correct, hits, predicted, actual, scored, loss, brier = self.panes.sums[:n, :8].T
        sums = np.zeros((len(self.panes.starts), wide.width))
        sums[:n, :5] = np.stack([rows, correct, scored, loss, 2 * brier], axis=1)
        for i, (of_positive, of_negative) in enumerate(((hits, correct - hits), (predicted, rows - predicted), (actual, rows - actual))):
            sums[:n, 5 + i * wide.classes + positive], sums[:n, 5 + i * wide.classes + negative] = of_positive, of_negative
        self.task, self.sums = "multiclass", wide
        self.panes.sums, self.panes.width = sums, wide.width
        for name in ("predicted", "actual"):
            column = self.top.column[name]
            column[:] = np.where(column == 1, positive, negative)

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has; empty when it has none."""
        n = last_n(name)
        if n is None:
            return self.between(self.frontier_ms, duration_ms(name) or 0)
        rows = self.top.rows(n)
        times = rows["time"]
        span = Span(int(times[0]), int(times[-1]), len(times)) if len(times) else Span(0, 0, 0)
        if only == "accuracy" and self.task != "regression" and len(times):
            return {"accuracy": float((rows["predicted"] == rows["actual"]).mean())}, span
        return self._exact(rows), span

    def between(self, end_ms: int, duration: int) -> tuple[dict[str, float], Span]:
        """Metrics of the rows of a stretch of event time, from panes."""
        sums, start, end = self.panes.window(end_ms, duration)
        whole = np.append(sums, np.zeros(self.sums.width - len(sums)))
        return self.sums.metrics(whole), Span(start, end, int(sums[0]))

    def _exact(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        predicted, actual, score = rows["predicted"], rows["actual"], rows["score"]
        group = np.zeros(len(predicted), np.int64)
        if not len(group):
            return {}
        if isinstance(self.sums, RegressionSums):
            return RegressionSums.metrics(RegressionSums(float(actual.mean())).rows(predicted, actual, group, 1)[0])
        if isinstance(self.sums, BinarySums):
            found = BinarySums.metrics(BinarySums.rows(predicted == 1, actual == 1, score, group, 1)[0])
            scored = score == score  # noqa: PLR0124
            area = roc_auc(score[scored], actual[scored] == 1)
            found.pop("roc_auc", None)
            return found if area is None else {**found, "roc_auc": area}
        wide = MulticlassSums(len(self.classes) + 1)
        columns = sorted((c for c in rows if c.startswith("p") and c[1:].isdigit()), key=lambda c: int(c[1:]))
        probabilities = np.stack([rows[c] for c in columns], axis=1) if columns else np.empty((len(group), 0))
        loss, brier = self._scored(probabilities, actual)
        found = wide.metrics(wide.rows(predicted.astype(np.int64), actual.astype(np.int64), loss, brier, group, 1)[0])
        if columns and not np.isnan(probabilities).any():
            place = {self.classes[name]: i for name, i in self.score_classes.items()}
            codes = np.array([place.get(int(a), -1) for a in actual.tolist()], np.int64)
            area = roc_auc_macro(probabilities, codes)
            if area is not None:
                found["roc_auc"] = area
        return found

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows and panes."""
        return sum(c.nbytes for c in self.top.column.values()) + self.panes.sums.nbytes

    # ---- snapshot

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        shift = self.sums.shift if isinstance(self.sums, RegressionSums) else 0.0
        classes = self.sums.classes if isinstance(self.sums, MulticlassSums) else 0
        return {"task": self.task, "shift": shift, "classes": classes, "slim": self.slim, "frontier_ms": self.frontier_ms, "top": self.top.state(), "panes": self.panes.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], rows: int, classes: Classes, score_classes: Classes) -> PerformanceWindows:
        """The windows of a snapshot; `rows`, `classes` and `score_classes` are those of the version now."""
        windows = cls(state["task"], rows, classes, score_classes, shift=state["shift"], slim=state["slim"])
        if windows.task == "multiclass":
            windows.sums = MulticlassSums(state["classes"])
        windows.frontier_ms, windows.top, windows.panes = state["frontier_ms"], TopN.from_state(state["top"], rows), Panes.from_state(state["panes"])
        return windows
