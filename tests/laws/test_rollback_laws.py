"""
Laws of `"on_rollback": "stop"`: routers, the worker's fold and the command line agree about which
arm gets traffic, whichever of a verdict and a change of weights came first.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.cli.experiment_board import ExperimentBoard, board_of
from stream_monitor.cli.experiment_events import changed
from stream_monitor.cli.experiment_status import drawing
from stream_monitor.client import Follower, Router, reassign
from stream_monitor.errors import InputError
from stream_monitor.evaluate import Shard
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.telling import verdict_id
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import CoreSettings
from tests.laws.test_experiment_laws import START_MS, Event, folded, records, the_experiment

AT = "2025-01-02T09:00:00Z"
ARMS = ["control", "b", "c"]
STARTED: dict[str, Any] = {
    "schema": 1,
    "type": "experiment_started",
    "model": "m",
    "at": AT,
    "experiment": "x-1",
    "arms": ARMS,
    "weights": {"control": 40, "b": 30, "c": 30},
    "primary": {"metric": "latency_ms", "effect": 0.05},
    "duration": ["30d", "60d"],
    "on_rollback": "stop",
}
USERS = 100_000
CALLS_A_TURN = 40
"""Calls of half a minute; so late do routers hear of a verdict."""
KEYS = [f"user-{i}" for i in range(300)]


def change(phase: int, *weights: float, despite: tuple[str, ...] = ()) -> dict[str, Any]:
    event = {**STARTED, "type": "experiment_changed", "phase": phase}
    event["weights"] = dict(zip(ARMS, weights, strict=True))
    return {k: v for k, v in event.items() if k not in {"arms", "primary", "on_rollback"}} | (
        {"despite_rollback": list(despite)} if despite else {}
    )


def rollback(arm: Any, phase: int = 1, **other: Any) -> dict[str, Any]:
    event = {"schema": 1, "type": "experiment_verdict", "model": "m", "at": AT}
    event |= {"experiment": "x-1", "arm": arm, "phase": phase, "verdict": "rollback"}
    return event | {"id": verdict_id("x-1", str(arm), phase, "rollback"), "evidence": {}} | other


def follower(*events: dict[str, Any], **given: Any) -> Follower:
    found = Follower("m", **given)
    for event in events:
        found.take(json.dumps(event).encode())
    return found


def table(found: Follower) -> Any:
    assert found.current is not None
    return found.current.ranges


def shares(found: Follower) -> dict[str, int]:
    """Slots by arm."""
    out = dict.fromkeys(ARMS, 0)
    start = 0
    for end, arm in table(found):
        out[arm] += end - start
        start = end
    return out


class TestRouters:
    def test_the_control_takes_over_and_nobody_else_moves(self):
        before, after = follower(STARTED), follower(STARTED, rollback("b"))
        moved = {(before(k), after(k)) for k in KEYS if before(k) != after(k)}
        assert moved == {("b", "control")}
        assert shares(after) == {"control": 7_000, "b": 0, "c": 3_000}
        assert after.current is not None
        assert after.current.arms == {"control": None, "b": None, "c": None}
        assert after.errors == {}

    @pytest.mark.parametrize(
        "event",
        [
            rollback("b", verdict="continue"),
            rollback("b", verdict="mismatch"),
            rollback("b", verdict="promote"),
            rollback("b", experiment="x-2"),
            rollback("b", model="n"),
        ],
    )
    def test_other_verdicts_change_nothing(self, event):
        found = follower(STARTED, event)
        assert shares(found) == {"control": 4_000, "b": 3_000, "c": 3_000}
        assert found.errors == {}

    @pytest.mark.parametrize("arm", ["control", "d", None, 17, ["b"]])
    def test_a_verdict_on_no_arm_is_invalid(self, arm):
        found = follower(STARTED, rollback(arm))
        assert (shares(found)["b"], found.errors) == (3_000, {"invalid": 1})
        assert "arm: expected one of b, c" in found.last_error

    def test_it_must_be_wanted(self):
        for wanted in ({"on_rollback": "tell"}, {}):
            start = {k: v for k, v in STARTED.items() if k != "on_rollback"} | wanted
            assert shares(follower(start, rollback("b")))["b"] == 3_000
        assert follower({**STARTED, "on_rollback": "halt"}).errors == {"invalid": 1}

    def test_a_change_by_somebody_who_did_not_know_does_not_undo_it(self):
        unknowing = change(2, 20, 50, 30)
        for order in ([unknowing, rollback("b")], [rollback("b"), unknowing]):
            assert shares(follower(STARTED, *order)) == {"control": 7_000, "b": 0, "c": 3_000}

    def test_who_says_so_gives_it_traffic_again(self):
        knowing = change(3, 50, 25, 25, despite=("b",))
        found = follower(STARTED, rollback("b"), knowing, rollback("b"))
        assert shares(found) == {"control": 5_000, "b": 2_500, "c": 2_500}
        found.take(json.dumps(change(4, 40, 30, 30)).encode())
        assert shares(found)["b"] == 0, "each change must say so"

    def test_over_is_over(self):
        stop = {k: STARTED[k] for k in ("schema", "model", "at", "experiment")}
        stop |= {"type": "experiment_stopped", "keep": "b"}
        for order in ([stop, rollback("b")], [rollback("b"), stop]):
            found = follower(STARTED, *order)
            assert found("user-1") == "b"

    def test_a_verdict_of_an_earlier_experiment_of_that_name_is_none(self):
        stop = {k: STARTED[k] for k in ("schema", "model", "experiment")}
        stop |= {"type": "experiment_stopped", "at": "2025-01-03T00:00:00Z"}
        again = {**STARTED, "at": "2025-01-04T00:00:00Z"}
        found = follower(STARTED, rollback("b"), stop, again)
        assert shares(found)["b"] == 3_000
        found.take(json.dumps(rollback("b")).encode())
        assert shares(found)["b"] == 3_000
        found.take(json.dumps(rollback("b", at="2025-01-05T00:00:00Z")).encode())
        assert shares(found)["b"] == 0


OTHERS = [
    {**STARTED, "model": "n"},
    rollback("b", model="n"),
    {**STARTED, "experiment": "x-0"},
    rollback("c", experiment="x-0"),
    {"schema": 1, "type": "stage", "model": "m", "at": AT, "version": "4", "stage": "canary"},
    {"type": "something_new", "model": "m", "weights": {"b": 100}},
]
LOG = [
    STARTED,
    rollback("b"),
    change(2, 20, 50, 30),
    change(3, 60, 20, 20, despite=("b",)),
    rollback("c", 3),
    change(4, 50, 25, 25),
    rollback("b", 9),
]


@given(st.data())
def test_followers_of_the_same_records_agree(data: Any) -> None:
    """However they are cut, repeated, and mixed with what is of others."""
    end = data.draw(st.integers(1, len(LOG)))
    expected = table(follower(*LOG[:end], experiment="x-1"))
    log: list[dict[str, Any]] = list(LOG[:end])
    for at in data.draw(st.lists(st.integers(0, end), max_size=4)):
        log.insert(at, data.draw(st.sampled_from(OTHERS)))
    found = Follower("m", experiment="x-1")
    values = [json.dumps(e).encode() for e in log]
    at = 0
    while at < len(values):
        size = data.draw(st.integers(1, len(values)))
        if data.draw(st.booleans()):
            found.take_all(values[: at + size])  # a file has all from its beginning
        else:
            for value in values[at : at + size]:
                found.take(value)
        at += size
        if data.draw(st.booleans()):  # the log is read again
            for value in values[:at]:
                found.take(value)
            found.take(data.draw(st.sampled_from([b"{", b"", b"null", b'{"model": "m"}'])))
    assert table(found) == expected


def test_verdicts_and_changes_may_come_in_any_order() -> None:
    """They are written by different programs; only changes are ordered, by their phase."""
    changes = [change(2, 20, 50, 30), change(3, 60, 20, 20, despite=("b",))]
    found = set()
    for order in itertools.permutations([rollback("b"), rollback("c"), *changes]):
        if order.index(changes[0]) < order.index(changes[1]):
            found.add(tuple(table(follower(STARTED, *order))))
    assert len(found) == 1


# ---- the fold


def calls(seed: int, n: int, router: Router, *, first_ms: int, bad: str = "") -> list[Event]:
    """Calls of many users, served by a router; a fifth of those of one arm fail."""
    rng = random.Random(seed)
    out: list[Event] = []
    for i in range(n):
        unit = f"user-{rng.randrange(USERS)}"
        arm = router(unit)
        event: dict[str, Any] = {
            "event_id": f"e{seed}-{i}",
            "model": "m",
            "timestamp": first_ms + 700 * i,
            "variant": arm,
            "unit": unit,
        }
        fails = rng.random() < (0.2 if arm == bad else 0.005)
        answer = {"status": "error"} if fails else {"score": 0.5, "latency_ms": rng.gauss(20, 2)}
        out.append(("predictions", event | answer))
    return out


def told(shard: Shard) -> list[dict[str, Any]]:
    events = [json.loads(o.value) for o in shard.outbox if o.topic == "lifecycle"]
    return [e for e in events if e["type"] == "experiment_verdict"]


class Loop:
    """A worker and routers that hear of each other: calls are served as the routers say."""

    def __init__(self, **start: Any) -> None:
        self.lifecycle: list[dict[str, Any]] = []
        self.follower = Follower("m")
        self.now_ms = START_MS
        self.shard = Shard(0, CoreSettings(), confirm_ms=0)
        self.ingest, self.offsets = Ingest(1), Counter[str]()
        self.write({**STARTED, **start})

    def write(self, event: dict[str, Any]) -> None:
        self.fold([("lifecycle", {**event, "timestamp": self.now_ms})])
        self.lifecycle.append(event)
        self.follower.take(json.dumps(event).encode())

    def fold(self, events: list[Event], size: int = 40) -> None:
        for at in range(0, len(events), size):
            part = events[at : at + size]
            kind = part[0][0]
            values: list[bytes | None] = [json.dumps(event).encode() for _, event in part]
            times = np.array([event["timestamp"] for _, event in part])
            offsets = self.offsets[kind] + np.arange(len(part))
            self.offsets[kind] += len(part)
            assert not self.ingest.take(f"{kind}@t/0", kind, values, offsets, times)
            for record in self.ingest.flush(int(times[-1]))[0]:
                self.shard.fold(record)
        self.now_ms = events[-1][1]["timestamp"] + 700

    def serve(self, seed: int, n: int, bad: str = "") -> list[dict[str, Any]]:
        """Serve calls, a few at a time; verdicts reach the routers between them. New verdicts."""
        new: list[dict[str, Any]] = []
        for part in range(0, n, CALLS_A_TURN):
            router = self.follower.current
            assert router is not None
            self.fold(
                calls(
                    seed * 1_000 + part,
                    min(CALLS_A_TURN, n - part),
                    router,
                    first_ms=self.now_ms,
                    bad=bad,
                )
            )
            self.shard.fold(tick(self.now_ms))
            for verdict in told(self.shard)[len(self.verdicts) :]:
                new.append(verdict)
                self.lifecycle.append(verdict)
                self.follower.take(json.dumps(verdict).encode())
        return new

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [e for e in self.lifecycle if e["type"] == "experiment_verdict"]

    @property
    def experiment(self) -> Experiment:
        return the_experiment(self.shard)

    @property
    def board(self) -> ExperimentBoard:
        return board_of([json.dumps(e).encode() for e in self.lifecycle])

    def agree(self) -> None:
        """The fold, routers and the command line have the same weights; the last two also keys."""
        known = self.board.found("x-1", "m")
        assert known.weights == self.experiment.weights == tuple(shares(self.follower).values())
        assert known.phase == self.experiment.phase
        assert known.router.ranges == table(self.follower)


@pytest.mark.parametrize("seed", range(3))
def test_after_a_rollback_the_sample_ratio_is_no_mismatch(seed: int) -> None:
    loop = Loop()
    loop.agree()
    assert [(v["arm"], v["verdict"]) for v in loop.serve(seed, 6_000, bad="b")] == [
        ("b", "rollback")
    ]
    loop.agree()
    assert loop.experiment.weights == (7_000, 0, 3_000)
    assert loop.serve(seed + 50, 6_000) == [], "neither mismatch nor anything else"
    assert loop.experiment.counts.sum() > 2_000, "it counted units after the rollback"
    assert loop.experiment.counts[1] == 0
    assert loop.experiment.log_e_mismatch < 3


def test_without_it_the_same_routers_are_a_mismatch() -> None:
    """The law above can fail: here an arm loses its traffic, and the worker is not told."""
    loop = Loop(on_rollback="tell")
    loop.serve(0, 6_000, bad="b")
    assert loop.experiment.weights == (4_000, 3_000, 3_000)
    router = loop.follower.current
    assert router is not None
    loop.follower._current = router.without(["b"])
    assert {v["verdict"] for v in loop.serve(50, 6_000)} == {"mismatch"}


def test_servers_that_hear_late_are_no_mismatch() -> None:
    """Their calls of the arm are left out and counted; those of others go on to count."""
    loop = Loop()
    late = loop.follower.current
    assert late is not None
    loop.serve(0, 6_000, bad="b")
    for seed in range(20):
        router = late if seed % 4 == 0 else loop.follower.current
        assert router is not None
        loop.fold(calls(90 + seed, 100, router, first_ms=loop.now_ms, bad="b"))
        loop.shard.fold(tick(loop.now_ms))
    assert loop.experiment.left_out["rolled_back"] > 50
    assert [v["verdict"] for v in told(loop.shard)] == ["rollback"]


def test_clean_arms_lose_nothing() -> None:
    loop = Loop()
    assert loop.serve(7, 12_000) == []
    loop.agree()
    assert loop.experiment.weights == (4_000, 3_000, 3_000)


def test_a_person_takes_over_again() -> None:
    loop = Loop()
    loop.serve(1, 6_000, bad="b")
    known = loop.board.found("x-1", "m")
    weights = {"control": 50, "b": 20, "c": 30}
    with pytest.raises(InputError, match="it was rolled back, so control has its traffic"):
        changed(known, weights, AT, None)
    event = changed(known, weights, AT, None, despite_rollback=True).event
    assert (event["phase"], event["despite_rollback"]) == (3, ["b"])
    loop.write(json.loads(json.dumps(event)))
    loop.agree()
    assert loop.experiment.weights == (5_000, 2_000, 3_000)
    assert loop.serve(51, 4_000) == []
    assert loop.experiment.log_e_mismatch < 3


def test_only_a_rollback_is_one() -> None:
    """On the board too: an arm may be promoted in one phase, and rolled back in a later one."""
    promote = rollback("b") | {"verdict": "promote", "id": verdict_id("x-1", "b", 1, "promote")}
    log = [
        STARTED,
        promote,
        change(2, 40, 40, 20),
        rollback("b", 2),
        rollback("d"),
        rollback("control"),
    ]
    known = board_of([json.dumps(e).encode() for e in log]).found("x-1", "m")
    assert (known.phase, known.weights, known.rolled_back) == (3, (8_000, 0, 2_000), {"b"})


@pytest.mark.parametrize("knows", [False, True])
def test_a_change_that_crosses_the_verdict(knows: bool) -> None:
    """It is written before routers see the verdict, and folded after it."""
    loop = Loop()
    router = loop.follower.current
    assert router is not None
    seed = 0
    while not told(loop.shard):
        seed += 1
        loop.fold(calls(seed, CALLS_A_TURN, router, first_ms=loop.now_ms, bad="b"))
        loop.shard.fold(tick(loop.now_ms))
    loop.write(change(2, 30, 50, 20, despite=("b",) if knows else ()))
    verdict = told(loop.shard)[0]
    loop.lifecycle.append(verdict)
    loop.follower.take(json.dumps(verdict).encode())
    loop.agree()
    assert loop.experiment.weights == ((3_000, 5_000, 2_000) if knows else (8_000, 0, 2_000))
    assert loop.experiment.phase == 3


def firing(loop: Loop) -> list[str]:
    loop.now_ms += 120_000
    loop.shard.fold(tick(loop.now_ms))
    return [key.segment for key, _ in loop.shard.alerts.firing() if key.kind == "experiment"]


def test_the_alert_fires_until_somebody_writes_the_weights_down() -> None:
    loop = Loop()
    loop.serve(2, 6_000, bad="c")
    assert firing(loop) == ["arm=c"]
    known = loop.board.found("x-1", "m")
    told = "c: rolled back, control has the traffic"
    assert any(told in line for line in drawing(known, loop.now_ms))
    event = changed(known, {"control": 70, "b": 30, "c": 0}, AT, None).event
    assert "despite_rollback" not in event
    phase = loop.experiment.phase
    loop.write(json.loads(json.dumps(event)))
    assert firing(loop) == []
    known = loop.board.found("x-1", "m")
    assert not any(told in line for line in drawing(known, loop.now_ms))
    assert loop.experiment.phase == phase, "nothing changed for routers, so sums go on"
    loop.agree()
    with pytest.raises(InputError, match="are the weights of x-1 already"):
        changed(loop.board.found("x-1", "m"), {"control": 70, "b": 30, "c": 0}, AT, None)


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_anywhere_does_not_show(seed: int) -> None:
    events: list[Event] = [("lifecycle", {**STARTED, "timestamp": START_MS})]
    router = Router("x-1", reassign([], STARTED["weights"]), arms=dict.fromkeys(ARMS))
    events += calls(seed, 5_000, router, first_ms=START_MS, bad="b")
    log = records(events, [40] * 1_000)
    straight = folded(Shard(0, CoreSettings(), confirm_ms=0), log)
    rng = random.Random(seed)
    shard, found = Shard(0, CoreSettings(), confirm_ms=0), []
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        if rng.random() < 0.1:
            found += told(shard)
            shard.outbox = []
            parts = shard.snapshot()
            shard = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
            shard.log_time.confirm_ms = 0
    assert found + told(shard) == told(straight) != []
    one, other = the_experiment(shard), the_experiment(straight)
    assert (one.weights, one.held, one.phase) == (other.weights, other.held, other.phase)
    assert one.held == [1]
