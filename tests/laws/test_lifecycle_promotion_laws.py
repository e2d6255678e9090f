"""
Promotions: who may ask for one, what is said before and after, to which version the way back leads;
and what a year of events leaves in memory.
"""

from __future__ import annotations

import json

import pytest

from stream_monitor.cli.loop_lines import compared_line
from stream_monitor.lifecycle.actions import Execute, Say
from stream_monitor.lifecycle.events import (
    Approved,
    Asked,
    Compared,
    Refused,
    Rejected,
    Stage,
    Trigger,
    encode,
)
from stream_monitor.lifecycle.fold import ANSWERED_MAX, IDS_MAX, Fold
from stream_monitor.lifecycle.observed import Observed
from stream_monitor.lifecycle_settings import Deploy, ModelLoop, RunLimits
from stream_monitor.times import DAY_MS, MINUTE_MS, rfc3339
from tests.laws.test_lifecycle_laws import COMMANDS, a_loop, in_production, person, through
from tests.laws.test_lifecycle_people_laws import a_world, asks
from tests.lifecycle_world import MODEL, World

TWO = RunLimits(approval="promotion", two_people=True, min_new_labels=0)


# ---- before and after


class Served(World):
    """A world whose versions answer all the time; `history` tells each minute when it is over."""

    def __init__(self, loop: ModelLoop) -> None:
        self.observed = Observed(lambda: self.now_ms)
        self.rows: list[tuple[int, str, bool]] = []
        self.told = 0
        super().__init__(loop)

    def serve(self, version: str, seconds: int, wrong: int) -> None:
        """An answer a second; one of `wrong` is wrong."""
        for _ in range(seconds):
            self.rows.append((self.now_ms, version, len(self.rows) % wrong != 0))
            self.wait(1)
            minute = self.now_ms // MINUTE_MS
            if minute > self.told:
                self._tell((minute - 1) * MINUTE_MS)
                self.told = minute

    def _tell(self, start_ms: int) -> None:
        end_ms = start_ms + MINUTE_MS
        rows = [r for r in self.rows if start_ms <= r[0] < end_ms]
        for version in {v for _, v, _ in rows}:
            right = [ok for _, v, ok in rows if v == version]
            said = {"model": MODEL, "version": version, "labels": len(right)}
            said |= {"metrics": {"accuracy": sum(right) / len(right)}}
            said |= {"start": rfc3339(start_ms), "end": rfc3339(end_ms)}
            self.observed.take("history", json.dumps(said).encode())

    def labels(self, model: str, version: str | None, since_ms: int) -> int:
        return self.observed.labels(model, version, since_ms)

    def metrics(self, model: str, version: str, since_ms: int, until_ms: int) -> dict[str, float]:
        return self.observed.metrics(model, version, since_ms, until_ms)


def comparisons(world: World) -> list[Compared]:
    events = [a.event for a in world.done if isinstance(a, Say)]
    return [e for e in events if isinstance(e, Compared)]


@pytest.mark.parametrize("watch_s", [0, 20, 60, 300])
@pytest.mark.parametrize("late_s", [0, 31])
def test_a_promotion_is_compared_however_short_the_watch(watch_s: int, late_s: int):
    deploy = Deploy(stages=(100,), min_time_ms=0, min_labels=200, watch_ms=watch_s * 1_000)
    world = Served(a_loop(deploy=deploy))
    in_production(world)
    world.serve("v1.0.0", 400 + late_s, wrong=2)
    for version, before in (("v2.0.0", "v1.0.0"), ("v1.0.0", "v2.0.0"), ("v2.0.0", "v1.0.0")):
        person(Stage, world, stages={**world.model().stages, version: "shadow"})
        asks(world, "promote", version)
        world.settle()
        since_ms, had = world.now_ms, len(comparisons(world))
        for _ in range(max(watch_s, 180) + 70):
            world.serve(version, 1, wrong=10 if version == "v2.0.0" else 2)
            world.settle()
        assert world.model().rollout is None
        (found,) = comparisons(world)[had:]
        assert (found.version, found.against) == (version, before)
        rows = [r for r in world.rows if r[1] == version and r[0] >= since_ms]
        share = sum(ok for *_, ok in rows) / len(rows)
        assert found.after["accuracy"] == pytest.approx(share, abs=0.05)
        assert found.before["accuracy"] == pytest.approx(
            0.9 if before == "v2.0.0" else 0.5, abs=0.05
        )
        assert found.after["labels"] >= 60
        assert compared_line(world.model(), world.loop, world.now_ms).startswith(  # type: ignore[union-attr]
            f"{before} → {version}: accuracy "
        )


def test_a_promotion_without_labels_says_what_it_waits_for_and_then_gives_up():
    world = Served(a_loop(deploy=Deploy(stages=(100,), min_time_ms=0, watch_ms=0)))
    in_production(world)
    person(Stage, world, stages={"v1.0.0": "production", "v2.0.0": "shadow"})
    asks(world, "promote", "v2.0.0")
    world.settle()
    world.wait(200)
    assert world.settle() == []
    said = compared_line(world.model(), world.loop, world.now_ms)
    assert said is not None
    assert "v1.0.0 → v2.0.0: not compared yet" in said
    assert "whole minute" in said
    world.wait(2 * DAY_MS / 1e3)
    world.serve("v2.0.0", 300, wrong=2)
    assert world.settle() == []
    said = compared_line(world.model(), world.loop, world.now_ms)
    assert said is not None
    assert said.startswith("v1.0.0 → v2.0.0: not compared, ")


