"""
Ends of the process that raise nothing: a crash in native code, an endless loop, a kill.

The process of a test stands for the workers: where one would crash, it raises what nobody catches;
a copy of it crashes for real.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import Settings, WorkerSettings
from stream_monitor.stages import forks
from stream_monitor.stages.commit_metadata import Note, read_note
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.forks import EndedError, Limits, apart, culprits
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.owned import Committed, Owned
from stream_monitor.stages.poison import CAREFUL_RECORDS, parted
from stream_monitor.stages.snapshots import Manifest
from tests.runtime.died import DiedError
from tests.runtime.fake_kafka import FakeKafka
from tests.runtime.test_poison import (
    BAD,
    LOG,
    TP,
    FakeDriver,
    FakeProducer,
    FakeShard,
    delivery,
    event,
    run,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="copies of the process are made on Linux only"
)
TESTS = os.getpid()
MARK = TopicPartition("snapshots", 0)
T0_MS = 1_760_000_000_000
"""Of the records that the driver of test_poison.py hands over."""


def crash() -> None:
    if os.getpid() == TESTS:
        raise DiedError
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Ingest.take

    def crashes(
        self: Ingest,
        source: str,
        kind: str,
        values: list[bytes | None],
        offsets: Any,
        times_ms: Any,
    ) -> Any:
        if any(v and BAD in v for v in values):
            crash()
        return take(self, source, kind, values, offsets, times_ms)

    monkeypatch.setattr(Ingest, "take", crashes)


# ---- copies


async def ends(step: Callable[[], object], **limits: int) -> tuple[int, str]:
    return await apart([int, int, step, int], Limits(**limits))


async def test_a_copy_says_how_far_it_came_and_what_ended_it() -> None:
    def endless() -> None:
        while True:
            pass

    assert await ends(int) == (4, "")
    assert await ends(lambda: os.kill(os.getpid(), signal.SIGSEGV)) == (2, "signal SIGSEGV")
    assert await ends(lambda: os._exit(7)) == (2, "exit code 7")
    assert await ends(endless, cpu_s=1) == (2, "signal SIGXCPU, 1 s of CPU time were used up")
    assert await ends(signal.pause, wall_s=1) == (2, "signal SIGALRM, 1 s had passed")
    done, why = await ends(lambda: bytearray(2 << 30))
    assert (done, why[:11]) == (2, "MemoryError")
    done, why = await ends(lambda: 1 // 0)
    assert (done, why[:62]) == (2, "ZeroDivisionError: integer division or modulo by zero (test_si")


async def test_every_step_of_a_copy_has_its_own_time() -> None:
    def busy() -> None:
        until = time.process_time() + 0.6
        while time.process_time() < until:
            pass

    assert await apart([busy] * 4, Limits(cpu_s=1)) == (4, "")


async def test_who_is_killed_from_outside_says_nothing_of_the_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel kills what needs memory when all do; then nothing may be set aside."""
    assert await ends(lambda: os.kill(os.getpid(), signal.SIGKILL)) == (2, "")
    assert "was killed from outside" in caplog.text


async def test_what_a_copy_does_stays_there() -> None:
    done: list[int] = []
    assert await apart([lambda: done.append(1)]) == (1, "")
    assert done == []


