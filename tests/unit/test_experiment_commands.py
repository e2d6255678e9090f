"""
`experiment start | change | status | stop | list` on the embedded broker, and what they refuse.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.cli.experiment_board import ExperimentBoard, board_of
from stream_monitor.cli.experiment_events import changed, started, stopped
from stream_monitor.cli.experiment_status import drawing
from stream_monitor.client.routing import Router
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.experiments.registry import Experiments
from stream_monitor.kafka.records import read_compacted, write
from stream_monitor.settings import CoreSettings, KafkaSettings, Settings
from tests.unit.test_topics_schema import SCHEMAS, accepts

AT, NOW_MS = "2026-11-02T09:00:00.000Z", 1_793_797_200_000
WANTED: dict[str, Any] = {
    "model": "fraud",
    "experiment": "x-1",
    "arms": [{"name": "control", "version": "3"}, {"name": "b"}],
    "weights": {"control": 99, "b": 1},
    "primary": {"metric": "accuracy", "effect": 0.02},
    "maturity": "1h",
}


def begun(**other: Any) -> tuple[ExperimentBoard, dict[str, Any]]:
    """A board with an experiment, and its event."""
    made = started({**WANTED, **other}, ExperimentBoard(), CoreSettings(), AT, "ana")
    return board_of([json.dumps(made.event).encode()]), made.event


def test_the_event_is_one_that_schema_router_and_worker_accept():
    board, event = begun()
    assert accepts(SCHEMAS["lifecycle"], event)
    assert event["ranges"] == [(9900, "control"), (10000, "b")]
    assert Router.from_event(event).arms == {"control": "3", "b": None}
    worker = Experiments(1_000, lambda _: 86_400_000)
    worker.take_event(json.dumps(event), 1)
    assert (worker.state.refused, len(worker.running("fraud"))) == ({}, 1)
    known = board.found("x-1", None)
    assert (known.percent, known.phase, known.is_running) == ({"control": 99, "b": 1}, 1, True)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"maturity": "2d"}, "longer than labels.max_delay of model 'fraud'"),
        ({"primary": {"metric": "acuracy", "effect": 0.1}}, "Did you mean 'accuracy'"),
        ({"guards": [{"metric": "latency", "effect": 0.1}]}, "Did you mean 'latency_ms'"),
        ({"weights": {"control": 99.995, "b": 0.005}}, "whole hundredths"),
        ({"weights": {"control": 60, "b": 50}}, "add up to 100"),
        ({"arms": ["control"]}, "2 to"),
        ({"primary": {"metric": "accuracy", "effect": 0}}, "greater than 0"),
        ({"primry": {}}, "Did you mean 'primary'"),
        ({"primary": {"metric": "accuracy", "efect": 0.1}}, "primary.efect"),
        ({"arms": [{"name": "a", "verion": "1"}, "b"]}, "Did you mean 'version'"),
        ({"ranges": [[10000, "b"]]}, "leave it out"),
        ({"duration": ["3d", "2d"]}, "longer than"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(other, says):
    with pytest.raises(InputError, match=says):
        begun(**other)


def test_a_name_is_used_once_and_a_model_has_a_few_experiments():
    board, event = begun()
    with pytest.raises(InputError, match="is running: the name salts"):
        started(WANTED, board, CoreSettings(), AT, None)
    made = started({**WANTED, "experiment": "x-2"}, board, CoreSettings(), AT, None)
    assert any("x-1 of the same model is running too" in note for note in made.notes)
    board.take(json.dumps(stopped(board.found("x-1", None), None, AT, None).event).encode())
    with pytest.raises(InputError, match="was stopped"):
        started(WANTED, board, CoreSettings(), AT, None)
    for n in range(4):
        board.take(json.dumps({**event, "experiment": f"y-{n}"}).encode())
    with pytest.raises(InputError, match="has 4 running experiments"):
        started({**WANTED, "experiment": "y-9"}, board, CoreSettings(), AT, None)


def test_a_change_moves_as_few_units_as_can_be_and_says_what_is_left_of_alpha():
    board, event = begun()
    router = Router.from_event(event)
    keys = [f"user-{i}" for i in range(20_000)]
    for step, (weights, least) in enumerate([((95, 5), 0.04), ((50, 50), 0.45), ((95, 5), 0.45)]):
        known = board.found("x-1", "fraud")
        made = changed(known, dict(zip(("control", "b"), weights, strict=True)), AT, None)
        assert accepts(SCHEMAS["lifecycle"], made.event)
        assert made.event["phase"] == step + 2
        assert any("only" in note and "of alpha" in note for note in made.notes)
        after = Router.from_event(json.loads(json.dumps(made.event)), router)
        moved = sum(router(k) != after(k) for k in keys) / len(keys)
        assert moved == pytest.approx(least, abs=0.012)
        board.take(json.dumps(made.event).encode())
        router = after
    assert board.found("x-1", None).phase == 4


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"control": 99, "b": 1}, "already"),
        ({"control": 99, "c": 1}, "has the arms control, b"),
        ({"control": 99}, "those of the arms"),
        ({"control": 99, "b": 2}, "add up to 100"),
    ],
)
def test_a_change_that_is_none_or_wrong_is_refused(weights, says):
    board, _ = begun()
    with pytest.raises(InputError, match=says):
        changed(board.found("x-1", None), weights, AT, None)


def test_steps_that_are_named_have_their_part_and_one_beyond_them_has_none():
    board, _ = begun(steps=[1, 5])
    made = changed(board.found("x-1", None), {"control": 95, "b": 5}, AT, None)
    assert made.notes == []
    board.take(json.dumps(made.event).encode())
    made = changed(board.found("x-1", None), {"control": 50, "b": 50}, AT, None)
    assert any("no part of alpha is left" in note for note in made.notes)


@pytest.mark.parametrize("seed", range(3))
def test_the_board_has_what_a_worker_makes_of_the_same_events(seed):
    import random

    chance = random.Random(seed)
    _, event = begun()
    values = []
    for _ in range(200):
        name = f"x-{chance.randrange(4)}"
        kind = chance.choice(["experiment_started", *["experiment_changed"] * 5, "muted"])
        kind = "experiment_stopped" if chance.random() < 0.02 else kind
        b = chance.choice([1, 5, 50, 70.5, 0.001])
        more = {"weights": {"control": 100 - b, "b": b}}
        of = event if kind == "experiment_started" else {"model": "fraud", **more}
        values.append({**of, "type": kind, "experiment": name, "ranges": None})
    worker = Experiments(1_000, lambda _: 86_400_000)
    for each in values:
        if each["type"] != "muted":
            worker.take_event(json.dumps(each), 1)
    board = board_of([*(json.dumps(v).encode() for v in values), b"{", b"[1]", None])
    found = {
        name: (e.stopped, e.phase, e.weights) for name, e in worker.state.of_model["fraud"].items()
    }
    assert {n: (not e.is_running, e.phase, e.weights) for (_, n), e in board.experiments.items()}[
        "x-1"
    ] == found["x-1"]
    assert {n for _, n in board.experiments} >= set(found)


def verdict(at: str, verdict: str, low: float | None, high: float | None, **more: Any) -> bytes:
    event = {
        "schema": 1,
        "type": "experiment_verdict",
        "model": "fraud",
        "experiment": "x-1",
        "id": f"{at}{verdict}",
        "arm": "b",
        "phase": 1,
        "verdict": verdict,
        "at": at,
        "because": ["failures"],
        "hours": 30,
        "units": {"control": 41_210, "b": 1_655},
        "evidence": {
            "accuracy": {"estimate": -0.02, "interval": [low, high], "ready": True},
            "failures": {"first": [391, 41], "share": 0.05, "e": 2_488.0, "needed": 400},
            "sample_ratio": {"e": 0.02, "needed": 1_000},
        },
        "fixed_horizon": {"accuracy": {"t": -1.3, "p": 0.19, "d": -0.03, "d_interval": [-1, 1]}},
    }
    return json.dumps(event | more).encode()


def test_status_draws_every_verdict_with_its_time_and_warns_of_one_planned_look():
    board, _ = begun()
    known = board.found("x-1", None)
    assert "no numbers yet" in "\n".join(drawing(known, NOW_MS))
    board.take(verdict("2026-11-03T10:00:00.5Z", "promote", -0.041, 0.001))
    board.take(verdict("2026-11-03T10:00:00.5Z", "promote", -0.041, 0.001))
    board.take(verdict("2026-11-04T10:00:00Z", "rollback", -0.03, None, phase=2, evil="\x1b[2J"))
    lines = drawing(known, NOW_MS)
    text = "\n".join(lines)
    assert "x-1  fraud  control 99 · b 1 %  phase 1" in lines[0]
    assert "b: rollback because of failures (calls fail more often)" in text
    assert "as of 2026-11-04 10:00:00Z (3 h ago), phase 2; units control 41,210 · b 1,655" in text
    assert "failures 41 of 432 in b, expected 5 % BROKEN (over 400)" in text
    drawn = [line for line in lines if "●" in line]
    assert len(drawn) == 2, "the same verdict twice is one"
    assert drawn[0].endswith("-2 [-4.1, +0.1] %  promote")
    assert drawn[1].endswith("-2 [-3, +inf] %  rollback")
    axis = next(line for line in lines if "accuracy, b − control" in line)
    assert axis.index("0 ") == drawn[0].index("┼"), "0 is where the interval crosses it"
    assert drawn[0].index("├") < drawn[0].index("●") < drawn[0].index("┤")
    assert "at one planned look: t -1.3, p 0.19, d -0.03 [-1, 1]. Valid at one planned" in text
    assert "\x1b" not in text


def progress(hours: float, half: float, **more: Any) -> bytes:
    """Numbers between verdicts: an interval of 2 % and so much on both sides."""
    evidence = {
        "accuracy": {
            "estimate": 0.02,
            "interval": [0.02 - half, 0.02 + half],
            "ready": False,
            "waits_for": {"effective_units": [120.4, 200]},
            "coverage": [0.991, 0.9],
        }
    }
    other = {"type": "experiment_progress", "id": f"p{hours}", "hours": hours, "because": []}
    return verdict(AT, "continue", None, None, **{**other, "evidence": evidence, **more})


def test_status_draws_numbers_between_verdicts_and_says_what_a_promotion_waits_for():
    board, _ = begun(duration=["3d", "9d"])
    for hours in (1, 2, 4, 8, 16, *range(24, 145, 24)):
        board.take(progress(hours, 0.5 / hours**0.5))
        board.take(progress(hours, 0.5 / hours**0.5))
    known = board.found("x-1", None)
    lines = drawing(known, NOW_MS)
    assert (known.verdicts, known.newest("b")) == ([], None), "numbers are no verdict"
    assert "no verdict yet" in lines[0]
    ages = [line[:12].strip() for line in lines if "●" in line]
    assert ages == ["4 h", "8 h", "16 h", "day 1", "day 2", "day 4", "day 6"]
    text = "\n".join(lines)
    assert "waits for accuracy: 120 of 200 effective units of each arm" in text
    assert "labels of calls that are mature: control 99.1 %, arm 90 %" in text
    board.take(verdict(AT, "promote", 0.01, 0.03, hours=145, id="v", because=["accuracy"]))
    board.take(progress(168, 0.03, id="after"))
    lines = drawing(known, NOW_MS)
    text = "\n".join(lines)
    assert "b: continue" in text
    assert "promote was told at 2026-11-02 09:00:00Z" in text
    assert "[+1, +3] %  promote" in text
    one, _ = begun(duration=["3d", "9d"], guards=[{"metric": "latency_ms", "effect": 0.05}])
    evidence = {"interval": [0.01, 0.03], "waits_for": {"share_of_one_unit": [0.314, 0.1]}}
    one.take(progress(100, 0.1, evidence={"accuracy": evidence, "latency_ms": evidence}))
    said = "\n".join(drawing(one.found("x-1", None), NOW_MS))
    for metric in ("accuracy", "latency_ms"):
        assert f"{metric}: one unit makes up 31% of the variance of an arm, at most 10% may" in said
    young, _ = begun(duration=["3d", "9d"])
    young.take(progress(30, 0.1, evidence={}))
    said = "\n".join(drawing(young.found("x-1", None), NOW_MS))
    assert "a promotion waits for 3 d of duration (30 h are over)" in said


@pytest.mark.parametrize(
    ("metric", "interval", "says"),
    [
        ({"metric": "accuracy", "effect": 0.02}, [-0.001, 0.05], "good side of 0"),
        ({"metric": "accuracy", "effect": 0.02}, [0.001, 0.05], ""),
        ({"metric": "error", "effect": 0.02}, [-0.05, 0.001], "good side of 0"),
        ({"metric": "error", "effect": 0.02}, [-0.05, -0.001], ""),
        (
            {"metric": "accuracy", "effect": 0.02, "goal": "not worse"},
            [-0.021, 0.05],
            "its margin",
        ),
        ({"metric": "accuracy", "effect": 0.02, "goal": "not worse"}, [-0.019, 0.05], ""),
        ({"metric": "latency_ms", "effect": 0.05, "goal": "not worse"}, [-0.1, 0.049], ""),
        (
            {"metric": "latency_ms", "effect": 0.05, "goal": "not worse"},
            [-0.1, 0.051],
            "its margin",
        ),
        ({"metric": "accuracy", "effect": 0.02}, [None, None], "good side of 0"),
    ],
)
def test_what_an_interval_still_lacks(metric, interval, says):
    board, _ = begun(primary=metric, duration=["1d", "9d"])
    found = {metric["metric"]: {"estimate": 0.0, "interval": interval, "ready": True}}
    board.take(progress(48, 0.1, evidence=found))
    text = "\n".join(drawing(board.found("x-1", None), NOW_MS))
    assert ("waits for" in text) == bool(says)
    assert says in text


def refused(kind: str, experiment: str, reason: str) -> bytes:
    event = {"schema": 1, "type": "experiment_refused", "model": "fraud", "at": AT}
    event |= {"experiment": experiment, "id": f"{kind}{experiment}", "reason": reason}
    return json.dumps({**event, "refused": f"experiment_{kind}"}).encode()


def test_what_the_worker_refused_is_shown_and_does_not_run():
    board, event = begun()
    known = board.found("x-1", None)
    board.take(refused("changed", "x-1", "too many phases"))
    assert "  refused: changed: too many phases" in drawing(known, NOW_MS)
    assert known.is_running
    board.take(refused("started", "x-1", "`maturity` is too long"))
    board.take(refused("started", "x-1", "`maturity` is too long"))
    assert not known.is_running
    assert board.running("fraud") == [], "it does not count as one of four"
    lines = drawing(known, NOW_MS)
    assert lines[0].endswith("refused: started: `maturity` is too long")
    assert "running" not in lines[0]
    with pytest.raises(InputError, match="was refused by the worker"):
        changed(known, {"control": 90, "b": 10}, AT, None)
    with pytest.raises(InputError, match="was refused by the worker: the name salts"):
        started(WANTED, board, CoreSettings(), AT, None)
    board.take(json.dumps(stopped(known, None, AT, None).event).encode())
    assert "stopped at" in drawing(known, NOW_MS)[0]
    other = board_of([json.dumps(event).encode()])
    other.take(json.dumps(stopped(other.found("x-1", None), None, AT, None).event).encode())
    other.take(refused("started", "x-1", "the name was used"))
    assert not other.found("x-1", None).refused, "of a start after its stop"


def test_what_cannot_be_read_is_listed_until_it_is_stopped(call):
    bad = {**WANTED, "type": "experiment_started", "experiment": "y", "weights": {"b": 1}}
    for value in (json.dumps(bad).encode(), refused("started", "y", "`weights` must add up")):
        asyncio.run(write(call.settings, "lifecycle", "fraud", value))
    assert call("list") == "y  fraud  refused: started: `weights` must add up\n"
    assert call("status") == call("list")
    (listed,) = call("list", "--json")
    assert (listed["running"], listed["refused"][0]["reason"]) == (False, "`weights` must add up")
    with pytest.raises(InputError, match="was refused: started: `weights` must add up"):
        call("status", "y")
    assert call("stop", "y") == "stopped y\n"
    assert call("list") == "no experiments\n"


@pytest.mark.parametrize("number", [None, "x", True, 10**400, [1], 1e308, 0, 0.0])
def test_status_survives_what_others_wrote(number):
    board, _ = begun()
    board.take(
        verdict(
            "then",
            "promote",
            number,
            number,
            evidence={"accuracy": {"estimate": number, "interval": [number, number]}},
            fixed_horizon={"accuracy": {"t": number, "p": number, "d": number, "d_interval": 1}},
        )
    )
    assert drawing(board.found("x-1", None), NOW_MS)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with start_in_thread(partitions=1) as running:
        (tmp_path / "monitor.yaml").write_text(
            f"kafka: {{bootstrap_servers: '{running.bootstrap}', topic_prefix: 'x.'}}\n"
        )

        def run(*words: str) -> Any:
            result = CliRunner().invoke(cli, ("experiment", *words))
            if result.exception is not None:
                raise result.exception
            lines = result.stdout.splitlines()
            return [json.loads(line) for line in lines] if "--json" in words else result.stdout

        kafka = KafkaSettings(bootstrap_servers=running.bootstrap, topic_prefix="x.")
        run.settings = Settings(kafka=kafka)  # type: ignore[attr-defined]  # for one test
        yield run


def test_the_life_of_an_experiment_from_the_command_line(call, tmp_path):
    assert call("list") == "no experiments\n"
    (tmp_path / "e.json").write_text(json.dumps(WANTED))
    (dry,) = call("start", "e.json", "--dry-run", "--json")
    assert call("list") == "no experiments\n", "a dry run writes nothing"
    before_s = time.time()
    (event,) = call("start", "e.json", "--by", "ana", "--guard", "error=0.005", "--json")
    assert event["by"] == "ana"
    assert event["guards"] == [{"metric": "error", "effect": 0.005}]
    assert dry.keys() - {"by"} <= event.keys()
    assert event["at"][:4] == time.strftime("%Y", time.gmtime(before_s))
    with pytest.raises(StreamMonitorError, match="is running"):
        call("start", "e.json")
    told = call("change", "x-1", "--weights", "control=95,b=5", "--because", "step 2")
    assert told == "x-1 is in phase 2: control 99 → 95 %, b 1 → 5 %\n"
    with pytest.raises(StreamMonitorError, match="Did you mean 'x-1'"):
        call("change", "x1", "--weights", "control=50,b=50")
    asyncio.run(
        write(call.settings, "lifecycle", "fraud", verdict(AT, "rollback", -0.03, -0.01, phase=2))
    )
    (status,) = call("status", "--json")
    assert (status["phase"], status["weights"]) == (2, {"control": 95, "b": 5})
    assert status["arms"]["b"]["verdict"] == "rollback"
    assert "rollback" in call("status", "x-1")
    with pytest.raises(StreamMonitorError, match="Did you mean 'control'"):
        call("stop", "x-1", "--keep", "contrl")
    assert call("stop", "x-1", "--keep", "control") == "stopped x-1; control is kept\n"
    with pytest.raises(StreamMonitorError, match="was stopped at"):
        call("stop", "x-1")
    assert call("status").startswith("no experiment is running")
    (listed,) = call("list", "--json")
    assert (listed["running"], listed["kept"]) == (False, "control")
    assert "control kept  b rollback" in call("list")
    newest = asyncio.run(read_compacted(call.settings, "lifecycle"))
    assert json.loads(newest["fraud"])["type"] == "experiment_stopped", "the key is the model"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["start"], "`model` is missing"),
        (["start", "absent.json"], "cannot be read"),
        (["start", "--model", "m", "--arm", "a", "--arm", "b", "--name", "x"], "`primary` is"),
        (["change", "x", "--weights", "control"], "ARM=PERCENT"),
        (["change", "x", "--weights", "a=1,a=2"], "twice"),
        (["change", "x", "--weights", "a=many"], "expected a number"),
        (["change", "x", "--weights", "a=1,b=99"], "there is no experiment 'x'"),
        (["status", "x"], "experiment list"),
    ],
)
def test_options_that_are_wrong_name_themselves(call, words, says):
    with pytest.raises(StreamMonitorError, match=says):
        call(*words)
