"""
EVALUATE's shell: ownership, transactions and restore around the pure `Shard`.

Rule of the file: fence first, then read the committed position, then restore, then seek. Alerts, a snapshot now and then, and the position go in one transaction a
partition; after any timeout or unknown error producer and state are thrown away and opened again, for only reading tells what was committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard, settings_of
from stream_monitor.metrics.samples import AnySample, Sample
from stream_monitor.runtime import snapshots
from stream_monitor.runtime.connection import client_options
from stream_monitor.runtime.copies import enders
from stream_monitor.runtime.exits import BATCH_FAILED, IN_DOUBT, die
from stream_monitor.runtime.fetching import Fetched, Reader, Records, split
from stream_monitor.runtime.hub import Hub, bounds_of, quietly
from stream_monitor.runtime.memory import give_back
from stream_monitor.runtime.notes import ANEW, Note, in_brief, read_note
from stream_monitor.runtime.owned import SNAPSHOT_BYTES, Committed, Owned
from stream_monitor.runtime.poison import REASON, TRIES, letter_headers, place, summary
from stream_monitor.runtime.references import LEARNT_HEADER
from stream_monitor.runtime.retention import Lost
from stream_monitor.runtime.tenures import Tenures, begun_at
from stream_monitor.settings import CoreSettings
from stream_monitor.verdicts import Out

log = logging.getLogger("stream_monitor")
IDLE_S = 2.0
"""Between transactions when no alert waits."""
HOLD_S = 0.05
"""The longest that folding holds the event loop, but for a single record."""
BREATH_S = 0.01
"""After such a slice, while a transaction is under way: each of its answers takes several turns of the loop, and with a slice before each turn it would not end in time."""
TRANSACTION_S = 8
TRANSACTION_TIMEOUT_MS = 10_000
LEARNT = [(LEARNT_HEADER, b"")]
LOGGED_MAX = 1_000
"""Characters of names in a line of the log."""
PAUSE_S = 3
"""After a failed transaction: more than two heartbeats, in which a zombie is told that it is one."""


class EvaluateStage:
    """Owns all state."""

    def __init__(self, hub: Hub, targets: int, baselines: Mapping[str, bytes]) -> None:
        self.hub, self.targets, self.baselines = hub, targets, dict(baselines)
        self.topics = frozenset({hub.topic("observations")})
        self.owned: dict[TopicPartition, Owned] = {}
        self.parked: dict[TopicPartition, Owned] = {}
        self.transactional = hub.settings.worker.processing_guarantee == "exactly_once"
        self.transactions = self.failures = 0
        self.lost = Lost(hub.settings.worker, "folded", "begins anew there, with an empty state")
        self.tenures = Tenures(hub)
        self.set_aside = 0
        self._breathed = 0.0
        self.restored = False
        """Since memory was given back last."""

    async def start(self) -> None:
        self.hub.spawn(self._ticker())

    # ---- opening

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        assigned = self.hub.source.assigned()
        self.parked = {tp: o for tp, o in self.parked.items() if tp in assigned}
        for tp in set(self.owned) - assigned:
            self._throw_away(self.owned.pop(tp))
        positions = dict(await asyncio.gather(*(self._open_one(tp) for tp in tps)))
        if self.restored:
            self.restored = False
            give_back()
        await self.tenures.write({tp: owned for tp, owned in self.owned.items() if tp in positions and owned.begun})
        return positions

    async def _open_one(self, tp: TopicPartition) -> tuple[TopicPartition, int]:
        before = self.owned.pop(tp, None)
        if before is not None:
            self._throw_away(before)
        parked = self.parked.pop(tp, None)
        producer = self._producer(tp)
        try:
            await producer.start()  # 1 fence: ends an open transaction of a former owner, so that what follows is final
            found = await self._committed(tp)  # 2 the position; beside it stands where the last snapshot is
            position, note = found.position, found.note
            if parked is not None and (parked.position, parked.note) == (position, note):  # 3 nobody moved it: the state in memory is the fold up to there
                parked.producer, parked.broken = producer, False
                owned = parked
            else:
                owned = await self._restore(tp, position, note, found.first, producer)
        except BaseException:  # cancelled too (another rebalance): nothing half-open stays
            self.hub.spawn(quietly(producer.stop()))
            raise
        self.tenures.begin(tp, owned, found, before)
        self.owned[tp] = owned
        return tp, position  # 4 the driver seeks

    def _throw_away(self, owned: Owned) -> None:
        """Nobody waits for a producer whose end is in doubt: it would try for seconds to finish what is fenced by then."""
        self.hub.spawn(quietly(owned.producer.stop()))

    async def _committed(self, tp: TopicPartition) -> Committed:
        """Where the group is, and what the log has."""
        mark = self.tenures.mark_of(tp)
        found = await self.hub.source.committed([tp, mark])
        committed = found[tp]
        first, end = (await bounds_of(self.hub.source, {tp: committed[0] if committed else 0}))[tp]
        position, metadata = committed or (first, "")
        if position > end:
            raise StateError(f"{tp.topic}/{tp.partition} ends at {end}, but it was folded up to {position}: it was made anew, or its log was cut; {ANEW}")
        note, failed = read_note(tp, metadata)
        if position < first and note.snapshot < 0:
            self.lost.count(tp, position, first)
        position = max(position, first)
        return Committed(position, msgspec.structs.replace(note, partitions=self.targets), failed, begun_at(position, found[mark]), first, end)

    def _producer(self, tp: TopicPartition) -> AIOKafkaProducer:
        options: dict[str, Any] = {**client_options(self.hub.settings.kafka), "compression_type": "zstd", "max_request_size": 4 << 20}
        if self.transactional:
            options |= {"transactional_id": f"{self.hub.group}.{tp.topic}.{tp.partition}", "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        else:
            options["enable_idempotence"] = True
        return AIOKafkaProducer(**options)

    async def _restore(self, tp: TopicPartition, position: int, note: Note, first: int, producer: AIOKafkaProducer) -> Owned:
        """The state at the committed position. Up to there it is that of the configuration which wrote what was committed with it; ours takes effect there."""
        core = self.hub.settings.core
        self.restored = True
        stored = snapshots.Manifest()
        at, began = first, time.monotonic()
        async with self.hub.reader() as reader:
            if note.snapshot >= 0:
                manifest, parts = await snapshots.read(reader, TopicPartition(self.hub.topic("snapshots"), tp.partition), note.snapshot)
                before = core if manifest.config == core.hash or manifest.position >= position else _settings_before(tp, manifest, parts)
                shard = await asyncio.to_thread(Shard.restore, tp.partition, before, parts, self.baselines, partitions=self.targets)
                at, stored = manifest.position, manifest
                if anew := shard.learning():
                    log.warning("%s/%d: learning: detectors begin anew, since their state is of another version of River or cannot be read: %s", *tp, in_brief(anew, LOGGED_MAX))
            else:
                shard = Shard(tp.partition, core, self.baselines, partitions=self.targets)
            gap = at < first
            if gap:
                self.lost.count(tp, at, first)
                at = first
            owned = Owned(shard, producer, note, position, stored)
            read, folded_n = time.monotonic(), position - at
            await self._refold(reader, tp, owned, at)
        shard.outbox.clear()  # a silent fold: these effects are in the transactions that were committed
        took_s = read - began, time.monotonic() - read
        log.info("restored %s/%d: snapshot read in %.1f s, %d records after it folded again in %.1f s", tp.topic, tp.partition, took_s[0], folded_n, took_s[1])
        if shard.config != core.hash:
            owned.shard = await asyncio.to_thread(
                lambda: Shard.restore(tp.partition, core, {name: data or b"" for name, data in shard.snapshot().items()}, self.baselines, partitions=self.targets)
            )
        if (anew := owned.shard.anew) and owned.shard.config != note.config:
            log.warning("%s/%d: parts of the state begin anew under configuration %s: %s", *tp, core.hash, in_brief(anew, LOGGED_MAX))
        changed = note.config not in ("", core.hash)
        if changed:
            log.warning("%s/%d: configuration %s takes effect at %d; up to there it was %s", tp.topic, tp.partition, core.hash, position, note.config)
        if gap or changed:
            owned.since_bytes = SNAPSHOT_BYTES  # with the next transaction: no restore goes back before this, to a gap that was told or to another configuration
        return owned

    async def _refold(self, reader: Reader, tp: TopicPartition, owned: Owned, at: int) -> None:
        """Fold again what lies between a snapshot and the committed position."""
        async for fetched in reader.stretch(tp, at, owned.position):
            part: Fetched | None = fetched
            while part is not None:
                records = self._whole(part)
                for offset, value, appended_ms in records.entries():
                    if offset < owned.position:
                        self._fold_again(tp, owned, offset, value, appended_ms)
                        await asyncio.sleep(0)
                part = records.rest

    @staticmethod
    def _fold_again(tp: TopicPartition, owned: Owned, offset: int, value: bytes, appended_ms: int | None) -> None:
        try:
            owned.fold(value, appended_ms)
        except Exception as e:
            log.exception("folded again")
            die(BATCH_FAILED, f"{tp.topic}/{tp.partition}:{offset} was folded before and ends the worker now: {summary(e)}; run the version before, or {snapshots.WAY_OUT}")

    @staticmethod
    def _whole(fetched: Fetched) -> Records:
        """Records of a delivery. A broken batch is never skipped: what it holds is in no other place, and may be thousands of rows."""
        records = split(fetched)
        for batch in records.broken:
            die(BATCH_FAILED, f"{place(fetched.tp, batch)}; mend the log of this partition from another replica, or move the group's offset past it, which loses its rows")
        return records

    # ---- folding

    def position(self, tp: TopicPartition) -> int:
        owned = self.owned.get(tp)
        return -1 if owned is None or owned.broken else owned.position

    async def next(self, fetched: Fetched) -> Fetched | None:
        """A batch may take seconds after a silence: it is folded in slices, between which heartbeats and transactions run, and what was folded is always the position."""
        owned, tp, records, since = self.owned[fetched.tp], fetched.tp, self._whole(fetched), time.monotonic()
        if len(records.offsets) and records.offsets[0] < owned.careful_until:
            await self._try_apart(tp, owned, records)
            if self._is_gone(fetched, owned):
                return None
        for offset, value, appended_ms in records.entries():
            await self._fold(tp, owned, offset, value, appended_ms)
            owned.position = offset + 1
            if time.monotonic() - since >= HOLD_S:
                await self._breathe()
                since = self.hub.alive = time.monotonic()
                if self._is_gone(fetched, owned):
                    return None
        owned.position = records.end
        await self._breathe()
        return records.rest

    def _is_gone(self, fetched: Fetched, owned: Owned) -> bool:
        """Whether the partition was closed or opened again meanwhile."""
        return owned.broken or self.owned.get(fetched.tp) is not owned or self.hub.epochs.get(fetched.tp, fetched.epoch) != fetched.epoch

    async def _try_apart(self, tp: TopicPartition, owned: Owned, records: Records) -> None:
        """Fold these in a copy of the process first; what ends the copy as often as the process may be ended is set aside."""
        steps = {offset: partial(owned.shard.fold, value, appended_ms) for offset, value, appended_ms in records.entries() if owned.failed.get(offset, 0) < TRIES}

        def wanted() -> bool:
            self.hub.alive = time.monotonic()
            return self.owned.get(tp) is owned and not owned.broken

        owned.reasons |= await enders(f"{tp.topic}/{tp.partition}", steps, wanted)
        owned.failed |= dict.fromkeys(owned.reasons, TRIES)

    async def _breathe(self) -> None:
        """Let others run; for a while, if we held the loop for long and a transaction waits for answers."""
        long = time.monotonic() - self._breathed >= HOLD_S and any(owned.lock.locked() for owned in self.owned.values())
        await asyncio.sleep(BREATH_S if long else 0)
        if long:
            self._breathed = time.monotonic()

    async def _fold(self, tp: TopicPartition, owned: Owned, offset: int, value: bytes, appended_ms: int | None) -> None:
        """One record; what has ended the process too often is set aside."""
        if owned.failed.get(offset, 0) >= TRIES and self.hub.settings.worker.on_poison == "skip":
            self._set_aside(tp, owned, offset, value)
            return
        try:
            owned.fold(value, appended_ms)
        except Exception as e:
            await self._count_failure(tp, owned, offset, e)
            raise

    def _set_aside(self, tp: TopicPartition, owned: Owned, offset: int, value: bytes) -> None:
        """Leave a record out. The next transaction has a snapshot, so that no restore folds it either."""
        log.error("%s/%d:%d ended the worker %d times and is set aside; its rows count nowhere", tp.topic, tp.partition, offset, owned.failed[offset])
        why = owned.reasons.get(offset, "its log has the traceback")
        owned.letters.append((value, letter_headers(tp, offset, REASON, f"{owned.failed[offset]} tries to fold it ended the worker: {why}")))
        owned.since_bytes = SNAPSHOT_BYTES
        self.set_aside += 1

    async def _count_failure(self, tp: TopicPartition, owned: Owned, offset: int, error: Exception) -> None:
        """Before the process ends: one more try of this record, for whoever folds it next, at the position that was committed last."""
        owned.broken = True  # half folded: nothing of this state is written
        failures = self.failures
        tries = owned.failed[offset] = owned.failed.get(offset, 0) + 1
        log.error("%s/%d:%d ends the worker, try %d: %s", tp.topic, tp.partition, offset, tries, summary(error))
        await self.tenures.end({tp: owned})
        async with owned.lock:  # a transaction that is under way ends first
            with suppress(Exception):  # then it is not counted
                async with asyncio.timeout(TRANSACTION_S):
                    if self.failures == failures:  # else only reading tells what is committed
                        await self._commit(tp, owned, owned.committed)

    async def _commit(self, tp: TopicPartition, owned: Owned, position: int) -> None:
        metadata = owned.metadata(position)
        if self.transactional:
            await owned.producer.begin_transaction()
            await owned.producer.send_offsets_to_transaction({TopicPartition(*tp): OffsetAndMetadata(position, metadata)}, self.hub.group)
            await owned.producer.commit_transaction()
        else:
            await self.hub.source.commit({tp: (position, metadata)})

    async def _ticker(self) -> None:
        spacing = self.hub.settings.worker.alert_interval_ms / 1e3
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            for tp, owned in list(self.owned.items()):
                urgent = any(o.topic == "alerts" for o in owned.shard.outbox)
                if not owned.lock.locked() and not owned.broken and now - owned.last >= (spacing if urgent else IDLE_S):
                    owned.last = now
                    self.hub.spawn(self._checkpoint(tp, owned))

    # ---- effects

    async def _checkpoint(self, tp: TopicPartition, owned: Owned, *, closing: bool = False) -> None:
        async with owned.lock:
            shard, effects, position = owned.shard, owned.shard.outbox, owned.position
            if owned.broken or self.owned.get(tp) is not owned or (position == owned.committed and not effects and not (closing and owned.since_bytes)):
                return
            try:
                parts = owned.snapshot() if closing or owned.snapshot_due else None
                shard.outbox = []
                async with asyncio.timeout(TRANSACTION_S if self.transactional else 3 * TRANSACTION_S):
                    await (self._transaction if self.transactional else self._plain)(tp, owned, effects, parts, position)
                owned.committed = position
                self.transactions += 1
            except ProducerFenced:
                die(IN_DOUBT, f"fenced: {tp.topic}/{tp.partition} has another owner")
            except BaseException as e:  # a timeout too: it may still be committed, or not; only fencing anew and reading tells
                owned.broken = True
                self.failures += 1
                ours = not isinstance(e, KafkaError | TimeoutError | asyncio.CancelledError)
                log.log(logging.ERROR, "a transaction of %s/%d failed, it is opened again: %r", tp.topic, tp.partition, e, exc_info=ours)
                if not isinstance(e, Exception):
                    raise
                self.hub.reopen(self, tp, PAUSE_S)

    async def _transaction(self, tp: TopicPartition, owned: Owned, effects: list[Out], parts: dict[str, bytes | None] | None, position: int) -> None:
        producer = owned.producer
        await producer.begin_transaction()
        await self._send(tp, owned, effects, parts, position)
        await producer.send_offsets_to_transaction({TopicPartition(*tp): OffsetAndMetadata(position, owned.metadata(position))}, self.hub.group)
        await producer.commit_transaction()

    async def _plain(self, tp: TopicPartition, owned: Owned, effects: list[Out], parts: dict[str, bytes | None] | None, position: int) -> None:
        """Without transactions: effects first, then the position. A crash between the two repeats effects, with the same ids."""
        if parts is not None and not owned.tenured:  # the group refuses this commit of a zombie, and no other writes with the number that it wrote down
            owned.note = msgspec.structs.replace(owned.note, tenure=owned.note.tenure + 1)
            await self.hub.source.commit({tp: (owned.committed, owned.metadata(owned.committed))})
            owned.tenured = True
        await self._send(tp, owned, effects, parts, position)
        await self.hub.source.commit({tp: (position, owned.metadata(position))})

    async def _send(self, tp: TopicPartition, owned: Owned, effects: list[Out], parts: dict[str, bytes | None] | None, position: int) -> None:
        producer = owned.producer
        letters, owned.letters = owned.letters, []
        waiting = [await producer.send(self.hub.topic("dead-letters"), value, headers=headers) for value, headers in letters]
        waiting += [await producer.send(self.hub.topic(e.topic), e.value, key=e.key, headers=LEARNT if e.topic == "baselines" else None) for e in effects]
        if parts is not None:

            async def send(key: bytes, value: bytes | None) -> int:
                record = await producer.send_and_wait(self.hub.topic("snapshots"), value, key=key, partition=tp.partition)
                return int(record.offset)

            config = owned.shard.config
            pointer, owned.stored = await snapshots.write(tp.partition, position, config, parts, owned.stored, owned.note.tenure, send)
            if config != owned.note.config:
                owned.note = msgspec.structs.replace(owned.note, config=config, since=owned.opened, since_ms=time.time_ns() // 1_000_000, anew=in_brief(owned.shard.anew))
            owned.note = msgspec.structs.replace(owned.note, snapshot=pointer)  # if this is not committed the shard is broken, and the note forgotten with it
        await asyncio.gather(*waiting)

    async def flush(self) -> None:
        await asyncio.gather(*(self._checkpoint(tp, owned, closing=True) for tp, owned in self.owned.items()))
        await self.tenures.end(self.owned)
        closing, self.owned = self.owned, {}
        self.parked.update({tp: o for tp, o in closing.items() if not o.broken and o.committed == o.position and not o.shard.outbox})
        for owned in closing.values():
            if owned.broken:
                self._throw_away(owned)
        await asyncio.gather(*(quietly(o.producer.stop()) for o in closing.values() if not o.broken))

    # ---- what is told

    def sources(self) -> list[Iterator[AnySample]]:
        """Samples of every shard that is owned."""
        return [o.shard.samples() for o in self.owned.values() if not o.broken]

    def samples(self) -> Iterator[Sample]:
        """Gauges and counters of this process."""
        yield from self.lost.samples()
        yield Sample("stream_monitor_dead_letters_total", ("observations", REASON), self.set_aside)
        for tp, owned in self.owned.items():
            yield Sample("stream_monitor_log_time_lag_seconds", (tp.topic, str(tp.partition)), max(time.time() - owned.shard.log_time_ms / 1e3, 0.0))


def _settings_before(tp: TopicPartition, manifest: snapshots.Manifest, parts: Mapping[str, bytes]) -> CoreSettings:
    """The configuration that a snapshot was folded with, to go on with it up to the committed position."""
    try:
        return settings_of(parts)
    except StateError as e:
        why = f"{tp.topic}/{tp.partition} was folded with configuration {manifest.config} from {manifest.position} on"
        raise StateError(f"{why}, which this version of stream-monitor cannot repeat: {e}; run the version before and end it by SIGTERM, or {snapshots.WAY_OUT}") from None