async def test_a_copy_ends_with_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the loop would never end: it waits for the thread that waits for the copy."""
    outcome, waited_for = forks._outcome, threading.Event()

    def told(pid: int, read: int, limits: Limits) -> tuple[int, str]:
        waited_for.set()
        return outcome(pid, read, limits)

    monkeypatch.setattr(forks, "_outcome", told)
    waiting = asyncio.create_task(apart([signal.pause]))
    await asyncio.to_thread(waited_for.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_ends_a_copy_now_and_then_is_no_culprit() -> None:
    left = 5

    async def attempt(start: int, end: int) -> None:
        nonlocal left
        if left and 3 in range(start, end):
            left -= 1
            raise EndedError("now and then")

    assert await culprits(attempt, 0, 8) == []
    assert left == 0


async def test_records_that_end_a_copy_only_together_are_the_smallest_such_run() -> None:
    async def attempt(start: int, end: int) -> None:
        if {4, 5} <= set(range(start, end)):
            raise EndedError("together")

    assert [i for i, _ in (await culprits(attempt, 0, 8))] == [4, 5]


# ---- INGEST


async def test_a_record_that_crashes_three_workers_is_found_in_copies(crashing: None) -> None:
    values = [event(i) for i in range(7)]
    values[3] = values[5] = BAD

    driver = FakeDriver()
    for n in range(1, 4):
        with pytest.raises(DiedError):
            await run(driver, lambda _: [delivery(0, values)])
        assert driver.offsets[TP] == (0, f"id opened={n}")
    stage, sent, start = await run(
        driver, lambda _: [delivery(0, values), delivery(7, [BAD, event(7)])]
    )
    assert (start, sent.letters()) == (
        0,
        [(BAD, 3, "ended_worker"), (BAD, 5, "ended_worker"), (BAD, 7, "ended_worker")],
    )
    assert (
        "3 attempts to decode it crashed the worker: signal SIGSEGV"
        in sent.records[0][2]["__connect.errors.exception.message"].decode()
    )
    assert stage.ingest.counts["predictions", "forwarded"] == 6
    assert driver.offsets[TP] == (9, f"id time={T0_MS} failed=8:3"), (
        "those after it are tried apart too, by the next worker as well"
    )


async def test_workers_that_were_killed_for_no_fault_of_a_record_set_nothing_aside(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = [event(i) for i in range(500)]
    take, kills = Ingest.take, [0] * 5

    def killed(self: Ingest, *arguments: Any) -> Any:
        if os.getpid() == TESTS and kills:
            kills.pop()
            raise DiedError
        return take(self, *arguments)

    monkeypatch.setattr(Ingest, "take", killed)

    driver = FakeDriver()
    for _ in range(5):
        with pytest.raises(DiedError):
            await run(driver, lambda _: [delivery(0, values)])
    assert driver.offsets[TP] == (0, "id failed=0:3 opened=5")
    stage, sent, _ = await run(driver, lambda _: [delivery(0, values)])
    assert sent.letters() == []
    assert stage.ingest.counts["predictions", "forwarded"] == 500
    await run(driver, lambda start: [delivery(start, [event(0)] * CAREFUL_RECORDS)])
    assert driver.offsets[TP] == (CAREFUL_RECORDS + 500, f"id time={T0_MS}")
    assert (
        "predictions/0: 3 times a worker started at 0 and ended without an error, or was killed"
        in caplog.text
    )


async def test_a_clean_end_and_an_idle_partition_are_no_suspicion() -> None:
    driver = FakeDriver()
    for _ in range(5):
        await run(driver, lambda _: [])
        assert driver.offsets[TP] == (0, "id")
    driver.end = 0
    for _ in range(5):
        stage, *_ = await run(driver, lambda _: [])
        assert stage.readings[TP].failed == {}
    assert driver.offsets[TP] == (0, "id")


async def test_on_poison_stop_only_says_so(
    crashing: None, caplog: pytest.LogCaptureFixture
) -> None:
    driver = FakeDriver()
    for _ in range(5):
        with pytest.raises(DiedError):
            await run(driver, lambda _: [delivery(0, [BAD])], on_poison="stop")
    assert (
        "4 times a worker started at 0 and ended without an error, or was killed; "
        "worker.on_poison: skip looks for the record that causes it"
    ) in caplog.text


async def test_a_delivery_whose_partition_is_opened_again_while_it_is_tried_is_left(
    crashing: None,
) -> None:
    driver = FakeDriver()
    driver.offsets[TP] = 0, "id opened=3"
    stage, _, _ = await run(driver, lambda _: [])
    stage.readings[TP].failed = {0: 3}
    stage.hub.epochs[TP] = 0
    taking = asyncio.create_task(stage.next(delivery(0, [event(0), BAD])))
    await asyncio.sleep(0)
    stage.hub.epochs[TP] = 1
    assert await taking is None
    assert (stage.position(TP), stage.ingest.rows) == (0, 0)


# ---- EVALUATE


class CrashingShard(FakeShard):
    def fold(self, value: bytes, appended_ms: int | None = None) -> None:
        if value == BAD:
            crash()
        super().fold(value, appended_ms)


class StartedProducer(FakeProducer):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


NOTE = Note(5, 1)


def at(driver: FakeDriver) -> tuple[int, int, dict[int, int]]:
    """Position, snapshot and what failed."""
    position, metadata = driver.offsets[LOG]
    note, failed = read_note(LOG, metadata)
    return position, note.snapshot, failed


async def evaluated(
    driver: FakeDriver, values: list[bytes], shard: FakeShard, **options: Any
) -> tuple[Owned, FakeProducer]:
    """A process that folds these."""
    hub = Hub(Settings(worker=WorkerSettings(**options)))
    hub.source = driver  # type: ignore[assignment]
    stage, sent = EvaluateStage(hub, 1, {}), StartedProducer()
    stage._producer = lambda _: sent  # type: ignore[assignment]

    async def restore(tp: Any, found: Committed, producer: Any) -> Owned:
        return Owned(shard, producer, found.note, found.position, Manifest())  # type: ignore[arg-type]

    stage.restoring.restore = restore  # type: ignore[method-assign]
    commit = sent.send_offsets_to_transaction

    async def committed(offsets: Any, group: Any) -> None:
        await commit(offsets, group)
        driver.offsets.update({tp: (o.offset, o.metadata) for tp, o in offsets.items()})

    sent.send_offsets_to_transaction = committed  # type: ignore[assignment, method-assign]
    position = (await stage.open([LOG]))[LOG]
    owned = stage.owned[LOG]
    await stage.next(delivery(position, values, tp=LOG)) if values else None
    await stage.flush()
    return owned, sent


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_an_observation_that_crashes_three_workers_is_set_aside(guarantee: str) -> None:
    driver = FakeDriver()
    driver.offsets[LOG] = 0, NOTE.text()
    values = [b"a", BAD, b"b", BAD]
    for n in range(1, 4):
        with pytest.raises(DiedError):
            await evaluated(driver, values, CrashingShard(), processing_guarantee=guarantee)
        assert (driver.offsets[LOG], driver.offsets[MARK]) == (
            (0, NOTE.text()),
            (5, f"0 opened={n}"),
        )
    shard = CrashingShard()
    _, sent = await evaluated(driver, values, shard, processing_guarantee=guarantee)
    assert shard.folded == [b"a", b"b"]
    assert sent.letters() == [(BAD, 1, "ended_worker"), (BAD, 3, "ended_worker")]
    assert any(topic == "snapshots" and value == b"ab" for topic, value, _ in sent.records)
    assert at(driver) == (4, 7, {})


async def test_a_worker_that_was_killed_folds_everything(caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    driver.offsets.update({LOG: (0, NOTE.text()), MARK: (5, "0 opened=8")})
    shard = CrashingShard()
    _, sent = await evaluated(driver, [b"a", b"b"], shard)
    assert shard.folded == [b"a", b"b"]
    assert sent.letters() == []
    assert at(driver) == (2, 7, {})
    await evaluated(driver, [], CrashingShard())
    assert driver.offsets[MARK] == (7, "2")
    assert "observations/0: 8 times a worker started at 0 and ended without an error" in caplog.text


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_tenure_is_counted_once_however_often_it_is_opened_and_only_where_something_waits(
    guarantee: str,
) -> None:
    kafka = FakeKafka()
    kafka.mine = {TP, LOG}
    for tp, mark, worker in ((LOG, MARK, kafka.stage), (TP, TP, kafka.ingest)):
        stage = worker(processing_guarantee=guarantee)
        await stage.open([tp])
        assert mark not in kafka.offsets, "nothing waits"
        kafka.append(tp, tick(1))
        for n in (1, 2):
            stage = worker(processing_guarantee=guarantee)
            for _ in range(5):  # after a hole, or a failed transaction
                await stage.open([tp])
                assert parted(kafka.offsets[mark][1])[2] == n
        await stage.flush()
        assert parted(kafka.offsets[mark][1])[2] == 0


async def test_a_close_with_nothing_done_ends_with_a_word_and_without_a_snapshot() -> None:
    driver = FakeDriver()
    driver.offsets[LOG] = 3, NOTE.text()
    for _ in range(5):
        _, sent = await evaluated(driver, [], CrashingShard())
        assert (driver.offsets[LOG], driver.offsets[MARK]) == ((3, NOTE.text()), (5, "3"))
        assert sent.records == []
