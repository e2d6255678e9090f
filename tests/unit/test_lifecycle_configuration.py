"""`config check` refuses a loop that cannot work, at its key, and paths lead from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.config import load, parse
from stream_monitor.errors import ConfigError
from stream_monitor.lifecycle import matched_metrics, model
from stream_monitor.lifecycle_settings import METRICS, OWN_STEPS
from stream_monitor.settings import Settings

TRAIN = {"name": "train", "command": ["python", "train.py"]}
PODS = {"name": "pods", "command": ["kubectl", "apply"]}


def parsed(loop: dict[str, Any], *, name: str = "churn", **rest: Any) -> Settings:
    lifecycle = {"models": {name: {"repository": ".", **loop}}}
    return parse(json.dumps({"lifecycle": lifecycle, **rest}))


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": [{**TRAIN, "command": []}]}, "steps", "step train: `command` is empty"),
    ({"steps": [{**TRAIN, "command": [""]}]}, "steps", "step train: `command` is empty"),
    ({"steps": [TRAIN, TRAIN]}, "steps", "two are called train"),
    ({"steps": [{**TRAIN, "environment": ["A=1"]}]}, "steps", "'A=1' is not the name"),
    *(({"steps": [{**TRAIN, "name": own}]}, "steps", f"{own} is a step") for own in OWN_STEPS),
    ({"deploy": {"commands": [PODS, PODS]}}, "deploy.commands", "two are called pods"),
    (
        {"deploy": {"commands": [{**PODS, "rollback": [" "]}]}},
        "deploy.commands",
        "rollback of",
    ),
    ({"deploy": {"stages": []}}, "deploy.stages", "the last stage must be 100"),
    ({"deploy": {"stages": [0, 5]}}, "deploy.stages", "the last stage must be 100"),
    ({"deploy": {"stages": [5, 5, 100]}}, "deploy.stages", "must ascend"),
    ({"deploy": {"stages": [25, 5, 100]}}, "deploy.stages", "must ascend"),
    ({"deploy": {"stages": [0.125, 100]}}, "deploy.stages", "whole hundredths"),
    ({"deploy": {"stages": [-1, 100]}}, "deploy.stages", "0 to 100"),
    ({"deploy": {"maturity": "31d"}}, "deploy.maturity", "more than labels.max_delay"),
    ({"deploy": {"min_time": "2d"}}, "deploy.min_time", "more than deadline"),
    ({"artifact": "churn.v2"}, "artifact", "cannot stand before the @"),
    ({"artifact": "a//b"}, "artifact", "cannot stand before the @"),
    ({"artifact": "a" * 129}, "artifact", "cannot stand before the @"),
    ({"remote": "--upload-pack=x"}, "remote", "not a name that git takes"),
    ({"base": "-x"}, "base", "not a name that git takes"),
    ({"limits": {"two_people": True}}, "limits.two_people", "set approval to run or promotion"),
    ({"branch": "main"}, "branch", "main is `base`"),
    ({"branch": "-f"}, "branch", "not a name that git takes"),
    ({"triggers": {"schedule": "every monday"}}, "triggers.schedule", "not a crontab"),
    ({"triggers": {"schedule": "61 3 * * 1"}}, "triggers.schedule", "not a crontab"),
    ({"collect": {"output": "/etc/passwd"}}, "collect.output", "inside the work tree"),
    ({"collect": {"output": "../data.parquet"}}, "collect.output", "inside the work tree"),
    ({"decide": {"champion": "a/../../b"}}, "decide.champion", "inside the work tree"),
    ({"decide": {"metric": "acuracy"}}, "decide.metric", "must be one of accuracy"),
]


@pytest.mark.parametrize(("loop", "key", "words"), REFUSED)
def test_a_loop_that_cannot_work_is_refused_at_its_key(loop, key, words):
    with pytest.raises(ConfigError) as refused:
        parsed(loop)
    (problem,) = refused.value.problems
    assert f"lifecycle.models.churn.{key}" in problem
    assert words in problem


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"steps": [TRAIN, {**TRAIN, "name": "evaluate", "environment": ["AWS_PROFILE"]}]},
    {"deploy": {"stages": [100]}},
    {"deploy": {"stages": [0, 0.01, 99.99, 100], "commands": [{**PODS, "rollback": ["undo"]}]}},
    {"deploy": {"maturity": "1d"}},
    {"limits": {"two_people": True, "approval": "run"}},
    {"triggers": {"schedule": "0 3 * * 1"}},
    {"collect": None},
    *({"decide": {"metric": metric}} for metric in METRICS),
]


@pytest.mark.parametrize("loop", ACCEPTED)
def test_a_loop_that_works_is_taken(loop):
    assert parsed(loop).lifecycle.models["churn"].repository == "."


def test_the_name_of_a_model_is_its_artifact_if_it_can_be():
    with pytest.raises(ConfigError, match="cannot stand before the @"):
        parsed({}, name="Churn, v2")
    assert parsed({"artifact": "churn"}, name="Churn, v2").lifecycle.models["Churn, v2"]


def test_the_maturity_is_held_against_the_labels_of_its_own_model():
    loop = {"deploy": {"maturity": "2d"}}
    late, soon = {"labels": {"max_delay": "3d"}}, {"labels": {"max_delay": "1d"}}
    assert parsed(loop, defaults=soon, models={"churn": late})
    with pytest.raises(ConfigError, match="86400 s"):
        parsed(loop, defaults=late, models={"churn": soon})
    with pytest.raises(ConfigError, match="86400 s"):
        parsed(loop, defaults=soon)


def test_worker_controller_and_archive_need_a_port_each():
    content = {"lifecycle": {"port": 9_000}, "worker": {"metrics": {"port": 9_000}}}
    with pytest.raises(ConfigError, match=r"lifecycle\.port: is that of worker\.metrics"):
        parse(json.dumps(content))
    for taken, owner in (
        ({"archive": {"port": 9_108}}, r"worker\.metrics"),
        ({"archive": {"port": 9_109}}, "lifecycle"),
    ):
        with pytest.raises(ConfigError, match=rf"archive\.port: is that of {owner}"):
            parse(json.dumps(taken))
    free = {"lifecycle": {"port": 0}, "worker": {"metrics": {"port": 0}}, "archive": {"port": 0}}
    assert parse(json.dumps(free)).lifecycle.port == 0


def test_paths_lead_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf"
    folder.mkdir()
    loop = {"models": {"a": {"repository": "clone"}, "b": {"repository": "/srv/b"}}, "work": "w"}
    (folder / "monitor.yaml").write_text(
        json.dumps({"lifecycle": loop, "archive": {"path": "rows"}})
    )
    found = load("conf/monitor.yaml", {})
    assert found.lifecycle.models["a"].repository == "conf/clone"
    assert found.lifecycle.models["b"].repository == "/srv/b"
    assert (found.lifecycle.work, found.archive.path) == ("conf/w", "conf/rows")
    assert parse("").archive.path is None


def test_what_is_known_here_is_what_the_loop_has():
    assert set(METRICS) == set(matched_metrics.METRICS)
    own = (model.APPROVAL, model.COLLECT, model.DECIDE, model.REGISTER)
    assert own == OWN_STEPS
