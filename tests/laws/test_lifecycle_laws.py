"""
The loop as a fold: whatever is lost, repeated or said by an old controller, one episode is one run,
one version is in production, and a rollback ends with the champion.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.experiments.definition import definition_of
from stream_monitor.lifecycle.actions import Execute, Say, Tell, Work
from stream_monitor.lifecycle.events import (
    Approved,
    Asked,
    Cancelled,
    Rejected,
    Stage,
    StageName,
    Trigger,
    Version,
    encode,
)
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.rollout import waiting_for
from stream_monitor.lifecycle_settings import (
    AlertTrigger,
    Deploy,
    DeployCommand,
    ModelLoop,
    RunLimits,
    Step,
    Triggers,
)
from stream_monitor.times import DAY_MS, HOUR_MS, rfc3339
from tests.lifecycle_world import MODEL, World

TRAIN = Step(name="train", command=("true",))
COMMANDS = tuple(
    DeployCommand(name=n, command=("do", n), rollback=("undo", n)) for n in ("pods", "mesh")
)


def a_loop(**changes: Any) -> ModelLoop:
    base = ModelLoop(
        repository="/repo",
        steps=(TRAIN,),
        triggers=Triggers(alerts=AlertTrigger(for_ms=0)),
        limits=RunLimits(min_new_labels=0),
        deploy=Deploy(stages=(0, 5, 100), min_time_ms=1_000, min_labels=10, watch_ms=60_000),
    )
    return msgspec.structs.replace(base, **changes)


def person(kind: type, world: World, **fields: Any) -> None:
    event = kind(model=MODEL, at=rfc3339(world.now_ms), by="ana", **fields)
    world.write(event.named())


def in_production(world: World, version: str = "v1.0.0") -> None:
    person(Stage, world, stages={version: "production"})


def through(world: World, stages: int) -> None:
    """Let the version of the rollout pass so many stages."""
    for _ in range(stages):
        world.settle()
        rollout = world.model().rollout
        assert rollout is not None
        world.wait(2)
        world.label(rollout.version, 10)
    world.settle()


def test_alert_to_production():
    world = World(a_loop())
    in_production(world)
    world.label("v1.0.0", 10)
    world.wait(1)
    world.alert("v1.0.0")
    world.settle()
    assert [a.step for a in world.done if isinstance(a, Work)] == [
        "collect",
        "train",
        "decide",
        "register",
    ]
    rollout = world.model().rollout
    assert rollout is not None
    assert (rollout.version, rollout.step, world.model().stages) == (
        "v1.1.0",
        0,
        {"v1.0.0": "production", "v1.1.0": "shadow"},
    )
    assert not [a for a in world.done if isinstance(a, Tell)]  # a shadow gets no traffic
    through(world, 2)
    assert world.model().stages == {"v1.0.0": "retired", "v1.1.0": "production"}
    told = [a.event for a in world.done if isinstance(a, Tell)]
    assert [e["type"] for e in told] == ["experiment_started", "experiment_stopped"]
    assert told[0]["weights"] == {"v1.0.0": 95, "v1.1.0": 5}
    assert told[1]["keep"] == "v1.1.0"
    world.label("v1.1.0", 10)
    world.wait(61)
    world.settle()
    compared = world.model().compared
    assert world.model().rollout is None
    assert compared is not None
    assert (compared.version, compared.against) == ("v1.1.0", "v1.0.0")


def test_the_first_version_needs_no_rollout():
    world = World(a_loop())
    person(Trigger, world, cause="person")
    world.settle()
    world.wait(61)
    world.settle()
    assert world.model().stages == {"v1.1.0": "production"}


@pytest.mark.parametrize("how", ["verdict", "alert", "person", "rejected"])
@pytest.mark.parametrize("stage", [1, 2])
def test_back_to_the_champion(how, stage):
    world = World(a_loop())
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, stage)
    rollout = world.model().rollout
    assert rollout is not None
    assert rollout.state == ("running" if stage == 1 else "watch")
    if how == "verdict":
        world.verdict("rollback")
    elif how == "alert":
        world.alert(rollout.version, "data_quality", "critical")
    elif how == "person":
        person(Asked, world, what="rollback")
    else:
        person(Rejected, world, version=rollout.version)
    actions = world.settle()
    assert world.model().stages == {"v1.0.0": "production", "v1.1.0": "retired"}
    assert world.model().rollout is None
    assert [a.event["keep"] for a in actions if isinstance(a, Tell)] == ["v1.0.0"]


def test_commands_are_taken_back_in_reverse_order():
    world = World(
        a_loop(deploy=Deploy(stages=(5, 100), min_time_ms=0, min_labels=1, commands=COMMANDS))
    )
    in_production(world)
    world.fail = {"mesh"}
    person(Trigger, world, cause="person")
    world.settle()
    done = [(a.command, a.undo) for a in world.done if isinstance(a, Execute)]
    assert done == [("pods", False), ("mesh", False), ("pods", True)]
    assert world.model().stages["v1.0.0"] == "production"
    assert world.model().stages["v1.1.0"] == "retired"


def test_commands_of_a_rollback_by_verdict_are_taken_back():
    world = World(
        a_loop(deploy=Deploy(stages=(5, 25, 100), min_time_ms=1, min_labels=1, commands=COMMANDS))
    )
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, 1)
    world.verdict("rollback")
    world.settle()
    done = [(a.step, a.command, a.undo) for a in world.done if isinstance(a, Execute)]
    forward = [(s, c, False) for s in (0, 1) for c in ("pods", "mesh")]
    assert done == [*forward, *((s, c, True) for s, c, _ in reversed(forward))]


def test_no_labels_wait_and_then_a_person_is_asked():
    world = World(a_loop())
    in_production(world)
    person(Trigger, world, cause="person")
    world.settle()
    world.wait(DAY_MS / 1_000 + 1)
    world.settle()
    rollout = world.model().rollout
    assert rollout is not None
    assert rollout.state == "late"
    person(Asked, world, what="promote")
    world.settle()
    rollout = world.model().rollout
    assert rollout is not None
    assert (rollout.step, rollout.state) == (1, "running")


def test_a_flapping_alert_starts_few_runs():
    world = World(a_loop(limits=RunLimits(min_new_labels=0, max_a_week=2, cooldown_ms=HOUR_MS)))
    in_production(world)
    world.results["decide"] = {"decision": "reject", "reason": "not better"}
    for _ in range(200):
        world.alerts.clear()
        world.alert("v1.0.0")
        world.settle()
        world.wait(7 * 86_400 / 200)
    model = world.model()
    assert len(model.runs) == 2
    assert {r.end for r in model.runs.values()} == {"rejected"}
    assert len(model.answered) >= 200


def test_an_alert_that_goes_on_is_trained_on_after_the_cooldown():
    world = World(a_loop())
    in_production(world)
    world.results["decide"] = {"decision": "reject", "reason": "not better"}
    person(Trigger, world, cause="person")
    world.settle()
    world.alert("v1.0.0")
    world.settle()
    assert len(world.model().runs) == 1
    assert "cooldown" in world.model().refused[-1].reason
    world.wait(25 * 3_600)
    world.settle()
    assert len(world.model().runs) == 2


@pytest.mark.parametrize("kind", ["data_quality", "freshness"])
def test_nothing_is_trained_on_a_broken_input(kind):
    world = World(a_loop())
    in_production(world)
    world.alert("v1.0.0", kind)
    world.alert("v1.0.0")
    world.settle()
    assert not world.model().runs
    assert kind in world.model().refused[-1].reason


@pytest.mark.parametrize("kind", ["performance", "freshness"])
def test_alerts_of_a_retired_version_start_nothing_and_block_nothing(kind):
    world = World(a_loop(limits=RunLimits(min_new_labels=0, cooldown_ms=0)))
    person(Stage, world, stages={"v1.0.0": "retired", "v1.1.0": "production"})
    world.alert("v1.0.0", kind)
    world.settle()
    assert not world.model().answered
    world.alert("v1.1.0")
    world.settle()
    assert len(world.model().runs) == 1


def test_a_step_that_fails_ends_the_run_and_cancelling_too():
    world = World(a_loop())
    world.fail = {"train"}
    person(Trigger, world, cause="person")
    world.settle()
    (run,) = world.model().runs.values()
    assert (run.end, run.reason) == ("failed", "it is broken")
    world.fail = set()
    world.wait(1)
    person(Trigger, world, cause="person")
    for _ in range(2):
        action = world.next()
        assert action is not None
        world.act(action)
    person(Cancelled, world, run=world.model().current)
    world.settle()
    assert [r.end for r in world.model().runs.values()] == ["failed", "cancelled"]
    assert world.made == 0


def test_approval_of_a_run_by_another_person():
    world = World(a_loop(limits=RunLimits(approval="run", two_people=True, min_new_labels=0)))
    person(Trigger, world, cause="person")
    world.settle()
    run = world.model().current
    person(Approved, world, run=run)
    world.settle()
    assert world.made == 0
    world.write(Approved(model=MODEL, at=rfc3339(world.now_ms), by="ben", run=run).named())
    world.settle()
    assert world.made == 1


def test_approval_of_a_promotion():
    world = World(a_loop(limits=RunLimits(approval="promotion", min_new_labels=0)))
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, 2)
    assert world.model().champion == "v1.0.0"
    person(Approved, world, version="v1.1.0")
    world.settle()
    assert world.model().champion == "v1.1.0"


def test_another_person_approves_a_promotion_too():
    limits = RunLimits(approval="promotion", two_people=True, min_new_labels=0)
    world = World(a_loop(limits=limits))
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, 2)
    person(Approved, world, version="v1.1.0")
    world.settle()
    assert world.model().champion == "v1.0.0"
    at = rfc3339(world.now_ms)
    world.write(Approved(model=MODEL, at=at, by="ben", version="v1.1.0").named())
    world.settle()
    assert world.model().champion == "v1.1.0"


@pytest.mark.parametrize(
    ("decided", "anchor"),
    [
        ({"lower": 0.01, "anchor": None}, "v1.1.0"),
        ({"lower": -0.005, "anchor": None}, "v1.0.0"),
        ({"lower": 0.01, "anchor": {"lower": -0.004}}, "v1.0.0"),
        ({"lower": -0.005, "anchor": {"lower": 0.002}}, "v1.1.0"),
        ({"lower": None, "anchor": None}, "v1.0.0"),
    ],
)
def test_only_what_is_proved_better_becomes_the_anchor(decided, anchor):
    world = World(a_loop())
    in_production(world)
    assert world.model().anchor == "v1.0.0"
    world.results["decide"] = {"decision": "promote", **decided}
    world.alert("v1.0.0")
    through(world, 2)
    rollout = world.model().rollout
    assert rollout is not None
    assert (rollout.state, world.model().anchor) == ("watch", "v1.0.0")  # it may still go back
    world.wait(world.loop.deploy.watch_ms / 1_000 + 1)
    world.alerts.clear()
    world.settle()
    assert world.model().rollout is None
    assert (world.model().champion, world.model().anchor) == ("v1.1.0", anchor)
    in_production(world, "v2.0.0")  # a person says so
    assert world.model().anchor == "v2.0.0"


def test_weights_by_hand_pause_the_rollout():
    world = World(a_loop())
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, 1)
    rollout = world.model().rollout
    assert rollout is not None
    world.write(
        {
            "type": "experiment_changed",
            "model": MODEL,
            "experiment": rollout.experiment,
            "by": "ana",
            "weights": {"v1.0.0": 50, "v1.1.0": 50},
        }
    )
    through(world, 2)
    rollout = world.model().rollout
    assert rollout is not None
    assert rollout.state == "paused"
    assert world.model().champion == "v1.0.0"


def test_a_rollout_that_nobody_judges_waits():
    world = World(a_loop())
    in_production(world)
    person(Trigger, world, cause="person")
    through(world, 1)
    rollout = world.model().rollout
    assert rollout is not None
    world.write(
        {
            "type": "experiment_refused",
            "model": MODEL,
            "experiment": rollout.experiment,
            "refused": "experiment_started",
            "reason": "there are 4 already",
        }
    )
    world.wait(2)
    world.label(rollout.version, 10)
    world.settle()
    assert world.model().champion == "v1.0.0"
    waits = waiting_for(MODEL, world.model(), rollout, world.loop, world, world.now_ms)
    assert waits is not None
    assert "there are 4 already" in waits.words


@pytest.mark.parametrize("days", [1, 30])
def test_the_worker_can_use_the_experiment_of_a_rollout(days):
    deploy = Deploy(stages=(0, 5, 25, 100), min_time_ms=1, deadline_ms=days * DAY_MS)
    world = World(a_loop(deploy=deploy))
    in_production(world)
    person(Trigger, world, cause="person")
    world.settle()
    world.wait(2)
    rollout = world.model().rollout
    assert rollout is not None
    world.label(rollout.version, 200)
    world.settle()
    (started,) = [a.event for a in world.done if isinstance(a, Tell)]
    definition = definition_of(started)
    assert definition.weights == (9_500, 500)
    assert definition.longest_ms == days * 4 * DAY_MS


def test_an_old_controller_is_not_heard():
    world = World(a_loop())
    in_production(world)
    person(Trigger, world, cause="person")
    old = world.epoch
    world.restart()
    action = world.next()
    assert isinstance(action, Say)
    world.act(action, epoch=old)
    assert not world.model().runs
    assert world.fold.ignored == 1
    world.settle()
    assert len(world.model().runs) == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_lost_or_said_twice(data):
    """Kill the controller before or after any event, write any twice, wake an old one up."""
    world = World(a_loop(deploy=Deploy(stages=(0, 5, 100), min_time_ms=0, min_labels=5)))
    in_production(world)
    world.alert("v1.0.0")
    epochs = [world.epoch]
    back = data.draw(st.booleans(), "rollback")
    for _ in range(60):
        action = world.next()
        rollout = world.model().rollout
        if action is None:
            if rollout is None or rollout.state == "watch":
                break
            if back and rollout.step == 1:
                world.verdict("rollback")
                back = False
                continue
            world.label(rollout.version, 5)
            world.wait(1)
            continue
        what = data.draw(st.sampled_from(["do", "do", "twice", "lost", "after", "old"]))
        if what == "lost":
            world.restart()
        elif what == "old" and len(epochs) > 1:
            world.act(action, epoch=epochs[0])
        else:
            world.act(action, twice=what == "twice")
            if what == "after":
                world.restart()
        if world.epoch != epochs[-1]:
            epochs.append(world.epoch)
    model = world.model()
    assert len(model.runs) == 1
    assert list(model.stages.values()).count("production") == 1
    again = Fold()
    for value in world.log:
        again.take(value)
    assert msgspec.to_builtins(again.of(MODEL)) == msgspec.to_builtins(model)
    if model.rollout is None:
        assert model.champion == "v1.0.0"
    else:
        assert model.champion == model.rollout.version


def test_the_id_of_an_event_is_in_it_once():
    trigger = Trigger(model=MODEL, at="2026-01-01T00:00:00Z", cause="person", by="ana").named()
    assert encode(trigger).count(trigger.id.encode()) == 1


def test_what_is_known_of_versions_is_bounded(monkeypatch):
    """What is in use stays, and the events stay small."""
    monkeypatch.setattr("stream_monitor.lifecycle.fold.VERSIONS_MAX", 100)
    monkeypatch.setattr("stream_monitor.lifecycle.model.RETIRED_MAX", 50)
    world = World(ModelLoop(repository="."))
    for i in range(150):
        name = f"v1.{i}.0"
        world.write(
            Version(model=MODEL, at=rfc3339(i), version=name, tag=f"c@{name}", revision="0").named()
        )
        m = world.model()
        before: dict[str, StageName] = dict.fromkeys(m.stages, "retired")
        said: dict[str, StageName] = {**before, "v1.0.0": "shadow", name: "production"}
        world.write(Stage(model=MODEL, at=rfc3339(i), by="ana", stages=said).named())
        world.write(Rejected(model=MODEL, at=rfc3339(i), by="ana", version=name).named())
    m = world.model()
    newest = "v1.149.0"
    assert len(m.versions) == 100
    assert {"v1.0.0", newest} <= m.versions.keys(), "one is in use since the beginning"
    assert len(m.deployed) <= 100
    assert len(m.rejected) <= 100
    assert (m.stages["v1.0.0"], m.champion) == ("shadow", newest)
    assert sum(s == "retired" for s in m.stages.values()) == 50
    assert "v1.148.0" in m.stages, "the oldest go"
    assert max(map(len, world.log)) < 2_500
