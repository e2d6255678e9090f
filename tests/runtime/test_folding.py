"""
What folding may hold up: a restore must never take longer than opening may, and a long batch must
not keep heartbeats from running. Folding takes virtual time.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.settings import Settings
from stream_monitor.stages.commit_metadata import Note
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.owned import (
    SNAPSHOT_BYTES,
    SNAPSHOT_COSTS,
    SNAPSHOT_CPU_S_MAX,
    SNAPSHOT_CPU_S_MIN,
    Owned,
)
from stream_monitor.stages.snapshots import Manifest
from tests.clock import spend

TP = TopicPartition("observations", 0)
pytestmark = pytest.mark.virtual_time


class FakeShard:
    folding_s, config = 0.0, "c"

    def __init__(self) -> None:
        self.outbox: list[Any] = []
        self.folded = 0

    def fold(self, value: bytes, appended_ms: int | None = None) -> None:
        self.folded += 1
        if self.folding_s:
            spend(self.folding_s)

    def snapshot(self, known: Any) -> dict[str, bytes]:
        return {"state": b"s"}


@pytest.mark.parametrize(
    ("pointer", "since_bytes", "since_cpu_s", "due"),
    [
        (7, 0, 0.0, False),
        (-1, 0, 0.0, True),
        (7, SNAPSHOT_BYTES, 0.0, True),
        (7, 100, SNAPSHOT_CPU_S_MIN, True),
        (7, SNAPSHOT_BYTES - 1, SNAPSHOT_CPU_S_MIN / 2, False),
    ],
)
async def test_a_snapshot_is_due_by_bytes_or_by_what_folding_took(
    pointer, since_bytes, since_cpu_s, due
):
    written: list[bool] = []

    stage = EvaluateStage(Hub(Settings()), 1, {})
    owned = Owned(FakeShard(), SimpleNamespace(), Note(pointer), 10, Manifest())  # type: ignore[arg-type]
    owned.position, owned.since_bytes, owned.since_cpu_s = 20, since_bytes, since_cpu_s
    stage.owned[TP] = owned

    async def write(tp, owned, checkpoint):
        written.append(checkpoint.parts is not None)

    stage.checkpoints.write = write  # type: ignore[method-assign]
    await stage._checkpoint(TP, owned)
    assert written == [due]
    assert owned.committed == 20
    assert not due or (owned.since_bytes, owned.since_cpu_s) == (0, 0.0)


@pytest.mark.parametrize(
    ("making_s", "worth_s"),
    [
        (0.0, SNAPSHOT_CPU_S_MIN),
        (1.0 / SNAPSHOT_COSTS, 1.0),
        (SNAPSHOT_CPU_S_MAX, SNAPSHOT_CPU_S_MAX),
    ],
    ids=["cheap", "in between", "dear"],
)
def test_dear_snapshots_are_made_less_often_but_a_restore_stays_bounded(making_s, worth_s):
    owned = Owned(FakeShard(), SimpleNamespace(), Note(7), 10, Manifest())  # type: ignore[arg-type]
    owned.snapshot_cpu_s = making_s
    owned.since_cpu_s = 0.99 * worth_s
    assert not owned.snapshot_due
    owned.since_cpu_s = worth_s
    assert owned.snapshot_due


async def test_folding_counts_what_a_restore_would_do_again():
    shard = FakeShard()
    shard.folding_s = 0.02
    owned = Owned(shard, SimpleNamespace(), Note(7), 10, Manifest())  # type: ignore[arg-type]
    owned.fold(b"record")
    owned.fold(b"record")
    assert owned.since_bytes == 12
    assert owned.since_cpu_s == pytest.approx(0.04)


def a_batch(records: int) -> Fetched:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for i in range(records):
        builder.append(i, timestamp=0, key=None, value=b"record", headers=[])
    data = builder.build()
    data[:8] = (10).to_bytes(8, "big")  # the base offset
    # and a control record
    return Fetched(TP, 1, 10, 10 + records + 1, [(10, DefaultRecordBatch(bytes(data)))])


async def test_a_transaction_under_way_gets_its_turns_while_a_long_batch_is_folded():
    """
    An answer takes several turns of the loop: with a slice before each, a transaction after a
    silence took longer than its limit, was thrown away, and the silence grew.
    """

    stage, shard, _ = slow()
    other = stage.owned[TP._replace(partition=1)] = Owned(
        FakeShard(),  # type: ignore[arg-type] # a fake
        SimpleNamespace(),
        Note(7),
        0,
        Manifest(),
    )

    async def transaction() -> int:
        async with other.lock:
            for _ in range(60):
                await asyncio.sleep(0)
        return shard.folded

    under_way = asyncio.ensure_future(transaction())
    await asyncio.sleep(0)
    await stage.next(a_batch(20))
    assert await under_way == 2, "what the first slice folded"


def slow() -> tuple[EvaluateStage, FakeShard, Owned]:
    stage, shard = EvaluateStage(Hub(Settings()), 1, {}), FakeShard()
    shard.folding_s = 0.03
    stage.hub.epochs[TP] = 1
    owned = stage.owned[TP] = Owned(shard, SimpleNamespace(), Note(7), 10, Manifest())  # type: ignore[arg-type]
    return stage, shard, owned


async def test_others_run_while_a_long_batch_is_folded():
    """
    Held for longer than the session timeout, a worker that catches up after a silence would be
    thrown out of its group, again and again.
    """

    stage, shard, owned = slow()
    seen = []

    async def heartbeat():
        while shard.folded < 20:  # at the end the position is that of the batch
            seen.append(owned.position - shard.folded)
            await asyncio.sleep(0.01)

    beat = asyncio.create_task(heartbeat())
    await asyncio.sleep(0)
    await stage.next(a_batch(20))
    beat.cancel()
    assert shard.folded == 20
    assert owned.position == 31  # the end of the batch, control record included
    assert len(seen) >= 3, "it takes two turns, and each slice is one"
    assert set(seen) == {10}, "what was folded is the position, whenever one looks"


@pytest.mark.parametrize("change", ["closed", "opened again", "broken"])
async def test_a_batch_whose_partition_goes_meanwhile_is_left(change):
    stage, shard, owned = slow()

    async def meanwhile():
        if change == "closed":
            stage.parked[TP] = stage.owned.pop(TP)
        elif change == "broken":
            owned.broken = True
        else:
            stage.hub.epochs[TP] += 1

    task = asyncio.create_task(meanwhile())
    await stage.next(a_batch(20))
    await task
    assert shard.folded == 2, "the first slice"
    assert owned.position == 10 + shard.folded
