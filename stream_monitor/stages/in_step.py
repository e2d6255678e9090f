"""
Sources are fetched without waiting, and delivered in step.

Rule of the file: fetched records of a source partition are kept here, in the order of their
offsets, until it is the partition's turn (`stages/alignment.py` decides). They are delivered in
parts of some thousand records, because event times are known only after decoding. A partition with
kept records is paused, so that no more of it is fetched. So memory holds one or two answers of the
broker per partition.

Events of experiments have their place among the calls of that time, also in a backlog. Each record
of their partition waits for older records of the sources, and the sources wait for the next answer
about that partition if it is known to have more, or if nothing is known yet.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_monitor.kafka.clocks import now_ms
from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.kafka.fetching import Epochs, Fetching
from stream_monitor.stages.alignment import SILENT_S, TOLD_MS, Alignment

log = logging.getLogger("stream_monitor")
PART_RECORDS = 8_000
"""
Records of a partition that are delivered at once. This is more than one flush of INGEST, so that
records of observations are as large as without alignment.
"""
TURN_RECORDS = 24_000
"""Records of all partitions that are delivered between two decisions about the order."""


class AlignedStage(Protocol):
    """A stage that reads its sources in step: INGEST."""

    in_step: frozenset[str]
    """Names of its topics that are read in step."""
    in_place: frozenset[str]
    """Names of its topics of which each record follows the older ones of those."""
    alignment: Alignment

    def position(self, tp: TopicPartition) -> int: ...


class Kept(NamedTuple):
    """Fetched batches of a partition that has to wait, and the position after them."""

    epoch: int
    batches: list[tuple[int, Any]]
    end: int


class FetchingInStep(Fetching):
    """The consumer of a worker that delivers the aligned topics of a stage in step."""

    def __init__(self, hub: Epochs, consumer: AIOKafkaConsumer, stage: AlignedStage) -> None:
        super().__init__(hub, consumer)
        self.stage, self.alignment = stage, stage.alignment
        self._kept: dict[TopicPartition, Kept] = {}
        self._held = stage.in_step | stage.in_place
        self._waits: dict[TopicPartition, tuple[int, float]] = {}
        """Partitions that wait for their place: the offset that waits, and since when, s."""
        self._awaited: dict[tuple[TopicPartition, int], float] = {}
        """Partitions and positions whose next records are on their way, and since when, s."""
        self._place_ms = math.inf
        """Time of the first record that waits for its place."""
        self._moved = asyncio.Event()
        self.alignment.on_take = self._moved.set

    async def _fetch(
        self, partitions: Collection[TopicPartition], timeout_s: float
    ) -> dict[TopicPartition, Fetched]:
        out = await self._turn(partitions)
        if not out:
            await self._more(timeout_s)
            out = await self._turn(partitions)
        return out

    async def _more(self, timeout_s: float) -> None:
        """Wait until something was fetched, or until rows were read that others wait for."""
        waiter = self.consumer._fetcher._create_fetch_waiter()
        wanted = [waiter]
        if self._kept:
            self._moved.clear()
            wanted.append(asyncio.ensure_future(self._moved.wait()))
        done, pending = await asyncio.wait(
            wanted, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        for future in pending:
            future.cancel()
        if waiter in done:
            waiter.result()  # authorisation errors

    async def _turn(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Fetched]:
        """The deliveries that were fetched by now and need not wait."""
        got = await self._drained(partitions)
        assigned = self.consumer.assignment()
        self._kept = {
            tp: kept
            for tp, kept in self._kept.items()
            if tp in assigned and kept.epoch == self.hub.epochs.get(tp, 0)
        }
        out: dict[TopicPartition, Fetched] = {}
        for tp, found in got.items():
            if tp not in assigned:
                continue
            end = self._state(tp).position
            if tp.topic not in self._held:
                out[tp] = self._handed(tp, found, end)
            elif kept := self._kept.get(tp):
                self._kept[tp] = kept._replace(batches=kept.batches + found, end=end)
            else:
                self._kept[tp] = Kept(self.hub.epochs.get(tp, 0), found, end)
        sources = [tp for tp in assigned if tp.topic in self.stage.in_step]
        in_place = [tp for tp in assigned if tp.topic in self.stage.in_place]
        placed = self._placed(in_place, sources)
        return out | placed | self._released(sources, wait=self._is_awaited(in_place))

    def _is_awaited(self, tps: list[TopicPartition]) -> bool:
        """Whether records of these partitions are on their way, and not for too long."""
        now_s = time.monotonic()
        coming = {
            (tp, self._state(tp).position if self._state(tp).has_valid_position else -1)
            for tp in tps
            if tp not in self._kept and self._remains(tp, unknown=True)
        }
        self._awaited = {each: self._awaited.get(each, now_s) for each in coming}
        return any(now_s - since_s < SILENT_S for since_s in self._awaited.values())

    def _placed(
        self, tps: list[TopicPartition], sources: list[TopicPartition]
    ) -> dict[TopicPartition, Fetched]:
        """The kept batches of these partitions whose place has come."""
        out: dict[TopicPartition, Fetched] = {}
        self._place_ms = math.inf
        for tp in tps:
            kept = self._kept.pop(tp, None)
            if kept is not None:
                n = 0
                while n < len(kept.batches) and self._is_due(tp, kept.batches[n], sources):
                    n += 1
                if n < len(kept.batches):
                    self._kept[tp] = kept._replace(batches=kept.batches[n:])
                    self._place_ms = min(self._place_ms, _time_of(kept.batches[n]))
                if n:
                    end = kept.batches[n][0] if n < len(kept.batches) else kept.end
                    out[tp] = self._handed(tp, kept.batches[:n], end)
            self._pause(tp)
        return out

    def _is_due(
        self, tp: TopicPartition, batch: tuple[int, Any], sources: list[TopicPartition]
    ) -> bool:
        """Whether no source has older records; nothing waits longer than sources do."""
        time_ms = min(_time_of(batch), now_ms())
        waits = any(self._is_before(source, time_ms) for source in sources) or any(
            told.behind and told.time_ms is not None and told.time_ms + TOLD_MS < time_ms
            for told in self.alignment.others.values()
        )
        if not waits:
            self._waits.pop(tp, None)
            return True
        offset, since_s = self._waits.get(tp, (-1, 0.0))
        if offset != batch[0]:
            since_s = time.monotonic()
            self._waits[tp] = batch[0], since_s
        if time.monotonic() - since_s < self.alignment.wait_s:
            return False
        log.warning(
            "%s/%d@%d waited %.0f s for older records of other topics, and is now taken before "
            "them",
            *tp,
            batch[0],
            self.alignment.wait_s,
        )
        return True

    def _is_before(self, source: TopicPartition, time_ms: float) -> bool:
        """Whether the next record of a source is as old, or not fetched yet."""
        kept = self._kept.get(source)
        return self._remains(source) if kept is None else _time_of(kept.batches[0]) <= time_ms

    def _released(
        self, sources: list[TopicPartition], *, wait: bool
    ) -> dict[TopicPartition, Fetched]:
        """
        Parts of the kept batches of partitions that need not wait, the slowest partition first.
        """
        here = {
            tp for tp in sources if tp in self._kept or self.ends.get(tp) != self.stage.position(tp)
        }
        behind = here | {tp for tp in sources if self._remains(tp)}
        waiting = set(sources) if wait else self.alignment.hold(time.monotonic(), behind, here)
        out: dict[TopicPartition, Fetched] = {}
        records = 0
        for tp in sorted((self._kept.keys() & set(sources)) - waiting, key=self._order):
            if records >= TURN_RECORDS:
                break
            out[tp], n = self._part(tp)
            records += n
        for tp in sources:
            self._pause(tp)
        return out

    def _pause(self, tp: TopicPartition) -> None:
        """Fetch more of a partition only if nothing of it is kept."""
        paused = self._state(tp).paused
        if paused != (tp in self._kept):
            (self.consumer.resume if paused else self.consumer.pause)(tp)

    def _order(self, tp: TopicPartition) -> tuple[float, TopicPartition]:
        time_ms = self.alignment.time_of(tp)
        return -math.inf if time_ms is None else time_ms, tp

    def _part(self, tp: TopicPartition) -> tuple[Fetched, int]:
        """The next batches of a partition, and how many offsets they span."""
        kept, n, last = self._kept.pop(tp), 0, 0
        ends = [start for start, _ in kept.batches[1:]] + [
            kept.end
        ]  # each batch ends where the next begins
        while last < len(ends) and n < PART_RECORDS:
            if last and _time_of(kept.batches[last]) > self._place_ms:
                break
            n = max(ends[last] - kept.batches[0][0], 1)
            last += 1
        if last < len(ends):
            self._kept[tp] = kept._replace(batches=kept.batches[last:])
        return self._handed(tp, kept.batches[:last], ends[last - 1]), n

    def _handed(self, tp: TopicPartition, batches: list[tuple[int, Any]], end: int) -> Fetched:
        fetched = Fetched(tp, self.hub.epochs.get(tp, 0), self.ends.get(tp), end, batches)
        self.ends[tp] = end
        return fetched

    def _remains(self, tp: TopicPartition, *, unknown: bool = False) -> bool:
        """
        Whether the broker has more records of a partition, by its last answer; before the first
        answer, `unknown`, or by what was known when the partition was opened.
        """
        state = self._state(tp)
        end = state.lso if state.lso is not None and state.lso >= 0 else state.highwater
        if end is None:
            return unknown or self.alignment.had_more(tp)
        return bool(state.has_valid_position and state.position < end)

    def _state(self, tp: TopicPartition) -> Any:
        return self.consumer._subscription.subscription.assignment.state_value(tp)


def _time_of(batch: tuple[int, Any]) -> int:
    """Time of the newest record of a batch; -1 if it is not known without decoding it."""
    return getattr(batch[1], "max_timestamp", None) or -1
