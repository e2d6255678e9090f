"""
`deploy` and `retrain` on the embedded broker: who may promote, what a rollback does, and what it
refuses. What it refuses because a model file is gone is in `test_lifecycle_dvc.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.loop_board import LoopBoard
from stream_monitor.cli.loop_options import settings_of
from stream_monitor.config import load
from stream_monitor.demo.broker import BrokerThread, start_in_thread
from stream_monitor.kafka.records import write
from stream_monitor.lifecycle.events import (
    Accepted,
    Event,
    Rollout,
    Stage,
    Trigger,
    Version,
    encode,
)
from stream_monitor.lifecycle.model import Model
from stream_monitor.settings import Settings

AT = "2026-01-01T00:00:00Z"
SPLIT = {"v1.0.0": 75, "v2.0.0": 25}
ROLLOUT = Rollout(
    version="v2.0.0",
    against="v1.0.0",
    experiment="v2.0.0-abc",
    stages=(25.0, 100.0),
    step=0,
    since=AT,
    by="ana",
)


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with start_in_thread() as running:
        yield running


def configured(
    folder: Path, broker: BrokerThread, repository: Path, limits: str = "{}"
) -> Settings:
    text = (
        f"kafka: {{bootstrap_servers: '{broker.bootstrap}'}}\n"
        f"lifecycle: {{models: {{churn: {{repository: '{repository}', limits: {limits}}}}}}}\n"
    )
    (folder / "monitor.yaml").write_text(text)
    return load(str(folder / "monitor.yaml"), {})


async def said(settings: Settings, *events: Event | dict[str, Any]) -> None:
    for event in events:
        value = json.dumps(event).encode() if isinstance(event, dict) else encode(event.named())
        await write(settings, "lifecycle", "churn", value)


def run(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, (*words, "--config", str(folder / "monitor.yaml")))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, str(result.exception)
    return result.exit_code, result.stdout + result.stderr


def state(folder: Path) -> Model:
    return LoopBoard.read(settings_of(str(folder / "monitor.yaml"))).fold.of("churn")


def started(name: str, weights: dict[str, int]) -> dict[str, Any]:
    event = {"type": "experiment_started", "model": "churn", "experiment": name, "at": AT}
    return {**event, "by": "ana", "weights": weights}


def staged(live: str, others: Any = None, rollout: Rollout | None = None) -> Stage:
    return Stage(
        model="churn", at=AT, stages={live: "production", **(others or {})}, rollout=rollout
    )


def a_version(version: str, **more: Any) -> Version:
    return Version(
        model="churn", at=AT, version=version, tag=f"churn@{version}", revision="0", **more
    )


def test_a_rollback_without_a_rollout_leads_to_the_version_before(tmp_path, broker):
    settings = configured(tmp_path, broker, tmp_path)
    asyncio.run(
        said(
            settings,
            *(a_version(v) for v in ("v1.0.0", "v3.0.0")),
            a_version("v2.0.0", artifact={"model.pkl": "md5:" + "ab" * 16}),
            staged("v1.0.0"),
            staged("v2.0.0", {"v1.0.0": "retired"}),
            staged("v3.0.0", {"v1.0.0": "retired", "v2.0.0": "retired"}),
            started("colours", {"v3.0.0": 50, "v2.0.0": 50}),
            started("sizes", {"small": 50, "large": 50}),
        )
    )
    code, told = run(tmp_path, "deploy", "rollback", "--comment", "bad")
    assert (code, "v2.0.0 is in production" in told) == (0, True), told
    assert "nobody looked for the files of v2.0.0" in told
    m = state(tmp_path)
    assert m.stages == {"v1.0.0": "retired", "v2.0.0": "production", "v3.0.0": "retired"}
    assert {n: (t.stopped, t.keep) for n, t in m.trials.items()} == {
        "colours": (True, "v2.0.0"),
        "sizes": (True, None),
    }
    run(tmp_path, "deploy", "rollback")
    assert state(tmp_path).champion == "v1.0.0"
    code, told = run(tmp_path, "deploy", "rollback")
    assert (code, "no version was in production before" in told) == (2, True), told
    for to, why in (("v1.0.0", "is in production already"), ("v9.0.0", "never deployed")):
        code, told = run(tmp_path, "deploy", "rollback", "--to", to)
        assert (code, why in told) == (2, True), told
    assert run(tmp_path, "deploy", "rollback", "--to", "v3.0.0")[0] == 0
    assert state(tmp_path).champion == "v3.0.0"


def test_a_rollback_of_a_rollout_leaves_other_experiments_alone(tmp_path, broker):
    settings = configured(tmp_path, broker, tmp_path)
    asyncio.run(
        said(
            settings,
            started("colours", {"red": 50, "blue": 50}),
            staged("v1.0.0", {"v2.0.0": "canary"}, ROLLOUT),
            started(ROLLOUT.experiment, SPLIT),
        )
    )
    code, told = run(tmp_path, "deploy", "rollback", "--to", "v2.0.0")
    assert (code, "is what the rollout brings" in told) == (2, True), told
    code, told = run(tmp_path, "deploy", "rollback")
    assert (code, "experiments that go on: colours" in told) == (0, True), told
    m = state(tmp_path)
    assert (m.champion, m.rollout, m.stages["v2.0.0"]) == ("v1.0.0", None, "retired")
    assert {n: t.stopped for n, t in m.trials.items()} == {"colours": False, "v2.0.0-abc": True}


def test_two_people_and_rejection(tmp_path, broker):
    limits = "{approval: promotion, two_people: true}"
    settings = configured(tmp_path, broker, tmp_path, limits)
    trigger = Trigger(model="churn", at=AT, cause="person", by="cleo").named()
    asyncio.run(
        said(
            settings,
            trigger,
            Accepted(model="churn", at=AT, trigger=trigger.id, run="9f31c2", steps=("train",)),
            a_version("v2.0.0", run="9f31c2"),
            staged("v1.0.0", {"v2.0.0": "canary"}, ROLLOUT),
            started(ROLLOUT.experiment, SPLIT),
        )
    )
    for who in ("ana", "cleo"):
        code, told = run(tmp_path, "deploy", "promote", "--by", who)
        assert (code, "two_people wants another person" in told) == (2, True), told
    code, told = run(tmp_path, "deploy", "rollback", "--to", "v9.0.0")
    assert code == 2, told
    assert run(tmp_path, "deploy", "promote", "--by", "ben")[0] == 0
    asked = state(tmp_path).asked
    assert asked is not None
    assert (asked.what, asked.by) == ("promote", "ben")
    code, told = run(tmp_path, "retrain", "reject", "9f3", "--by", "ben", "--comment", "no")
    assert (code, "ben rejected run 9f31c2" in told) == (0, True), told
    assert state(tmp_path).runs["9f31c2"].rejected_by == "ben"
    code, told = run(tmp_path, "deploy", "reject", "--by", "ben", "--json")
    assert (code, json.loads(told)["version"]) == (0, "v2.0.0"), told
    assert state(tmp_path).rejected == {"v2.0.0": "ben"}
    code, told = run(tmp_path, "deploy", "reject", "v1.0.0")
    assert (code, "deploy rollback` takes it back" in told) == (2, True), told
