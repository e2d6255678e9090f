"""
What the worker cannot use is told once each, with the reason and an id by hash, through restarts;
and an experiment that nothing judges is an alert until it is stopped.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_monitor.evaluate import Shard
from stream_monitor.experiments.registry import UNJUDGED_MAX, Experiments
from stream_monitor.ingest import tick
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.settings import CoreSettings
from tests.laws.test_experiment_alert_laws import STOPPED, alerts, judged, then
from tests.laws.test_experiment_laws import (
    CHANGED,
    START_MS,
    STARTED,
    calls,
    folded,
    records,
    told,
)
from tests.unit.test_topics_schema import SCHEMAS, accepts

HALF = {"control": 50, "b": 50}
FEW = [("lifecycle", {**STARTED, "timestamp": START_MS}), *calls(2, 250, 50)]


def restored(shard: Shard) -> Shard:
    parts = shard.snapshot()
    again = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
    again.log_time.confirm_ms = 0
    return again


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({**STARTED, "experiment": "y", "maturity": "2d"}, "longer than labels.max_delay"),
        ({**STARTED, "experiment": "y", "weights": {"control": 50, "b": 49}}, "add up to 100"),
        ({**STARTED, "experiment": "y", "arms": "none"}, "arms"),
        ({**STARTED, "experiment": 7}, "experiment"),
        ({**STARTED, "experiment": "y" * 200}, "1 to 128 characters"),
        ({**CHANGED, "weights": {"control": 50, "c": 50}}, "must be those of the arms"),
        ({**CHANGED, "weights": {"control": 50, "b": 51}}, "add up to 100"),
        ({**CHANGED, "weights": [1]}, "needs `model`, `experiment` and `weights`"),
        ({**CHANGED, "experiment": "absent"}, "no experiment 'absent'"),
        ({**STOPPED, "experiment": "absent"}, "its start is missing, or was refused"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_reason(event: dict[str, Any], says: str) -> None:
    shard = judged(then(FEW, event, event))
    found = told(shard, "refused")
    assert len(found) == 2
    assert found[0] == found[1], "the same event has the same id, whenever it is refused"
    first = found[0]
    assert accepts(SCHEMAS["lifecycle"], first), first
    assert says in first["reason"]
    assert (first["refused"], first["model"]) == (event["type"], "m")
    assert first.get("experiment", event["experiment"]) == str(event["experiment"])[:128] or (
        event["experiment"] == 7
    )
    assert first["at"].startswith("2025-10-09T")
    page = Exporter(lambda: [shard.samples()], series_limit=5_000).render().decode()
    name = "stream_monitor_experiment_events_refused"
    (family,) = [f for f in text_string_to_metric_families(page) if f.name == name]
    assert {s.labels["type"]: s.value for s in family.samples} == {
        kind: 2.0 * (kind == event["type"])
        for kind in ("experiment_started", "experiment_changed", "experiment_stopped")
    }


def test_what_can_be_used_is_no_refusal_and_no_alert() -> None:
    shard = judged(then(FEW, STARTED, {**CHANGED, "weights": HALF}, STOPPED))
    assert told(shard, "refused") == []
    assert alerts(shard) == []


def test_a_fifth_experiment_and_a_name_that_was_used_are_refused() -> None:
    more = [{**STARTED, "experiment": f"y-{i}"} for i in range(4)]
    found = told(judged(then(FEW, *more)), "refused")
    assert [e["experiment"] for e in found] == ["y-3"]
    assert "has 4 running experiments (x-1, y-0, y-1, y-2)" in found[0]["reason"]
    again = {**STARTED, "at": "2025-10-09T09:00:00Z"}
    (used,) = told(judged(then(FEW, STOPPED, again)), "refused")
    assert "was stopped, and a name is used once" in used["reason"]
    assert told(judged(then(FEW, STOPPED, STARTED)), "refused") == [], "said again"


def test_an_experiment_that_nothing_judges_is_an_alert_until_it_is_stopped() -> None:
    bad = {**STARTED, "experiment": "y", "maturity": "2d"}
    stop = {**STOPPED, "experiment": "y"}
    (alert,) = alerts(judged(then(FEW, bad)))
    assert accepts(SCHEMAS["alerts"], alert)
    place = ("status", "severity", "subject", "detector", "segment")
    assert [alert[k] for k in place] == ["firing", "warning", "y", "refused", None]
    assert "nothing judges it" in alert["summary"]
    assert "labels.max_delay" in alert["summary"]
    shard = judged(then(then(FEW, bad, after=0.5), stop, after=0.8))
    assert [a["status"] for a in alerts(shard)] == ["firing", "resolved"]
    assert len(told(shard, "refused")) == 1, "the stop is one that can be used"
    mended = {**bad, "maturity": "30m"}
    shard = judged(then(then(FEW, bad, after=0.5), mended, after=0.8))
    assert [a["status"] for a in alerts(shard)] == ["firing", "resolved"]


def test_a_restart_after_any_record_does_not_show() -> None:
    bad = {**STARTED, "experiment": "y", "maturity": "2d"}
    stop = {**STOPPED, "experiment": "y"}
    events = then(then(FEW, bad, bad, after=0.4), stop, stop, after=0.8)
    log = records(events, [30] * 100)
    whole = folded(Shard(0, CoreSettings(), confirm_ms=0), log)
    shard = Shard(0, CoreSettings(), confirm_ms=0)
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        shard = restored(shard)
    end = tick(events[-1][1]["timestamp"] + 2_000)
    for each in (whole, shard):
        each.fold(end)
    assert shard.outbox == whole.outbox
    assert [a["status"] for a in alerts(whole)] == ["firing", "resolved"]


def test_refusals_are_bounded() -> None:
    worker = Experiments(1_000, lambda _: 1_000)
    for i in range(3 * UNJUDGED_MAX):
        bad = {**STARTED, "model": f"m-{i % 7}", "experiment": f"y-{i}"}
        assert len(worker.take_event(json.dumps(bad), START_MS)) == 1
    assert sum(map(len, worker.state.unjudged.values())) == UNJUDGED_MAX
    assert worker.state.refused == {"experiment_started": 3 * UNJUDGED_MAX}


def test_a_fold_takes_what_anybody_writes() -> None:
    worker = Experiments(1_000, lambda _: 86_400_000)
    odd: list[Any] = [
        None,
        True,
        -1,
        0.5,
        10**30,
        "x",
        "",
        [],
        [[]],
        {},
        {"b": 1e308},
        "\ud83d\ude00" * 99,
    ]
    keys = [k for k in STARTED if k not in {"type", "model", "schema"}]
    for kind in ("experiment_started", "experiment_changed", "experiment_stopped"):
        for key in keys:
            for value in odd:
                event = {**STARTED, "type": kind, key: value}
                for out in worker.take_event(json.dumps(event), START_MS):
                    assert accepts(SCHEMAS["lifecycle"], json.loads(out.value))


def test_calls_alone_tell_nothing() -> None:
    shard = judged(calls(1, 300, 50))
    assert told(shard, "refused") == []
