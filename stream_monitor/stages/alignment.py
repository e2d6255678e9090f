"""
Sources are read in step: a partition that is ahead in event time waits for one that is behind.

Rule of the file: no clock and no I/O, and nothing waits for ever. A partition holds back others
only while it has records waiting and delivers them. No partition waits longer than `wait_s` for the
same others. This module only decides the order in which partitions are read, before the log of
observations, so everything after it stays deterministic. Flink calls this watermark alignment.

Known weaknesses of this idea in Flink and Kafka Streams, and what is done here:

- A partition without records or without an owner holds back all others for ever. Here a partition
  that is at its end, or silent, holds back nobody.
- A partition that waits itself, or whose records wait in a queue, is taken for silent. Here only a
  partition that delivered nothing is silent.
- Progress that is reported once a second limits the speed of a backlog. Here it is known at once
  within a worker, and between workers a number of rows may be read ahead.
- The clock of one producer is the clock of all. Here the position is the median of the rows that
  were read last.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from stream_monitor.metrics.samples import Sample
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
SILENT_S = 5.0
"""
A partition that has records, but delivers none for this long while others wait for it, holds back
nobody until it delivers again.
"""
TOLD_MS = 10_000
"""
Additional event time by which a partition may be ahead of one that another worker reads: the
reported position is as old as a commit and a request.
"""
NEWS_S = 3.0
"""
How long a worker waits at most for news of the others, once it has read all that it may without
news.
"""
STEPS_MAX = 1_000
BEHIND_ALL = -math.inf
NOTE = re.compile(r"(\S*)(?: time=(-?[0-9]{1,18})(?!\S))?")


class Told(NamedTuple):
    """The position of a partition that a worker reports in the metadata of its commits."""

    time_ms: int | None
    offset: int
    behind: bool
    """Whether there are records after the offset."""


class Place:
    """How far a partition is read."""

    def __init__(self, time_ms: int | None, behind: bool) -> None:
        self.time_ms, self.behind = time_ms, behind
        self.taken = 0
        """Number of rows that were read."""
        self.steps: deque[tuple[int, int]] = deque(maxlen=STEPS_MAX)
        """
        Time and number of rows of the last reads, to know how many of these rows are after a given
        time.
        """
        self.since_s: float | None = None
        """Monotonic time since which the partition waits, s."""
        self.excused: set[TopicPartition] = set()
        """Partitions for which this one has waited long enough."""
        self.waited_s = 0.0

    def rows_after(self, time_ms: float) -> int:
        """Number of recently read rows that are after a time."""
        return sum(n for at, n in self.steps if at > time_ms)


class Alignment:
    """
    Decides which source partitions have to wait.

    Parameters
    ----------
    skew_ms : int or None, ms
        How far (event time) a partition may be ahead of the slowest; None: none ever waits.
    wait_s : float, s
        How long a partition waits at most for the same others.
    ahead_rows : int
        Rows that all partitions together may be ahead of those that other workers read.
    """

    def __init__(self, skew_ms: int | None, wait_s: float, ahead_rows: int) -> None:
        self.skew_ms, self.wait_s, self.ahead_rows = skew_ms, wait_s, ahead_rows
        self.places: dict[TopicPartition, Place] = {}
        self.others: dict[TopicPartition, Told] = {}
        """Partitions that other workers read."""
        self.shared = False
        """Whether other workers read partitions of the same topics."""
        self.unheard_rows = 0
        """Rows that were read since the other workers last reported their positions."""
        self._without_news_s: float | None = None
        """Monotonic time since which nothing is read until the other workers report again, s."""
        self.waiting: set[TopicPartition] = set()
        self.on_take: Callable[[], None] = lambda: None
        """Called after rows of a partition were read."""
        self._silent: dict[TopicPartition, int] = {}
        """Partitions found silent, with their position at that time."""
        self._slowest: tuple[TopicPartition, int, float] | None = None
        self._looked_s = 0.0

    # ---- positions

    def begin(
        self, opened: Mapping[TopicPartition, tuple[int | None, bool]], *, shared: bool = False
    ) -> None:
        """
        Start to track these partitions.

        Parameters
        ----------
        opened : mapping of partition to (int or None, bool)
            The event time (ms) where the last reader was, if it is known, and whether there are
            records.
        shared : bool
            Other workers read partitions of the same topics.
        """
        self.shared = shared
        for tp, (time_ms, behind) in opened.items():
            self.places[tp] = Place(time_ms, behind)
            self.others.pop(tp, None)
            self._silent.pop(tp, None)

    def end(self, tps: Collection[TopicPartition]) -> None:
        """Stop to track these partitions."""
        for tp in tps:
            self.places.pop(tp, None)
        self.waiting.difference_update(tps)

    def take(self, tp: TopicPartition, times_ms: NDArray[np.int64]) -> None:
        """
        Note that rows with these event times were read from a partition.

        Their median becomes the position of the partition, so a producer whose clock is wrong does
        not move it.
        """
        self.on_take()
        if tp in self.places and len(times_ms):
            place, half = self.places[tp], len(times_ms) // 2
            place.time_ms = int(np.partition(times_ms, half)[half])
            place.taken += len(times_ms)
            self.unheard_rows += len(times_ms)
            place.steps.append((place.time_ms, len(times_ms)))

    def time_of(self, tp: TopicPartition) -> int | None:
        """Event time up to which a partition is read; None before its first row."""
        return self.places[tp].time_ms if tp in self.places else None

    def had_more(self, tp: TopicPartition) -> bool:
        """Whether a partition had records when it was opened."""
        return tp in self.places and self.places[tp].behind

    def tell(self, others: Mapping[TopicPartition, Told]) -> None:
        """Set what other workers report about the partitions that they read."""
        self.others = {tp: told for tp, told in others.items() if tp not in self.places}
        self.unheard_rows, self._without_news_s = 0, None

    # ---- who waits

    def hold(
        self, now_s: float, behind: Collection[TopicPartition], here: Collection[TopicPartition]
    ) -> set[TopicPartition]:
        """
        The partitions that have to wait now.

        Parameters
        ----------
        now_s : float, s
            Of a clock that never goes back.
        behind : collection of partition
            Of which records lie before us, here or at the broker.
        here : collection of partition
            Of which records have come, and are not taken yet.
        """
        if self.skew_ms is None or (not self.shared and len(self.places) + len(self.others) < 2):
            return set()
        found = self._ahead(now_s, behind)
        while found and self._is_silent(now_s, behind, here):
            found = self._ahead(now_s, behind)
        if self._knows_too_little(now_s):
            found = set(self.places)
        for tp, place in self.places.items():
            if tp in self.waiting and place.since_s is not None:
                place.waited_s += now_s - max(self._looked_s, place.since_s)
            place.since_s = (
                (now_s if place.since_s is None else place.since_s) if tp in found else None
            )
        self.waiting, self._looked_s = found, now_s
        if not found:
            self._slowest = None
        return found

    def _knows_too_little(self, now_s: float) -> bool:
        """
        Whether this worker has read as many rows as it may since the others last reported.

        The other workers may have received records meanwhile, and further rows would run away from
        those. A worker that had been stopped for seconds had read 50,000 rows before it asked
        again.
        """
        here, elsewhere = len(self.places), max(len(self.others), 1)
        if not self.shared or self.unheard_rows <= self.ahead_rows * here / (here + elsewhere):
            return False
        if self._without_news_s is None:
            self._without_news_s = now_s
        if now_s - self._without_news_s < NEWS_S:
            return True
        # the coordinator is away: continue for as many rows
        self.unheard_rows, self._without_news_s = 0, None
        return False

    def _holders(self, behind: Collection[TopicPartition]) -> list[tuple[float, TopicPartition]]:
        """Partitions that may hold back others, the slowest first."""
        for tp in [tp for tp, at in self._silent.items() if self._read(tp) != at]:
            del self._silent[tp]  # it delivers again
        local = [
            (BEHIND_ALL if p.time_ms is None else p.time_ms, tp)
            for tp, p in self.places.items()
            if tp in behind
        ]
        told = [
            (float(t.time_ms), tp)
            for tp, t in self.others.items()
            if t.behind and t.time_ms is not None
        ]
        return sorted(each for each in local + told if each[1] not in self._silent)

    def _read(self, tp: TopicPartition) -> int:
        """A number that grows while a partition is read."""
        if tp in self.places:
            return self.places[tp].taken
        return self.others[tp].offset if tp in self.others else -1

    def _ahead(self, now_s: float, behind: Collection[TopicPartition]) -> set[TopicPartition]:
        holders, found = self._holders(behind), set()
        for tp, place in self.places.items():
            if place.time_ms is None:
                continue
            held_by = [
                other
                for time_ms, other in holders
                if other != tp and self._is_ahead(place, time_ms, other)
            ]
            place.excused.intersection_update(held_by)
            held_by = [other for other in held_by if other not in place.excused]
            if held_by and place.since_s is not None and now_s - place.since_s >= self.wait_s:
                log.warning(
                    "%s/%d waited %.0f s for %s, which is behind in event time, and now "
                    "continues; some labels may not meet their predictions",
                    *tp,
                    self.wait_s,
                    ", ".join(f"{other.topic}/{other.partition}" for other in held_by),
                )
                place.excused.update(held_by)
            elif held_by:
                found.add(tp)
        return found

    def _is_ahead(self, place: Place, time_ms: float, other: TopicPartition) -> bool:
        assert self.skew_ms is not None and place.time_ms is not None  # noqa: PT018
        if other in self.places:
            return place.time_ms > time_ms + self.skew_ms
        share = self.ahead_rows / (len(self.places) + len(self.others))
        return (
            place.time_ms > time_ms + self.skew_ms + TOLD_MS and place.rows_after(time_ms) > share
        )

    def _is_silent(
        self, now_s: float, behind: Collection[TopicPartition], here: Collection[TopicPartition]
    ) -> bool:
        """
        Whether the slowest partition has delivered nothing for too long, while others wait for it.

        A partition that waits itself, or whose records wait in a queue here, is not silent.
        """
        tp = self._holders(behind)[0][1]
        read = self._read(tp)
        if self._slowest is None or self._slowest[:2] != (tp, read) or tp in here:
            self._slowest = tp, read, now_s
            return False
        limit_s = SILENT_S if tp in self.places else 2 * SILENT_S
        if now_s - self._slowest[2] < limit_s:
            return False
        log.warning(
            "%s/%d has records but delivered none for %.0f s; other partitions no longer wait "
            "for it",
            *tp,
            limit_s,
        )
        self._silent[tp], self._slowest = read, None
        return True

    # ---- reports

    def samples(self) -> Iterator[Sample]:
        """Samples of how long partitions have waited."""
        for tp, place in self.places.items():
            yield Sample(
                "stream_monitor_source_wait_seconds_total",
                (tp.topic, str(tp.partition)),
                place.waited_s,
            )


def aligned(settings: Settings) -> Alignment:
    """
    The alignment that `monitor.yaml` configures. Half of the store of rows may fill while others
    are behind.
    """
    worker = settings.worker
    return Alignment(
        worker.max_source_skew_ms,
        worker.max_source_wait_ms / 1e3,
        settings.core.limits.pending // 2,
    )


def noted(topic_id: str, time_ms: int | None) -> str:
    """
    The text that a commit of a source partition keeps as metadata.

    >>> noted("17", 40), noted("17", None)
    ('17 time=40', '17')
    """
    return topic_id if time_ms is None else f"{topic_id} time={time_ms}"


def note_of(text: str) -> tuple[str, int | None]:
    r"""
    The arguments that `noted` was called with.

    Other programs may commit for the group too, with any metadata. Text that is not a number gives
    no time.

    >>> note_of("17 time=40"), note_of("17"), note_of("17 time=4\\x00"), note_of("")
    (('17', 40), ('17', None), ('17', None), ('', None))
    """
    found = NOTE.match(text)
    assert found is not None  # the empty text matches
    return found[1], int(found[2]) if found[2] else None