# ---- two people


def spoke(world: World, by: str, kind: type, **fields) -> None:
    world.wait(0.01)
    world.write(kind(model=MODEL, at=rfc3339(world.now_ms), by=by, **fields).named())
    world.settle()


@pytest.mark.parametrize("how", ["run", "rollout"])
def test_who_started_it_cannot_promote_it(how: str):
    world = a_world()
    world.loop = a_loop(limits=TWO, deploy=world.loop.deploy)
    version = "v1.1.0" if how == "run" else "v2.0.0"
    if how == "run":
        person(Trigger, world, cause="person")
        world.settle()
    else:
        asks(world, "start", version)
        world.settle()
    for by, what in (("ana", Asked), ("ana", Approved)):
        fields = {"what": "promote"} if what is Asked else {}
        spoke(world, by, what, version=version, **fields)
        assert world.model().rollout.step == 0  # type: ignore[union-attr]
    reason = world.model().stage.reason  # type: ignore[union-attr]
    assert "ana asked for promote" in reason
    assert "two_people wants another person" in reason
    spoke(world, "ben", Asked, what="promote", version=version)
    assert world.model().rollout.step == 1  # type: ignore[union-attr]
    through(world, 1)
    assert world.model().champion == "v1.0.0"
    spoke(world, "ben", Approved, version=version)
    spoke(world, "ana", Approved, version=version)  # takes nothing back
    assert world.model().champion == version


def test_straight_into_production_needs_two():
    world = a_world()
    world.loop = a_loop(limits=TWO, deploy=world.loop.deploy)
    spoke(world, "ana", Asked, what="promote", version="v2.0.0")
    assert world.model().champion == "v1.0.0"
    assert "deploy start v2.0.0" in world.model().stage.reason  # type: ignore[union-attr]
    spoke(world, "ben", Approved, version="v2.0.0")
    spoke(world, "ana", Asked, what="promote", version="v2.0.0")
    assert world.model().champion == "v2.0.0"


def test_without_two_people_one_is_enough():
    world = a_world()
    asks(world, "start", "v2.0.0")
    world.settle()
    asks(world, "promote")
    world.settle()
    assert world.model().rollout.step == 1  # type: ignore[union-attr]


def test_what_was_rejected_before_its_rollout_gets_none():
    world = a_world()
    person(Trigger, world, cause="person")
    while world.model().current is not None:
        action = world.next()
        assert action is not None
        world.act(action)
    person(Rejected, world, version="v1.1.0")
    world.settle()
    assert "v1.1.0" not in world.model().stages
    asks(world, "start", "v1.1.0")
    world.settle()
    assert world.model().stages["v1.1.0"] == "canary"


# ---- the way back


def test_one_way_back_after_the_other_leads_further_back():
    world = a_world()
    for version in ("v2.0.0", "v3.0.0"):
        asks(world, "promote", version)
        world.settle()
        world.wait(61)
        world.settle()
    assert world.model().before == "v2.0.0"
    person(Stage, world, stages={"v2.0.0": "production", "v3.0.0": "retired"})
    assert world.model().before == "v1.0.0"
    person(Stage, world, stages={"v1.0.0": "production", "v2.0.0": "retired"})
    assert world.model().before is None
    person(Stage, world, stages={"v1.0.0": "retired"})
    assert world.model().champions == ["v1.0.0"]


@pytest.mark.parametrize("straight", [False, True])
def test_commands_are_taken_back_after_a_persons_rollback(straight: bool):
    """The command writes both events at once, and no controller need be there."""
    world = a_world(commands=COMMANDS)
    asks(world, "promote" if straight else "start", "v2.0.0")
    world.settle()
    r = world.model().rollout
    assert r is not None
    if not straight:
        stop = {"type": "experiment_stopped", "model": MODEL, "experiment": r.experiment}
        world.write({**stop, "by": "ana", "keep": "v1.0.0"})
    person(Stage, world, stages={"v1.0.0": "production", "v2.0.0": "retired"})
    undone = [a.command for a in world.settle() if isinstance(a, Execute)]
    assert undone == ["mesh", "pods"]
    world.restart()
    assert world.settle() == []


# ---- a year


def test_a_year_of_refusals_is_bounded_and_an_alert_that_still_fires_is_asked_again():
    fold = Fold()
    at = "2026-01-01T00:00:00Z"

    def an_episode(n: int) -> Trigger:
        start = f"{n}"
        return Trigger(model=MODEL, at=at, cause="alert", fingerprint="f", starts_at=start).named()

    for n in range(60_000):
        trigger = an_episode(n)
        fold.take(encode(trigger))
        refused = Refused(model=MODEL, at=at, trigger=trigger.id, reason="cooldown")
        fold.take(encode(refused.named()))
    m = fold.of(MODEL)
    assert 0.8 * ANSWERED_MAX < len(m.answered) <= ANSWERED_MAX
    assert len(fold.ids) <= IDS_MAX
    for n, waits in ((59_999, 0), (0, 1)):
        fold.take(encode(an_episode(n)))
        assert len(m.pending) == waits
