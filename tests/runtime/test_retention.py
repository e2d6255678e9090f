"""
`worker.on_lost`: records that retention deleted before a stage came to them, at both stages with a
Kafka in memory.
"""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.ingest import tick
from stream_monitor.stages.evaluate_stage import EvaluateStage
from tests.runtime.fake_kafka import FakeKafka

pytestmark = pytest.mark.virtual_time
SOURCE, LOG = TopicPartition("predictions", 0), TopicPartition("observations", 0)
T0 = 1_760_000_000_000


def kafka_with(records: int) -> FakeKafka:
    kafka = FakeKafka()
    kafka.mine, kafka.ids = {SOURCE, LOG}, {"predictions": "id"}
    for i in range(records):
        kafka.append(SOURCE, b"")
        kafka.append(LOG, tick(T0 + i * 1_000))
    return kafka


async def fold(stage: EvaluateStage, kafka: FakeKafka, until: int) -> None:
    """Fold and commit, as the driver and the ticker would."""
    owned = stage.owned[LOG]
    for offset in range(owned.position, until):
        value = kafka.logs[LOG][offset].value
        assert value is not None
        owned.fold(value)
        owned.position = offset + 1
    await stage._checkpoint(LOG, owned)


@pytest.mark.parametrize(
    ("metadata", "first_wanted"), [("id", 10), ("old", 0), ("id failed=13:1", 10), ("", 10)]
)
async def test_ingest_ends_with_the_way_out_and_commits_nothing(metadata, first_wanted):
    """`old`: the topic was made again since, and all of the new one is wanted."""
    kafka = kafka_with(30)
    kafka.offsets[SOURCE] = 10, metadata
    kafka.delete_before(SOURCE, 15)

    async def body():
        stage = kafka.ingest(on_lost="fail")
        with pytest.raises(StateError) as e:
            await stage.open([SOURCE])
        await stage.flush()  # as when the end of the process is late
        return str(e.value)

    for _ in range(2):
        told = await body()
        assert told == (
            f"predictions/0: records {first_wanted} to 14 were deleted by retention before "
            "they were read, and worker.on_lost is fail; worker.on_lost: continue goes on "
            "behind them "
            "and counts them; moving the offset of group stream-monitor on this partition to "
            "15 leaves them out"
        )
        assert kafka.offsets[SOURCE] == (10, metadata)


async def test_ingest_goes_on_and_counts():
    kafka = kafka_with(30)
    kafka.offsets[SOURCE] = 10, "id"
    kafka.delete_before(SOURCE, 15)

    stage = kafka.ingest()
    assert await stage.open([SOURCE]) == {SOURCE: 15}
    await stage.flush()
    assert kafka.offsets[SOURCE] == (15, "id")
    assert [(s.name, s.labels, s.value) for s in stage.commits.lost.samples()] == [
        ("stream_monitor_lost_records", ("predictions", "0"), 5)
    ]
    assert await kafka.ingest(on_lost="fail").open([SOURCE]) == {SOURCE: 15}


@pytest.mark.parametrize(
    ("deleted", "lost"),
    [(20, "10 to 19"), (25, "10 to 24")],
    ids=["between snapshot and position", "past the position"],
)
async def test_observations_between_the_snapshot_and_the_log_end_the_worker_or_are_counted_once(
    deleted, lost
):
    kafka = kafka_with(30)

    stage = kafka.stage()
    await stage.open([LOG])
    await fold(stage, kafka, 10)  # the first transaction has a snapshot
    await fold(stage, kafka, 22)
    kafka.delete_before(LOG, deleted)
    committed, ends = dict(kafka.offsets), dict(kafka.ends)

    for _ in range(2):
        failing = kafka.stage(on_lost="fail")
        with pytest.raises(
            StateError,
            match=rf"observations/0: records {lost} were deleted .* before they were folded.* "
            rf"to {deleted} starts there",
        ):
            await failing.open([LOG])
        await failing.flush()
        assert (kafka.offsets, kafka.ends) == (committed, ends)

    stage = kafka.stage(on_lost="continue")
    assert await stage.open([LOG]) == {LOG: max(deleted, 22)}
    assert stage.restoring.lost.records == {LOG: deleted - 10}
    await fold(stage, kafka, 26)
    assert await kafka.stage(on_lost="fail").open([LOG]) == {
        LOG: 26
    }  # its snapshot lies behind the gap


async def test_observations_without_a_snapshot_end_the_worker_too():
    """A record that ended the worker leaves a commit with a count and no snapshot."""
    kafka = kafka_with(30)
    kafka.offsets[LOG] = 0, " failed=3:1"
    kafka.delete_before(LOG, 5)

    with pytest.raises(StateError, match="records 0 to 4 were deleted"):
        await kafka.stage(on_lost="fail").open([LOG])
    stage = kafka.stage()
    assert await stage.open([LOG]) == {LOG: 5}
    assert stage.restoring.lost.records == {LOG: 5}


async def test_a_hole_that_opens_while_the_worker_runs():
    """
    The driver says that the broker has no longer what was asked for; opening again finds out why.
    """
    kafka = kafka_with(30)

    stage = kafka.stage(on_lost="fail")
    await stage.open([LOG])
    await fold(stage, kafka, 10)
    kafka.delete_before(LOG, 20)
    with pytest.raises(StateError, match="records 10 to 19 were deleted"):
        await stage.open([LOG])
    assert stage.position(LOG) == -1
    await stage.flush()
    assert kafka.offsets[LOG][0] == 10
