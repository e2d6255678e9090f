"""
A group of signals with detectors on counts, and its share of the budget of false alarms.

Rule of the file: what the groups have in common. What makes the chunks of each is in
`input_drift.py` and `errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.monitors.evidence import Evidence
from stream_monitor.monitors.newest import Newest
from stream_monitor.monitors.segment_drift import SHARE, SegmentDrift


class DriftGroup:
    """One of the groups of a model version."""

    evidence: Evidence | None
    newest: Newest

    def __init__(self) -> None:
        self.evidence = None
        self.days = np.inf
        """Days for each false alarm of all signals together."""
        self.sliced: SegmentDrift | None = None
        """The same signals on each declared segment."""
        self.sharers: Callable[[], float] = lambda: 1.0
        """
        By how many the budget of the model is shared: versions, and models if there are many of
        them.
        """
        self.moved = False
        """Whether a drift began or ended since this was last set back."""

    def bounds(self) -> Float:
        """Days for each false alarm of a signal; each has the same share of the budget."""
        signals = 0 if self.evidence is None else len(self.evidence.watched)
        days = self.days if self.sliced is None else self.days / (1 - SHARE)
        return np.full(signals, days * signals * self.sharers())

    def bounds_of_a_segment(self) -> Float:
        """The same of each segment."""
        assert self.sliced is not None
        return self.bounds() * (1 - SHARE) / SHARE * self.sliced.count

    def dispersion(self, name: str) -> float:
        """How much more a signal varies between chunks than independent rows do, at least 1."""
        watched = [] if self.evidence is None else [w.name for w in self.evidence.watched]
        if self.evidence is None or name not in watched:
            return 1.0
        return float(self.evidence.detector.overdispersion[watched.index(name)])

    def scores(self) -> Iterator[tuple[str, float, float]]:
        """By signal: evidence and bound, in days."""
        if self.evidence is not None:
            yield from self.evidence.scores(self.bounds())

    @property
    def memory_bytes(self) -> int:
        """
        Memory of the detectors and of the newest rows; tables that those of segments share count
        once.
        """
        found = [] if self.evidence is None else [self.evidence]
        if self.sliced is not None:
            found += self.sliced.evidence.values()
        arrays = (
            array
            for e in found
            for part in (e, e.detector, e.openings, e.seasons, e.seasons.week)
            for array in (*vars(part).values(), *e.recent.sums)
        )
        each = {id(a): a.nbytes for a in arrays if isinstance(a, np.ndarray)}
        return sum(each.values()) + self.newest.memory_bytes
