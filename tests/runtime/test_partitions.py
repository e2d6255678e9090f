"""
The number of partitions of `observations` never changes: it is noted beside every position, and a
worker that finds another one does nothing.
"""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.ingest import tick
from stream_monitor.stages.commit_metadata import read_note
from tests.runtime.fake_kafka import FakeKafka

pytestmark = pytest.mark.virtual_time
SOURCE, LOG = TopicPartition("predictions", 0), TopicPartition("observations", 0)
T0 = 1_760_000_000_000


async def written_by(partitions: int) -> FakeKafka:
    """What a worker leaves that has evaluated a little."""
    kafka = FakeKafka()
    kafka.mine, kafka.partitions_n = {SOURCE, LOG}, partitions
    kafka.append(LOG, tick(T0))
    stage = kafka.stage()
    await stage.open([LOG])
    stage.owned[LOG].fold(tick(T0))
    stage.owned[LOG].position = 1
    await stage.flush()
    return kafka


@pytest.mark.parametrize("partitions", [3, 6])
async def test_a_worker_that_starts_after_the_change_refuses_with_the_procedure(partitions):
    kafka = await written_by(4)
    position, metadata = kafka.offsets[LOG]
    assert (position, read_note(LOG, metadata)[0].partitions) == (1, 4)
    kafka.partitions_n = partitions
    for tps in ([SOURCE], []):  # whatever it is given to read
        with pytest.raises(StateError) as e:
            await kafka.ingest().open(tps)
        assert (
            f"observations has {partitions} partitions, but its rows were partitioned for 4"
            in str(e.value)
        )
        assert (
            "stop all workers, delete observations and snapshots, `stream-monitor topics "
            "apply --partitions observations=N`"
        ) in str(e.value)


async def test_a_worker_that_runs_refuses_at_the_next_rebalance_though_nothing_was_noted_yet():
    kafka = FakeKafka()
    kafka.partitions_n = 4
    stage = kafka.ingest()
    await stage.open([SOURCE])
    kafka.partitions_n = 5
    with pytest.raises(StateError, match="has 5 partitions, but its rows were partitioned for 4"):
        await stage.open([SOURCE])


async def test_the_same_number_or_no_metadata_for_now_is_no_change():
    kafka = await written_by(4)
    await kafka.ingest().open([SOURCE])
    stage = kafka.ingest()
    kafka.partitions_n = 0
    await stage.open([SOURCE])


async def test_the_procedure_is_the_way_out():
    """Kafka forgets the group's offsets of a topic that is deleted, and the notes with them."""

    kafka = await written_by(4)
    kafka.partitions_n = 6
    kafka.offsets.clear()
    await kafka.ingest().open([SOURCE])


async def test_metadata_of_another_program_is_refused():
    kafka = await written_by(4)
    kafka.offsets[LOG] = 1, "moved by a tool"
    for stage, tp in ((kafka.stage(), LOG), (kafka.ingest(), SOURCE)):
        with pytest.raises(
            StateError,
            match=r"the group's offset of observations/0 has metadata of another .*'moved by a "
            r"tool'.* delete the group's offset",
        ):
            await stage.open([tp])


@pytest.mark.parametrize("reset", ["latest", "earliest"])
async def test_a_source_partition_that_is_added_is_read_from_its_beginning(reset):
    """
    A new group begins where it is told; a partition that came later began empty, and senders may
    have seen it first.
    """

    kafka = FakeKafka()
    added = TopicPartition("predictions", 1)
    for tp in (SOURCE, added):
        kafka.append(tp, b"")
    stage = kafka.ingest(auto_offset_reset=reset)
    assert await stage.open([SOURCE]) == {SOURCE: 1 if reset == "latest" else 0}
    assert await stage.open([SOURCE, added]) == {
        SOURCE: 1 if reset == "latest" else 0,
        added: 0,
    }
