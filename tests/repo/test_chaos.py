"""
The chaos run's rules about brokers, without any: one at a time, and a run without leader changes
has failed.

The runs themselves are in `tests/kafka/test_chaos.py`.
"""

from __future__ import annotations

import doctest
import threading
import time
from collections import Counter
from random import Random
from typing import Any

import pytest

from bench import chaos, chaos_brokers
from bench.chaos_brokers import WATCHED
from bench.chaos_faults import Faults


class FakeServer:
    """Counts how many of its cluster are away."""

    away = worst = 0
    lock = threading.Lock()

    def stop(self) -> None:
        self.gone(1)

    def start(self) -> None:
        time.sleep(0.02)
        self.gone(-1)

    def gone(self, change: int) -> None:
        with FakeServer.lock:
            FakeServer.away += change
            FakeServer.worst = max(FakeServer.worst, FakeServer.away)


class FakeMember:
    def __init__(self) -> None:
        self.server = FakeServer()

    def kill(self) -> None:
        self.server.stop()


class FakeCluster:
    several = True

    def __init__(self) -> None:
        self.hurt: Counter[str] = Counter()
        self.members = [FakeMember() for _ in range(3)]
        self.leader_changes: Counter[str] = Counter()
        self.said: list[str] = []

    def victim(self, choose: Random) -> FakeMember:
        return choose.choice(self.members)

    def rest(self) -> str:
        assert FakeServer.away == 0
        self.leader_changes["labels"] += 1
        return self.said.pop(0) if self.said else ""

    def elect(self, choose: Random) -> None:
        assert FakeServer.away == 0


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    wanted = {
        "brokers": 3,
        "broker-restarts": 6,
        "elections": 2,
        "kills": 0,
        "zombies": 0,
        "terms": 0,
        "scales": 0,
        "endtxn": 0,
    }
    options = chaos.parser().parse_args([f"--{name}={n}" for name, n in wanted.items()])
    out = Faults(options, FakeCluster(), None)  # type: ignore[arg-type]
    monkeypatch.setattr(out.random, "uniform", lambda *_: 0.01)
    monkeypatch.setattr(FakeServer, "worst", 0)
    return out


def test_examples() -> None:
    result = doctest.testmod(chaos_brokers)
    assert result.attempted
    assert not result.failed


def test_never_are_two_brokers_away_and_none_during_an_election(faults: Any) -> None:
    for name in list(faults.waiting):
        getattr(faults, name)()
    faults.settle()
    assert FakeServer.worst == 1
    assert faults.done == {"broker restart": 3, "broker kill -9": 3, "election": 2}
    assert faults.problems == []


def test_leaders_that_did_not_move_are_a_failure_of_the_run(faults: Any) -> None:
    faults.done.update({"broker restart": 6, "election": 2})
    faults.brokers.leader_changes.update(dict.fromkeys(WATCHED[1:], 4))
    assert faults.missing() == ["leader changes of predictions: asked for 1, happened 0"]


def test_a_cluster_that_does_not_come_to_rest_is_a_failure_of_the_run(faults: Any) -> None:
    faults.brokers.said = ["the cluster is not whole"]
    faults.broker_clean()
    faults.settle()
    assert faults.problems == ["the cluster is not whole"]
