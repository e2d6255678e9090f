"""
Everything that belongs to an owned partition of `observations`: the shard, the producer that fences
all others, and the note beside the position.

Rule of the file: no await. Metadata and state of a commit are always those of the same moment.
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
"""Bytes of `observations` that are folded between two snapshots."""
SNAPSHOT_CPU_S_MIN, SNAPSHOT_CPU_S_MAX = 0.5, 3.0
"""
CPU-seconds of folding between two snapshots; a restore has to repeat them. Within these bounds it
is SNAPSHOT_COSTS times the cost of making the last snapshot (compressing and sending cost twice
that again). So a surviving worker takes over soon, and snapshots take about 3 % of the time of
folding. With many models, whose snapshots cost most, a restore still takes no longer than opening
may.
"""
SNAPSHOT_COSTS = 100


class Committed(NamedTuple):
    """The committed state with which a tenure of a partition begins."""

    position: int
    note: Note
    failed: dict[int, int]
    begun: int
    """Earlier tenures that began at this position and came to no clean end."""
    first: int
    end: int


class Owned:
    """
    A shard and everything that owning it needs: the producer that fences all others, and the note
    beside its position.
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
        """CPU time of making the last snapshot, s."""
        self.stored = stored
        """Manifest of the last snapshot."""
        self.failed: dict[int, int] = {}
        """Records, by offset, that have ended the process, and how often."""
        self.reasons: dict[int, str] = {}
        """Records, by offset, that ended a fork of the process, and how the fork ended."""
        self.tenured = False
        """Whether the committed note contains our tenure; used only without transactions."""
        self.begun = 0
        """
        Tenures that began at `opened` while records waited, including this one, and came to no
        clean end.
        """
        self.careful_until = -1
        """Records below this offset are tried in a fork of the process first."""
        self.letters: list[tuple[bytes, Headers]] = []
        self.lock = asyncio.Lock()
        self.broken = False
        self.last = 0.0

    def fold(self, value: bytes, appended_ms: int | None = None) -> None:
        """Fold a record, and count what a restore from the last snapshot would have to repeat."""
        began = time.thread_time()
        self.shard.fold(value, appended_ms)
        self.since_cpu_s += time.thread_time() - began
        self.since_bytes += len(value)

    @property
    def snapshot_due(self) -> bool:
        """Whether a restore would have to repeat so much that a snapshot is worth its cost."""
        worth_cpu_s = min(
            max(SNAPSHOT_COSTS * self.snapshot_cpu_s, SNAPSHOT_CPU_S_MIN), SNAPSHOT_CPU_S_MAX
        )
        return (
            self.note.snapshot < 0
            or self.since_bytes >= SNAPSHOT_BYTES
            or self.since_cpu_s >= worth_cpu_s
        )

    def snapshot(self) -> dict[str, bytes | None]:
        """The state in parts, as it is now; folding continues meanwhile."""
        began = time.thread_time()
        parts = self.shard.snapshot(
            [name for name in self.stored.parts if name.startswith(snapshots.FIXED)]
        )
        self.snapshot_cpu_s = time.thread_time() - began
        self.since_bytes, self.since_cpu_s = 0, 0.0
        return parts

    def metadata(self, position: int) -> str:
        """Metadata of a commit at this position."""
        return with_failures(
            self.note.text(), {offset: n for offset, n in self.failed.items() if offset >= position}
        )
