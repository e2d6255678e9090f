"""
Is the model still right? Labelled predictions, the task they are of, and the thresholds on their
metrics.

Rule of the file: here pairs become judged rows, and windows of them become verdicts; the windows
are in `performance_windows`, how classes are read in `classes`, what is judged in
`performance_verdicts`. A correction amends windows, never what the detectors were fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.wording import apart, named, number
from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import Cells, class_name, class_text
from stream_monitor.join.rows import Pairs, packed_pairs, unpacked_pairs
from stream_monitor.monitors.anomaly import trend
from stream_monitor.monitors.classes import OTHER, Classes, Counted, Reading, Source
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.level import Level
from stream_monitor.monitors.performance_kind import (
    DECIDE_LABELS,
    FRACTIONS,
    decided_kind,
    is_fraction,
    is_number,
    numbers_of,
)
from stream_monitor.monitors.performance_verdicts import (
    Told,
    contradiction_verdict,
    error_verdict,
    level_verdict,
    threshold_verdicts,
    unexpected_verdict,
)
from stream_monitor.monitors.performance_windows import Judged, KnownTask, PerformanceWindows
from stream_monitor.settings import ModelSettings
from stream_monitor.stats.class_sums import BY_SCORE, NO_CLASS
from stream_monitor.verdicts import AlertKey, Span, Verdict
from stream_monitor.windows.names import last_n

TREND_Z, TREND_Z_R2 = 3.0, 9.0
"""
A falling trend is beyond so many of its standard errors, which come from the scatter of the windows
around the line. An accuracy must also fall by far more than chance does; an R² may scatter by as
much, and ten windows leave 8 degrees of freedom: beyond 9 in 1 of 100,000.
"""
TREND_ENDS = 3
"""Blocks of which the mean is what a trend falls from, and whether it is back."""
STRIDE = 5
"""A threshold is looked at this often in each window: after N / 5 labelled rows of `last_N`."""
DEFAULT_ROWS = 1_000
NARROW, NUMBERS_MANY = 50, 16
"""
Where there are more classes than this, and all are numbers, it is looked at so often whether they
are classes.
"""


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
        self.counted = Counted(
            self.classes,
            self.score_classes,
            settings.task,
            class_name(settings.positive_class or ""),
        )
        self.kind: str | None = (
            None
            if settings.task == "auto"
            else "numbers"
            if settings.task == "regression"
            else "classes"
        )
        """Whether labels are classes or numbers; None while that is open."""
        self.numeric = False
        """They are the classes 0 and 1 for the only reason that few numbers were others."""
        self.waiting: list[tuple[Pairs, list[str]]] = []
        self.pairs = 0
        self.level, self.told = Level(settings.baseline.rows), Told()
        self.built: dict[str, float] = {}
        """Metrics of the profile of this model, if it was built with labels."""
        self._live: Reading | None = None
        """
        How classes were read at the end of the last stride: by this the answers of scores are told
        to detectors.
        """
        self.block: Float = np.zeros(4)
        """
        Sums of the labelled rows since the last block of the trend: rows and right ones, or rows,
        squared errors, labels and their squares.
        """
        self.blocks: list[float] = []
        self.fell_from: float | None = None
        """What a falling trend fell from, until it is back there."""
        self.trends = 0
        """Falling trends found since the beginning."""
        counts = [n for w in settings.windows if (n := last_n(w)) is not None]
        self.rows = max(counts, default=DEFAULT_ROWS)
        self.stride = max(1, min(counts, default=DEFAULT_ROWS) // STRIDE)
        self.windows: PerformanceWindows | None = None
        self.on_rows: Callable[[Judged], None] = lambda _: None
        """Called with judged rows."""
        self.on_numbers: Callable[[], None] = lambda: None
        """Called when what was taken for classes are numbers from now on."""
        self.slices: Callable[[], list[PerformanceWindows]] = list
        """The windows of slices."""

    @property
    def task(self) -> KnownTask | None:
        """What the model does, as far as it is known."""
        if self.kind is None:
            return None
        return "regression" if self.kind == "numbers" else self.counted.reading().task

    @property
    def positive_class(self) -> tuple[str, Source]:
        """
        The positive class of a binary model and how it was found, as far as that is known; else
        empty.
        """
        reading = self.counted.reading() if self.task == "binary" else None
        return ("", "") if reading is None else (reading.positive, reading.source)

    @property
    def _trend_z(self) -> float:
        return TREND_Z_R2 if self.kind == "numbers" else TREND_Z

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
        if self.kind is not None and not self.waiting:
            yield from self._strides(pairs, texts)
            return
        self.waiting.append((pairs, texts))
        yield from self.settle(DECIDE_LABELS)

    def settle(self, least: int = 1) -> Iterator[tuple[Float, Int, bool]]:
        """
        Decide what is open on the labelled rows that wait, if that can be or there are so many, and
        take them in.

        Yields as `add` does.
        """
        if not self.waiting or not (self.kind is not None or self._decide(least)):
            return
        waiting, self.waiting = self.waiting, []
        for part, names in waiting:
            yield from self._strides(part, names)

    def _strides(self, pairs: Pairs, texts: list[str]) -> Iterator[tuple[Float, Int, bool]]:
        known = len(self.classes)
        rows = (
            self._numbers(pairs, texts)
            if self.kind == "numbers"
            else self._classified(pairs, texts)
        )
        start, n, first = 0, len(pairs.row), ~pairs.corrected
        narrow = self._may_be_numbers()
        # few rows at a time, so that no number loses its place among the classes before it is known
        # to be one
        if narrow:
            for name in list(self.classes)[known:]:
                del self.classes[name]
        while start < n:
            end = min(n, start + self.stride - self.pairs % self.stride)
            if narrow:
                end = min(end, start + NARROW - self.pairs % NARROW)
            if self.windows is None:
                self.windows = self.population(slim=False)
            here, mine = slice(start, end), first[start:end]
            part = self._classified(pairs.take(here), texts) if narrow else rows.take(here)
            errors = self._errors(part)
            self.windows.add(part)
            told = mine & are_numbers(errors)
            self._learn(part, errors, told)
            self.pairs += int(mine.sum())
            due = self.pairs % self.stride == 0 and bool(mine.any())
            if due:
                self._live = None if self.kind == "numbers" else self.counted.reading()
                if self.pairs % (STRIDE * self.stride) == 0:
                    self._close_block()
            yield errors[told], part.time[told], due
            start = end
            look = (
                narrow
                and self.pairs % NARROW == 0
                and len(self.counted.reading().named) > NUMBERS_MANY
            )
            if (due or look) and self._are_numbers():
                self._renumber()
                rows, narrow = self._numbers(pairs, texts), False
        if narrow:
            rows = self._classified(pairs, texts)
        if len(rows.time):
            self.on_rows(rows)

    def _errors(self, rows: Judged) -> Float:
        """0 and 1, or absolute errors of a regression; NaN where it is not known."""
        if self.kind == "numbers":
            with np.errstate(over="ignore", invalid="ignore"):
                errors: Float = np.abs(rows.predicted - rows.actual)
            errors[~np.isfinite(errors)] = np.nan
            return errors
        wrong: Float = (rows.predicted != rows.actual).astype(np.float64)
        by_score = rows.predicted == BY_SCORE
        if by_score.any():
            live = self._live
            known = live is not None and min(live.positive_code, live.negative_code) >= 0
            codes = (
                np.where(rows.score >= 0.5, live.positive_code, live.negative_code)
                if live is not None and known
                else np.full(len(wrong), np.nan)
            )
            wrong = np.where(
                by_score,
                np.where(are_numbers(codes), (codes != rows.actual).astype(np.float64), np.nan),
                wrong,
            )
        return wrong

    def _may_be_numbers(self) -> bool:
        """There are so many classes, all of them numbers, that they may be no classes."""
        few = (
            len(self.classes) <= NUMBERS_MANY
            or self.settings.task != "auto"
            or self.score_classes
            or self.kind != "classes"
        )
        return not few and all(is_number(name) for name in self.classes if name != OTHER)

    def _are_numbers(self) -> bool:
        """
        What was taken for classes are numbers: they have fractions, or are others than 0 and 1 and
        no longer rare.
        """
        if self.settings.task != "auto" or self.score_classes or self.kind != "classes":
            return False
        reading = self.counted.reading()
        if self.numeric and (
            reading.task == "multiclass"
            or (len(reading.named) > NUMBERS_MANY and reading.many_further)
        ):
            self.numeric = all(is_number(name) for name in reading.named)
            return self.numeric
        return sum(map(is_fraction, reading.named[2:])) >= FRACTIONS and all(
            is_number(name) for name in reading.named if name != OTHER
        )

    def _renumber(self) -> None:
        """Windows go on with the numbers that the classes stood for."""
        values = np.array(
            [float(name) if is_number(name) else np.nan for name in self.classes], np.float64
        )
        self.kind, self.numeric = "numbers", False
        assert self.windows is not None
        self.windows = self.windows.as_regression(values)
        for windows in self.slices():
            windows.renumber(values)
        self.on_numbers()
        self.block, self.blocks, self.fell_from, self.level = (
            np.zeros(4),
            [],
            None,
            Level(self.settings.baseline.rows),
        )

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
            slope, (rise, error) = self.settings.anomalies.trend_slope, trend(self.blocks)
            first, last = (
                sum(blocks) / TREND_ENDS
                for blocks in (self.blocks[:TREND_ENDS], self.blocks[-TREND_ENDS:])
            )
            if rise < min(slope, -self._trend_z * error):
                self.trends += self.fell_from is None
                self.fell_from = max(first, first if self.fell_from is None else self.fell_from)
            elif self.fell_from is not None and last >= self.fell_from + min(slope, 0.0) / 2:
                self.fell_from = None

    def _decide(self, least: int) -> bool:
        decided = decided_kind(self.waiting, least, scored=bool(self.score_classes))
        if decided is not None:
            self.kind, self.numeric = decided
        return decided is not None

    def population(self, *, slim: bool) -> PerformanceWindows:
        """New windows for all labelled rows, or for a slice of them."""
        return PerformanceWindows(
            None if self.kind == "numbers" else self.counted, self.rows, slim=slim
        )

    def restored(self, state: Mapping[str, Any]) -> PerformanceWindows:
        """Windows of their state."""
        return PerformanceWindows.from_state(
            state, self.rows, None if state["layout"] is None else self.counted
        )

    def _learn(self, rows: Judged, errors: Float, told: NDArray[np.bool_]) -> None:
        """First labels make the blocks of the trend, and the level."""
        assert self.kind is not None
        if self.level.loss is None and self.built:
            self.level.use(
                {
                    k: v
                    for k, v in self.built.items()
                    if (k == "accuracy") == (self.kind == "classes") or k == "labels"
                }
            )
        self.level.add(errors[told], self.kind)
        if self.kind == "numbers":
            y = rows.actual[told]
            with np.errstate(over="ignore", invalid="ignore"):
                self.block += (len(y), (errors[told] ** 2).sum(), y.sum(), (y * y).sum())
            return
        self.block[:2] += int(told.sum()), int((errors[told] == 0).sum())

    @staticmethod
    def _numbers(pairs: Pairs, texts: list[str]) -> Judged:
        """
        Rows of a regression; a text that is no number is no value, and its row is in no metric.
        """
        predicted, actual, previous = (
            numbers_of(c, texts) for c in (pairs.outcome, pairs.label, pairs.previous)
        )
        return Judged(
            pairs.time,
            pairs.id,
            pairs.corrected,
            predicted,
            actual,
            pairs.score,
            previous,
            np.empty((len(actual), 0)),
            pairs.segment,
        )

    def _classified(self, pairs: Pairs, texts: list[str]) -> Judged:
        """
        Rows with codes of predicted, actual and previous class; without an answer that of the
        greatest class score, or BY_SCORE.
        """
        actual = self._codes(pairs.label, texts)
        previous = (
            self._codes(pairs.previous, texts)
            if pairs.corrected.any()
            else np.full(len(actual), float(NO_CLASS))
        )
        predicted = self._codes(pairs.outcome, texts)
        if OTHER in self.classes:  # classes without a place of their own are still told apart
            for i in np.flatnonzero(
                (predicted == self.classes[OTHER]) & (actual == predicted)
            ).tolist():
                if class_text(float(pairs.outcome[i]), texts) != class_text(
                    float(pairs.label[i]), texts
                ):
                    predicted[i] = NO_CLASS
        if pairs.probabilities.shape[1]:
            scored = ~np.isnan(pairs.probabilities).all(axis=1)
            best = np.where(scored, np.nan_to_num(pairs.probabilities, nan=-1.0).argmax(axis=1), 0)
            names = {column: self.classes[name] for name, column in self.score_classes.items()}
            by_score = np.array([names.get(b, NO_CLASS) for b in best.tolist()], np.float64)
            predicted = np.where((predicted < 0) & scored, by_score, predicted)
        without = predicted < 0
        if without.any():
            predicted = np.where(without & (pairs.score == pairs.score), float(BY_SCORE), predicted)
        return Judged(
            pairs.time,
            pairs.id,
            pairs.corrected,
            predicted,
            actual,
            pairs.score,
            previous,
            pairs.probabilities,
            pairs.segment,
        )

    def _codes(self, cells: Cells, texts: list[str]) -> Float:
        """Class codes of cells, NO_CLASS where there is none."""
        distinct, inverse = np.unique(
            np.ascontiguousarray(cells).view(np.uint64), return_inverse=True
        )
        codes = [
            NO_CLASS if (t := class_text(c, texts)) is None else self.classes[t]
            for c in distinct.view(np.float64).tolist()
        ]
        return np.array(codes, np.float64)[inverse]

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """
        Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has;
        empty when it has none.
        """
        return ({}, Span(0, 0, 0)) if self.windows is None else self.windows.window(name, only)

    # ---- judgement

    def verdicts(self, model: str, version: str, *, due: bool = False) -> Iterator[Verdict]:
        """Verdicts of the thresholds, with support; where a stride is full, of the trend too."""
        if self.windows is None:
            return
        key = AlertKey(model, version, "", "performance", "", "threshold")
        yield from threshold_verdicts(self.settings, self.windows, key)
        if not self.settings.thresholds:
            yield from (level_verdict if self.kind == "classes" else error_verdict)(
                self.settings, self.windows, key, self.level
            )
        yield from contradiction_verdict(self.settings, self.windows, key)
        yield from unexpected_verdict(self.settings, self.windows, key)
        self.told.look(self.task, self.windows.reading, self.pairs, self.settings.thresholds)
        yield from self.told.verdicts(key, self.pairs, self.rows)
        if (
            due
            and self.pairs % (STRIDE * self.stride) == 0
            and len(self.blocks) == self.settings.anomalies.trend_windows
        ):
            yield self._trend_verdict(model, version)

    def verdicts_on(self, windows: PerformanceWindows, key: AlertKey) -> Iterator[Verdict]:
        """
        Verdicts of the configured thresholds on a slice; what was only taken for granted is not
        asked of it.
        """
        yield from threshold_verdicts(self.settings, windows, key)

    def _trend_verdict(self, model: str, version: str) -> Verdict:
        metric = "r2" if self.task == "regression" else "accuracy"
        falling, slope = self.fell_from is not None, min(self.settings.anomalies.trend_slope, 0.0)
        rows = STRIDE * self.stride
        times = self.window(f"last_{rows}", "accuracy")[1]
        now, before = self.blocks[-1], self.blocks[0] if self.fell_from is None else self.fell_from
        said, was = apart(now, before, digits=3)
        text = f"over the last {rows:,} labelled predictions is {said}"
        text += (
            (
                f" and was {was} before it fell, by more than {number(-slope)} along "
                f"{len(self.blocks)} such blocks (anomalies.trend_slope)"
            )
            if falling
            else "; it is not falling any more"
        )
        return Verdict(
            key=AlertKey(model, version, "", "anomaly", metric, "trend"),
            level="warning" if falling else "ok",
            clear=not falling,
            value=now,
            threshold=before + slope / 2,
            direction="down",
            window=Span(times.start_ms, times.end_ms, rows),
            summary=f"{named(model, version)}: {metric} {text}",
            cooldown_ms=self.settings.cooldown_ms,
            evidence={"windows": [round(b, 6) for b in self.blocks], "guarantee": "none"},
        )

    # ---- snapshot

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "classes": dict(self.classes),
            "score_classes": dict(self.score_classes),
            "kind": self.kind,
            "numeric": self.numeric,
            "live": None if self._live is None else list(self._live),
            "waiting": [packed_pairs(p) for p, _ in self.waiting],
            "counts": [self.pairs, self.trends],
            "fell_from": self.fell_from,
            "block": self.block.tolist(),
            "blocks": self.blocks,
            "level": self.level.state(),
            "built": self.built,
            "told": self.told.state(),
            "windows": None if self.windows is None else self.windows.state(),
        }

    def load(
        self, state: Mapping[str, Any], texts: list[str], changes: Changes, *, anew: bool
    ) -> bool:
        """
        Go on from the state of a snapshot; whether the windows of labelled rows do.

        Another `positive_class`, or another task of classes, is another reading of the same sums.
        Numbers that are classes now, and classes that are numbers, begin anew. Columns of class
        scores stay, since rows that wait for labels have them, and counters do.
        """
        self.score_classes.update(state["score_classes"])
        self.waiting = [(unpacked_pairs(p), texts) for p in state["waiting"]]
        self.pairs, self.trends = state["counts"]
        self.told.load(state["told"])
        open_again = (
            self.kind is None
            and "task" in changes.keys("performance")
            and state["kind"] is not None
        )
        if open_again or (self.kind is not None and state["kind"] not in (None, self.kind)):
            changes.begins_anew("performance", ["task"])
            return False
        if anew:
            return False
        self.classes.update(state["classes"])
        self.kind, self.numeric = state["kind"] or self.kind, state["numeric"]
        if state["live"]:
            self._live = msgspec.convert(state["live"], Reading)
        if level := changes.keys("level"):
            changes.begins_anew("level of performance", level)
        else:
            self.level.load(state["level"])
            self.built = dict(state["built"])
        self.fell_from = state["fell_from"]
        if trend_of := changes.keys("trend"):
            changes.begins_anew("trend of performance", trend_of)
        else:
            self.block, self.blocks = np.array(state["block"], np.float64), list(state["blocks"])
        if state["windows"] is not None:
            self.windows = self.restored(state["windows"])
        return True
