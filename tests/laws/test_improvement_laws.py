"""
Law: an improvement is told to nobody. Each kind of alert sees a model that gets better and the same
model that gets worse; only the second one is told.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.monitors.patterns import DAYS_MIN, Patterns, pattern
from stream_monitor.settings import Anomalies, Baseline, CoreSettings, ModelSettings
from stream_monitor.times import DAY_MS
from stream_monitor.verdicts import Kind

T0 = 1_760_000_000_000
ROWS, STEP_MS = 2_500, 200
NO_BETTER_SIDE: dict[Kind, str] = {
    "data_drift": "a feature that changed is neither better nor worse",
    "prediction_drift": "answers that changed are neither better nor worse",
    "freshness": "only silence is judged",
    "experiment": "an arm that is better is no alert: tests/laws/test_experiment_alert_laws.py",
    "fairness": "only a gap beyond its bound is judged, and the calls of this file have no groups",
    "calibration": "only a limit that somebody wrote is judged",
}
PATTERN = 20.0
"""z beyond which the patterns of this file are anomalies."""


class Quality:
    """How good the calls of a period are."""

    def __init__(self, *, good: bool) -> None:
        self.right = 0.95 if good else 0.75
        self.error = 1.0 if good else 4.0
        self.slow, self.failed = (0.0, 0.0) if good else (0.3, 0.12)
        self.missing, self.far = (0.0, 0.0) if good else (0.2, 0.15)


GOOD, BAD = Quality(good=True), Quality(good=False)


def call(rng: np.random.Generator, task: str, i: int, now: Quality) -> tuple[Any, Any]:
    """A prediction and its label; a failed call has none."""
    at, event_id = T0 + i * STEP_MS, f"e{i}"
    head = {"event_id": event_id, "model": "m", "version": "1", "timestamp": at}
    if rng.random() < now.failed:
        return {**head, "status": "error"}, None
    truth = int(rng.random() < 0.4)
    answer = truth if rng.random() < now.right else 1 - truth
    amount = float(rng.normal(0, 1)) + (50.0 if rng.random() < now.far else 0.0)
    features = {"amount": None if rng.random() < now.missing else amount}
    latency = float(rng.lognormal(1, 0.2)) * (20 if rng.random() < now.slow else 1)
    prediction: Any = {"prediction": answer}
    label: Any = truth
    if task == "regression":
        label = float(rng.normal(50, 5))
        prediction = {"prediction": label + float(rng.normal(0, now.error))}
    event = {**head, **prediction, "features": features, "latency_ms": latency}
    return event, {"event_id": event_id, "model": "m", "label": label, "timestamp": at}


def alerts_of(task: str, first: Quality, then: Quality) -> list[dict[str, Any]]:
    """Alert events of calls that change in the middle."""
    rng = np.random.default_rng(3)
    model = ModelSettings(
        task="regression" if task == "regression" else "auto",
        baseline=Baseline(rows=600),
        windows=("last_500", "1h"),
    )
    ingest, shard = Ingest(1), Shard(0, CoreSettings(defaults=model))
    told: list[dict[str, Any]] = []
    for start in range(0, 2 * ROWS, 50):
        quality = first if start < ROWS else then
        calls = [call(rng, task, i, quality) for i in range(start, start + 50)]
        now_ms = T0 + (start + 50) * STEP_MS
        for place, kind in enumerate(("predictions", "labels")):
            values = [json.dumps(c[place]).encode() for c in calls if c[place] is not None]
            at = np.arange(len(values)) + start
            ingest.take(f"{kind}@x/0", kind, values, at, np.full(len(values), now_ms))
        for record in ingest.flush(now_ms).get(0, []):
            shard.fold(record)
        shard.fold(tick(now_ms))
        told += [json.loads(out.value) for out in shard.outbox if out.topic == "alerts"]
        shard.outbox = []
    return told


@pytest.fixture(scope="module", params=["binary", "regression"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_model_that_gets_better_is_told_to_nobody(task: str) -> None:
    events = [e for e in alerts_of(task, BAD, GOOD) if e["kind"] not in NO_BETTER_SIDE]
    assert {e["severity"] for e in events} <= {"info"}, events
    assert not [e for e in events if e["notify"]]
    assert [e["kind"] for e in events if e["status"] == "firing"].count("concept_drift") >= 1, (
        "it is on the topic"
    )


def test_a_model_that_gets_worse_is_told_by_each_kind(task: str) -> None:
    """Otherwise the law before this one could not fail."""
    events = alerts_of(task, GOOD, BAD)
    firing = {e["kind"] for e in events if e["severity"] != "info"}
    assert firing >= set(get_args(Kind)) - set(NO_BETTER_SIDE)
    told = [e for e in events if e["notify"] and e["status"] != "resolved"]
    incidents = {e["incident"] for e in events if e["severity"] != "info"}
    assert {e["incident"] for e in told} == incidents
    assert len(told) < len([e for e in events if e["status"] == "firing"])


@pytest.mark.parametrize(
    ("missing", "outliers", "anomaly"),
    [(0, 100, False), (100, 0, False), (0, 0, False), (300, 100, True), (100, 300, True)],
)
def test_an_hour_with_fewer_faults_is_no_anomaly(
    missing: float, outliers: float, anomaly: bool
) -> None:
    patterns, settings = Patterns(), Anomalies(pattern_z=PATTERN, pattern_windows=1)
    for day in range(3 * DAYS_MIN):
        usual = pattern(10_000, 9_900, 5.0, 3.0, 100 + day % 2, 100 + day % 3)
        patterns.judge("x", day * DAY_MS, usual, settings)
    assert patterns.count == {}
    found = pattern(10_000, 9_900, 5.0, 3.0, missing, outliers)
    patterns.judge("x", 30 * DAY_MS, found, settings)
    assert (patterns.z["x"] > 5) == anomaly
    assert patterns.z["x"] >= 0
