"""
The errors of a model as a signal of its own, for the detector on counts.

Rule of the file: errors of a classification are 0 and 1 and need no reference. Those of a
regression get their bins from the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.origins import NO_ORIGINS
from stream_monitor.monitors.baseline import numeric_profile
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.late_errors import LateErrors, Told
from stream_monitor.monitors.maturity import Maturity
from stream_monitor.monitors.newest import Batch, Newest, NewestForm
from stream_monitor.monitors.one_signal import OneSignal, OneSignalForm
from stream_monitor.monitors.schemes import Flags, Numbers
from stream_monitor.monitors.segment_drift import SegmentDriftForm
from stream_monitor.monitors.signals import ERRORS, FIRST_ERRORS
from stream_monitor.monitors.sums import ByChunk

CHUNK_LABELS = 25
CHUNKS_MIN = 3
"""More than of features: errors of real models come in bursts of some tens of rows."""
WARM_LABELS = 500
"""Labels that are known before evidence counts: fewer than of features, because labels are rare."""
BINARY, NUMBERS = "binary", "numbers"


class ErrorsState(OneSignalForm):
    """Errors in a snapshot."""

    left_out: int
    """First errors of a regression that no segment has counted, because they make the bins."""
    sliced: SegmentDriftForm
    newest_sliced: NewestForm
    """Rows that segments have got: it may be fewer than the whole stream has."""
    late: LateErrors


class Errors(OneSignal):
    """The errors of a model version."""

    name, chunk_rows, warm_rows, chunks_min = ERRORS, CHUNK_LABELS, WARM_LABELS, CHUNKS_MIN

    def __init__(self, tolerance: Callable[[str], float | None]) -> None:
        super().__init__(tolerance)
        self.late = LateErrors()

    def begin_anew(self) -> None:
        """Errors are in other units from here on."""
        super().begin_anew()
        self.left_out, self.newest_sliced = 0, Newest((ERRORS,), (0,))
        if self.sliced is not None:
            self.sliced.begin_anew()

    def add(self, errors: Float, times_ms: Int, origin: Int = NO_ORIGINS, *, binary: bool) -> bool:
        """
        Add errors in the order in which their rows were completed; whether a drift began or ended.

        Parameters
        ----------
        errors : (n,) float64
            Finite: 0 and 1 (`binary`), or absolute errors.
        times_ms : (n,) int64, ms
        origin : (n,) int64
            Where their labels came from; empty if that is not known.
        binary : bool
        """
        return self.feed(BINARY if binary else NUMBERS, errors[None], times_ms, origin)

    def turn(self, maturity: Maturity) -> tuple[Told | None, bool]:
        """
        Let rows wait, or no longer, as delays say. The rows that waited, if they need not any more;
        and whether all that came before is forgotten.
        """
        began, waited = not self.late.waits, self.late.turn(maturity)
        anew = began and self.late.waits and not maturity.is_known
        if anew:
            self._start_over()
        return waited, anew

    def ready(self, rows: Told, maturity: Maturity, *, due: bool) -> Told | None:
        """
        Of errors of classes, in the order in which their rows were completed, those that can be
        added now: all of them, or where delays of labels depend on the class those that are mature.

        Parameters
        ----------
        rows : Told
        maturity : Maturity
        due : bool
            A stride is full.
        """
        self.late.add(rows)
        if not self.late.waits:
            return rows
        return self.late.mature(maturity) if due else None

    def _start_over(self) -> None:
        """
        What was learnt so far are the rows whose labels come first. A drift of theirs ends, so that
        its alert does too.
        """
        before = [] if self.evidence is None else [self.evidence]
        before += [] if self.sliced is None else self.sliced.evidence.values()
        seen = [drifted for e in before for drifted in e.drifted.values()]
        self.begin_anew()
        if seen:
            last = max(seen, key=lambda drifted: drifted.found_ms)
            ended_ms = self.late.newest_ms if last.open else last.ended_ms
            self.kind, self.scheme, self.moved = BINARY, Flags(), True
            self._make(self.scheme).drifted[ERRORS] = msgspec.structs.replace(
                last, open=False, ended_ms=ended_ms, ended_row=0
            )

    def learn(self, first: Float) -> Flags | Numbers | None:
        """Bins of errors: those of a regression from the first ones."""
        if self.kind == BINARY:
            return Flags()
        if first.shape[1] < FIRST_ERRORS:
            return None
        return Numbers(numeric_profile(first[0, :FIRST_ERRORS], 0))

    def add_by_segment(self, rows: Judged, errors: Float, kind: str) -> None:
        """
        Add errors that the whole stream has got already to those of their segments.

        Parameters
        ----------
        rows : Judged
        errors : (n,) float64
            Of each row; NaN: none.
        kind : {"classes", "numbers"}
        """
        there = np.flatnonzero(~np.isnan(errors))
        if kind == "numbers":
            first = min(FIRST_ERRORS - self.left_out, len(there))
            self.left_out += first
            there = there[first:]
        if self.sliced is None or self.evidence is None or not len(there):
            return
        if self.kind != (BINARY if kind == "classes" else NUMBERS):
            return
        members, bounds = self.sliced.members(rows.segment, len(errors)), self.bounds_of_a_segment()
        members, errors = members._replace(members=members.members[there]), errors[there]
        assert self.scheme is not None
        bins = self.scheme.bins(errors[None])
        segment = rows.segment[there] if len(rows.segment) else rows.segment
        self.newest_sliced.begin(Batch(rows.origin[there], segment, bins[None]))
        for parts, ids, chunks in self.sliced.cut(members, rows.time[there], rows.origin[there]):
            sums = self.sums(errors[None], bins, ids, chunks)
            for part, of in ByChunk(parts, ids, sums).each():
                show = partial(self.show, self.newest_sliced, part)
                self.moved |= self.sliced.add(part, of, self.evidence, bounds, show)
        self.newest_sliced.end()

    def state(self) -> ErrorsState:
        """In a snapshot."""
        self.late.joined()
        return ErrorsState(
            **self.form(),
            left_out=self.left_out,
            newest_sliced=self.newest_sliced.form(),
            late=self.late,
            sliced=SegmentDriftForm() if self.sliced is None else self.sliced.form(),
        )

    def load(self, state: OneSignalForm) -> None:
        """Go on from a snapshot."""
        super().load(state)
        assert isinstance(state, ErrorsState)
        self.left_out, self.late = state.left_out, state.late
        self.newest_sliced.load(state.newest_sliced)
        if self.sliced is not None and self.evidence is not None:
            self.sliced.load(state.sliced, self.evidence)
