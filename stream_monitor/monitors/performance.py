"""
Is the model still right? Labelled predictions, the task they are of, and the thresholds on their
metrics.

Rule of the file: pairs become judged rows here, and windows of these become verdicts. The windows
are in `performance_windows`, how classes are read in `classes`, what is judged in
`performance_verdicts`. A correction amends windows, never what was fed to detectors.

Theory of operation
-------------------
In go the pairs of one model version, in the order in which they were completed. Out come windows of
labelled rows, and the errors of first labels for the detectors.

1. While `kind` is open, pairs wait: `performance_kind` says from at most 100 of them whether labels
   are classes or numbers. With a configured `task` nothing waits.
2. `_strides` cuts the rows where a stride is full, a fifth of the smallest `last_N`. At these
   places of the log, wherever chunks end, thresholds are looked at and the trend may close a block.
3. The windows count everything. Classes get codes in the order in which they appear; which of them
   is the positive one is read from the counts at each look and may change (`classes`). So nothing
   that is counted depends on it.
4. Detectors get each first label once, as the error of that moment (`live`: how classes were read
   at the end of the last stride). They remember an order and cannot take an error back.
5. Labels that seemed to be classes may turn out to be numbers (`_are_numbers`), for example counts
   of which the first hundred were nearly all 0 or 1. The windows then become those of a regression
   (`_renumber`), because each class stands for its number.

It must never happen that a verdict depends on how rows were cut into chunks, or that a correction
makes a detector alarm.

Five pairs with windows of ten rows: four first labels, and a correction of the third one.

>>> five = np.arange(5)
>>> pairs = Pairs(
...     row=five,
...     version=np.zeros(5, np.int64),
...     id=np.array([10, 11, 12, 13, 12], np.uint64),
...     time=np.array([0, 1_000, 2_000, 3_000, 2_000]),
...     outcome=np.array([1.0, 0.0, 1.0, 1.0, 1.0]),
...     score=np.full(5, np.nan),
...     segment=np.zeros(5, np.int64),
...     probabilities=np.empty((5, 0)),
...     label=np.array([1.0, 0.0, 0.0, 1.0, 1.0]),
...     label_time=np.full(5, 9_000),
...     previous=np.array([np.nan, np.nan, np.nan, np.nan, 0.0]),
...     corrected=np.array([False, False, False, False, True]),
...     origin=five,
... )
>>> performance = Performance(ModelSettings(task="binary", windows=("last_10",)))
>>> for errors, times_ms, _, due in performance.add(pairs, []):
...     print(errors.tolist(), times_ms.tolist(), due, performance.window("last_10")[0]["accuracy"])
[0.0, 0.0] [0, 1000] True 1.0
[1.0, 0.0] [2000, 3000] True 0.75
[] [] False 1.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stream_monitor.arrays import Bool, Float, Int, are_numbers
from stream_monitor.events.cells import class_name
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.classes import Classes, Counted, Reading, Source
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.judged import (
    Judged,
    answers,
    as_classes,
    as_numbers,
    class_errors,
    delay_groups,
    number_errors,
)
from stream_monitor.monitors.level import Level
from stream_monitor.monitors.maturity import Coded, Maturity
from stream_monitor.monitors.performance_kind import (
    DECIDE_LABELS,
    NUMBERS_MANY,
    decided_kind,
    is_number,
    turned_out,
)
from stream_monitor.monitors.performance_verdicts import (
    Told,
    contradiction_verdict,
    error_verdict,
    level_verdict,
    unexpected_verdict,
)
from stream_monitor.monitors.performance_windows import KnownTask, PerformanceWindows, WindowsState
from stream_monitor.monitors.thresholds import measured, newest_rows, threshold_verdicts
from stream_monitor.monitors.trend import Trend
from stream_monitor.settings import OTHER, ModelSettings
from stream_monitor.verdicts import Span, Verdict
from stream_monitor.windows.names import last_n

STRIDE = 5
"""Looks at a threshold in each window: one after every N / 5 labelled rows of `last_N`."""
DEFAULT_ROWS = 1_000
NARROW = 50
"""
After so many rows it is asked whether labels are classes at all, while there are more than
`NUMBERS_MANY` classes and all are numbers.
"""

Stride = tuple[Float, Int, Int, bool]
"""What `Performance.add` yields."""


class Performance:
    """
    Windows of labelled predictions of one model version.

    Parameters
    ----------
    settings : ModelSettings
        `task`, `positive_class`, `windows` and `thresholds` are used.
    judged : callable
        Gets the judged rows after they are counted here, for slices, with the errors of first
        labels (NaN for other rows) and the kind of labels.
    renumbered : callable
        Gets the number that each class stands for, when labels that seemed to be classes turn out
        to be numbers.
    predictions : callable
        Gives the number of predictions up to an event time.
    scored : callable
        Gets rows, which of them are first labels, and how classes are read, for the calibration:
        stride by stride, unless labels of one class come later than others.
    """

    def __init__(
        self,
        settings: ModelSettings,
        judged: Callable[[Judged, Float, str], None] = lambda *_: None,
        renumbered: Callable[[Float], None] = lambda _: None,
        predictions: Callable[[int], float] = lambda _: 0.0,
        scored: Callable[[Judged, Bool, Reading | None], None] = lambda *_: None,
    ) -> None:
        self.settings, self._judged, self._renumbered = settings, judged, renumbered
        self._predictions, self._scored = predictions, scored
        self.labelled: Callable[[Judged, Int], None] = lambda *_: None
        """Gets classes as they are counted, with their label times, between two strides."""
        self.maturity = Maturity(settings.labels.max_delay_ms)
        self.classes, self.score_classes = Classes(), Classes()
        self.counted = Counted(
            self.classes,
            self.score_classes,
            settings.task,
            class_name(settings.positive_class or ""),
            macro=settings.average == "macro",
        )
        kinds: dict[str, str | None] = {"auto": None, "regression": "numbers"}
        self.kind = kinds.get(settings.task, "classes")
        """Whether labels are classes or numbers; None while it is open."""
        self.numeric = False
        """Labels count as the classes 0 and 1 only because few of them were other numbers."""
        self.waiting: list[tuple[Pairs, list[str]]] = []
        self.pairs = 0
        self.level, self.told = Level(settings.baseline.rows), Told()
        self.trend = Trend(settings.anomalies)
        self.built: dict[str, float] = {}
        """Metrics in the baseline of this model, if it was built with labels."""
        self.live: Reading | None = None
        """How classes were read at the end of the last stride; detectors get errors by it."""
        counts = [n for w in settings.windows if (n := last_n(w)) is not None]
        self.rows = max(counts, default=DEFAULT_ROWS)
        self.stride = max(1, min(counts, default=DEFAULT_ROWS) // STRIDE)
        self.windows: PerformanceWindows | None = None

    @property
    def task(self) -> KnownTask | None:
        """The task of the model; None while it is open."""
        if self.kind is None:
            return None
        return "regression" if self.kind == "numbers" else self.counted.reading().task

    @property
    def positive_class(self) -> tuple[str, Source]:
        """The positive class of a binary model and how it was found; empty if it is not known."""
        reading = self.counted.reading() if self.task == "binary" else None
        return ("", "") if reading is None else (reading.positive, reading.source)

    # ---- rows in

    def add(self, pairs: Pairs, texts: list[str]) -> Iterator[Stride]:
        """
        Add labelled rows, in the order in which they were completed.

        Yields
        ------
        errors : (n,) float64
            Of first labels: 0 or 1 (classification), or absolute errors (regression).
        times : (n,) int64, ms
        origin : (n,) int64
            Where the labels came from.
        due : bool
            Whether a stride is full, so that thresholds must be looked at now.
        """
        if self.kind is not None and not self.waiting:
            yield from self._strides(pairs, texts)
            return
        self.waiting.append((pairs, texts))
        yield from self.settle(DECIDE_LABELS)

    def settle(self, least: int = 1) -> Iterator[Stride]:
        """
        Decide on the kind of labels if the rows that wait allow it or are at least `least`, and add
        them.

        It yields as `add` does.
        """
        if not self.waiting or not (self.kind is not None or self._decide(least)):
            return
        waiting, self.waiting = self.waiting, []
        for part, names in waiting:
            yield from self._strides(part, names)

    def _strides(self, pairs: Pairs, texts: list[str]) -> Iterator[Stride]:
        """Add rows of a known kind, stride by stride; it yields as `add` does."""
        classes_before = len(self.classes)
        rows = (
            as_numbers(pairs, texts) if self.kind == "numbers" else self._as_classes(pairs, texts)
        )
        start, n, first = 0, len(pairs.row), ~pairs.corrected
        errors_of = np.full(n, np.nan)
        narrow = self._may_be_numbers()
        # There is room for 255 classes, and further ones become `__other__`. Numbers would lose
        # their value there, so rows that may be numbers are added a few at a time; the classes that
        # this whole chunk has just made are taken back for that.
        coded = self._coded(pairs, rows)
        if narrow:
            for name in list(self.classes)[classes_before:]:
                del self.classes[name]
        while start < n:
            end = min(n, start + self.stride - self.pairs % self.stride)
            if narrow:
                end = min(end, start + NARROW - self.pairs % NARROW)
            if self.windows is None:
                self.windows = self.population(slim=False)
            here, mine = slice(start, end), first[start:end]
            part = self._as_classes(pairs.at(here), texts) if narrow else rows.at(here)
            errors = (
                number_errors(part) if self.kind == "numbers" else class_errors(part, self.live)
            )
            self.windows.add(part)
            # detectors get first labels only, and only of rows with an error: a text among numbers
            # has none
            told = mine & are_numbers(errors)
            errors_of[here] = np.where(told, errors, np.nan)
            if self.kind == "classes":
                self.maturity.add(self._coded(pairs.at(here), part) if narrow else coded.at(here))
                self.labelled(part, pairs.label_time[here])
            self._learn(part, errors, told)
            if self.maturity.wait_ms is None:
                self._scored(part, told, self.live)
            self.pairs += int(mine.sum())
            due = self.pairs % self.stride == 0 and bool(mine.any())
            if due:
                self.live = None if self.kind == "numbers" else self.counted.reading()
                self.trend.close_group()
                if self.pairs % (STRIDE * self.stride) == 0:
                    self.trend.look(self.live, macro=self.counted.macro)
            yield errors[told], part.time[told], part.origin[told], due
            start = end
            look = (
                narrow
                and self.pairs % NARROW == 0
                and len(self.counted.reading().named) > NUMBERS_MANY
            )
            if (due or look) and self._are_numbers():
                # the rows of this chunk that are still to come are numbers already
                self._renumber()
                rows, narrow, errors_of[:end] = as_numbers(pairs, texts), False, np.nan
        if narrow:
            rows = self._as_classes(pairs, texts)
        if len(rows.time):
            assert self.kind is not None
            self._judged(rows, errors_of, self.kind)

    def _coded(self, pairs: Pairs, rows: Judged) -> Coded:
        group = delay_groups(rows) if self.kind == "classes" else np.zeros(len(rows.time), np.int64)
        return self.maturity.coded(pairs, group)

    def _as_classes(self, pairs: Pairs, texts: list[str]) -> Judged:
        return as_classes(pairs, texts, self.classes, self.score_classes)

    @property
    def _is_open(self) -> bool:
        """Whether classes may still turn out to be numbers."""
        found = self.settings.task != "auto" or self.score_classes or self.kind != "classes"
        return not found

    def _may_be_numbers(self) -> bool:
        """Whether there are so many classes, all of them numbers, that labels may be numbers."""
        many = len(self.classes) > NUMBERS_MANY and self._is_open
        return many and all(is_number(name) for name in self.classes if name != OTHER)

    def _are_numbers(self) -> bool:
        """Whether labels that seemed to be classes are numbers."""
        if not self._is_open:
            return False
        found, self.numeric = turned_out(self.counted.reading(), numeric=self.numeric)
        return found

    def _renumber(self) -> None:
        """Go on as a regression, with the numbers that the classes stood for."""
        values = np.array([float(n) if is_number(n) else np.nan for n in self.classes], np.float64)
        self.kind, self.numeric = "numbers", False
        assert self.windows is not None
        self.windows = self.windows.as_regression(values)
        self._renumbered(values)
        self.trend.begin_anew()
        self.level = Level(self.settings.baseline.rows)

    def _decide(self, least: int) -> bool:
        """Decide whether labels are classes or numbers, if it can be decided."""
        decided = decided_kind(self.waiting, least, scored=bool(self.score_classes))
        if decided is not None:
            self.kind, self.numeric = decided
        return decided is not None

    def population(self, *, slim: bool) -> PerformanceWindows:
        """New windows for all labelled rows, or for a slice of them."""
        return PerformanceWindows(
            None if self.kind == "numbers" else self.counted, self.rows, slim=slim
        )

    def restored(self, state: WindowsState) -> PerformanceWindows:
        """Windows from their state in a snapshot."""
        counted = None if state.layout is None else self.counted
        return PerformanceWindows.restored(state, self.rows, counted)

    def _learn(self, rows: Judged, errors: Float, told: Bool) -> None:
        """Feed first labels to the trend and to the level."""
        assert self.kind is not None
        if self.level.loss is None and self.built:
            self.level.use(
                {
                    k: v
                    for k, v in self.built.items()
                    if (k == "accuracy") == (self.kind == "classes") or k == "labels"
                }
            )
        if self.maturity.wait_ms is None:
            self.level.add(errors[told], self.kind)
        if self.kind == "numbers":
            self.trend.add_numbers(errors[told], rows.actual[told])
        else:
            self.trend.add_classes(answers(rows, self.live)[told], rows.actual[told])

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """
        Metrics of a window and the rows that it has; empty if it has none.

        With `only`, other metrics may be missing, which may be cheaper.
        """
        return ({}, Span(0, 0, 0)) if self.windows is None else self.windows.window(name, only)

    # ---- judgement

    def verdicts(self, context: Context, *, due: bool = False) -> Iterator[Verdict]:
        """Verdicts of the thresholds; if a stride is full (`due`), of the trend too."""
        if self.windows is None:
            return
        key = context.key("performance", "", "threshold")
        until_ms = self._mature(self.windows, due=due)
        limits = self.settings, self.windows, key, until_ms
        yield from threshold_verdicts(*limits, longer=not due)
        if not measured(self.settings):
            yield from (level_verdict if self.kind == "classes" else error_verdict)(
                self.settings, self.windows, key, self.level, until_ms
            )
        rows = STRIDE * self.stride
        if not due or self.pairs % rows == 0:  # what changes slowly: after a block, and each second
            yield from contradiction_verdict(self.settings, self.windows, key)
            yield from unexpected_verdict(self.settings, self.windows, key)
            self.told.look(self.task, self.windows.reading, self.pairs, self.settings.thresholds)
            yield from self.told.verdicts(key, self.pairs, self.rows)
        if due and self.pairs % rows == 0 and self.trend.lines:
            times = self.window(f"last_{rows}", "accuracy")[1]
            span = Span(times.start_ms, times.end_ms, rows)
            yield from self.trend.verdicts(context, span)

    def _mature(self, windows: PerformanceWindows, *, due: bool) -> int | None:
        """Event time up to which rows are mature; None if all of them are."""
        if self.kind == "numbers":
            return None
        due &= self.pairs > self.rows and self.pairs % (STRIDE * self.stride) != 0
        if not due or self.maturity.is_due:
            until_ms, labels = windows.state.frontier_ms, float(windows.state.total[0])
            self.maturity.look(lambda: (labels, self._predictions(until_ms)))
        if (until := self.maturity.until_ms) is not None and not measured(self.settings):
            found, span = windows.window(newest_rows(self.settings), "accuracy", until)
            self.level.take(found, span.count)
        return until
