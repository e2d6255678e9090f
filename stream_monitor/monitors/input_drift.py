"""
Drift of a set of columns: the detectors on counts, and the chunks that they get.

Rule of the file: it belongs to one layout at a time. With another one, signals go on by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.monitors.evidence import Evidence
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.sums import ByChunk
from stream_monitor.monitors.watched import watched_inputs
from stream_monitor.monitors.windowed import SQUARES, SUM

CHUNK_ROWS = 50


class InputDrift:
    """
    Detectors on the columns of one model version.

    Parameters
    ----------
    tolerance : callable
        Returns the tolerance of the detector on counts of a signal; None: it has none.
    """

    def __init__(self, tolerance: Callable[[str], float | None]) -> None:
        self._tolerance = tolerance
        self.evidence: Evidence | None = None
        self.days = np.inf
        """Days for each false alarm of all signals together."""
        self.moved = False
        """Whether a drift began or ended since this was last set back."""

    def use(self, layout: Layout) -> None:
        """Watch the signals of a layout."""
        before, watched = self.evidence, list(watched_inputs(layout, self._tolerance))
        self.evidence = Evidence(watched, CHUNK_ROWS) if watched else None
        if before is not None and self.evidence is not None:
            self.evidence.load(before.state())
            self.evidence.chunks.begin_anew()

    def chunks(self, layout: Layout, z: Float) -> ByChunk | None:
        """
        The chunks of rows; None if nothing is watched.

        Their moments are summed here, in the order of the log.
        """
        if self.evidence is None or not z.shape[1]:
            return None
        ids = self.evidence.chunks.ids(z.shape[1])
        sums = np.zeros((int(ids[-1]) + 1, layout.width))
        if len(z):
            finite = np.where(np.isnan(z), 0.0, z)
            starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
            sums[:, layout.at + SUM] = np.add.reduceat(finite, starts, axis=1).T
            sums[:, layout.at + SQUARES] = np.add.reduceat(finite * finite, starts, axis=1).T
        return ByChunk(ids, sums)

    def add(self, chunks: ByChunk, times_ms: Int) -> None:
        """Tell the detectors of the chunks that these rows complete."""
        assert self.evidence is not None
        complete = self.evidence.chunks.add(chunks.sums, times_ms)
        self.moved |= self.evidence.update(complete, self.bounds())

    def bounds(self) -> Float:
        """Days for each false alarm of a signal; each has the same share of the budget."""
        signals = 0 if self.evidence is None else len(self.evidence.watched)
        return np.full(signals, self.days * signals)
