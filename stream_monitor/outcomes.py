"""
Which rows of the log are new, and counts of the outcome of every row.

Rule of the file: a row counts once, however often a writer of the log repeats it, because the next
expected offset of its source is part of the state. Every row has exactly one outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.observations import LABEL, LIFECYCLE, Observations
from stream_monitor.metrics.samples import Sample

KINDS = ("predictions", "labels")
OUTCOMES = ("accepted", "duplicate", "seen")
"""What becomes of a row of the log."""
LABEL_OUTCOMES = ("matched", "corrected", "superseded", "duplicate", "orphan", "evicted")
AHEAD_MS = 5_000
"""
An event dated further ahead of the log has a wrong clock; clocks that are kept in step differ by
less.
"""


class Outcomes(msgspec.Struct):
    """The next expected offset of each source, and counts of rows by outcome."""

    seen: dict[str, int] = {}
    """By source: the next expected offset. Rows below it were seen before."""
    counts: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    """Rows by kind (`KINDS`) and outcome (`OUTCOMES`)."""
    labels: Counter[str] = msgspec.field(default_factory=Counter)
    """Labels by what the join did with them (`LABEL_OUTCOMES`)."""
    ahead: int = 0
    """Events that were dated ahead of the log."""

    def unseen(self, observations: Observations) -> NDArray[np.bool_]:
        """
        Rows that lie at or after the next expected offset of their source.

        Rows before it were in the log already; they are counted as seen.
        """
        rows, sources = observations.rows, observations.head.sources
        source, offset = rows["source"], rows["offset"]
        expected = np.array([self.seen.get(s, 0) for s in sources], np.int64)
        fresh: NDArray[np.bool_] = offset >= expected[source] if len(sources) else np.ones(0, bool)
        np.maximum.at(expected, source, offset + 1)
        self.seen.update(zip(sources, expected.tolist(), strict=True))
        seen = len(rows) - int(fresh.sum())
        if seen:
            kinds = np.array([g.kind for g in observations.head.groups])[rows["group"][~fresh]]
            labels, events = int((kinds == LABEL).sum()), int((kinds >= LIFECYCLE).sum())
            self.counts["labels", "seen"] += labels
            self.counts["predictions", "seen"] += seen - labels - events
        return fresh

    def date(self, observations: Observations, fresh: NDArray[np.bool_], now_ms: int) -> None:
        """
        Give an event that is dated ahead of the log the time of the log, in place.

        What is in the log has happened, so the clock of a producer must not put it into the future.
        """
        times = observations.rows["time"]
        ahead = times > now_ms + AHEAD_MS
        if ahead.any():
            self.ahead += int((fresh & ahead).sum())
            times[ahead] = now_ms

    def joined(
        self, duplicate: NDArray[np.bool_], labels: int, outcomes: Mapping[str, int]
    ) -> None:
        """
        Count the rows of a record that were new.

        Parameters
        ----------
        duplicate : (n,) bool
            Which predictions had an id that was there already.
        labels : int
            How many labels there were.
        outcomes : mapping of str to int
            Labels by what the join did with them.
        """
        repeated = int(duplicate.sum())
        self.counts["predictions", "duplicate"] += repeated
        self.counts["predictions", "accepted"] += len(duplicate) - repeated
        self.counts["labels", "accepted"] += labels
        self.labels.update({k: n for k, n in outcomes.items() if n})

    def samples(self) -> Iterator[Sample]:
        """
        A counter for each outcome.

        Each is there at 0, because Prometheus would not see its first increase otherwise.
        """
        for kind, outcome in product(KINDS, OUTCOMES):
            yield Sample(
                "stream_monitor_records_total", (kind, outcome), self.counts[kind, outcome]
            )
        for outcome in LABEL_OUTCOMES:
            yield Sample("stream_monitor_labels_total", (outcome,), self.labels[outcome])
        yield Sample("stream_monitor_timestamps_replaced_total", (), self.ahead)

    def summary(self) -> dict[str, dict[str, int]]:
        """Rows by kind and outcome."""
        return {kind: {o: self.counts[kind, o] for o in OUTCOMES} for kind in KINDS}
