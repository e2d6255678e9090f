"""
What starts a run, and how often: a schedule, new labels, an alert that flaps; and a run that is
cancelled in any of its steps. A crontab is held against one that is read minute by minute.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_monitor.lifecycle.actions import Say, Work
from stream_monitor.lifecycle.events import Cancelled, Trigger
from stream_monitor.lifecycle.schedule import last_before
from stream_monitor.lifecycle_settings import AlertTrigger, RunLimits, Triggers
from stream_monitor.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.laws.test_lifecycle_laws import a_loop, in_production, person, through
from tests.lifecycle_world import World

LIMITS = RunLimits(min_new_labels=0, cooldown_ms=HOUR_MS, max_a_week=100)
REJECT = {"decision": "reject", "reason": "not better"}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


def a_world(**triggers: Any) -> World:
    world = World(a_loop(triggers=Triggers(**triggers), limits=LIMITS))
    world.results["decide"] = REJECT
    in_production(world)
    return world


def goes_on(world: World, until_ms: int, every_ms: int) -> None:
    """Time passes, and the controller looks at the world now and then."""
    while world.now_ms < until_ms:
        world.settle()
        world.now_ms = min(world.now_ms + every_ms, until_ms)
    world.settle()


def asked(world: World) -> list[tuple[str, str]]:
    """Cause and time of each run."""
    return [(r.trigger.cause, r.trigger.at) for r in world.model().runs.values()]


# ---- the schedule

CRONTABS = ("0 3 * * 1", "30 2 * * *", "*/15 * * * *", "0 0 1 * *", "59 23 28-31 10 0")
SUNDAYS = (
    "2026-03-29T00:59:59.9",
    "2026-10-25T01:00:00",
    "2026-11-01T06:30:30",
    "2026-03-08T07:01",
)
"""When clocks change in Europe and America."""


def field_has(field: str, value: int) -> bool:
    first, _, step = field.partition("/")
    low, _, high = first.partition("-")
    if first != "*" and not int(low) <= value <= int(high or low):
        return False
    return not step or value % int(step) == 0


def is_due(crontab: str, at: datetime) -> bool:
    """As `crontab(5)` says it: of day and weekday one is enough if both are given."""
    minute, hour, day, month, weekday = crontab.split()
    days = [field_has(day, at.day), field_has(weekday, at.isoweekday() % 7)]
    on_day = any(days) if "*" not in (day, weekday) else all(days)
    return on_day and all(
        field_has(f, v) for f, v in ((minute, at.minute), (hour, at.hour), (month, at.month))
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("crontab", CRONTABS)
@settings(max_examples=20)
@given(now_ms=st.integers(ms("2026-01-01"), ms("2027-01-01")))
@example(now_ms=ms(SUNDAYS[0]))
@example(now_ms=ms(SUNDAYS[1]))
@example(now_ms=ms(SUNDAYS[2]))
@example(now_ms=ms(SUNDAYS[3]))
def test_the_newest_time_of_a_crontab_in_any_zone(zone, crontab, now_ms):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = last_before(crontab, now_ms)
    time.tzset()
    assert found is not None
    assert is_due(crontab, datetime.fromtimestamp(found / 1_000, UTC))
    at = datetime.fromtimestamp(found // 1_000, UTC) + timedelta(minutes=1)
    later = 0
    while at.timestamp() * 1_000 <= now_ms and later < 3_000:
        assert not is_due(crontab, at)
        at, later = at + timedelta(minutes=1), later + 1


@pytest.mark.parametrize("every_ms", [20_000, 7 * MINUTE_MS, 5 * HOUR_MS])
def test_a_run_at_each_time_and_no_other(every_ms):
    world = a_world(schedule="30 2 * * *")
    world.now_ms = ms("2026-10-23T12:00")
    goes_on(world, ms("2026-10-27T12:00"), every_ms)
    due = [f"2026-10-{day}T02:30:00.000Z" for day in (23, 24, 25, 26, 27)]
    assert asked(world) == [("schedule", at) for at in due]  # the first is of the last day


def test_a_run_begins_as_soon_as_it_is_due():
    world = a_world(schedule="0 3 * * 1")
    world.now_ms = ms("2026-11-23T02:59:59.999")
    world.settle()
    assert asked(world) == []
    world.wait(0.5)
    world.settle()
    assert asked(world) == [("schedule", "2026-11-23T03:00:00.000Z")]


@pytest.mark.parametrize("crontab", ["30 2 * * *", "0 3 * * 1", "*/10 * * * *"])
def test_who_was_away_for_several_times_does_one_run(crontab):
    world = a_world(schedule=crontab)
    world.now_ms = ms("2026-11-02T03:00:10")
    goes_on(world, ms("2026-11-02T03:00:20"), 10_000)
    assert len(asked(world)) == 1
    world.now_ms = ms("2026-11-26T17:05")  # three Mondays later, on a Thursday
    world.restart()
    goes_on(world, ms("2026-11-26T17:09"), MINUTE_MS)
    assert len(asked(world)) == 2
    newest = last_before(crontab, world.now_ms)
    assert newest is not None
    assert ms(asked(world)[1][1].removesuffix("Z")) == newest


def test_a_schedule_that_is_new_does_not_begin_with_a_time_long_ago():
    world = a_world(schedule="0 3 * * 1")
    world.now_ms = ms("2026-11-26T17:00")
    goes_on(world, ms("2026-11-30T02:59"), HOUR_MS)
    assert asked(world) == []
    goes_on(world, ms("2026-11-30T04:00"), HOUR_MS)
    assert asked(world) == [("schedule", "2026-11-30T03:00:00.000Z")]


# ---- labels


@settings(max_examples=30)
@given(st.data())
def test_labels_start_a_run_whenever_there_are_enough_new_ones(data):
    world = a_world(new_labels=50)
    new, runs = 0, 0
    for _ in range(data.draw(st.integers(1, 30))):
        n = data.draw(st.integers(0, 60))
        world.wait(2 * 3_600)
        world.label("v1.0.0", n)
        new += n
        world.wait(1)
        if data.draw(st.booleans()):
            world.restart()
        world.settle()
        if new >= 50:
            new, runs = 0, runs + 1
        assert [cause for cause, _ in asked(world)] == ["labels"] * runs
    assert not world.model().refused  # what must wait is not asked for


# ---- alerts that flap


@pytest.mark.parametrize("most", [1, 2, 5])
def test_of_200_episodes_a_week_few_are_runs_and_each_is_answered_once(most):
    r = random.Random(most)
    limits = RunLimits(min_new_labels=0, max_a_week=most, cooldown_ms=HOUR_MS)
    world = World(a_loop(limits=limits, triggers=Triggers(alerts=AlertTrigger(for_ms=MINUTE_MS))))
    world.results["decide"] = REJECT
    in_production(world)
    week_s = 7 * 86_400 / 200
    long_enough = 0
    for _ in range(200):
        world.alerts.clear()
        world.alert("v1.0.0")
        lasts_s = r.choice([30, 61, 600, 2_000])
        long_enough += lasts_s >= 60
        for _ in range(3):
            world.wait(lasts_s / 3 + 0.001)
            world.settle()
        if r.random() < 0.05:
            world.restart()
        world.alerts.clear()
        world.settle()
        world.wait(week_s - lasts_s)
    m, triggers = world.model(), said(world, "trigger")
    episodes = {t["fingerprint"] for t in triggers}
    of = {t["id"]: t["fingerprint"] for t in triggers}
    refused = Counter(of[e["trigger"]] for e in said(world, "refused"))
    assert len(m.runs) == most
    assert len(episodes) == long_enough
    assert set(refused.values()) == {1}
    assert len(refused) + len(m.runs) == len(triggers) <= long_enough + most
    assert m.refusals.keys() == {"max_a_week", "cooldown"} - ({"cooldown"} if most == 1 else set())


def said(world: World, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, world.log) if event["type"] == kind]


def test_an_alert_that_goes_on_is_not_forgotten_among_many_that_flap():
    limits = RunLimits(min_new_labels=0, max_a_week=1, cooldown_ms=HOUR_MS)
    world = World(a_loop(limits=limits))
    world.results["decide"] = REJECT
    in_production(world)
    world.alert("v1.0.0")
    world.settle()
    world.alerts.clear()
    world.alert("v1.0.0", "concept_drift")
    (lasting,) = world.alerts
    for _ in range(150):
        world.wait(60)
        world.alerts = [lasting]
        world.alert("v1.0.0")
        world.settle()
    world.alerts = [lasting]
    world.wait(8 * DAY_MS / 1_000)
    world.settle()
    assert len(world.model().runs) == 2
    newest = list(world.model().runs.values())[-1]
    assert newest.trigger.fingerprint == lasting.fingerprint


# ---- cancelled


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("step", ["approval", "collect", "train", "decide", "register"])
def test_a_run_is_cancelled_in_any_step(step, begun):
    limits = RunLimits(approval="run", min_new_labels=0)
    world = World(a_loop(limits=limits if step == "approval" else LIMITS))
    in_production(world)
    person(Trigger, world, cause="person")
    while (run := world.model().runs.get(world.model().current or "")) is None or run.step != step:
        action = world.next()
        assert action is not None
        world.act(action)
    if begun and step != "approval":
        action = world.next()
        assert isinstance(action, Say)
        world.act(action)
        assert isinstance(world.next(), Work)
    person(Cancelled, world, run=run.run)
    world.restart()
    world.settle()
    ended = world.model().runs[run.run]
    assert (ended.end, ended.reason) == ("cancelled", "cancelled by ana")
    assert (world.model().current, world.model().rollout) == (None, None)
    assert world.made == 0
    world.wait(2 * 3_600)
    if step != "approval":
        person(Trigger, world, cause="person")
        through(world, 2)
        assert world.model().champion == "v1.1.0"
