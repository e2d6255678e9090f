"""
Drift of a set of columns: the detectors on counts, and the chunks that they get.

Rule of the file: it belongs to one layout at a time. With another one, signals go on by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.chunks import Chunks, chunk_moments
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.evidence import Evidence, EvidenceState
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.newest import Batch, Newest, NewestForm
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.segment_drift import SegmentDriftForm
from stream_monitor.monitors.sums import ALL_ROWS, ByChunk, Part
from stream_monitor.monitors.watched import watched_inputs
from stream_monitor.monitors.windowed import MISSING, SQUARES, SUM

CHUNK_ROWS = 50


class InputDriftForm(msgspec.Struct):
    """The drift of a set of columns in a snapshot."""

    chunks: Chunks
    evidence: EvidenceState | None
    newest: NewestForm
    sliced: SegmentDriftForm


class InputDrift(DriftGroup):
    """
    Detectors on the columns of one model version.

    Parameters
    ----------
    tolerance : callable
        Returns the tolerance of the detector on counts of a signal; None: it has none.

    Notes
    -----
    `evidence` is made with the first chunk that is complete: most versions never have one.
    """

    def __init__(self, tolerance: Callable[[str], float | None]) -> None:
        super().__init__()
        self._tolerance = tolerance
        self.chunks = Chunks(CHUNK_ROWS)
        self._layout: Layout | None = None
        self.watches, self.newest = False, Newest((), ())

    def use(self, layout: Layout) -> None:
        """Watch the signals of a layout."""
        before = None if self.evidence is None else self.evidence.state()
        sliced = SegmentDriftForm() if self.sliced is None else self.sliced.form()
        self._layout, self.evidence = layout, None
        self.watches = any(self._tolerance(name) is not None for name in layout.start)
        self.chunks.begin_anew()
        newest, names = self.newest.form(), layout.numeric + layout.category
        self.newest = Newest(names, [layout.start[name] for name in names], MISSING)
        self.newest.load(newest)
        if before is not None:
            self._make().load(before)
        if self.sliced is not None and sliced.chunks and self.watches:
            self.sliced.load(sliced, self._made(), lay_out=lambda _: None)

    def forget(self) -> None:
        """What was seen does not count any longer."""
        self.evidence, self.newest = None, Newest((), ())
        if self.sliced is not None:
            self.sliced.begin_anew()

    def _made(self) -> Evidence:
        return self.evidence or self._make()

    def _make(self) -> Evidence:
        assert self._layout is not None
        self.evidence = Evidence(list(watched_inputs(self._layout, self._tolerance)))
        return self.evidence

    def begin(
        self, layout: Layout, z: Float, rows: Rows, order: Int | None = None
    ) -> list[ByChunk]:
        """
        Cut rows into chunks, those of the whole stream and those of segments; none if nothing is
        watched.

        Their moments are summed here. Counts are added by `sums.py`, which takes the rows in
        `order`.
        """
        times_ms = rows.times_ms
        if not self.watches or not len(times_ms):
            return []
        cut = self.chunks.cut(times_ms, rows.origin)
        batch = Batch(rows.origin, rows.segment)
        if order is not None:
            batch.place = np.empty(len(order), np.int64)
            batch.place[order] = np.arange(len(order))
        self.newest.begin(batch)
        sums = np.zeros((cut.chunks, layout.width))
        found = [ByChunk([Part(ALL_ROWS, cut, 0)], cut.ids, sums, batch)]
        if self.sliced is not None:
            members = self.sliced.members(rows.segment, len(times_ms))
            for parts, ids, chunks in self.sliced.cut(members, times_ms, rows.origin):
                found.append(ByChunk(parts, ids, np.zeros((chunks, layout.width))))
        for of in found if len(z) else ():
            add_moments(layout, z, of)
        return found

    def add(self, found: list[ByChunk]) -> None:
        """Tell the detectors of the chunks that are complete."""
        for part, sums in (each for of in found for each in of.each()):
            if part.segment == ALL_ROWS:
                whole = self.chunks.whole(sums, part.cut)
                if len(whole):
                    show = partial(self._show, part)
                    self.moved |= self._made().update(whole, part.cut, self.bounds(), show)
            elif self.sliced is not None:
                evidence, bounds = self._made(), self.bounds_of_a_segment()
                show = partial(self._show, part)
                self.moved |= self.sliced.add(part, sums, evidence, bounds, show)
        self.newest.end()

    def _show(
        self, part: Part, name: str, columns: tuple[int, ...], chunk: int, rows: int
    ) -> list[int]:
        mine = None if self.sliced is None else self.sliced.rows_of(part)
        return self.newest.found(name, columns, part.last(chunk), rows, mine)

    def form(self) -> InputDriftForm:
        """In a snapshot."""
        evidence = None if self.evidence is None else self.evidence.state()
        sliced = SegmentDriftForm() if self.sliced is None else self.sliced.form()
        return InputDriftForm(self.chunks, evidence, self.newest.form(), sliced)

    def load(
        self,
        form: InputDriftForm,
        changed: Collection[str],
        lay_out: Callable[[Float], Float | None],
    ) -> None:
        """
        Go on from a snapshot; signals in `changed` begin anew. `lay_out` gives the sums of a chunk
        that is not complete in the present layout; None: it is left out.
        """
        self.chunks = form.chunks
        if self.watches:
            self.newest.load(form.newest, changed)
        partial = None if self.chunks.partial is None else lay_out(self.chunks.partial)
        if partial is None:
            self.chunks.begin_anew()
        self.chunks.partial = partial
        if form.evidence is not None and self.watches:
            self._make().load(form.evidence, changed)
        if self.sliced is not None and form.sliced.chunks and self.watches:
            self.sliced.load(form.sliced, self._made(), changed, lay_out)


def add_moments(layout: Layout, z: Float, chunks: ByChunk) -> None:
    """
    Add the moments of (features, n) standardised values, in the order of the log, to their chunks.
    """
    there, total, squares = chunk_moments(z, chunks.ids)
    chunks.sums[there[:, None], layout.at + SUM] = total.T
    chunks.sums[there[:, None], layout.at + SQUARES] = squares.T
