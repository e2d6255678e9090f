"""
The law of a changed configuration of the loop: whatever key changes at a restart, a run under way
keeps its plan, and a rollout under way keeps its stages.

Rule of the file: `CHANGES` has every key of `lifecycle` and `archive`, found by walking the
structs. What is under way is compared before and after the restart, as the log has it and as the
next decisions do it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
import pytest

from stream_monitor.config import parse
from stream_monitor.config.checker import keys_of
from stream_monitor.frozen import Frozen
from stream_monitor.lifecycle.actions import Say, Work
from stream_monitor.lifecycle.events import Trigger
from stream_monitor.lifecycle_settings import Archive, Lifecycle
from stream_monitor.settings import Settings
from tests.laws.test_lifecycle_laws import in_production, person, through
from tests.lifecycle_world import MODEL, World

TRAIN: dict[str, Any] = {"name": "train", "command": ["true"]}
EVALUATE, PODS = {**TRAIN, "name": "evaluate"}, {**TRAIN, "name": "pods"}
BASE: dict[str, Any] = {
    "repository": "clone",
    "steps": [TRAIN, EVALUATE],
    "triggers": {"alerts": {"for": "0s"}},
    "limits": {"min_new_labels": 0},
    "deploy": {"stages": [0, 5, 100], "min_time": "1s", "min_labels": 10, "watch": "1m"},
}
M = "lifecycle.models.NAME."
CHANGES: dict[str, Any] = {
    "archive.path": "rows",
    "archive.keep": "30d",
    "archive.drop": ["email"],
    "archive.flush_interval": "5m",
    "archive.port": 0,
    "lifecycle.work": "elsewhere",
    "lifecycle.port": 0,
    "lifecycle.models": {"another": {"repository": "."}},
    M + "repository": "another",
    M + "remote": "upstream",
    M + "base": "next",
    M + "artifact": "other",
    M + "branch": "retrained",
    M + "verify_tags": True,
    M + "keep_runs": 1,
    M + "triggers.alerts": None,
    M + "triggers.alerts.kinds": ["volume"],
    M + "triggers.alerts.severity": "critical",
    M + "triggers.alerts.for": "1h",
    M + "triggers.schedule": "0 3 * * 1",
    M + "triggers.new_labels": 5,
    M + "limits.cooldown": "7d",
    M + "limits.max_a_week": 1,
    M + "limits.min_new_labels": 10**6,
    M + "limits.approval": "run",
    M + "limits.two_people": True,
    M + "collect": None,
    M + "collect.range": "90d",
    M + "collect.since_alert": False,
    M + "collect.output": "other.parquet",
    M + "steps": [TRAIN, EVALUATE, {**TRAIN, "name": "publish"}],
    M + "steps.NAME.name": [{**TRAIN, "name": "fit"}, EVALUATE],
    M + "steps.NAME.command": [{**TRAIN, "command": ["false"]}, EVALUATE],
    M + "steps.NAME.timeout": [{**TRAIN, "timeout": "1m"}, EVALUATE],
    M + "steps.NAME.retries": [{**TRAIN, "retries": 3}, EVALUATE],
    M + "steps.NAME.environment": [{**TRAIN, "environment": ["A"]}, EVALUATE],
    M + "decide.metric": "f1",
    M + "decide.rule": "not worse",
    M + "decide.margin": 0.5,
    M + "decide.alpha": 0.01,
    M + "decide.min_rows": 10**6,
    M + "decide.segments": ["country"],
    M + "decide.segment_margin": 0.5,
    M + "decide.unit": "user",
    M + "decide.positive_class": "1",
    M + "decide.latency_ratio": 9.0,
    M + "decide.size_ratio": 9.0,
    M + "decide.champion": "a.parquet",
    M + "decide.challenger": "b.parquet",
    M + "decide.anchor": "c.parquet",
    M + "deploy.stages": [50, 100],
    M + "deploy.metric": "error_rate",
    M + "deploy.effect": 0.5,
    M + "deploy.goal": "better",
    M + "deploy.unit": "event",
    M + "deploy.maturity": "1h",
    M + "deploy.settle": "1h",
    M + "deploy.min_labels": 10**6,
    M + "deploy.min_time": "1h",
    M + "deploy.deadline": "2d",
    M + "deploy.on_deadline": "rollback",
    M + "deploy.watch": "5h",
    M + "deploy.commands": [PODS],
    M + "deploy.commands.NAME.name": [{**PODS, "name": "mesh"}],
    M + "deploy.commands.NAME.command": [{**PODS, "command": ["false"]}],
    M + "deploy.commands.NAME.rollback": [{**PODS, "rollback": ["false"]}],
    M + "deploy.commands.NAME.timeout": [{**PODS, "timeout": "1m"}],
    M + "deploy.commands.NAME.environment": [{**PODS, "environment": ["A"]}],
}


def keys(kind: type[Frozen], path: str) -> Iterator[str]:
    """Every key below a section, with NAME for those of the user's own."""
    for key, (_, hint, _) in keys_of(kind).items():
        here = f"{path}.{key}"
        inner = [
            a for a in (hint, *get_args(hint)) if isinstance(a, type) and issubclass(a, Frozen)
        ]
        if not inner or hint is not inner[0]:
            yield here
        if inner:
            origin: Any = get_origin(hint)
            many = origin in {dict, tuple}
            yield from keys(inner[0], f"{here}.NAME" if many else here)


