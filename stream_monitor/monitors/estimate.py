"""
Metrics of predictions that have no label yet, from their scores (`stats/expected_metrics.py`), and
whether labels that came later agreed (`checked.py`).

Rule of the file: predictions are counted by pane of event time and cell, labelled rows as they are
mature (`maturity.py`). Only event times and the order of labelled rows decide, so it does not show
how rows were cut. Nothing is estimated without saying of how many rows, or why not.

Theory of operation
-------------------
1. `count` adds served rows to panes, by cell (`score_cells`); rows without a score have one column.
2. `add` takes first labels of rows with a score. Where rows are mature at once they are counted at
   once; otherwise they wait in panes until they are mature, and corrections amend those that wait.
   If it turns out that rows must wait, what was learnt before is forgotten: it was a sample of
   those that are fast.
3. `expected` is asked for a window: its newest predictions, without those that are mature.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.arrays import Bool, Float, Int, are_numbers
from stream_monitor.monitors.checked import (
    CHECK_ROWS,
    LEARN_ROWS,
    STEP,
    Checked,
    CheckedState,
    places_of,
    resized,
    strata,
)
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.performance import Performance
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.score_cells import (
    BINS,
    HALF,
    NO_SCORE,
    SCORED,
    Answers,
    Places,
    bins_of,
    codes_of,
    labelled_scores,
    place_table,
)
from stream_monitor.settings import OTHER
from stream_monitor.stats import expected_metrics
from stream_monitor.stats.metric_intervals import Interval
from stream_monitor.stats.monotone import RightShares, right_shares
from stream_monitor.verdicts import Span
from stream_monitor.windows.names import duration_ms, last_n
from stream_monitor.windows.panes import HORIZON_MS, Panes, grouped_by_pane

PANE_MS = 10_000
SCORED_MIN = 0.9
"""Share of the rows of a window that must have a score."""


class Expected(NamedTuple):
    """Metrics that a window of predictions is expected to have."""

    metrics: dict[str, tuple[float, Interval]]
    span: Span
    """Of the rows that have a score."""


class EstimateState(msgspec.Struct):
    """The state of the estimates of one model version."""

    checked: CheckedState
    places: Places = msgspec.field(default_factory=Places)
    """Of the classes of served rows."""
    served: Panes = msgspec.field(default_factory=lambda: Panes(SCORED + 2 * BINS))
    waiting: Panes = msgspec.field(default_factory=lambda: Panes(3 * BINS))
    """Labelled rows that are not mature."""
    labels: int = 0
    """Labelled rows with a score."""
    waits: bool = False
    taken_ms: int = 0
    """Labelled rows before this event time do not wait any more."""
    since_ms: int = 0
    """Rows before this event time are not counted: some of them were, and were forgotten."""
    now_ms: int = 0
    """The newest label time."""


class Estimate:
    """
    The estimates of one model version.

    Parameters
    ----------
    performance : Performance
        It has the classes, how they are read, and when labels are mature.
    """

    def __init__(self, performance: Performance) -> None:
        self.performance, self.checked = performance, Checked()
        self._table: Int | None = None
        self._held: list[tuple[Judged, Int]] = []
        self._held_rows = 0
        self.state = EstimateState(self.checked.state)

    # ---- rows in

    @property
    def reading(self) -> Reading | None:
        """How classes were read at the end of the last stride."""
        return self.performance.live

    def count(self, rows: Rows) -> None:
        """Add served rows."""
        state = self.state
        if self.performance.kind == "numbers":
            return
        if any(name.startswith("score") for name in rows.columns):
            answers = Answers(rows, self.performance.score_classes)
            before = len(state.places.names)
            merged = state.places.add(answers.names)
            if (now := len(state.places.names)) != before:
                self._give_places(now, merged=merged)
            cells = answers.cells(state.places)
        else:
            cells = np.full(len(rows.times_ms), NO_SCORE)
        width = state.served.width
        starts, group = grouped_by_pane(rows.times_ms, PANE_MS)
        cells = cells if len(starts) == 1 else group * width + cells
        counts = np.bincount(cells, minlength=len(starts) * width).reshape(-1, width)
        state.served.add_grouped(starts, counts.astype(np.float64))

    def _give_places(self, now: int, *, merged: bool) -> None:
        panes, plain = self.state.served, SCORED + BINS
        if merged:
            all_of = panes.sums[:, plain:].reshape(len(panes.sums), -1, BINS).sum(axis=1)
            panes.sums = np.concatenate([panes.sums[:, :plain], all_of], axis=1)
            panes.width = plain + BINS
        else:
            same = np.arange(panes.width)
            panes.lay_out(same, same, plain + now * BINS)

    def add(self, rows: Judged, label_times: Int) -> None:
        """
        Add labelled rows, in the order in which they were completed.

        Parameters
        ----------
        rows : Judged
        label_times : (n,) int64, ms
        """
        of = self.performance
        waits = of.maturity.wait_ms is not None
        if self.state.waits != waits:
            self.flush()
            self._wait(waits=waits)
        scores = labelled_scores(rows, of.classes, of.score_classes)
        self._held.append((rows._replace(score=scores), label_times))
        self._held_rows += len(scores)
        if waits or self._held_rows >= self.checked.room:
            self.flush()

    def flush(self) -> None:
        """
        Count the labelled rows that came since the last call. They are held back while no block
        can be full, because what they cost is mostly per call.
        """
        held, self._held, self._held_rows = self._held, [], 0
        for rows, label_times in held if self.state.waits else _joined(held):
            self._take_in(rows, label_times)

    def _take_in(self, rows: Judged, label_times: Int) -> None:
        state, wait_ms = self.state, self.performance.maturity.wait_ms
        code, which = codes_of(rows, rows.actual)
        known = are_numbers(rows.score) & (code >= 0)
        if state.since_ms:
            known &= rows.time >= state.since_ms
        first = known & ~rows.corrected
        cells = bins_of(rows.score) * 3 + which
        start, n = 0, len(first)
        while start < n:
            # rows that mature are asked for at each step, others only where a block may be full
            least = state.labels + (1 if state.waits else max(self.checked.room, 1))
            wanted = -(-least // STEP) * STEP - state.labels
            end, counted = _next(first, start, wanted)
            here = slice(start, end)
            state.labels += counted
            if state.waits:
                state.now_ms = max(state.now_ms, int(label_times[here].max()))
                if not first[here].all():
                    self._correct(rows.at(here), known[here])
            if counted:
                self._count(rows.time[here], code[here], cells[here], first[here])
            if counted == wanted:
                if wait_ms is not None:
                    self._mature(state.now_ms - wait_ms)
                self.checked.step(self.reading)
            start = end

    def _correct(self, rows: Judged, known: Bool) -> None:
        """Rows that still wait for maturity are counted with their new label."""
        again = known & rows.corrected & (rows.time >= self.state.taken_ms)
        for actual, sign in ((rows.previous, -1), (rows.actual, 1)) if again.any() else ():
            code, which = codes_of(rows, actual)
            cells = bins_of(rows.score) * 3 + which
            self._count(rows.time, code, cells, again & (code >= 0), sign)

    def _count(self, times: Int, code: Int, cells: Int, these: Bool, sign: int = 1) -> None:
        """Count labelled rows by place and cell, at once or when they are mature."""
        if not these.all():
            times, code, cells = times[these], code[these], cells[these]
        place = self._places(code)
        width = len(self.checked.state.places.names) * BINS * 3
        at = place * (BINS * 3) + cells
        if not self.state.waits:
            sums = np.bincount(at, minlength=width).reshape(-1, BINS, 3)
            self.checked.add(sums, len(at), int(times.max()))
            return
        self._fit_waiting(width)
        starts, group = grouped_by_pane(times, PANE_MS)
        found = np.bincount(group * width + at, minlength=len(starts) * width)
        panes = sign * found.reshape(-1, width).astype(np.float64)
        self.state.waiting.add_grouped(starts, panes)

    def _places(self, code: Int) -> Int:
        """Place of each code; a new class gets one, so sums may grow."""
        names, places = self.performance.classes, self.checked.state.places
        if self._table is None or len(self._table) != len(names) + 1:
            self._table = place_table(list(names), places)
        place = self._table[code]
        if place.min() < 0:
            known = list(names)
            # in the order of the rows, because a snapshot counts rows that were held back
            places.add(known[c] for c in dict.fromkeys(code[place < 0].tolist()))
            self.checked.fit_places()
            self._table = place_table(known, places)
            place = self._table[code]
        return place

    def _wait(self, *, waits: bool) -> None:
        """Rows must wait from here on, or need not any more."""
        state = self.state
        state.waits = waits
        if waits:
            state.since_ms = state.taken_ms = self.checked.state.newest_ms + 1
            self.checked.begin_anew()
            state.checked = self.checked.state
        else:
            self._mature(state.waiting.watermark_ms + 2 * HORIZON_MS)
            state.taken_ms = 0

    def _mature(self, until_ms: int) -> None:
        if until_ms <= self.state.taken_ms or not self.state.waiting.used:
            return
        sums = self.state.waiting.take_until(until_ms)
        self.state.taken_ms = until_ms
        # a correction of a row that was counted before a restart must not count alone
        whole = np.maximum(sums, 0).astype(np.int64).reshape(-1, BINS, 3)
        rows = int(whole.sum())
        self.checked.add(whole, rows, min(until_ms, self.state.waiting.watermark_ms))

    def _fit_waiting(self, width: int) -> None:
        panes = self.state.waiting
        if panes.width > width:
            cut = panes.sums.reshape(len(panes.sums), -1, BINS, 3)
            panes.sums, panes.width = cut.sum(axis=1).reshape(len(cut), width), width
        elif panes.width < width:
            same = np.arange(panes.width)
            panes.lay_out(same, same, width)

    # ---- out

    def window(self, name: str, end_ms: int) -> tuple[Float, Span]:
        """
        Served rows of a window by column, and its span: the newest rows up to `end_ms`, without
        those that are mature.
        """
        panes, n, until_ms = self.state.served, last_n(name), self.performance.maturity.until_ms
        reach = HORIZON_MS if until_ms is None else max(end_ms - until_ms, PANE_MS)
        if n is None:
            sums, start, end = panes.window(end_ms, min(duration_ms(name) or 0, reach))
        else:
            sums, start, end = panes.newest(n, end_ms, reach)
        return sums, Span(start, end, int(sums.sum()))

    def expected(self, name: str, end_ms: int) -> Expected | None:
        """The metrics that a window is expected to have; None if it has too few scores."""
        reading, (sums, span) = self.reading, self.window(name, end_ms)
        scored = span.count - int(sums[NO_SCORE])
        if not span.count or scored < SCORED_MIN * span.count:
            return None
        counts, shares, positive = self._aligned(sums, reading)
        metrics = {"accuracy": expected_metrics.accuracy(shares, counts)}
        if reading is not None and reading.task == "binary" and positive is not None:
            metrics |= expected_metrics.binary(shares, counts, positive)
        return Expected(metrics, Span(span.start_ms, span.end_ms, scored))

    def _aligned(
        self, sums: Float, reading: Reading | None
    ) -> tuple[Float, RightShares, Float | None]:
        """Rows by the cells of what is learnt, its shares, and which cells are positive."""
        learnt, served = self.checked.state.places, self.state.places
        shares = self.checked.shares(reading)
        by_place = sums[SCORED:].reshape(-1, BINS)
        if served.merged and not learnt.merged:
            learnt = Places([OTHER], merged=True)
            shares = right_shares(*strata(resized(self.checked.state.fitted, 1), learnt, None))
        counts: Float = np.zeros((2 + len(learnt.names), BINS))
        counts[0, :HALF], counts[1, HALF:] = by_place[0, :HALF], by_place[0, HALF:]
        np.add.at(counts, [2 + learnt.of(name) for name in served.names], by_place[1:])
        at = places_of(learnt, reading)
        if at is None:
            return counts.ravel(), shares, None
        positive = np.zeros_like(counts)
        positive[[1, 2 + at[0]]] = 1.0
        return counts.ravel(), shares, positive.ravel()

    def why_not(self, name: str, end_ms: int) -> tuple[str, str]:
        """
        Why a window has no estimate that can be trusted, as a word and as a text; both are empty
        if it has one.
        """
        sums, span = self.window(name, end_ms)
        without = int(sums[NO_SCORE])
        if span.count - without < SCORED_MIN * span.count or not span.count:
            return "no_score", f"{without:,} of {span.count:,} predictions have no score"
        if (found := self.checked.state.contradicted) is not None:
            return "contradicted", (
                f"scores promised {found.expected:.3f} for {found.rows:,} predictions, and "
                f"{found.found:.3f} were right by their labels"
            )
        if not self.checked.is_valid(self.reading):
            rows = LEARN_ROWS + CHECK_ROWS
            return "learning", f"it needs {rows} labelled predictions with a score"
        return "", ""

    @property
    def memory_bytes(self) -> int:
        """Bytes of panes and blocks."""
        sums = self.state.served.sums, self.state.waiting.sums, self.checked.state.blocks
        return sum(array.nbytes for array in sums)

    # ---- snapshot

    def load(self, state: EstimateState) -> None:
        """Go on from a snapshot."""
        self.state, self.checked.state, self._table = state, state.checked, None


def _joined(held: list[tuple[Judged, Int]]) -> Iterator[tuple[Judged, Int]]:
    """Rows that are counted at once as one part; what is asked of corrections alone is left out."""
    if len(held) < 2:
        yield from held
        return
    names = ("time", "predicted", "actual", "score", "corrected")
    found = {name: np.concatenate([getattr(rows, name) for rows, _ in held]) for name in names}
    yield held[0][0]._replace(**found), held[0][1]


def _next(first: Bool, start: int, wanted: int) -> tuple[int, int]:
    """
    Where so many rows that count have come, or the end, and how many count until there.

    >>> _next(np.ones(5, bool), 1, 2), _next(np.array([True, False, True]), 0, 2)
    ((3, 2), (3, 2))
    >>> _next(np.array([True, False, False]), 0, 1), _next(np.array([True, False]), 1, 1)
    ((1, 1), (2, 0))
    """
    rest = first[start:]
    if rest.all():  # nearly always
        return start + min(wanted, len(rest)), min(wanted, len(rest))
    places = np.flatnonzero(rest)
    if len(places) < wanted:
        return len(first), len(places)
    return start + int(places[wanted - 1]) + 1, wanted
