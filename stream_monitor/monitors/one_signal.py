"""
A group with one signal, whose bins are learnt from its first rows: errors, calibration, latency.

Rule of the file: rows of one kind are counted together. With another kind the signal begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import msgspec
import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.events.origins import NO_ORIGINS
from stream_monitor.monitors.chunks import Chunks, Cut, chunk_moments
from stream_monitor.monitors.drift_group import DriftGroup
from stream_monitor.monitors.evidence import Evidence, EvidenceState, Watched
from stream_monitor.monitors.newest import NO_CODES, Batch, Newest, NewestForm
from stream_monitor.monitors.schemes import AnyScheme
from stream_monitor.monitors.sums import ALL_ROWS, Part


class OneSignalForm(msgspec.Struct):
    """The group in a snapshot."""

    kind: str
    first: Float
    first_ms: Int
    first_origin: Int
    scheme: AnyScheme | None
    chunks: Chunks
    evidence: EvidenceState | None
    newest: NewestForm


class OneSignal(DriftGroup):
    """
    A group with one signal.

    Parameters
    ----------
    tolerance : callable
        Returns the root of the χ² distance within which the law of a signal may wander; None: it
        has no detector.
    """

    name: ClassVar[str]
    """Of the signal."""
    chunk_rows: ClassVar[int]
    warm_rows: ClassVar[int]
    """Rows that are known before evidence counts."""
    chunks_min: ClassVar[int]
    """A change that so many chunks have seen is too young to be told."""

    def __init__(self, tolerance: Callable[[str], float | None]) -> None:
        super().__init__()
        self.tolerance = tolerance(self.name)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Rows mean something else from here on."""
        self.kind = ""
        self.first: Float = np.empty((0, 0))
        self.first_ms: Int = np.empty(0, np.int64)
        self.first_origin = NO_ORIGINS
        self.scheme: AnyScheme | None = None
        self.evidence = None
        self.chunks = Chunks(self.chunk_rows)
        self.newest = Newest((self.name,), (0,))

    def learn(self, first: Float) -> AnyScheme | None:
        """
        How rows of this `kind` become bins, by the first (columns, n) float64 ones; None if they
        are too few. Further ones must not matter.
        """
        raise NotImplementedError

    def feed(self, kind: str, values: Float, times_ms: Int, origin: Int = NO_ORIGINS) -> bool:
        """
        Add rows in the order of the log; whether a drift began or ended, which is also noted in
        `moved`.

        Parameters
        ----------
        kind : str
        values : (columns, n) float64, finite
        times_ms : (n,) int64, ms
        origin : (n,) int64
            Where they came from; empty if that is not known.
        """
        if self.tolerance is None or not len(times_ms):
            return False
        if self.kind != kind:
            self.begin_anew()
            self.kind = kind
        if self.scheme is None:
            if len(self.first_ms):
                values = np.concatenate([self.first, values], axis=1)
                times_ms = np.append(self.first_ms, times_ms)
                origin = np.append(self.first_origin, origin)
            self.scheme = self.learn(values)
            if self.scheme is None:
                self.first, self.first_ms = values.copy(), times_ms.copy()
                self.first_origin = origin.copy()
                return False
            self.first, self.first_ms = np.empty((0, 0)), np.empty(0, np.int64)
            self.first_origin = NO_ORIGINS
        evidence = self.evidence or self._make(self.scheme)
        cut, bins = self.chunks.cut(times_ms, origin), self.scheme.bins(values)
        sums = self.chunks.whole(self.sums(values, bins, cut.ids, cut.chunks), cut)
        self.look(sums, cut)
        self.newest.begin(Batch(origin, NO_CODES, bins[None]))
        show = partial(self.show, self.newest, Part(ALL_ROWS, cut, 0))
        found = evidence.update(sums, cut, self.bounds(), show)
        self.newest.end()
        self.moved |= found
        return found

    def look(self, sums: Float, cut: Cut) -> None:
        """See the sums of chunks that are complete, (chunks, bins + 2) float64."""

    def show(
        self,
        newest: Newest,
        part: Part,
        name: str,
        columns: tuple[int, ...],
        chunk: int,
        rows: int,
    ) -> list[int]:
        """Rows of a part that show a change."""
        mine = None if self.sliced is None else self.sliced.rows_of(part)
        return newest.found(name, columns, part.last(chunk), rows, mine)

    def sums(self, values: Float, bins: Int, ids: Int, chunks: int) -> Float:
        """
        Counts of bins and two moments of each chunk.

        Parameters
        ----------
        values : (columns, n) float64
        bins : (n,) int64
            The bin of each row.
        ids : (n,) int64
            The chunk of each row.
        chunks : int

        Returns
        -------
        (chunks, bins + 2) float64
        """
        assert self.scheme is not None
        width = self.scheme.width + 2
        counts = np.bincount(ids * width + bins, minlength=chunks * width)
        sums = counts.reshape(chunks, width).astype(np.float64)
        there, total, squares = chunk_moments(self.scheme.numbers(values), ids)
        sums[there, -2], sums[there, -1] = total, squares
        return sums

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and unit by which its numbers are standardised."""
        return (0.0, 1.0) if self.scheme is None else self.scheme.scale

    def _make(self, scheme: AnyScheme) -> Evidence:
        assert self.tolerance is not None
        watched = self.watched(scheme, self.tolerance)
        self.evidence = Evidence([watched], self.warm_rows, self.chunks_min)
        return self.evidence

    def watched(self, scheme: AnyScheme, tolerance: float) -> Watched:
        """The signal, as its detector gets it."""
        return scheme.watched(self.name, tolerance)

    def form(self) -> dict[str, Any]:
        """The fields of its form."""
        return {
            "kind": self.kind,
            "first": self.first,
            "first_ms": self.first_ms,
            "first_origin": self.first_origin,
            "scheme": self.scheme,
            "chunks": self.chunks,
            "evidence": None if self.evidence is None else self.evidence.state(),
            "newest": self.newest.form(),
        }

    def state(self) -> OneSignalForm:
        """In a snapshot."""
        return OneSignalForm(**self.form())

    def load(self, state: OneSignalForm) -> None:
        """Go on from a snapshot."""
        if self.tolerance is None:
            return
        self.kind, self.first, self.first_ms = state.kind, state.first, state.first_ms
        self.first_origin = state.first_origin
        self.scheme, self.chunks = state.scheme, state.chunks
        self.newest.load(state.newest)
        if self.scheme is not None and state.evidence is not None:
            self._make(self.scheme).load(state.evidence)
