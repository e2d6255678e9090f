"""
The commits of the source topics: where a tenure starts, how far its rows are in the log, and how
often the process has ended there.

Rule of the file: a commit that does not arrive loses nothing. Rows are then repeated, and the next
commit contains the same again.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiokafka import TopicPartition

from stream_monitor.stages.alignment import Alignment, note_of, noted
from stream_monitor.stages.hub import GO_BACK_WARNING, Hub
from stream_monitor.stages.poison import MARK_S, TRIES, parted, suspicion, with_failures
from stream_monitor.stages.reading import Reading
from stream_monitor.stages.retention import Lost

log = logging.getLogger("stream_monitor")
COMMIT_LIMIT_S = 3.0
COMMIT_DOUBT_S = 60.0
"""
A commit that was given up may still arrive after newer ones and set the offset back. So for this
long the newest offset is committed again and again, s.
"""


class SourceCommits:
    """
    Reads and writes the commits of source partitions.

    Parameters
    ----------
    hub : Hub
    readings : dict of TopicPartition to Reading
        The tenures of this worker; the stage adds and removes them.
    alignment : Alignment
        Knows the event time that a commit stores.
    whole : frozenset of str
        Topics that are read from their first record if nothing is committed, whatever
        `auto_offset_reset` says: an experiment may have begun before this group.
    """

    def __init__(
        self,
        hub: Hub,
        readings: dict[TopicPartition, Reading],
        alignment: Alignment,
        *,
        whole: frozenset[str] = frozenset(),
    ) -> None:
        self.hub, self.readings, self.alignment, self.whole = hub, readings, alignment, whole
        self.lost = Lost(hub.settings.worker, "read", "leaves them out")
        self._partitions: dict[str, int] = {}
        """
        Number of partitions of each source topic when this worker first opened one. Partitions that
        are added later are read from their beginning, because senders may see them first.
        """
        self._doubtful_until = 0.0

    def resumed(
        self,
        tp: TopicPartition,
        topic_id: str,
        committed: tuple[int, str] | None,
        bounds: tuple[int, int],
    ) -> tuple[Reading, int | None]:
        """
        A new tenure from the committed offset on, and the event time of the last tenure if it is
        known.
        """
        first, end = bounds
        if committed is None:
            latest = self.hub.settings.worker.auto_offset_reset == "latest"
            added = tp.partition >= self._partitions.setdefault(
                tp.topic, self.hub.source.partitions(tp.topic)
            )
            at = end if latest and not added else first
            at = first if tp.topic in self.whole else at
            return Reading(topic_id, at, at), None
        offset, (note, failed, begun) = committed[0], parted(committed[1])
        before_id, time_ms = note_of(note)
        anew = bool(before_id and topic_id and topic_id != before_id)
        if anew or offset > end:
            log.error(GO_BACK_WARNING, f"{tp.topic}@{topic_id}/{tp.partition}", offset, first)
            offset, failed, begun, time_ms = 0 if anew else first, {}, 0, None
        if offset < first:
            self.lost.count(tp, offset, first)
            offset = first
        return Reading(topic_id, offset, offset, failed=failed, begun=begun), time_ms

    async def begin(
        self, waiting: dict[TopicPartition, bool], before: dict[TopicPartition, Reading]
    ) -> None:
        """
        Commit that tenures begin, for partitions with waiting records, so that the next reader
        knows it if they end uncleanly.

        If too many tenures ended uncleanly, the records are tried in a fork.
        """
        marked = {}
        for tp, waits in waiting.items():
            reading = self.readings[tp]
            if not waits:
                reading.begun = 0
                continue
            # a tenure that is only opened again was counted already
            again = tp in before and before[tp].begun == reading.begun > 0
            known = reading.begun - again
            reading.begun = known + 1
            if known >= TRIES:
                reading.failed.setdefault(reading.opened, TRIES)
                log.error(suspicion(tp, reading.opened, known, self.hub.settings.worker.on_poison))
            marked[tp] = reading.opened, self._metadata(tp, reading, reading.opened)
        if marked:
            await self._commit(marked, MARK_S)  # or it is not counted

    async def count_failure(self, ends: dict[TopicPartition, int]) -> None:
        """
        Before the process ends, commit one more failed try of the records that lie before these
        ends and are not committed.

        The caller holds the lock of the stage.
        """
        counted = {}
        stop = self.hub.settings.worker.on_poison == "stop"
        then = (
            "worker.on_poison: skip moves the record to dead-letters"
            if stop
            else f"after {TRIES} attempts the record is moved to dead-letters"
        )
        for tp, end in ends.items():
            if (
                reading := self.readings.get(tp)
            ) is None:  # another worker has the partition by now
                continue
            at, tries = reading.count_failure(end)
            counted[tp] = at, self._metadata(tp, reading, at)
            log.error(
                "%s/%d: a record between offsets %d and %d crashes the worker (attempt %d); %s",
                tp.topic,
                tp.partition,
                at,
                end - 1,
                tries,
                then,
            )
        await self._commit(counted, COMMIT_LIMIT_S)  # or it is not counted

    async def commit_acknowledged(self, limit_s: float) -> None:
        """Commit how far the rows of each assigned partition are acknowledged."""
        assigned = self.hub.source.assigned()
        again = time.monotonic() < self._doubtful_until
        moved = {
            tp: (r, r.acknowledged)
            for tp, r in self.readings.items()
            if r.acknowledged is not None
            and tp in assigned
            and (again or r.committed != r.acknowledged)
        }
        offsets = {tp: (at, self._metadata(tp, r, at)) for tp, (r, at) in moved.items()}
        if offsets and await self._commit(offsets, limit_s):
            for reading, at in moved.values():
                reading.committed = at

    async def _commit(self, offsets: dict[TopicPartition, tuple[int, str]], limit_s: float) -> bool:
        """
        Whether the commit was made. It is given up (False) if it was lost or the coordinator is
        away.
        """
        try:
            # aiokafka tries without end, and sends nothing meanwhile
            async with asyncio.timeout(limit_s):
                await self.hub.source.commit(offsets)
        except Exception as e:
            log.debug("gave up on a commit: %r", e)
            self._doubtful_until = time.monotonic() + COMMIT_DOUBT_S
            return False
        return True

    def _metadata(self, tp: TopicPartition, reading: Reading, at: int) -> str:
        """Metadata of a commit at this offset."""
        note = noted(reading.topic_id, self.alignment.time_of(tp))
        return with_failures(note, reading.failures(at), reading.begun_at(at))