def test_every_key_is_there():
    assert set(CHANGES) == {*keys(Lifecycle, "lifecycle"), *keys(Archive, "archive")}


def changed(path: str) -> Settings:
    """The settings after one key was changed."""
    content: dict[str, Any] = {"lifecycle": {"models": {MODEL: json.loads(json.dumps(BASE))}}}
    at: Any = content
    *way, last = path.replace("models.NAME", f"models.{MODEL}").partition(".NAME")[0].split(".")
    for name in way:
        at = at.setdefault(name, {})
    value = CHANGES[path]
    at[last] = {**at[last], **value} if path == "lifecycle.models" else value
    if path.endswith("two_people"):
        at["approval"] = "run"
    return parse(json.dumps(content))


def begun() -> World:
    """A champion, and a run of an alert whose step `train` was begun."""
    base = parse(json.dumps({"lifecycle": {"models": {MODEL: BASE}}}))
    world = World(base.lifecycle.models[MODEL])
    in_production(world)
    world.alert("v1.0.0")
    for _ in range(20):
        action = world.next()
        if isinstance(action, Work) and action.step == "train":
            return world
        assert action is not None
        world.act(action)
    raise AssertionError("it never trains")


@pytest.mark.parametrize("path", CHANGES)
def test_a_run_under_way_keeps_its_plan(path):
    world = begun()
    (run,) = world.model().runs.values()
    plan, doing = msgspec.to_builtins(run), world.next()
    loop = changed(path).lifecycle.models[MODEL]
    assert (loop != world.loop) == path.startswith(M), "the change is one of this model, or is not"
    world.loop = loop
    world.restart()
    (after,) = world.model().runs.values()
    assert msgspec.to_builtins(after) == plan
    assert world.next() == doing
    worked = [a.step for a in world.settle() if isinstance(a, Work) and a.run == run.run]
    assert worked == ["train", "evaluate", "decide", "register"]
    assert world.model().runs[run.run].end == "done"


@pytest.mark.parametrize("path", CHANGES)
def test_a_rollout_under_way_keeps_its_stages(path):
    world = begun()
    through(world, 1)
    before = world.model().rollout
    assert before is not None
    assert (before.step, before.stages) == (1, (0, 5, 100))
    world.loop = changed(path).lifecycle.models[MODEL]
    world.restart()
    world.settle()
    after = world.model().rollout
    assert after is not None
    assert msgspec.to_builtins(after) == msgspec.to_builtins(before)
    assert world.model().trials[before.experiment].weights == {"v1.0.0": 95, "v1.1.0": 5}


def test_a_run_that_begins_later_has_the_new_plan():
    world = World(changed(M + "steps").lifecycle.models[MODEL])
    in_production(world)
    person(Trigger, world, cause="person")
    action = world.next()
    assert isinstance(action, Say)
    steps = msgspec.to_builtins(action.event)["steps"]
    assert steps == ("collect", "train", "evaluate", "publish", "decide", "register")
