"""What `retrain` and `deploy` say: what happens, what it waits for, who may end it, and why."""

from __future__ import annotations

import pytest

from stream_monitor.cli import loop_lines as lines
from stream_monitor.errors import InputError
from stream_monitor.lifecycle.events import (
    Compared,
    Paused,
    Refused,
    Rollout,
    Stage,
    StageName,
    Trigger,
    Version,
)
from stream_monitor.lifecycle.model import Model, Run
from stream_monitor.lifecycle.observed import Observed
from stream_monitor.lifecycle_settings import AlertTrigger, ModelLoop, RunLimits, Step, Triggers

AT = "2026-01-01T00:00:00Z"
NOW_MS = 1_767_225_600_000 + 40_000
ALERT = "churn v1.0.0: accuracy is 0.79, below the limit of 0.8"
ASKED = Trigger(model="churn", at=AT, cause="alert", fingerprint="f", starts_at=AT, comment=ALERT)
LOOP = ModelLoop(
    repository=".",
    steps=(Step(name="train", command=("true",), timeout_ms=120_000),),
    triggers=Triggers(alerts=AlertTrigger(for_ms=60_000)),
)
OBSERVED = Observed(lambda: NOW_MS)
STEPS = ("collect", "train", "decide", "register")


def a_run(step: str | None, **more) -> Run:
    return Run("9f31c2", ASKED, STEPS, AT, AT, step=step, **more)


@pytest.mark.parametrize(
    ("run", "limits", "said"),
    [
        (a_run("train", started=True), {}, ("at most 2 min", "retrain cancel 9f31c2")),
        (a_run("collect", started=True), {}, ("at most 1 h", "retrain cancel 9f31c2")),
        (a_run("train"), {}, ("is `stream-monitor controller` running?", "retrain cancel")),
        (a_run("decide", started=True), {}, ("the controller, which does", "retrain cancel")),
        (a_run("approval"), {}, ("a person (limits.approval", "retrain approve 9f31c2")),
        (a_run("approval"), {"two_people": True}, ("not by controller", "retrain approve")),
        (
            a_run("register", results={"decide": {"decision": "inconclusive", "reason": "9 rows"}}),
            {},
            ("a person: the decision is inconclusive", "retrain approve 9f31c2"),
        ),
    ],
)
def test_a_run_says_what_it_waits_for_and_who_may_end_it(run, limits, said):
    loop = ModelLoop(repository=".", steps=LOOP.steps, limits=RunLimits(**limits))
    text = "\n".join(lines.run_lines("churn", run, loop, NOW_MS))
    assert all(part in text for part in said), text
    assert ALERT in text
    assert "40 s ago" in text


def test_without_a_run_it_says_what_the_last_was_and_what_holds_up_the_next():
    ended = a_run(
        None,
        end="done",
        version="v1.1.0",
        results={"decide": {"decision": "promote", "reason": "accuracy 0.9 against 0.4"}},
    )
    m = Model(runs={"9f31c2": ended})
    text = "\n".join(lines.idle_lines("churn", m, LOOP, OBSERVED, NOW_MS))
    for part in ("done, v1.1.0", ALERT, "promote: accuracy 0.9 against 0.4", "cooldown"):
        assert part in text
    history = "\n".join(lines.history_lines("churn", ended, NOW_MS))
    assert ALERT in history
    assert "promote: accuracy 0.9 against 0.4" in history
    silent = Model(pending={"a": ASKED})
    assert "is `stream-monitor controller` running?" in "\n".join(
        lines.idle_lines("churn", silent, LOOP, OBSERVED, NOW_MS)
    )
    fresh = "\n".join(lines.idle_lines("churn", Model(), LOOP, OBSERVED, NOW_MS))
    assert "1000" in fresh  # of new labels, which are not there


def test_a_rollout_says_what_it_waits_for_and_how_it_goes_on_and_back():
    rollout = Rollout(
        version="v1.1.0",
        against="v1.0.0",
        experiment="v1.1.0-a",
        stages=(25, 100),
        step=0,
        since=AT,
        run="9f31c2",
    )
    stages: dict[str, StageName] = {"v1.0.0": "production", "v1.1.0": "canary"}
    stage = Stage(
        model="churn", at=AT, stages=stages, rollout=rollout, reason="it \x1b[2Jis better"
    )
    m = Model(stages=stages, stage=stage, runs={"9f31c2": a_run(None, end="done")})

    def said(m: Model, waits: str | None) -> str:
        return "\n".join(lines.deploy_lines("churn", m, LOOP, waits, NOW_MS))

    text = said(m, "7 of 200 labels")
    for part in ("25 % of the traffic", "7 of 200 labels", "deploy promote", ALERT, "it ?[2Jis"):
        assert part in text
    assert "is `stream-monitor controller` running?" in said(m, None)
    assert "baseline" not in text
    made = Version(
        model="churn", at=AT, version="v1.1.0", tag="t", revision="0", reference="ab" * 16
    )
    m.versions = {"v1.1.0": made}
    assert "baseline abababababab of v1.1.0: workers use it from its place" in said(m, None)
    m.paused = Paused(model="churn", at=AT, by="ana")
    assert "deploy resume churn" in said(m, "paused by ana")
    m.compared = Compared(
        model="churn",
        at=AT,
        version="v1.0.0",
        against="v0.9.0",
        before={"accuracy": 0.5, "labels": 7.0},
        after={"accuracy": 0.75, "labels": 9.0},
    )
    assert "v0.9.0 → v1.0.0: accuracy 0.5 → 0.75 (7 and 9 labels)" in said(m, "a")
    assert "models promote VERSION" in said(Model(), None)


def test_a_refusal_names_its_reason():
    m = Model(refused=[Refused(model="churn", at=AT, trigger="a", reason="cooldown")])
    assert "cooldown" in "\n".join(lines.refusal_lines(m, NOW_MS))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lifecycle: {models: {m: {repository: /nonexistent/x}}}", "no such directory"),
        ("lifecycle: {models: {m: {repository: .}}}", "not a git repository"),
        ("{}", "no model is configured under lifecycle.models"),
    ],
)
def test_a_controller_without_a_clone_does_not_start(tmp_path, monkeypatch, content, said):
    from click.testing import CliRunner

    from stream_monitor.cli import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "monitor.yaml").write_text(content)
    result = CliRunner().invoke(cli, ["controller", "--once"])
    assert isinstance(result.exception, InputError)
    assert said in str(result.exception)
