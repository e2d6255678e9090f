"""
Alerts and gauges of experiments: an arm that was rolled back fires once, until it gets no traffic;
a restart does not show; two equal arms are silent. Gauges are the sums of the fold, and end with
the experiment.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections import Counter
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import tick
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.schema import topics
from stream_monitor.settings import CoreSettings
from stream_monitor.stats.confidence_sequences import half_width
from tests.laws.test_experiment_laws import (
    CHANGED,
    START_MS,
    STARTED,
    Event,
    calls,
    folded,
    records,
    story,
    the_experiment,
)

STOPPED = {"schema": 1, "type": "experiment_stopped", "model": "m", "experiment": "x-1"}


def without_change(events: list[Event]) -> list[Event]:
    return [(kind, e) for kind, e in events if e.get("type") != "experiment_changed"]


def failing(events: list[Event], arm: str = "b") -> list[Event]:
    """A quarter of the calls of an arm fail."""

    def one(e: dict[str, Any]) -> dict[str, Any]:
        if e.get("variant") != arm or sum(e["event_id"].encode()) % 4:
            return e
        answer = {"prediction", "features"}
        return {k: v for k, v in e.items() if k not in answer} | {"status": "error"}

    return [(kind, one(e)) for kind, e in events]


def then(events: list[Event], *later: dict[str, Any], after: float = 0.7) -> list[Event]:
    """Events of the experiment in the middle of the others, a call after each."""
    place = int(len(events) * after)
    time_ms = events[place][1]["timestamp"]
    added = [("lifecycle", {**event, "timestamp": time_ms}) for event in later]
    return [*events[:place], *added, *events[place:]]


def judged(events: list[Event]) -> Shard:
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, [50] * 1_000))
    shard.fold(tick(events[-1][1]["timestamp"] + 2_000))
    return shard


def alerts(shard: Shard) -> list[dict[str, Any]]:
    found = [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
    return [a for a in found if a["kind"] == "experiment"]


def test_an_arm_that_is_rolled_back_fires_once_and_ends_when_the_experiment_is_stopped() -> None:
    from jsonschema import Draft202012Validator

    events = failing(without_change(story(5)))
    (alert,) = alerts(judged(events))
    place = ("severity", "subject", "segment", "detector", "status", "direction", "version")
    assert tuple(alert[key] for key in place) == (
        "critical",
        "x-1",
        {"arm": "b"},
        "race",
        "firing",
        "up",
        "",
    )
    assert alert["value"] > alert["threshold"] > 1
    first = alert["evidence"]["failures"]["first"]
    said = alert["summary"]
    assert f"of {sum(first):,} units with a failed call, {first[1]:,} had" in said
    assert said.startswith("m: experiment x-1, arm b: it fails more often than control")
    assert said.endswith("Give b the weight 0, or stop the experiment")
    schema = topics()["alerts"].schema
    assert schema is not None
    Draft202012Validator(schema).validate(alert)
    begun, ended = alerts(judged(then(events, STOPPED)))
    assert begun == alert
    assert (ended["status"], ended["fingerprint"]) == ("resolved", alert["fingerprint"])
    assert "was stopped" in ended["summary"]


def test_it_ends_when_the_weights_give_the_arm_no_traffic_and_fires_again_when_they_do() -> None:
    events = failing(without_change(story(5)))
    away = {**CHANGED, "weights": {"control": 100, "b": 0}}
    begun, ended = alerts(judged(then(events, away)))
    assert [begun["status"], ended["status"]] == ["firing", "resolved"]
    assert "no traffic" in ended["summary"]
    again = judged(then(then(events, away, after=0.6), CHANGED, after=0.8))
    assert [a["status"] for a in alerts(again)] == ["firing", "resolved", "firing"]
    assert len({a["fingerprint"] for a in alerts(again)}) == 1
    assert len({a["id"] for a in alerts(again)}) == 3


def test_it_goes_on_when_nobody_uses_the_model_for_long() -> None:
    """The model has no versions, so its only one has the name that the alert has: none."""
    events = failing(without_change(story(5)))
    for _, event in events:
        event.pop("version", None)
    shard = judged(events)
    for day in range(1, 10):
        shard.fold(tick(events[-1][1]["timestamp"] + day * 86_400_000))
    assert not list(shard.registry.in_use()), "it retired"
    assert [a["status"] for a in alerts(shard)] == ["firing"]


def test_it_ends_when_another_experiment_takes_the_place_of_the_stopped_one() -> None:
    others = [{**STARTED, "experiment": f"y-{i}"} for i in range(4)]
    shard = judged(then(failing(without_change(story(5))), STOPPED, *others))
    assert set(shard.experiments.state.of_model["m"]) == {f"y-{i}" for i in range(4)}
    found = [a["status"] for a in alerts(shard) if a["subject"] == "x-1"]
    assert found == ["firing", "resolved"]


@pytest.mark.parametrize("seed", range(2))
def test_a_restart_in_the_middle_does_not_show_in_its_alerts(seed: int) -> None:
    events = then(failing(without_change(story(seed))), STOPPED)
    log = records(events, [25] * 1_000)
    whole = folded(Shard(0, CoreSettings(), confirm_ms=0), log)
    rng = np.random.default_rng(seed)
    shard, told = Shard(0, CoreSettings(), confirm_ms=0), []
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        if rng.random() < 0.1:
            told += alerts(shard)
            shard.outbox = []
            parts = shard.snapshot()
            shard = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
            shard.log_time.confirm_ms = 0
    assert told + alerts(shard) == alerts(whole)
    assert [a["status"] for a in alerts(whole)] == ["firing", "resolved"]


def test_units_that_do_not_arrive_as_the_weights_say_are_a_warning() -> None:
    (alert,) = alerts(judged(without_change(story(6, units=3_000, n=6_000, share=0.6))))
    assert (alert["severity"], alert["detector"]) == ("warning", "sample_ratio")
    assert "the weights 50 : 50 say" in alert["summary"]
    assert "No number of this experiment can be trusted" in alert["summary"]


def test_units_that_change_their_arm_are_a_warning_with_the_router_in_it() -> None:
    rng = np.random.default_rng(3)
    events = [
        (kind, e | ({"variant": str(rng.choice(["control", "b"]))} if "variant" in e else {}))
        for kind, e in without_change(story(7))
    ]
    (alert,) = alerts(judged(events))
    assert (alert["severity"], alert["detector"]) == ("warning", "threshold")
    assert "Look at the router" in alert["summary"]


def test_an_arm_whose_metric_is_worse_says_by_how_much() -> None:
    events = without_change(story(8, n=8_000, units=2_000, wrong=0.2))
    found = [a for a in alerts(judged(events)) if a["detector"] == "sequence"]
    assert [(a["severity"], a["direction"]) for a in found] == [("critical", "down")]
    said = re.search(r"accuracy is worse than that of control, by (\S+) \(", found[0]["summary"])
    assert said is not None
    assert float(said[1]) == pytest.approx(found[0]["value"], rel=1e-3)


@pytest.mark.parametrize("seed", range(11, 13))
def test_two_equal_arms_are_silent(seed: int) -> None:
    events = [
        ("lifecycle", {**STARTED, "timestamp": START_MS}),
        *[(kind, e) for kind, e in calls(seed, 5_000, 1_500) if kind == "predictions"],
    ]
    shard = judged(events)
    assert the_experiment(shard).units.sums[:, 1, 1].min() > 2_000, "it looked at something"
    assert alerts(shard) == []


# ---- gauges


def gauges(shard: Shard) -> dict[tuple[str, ...], float]:
    return {
        (s.name.removeprefix("model_experiment_"), *s.labels[2:]): s.value  # type: ignore[union-attr]
        for s in shard.samples()
        if s.name.startswith("model_experiment_")
    }


def test_gauges_are_what_the_fold_has() -> None:
    events = without_change(story(8, n=5_000, units=2_000, wrong=0.0))
    shard = judged(events)
    found, experiment = gauges(shard), the_experiment(shard)
    arms = {"control", "b"}
    seen = {(e["variant"], e["unit"]) for kind, e in events if kind == "predictions"}
    assert {arm: found["units_total", arm] for arm in arms} == Counter(arm for arm, _ in seen)
    sums = experiment.units.sums[:, 1]  # error: 0 or 1
    rates = sums[:, 2] / sums[:, 1]
    assert found["estimate", "b", "error"] == pytest.approx(rates[1] - rates[0])
    units, n, _, nn, nx, xx = sums.T
    variance = (xx - 2 * rates * nx + rates**2 * nn) / n**2 * units / (units - 1)
    half = float(half_width(float(variance.sum()), 0.005, 0.05 * 0.95))  # of the first phase
    ends = found["lower", "b", "error"], found["upper", "b", "error"]
    assert ends == pytest.approx((rates[1] - rates[0] - half, rates[1] - rates[0] + half), rel=1e-6)
    assert 0 < found["coverage_ratio", "b", "accuracy"] < 1
    assert {key for key in found if key[0] == "verdict"} == {("verdict", "b", "continue")}
    assert 0 < found["evidence_ratio", "b", "race"] < 1
    assert found["rows_left_out_total", "no_unit"] == 0


def test_a_verdict_that_stays_is_the_one_that_is_shown() -> None:
    found = gauges(judged(failing(without_change(story(5)))))
    assert {key for key in found if key[0] == "verdict"} == {("verdict", "b", "rollback")}
    assert found["evidence_ratio", "b", "race"] > 1


def test_series_are_absent_before_there_is_an_interval_and_after_the_end() -> None:
    early = gauges(judged(without_change(story(8, n=100, units=50))))
    assert not {key[0] for key in early} & {"estimate", "lower", "upper"}
    assert early["units_total", "b"] > 0
    assert all(math.isfinite(v) for v in early.values())
    assert gauges(judged(then(without_change(story(8)), STOPPED))) == {}


def test_prometheus_takes_them(tmp_path: Any) -> None:
    shard = judged(failing(without_change(story(8, n=6_000, units=2_000))))
    page = Exporter(lambda: [shard.samples()], series_limit=5_000).render()
    families = {f.name for f in text_string_to_metric_families(page.decode())}
    assert {f"model_experiment_{n}" for n in ("units", "estimate", "verdict")} <= families
    if shutil.which("promtool"):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=page,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
