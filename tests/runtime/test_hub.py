"""
The order of opening, holes, and what happens when a broker is away: the hub with a fake driver and
a fake stage, in virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError

from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.settings import Settings
from stream_monitor.stages import transport
from stream_monitor.stages.hub import HOLES_S, Hub, bounds_of
from tests.runtime.died import DiedError

TP = TopicPartition("observations", 0)
pytestmark = pytest.mark.virtual_time


class FakeSource:
    def __init__(self, hub: Hub) -> None:
        self.hub, self.heard = hub, True
        self.mine = {TP}

    async def seek(self, positions: dict[TopicPartition, int]) -> None:
        for tp in positions:
            self.hub.epochs[tp] = self.hub.epochs.get(tp, 0) + 1

    def assigned(self) -> set[TopicPartition]:
        return self.mine

    def flowing(self) -> bool:
        return True

    def attended(self) -> bool:
        return self.heard


class FakeStage:
    topics = frozenset({"observations"})

    def __init__(self) -> None:
        self.at, self.opened = 0, 0
        self.failures: list[Exception] = []
        self.taken: list[int] = []

    async def start(self) -> None: ...

    async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        self.opened += 1
        if self.failures:
            raise self.failures.pop(0)
        self.at = 0
        return dict.fromkeys(tps, 0)

    async def next(self, fetched: Fetched) -> None:
        self.taken.append(fetched.end)
        self.at = fetched.end

    def position(self, tp: TopicPartition) -> int:
        return self.at

    async def flush(self) -> None: ...


def opened() -> tuple[Hub, FakeStage, FakeSource]:
    hub = Hub(Settings())
    hub.source, stage = FakeSource(hub), FakeStage()  # type: ignore[assignment]
    hub.stages = [stage]
    return hub, stage, hub.source  # type: ignore[return-value]


def batch(hub: Hub, start: int | None, end: int) -> Fetched:
    return Fetched(TP, hub.epochs[TP], start, end, [])


async def test_a_batch_is_taken_only_where_the_last_one_ended(died):
    hub, stage, _source = opened()
    await hub.open({TP})
    stale = batch(hub, 0, 10)
    await hub.deliver(stage, batch(hub, 0, 10))
    await hub.deliver(stage, batch(hub, 20, 30))  # a hole
    # right, but what is delivered until it is opened again is dropped
    await hub.deliver(stage, batch(hub, 10, 20))
    assert hub.trouble() == "being reopened: observations/0"
    await asyncio.sleep(0.01)
    await hub.deliver(stage, stale._replace(start=0))
    assert (stage.taken, stage.opened, hub.trouble()) == ([10], 2, "")


async def test_a_batch_that_fails_ends_the_process_after_the_other_stage_has_flushed(died):
    """INGEST would otherwise write the rows that end EVALUATE again after each end."""

    class Failing(FakeStage):
        async def next(self, fetched: Fetched) -> None:
            raise ValueError("bad")

        async def flush(self) -> None:
            raise AssertionError("half applied")

    class Other(FakeStage):
        topics = frozenset({"predictions"})
        flushed = 0

        async def flush(self) -> None:
            assert died == []
            self.flushed += 1

    hub, _, _ = opened()
    failing, other = Failing(), Other()
    hub.stages = [other, failing]
    await hub.open({TP})
    with pytest.raises(DiedError):
        await hub.deliver(failing, batch(hub, 0, 10))
    assert other.flushed == 1
    assert died[0].startswith("73: processing a batch of observations/0 failed")


@pytest.mark.parametrize("start", [None, 5])
async def test_what_is_out_of_range_is_a_hole(died, start):
    hub, stage, _source = opened()
    await hub.open({TP})
    await hub.deliver(stage, batch(hub, start, 5))
    await asyncio.sleep(0.01)
    assert (stage.taken, stage.opened) == ([], 2)


async def test_a_failed_transaction_is_not_opened_again_before_its_pause_however_much_is_delivered(
    died,
):
    """
    Else a zombie that was just woken would fence the new owner with its next batch, before a
    heartbeat tells it.
    """
    hub, stage, source = opened()
    await hub.open({TP})
    stage.at = -1
    hub.reopen(stage, TP, 10)
    await hub.deliver(stage, batch(hub, 0, 10))
    await asyncio.sleep(9.9)
    await hub.deliver(stage, batch(hub, 10, 20))
    assert stage.opened == 1
    source.mine = set()  # the heartbeat
    await asyncio.sleep(60)
    assert (stage.opened, stage.taken) == (1, [])


async def test_opening_waits_for_a_broker_that_is_away(died):
    hub, stage, _source = opened()
    stage.failures = [KafkaConnectionError("away"), TimeoutError()]
    await hub.open({TP})
    assert (stage.opened, hub.opened) == (3, {TP})
    stage.failures = [OSError("away"), KafkaConnectionError("away")]
    hub.reopen(stage, TP)  # at once, after one second, and two seconds later
    await asyncio.sleep(2.9)
    assert (stage.opened, hub.trouble()) == (5, "being reopened: observations/0")
    await asyncio.sleep(0.2)
    assert (stage.opened, hub.trouble(), died) == (6, "", [])


async def test_opening_waits_where_aiokafka_wraps_a_broker_that_is_away_in_an_error_that_says_less(
    died,
):
    """The coordinator of transactions is looked for at a broker that dies meanwhile."""
    wrapped = KafkaError("KafkaConnectionError('Connection at 127.0.0.1:9092 closed')")
    wrapped.__cause__ = KafkaConnectionError("closed")

    hub, stage, _source = opened()
    stage.failures = [wrapped]
    await hub.open({TP})
    assert (stage.opened, hub.opened) == (2, {TP})
    stage.failures = [KafkaError("no cause")]
    with pytest.raises(DiedError):
        await hub.open({TP})


async def test_a_partition_is_not_opened_again_before_a_heartbeat_is_answered(died):
    """
    The group's coordinator moves with a broker that hangs: who was not heard for a session may own
    it no more, and would fence the new owner.
    """
    hub, stage, source = opened()
    await hub.open({TP})
    source.heard = False
    hub.reopen(stage, TP)
    await asyncio.sleep(3_600)
    assert stage.opened == 1
    source.heard = True
    await asyncio.sleep(1)
    assert (stage.opened, hub.trouble()) == (2, "")


async def test_what_is_being_opened_again_is_let_go_with_the_partitions(died):
    """Else it would be owned although it was given away, and end the process as a zombie."""

    class Slow(FakeStage):
        owned = 0

        async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
            found = await super().open(tps)
            if self.opened > 1:
                await asyncio.sleep(10)
            self.owned += 1
            return found

    hub, _, _ = opened()
    stage = Slow()
    hub.stages = [stage]
    await hub.open({TP})
    hub.reopen(stage, TP)
    await asyncio.sleep(5)
    await hub.flush()
    await asyncio.sleep(60)
    assert (stage.opened, stage.owned) == (2, 1)
    await hub.open({TP})
    assert (stage.owned, hub.trouble()) == (2, "")


async def test_several_partitions_are_opened_again_at_once(died):
    """
    After a broker has died: each may have to wait 10 s for an answer, and would hold up the next.
    """
    both = {TP, TP._replace(partition=1)}

    class Waiting(FakeStage):
        async def open(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
            found = await super().open(tps)
            if self.opened > 1:
                await asyncio.sleep(10)
            return found

    hub, _, source = opened()
    source.mine = both
    stage = Waiting()
    hub.stages = [stage]
    await hub.open(both)
    for tp in both:
        hub.reopen(stage, tp)
    await asyncio.sleep(9.9)
    assert (stage.opened, hub.trouble()) == (
        3,
        "being reopened: observations/0, observations/1",
    )
    await asyncio.sleep(0.2)
    assert hub.trouble() == ""


@pytest.mark.parametrize(
    ("ends", "end", "asked"), [([90, 90, 100], 100, 3), ([90] * 9, 90, 4), ([100], 100, 1)]
)
async def test_an_end_before_our_position_is_asked_for_again(ends, end, asked):
    """
    A leader that was stopped for long answers as it was, until it hears that it no longer leads; a
    log that was cut stays so.
    """

    class Source:
        asked = 0

        async def bounds(
            self, tps: Collection[TopicPartition]
        ) -> dict[TopicPartition, tuple[int, int]]:
            self.asked += 1
            return dict.fromkeys(tps, (0, ends[self.asked - 1]))

    source = Source()
    found = await bounds_of(source, {TP: 95})  # type: ignore[arg-type]
    assert (found, source.asked) == ({TP: (0, end)}, asked)


async def test_opening_ends_the_process_when_trying_again_cannot_help(died):
    hub, stage, _source = opened()
    stage.failures = [TopicAuthorizationFailedError("observations")]
    with pytest.raises(DiedError):
        await hub.open({TP})
    assert died[0].startswith("71: cannot open observations/0: ")


async def test_not_ready_without_heartbeats(died):
    hub, _, source = opened()
    assert hub.trouble() == "no partition is open yet"
    await hub.open({TP})
    assert hub.trouble() == ""
    source.heard = False
    assert hub.trouble() == "the group coordinator does not answer heartbeats"


async def test_what_is_raised_in_a_callback_of_the_group_ends_the_process(died):
    """aiokafka logs it and goes on consuming, with partitions that nobody opened."""

    class Broken:
        async def on_partitions_revoked(self, revoked: Any, generation_id: int = 0) -> None:
            raise RuntimeError("no")

        on_partitions_assigned = on_partitions_revoked

    thread = transport.Thread.__new__(transport.Thread)
    thread.consumer, thread.app = Broken(), SimpleNamespace(should_stop=False)
    for callback in (thread.on_partitions_revoked, thread.on_partitions_assigned):
        with pytest.raises(DiedError):
            await callback({TP})
    assert died == [
        "71: cannot release partitions: RuntimeError('no')",
        "71: cannot take partitions: RuntimeError('no')",
    ]


async def test_a_rebalance_while_we_stop_waits_until_all_is_flushed_and_the_group_is_left():
    """
    Faust closes the connections in it: what is still being committed would be tried without end,
    and the process would end as one that cannot stop.
    """
    order: list[str] = []

    class Closing:
        async def on_partitions_revoked(self, revoked: Any) -> None:
            order.append("closed")

    async def leave() -> None:
        order.append("left")

    thread = transport.Thread.__new__(transport.Thread)
    thread.consumer, thread.app, thread._stopped = (
        Closing(),
        SimpleNamespace(should_stop=True),
        asyncio.Event(),
    )
    thread._consumer = SimpleNamespace(_coordinator=SimpleNamespace(_maybe_leave_group=leave))
    revoking = asyncio.ensure_future(thread.on_partitions_revoked({TP}))
    await asyncio.sleep(60)
    order.append("flushed")
    thread._stopped.set()
    await revoking
    assert order == ["flushed", "left", "closed"]


@pytest.mark.parametrize("case", ["lost", "on its way", "still taken", "nothing fetched"])
async def test_a_batch_that_is_lost_is_noticed_where_no_other_follows(died, monkeypatch, case):
    hub, stage, _ = opened()
    hub.opened, hub.epochs[TP], stage.at = {TP}, 1, 10
    ends = {"nothing fetched": iter([10] * 1000), "on its way": iter(range(11, 1000))}.get(case)
    monkeypatch.setattr(
        FakeSource, "fetched", lambda _, tp: 12 if ends is None else next(ends), raising=False
    )
    if case == "still taken":
        hub._delivering.add(stage)
    hub.spawn(hub._watch_holes())
    await asyncio.sleep(2 * HOLES_S - 0.1)
    assert stage.opened == 0, "the first look tells nothing"
    await asyncio.sleep(60)
    hub.stop()
    assert (stage.opened > 0) == (case == "lost")


async def test_a_start_and_each_step_of_a_rebalance_are_progress(died):
    """
    The watchdog ended workers that took long to start, and those whose group went through several
    rebalances in a row.
    """
    hub, _, source = opened()
    hub.alive, hub.stopping = 0.0, True
    await hub.start(source)  # type: ignore[arg-type]
    steps = [hub.alive]
    for step in (hub.open({TP}), hub.flush()):
        hub.alive = 0.0
        await step
        steps.append(hub.alive)
    assert all(steps)
