"""
People in the middle of the loop: whatever they ask for is done or answered, what they say about
stages and weights stands, and nothing that the loop began is left behind.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.client import Follower
from stream_monitor.events.decode import Groups
from stream_monitor.events.lifecycle import LifecycleDecoder
from stream_monitor.lifecycle.actions import Tell
from stream_monitor.lifecycle.events import (
    Asked,
    Claim,
    Paused,
    Rejected,
    Resumed,
    Stage,
    Trigger,
    Version,
    encode,
)
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle_settings import Deploy
from stream_monitor.monitors.releases import Releases
from stream_monitor.times import DAY_MS, rfc3339
from tests.laws.test_lifecycle_laws import a_loop, in_production, person, through
from tests.lifecycle_world import MODEL, World


def a_world(**deploy: Any) -> World:
    quick: dict[str, Any] = {"stages": (5, 25, 100), "min_time_ms": 1_000, "min_labels": 10}
    world = World(a_loop(deploy=Deploy(**{**quick, "watch_ms": 60_000, **deploy})))
    in_production(world)
    for version in ("v2.0.0", "v3.0.0"):
        made = Version(
            model=MODEL, at=rfc3339(world.now_ms), version=version, tag="t", revision="0"
        )
        world.write(made.named())
    return world


def asks(world: World, what: str, version: str | None = None) -> None:
    world.wait(0.01)
    person(Asked, world, what=what, version=version)


def running(world: World) -> tuple[str, int] | None:
    r = world.model().rollout
    return None if r is None else (r.version, r.step)


def by_hand(world: World, percent: int) -> None:
    r = world.model().rollout
    assert r is not None
    assert r.against is not None
    event = {"type": "experiment_changed", "model": MODEL, "experiment": r.experiment, "by": "ana"}
    world.write({**event, "weights": {r.against: 100 - percent, r.version: percent}})


def test_two_rollouts_asked_for_at_once():
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    asks(world, "start", "v3.0.0")
    world.settle()
    assert running(world) == ("v2.0.0", 0)
    assert "v2.0.0 is under way" in world.model().stage.reason  # type: ignore[union-attr]
    assert world.model().asked is None
    person(Asked, world, what="rollback")
    world.settle()
    assert running(world) is None  # what was answered is not done later


@pytest.mark.parametrize("version", ["v3.0.0", None, "v9.9.9"])
def test_a_promotion_is_of_its_version_alone(version):
    """The one that is asked for is not the one under way, or there is none any more."""
    world = a_world()
    if version != "v3.0.0":
        asks(world, "promote", version)
        world.settle()
        assert (world.model().champion, world.model().asked) == ("v1.0.0", None)
    asks(world, "start", "v2.0.0")
    world.settle()
    if version is not None:
        asks(world, "promote", version)
        world.settle()
    assert running(world) == ("v2.0.0", 0)
    assert world.model().asked is None


def test_what_is_asked_beside_an_event_of_the_controller_is_not_lost():
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    world.wait(2)
    world.label("v2.0.0", 10)
    action = world.next()  # the next stage; before it is written, somebody asks to go back
    assert action is not None
    asks(world, "rollback", "v2.0.0")
    world.act(action)
    world.settle()
    assert world.model().stages == {"v1.0.0": "production", "v2.0.0": "retired"}


@pytest.mark.parametrize("named", [{}, {"v1.1.0": "retired"}, {"v1.1.0": "shadow"}])
@pytest.mark.parametrize("live", ["v1.0.0", "v3.0.0"])
def test_stages_by_hand_end_the_rollout_and_its_experiment(named, live):
    world = a_world()
    person(Trigger, world, cause="person")
    through(world, 1)
    assert running(world) == ("v1.1.0", 1)
    person(Stage, world, stages={live: "production", **named})
    told = [a.event for a in world.settle() if isinstance(a, Tell)]
    assert [e["type"] for e in told] == ["experiment_stopped"]
    assert told[0].get("keep") == ("v1.0.0" if live == "v1.0.0" else None)
    world.restart()
    world.wait(60)
    assert world.settle() == []
    assert world.model().stages == {live: "production", **named}
    person(Stage, world, stages={"v2.0.0": "production"})
    assert world.settle() == []  # nor is v1.1.0 deployed because nobody names it any more


@pytest.mark.parametrize("how", ["promote", "resume"])
def test_weights_by_hand_and_then_it_goes_on(how):
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    by_hand(world, 50)
    world.settle()
    assert world.model().rollout.state == "paused"  # type: ignore[union-attr]
    if how == "promote":
        asks(world, "promote")
    else:
        person(Resumed, world)
    world.settle()
    assert running(world) == ("v2.0.0", 1 if how == "promote" else 0)
    assert world.model().rollout.state == "running"  # type: ignore[union-attr]
    through(world, 1 if how == "promote" else 2)
    assert world.model().champion == "v2.0.0"
    assert all(t.stopped for t in world.model().trials.values())


def test_a_version_that_was_rejected_can_be_asked_for_again():
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    person(Rejected, world, version="v2.0.0")
    world.settle()
    assert world.model().stages["v2.0.0"] == "retired"
    asks(world, "promote", "v2.0.0")
    world.settle()
    assert world.model().champion == "v2.0.0"


def test_a_way_back_without_a_champion():
    world = World(a_loop())
    person(Trigger, world, cause="person")
    world.settle()
    assert world.model().champion == "v1.1.0"
    person(Asked, world, what="rollback")
    world.settle()
    assert (world.model().champion, world.model().rollout) == (None, None)
    world.wait(60)
    assert world.settle() == []


@pytest.mark.parametrize(("keep", "live"), [("v2.0.0", "v2.0.0"), ("v1.0.0", "v1.0.0")])
def test_who_stops_the_experiment_ends_the_rollout(keep, live):
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    r = world.model().rollout
    assert r is not None
    event = {"type": "experiment_stopped", "model": MODEL, "experiment": r.experiment, "by": "ana"}
    world.write({**event, "keep": keep})
    world.settle()
    assert world.model().champion == live
    assert world.model().stages["v2.0.0"] == ("production" if live == "v2.0.0" else "retired")
    assert not [a for a in world.done if isinstance(a, Tell) and "stopped" in a.event["type"]]


def test_the_deadline_does_not_take_back_what_is_in_production():
    world = a_world(deadline_ms=1_000, watch_ms=DAY_MS, on_deadline="rollback")
    asks(world, "promote", "v2.0.0")
    world.settle()
    world.wait(60)
    world.settle()
    assert world.model().champion == "v2.0.0"


def test_a_pause_that_is_over_stops_nothing():
    world = a_world()
    person(Paused, world, until=rfc3339(world.now_ms + 60_000))
    person(Trigger, world, cause="person")
    world.settle()
    assert (world.made, running(world)) == (1, None)
    world.wait(61)
    world.settle()
    assert running(world) == ("v1.1.0", 0)


def test_stages_that_change_in_the_configuration_change_no_rollout_that_began():
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    world.loop = a_loop(deploy=Deploy(stages=(50, 100), min_time_ms=1, min_labels=10))
    world.restart()
    through(world, 1)
    r = world.model().rollout
    assert r is not None
    assert (r.stages, r.step) == ((5, 25, 100), 1)


def test_a_claim_that_was_forgotten_takes_no_event_with_it():
    world = a_world()
    asks(world, "promote", "v2.0.0")
    world.settle()
    fold = Fold()
    for value in world.log:
        if b'"claim"' not in value:
            fold.take(value)
    assert fold.of(MODEL).champion == "v2.0.0"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(-5, 99)), max_size=25))
def test_routers_controllers_and_workers_agree_on_who_counts(said):
    """Claims, their second records, stages of several controllers, and forged epochs."""
    fold, follower, releases = Fold(), Follower(MODEL), Releases()
    groups = Groups()
    decoder = LifecycleDecoder(groups, 1_000_000)
    claimed: dict[int, int] = {}
    newest, champion = -1, None
    for offset, (who, what, forged) in enumerate(said):
        if what == 0:
            claimed[who] = offset
            event: Any = Claim(model="", at="2026-01-01T00:00:00Z", host=str(who)).named()
        elif what == 1:
            event = Claim(model="", at="", host="", epoch=claimed.get(who, -1))
        else:
            event = Stage(
                model=MODEL,
                at=f"{offset}",
                epoch=forged if what == 5 else claimed.get(who, -1),
                stages={f"v{offset}.0.0": "production"},
            ).named()
        if event.epoch is not None and newest <= event.epoch < offset:  # the law
            newest = event.epoch
            champion = f"v{offset}.0.0" if isinstance(event, Stage) else champion
        value = encode(event)
        fold.take(value, offset)
        follower.take(value, offset)
        decoded = decoder.decode([value], np.array([0]), np.array([offset]))
        assert bool(decoded.rejects) == (isinstance(event, Stage) and (event.epoch or 0) >= offset)
        named = [list(groups)[g][2] for c in decoded.columns for g in c.groups]
        releases.take(list(enumerate(named)))
        assert fold.of(MODEL).champion == follower.version("user") == champion
        known = releases.of_model.get(MODEL, {})
        assert [v for v, r in known.items() if r.stage == "production"] == (
            [champion] if champion else []
        )


def test_a_batch_that_is_decoded_again_loses_nothing():
    """A transaction failed: the same records come again, after newer claims were seen."""
    stages = [
        (Stage(model=MODEL, at=str(i), epoch=epoch, stages={"v1.0.0": "production"}).named(), i)
        for epoch, i in ((2, 4), (5, 7), (2, 9))
    ]
    decoder = LifecycleDecoder(Groups(), 1_000_000)
    values = [encode(event) for event, _ in stages]
    for _ in range(2):
        found = decoder.decode(values, np.zeros(3, np.int64), np.array([i for _, i in stages]))
        assert [c.place.tolist() for c in found.columns] == [[0, 1]]


def test_a_forged_epoch_keeps_no_controller_out():
    world = a_world()
    forged = Stage(model=MODEL, at="x", epoch=10**12, stages={"v3.0.0": "production"})
    world.write(forged.named())
    world.write(msgspec.structs.replace(forged, epoch=len(world.log), at="y").named())
    asks(world, "promote", "v2.0.0")
    world.settle()
    assert (world.model().champion, world.fold.ignored) == ("v2.0.0", 2)
    assert world.fold.epoch == world.epoch


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_people_do(data):
    """Requests, stages, weights, verdicts and kills in any order: it comes to rest and is whole."""
    world = a_world(stages=data.draw(st.sampled_from([(5, 100), (0, 5, 25, 100), (100,)])))
    for _ in range(data.draw(st.integers(1, 12))):
        version = data.draw(st.sampled_from(["v1.0.0", "v2.0.0", "v3.0.0", "v9.9.9", None]))
        what = data.draw(st.integers(0, 11))
        world.wait(data.draw(st.sampled_from([0.5, 2, 61, DAY_MS / 500])))
        rollout = world.model().rollout
        if what < 3:
            asks(world, ("start", "promote", "rollback")[what], version)
        elif what == 3 and version:
            person(Stage, world, stages={version: "production"})
        elif what == 4:
            person(Trigger, world, cause="person")
        elif what == 5 and rollout is not None and world.model().trial is not None:
            by_hand(world, 50)
        elif what == 6 and rollout is not None:
            world.verdict("rollback")
        elif what == 7:
            person(Resumed, world)
        elif what == 8:
            person(Rejected, world, version=version)
        elif rollout is not None:
            world.label(rollout.version, 10)
        for _ in range(data.draw(st.integers(0, 4))):
            action = world.next()
            if action is not None:
                world.act(action)
        if data.draw(st.booleans()):
            world.restart()
    world.settle()
    model = world.model()
    assert list(model.stages.values()).count("production") <= 1
    assert model.asked is None
    assert not model.pending
    on = [n for n, t in model.trials.items() if t.of_rollout and not t.stopped]
    assert on in ([], [model.rollout.experiment if model.rollout else None])
    if model.trial is not None and model.rollout is not None and model.rollout.state == "running":
        r = model.rollout
        assert model.trial.weights[r.version] == r.stages[r.step]
    follower, again = Follower(MODEL), Fold()
    for offset, value in enumerate(world.log):
        again.take(value, offset)
        follower.take(value, offset)
    assert msgspec.to_builtins(again.of(MODEL)) == msgspec.to_builtins(model)
    served = {follower.version(f"user-{n}") for n in range(300)}
    arms = set(model.trial.weights) if on and model.trial is not None else None
    assert served in ({model.champion}, arms)
