""" "Nothing is committed" is believed only where the coordinator says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3

from stream_monitor.kafka.cluster import GROUP_AUTHORIZATION_FAILED, Cluster
from stream_monitor.kafka.committed_offsets import committed_offsets

pytestmark = pytest.mark.virtual_time
A, B = TopicPartition("observations", 0), TopicPartition("observations", 1)
LOADS, NOT_MINE, UNKNOWN_TOPIC, NOT_ALLOWED = 14, 16, 3, 30
WHOLE = OffsetFetchResponse_v3(0, [("observations", [(0, 7, "note", 0), (1, -1, "", 0)])], 0)


class FakeCoordinator:
    """Gives these answers, one after another."""

    group_id = "g"

    def __init__(self, *answers: Any) -> None:
        self.answers, self.lost, self.asked = list(answers), 0, 0

    async def ensure_coordinator_known(self) -> None: ...

    async def _send_req(self, request: Any) -> Any:
        self.asked += 1
        return self.answers.pop(0)

    def coordinator_dead(self) -> None:
        self.lost += 1


async def test_what_is_committed_and_what_is_not():
    assert await committed_offsets(FakeCoordinator(WHOLE), [A, B]) == {A: (7, "note"), B: None}
    assert await committed_offsets(FakeCoordinator(), []) == {}


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (OffsetFetchResponse_v3(0, [], LOADS), 0),
        (OffsetFetchResponse_v3(0, [], NOT_MINE), 1),
        (OffsetFetchResponse_v1([("observations", [(0, -1, "", LOADS), (1, -1, "", LOADS)])]), 0),
        (
            OffsetFetchResponse_v3(
                0, [("observations", [(0, -1, "", UNKNOWN_TOPIC), (1, -1, "", 0)])], 0
            ),
            0,
        ),
        (OffsetFetchResponse_v3(0, [("observations", [(0, 7, "note", 0)])], 0), 0),
    ],
    ids=[
        "loads",
        "not the coordinator",
        "loads, before version 2",
        "topic not known yet",
        "a partition left out",
    ],
)
async def test_a_coordinator_that_does_not_know_is_asked_again(answer, lost):
    coordinator = FakeCoordinator(answer, WHOLE)
    assert await committed_offsets(coordinator, [A, B]) == {A: (7, "note"), B: None}
    assert (coordinator.asked, coordinator.lost) == (2, lost)


async def test_a_refusal_is_told():
    with pytest.raises(GroupAuthorizationFailedError):
        await committed_offsets(FakeCoordinator(OffsetFetchResponse_v3(0, [], NOT_ALLOWED)), [A])


class FakeCluster(Cluster):
    """Gets these answers, after that of the coordinator."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [SimpleNamespace(error_code=0, coordinator_id=1), *answers]
        self._timeout_s = 0.0

    async def _ask(self, request: Any, node: Any = None) -> Any:
        return self.answers.pop(0)


async def test_doctor_asks_a_loading_coordinator_again_and_says_nothing_of_a_group_it_may_not_see():
    assert await FakeCluster(OffsetFetchResponse_v3(0, [], LOADS), WHOLE).committed("g") == {
        A: (7, "note")
    }
    assert (
        await FakeCluster(OffsetFetchResponse_v3(0, [], GROUP_AUTHORIZATION_FAILED)).committed("g")
        == {}
    )
