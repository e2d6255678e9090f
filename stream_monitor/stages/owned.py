"""
What owning a partition of `observations` takes: the shard, the producer that fences all others, and
what is noted beside the position.

Rule of the file: no await. What is committed is always the metadata and the state of one moment.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from stream_monitor.evaluate import Shard
from stream_monitor.stages import snapshots
from stream_monitor.stages.commit_metadata import Note
from stream_monitor.stages.poison import Headers, with_failures

SNAPSHOT_BYTES = 16 << 20
"""Bytes of `observations` folded between snapshots."""
SNAPSHOT_CPU_S_MIN, SNAPSHOT_CPU_S_MAX = 0.5, 3.0
"""
And CPU time of folding, which a restore does again: within these bounds, SNAPSHOT_COSTS times what
making the last snapshot took (compressing and sending take twice that again). So a survivor takes
over soon, snapshots take about 3 % of the time of folding, and with many models, where they are
dear, a restore still takes no longer than opening may.
"""
SNAPSHOT_COSTS = 100


class Committed(NamedTuple):
    """What a tenure of a partition begins with."""

    position: int
    note: Note
    failed: dict[int, int]
    begun: int
    """Tenures before it that began there and of which nothing more was heard."""
    first: int
    end: int


class Owned:
    """
    A shard and what owning it takes: the producer that fences all others, and what is noted beside
    its position.
    """

    def __init__(
        self,
        shard: Shard,
        producer: AIOKafkaProducer,
        note: Note,
        position: int,
        stored: snapshots.Manifest,
    ) -> None:
        self.shard, self.producer, self.note = shard, producer, note
        self.position = self.committed = self.opened = position
        self.since_bytes, self.since_cpu_s = 0, 0.0
        self.snapshot_cpu_s = 0.0
        """Of making the last one."""
        self.stored = stored
        """The last snapshot."""
        self.failed: dict[int, int] = {}
        """Records by offset that have ended the process, and how often."""
        self.reasons: dict[int, str] = {}
        """What ended a copy of the process over them."""
        self.tenured = False
        """Whether the committed note has our tenure, without transactions."""
        self.begun = 0
        """
        Tenures that began at `opened` with records waiting, ours included, and of which nothing
        more was heard.
        """
        self.careful_until = -1
        """Records below it are tried in a copy of the process first."""
        self.letters: list[tuple[bytes, Headers]] = []
        self.lock = asyncio.Lock()
        self.broken = False
        self.last = 0.0

    def fold(self, value: bytes, appended_ms: int | None = None) -> None:
        """Fold a record, and count what a restore from the last snapshot would have to do again."""
        began = time.thread_time()
        self.shard.fold(value, appended_ms)
        self.since_cpu_s += time.thread_time() - began
        self.since_bytes += len(value)

    @property
    def snapshot_due(self) -> bool:
        """Whether a restore would have to fold more than it is worth."""
        worth_cpu_s = min(
            max(SNAPSHOT_COSTS * self.snapshot_cpu_s, SNAPSHOT_CPU_S_MIN), SNAPSHOT_CPU_S_MAX
        )
        return (
            self.note.snapshot < 0
            or self.since_bytes >= SNAPSHOT_BYTES
            or self.since_cpu_s >= worth_cpu_s
        )

    def snapshot(self) -> dict[str, bytes | None]:
        """The state in parts, as of now: folding goes on meanwhile."""
        began = time.thread_time()
        parts = self.shard.snapshot(
            [name for name in self.stored.parts if name.startswith(snapshots.FIXED)]
        )
        self.snapshot_cpu_s = time.thread_time() - began
        self.since_bytes, self.since_cpu_s = 0, 0.0
        return parts

    def metadata(self, position: int) -> str:
        """Of a commit at this position."""
        return with_failures(
            self.note.text(), {offset: n for offset, n in self.failed.items() if offset >= position}
        )
