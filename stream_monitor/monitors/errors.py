"""
The errors of a model as a signal of its own, for the detector on counts.

Rule of the file: errors of a classification are 0 and 1 and need no reference. Those of a
regression get their bins from the first of them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.tilts import number_tilts, share_tilts
from stream_monitor.monitors.baseline import FeatureProfile, numeric_profile
from stream_monitor.monitors.chunks import Chunks, moments
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.evidence import Evidence, EvidenceState, Watched
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.segment_drift import SegmentDriftForm
from stream_monitor.monitors.signals import ERRORS, FIRST_ERRORS
from stream_monitor.monitors.sums import ByChunk
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.stats.binning import bins_of

CHUNK_LABELS = 25
CHUNKS_MIN = 3
"""More than of features: errors of real models come in bursts of some tens of rows."""
WARM_LABELS = 500
"""Labels that are known before evidence counts: fewer than of features, because labels are rare."""


class ErrorsState(msgspec.Struct):
    """Errors in a snapshot."""

    binary: bool | None
    first: Float
    first_ms: Int
    profile: FeatureProfile | None
    chunks: Chunks
    evidence: EvidenceState | None
    left_out: int
    """First errors of a regression that no segment has counted, because they make the bins."""
    sliced: SegmentDriftForm


class Errors(DriftGroup):
    """
    The errors of a model version.

    Parameters
    ----------
    tolerance : callable
        Returns the tolerance of the detector on counts of a signal; None: it has none.
    """

    def __init__(self, tolerance: Callable[[str], float | None]) -> None:
        super().__init__()
        self._tolerance = tolerance(ERRORS)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Errors are in other units from here on."""
        self.binary: bool | None = None
        self.first: Float = np.empty(0)
        self.first_ms: Int = np.empty(0, np.int64)
        self.profile: FeatureProfile | None = None
        self.evidence = None
        self.chunks = Chunks(CHUNK_LABELS)
        self.left_out = 0
        if self.sliced is not None:
            self.sliced.begin_anew()

    def add(self, errors: Float, times_ms: Int, *, binary: bool) -> bool:
        """
        Add errors in the order in which their rows were completed; whether a drift began or ended.

        Parameters
        ----------
        errors : (n,) float64
            Finite: 0 and 1 (`binary`), or absolute errors.
        times_ms : (n,) int64, ms
        binary : bool
        """
        if self._tolerance is None or not len(errors):
            return False
        if self.binary is not None and self.binary != binary:
            self.begin_anew()
        self.binary = binary
        if self.evidence is None and not binary:
            self.first = np.append(self.first, errors)
            self.first_ms = np.append(self.first_ms, times_ms)
            if len(self.first) < FIRST_ERRORS:
                return False
            self.profile = numeric_profile(self.first[:FIRST_ERRORS], 0)
            errors, times_ms = self.first, self.first_ms
            self.first, self.first_ms = np.empty(0), np.empty(0, np.int64)
        if self.evidence is None:
            self._make()
        assert self.evidence is not None
        cut = self.chunks.cut(times_ms)
        sums = self._sums(errors, cut.ids, cut.chunks)
        return self.evidence.update(self.chunks.whole(sums, cut), cut, self.bounds())

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
        if (kind == "classes") != self.binary:
            return
        members, bounds = self.sliced.members(rows.segment, len(errors)), self.bounds_of_a_segment()
        members, errors = members._replace(members=members.members[there]), errors[there]
        for parts, ids, chunks in self.sliced.cut(members, rows.time[there]):
            sums = self._sums(errors, ids, chunks)
            for part, of in ByChunk(parts, ids, sums).each():
                self.moved |= self.sliced.add(part, of, self.evidence, bounds)

    def _sums(self, errors: Float, ids: Int, chunks: int) -> Float:
        """Bins and moments of the errors of each chunk."""
        width = self._width + 3
        counts = np.bincount(ids * width + self._bins(errors), minlength=chunks * width)
        sums = counts.reshape(chunks, width).astype(np.float64)
        mean, unit = self.scale
        z = (errors - mean) / unit
        if (ids[1:] < ids[:-1]).any():
            order = np.argsort(ids, kind="stable")
            ids, z = ids[order], z[order]
        starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
        sums[ids[starts], -2], sums[ids[starts], -1] = moments(z, starts)
        return sums

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which the errors of a regression are standardised."""
        return (0.0, 1.0) if self.profile is None else (self.profile.mean, unit_of(self.profile))

    @property
    def _width(self) -> int:
        return 2 if self.profile is None else len(self.profile.edges) + 1

    def _bins(self, errors: Float) -> Int:
        if self.profile is None:
            return errors.astype(np.int64)
        edges = np.append(np.array(self.profile.edges), np.inf)
        found: Int = bins_of(errors[None], [edges], np.zeros(1, np.int64))[0]
        return found

    def _make(self) -> None:
        assert self._tolerance is not None
        width = self._width
        tilts = (
            share_tilts()
            if self.profile is None
            else number_tilts(np.append(np.array(self.profile.counts), 0))
        )
        # the bin of missing values, which a number has, stays empty
        places = tuple((k,) for k in range(width + (self.profile is not None)))
        watched = Watched(ERRORS, tilts, self._tolerance, places, (width + 1, width + 2))
        self.evidence = Evidence([watched], WARM_LABELS, CHUNKS_MIN)

    def state(self) -> ErrorsState:
        """In a snapshot."""
        return ErrorsState(
            binary=self.binary,
            first=self.first,
            first_ms=self.first_ms,
            profile=self.profile,
            chunks=self.chunks,
            evidence=None if self.evidence is None else self.evidence.state(),
            left_out=self.left_out,
            sliced=SegmentDriftForm() if self.sliced is None else self.sliced.form(),
        )

    def load(self, state: ErrorsState) -> None:
        """Go on from a snapshot."""
        self.binary, self.first, self.first_ms = state.binary, state.first, state.first_ms
        self.profile, self.chunks = state.profile, state.chunks
        self.left_out = state.left_out
        if state.evidence is not None and self._tolerance is not None:
            self._make()
            assert self.evidence is not None
            self.evidence.load(state.evidence)
            if self.sliced is not None:
                self.sliced.load(state.sliced, self.evidence)
