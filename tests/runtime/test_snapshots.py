"""What a snapshot leaves on the compacted topic, and what a restore finds there and on the log."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from stream_monitor.errors import StateError
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import tick
from stream_monitor.kafka.deliveries import Broken
from stream_monitor.stages import snapshots
from stream_monitor.stages.commit_metadata import Note, read_note
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.owned import SNAPSHOT_BYTES, Owned
from tests.runtime.died import DiedError
from tests.runtime.fake_kafka import FakeKafka, FakeProducer, FakeReader

pytestmark = pytest.mark.virtual_time
LOG, SNAPSHOTS = TopicPartition("observations", 0), TopicPartition("snapshots", 0)
T0 = 1_760_000_000_000
LARGE = b"x" * (2 * snapshots.CHUNK_BYTES + 1)


class FakeShard:
    """A shard that is only what it is told to be."""

    config = "c"
    anew: tuple[str, ...] = ()

    def __init__(self, **parts: bytes) -> None:
        self.parts = parts
        self.outbox: list[object] = []

    def snapshot(self, known: Container[str] = ()) -> dict[str, bytes | None]:
        return {name: None if name in known else data for name, data in self.parts.items()}


class Site:
    """One partition and its snapshots, one after another."""

    def __init__(self) -> None:
        self.kafka = FakeKafka()
        self.kafka.mine = {LOG}
        self.stage = self.kafka.stage()
        shard: Any = FakeShard()
        self.owned: Any = Owned(shard, FakeProducer(self.kafka), Note(), 0, snapshots.Manifest())
        self.stage.owned[LOG] = self.owned

    async def write(self, **parts: bytes) -> list[tuple[str, bool]]:
        """A transaction with a snapshot; the keys that were sent, and whether they have a value."""
        start = self.kafka.ends[SNAPSHOTS]
        self.owned.shard = FakeShard(
            **{name.replace("_", "-"): data for name, data in parts.items()}
        )
        self.owned.since_bytes = SNAPSHOT_BYTES
        self.owned.position += 1
        await self.stage._checkpoint(LOG, self.owned)
        assert not self.owned.broken
        return [
            ((r.key or b"").decode(), r.value is not None)
            for o, r in sorted(self.kafka.logs[SNAPSHOTS].items())
            if o >= start
        ]

    async def read(self) -> dict[str, bytes]:
        pointer = read_note(LOG, self.kafka.offsets[LOG][1])[0].snapshot
        return (await snapshots.read(FakeReader(self.kafka), SNAPSHOTS, pointer))[1]  # type: ignore[arg-type]


def keys(*parts: tuple[str, int], slot: int, there: bool = True) -> list[tuple[str, bool]]:
    return [(f"0/{slot}/{name}/{i}", there) for name, chunks in parts for i in range(chunks)]


async def test_what_no_snapshot_holds_any_more_gets_a_tombstone():
    site = Site()
    assert await site.write(slab_p_0=b"0", slab_p_1=LARGE, state=LARGE) == [
        *keys(("slab-p-0", 1), ("slab-p-1", 3), ("state", 3), slot=1),
        ("0/1/manifest", True),
    ]
    assert await site.write(slab_p_1=LARGE, state=LARGE) == [
        *keys(("state", 3), slot=0),
        ("0/0/manifest", True),
    ], "of the one before nothing is touched"
    third = await site.write(slab_p_2=b"2", state=b"small")
    assert [key for key, there in third if not there] == [
        "0/1/slab-p-0/0",
        "0/1/state/1",
        "0/1/state/2",
    ]
    fourth = await site.write(slab_p_2=b"2", state=b"small")
    assert [key for key, there in fourth if not there] == [
        "0/1/slab-p-1/0",
        "0/1/slab-p-1/1",
        "0/1/slab-p-1/2",
        "0/0/state/1",
        "0/0/state/2",
    ]
    assert await site.read() == {"slab-p-2": b"2", "state": b"small"}
    site.kafka.compact(SNAPSHOTS)
    assert len(site.kafka.logs[SNAPSHOTS]) == 5, (
        "a compacted topic holds two states with their manifests, and a slab"
    )
    assert await site.read() == {"slab-p-2": b"2", "state": b"small"}


async def test_until_a_snapshot_is_committed_compaction_takes_nothing_from_the_one_before():
    site = Site()
    for _ in range(2):
        await site.write(slab_p_0=b"0", slab_p_1=b"1", state=LARGE)
    before, stored = site.kafka.offsets[LOG], site.owned.stored
    for _ in range(2):
        # without transactions: written, and the process ends before the pointer is committed
        site.owned.stored = stored
        await site.write(slab_p_1=b"1", state=b"small")
        site.kafka.offsets[LOG] = before
        site.kafka.compact(SNAPSHOTS)
        assert await site.read() == {"slab-p-0": b"0", "slab-p-1": b"1", "state": LARGE}


async def test_a_worker_that_restored_writes_them_too():
    """For what it found in the manifest, though it wrote none of it."""

    kafka = FakeKafka()
    kafka.mine = {LOG}
    for i in range(4):
        kafka.append(LOG, tick(T0 + i * 1_000))

    async def run(stage: EvaluateStage, until: int) -> None:
        await stage.open([LOG])
        while stage.owned[LOG].position < until:
            stage.owned[LOG].fold(tick(T0))
            stage.owned[LOG].position += 1
        await stage.flush()

    await run(kafka.stage(), 2)
    chunks = {
        name: snapshots.Part(1, [snapshots.Chunk(0, 0)] * n)
        for name, n in (("slab-labels-000000007", 2), ("state", 3))
    }
    stage = kafka.stage()
    await stage.open([LOG])
    stage.owned[LOG].stored.parts |= chunks
    stage.owned[LOG].fold(tick(T0))
    stage.owned[LOG].position = 3
    await stage.flush()
    await run(kafka.stage(), 4)
    tombstones = sorted(r.key or b"" for r in kafka.logs[SNAPSHOTS].values() if r.value is None)
    assert tombstones == [
        b"0/1/slab-labels-000000007/0",
        b"0/1/slab-labels-000000007/1",
        b"0/1/state/1",
        b"0/1/state/2",
    ]
    kafka.compact(SNAPSHOTS)
    await run(kafka.stage(), 4)


async def test_without_transactions_a_zombie_overwrites_nothing_of_the_snapshots_of_the_new_owner(
    monkeypatch,
):
    """Its own commits are refused, but nothing fences what it still writes."""

    kafka = FakeKafka()
    kafka.mine = {LOG}
    for i in range(4):
        kafka.append(LOG, tick(T0 + i * 1_000))

    async def opened() -> EvaluateStage:
        stage = kafka.stage(processing_guarantee="at_least_once")
        await stage.open([LOG])
        return stage

    async def checkpoint(stage: EvaluateStage, position: int) -> None:
        owned = stage.owned[LOG]
        owned.fold(tick(T0))
        owned.position, owned.since_bytes = position, SNAPSHOT_BYTES
        await stage._checkpoint(LOG, owned)

    async def refused(_: object) -> None:
        raise CommitFailedError

    zombie = await opened()
    await checkpoint(zombie, 1)
    never = await opened()  # it has not written yet, and is a zombie then as well
    owner = await opened()
    await checkpoint(owner, 2)
    before = kafka.ends[SNAPSHOTS]
    with monkeypatch.context() as patched:
        patched.setattr(kafka, "commit", refused)
        await checkpoint(zombie, 3)
        assert kafka.ends[SNAPSHOTS] > before, "it wrote"
        await checkpoint(never, 3)
    assert zombie.owned[LOG].broken
    assert never.owned[LOG].broken
    kafka.compact(SNAPSHOTS)
    for stage in (owner, await opened()):
        await checkpoint(stage, 4)
        kafka.compact(SNAPSHOTS)
    assert (await opened()).owned[LOG].position == 4


async def committed_behind_its_snapshot(last: bytes | None) -> FakeKafka:
    kafka = FakeKafka()
    kafka.mine = {LOG}
    for value in (tick(T0), tick(T0 + 1_000), last, tick(T0 + 3_000)):
        kafka.append(LOG, value)
    stage = kafka.stage()
    await stage.open([LOG])
    for position in (1, 4):
        stage.owned[LOG].fold(tick(T0))
        stage.owned[LOG].position = position
        await stage._checkpoint(LOG, stage.owned[LOG])
    assert kafka.offsets[LOG][0] == 4
    return kafka


async def test_a_broken_batch_in_a_restore_ends_the_worker_as_in_the_flow(died):
    kafka = await committed_behind_its_snapshot(tick(T0))
    kafka.broken[LOG, 2] = Broken(2, 3, "corrupt_batch", "the checksum of the batch is wrong")
    with pytest.raises(DiedError):
        await kafka.stage().open([LOG])
    assert kafka.offsets[LOG][0] == 4
    assert died[0].startswith(
        "73: observations/0: the batch of records 2 to 2 cannot be read: the checksum of the "
        "batch is wrong; mend the log"
    )


async def test_a_record_that_cannot_be_folded_again_ends_the_worker_and_names_it(died, monkeypatch):
    kafka = await committed_behind_its_snapshot(tick(T0 + 2_000))
    fold = Shard.fold

    def folding(self: Shard, record: bytes, appended_ms: int | None = None) -> None:
        if record == tick(T0 + 2_000):
            raise ZeroDivisionError("new")
        fold(self, record, appended_ms)

    monkeypatch.setattr(Shard, "fold", folding)
    with pytest.raises(DiedError):
        await kafka.stage().open([LOG])
    assert died[0].startswith(
        "73: observations/0:2 was processed before and now crashes the worker: "
        "ZeroDivisionError: new (test_snapshots.py"
    )
    assert "run the previous version" in died[0]


async def test_a_tombstone_on_the_log_is_passed_over_in_a_restore_as_in_the_flow():
    kafka = await committed_behind_its_snapshot(None)
    assert await kafka.stage().open([LOG]) == {LOG: 4}


async def test_a_snapshot_with_a_chunk_that_is_gone_or_changed_is_refused():
    for change in ("gone", "changed"):
        kafka = await committed_behind_its_snapshot(tick(T0))
        state = next(r for r in kafka.logs[SNAPSHOTS].values() if r.key == b"0/1/state/0")
        if change == "gone":
            del kafka.logs[SNAPSHOTS][state.offset]
        else:
            kafka.logs[SNAPSHOTS][state.offset] = state._replace(
                value=b"y" + (state.value or b"")[1:]
            )
        with pytest.raises(StateError, match=r"is gone|is broken"):
            await kafka.stage().open([LOG])


async def test_state_of_another_form_is_told_with_a_way_out(monkeypatch):
    """Of a version of between two releases: the schema is ours, and a part of it is not."""

    kafka = FakeKafka()
    kafka.mine = {LOG}
    kafka.append(LOG, tick(T0))
    stage = kafka.stage()
    await stage.open([LOG])
    owned = stage.owned[LOG]
    owned.fold(tick(T0))
    owned.position = 1
    state = owned.shard.snapshot()
    lacking = msgspec.msgpack.decode(state["state"] or b"")
    del lacking["registry"]
    monkeypatch.setattr(
        owned, "snapshot", lambda: state | {"state": msgspec.msgpack.encode(lacking)}
    )
    await stage._checkpoint(LOG, owned)
    with pytest.raises(
        StateError, match=r"observations/0 cannot be read .*registry.*delete the group's offset"
    ):
        await kafka.stage().open([LOG])
