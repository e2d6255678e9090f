"""
Is the model still right? Labelled predictions in windows, and their metrics.

Rule of the file: `last_N` is exact (the N labelled rows with the greatest event time, then id hash); a time window is made of panes of sums and ends at the label
frontier, the greatest event time that has a label. A correction amends both, never what the detectors were fed. What is undefined is absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import BOOL, TEXT, Cells, arguments, tags
from stream_monitor.events.join import Pairs
from stream_monitor.settings import ModelSettings, Threshold
from stream_monitor.stats.classification import log_losses, roc_auc, roc_auc_macro
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.stats.performance_sums import BinarySums, MulticlassSums, RegressionSums
from stream_monitor.verdicts import AlertKey, Span, Verdict
from stream_monitor.windows.panes import Panes
from stream_monitor.windows.top_n import TopN

Float = NDArray[np.float64]
Int = NDArray[np.int64]
CLASSES_MAX = 256
DECIDE_LABELS = 100
"""Labelled rows after which the task is decided for good, where the configuration leaves it open."""
STRIDE = 5
"""A threshold is looked at this often in each window: after N / 5 labelled rows of `last_N`."""
PANE_MS = 10_000
OTHER = "__other__"
POSITIVE = ("1", "true", "yes", "positive")
LESS_IS_BETTER = frozenset({"log_loss", "brier_score", "calibration_error", "mae", "rmse", "bias"})
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DEFAULT_ACCURACY, ACCURACY_MARGIN = 0.8, 0.05


def duration_ms(text: str) -> int | None:
    """
    Milliseconds of `50ms 2s 10m 24h 30d`; None when it is no duration.

    >>> duration_ms("10m"), duration_ms("last_10")
    (600000, None)
    """
    for unit in ("ms", "s", "m", "h", "d"):
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return int(text[: -len(unit)]) * UNITS_MS[unit]
    return None


def last_n(window: str) -> int | None:
    """N of `last_N`; None for a duration."""
    return int(window[5:]) if window.startswith("last_") else None


class Classes(dict[str, int]):
    """Class texts of one model version to codes, in order of appearance, bounded."""

    def __missing__(self, text: str) -> int:
        if len(self) >= CLASSES_MAX - 1 and text != OTHER:
            return self[OTHER]
        code = self[text] = len(self)
        return code


def class_text(cell: float, texts: list[str]) -> str | None:
    """
    Text of a class: 1, 1.0, true and "1" are one class; None for a missing value.

    >>> class_text(1.0, []), class_text(0.5, [])
    ('1', '0.5')
    """
    if cell == cell:  # noqa: PLR0124
        return repr(int(cell)) if cell == int(cell) else repr(float(cell))
    one = np.array([cell])
    tag, argument = int(tags(one)[0]), int(arguments(one)[0])
    return texts[argument] if tag == TEXT else "01"[argument] if tag == BOOL else None


class Performance:
    """
    Windows of labelled predictions of one model version.

    Parameters
    ----------
    settings : ModelSettings
        `task`, `positive_class`, `windows` and `thresholds` are used.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.classes, self.score_classes = Classes(), Classes()
        self.task: str | None = None if settings.task == "auto" else settings.task
        self.decided = self.task is not None
        self.positive = ""
        self.waiting: list[tuple[Pairs, list[str]]] = []
        self.pairs = 0
        self.frontier_ms = 0
        self.reference: float | None = None
        self._first = [0, 0]
        self.sums: BinarySums | MulticlassSums | RegressionSums | None = None
        counts = [n for w in settings.windows if (n := last_n(w)) is not None]
        self.stride = max(1, min(counts, default=1_000) // STRIDE)
        self.top = TopN(max(counts, default=1_000), {"predicted": "<f8", "actual": "<f8", "score": "<f8"})
        self.panes: Panes | None = None

    # ---- rows in

    def add(self, pairs: Pairs, texts: list[str]) -> Iterator[tuple[Float, Int, bool]]:
        """
        Take labelled rows, in the order in which they were completed.

        Yields
        ------
        errors : (n,) float64
            0/1 (classification) or absolute errors (regression) of first labels.
        times : (n,) int64, ms
        due : bool
            A stride is full: thresholds are to be looked at now.
        """
        if not self.decided:
            self.waiting.append((pairs, texts))
            self._decide()
            if not self.decided:
                return
            waiting, self.waiting = self.waiting, []
            for part, names in waiting:
                yield from self._strides(part, names)
            return
        yield from self._strides(pairs, texts)

    def _strides(self, pairs: Pairs, texts: list[str]) -> Iterator[tuple[Float, Int, bool]]:
        start, n = 0, len(pairs.row)
        while start < n:
            end = min(n, start + self.stride - self.pairs % self.stride)
            part = pairs.take(slice(start, end))
            start = end
            first = ~part.corrected
            errors = self._fold(part, texts)
            self.pairs += int(first.sum())
            yield errors[first], part.time[first], bool(first.any()) and self.pairs % self.stride == 0

    def _decide(self) -> None:
        """Which task this is: by kind of value at once, by the first 100 labelled where they are numbers."""
        cells = np.concatenate([c for p, _ in self.waiting for c in (p.outcome, p.label)])
        enough = sum(len(p.row) for p, _ in self.waiting) >= DECIDE_LABELS
        kinds = tags(cells)
        scored = any((p.score == p.score).any() or p.probabilities.shape[1] for p, _ in self.waiting)
        if not enough:
            return
        classes = {t for p, texts in self.waiting for c in np.unique(np.concatenate([p.outcome, p.label]).view(np.uint64)).view(np.float64).tolist() if (t := class_text(c, texts))}
        named = bool(np.isin(kinds, (TEXT, BOOL)).any())
        if named or scored or classes <= {"0", "1"}:
            self.task = "binary" if len(classes) <= 2 and not any(p.probabilities.shape[1] > 2 for p, _ in self.waiting) else "multiclass"
        else:
            self.task = "regression"
        self.decided = True

    def _prepare(self, pairs: Pairs, texts: list[str]) -> None:
        """What the first labelled rows decide: the positive class, the shift of a regression, the layout of panes."""
        if self.task == "regression":
            self.sums = RegressionSums(float(pairs.label[0]))
        elif self.task == "binary":
            self.sums = BinarySums()
            found = sorted({t for c in np.concatenate([pairs.outcome, pairs.label]).tolist() if (t := class_text(c, texts)) is not None} | set(self.score_classes))
            self.positive = self.settings.positive_class or next((p for p in POSITIVE if p in found), found[-1] if len(found) > 1 else "1")
        else:
            self.sums = MulticlassSums(8)
        self.panes = Panes(self.sums.width)

    def _fold(self, pairs: Pairs, texts: list[str]) -> Float:
        if self.sums is None:
            self._prepare(pairs, texts)
        self.frontier_ms = max(self.frontier_ms, int(pairs.time.max()))
        if self.task == "regression":
            predicted, actual, score = pairs.outcome, pairs.label, pairs.score
            known = (predicted == predicted) & (actual == actual)  # noqa: PLR0124 - a text among numbers is no value
            if not known.all():
                pairs = pairs.take(known)
                predicted, actual, score = pairs.outcome, pairs.label, pairs.score
            previous = pairs.previous
            errors = np.zeros(len(known))
            errors[known] = np.abs(predicted - actual)
        else:
            predicted, actual, score, previous = self._classified(pairs, texts)
            errors = (predicted != actual).astype(np.float64)
        if len(pairs.row):
            self._remember(pairs, predicted, actual, score, previous)
        return errors

    def _classified(self, pairs: Pairs, texts: list[str]) -> tuple[Float, Float, Float, Float]:
        """Codes of predicted and actual class, score of the positive class, code of the previous label."""
        actual, previous = self._codes(pairs.label, texts), self._codes(pairs.previous, texts)
        predicted, score = self._codes(pairs.outcome, texts), pairs.score
        if pairs.probabilities.shape[1]:
            scored = ~np.isnan(pairs.probabilities).all(axis=1)
            best = np.where(scored, np.nan_to_num(pairs.probabilities, nan=-1.0).argmax(axis=1), 0)
            names = {column: self.classes[name] for name, column in self.score_classes.items()}
            by_score = np.array([names.get(b, -1) for b in best.tolist()], np.float64)
            predicted = np.where((predicted < 0) & scored, by_score, predicted)
            if self.task == "binary" and self.positive in self.score_classes:
                score = np.where(scored, pairs.probabilities[:, self.score_classes[self.positive]], score)
        if self.task == "binary":
            yes = self.classes[self.positive]
            actual, previous = (np.where(c < 0, -1.0, (c == yes).astype(np.float64)) for c in (actual, previous))
            predicted = np.where(predicted < 0, (score >= 0.5).astype(np.float64), (predicted == yes).astype(np.float64))
        return predicted, actual, score, previous

    def _codes(self, cells: Cells, texts: list[str]) -> Float:
        """Class codes of cells, -1 where there is none."""
        distinct, inverse = np.unique(np.ascontiguousarray(cells).view(np.uint64), return_inverse=True)
        codes = [-1 if (t := class_text(c, texts)) is None else self.classes[t] for c in distinct.view(np.float64).tolist()]
        return np.array(codes, np.float64)[inverse]

    def _remember(self, pairs: Pairs, predicted: Float, actual: Float, score: Float, previous: Float) -> None:
        extra = {}
        if self.task == "multiclass":
            for i in range(pairs.probabilities.shape[1]):
                if f"p{i}" not in self.top.column:
                    self.top.add_column(f"p{i}", "<f8", np.nan)
            extra = {f"p{i}": pairs.probabilities[:, i] for i in range(pairs.probabilities.shape[1])}
        first = ~pairs.corrected
        if first.all():
            self.top.add(pairs.time, pairs.id, predicted=predicted, actual=actual, score=score, **extra)
        else:
            at = np.flatnonzero(first)
            self.top.add(pairs.time[at], pairs.id[at], predicted=predicted[at], actual=actual[at], score=score[at], **{k: v[at] for k, v in extra.items()})
            for i in np.flatnonzero(~first).tolist():
                self.top.amend(int(pairs.id[i]), int(pairs.time[i]), actual=float(actual[i]))
        pane = pairs.time // PANE_MS
        starts, group = np.unique(pane, return_inverse=True)
        sums = self._sums(pairs, predicted, actual, score, group, len(starts))
        assert self.panes is not None
        if not first.all():
            again = np.flatnonzero(~first)
            old = pairs.take(again)
            sums -= self._sums(old, predicted[again], previous[again], score[again], group[again], len(starts))
        self.panes.add_grouped(starts * PANE_MS, sums)
        self._learn_reference(predicted, actual, first)

    def _sums(self, pairs: Pairs, predicted: Float, actual: Float, score: Float, group: Int, groups: int) -> Float:
        if isinstance(self.sums, RegressionSums):
            return self.sums.rows(predicted, actual, group, groups)
        if isinstance(self.sums, BinarySums):
            return self.sums.rows(predicted == 1, actual == 1, score, group, groups)
        assert isinstance(self.sums, MulticlassSums)
        if len(self.classes) > self.sums.classes:
            self._widen(max(len(self.classes), 2 * self.sums.classes))
        loss, brier = self._scored(pairs.probabilities, actual)
        return self.sums.rows(predicted.astype(np.int64), actual.astype(np.int64), loss, brier, group, groups)

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
        assert self.panes is not None
        wide = MulticlassSums(classes)
        old, n = self.sums.classes, self.panes.used
        sums = np.zeros((len(self.panes.starts), wide.width))
        sums[:n, :5] = self.panes.sums[:n, :5]
        for i in range(3):
            sums[:n, 5 + i * classes : 5 + i * classes + old] = self.panes.sums[:n, 5 + i * old : 5 + (i + 1) * old]
        self.panes.sums, self.panes.width, self.sums = sums, wide.width, wide

    def _learn_reference(self, predicted: Float, actual: Float, first: NDArray[np.bool_]) -> None:
        """Accuracy of the first labelled rows, as the level that later ones are compared with."""
        if self.reference is None and self.task != "regression":
            self._first[0] += int(first.sum())
            self._first[1] += int((predicted[first] == actual[first]).sum())
            if self._first[0] >= self.settings.baseline.rows:
                self.reference = self._first[1] / self._first[0]

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has; empty when it has none."""
        n = last_n(name)
        if self.sums is None or self.panes is None:
            return {}, Span(0, 0, 0)
        if n is None:
            sums, start, end = self.panes.window(self.frontier_ms, duration_ms(name) or 0)
            return self.sums.metrics(sums), Span(start, end, int(sums[0]))
        rows = self.top.rows(n)
        times = rows["time"]
        span = Span(int(times[0]), int(times[-1]), len(times)) if len(times) else Span(0, 0, 0)
        if only == "accuracy" and self.task != "regression" and len(times):
            return {"accuracy": float((rows["predicted"] == rows["actual"]).mean())}, span
        return self._exact(rows), span

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
        assert isinstance(self.sums, MulticlassSums)
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

    # ---- judgement

    def verdicts(self, model: str, version: str) -> Iterator[Verdict]:
        """Verdicts of the thresholds, with support."""
        for metric, rule in self.rules():
            window = rule.window or next((w for w in self.settings.windows if last_n(w) is not None), self.settings.windows[0])
            found, span = self.window(window, metric)
            if metric in found and span.count >= rule.min_labels:
                yield self._verdict(model, version, metric, rule, window, found[metric], span)

    def rules(self) -> Iterator[tuple[str, Threshold]]:
        """The thresholds of the configuration; without any, accuracy against its reference."""
        if self.settings.thresholds or self.task == "regression":
            yield from self.settings.thresholds.items()
        elif self.reference is None:
            yield "accuracy", Threshold(min=DEFAULT_ACCURACY, severity="info")
        else:
            yield "accuracy", Threshold(min=self.reference - ACCURACY_MARGIN, severity="warning")

    def _verdict(self, model: str, version: str, metric: str, rule: Threshold, window: str, value: float, span: Span) -> Verdict:
        judged = abs(value) if metric == "bias" else value
        if not self.settings.thresholds and metric == "accuracy":
            judged = wilson_interval(value * span.count, span.count)[1]
        below = rule.min is not None and judged < rule.min
        above = rule.max is not None and judged > rule.max
        limit = rule.min if below or rule.max is None else rule.max
        assert limit is not None
        clear = rule.clear
        inside = (rule.min is None or value >= rule.min) and (rule.max is None or judged <= rule.max)  # an interval may reach over a limit that the value has not passed yet
        settled = inside and not below and not above and (clear is None or (judged >= clear if rule.min is not None else judged <= clear))
        sign = "above" if above else "below"
        return Verdict(
            key=AlertKey(model, version, "", "calibration" if metric == "calibration_error" else "performance", metric, "threshold"),
            level=rule.severity if below or above else "ok",
            clear=settled,
            value=value,
            threshold=limit,
            direction="down" if below else "up" if above else None,
            window=span,
            summary=f"{model}{' ' + version if version else ''}: {metric} is {value:.3f} over {window} ({span.count:,} labelled), {sign} {limit:.3f}",
            for_ms=rule.for_ms,
            cooldown_ms=self.settings.cooldown_ms,
            evidence={"window": window, "labels": span.count, "guarantee": "none"},
        )

    # ---- snapshot

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "classes": dict(self.classes),
            "score_classes": dict(self.score_classes),
            "task": self.task,
            "decided": self.decided,
            "positive": self.positive,
            "waiting": [packed_pairs(p) for p, _ in self.waiting],
            "counts": [self.pairs, self.frontier_ms, *self._first],
            "reference": self.reference,
            "layout": None
            if self.sums is None
            else self.sums.classes
            if isinstance(self.sums, MulticlassSums)
            else self.sums.shift
            if isinstance(self.sums, RegressionSums)
            else 0,
            "top": self.top.state(),
            "panes": None if self.panes is None else self.panes.state(),
        }

    def load(self, state: Mapping[str, Any], texts: list[str]) -> None:
        """Go on from the state of a snapshot."""
        self.classes.update(state["classes"])
        self.score_classes.update(state["score_classes"])
        self.task, self.decided, self.positive, self.reference = state["task"], state["decided"], state["positive"], state["reference"]
        self.waiting = [(unpacked_pairs(p), texts) for p in state["waiting"]]
        self.pairs, self.frontier_ms, *self._first = state["counts"]
        if state["layout"] is not None:
            self.sums = BinarySums() if self.task == "binary" else MulticlassSums(state["layout"]) if self.task == "multiclass" else RegressionSums(state["layout"])
        self.top = TopN.from_state(state["top"])
        self.panes = None if state["panes"] is None else Panes.from_state(state["panes"])


def packed_pairs(pairs: Pairs) -> dict[str, Any]:
    """Pairs as bytes, by column."""
    return {name: (column.dtype.str, list(column.shape), np.ascontiguousarray(column).tobytes()) for name, column in pairs._asdict().items()}


def unpacked_pairs(state: Mapping[str, Any]) -> Pairs:
    """Pairs of `packed_pairs`."""
    return Pairs(**{name: np.frombuffer(data, dtype).reshape(shape) for name, (dtype, shape, data) in state.items()})
