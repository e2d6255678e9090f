"""
The state of a partition at its committed position: read from the last snapshot, then folded on up
to there.

Rule of the file: a restore is silent. Everything that it folds again was published with the
committed position, so its effects are discarded, and it uses the configuration with which they were
published.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.kafka.deliveries import Fetched, Records, split
from stream_monitor.kafka.fetching import Reader
from stream_monitor.settings import CoreSettings
from stream_monitor.shard_form import settings_of
from stream_monitor.stages import snapshots
from stream_monitor.stages.commit_metadata import ANEW, Note, in_brief, read_note
from stream_monitor.stages.exits import BATCH_FAILED, die
from stream_monitor.stages.hub import Hub, bounds_of
from stream_monitor.stages.owned import SNAPSHOT_BYTES, Committed, Owned
from stream_monitor.stages.poison import place, summary
from stream_monitor.stages.retention import Lost
from stream_monitor.stages.tenures import Tenures, begun_at

log = logging.getLogger("stream_monitor")
ONE_AT_A_TIME = threading.Lock()
"""
msgspec learns a type when it first reads one, and is not safe in threads meanwhile: partitions that
were restored side by side ended the process (SIGSEGV). It holds the interpreter anyway.
"""
LOGGED_MAX = 1_000
"""Greatest number of characters of names in a line of the log."""


class Restoring:
    """
    Restores the state of partitions of `observations`.

    Parameters
    ----------
    hub : Hub
    targets : int
        Partitions of `observations`.
    baselines : mapping of "model/version" to bytes
        Published baseline profiles.
    tenures : Tenures
    """

    def __init__(
        self, hub: Hub, targets: int, baselines: Mapping[str, bytes], tenures: Tenures
    ) -> None:
        self.hub, self.targets, self.baselines, self.tenures = hub, targets, baselines, tenures
        self.lost = Lost(hub.settings.worker, "folded", "starts there with an empty state")
        self.restored = False
        """Whether something was restored since memory was last given back."""

    async def committed(self, tp: TopicPartition) -> Committed:
        """The committed position of the group and the bounds of the log."""
        mark = self.tenures.mark_of(tp)
        found = await self.hub.source.committed([tp, mark])
        committed = found[tp]
        bounds = await bounds_of(self.hub.source, {tp: committed[0] if committed else 0})
        first, end = bounds[tp]
        position, metadata = committed or (first, "")
        if position > end:
            raise StateError(
                f"{tp.topic}/{tp.partition} ends at {end}, but it was processed up to "
                f"{position}: it was recreated, or its log was truncated; {ANEW}"
            )
        note, failed = read_note(tp, metadata)
        if position < first and note.snapshot < 0:
            self.lost.count(tp, position, first)
        position = max(position, first)
        note = msgspec.structs.replace(note, partitions=self.targets)
        return Committed(position, note, failed, begun_at(position, found[mark]), first, end)

    async def restore(
        self, tp: TopicPartition, found: Committed, producer: AIOKafkaProducer
    ) -> Owned:
        """
        The state at the committed position.

        Up to there it has the configuration that was in force when it was committed. The
        configuration of this worker takes effect there.
        """
        core, position, note = self.hub.settings.core, found.position, found.note
        self.restored = True
        began = time.monotonic()
        async with self.hub.reader() as reader:
            shard, stored, at = await self._from_snapshot(reader, tp, found)
            gap = at < found.first
            if gap:
                self.lost.count(tp, at, found.first)
                at = found.first
            owned = Owned(shard, producer, note, position, stored)
            read_s = time.monotonic() - began
            await self._refold(reader, tp, owned, at)
        shard.outbox.clear()  # these effects are in the committed transactions
        folded_s = time.monotonic() - began - read_s
        log.info(
            "restored %s/%d: read the snapshot in %.1f s, replayed %d records after it in %.1f s",
            *tp,
            read_s,
            position - at,
            folded_s,
        )
        if shard.config != core.hash:
            snapshot = await asyncio.to_thread(shard.snapshot)
            parts = {name: data or b"" for name, data in snapshot.items()}
            owned.shard = await self._shard(tp, core, parts)
        if self._is_changed(tp, owned, note) or gap:
            # the next transaction has a snapshot, so that no restore crosses this position
            owned.since_bytes = SNAPSHOT_BYTES
        return owned

    async def _from_snapshot(
        self, reader: Reader, tp: TopicPartition, found: Committed
    ) -> tuple[Shard, snapshots.Manifest, int]:
        """
        The state of the last snapshot, its manifest, and its position; an empty state if there is
        no snapshot.
        """
        core = self.hub.settings.core
        if found.note.snapshot < 0:
            shard = Shard(tp.partition, core, self.baselines, partitions=self.targets)
            return shard, snapshots.Manifest(), found.first
        topic = TopicPartition(self.hub.topic("snapshots"), tp.partition)
        manifest, parts = await snapshots.read(reader, topic, found.note.snapshot)
        ours = manifest.config == core.hash or manifest.position >= found.position
        shard = await self._shard(tp, core if ours else settings_before(tp, manifest, parts), parts)
        if anew := shard.restarted_detectors():
            log.warning(
                "%s/%d: detectors restarted because their saved state is unreadable or from "
                "another River version: %s",
                *tp,
                in_brief(anew, LOGGED_MAX),
            )
        return shard, manifest, manifest.position

    async def _shard(
        self, tp: TopicPartition, settings: CoreSettings, parts: Mapping[str, bytes]
    ) -> Shard:
        def restored() -> Shard:
            with ONE_AT_A_TIME:
                return Shard.restore(
                    tp.partition, settings, parts, self.baselines, partitions=self.targets
                )

        try:
            return await asyncio.to_thread(restored)
        except (KeyError, TypeError, ValueError, IndexError, msgspec.MsgspecError) as e:
            raise StateError(
                f"the state in the snapshot of {tp.topic}/{tp.partition} cannot be read "
                f"({e!r}): another version of stream-monitor wrote it; {snapshots.WAY_OUT}"
            ) from e

    def _is_changed(self, tp: TopicPartition, owned: Owned, note: Note) -> bool:
        """Whether another configuration takes effect here. If so, the log says what restarts."""
        config = self.hub.settings.core.hash
        if (anew := owned.shard.anew) and owned.shard.config != note.config:
            log.warning(
                "%s/%d: configuration %s resets parts of the state: %s",
                *tp,
                config,
                in_brief(anew, LOGGED_MAX),
            )
        changed = note.config not in ("", config)
        if changed:
            log.warning(
                "%s/%d: configuration %s takes effect at offset %d; before it was %s",
                *tp,
                config,
                owned.position,
                note.config,
            )
        return changed

    async def _refold(self, reader: Reader, tp: TopicPartition, owned: Owned, at: int) -> None:
        """Fold the records between a snapshot and the committed position again."""
        async for fetched in reader.stretch(tp, at, owned.position):
            part: Fetched | None = fetched
            while part is not None:
                records = whole(part)
                for offset, value, appended_ms in records.entries():
                    if offset < owned.position:
                        _fold_again(tp, owned, offset, value, appended_ms)
                        await asyncio.sleep(0)
                part = records.rest


def _fold_again(
    tp: TopicPartition, owned: Owned, offset: int, value: bytes, appended_ms: int | None
) -> None:
    try:
        owned.fold(value, appended_ms)
    except Exception as e:
        log.exception("folded again")
        die(
            BATCH_FAILED,
            f"{tp.topic}/{tp.partition}:{offset} was processed before and now crashes the "
            f"worker: {summary(e)}; run the previous version, or {snapshots.WAY_OUT}",
        )


def whole(fetched: Fetched) -> Records:
    """
    The records of a delivery of `observations`.

    A broken batch is never skipped: its records are nowhere else, and may be thousands of rows.
    """
    records = split(fetched)
    for batch in records.broken:
        die(
            BATCH_FAILED,
            f"{place(fetched.tp, batch)}; mend the log of this partition from another "
            "replica, or move the group's offset past it, which loses its rows",
        )
    return records


def settings_before(
    tp: TopicPartition, manifest: snapshots.Manifest, parts: Mapping[str, bytes]
) -> CoreSettings:
    """
    The configuration with which a snapshot was folded, to continue with it up to the committed
    position.
    """
    why = (
        f"{tp.topic}/{tp.partition} was folded with configuration {manifest.config} from "
        f"{manifest.position} on"
    )
    try:
        settings = settings_of(parts)
    except StateError as e:
        raise StateError(
            f"{why}, which this version of stream-monitor cannot repeat: {e}; run the "
            f"previous version and stop it with SIGTERM, or {snapshots.WAY_OUT}"
        ) from None
    if settings.hash != manifest.config:
        raise StateError(f"{why}, but its configuration is {settings.hash}; {snapshots.WAY_OUT}")
    return settings
