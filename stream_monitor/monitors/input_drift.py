"""
Drift of a set of columns: the detectors on counts, and the chunks that they get.

Rule of the file: it belongs to one layout at a time. With another one, signals go on by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.chunks import Chunks, moments
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.evidence import Evidence, EvidenceState
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.sums import ByChunk
from stream_monitor.monitors.watched import watched_inputs
from stream_monitor.monitors.windowed import SQUARES, SUM

CHUNK_ROWS = 50


class InputDriftForm(msgspec.Struct):
    """The drift of a set of columns in a snapshot."""

    chunks: Chunks
    evidence: EvidenceState | None


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
        self.watches = False

    def use(self, layout: Layout) -> None:
        """Watch the signals of a layout."""
        before = None if self.evidence is None else self.evidence.state()
        self._layout, self.evidence = layout, None
        self.watches = any(self._tolerance(name) is not None for name in layout.start)
        self.chunks.begin_anew()
        if before is not None:
            self._make().load(before)

    def _make(self) -> Evidence:
        assert self._layout is not None
        self.evidence = Evidence(list(watched_inputs(self._layout, self._tolerance)))
        return self.evidence

    def begin(self, layout: Layout, z: Float, times_ms: Int) -> ByChunk | None:
        """
        Cut rows into chunks; None if nothing is watched.

        Their moments are summed here, in the order of the log. Counts are added by `sums.py`.
        """
        if not self.watches or not len(times_ms):
            return None
        cut = self.chunks.cut(times_ms)
        sums = np.zeros((cut.chunks, layout.width))
        if len(z):
            total, squares = moments(z, cut.starts)
            sums[:, layout.at + SUM], sums[:, layout.at + SQUARES] = total.T, squares.T
        return ByChunk(cut, cut.ids, sums)

    def add(self, chunks: ByChunk) -> None:
        """Tell the detectors of the chunks that are complete."""
        whole = self.chunks.whole(chunks.sums, chunks.cut)
        if len(whole):
            evidence = self.evidence or self._make()
            self.moved |= evidence.update(whole, chunks.cut, self.bounds())

    def form(self) -> InputDriftForm:
        """In a snapshot."""
        return InputDriftForm(self.chunks, None if self.evidence is None else self.evidence.state())

    def load(self, form: InputDriftForm, changed: Collection[str], partial: Float | None) -> None:
        """
        Go on from a snapshot; signals in `changed` begin anew. `partial` has the sums of the chunk
        that is not complete in the present layout; None: it is left out.
        """
        self.chunks = form.chunks
        if partial is None:
            self.chunks.begin_anew()
        else:
            self.chunks.partial = partial
        if form.evidence is not None and self.watches:
            self._make().load(form.evidence, changed)
