"""
Detectors on the counts of each declared segment: its rows are a stream of their own.

Rule of the file: a segment is known by its number (`segments.py`). Its chunks are cut by its own
rows, and its detectors are those of the whole stream once more, with their tables. They have a
fixed share of the budget, whether there are few segments or many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import msgspec
import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.events.origins import NO_ORIGINS
from stream_monitor.monitors.chunks import Chunks
from stream_monitor.monitors.evidence import Evidence, EvidenceState
from stream_monitor.monitors.newest import Show
from stream_monitor.monitors.segment_blocks import Members
from stream_monitor.monitors.sums import ALL_ROWS, Part
from stream_monitor.settings import Limits, Segment

CHUNK_ROWS, CHUNK_LABELS = 25, 10
"""Of a segment: fewer than of the stream, because they come slower."""
TARGET_MS = 2_000
"""With dense traffic a chunk takes about so long: there are many segments, and each costs."""
WARM_ROWS = 500
"""Rows of a segment that are known before its evidence counts."""
SEGMENTS_MAX = 50
"""Segments of a name with detectors, the first to come."""
SHARE = 0.5
"""What the segments together have of the budget of a group of signals."""


def places(segments: tuple[Segment, ...], limits: Limits) -> int:
    """
    How many segments may have detectors: the budget is split over so many.

    >>> places((Segment("country"), Segment("age", (18.0, 65.0))), Limits(segments=20))
    24
    """
    most = min(limits.segments + 1, SEGMENTS_MAX)  # one more: `__other__`
    return sum(min(len(s.cut) + 1, most) if s.cut else most for s in segments)


class SegmentDriftForm(msgspec.Struct):
    """The detectors of segments in a snapshot, by number."""

    chunks: dict[int, Chunks] = {}
    evidence: dict[int, EvidenceState] = {}


class SegmentDrift:
    """
    The detectors of a group of signals on each segment.

    Parameters
    ----------
    members : callable
        Returns the segments of n rows by their codes (`Segments.members_of`).
    count : int
        Segments that may have detectors.
    chunk_rows : int
        Least rows of a chunk.

    Notes
    -----
    A segment of 20 numeric features takes 135 kB, once it has rows in two hours; tables of
    alternatives are shared.
    """

    def __init__(
        self, members: Callable[[Int, int], Members], count: int, chunk_rows: int = CHUNK_ROWS
    ) -> None:
        self.members, self.count, self.chunk_rows = members, count, chunk_rows
        self.chunks: dict[int, Chunks] = {}
        self.evidence: dict[int, Evidence] = {}

    def cut(
        self, members: Members, times_ms: Int, origin: Int = NO_ORIGINS
    ) -> Iterator[tuple[list[Part], Int, int]]:
        """
        Cut the rows of each segment into chunks, one definition of segments at a time.

        `origin` says where each row came from; it is empty if that is not known.

        Yields
        ------
        parts : list of Part
        ids : (n,) int64
            The chunk of each row; those of no segment are in the last one.
        chunks : int
            How many there are, with that one.
        """
        for slices, group in zip(members.members.T, members.groups, strict=True):
            watched = slices
            if len(group) > SEGMENTS_MAX:
                watched = np.where(np.isin(slices, group[:SEGMENTS_MAX]), slices, -1)
            order = np.argsort(watched, kind="stable")
            numbers, starts = np.unique(watched[order], return_index=True)
            ids, parts, total = np.full(len(slices), -1), list[Part](), 0
            for number, at in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
                if number >= 0:
                    from_where = origin[at] if len(origin) else origin
                    cut = self._chunks(number).cut(times_ms[at], from_where)
                    ids[at] = total + cut.ids
                    parts.append(Part(number, cut, total, at))
                    total += cut.chunks
            if parts:
                yield parts, np.where(ids < 0, total, ids), total + 1

    def _chunks(self, number: int) -> Chunks:
        found = self.chunks.get(number)
        if found is None:
            found = self.chunks[number] = Chunks(self.chunk_rows, TARGET_MS)
        return found

    def rows_of(self, part: Part) -> Callable[[Int], Bool] | None:
        """Tells of codes whether rows are in the segment; None: the part is the whole stream."""
        if part.segment == ALL_ROWS:
            return None
        return lambda codes: (self.members(codes, len(codes)).members == part.segment).any(axis=1)

    def add(
        self,
        part: Part,
        sums: Float,
        whole: Evidence,
        bounds: Float,
        show: Show | None = None,
    ) -> bool:
        """
        Tell the detectors of a segment of its chunks; whether a drift began or ended.

        Parameters
        ----------
        part : Part
        sums : (chunks, columns) float64
        whole : Evidence
            Detectors of the same signals on the whole stream.
        bounds : (signals,) float64, days
        show : callable, optional
            Finds rows that show a change.
        """
        complete = self.chunks[part.segment].whole(sums, part.cut)
        if not len(complete):
            return False
        found = self.evidence.get(part.segment)
        if found is None:
            found = self.evidence[part.segment] = whole.another(WARM_ROWS)
        return found.update(complete, part.cut, bounds, show)

    def form(self) -> SegmentDriftForm:
        """In a snapshot."""
        return SegmentDriftForm(self.chunks, {n: e.state() for n, e in self.evidence.items()})

    def load(
        self,
        form: SegmentDriftForm,
        whole: Evidence,
        changed: Collection[str] = (),
        lay_out: Callable[[Float], Float | None] = lambda partial: partial,
    ) -> None:
        """
        Go on from a snapshot. `lay_out` gives the sums of a chunk that is not complete in the
        present layout; None: it is left out.
        """
        self.chunks = form.chunks
        for chunks in self.chunks.values():
            partial = None if chunks.partial is None else lay_out(chunks.partial)
            if partial is None:
                chunks.begin_anew()
            chunks.partial = partial
        self.evidence = {}
        for number, state in form.evidence.items():
            self.evidence[number] = whole.another(WARM_ROWS)
            self.evidence[number].load(state, changed)

    def move(self, numbers: dict[int, int]) -> None:
        """Segments have other numbers now, by the ones before; those without one are forgotten."""
        self.chunks = {numbers[n]: c for n, c in self.chunks.items() if n in numbers}
        self.evidence = {numbers[n]: e for n, e in self.evidence.items() if n in numbers}

    def begin_anew(self) -> None:
        """Forget all segments: their signals are other ones from here on."""
        self.chunks, self.evidence = {}, {}
