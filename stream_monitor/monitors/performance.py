"""
Is the model still right? Labelled predictions, the task they are of, and the thresholds on their metrics.

Rule of the file: here pairs become judged rows (classes become codes, the task is decided once), and windows of them become verdicts; the windows themselves are in
`performance_windows`. A correction amends windows, never what the detectors were fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import BOOL, TEXT, Cells, class_name, class_text, tags
from stream_monitor.events.join_rows import Pairs
from stream_monitor.monitors.anomaly import trend
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.performance_windows import Classes, Judged, KnownTask, PerformanceWindows
from stream_monitor.settings import ModelSettings, Threshold
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.verdicts import AlertKey, Span, Verdict
from stream_monitor.windows.names import last_n

Float = NDArray[np.float64]
Int = NDArray[np.int64]
DECIDE_LABELS = 100
"""Labelled rows after which the task is decided for good, where the configuration leaves it open."""
TREND_Z = 3.0
"""A falling trend is beyond so many of its standard errors, which come from the scatter of the windows around the line."""
STRIDE = 5
"""A threshold is looked at this often in each window: after N / 5 labelled rows of `last_N`."""
DEFAULT_ROWS = 1_000
POSITIVE = ("1", "true", "yes", "positive")
DEFAULT_ACCURACY, ACCURACY_MARGIN = 0.8, 0.05


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
        self.task: KnownTask | None = None if settings.task == "auto" else settings.task
        self.positive = class_name(settings.positive_class or "")
        self.decided = self.task in ("regression", "multiclass") or (self.task == "binary" and bool(self.positive))
        self.shift = 0.0
        self.waiting: list[tuple[Pairs, list[str]]] = []
        self.pairs = 0
        self.reference: float | None = None
        self._first = [0, 0]
        self.block: Float = np.zeros(4)
        """Sums of the labelled rows since the last block of the trend: rows and right ones, or rows, squared errors, labels and their squares."""
        self.blocks: list[float] = []
        self.falling = False
        self.trends = 0
        """Falling trends found since the beginning."""
        counts = [n for w in settings.windows if (n := last_n(w)) is not None]
        self.rows = max(counts, default=DEFAULT_ROWS)
        self.stride = max(1, min(counts, default=DEFAULT_ROWS) // STRIDE)
        self.windows: PerformanceWindows | None = None
        self.on_rows: Callable[[Judged], None] = lambda _: None
        """Called with judged rows."""
        self.slices: Callable[[], list[PerformanceWindows]] = list
        """The windows of slices."""

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
        if self.decided and not self.waiting:
            yield from self._strides(pairs, texts)
            return
        self.waiting.append((pairs, texts))
        yield from self.settle(DECIDE_LABELS)

    def settle(self, least: int = 1) -> Iterator[tuple[Float, Int, bool]]:
        """Decide what is open on the labelled rows that wait, if that can be or there are so many, and take them in. Yields as `add` does."""
        if not self.waiting or not (self.decided or self._decide(least)):
            return
        self.decided = True
        waiting, self.waiting = self.waiting, []
        for part, names in waiting:
            yield from self._strides(part, names)

    def _strides(self, pairs: Pairs, texts: list[str]) -> Iterator[tuple[Float, Int, bool]]:
        if self.windows is None:
            self.windows = self._prepare(pairs)
        rows, errors = self._numbers(pairs) if self.task == "regression" else self._classified(pairs, texts)
        known = errors == errors  # noqa: PLR0124
        whole = len(rows.time) == len(known)
        start, n, first = 0, len(known), ~pairs.corrected
        before = np.append(0, np.cumsum(known))
        while start < n:
            end = min(n, start + self.stride - self.pairs % self.stride)
            self._fold(self.windows, rows.take(slice(start, end) if whole else slice(before[start], before[end])))
            mine = first[start:end]
            self.pairs += int(mine.sum())
            due = self.pairs % self.stride == 0 and bool(mine.any())
            if due and self.pairs % (STRIDE * self.stride) == 0:
                self._close_block()
            told = mine if whole else mine & known[start:end]
            yield errors[start:end][told], pairs.time[start:end][told], due
            start = end
        if len(rows.time):
            self.on_rows(rows)

    def _close_block(self) -> None:
        """One more window of the trend: its accuracy, or the R² of a regression."""
        n, hits, y, y2 = self.block.tolist()
        self.block = np.zeros(4)
        spread = y2 - y * y / max(n, 1)
        if self.task != "regression" and n:
            self.blocks.append(hits / n)
        elif n and spread > 0:
            self.blocks.append(1 - hits / spread)
        self.blocks = self.blocks[-self.settings.anomalies.trend_windows :]
        if len(self.blocks) == self.settings.anomalies.trend_windows:
            rise, error = trend(self.blocks)
            falling = rise < min(self.settings.anomalies.trend_slope, -TREND_Z * error)
            self.trends += falling and not self.falling
            self.falling = falling

    def _decide(self, least: int) -> bool:
        """
        Which task this is, and its positive class: as soon as two classes are known where values are named or scored, else by the first 100 labelled rows, one by one,
        so that how they came does not matter.
        """
        classes: dict[str, None] = dict.fromkeys(self.score_classes)
        named = scored = self.task == "binary"
        n = 0
        for pairs, texts in self.waiting:
            kinds = tags(np.stack([pairs.outcome, pairs.label]))
            for i in range(min(len(pairs.row), DECIDE_LABELS - n)):
                n += 1
                classes |= dict.fromkeys(t for c in (float(pairs.outcome[i]), float(pairs.label[i])) if (t := class_text(c, texts)) is not None)
                named |= bool((kinds[:, i] == TEXT).any() or (kinds[:, i] == BOOL).any())
                scored |= bool(pairs.score[i] == pairs.score[i]) or pairs.probabilities.shape[1] > 0
                if (named or scored) and len(classes) > 1:
                    return self._classify(list(classes))
        if n < least:
            return False
        if named or scored or set(classes) <= {"0", "1"}:
            return self._classify(list(classes))
        self.task = "regression"
        return True

    def _classify(self, classes: list[str]) -> bool:
        if self.task != "binary":
            self.task = "binary" if len(classes) <= 2 else "multiclass"
        if not self.positive:
            self.positive = next((c for c in POSITIVE if c in classes), max(classes) if len(classes) > 1 else "1")
        return True

    def _prepare(self, pairs: Pairs) -> PerformanceWindows:
        """The windows; a regression's sums are of labels less the first one."""
        first = float(pairs.label[0]) if self.task == "regression" else 0.0
        self.shift = first if first == first else 0.0  # noqa: PLR0124 - the first label may be a text
        return self.population(slim=False)

    def population(self, *, slim: bool) -> PerformanceWindows:
        """New windows for all labelled rows, or for a slice of them."""
        assert self.task is not None
        return PerformanceWindows(self.task, self.rows, self.classes, self.score_classes, shift=self.shift, slim=slim)

    def _fold(self, windows: PerformanceWindows, rows: Judged) -> None:
        if len(rows.time):
            windows.add(rows)
            self._learn_reference(rows)
            self._add_to_block(rows)

    def _add_to_block(self, rows: Judged) -> None:
        first = ~rows.corrected
        if self.task == "regression":
            predicted, actual = rows.predicted[first], rows.actual[first]
            y = actual - self.shift
            self.block += (len(y), ((predicted - actual) ** 2).sum(), y.sum(), (y * y).sum())
        else:
            self.block[:2] += (first.sum(), (first & (rows.predicted == rows.actual)).sum())

    def _numbers(self, pairs: Pairs) -> tuple[Judged, Float]:
        """Rows of a regression with their absolute errors; a text among numbers is no value, its row is left out and its error is NaN."""
        known = (pairs.outcome == pairs.outcome) & (pairs.label == pairs.label)
        errors = np.full(len(known), np.nan)
        errors[known] = np.abs(pairs.outcome[known] - pairs.label[known])
        p = pairs if known.all() else pairs.take(known)
        corrected = p.corrected & (p.previous == p.previous)  # a text that becomes a number is a first label
        return Judged(p.time, p.id, corrected, p.outcome, p.label, p.score, p.previous, p.probabilities, p.segment), errors

    def _classified(self, pairs: Pairs, texts: list[str]) -> tuple[Judged, Float]:
        """Rows with codes of predicted, actual and previous class and the score of the positive class, and their errors, 0 or 1."""
        actual, previous = self._codes(pairs.label, texts), self._codes(pairs.previous, texts)
        predicted, score = self._codes(pairs.outcome, texts), pairs.score
        if self.task == "binary" and self.settings.task == "auto" and not self.settings.positive_class and sum(c != self.positive for c in self.classes) > 1:
            self._widen()
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
        rows = Judged(pairs.time, pairs.id, pairs.corrected, predicted, actual, score, previous, pairs.probabilities, pairs.segment)
        return rows, (predicted != actual).astype(np.float64)

    def _widen(self) -> None:
        """A third class came: what was taken for binary is multiclass, from its first row on."""
        negative = next(code for name, code in self.classes.items() if name != self.positive)
        self.task = "multiclass"
        for windows in [*([self.windows] if self.windows is not None else []), *self.slices()]:
            windows.to_multiclass(self.classes[self.positive], negative)

    def _codes(self, cells: Cells, texts: list[str]) -> Float:
        """Class codes of cells, -1 where there is none."""
        distinct, inverse = np.unique(np.ascontiguousarray(cells).view(np.uint64), return_inverse=True)
        codes = [-1 if (t := class_text(c, texts)) is None else self.classes[t] for c in distinct.view(np.float64).tolist()]
        return np.array(codes, np.float64)[inverse]

    def _learn_reference(self, rows: Judged) -> None:
        """Accuracy of the first labelled rows, as the level that later ones are compared with."""
        if self.reference is None and self.task != "regression":
            first = ~rows.corrected
            self._first[0] += int(first.sum())
            self._first[1] += int((first & (rows.predicted == rows.actual)).sum())
            if self._first[0] >= self.settings.baseline.rows:
                self.reference = self._first[1] / self._first[0]

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has; empty when it has none."""
        return ({}, Span(0, 0, 0)) if self.windows is None else self.windows.window(name, only)

    # ---- judgement

    def verdicts(self, model: str, version: str, *, due: bool = False) -> Iterator[Verdict]:
        """Verdicts of the thresholds, with support; where a stride is full, of the trend too."""
        if self.windows is not None:
            yield from self.verdicts_on(self.windows, AlertKey(model, version, "", "performance", "", "threshold"))
            if due and self.pairs % (STRIDE * self.stride) == 0 and len(self.blocks) == self.settings.anomalies.trend_windows:
                yield self._trend_verdict(model, version)

    def _trend_verdict(self, model: str, version: str) -> Verdict:
        metric = "r2" if self.task == "regression" else "accuracy"
        rise, error = trend(self.blocks)
        falling = self.falling
        times = self.window(f"last_{STRIDE * self.stride}", "accuracy")[1]
        rows = len(self.blocks) * STRIDE * self.stride
        return Verdict(
            key=AlertKey(model, version, "", "anomaly", metric, "trend"),
            level="warning" if falling else "ok",
            clear=not falling,
            value=rise,
            threshold=min(self.settings.anomalies.trend_slope, -TREND_Z * error),
            direction="down",
            window=Span(times.start_ms, times.end_ms, rows),
            summary=f"{model}{' ' + version if version else ''}: {metric} fell by {-rise:.3f} along the last {len(self.blocks)} windows of {STRIDE * self.stride:,} labelled",
            cooldown_ms=self.settings.cooldown_ms,
            evidence={"windows": [round(b, 6) for b in self.blocks], "guarantee": "none"},
        )

    def verdicts_on(self, windows: PerformanceWindows, key: AlertKey) -> Iterator[Verdict]:
        """Verdicts of the thresholds on a population; of `key` the subject and kind are filled in. What was only taken for granted is not asked of a slice."""
        if key.segment and not self.settings.thresholds:
            return
        for metric, rule in self.rules():
            window = rule.window or next((w for w in self.settings.windows if last_n(w) is not None), self.settings.windows[0])
            found, span = windows.window(window, metric)
            if metric in found and span.count >= rule.min_labels:
                yield self._verdict(key, metric, rule, window, found[metric], span)

    def rules(self) -> Iterator[tuple[str, Threshold]]:
        """The thresholds of the configuration; without any, accuracy against its reference."""
        if self.settings.thresholds or self.task == "regression":
            yield from self.settings.thresholds.items()
        elif self.reference is None:
            yield "accuracy", Threshold(min=DEFAULT_ACCURACY, severity="info")
        else:
            yield "accuracy", Threshold(min=self.reference - ACCURACY_MARGIN, severity="warning")

    def _verdict(self, key: AlertKey, metric: str, rule: Threshold, window: str, value: float, span: Span) -> Verdict:
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
        sign = "above" if above else "below" if below else "within its limit of"
        where = f" of {key.segment}" if key.segment else ""
        return Verdict(
            key=key._replace(kind="calibration" if metric == "calibration_error" else "performance", subject=metric),
            level=rule.severity if below or above else "ok",
            clear=settled,
            value=value,
            threshold=limit,
            direction="down" if below else "up" if above else None,
            window=span,
            summary=f"{key.model}{' ' + key.version if key.version else ''}: {metric}{where} is {value:.3f} over {window} ({span.count:,} labelled), {sign} {limit:.3f}",
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
            "shift": self.shift,
            "waiting": [packed_pairs(p) for p, _ in self.waiting],
            "counts": [self.pairs, self.trends, *self._first],
            "falling": self.falling,
            "block": self.block.tolist(),
            "blocks": self.blocks,
            "reference": self.reference,
            "windows": None if self.windows is None else self.windows.state(),
        }

    def load(self, state: Mapping[str, Any], texts: list[str], changes: Changes, *, anew: bool) -> bool:
        """Go on from the state of a snapshot; whether the windows of labelled rows do. Columns of class scores stay, since rows that wait for labels have them, and counters do."""
        self.score_classes.update(state["score_classes"])
        self.waiting = [(unpacked_pairs(p), texts) for p in state["waiting"]]
        self.pairs, self.trends, *first = state["counts"]
        if not state["decided"]:
            return True
        known = {"task": (self.settings.task, state["task"]), "positive_class": (self.settings.positive_class, state["positive"] if state["task"] == "binary" else None)}
        keys = [key for key in changes.keys("performance") if known[key][0] != known[key][1]]
        if keys:
            changes.begins_anew("performance", keys)
        if keys or anew:
            return False
        self.classes.update(state["classes"])
        self.task, self.decided, self.positive, self.shift = (state[k] for k in ("task", "decided", "positive", "shift"))
        if level := changes.keys("level"):
            changes.begins_anew("level of accuracy", level)
        else:
            self._first, self.reference = first, state["reference"]
        if trend_of := changes.keys("trend"):
            changes.begins_anew("trend of performance", trend_of)
        else:
            self.falling, self.block, self.blocks = state["falling"], np.array(state["block"], np.float64), list(state["blocks"])
        if state["windows"] is not None:
            self.windows = PerformanceWindows.from_state(state["windows"], self.rows, self.classes, self.score_classes)
        return True


def packed_pairs(pairs: Pairs) -> dict[str, Any]:
    """Pairs as bytes, by column."""
    return {name: (column.dtype.str, list(column.shape), np.ascontiguousarray(column).tobytes()) for name, column in pairs._asdict().items()}


def unpacked_pairs(state: Mapping[str, Any]) -> Pairs:
    """Pairs of `packed_pairs`."""
    return Pairs(**{name: np.frombuffer(data, dtype).reshape(shape) for name, (dtype, shape, data) in state.items()})
