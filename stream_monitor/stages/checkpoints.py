"""
Checkpoints of a partition of `observations`: alerts, sometimes a snapshot, and the position become
durable together.

Rule of the file: with transactions everything is in one transaction. Without them effects are
written first and the position last. A crash in between then repeats effects, with the same ids, and
loses none.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from stream_monitor.stages import snapshots
from stream_monitor.stages.commit_metadata import in_brief
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.owned import Owned
from stream_monitor.stages.published_baselines import LEARNT_HEADER
from stream_monitor.verdicts import Out

TRANSACTION_S = 8
LEARNT = [(LEARNT_HEADER, b"")]


class Checkpoint(NamedTuple):
    """The effects, the snapshot and the position that become durable together."""

    position: int
    effects: list[Out]
    parts: dict[str, bytes | None] | None
    """Parts of a snapshot; None if none is due."""


class Checkpoints:
    """Writes checkpoints of owned partitions."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.transactional = hub.settings.worker.processing_guarantee == "exactly_once"

    async def write(self, tp: TopicPartition, owned: Owned, checkpoint: Checkpoint) -> None:
        """
        Write a checkpoint.

        If this raises, only fencing again and reading shows whether the checkpoint was committed.
        """
        async with asyncio.timeout(TRANSACTION_S if self.transactional else 3 * TRANSACTION_S):
            await (self._transaction if self.transactional else self._plain)(tp, owned, checkpoint)

    async def commit(self, tp: TopicPartition, owned: Owned, position: int) -> None:
        """Write the position alone, with its metadata."""
        if self.transactional:
            await owned.producer.begin_transaction()
            await self._offset(tp, owned, position)
            await owned.producer.commit_transaction()
        else:
            await self.hub.source.commit({tp: (position, owned.metadata(position))})

    async def _transaction(self, tp: TopicPartition, owned: Owned, checkpoint: Checkpoint) -> None:
        await owned.producer.begin_transaction()
        await self._send(tp, owned, checkpoint)
        await self._offset(tp, owned, checkpoint.position)
        await owned.producer.commit_transaction()

    async def _offset(self, tp: TopicPartition, owned: Owned, position: int) -> None:
        offset = OffsetAndMetadata(position, owned.metadata(position))
        group = self.hub.group
        await owned.producer.send_offsets_to_transaction({TopicPartition(*tp): offset}, group)

    async def _plain(self, tp: TopicPartition, owned: Owned, checkpoint: Checkpoint) -> None:
        if checkpoint.parts is not None and not owned.tenured:
            # the group refuses this commit from a zombie, so only the owner uses the number
            # that is stored here
            owned.note = msgspec.structs.replace(owned.note, tenure=owned.note.tenure + 1)
            committed = owned.committed
            await self.hub.source.commit({tp: (committed, owned.metadata(committed))})
            owned.tenured = True
        await self._send(tp, owned, checkpoint)
        position = checkpoint.position
        await self.hub.source.commit({tp: (position, owned.metadata(position))})

    async def _send(self, tp: TopicPartition, owned: Owned, checkpoint: Checkpoint) -> None:
        producer, topic = owned.producer, self.hub.topic
        letters, owned.letters = owned.letters, []
        waiting = [
            await producer.send(topic("dead-letters"), value, headers=headers)
            for value, headers in letters
        ]
        for effect in checkpoint.effects:
            headers = LEARNT if effect.topic == "baselines" else None
            waiting.append(
                await producer.send(
                    topic(effect.topic), effect.value, key=effect.key, headers=headers
                )
            )
        if checkpoint.parts is not None:
            await self._snapshot(tp, owned, checkpoint.position, checkpoint.parts)
        await asyncio.gather(*waiting)

    async def _snapshot(
        self, tp: TopicPartition, owned: Owned, position: int, parts: dict[str, bytes | None]
    ) -> None:
        """Send a snapshot, and note in the metadata where it is."""

        async def send(key: bytes, value: bytes | None) -> int:
            record = await owned.producer.send_and_wait(
                self.hub.topic("snapshots"), value, key=key, partition=tp.partition
            )
            return int(record.offset)

        config, note = owned.shard.config, owned.note
        pointer, owned.stored = await snapshots.write(
            tp.partition, position, config, parts, owned.stored, note.tenure, send
        )
        if config != note.config:
            note = msgspec.structs.replace(
                note,
                config=config,
                since=owned.opened,
                since_ms=time.time_ns() // 1_000_000,
                anew=in_brief(owned.shard.anew),
            )
        # if this is not committed the shard is broken, and the note forgotten with it
        owned.note = msgspec.structs.replace(note, snapshot=pointer)
