"""
EVALUATE with Kafka around it: ownership of partitions, and the pure `Shard` of each.

Rule of the file: fence first, then read the committed position, then restore (`restoring`), then
seek. Effects and the position become durable together (`checkpoints`). After any timeout or unknown
error producer and state are discarded and the partition is opened again, because only reading shows
what was committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.deliveries import Fetched, Records
from stream_monitor.kafka.patience import quietly
from stream_monitor.metrics.samples import AnySample, Sample
from stream_monitor.stages.checkpoints import TRANSACTION_S, Checkpoint, Checkpoints
from stream_monitor.stages.exits import IN_DOUBT, die
from stream_monitor.stages.forks import enders
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.memory import give_back
from stream_monitor.stages.owned import SNAPSHOT_BYTES, Owned
from stream_monitor.stages.poison import REASON, TRIES, letter_headers, summary
from stream_monitor.stages.restoring import Restoring, whole
from stream_monitor.stages.tenures import Tenures

log = logging.getLogger("stream_monitor")
URGENT = frozenset({"alerts", "lifecycle"})
"""Topics whose records must not wait: alerts, and verdicts of experiments."""
IDLE_S = 2.0
"""Time between transactions while nothing urgent waits, s."""
HOLD_S = 0.05
"""The longest time that folding blocks the event loop, s; a single record may take longer."""
BREATH_S = 0.01
"""
Pause after such a slice while a transaction runs, s. Each answer of the transaction takes several
turns of the loop; with a slice before each turn it would not end in time.
"""
TRANSACTION_TIMEOUT_MS = 10_000
PAUSE_S = 3
"""
Pause after a failed transaction, s. It is longer than two heartbeats, in which a zombie learns that
it is one.
"""


class EvaluateStage:
    """Owns the state of all partitions of `observations` that are assigned to this worker."""

    def __init__(self, hub: Hub, targets: int, baselines: Mapping[str, bytes]) -> None:
        self.hub = hub
        self.topics = frozenset({hub.topic("observations")})
        self.owned: dict[TopicPartition, Owned] = {}
        self.parked: dict[TopicPartition, Owned] = {}
        self.transactions = self.failures = 0
        self.tenures = Tenures(hub)
        self.restoring = Restoring(hub, targets, dict(baselines), self.tenures)
        self.checkpoints = Checkpoints(hub)
        self.set_aside = 0
        self._breathed = 0.0

    async def start(self) -> None:
        self.hub.spawn(self._ticker())

    # ---- opening

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        assigned = self.hub.source.assigned()
        self.parked = {tp: o for tp, o in self.parked.items() if tp in assigned}
        for tp in set(self.owned) - assigned:
            self._throw_away(self.owned.pop(tp))
        positions = dict(await asyncio.gather(*(self._open_one(tp) for tp in tps)))
        if self.restoring.restored:
            self.restoring.restored = False
            give_back()
        await self.tenures.write(
            {tp: owned for tp, owned in self.owned.items() if tp in positions and owned.begun}
        )
        return positions

    async def _open_one(self, tp: TopicPartition) -> tuple[TopicPartition, int]:
        before = self.owned.pop(tp, None)
        if before is not None:
            self._throw_away(before)
        parked = self.parked.pop(tp, None)
        producer = self._producer(tp)
        try:
            # 1 fence: ends the open transaction of a former owner, so the next reads are final
            await producer.start()
            # 2 the position; its metadata says where the last snapshot is
            found = await self.restoring.committed(tp)
            position = found.position
            if parked is not None and (parked.position, parked.note) == (
                position,
                found.note,
            ):
                # 3 nobody moved the position: the state in memory is the fold up to there
                parked.producer, parked.broken = producer, False
                owned = parked
            else:
                owned = await self.restoring.restore(tp, found, producer)
        except BaseException:  # also if cancelled (another rebalance): nothing stays half open
            self.hub.spawn(quietly(producer.stop()))
            raise
        self.tenures.begin(tp, owned, found, before)
        self.owned[tp] = owned
        return tp, position  # 4 the driver seeks

    def _throw_away(self, owned: Owned) -> None:
        """
        Discard the state of a partition. Nobody waits for a producer whose transaction is in doubt:
        it would try for seconds to finish a transaction that is fenced by then.
        """
        self.hub.spawn(quietly(owned.producer.stop()))

    def _producer(self, tp: TopicPartition) -> AIOKafkaProducer:
        options: dict[str, Any] = {
            **client_options(self.hub.settings.kafka),
            "compression_type": "zstd",
            "max_request_size": 4 << 20,
        }
        if self.checkpoints.transactional:
            options |= {
                "transactional_id": f"{self.hub.group}.{tp.topic}.{tp.partition}",
                "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
            }
        else:
            options["enable_idempotence"] = True
        return AIOKafkaProducer(**options)

    # ---- folding

    def position(self, tp: TopicPartition) -> int:
        owned = self.owned.get(tp)
        return -1 if owned is None or owned.broken else owned.position

    async def next(self, fetched: Fetched) -> Fetched | None:
        """
        Fold the records of a delivery. After a silence a batch may take seconds, so it is folded in
        slices; heartbeats and transactions run between them. The position is always the end of what
        was folded.
        """
        owned, tp, records, since = (
            self.owned[fetched.tp],
            fetched.tp,
            whole(fetched),
            time.monotonic(),
        )
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
        """Whether the partition was closed, or opened again, meanwhile."""
        return (
            owned.broken
            or self.owned.get(fetched.tp) is not owned
            or self.hub.epochs.get(fetched.tp, fetched.epoch) != fetched.epoch
        )

    async def _try_apart(self, tp: TopicPartition, owned: Owned, records: Records) -> None:
        """
        Fold these records in a fork of the process first. A record that ends the fork `TRIES` times
        is set aside.
        """
        steps = {
            offset: partial(owned.shard.fold, value, appended_ms)
            for offset, value, appended_ms in records.entries()
            if owned.failed.get(offset, 0) < TRIES
        }

        def wanted() -> bool:
            self.hub.alive = time.monotonic()
            return self.owned.get(tp) is owned and not owned.broken

        owned.reasons |= await enders(f"{tp.topic}/{tp.partition}", steps, wanted)
        owned.failed |= dict.fromkeys(owned.reasons, TRIES)

    async def _breathe(self) -> None:
        """
        Let other tasks run. If this stage blocked the loop for long and a transaction waits for
        answers, pause for a while.
        """
        long = time.monotonic() - self._breathed >= HOLD_S and any(
            owned.lock.locked() for owned in self.owned.values()
        )
        await asyncio.sleep(BREATH_S if long else 0)
        if long:
            self._breathed = time.monotonic()

    async def _fold(
        self, tp: TopicPartition, owned: Owned, offset: int, value: bytes, appended_ms: int | None
    ) -> None:
        """Fold one record, unless it has ended the process too often; then set it aside."""
        if owned.failed.get(offset, 0) >= TRIES and self.hub.settings.worker.on_poison == "skip":
            self._set_aside(tp, owned, offset, value)
            return
        try:
            owned.fold(value, appended_ms)
        except Exception as e:
            await self._count_failure(tp, owned, offset, e)
            raise

    def _set_aside(self, tp: TopicPartition, owned: Owned, offset: int, value: bytes) -> None:
        """
        Leave a record out.

        The next transaction has a snapshot, so that no restore folds the record either.
        """
        log.error(
            "%s/%d@%d crashed the worker %d times; moved to dead-letters, its rows are not counted",
            tp.topic,
            tp.partition,
            offset,
            owned.failed[offset],
        )
        why = owned.reasons.get(offset, "see the worker's log for the traceback")
        owned.letters.append(
            (
                value,
                letter_headers(
                    tp,
                    offset,
                    REASON,
                    f"{owned.failed[offset]} attempts to process it crashed the worker: {why}",
                ),
            )
        )
        owned.since_bytes = SNAPSHOT_BYTES
        self.set_aside += 1

    async def _count_failure(
        self, tp: TopicPartition, owned: Owned, offset: int, error: Exception
    ) -> None:
        """
        Count one more failed try of a record in the last committed position, before the process
        ends. The next owner of the partition reads the count.
        """
        owned.broken = True  # half folded: this state must not be written
        failures = self.failures
        tries = owned.failed[offset] = owned.failed.get(offset, 0) + 1
        log.error(
            "%s/%d@%d crashes the worker (attempt %d): %s",
            tp.topic,
            tp.partition,
            offset,
            tries,
            summary(error),
        )
        await self.tenures.end({tp: owned})
        async with owned.lock:  # a running transaction ends first
            with suppress(Exception):  # the failure is then not counted
                async with asyncio.timeout(TRANSACTION_S):
                    if self.failures == failures:  # otherwise only reading shows what is committed
                        await self.checkpoints.commit(tp, owned, owned.committed)

    async def _ticker(self) -> None:
        spacing = self.hub.settings.worker.alert_interval_ms / 1e3
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            for tp, owned in list(self.owned.items()):
                urgent = any(o.topic in URGENT for o in owned.shard.outbox)
                if (
                    not owned.lock.locked()
                    and not owned.broken
                    and now - owned.last >= (spacing if urgent else IDLE_S)
                ):
                    owned.last = now
                    self.hub.spawn(self._checkpoint(tp, owned))

    # ---- effects

    async def _checkpoint(self, tp: TopicPartition, owned: Owned, *, closing: bool = False) -> None:
        async with owned.lock:
            shard, effects, position = owned.shard, owned.shard.outbox, owned.position
            if (
                owned.broken
                or self.owned.get(tp) is not owned
                or (
                    position == owned.committed
                    and not effects
                    and not (closing and owned.since_bytes)
                )
            ):
                return
            try:
                parts = owned.snapshot() if closing or owned.snapshot_due else None
                shard.outbox = []
                await self.checkpoints.write(tp, owned, Checkpoint(position, effects, parts))
                owned.committed = position
                self.transactions += 1
            except ProducerFenced:
                die(IN_DOUBT, f"fenced: another worker owns {tp.topic}/{tp.partition}")
            # also a timeout: only fencing again and reading shows whether it was committed
            except BaseException as e:
                owned.broken = True
                self.failures += 1
                ours = not isinstance(e, KafkaError | TimeoutError | asyncio.CancelledError)
                log.log(
                    logging.ERROR,
                    "transaction for %s/%d failed; reopening the partition: %r",
                    tp.topic,
                    tp.partition,
                    e,
                    exc_info=ours,
                )
                if not isinstance(e, Exception):
                    raise
                self.hub.reopen(self, tp, PAUSE_S)

    async def flush(self) -> None:
        await asyncio.gather(
            *(self._checkpoint(tp, owned, closing=True) for tp, owned in self.owned.items())
        )
        await self.tenures.end(self.owned)
        closing, self.owned = self.owned, {}
        self.parked.update(
            {
                tp: o
                for tp, o in closing.items()
                if not o.broken and o.committed == o.position and not o.shard.outbox
            }
        )
        for owned in closing.values():
            if owned.broken:
                self._throw_away(owned)
        await asyncio.gather(
            *(quietly(o.producer.stop()) for o in closing.values() if not o.broken)
        )

    # ---- samples

    def sources(self) -> list[Iterator[AnySample]]:
        """Samples of every shard that this worker owns."""
        return [o.shard.samples() for o in self.owned.values() if not o.broken]

    def samples(self) -> Iterator[Sample]:
        """Gauges and counters of this process."""
        yield from self.restoring.lost.samples()
        yield Sample("stream_monitor_dead_letters_total", ("observations", REASON), self.set_aside)
        for tp, owned in self.owned.items():
            yield Sample(
                "stream_monitor_log_time_lag_seconds",
                (tp.topic, str(tp.partition)),
                max(time.time() - owned.shard.log_time_ms / 1e3, 0.0),
            )
