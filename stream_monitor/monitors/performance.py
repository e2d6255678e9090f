"""
Is the model still right? Labelled predictions, the task they are of, and the thresholds on their
metrics.

Rule of the file: here pairs become judged rows, and windows of them become verdicts; the windows
are in `performance_windows`, how classes are read in `classes`, what is judged in
`performance_verdicts`. A correction amends windows, never what the detectors were fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.events.cells import class_name
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.classes import Classes, Counted, Reading, Source
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.judged import (
    Judged,
    as_classes,
    as_numbers,
    class_errors,
    number_errors,
)
from stream_monitor.monitors.level import Level
from stream_monitor.monitors.performance_kind import (
    DECIDE_LABELS,
    FRACTIONS,
    decided_kind,
    is_fraction,
    is_number,
)
from stream_monitor.monitors.performance_verdicts import (
    Told,
    contradiction_verdict,
    error_verdict,
    level_verdict,
    threshold_verdicts,
    unexpected_verdict,
)
from stream_monitor.monitors.performance_windows import KnownTask, PerformanceWindows, WindowsState
from stream_monitor.monitors.segments import Segments
from stream_monitor.monitors.trend import Trend
from stream_monitor.settings import OTHER, ModelSettings
from stream_monitor.verdicts import Span, Verdict
from stream_monitor.windows.names import last_n

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
    judged : callable
        Gets the judged rows, after they are counted here: for slices.
    renumbered : callable
        Gets the number that each class stands for, when what was taken for classes are numbers
        from there on.
    """

    def __init__(
        self,
        settings: ModelSettings,
        judged: Callable[[Judged], None] = lambda _: None,
        renumbered: Callable[[Float], None] = lambda _: None,
    ) -> None:
        self.settings, self._judged, self._renumbered = settings, judged, renumbered
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
        self.trend = Trend(settings.anomalies)
        self.built: dict[str, float] = {}
        """Metrics of the profile of this model, if it was built with labels."""
        self.live: Reading | None = None
        """
        How classes were read at the end of the last stride: by this the answers of scores are told
        to detectors.
        """
        counts = [n for w in settings.windows if (n := last_n(w)) is not None]
        self.rows = max(counts, default=DEFAULT_ROWS)
        self.stride = max(1, min(counts, default=DEFAULT_ROWS) // STRIDE)
        self.windows: PerformanceWindows | None = None

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
            as_numbers(pairs, texts) if self.kind == "numbers" else self._as_classes(pairs, texts)
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
            part = self._as_classes(pairs.at(here), texts) if narrow else rows.at(here)
            errors = (
                number_errors(part) if self.kind == "numbers" else class_errors(part, self.live)
            )
            self.windows.add(part)
            told = mine & are_numbers(errors)
            self._learn(part, errors, told)
            self.pairs += int(mine.sum())
            due = self.pairs % self.stride == 0 and bool(mine.any())
            if due:
                self.live = None if self.kind == "numbers" else self.counted.reading()
                if self.pairs % (STRIDE * self.stride) == 0:
                    self.trend.close_block(regression=self.kind == "numbers")
            yield errors[told], part.time[told], due
            start = end
            look = (
                narrow
                and self.pairs % NARROW == 0
                and len(self.counted.reading().named) > NUMBERS_MANY
            )
            if (due or look) and self._are_numbers():
                self._renumber()
                rows, narrow = as_numbers(pairs, texts), False
        if narrow:
            rows = self._as_classes(pairs, texts)
        if len(rows.time):
            self._judged(rows)

    def _as_classes(self, pairs: Pairs, texts: list[str]) -> Judged:
        return as_classes(pairs, texts, self.classes, self.score_classes)

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
        self._renumbered(values)
        self.trend.begin_anew()
        self.level = Level(self.settings.baseline.rows)

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

    def restored(self, state: WindowsState) -> PerformanceWindows:
        """Windows of their state."""
        counted = None if state.layout is None else self.counted
        return PerformanceWindows.restored(state, self.rows, counted)

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
            self.trend.add_numbers(errors[told], rows.actual[told])
        else:
            self.trend.add_errors(errors[told])

    # ---- windows out

    def window(self, name: str, only: str = "") -> tuple[dict[str, float], Span]:
        """
        Metrics of a window (or at least `only` that one, which may be cheaper) and the rows it has;
        empty when it has none.
        """
        return ({}, Span(0, 0, 0)) if self.windows is None else self.windows.window(name, only)

    # ---- judgement

    def verdicts(self, context: Context, *, due: bool = False) -> Iterator[Verdict]:
        """Verdicts of the thresholds, with support; where a stride is full, of the trend too."""
        if self.windows is None:
            return
        key = context.key("performance", "", "threshold")
        yield from threshold_verdicts(self.settings, self.windows, key)
        if not self.settings.thresholds:
            yield from (level_verdict if self.kind == "classes" else error_verdict)(
                self.settings, self.windows, key, self.level
            )
        yield from contradiction_verdict(self.settings, self.windows, key)
        yield from unexpected_verdict(self.settings, self.windows, key)
        self.told.look(self.task, self.windows.reading, self.pairs, self.settings.thresholds)
        yield from self.told.verdicts(key, self.pairs, self.rows)
        rows = STRIDE * self.stride
        if due and self.pairs % rows == 0 and self.trend.is_full:
            metric = "r2" if self.task == "regression" else "accuracy"
            times = self.window(f"last_{rows}", "accuracy")[1]
            yield self.trend.verdict(
                context.key("anomaly", metric, "trend"),
                Span(times.start_ms, times.end_ms, rows),
                self.settings.cooldown_ms,
            )

    def segment_verdicts(self, context: Context, segments: Segments) -> Iterator[Verdict]:
        """
        Verdicts of the configured thresholds on the slices that changed; what was only taken for
        granted is not asked of a slice.
        """
        for segment, windows in segments.changed():
            key = context.key("performance", "", "threshold", segment)
            yield from threshold_verdicts(self.settings, windows, key)
