"""
Laws of EVALUATE: how the log was cut, repeated, snapshotted and restored never shows; what was
counted adds up.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.settings import (
    Anomalies,
    Baseline,
    CoreSettings,
    CustomMetric,
    Drift,
    Feature,
    Limits,
    Metrics,
    ModelSettings,
    Segment,
    Threshold,
)

T0 = 1_760_000_000_000
CUSTOM = {
    "y": CustomMetric(
        type="histogram", field="features.y", labels=("c",), buckets=(-1.0, 0.0, 1.0)
    ),
    "spread": CustomMetric(type="summary", field="features.x"),
    "yes": CustomMetric(type="counter", field="prediction", labels=("c", "nowhere")),
    "last": CustomMetric(type="gauge", field="score"),
}
SETTINGS = CoreSettings(
    defaults=ModelSettings(
        baseline=Baseline(rows=150),
        windows=("last_300", "1h"),
        segments=(Segment(name="c"), Segment(name="x", cut=(-1.0, 1.0))),
        features={"y": Feature(unique=True)},
        thresholds={"accuracy": Threshold(min=0.8, min_labels=50)},
        anomalies=Anomalies(topic=True, sample=0.5, reference="trailing", trailing_rows=100),
        metrics=Metrics(custom=CUSTOM),
        drift=Drift(
            errors={"adwin": {}, "page_hinkley": {}, "evidence": {}},
            features={"adwin": {}, "evidence": {}},
        ),
    )
)


def events(n: int, seed: int) -> list[tuple[str, bytes, int]]:
    """
    (kind, value, time) of two models with a drift, a broken field, duplicates, late and corrected
    labels, and failures.
    """
    rnd = random.Random(seed)
    out = []
    for i in range(n):
        late = i > n // 2
        model = "a" if i % 3 else "b"
        x = rnd.gauss(2.0 if late else 0.0, 1)
        wrong = rnd.random() < (0.4 if late else 0.1)
        features: dict[str, Any] = {"x": x, "y": rnd.gauss(0, 1), "c": rnd.choice(["u", "v", "w"])}
        if late and rnd.random() < 0.3:
            features["y"] = rnd.choice([None, "text", [1], 1e300])
        event = {
            "event_id": f"e{i}",
            "model": model,
            "version": str(i % 2),
            "timestamp": T0 + i * 50,
            "prediction": int(x > 0),
            "score": 1 / (1 + np.exp(-x)),
            "features": features,
        }
        if rnd.random() < 0.02:
            event = {
                "event_id": f"e{i}",
                "model": model,
                "version": str(i % 2),
                "timestamp": T0 + i * 50,
                "status": "error",
            }
        out.append(("predictions", json.dumps(event).encode(), T0 + i * 50))
        if rnd.random() < 0.05:
            out.append(("predictions", json.dumps(event).encode(), T0 + i * 50))
        truth, time_ms = int((x > 0) ^ wrong), T0 + i * 50 + 10
        label = {
            "event_id": f"e{i}",
            "label": truth,
            "timestamp": time_ms,
            **({"model": model} if rnd.random() < 0.5 else {}),
        }
        out.insert(
            len(out) - rnd.randrange(0, min(len(out), 40)),
            ("labels", json.dumps(label).encode(), T0 + i * 50),
        )
        if rnd.random() < 0.05:
            out.append(
                (
                    "labels",
                    json.dumps({**label, "label": 1 - truth, "timestamp": time_ms + 5}).encode(),
                    T0 + i * 50,
                )
            )
    return out


def log_of(rows: list[tuple[str, bytes, int]], size: int, second_ms: int = 1_000) -> list[bytes]:
    """
    The log of one partition: flushed at least once a second of time, and in pieces of at most
    `size` events.
    """
    ingest, out, offsets = Ingest(1), [], {"predictions": 0, "labels": 0}
    buffered, second = 0, None
    now = T0
    for kind, value, time in [*rows, ("", b"", 0)]:
        if buffered and (not kind or buffered >= size or time // second_ms != second):
            out += ingest.flush(now // second_ms * second_ms).get(0, [])
            buffered = 0
        if not kind:
            break
        now, second = max(now, time), time // second_ms
        assert not ingest.take(
            f"{kind}@id/0", kind, [value], np.array([offsets[kind]]), np.array([time])
        )
        offsets[kind] += 1
        buffered += 1
    return out


def told(shard: Shard) -> list[dict[str, Any]]:
    return [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]


def folded(log: list[bytes], shard: Shard | None = None) -> Shard:
    shard = shard or Shard(0, SETTINGS)
    for record in log:
        shard.fold(record)
    return shard


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, bytes, int]]:
    return events(1_800, 1)


@pytest.fixture(scope="module")
def log(rows) -> list[bytes]:
    """Cut by the second most records would be one row: labels are among rows of another second."""
    return log_of(rows, 50, second_ms=3_000)


@pytest.fixture(scope="module")
def whole(log) -> Shard:
    """All of the log, for comparison: nobody changes it."""
    return folded(log)


@pytest.fixture(scope="module")
def coarse(rows) -> Shard:
    """The same of a log in large pieces."""
    return folded(log_of(rows, 1_000))


def shown(shard: Shard) -> dict[tuple[Any, ...], Any]:
    """Every sample of the shard by name and labels."""
    return {
        (s[0], s[1]): tuple(s[2:]) for s in shard.samples() if s[0] != "stream_monitor_state_bytes"
    }


def near(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(near(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(near, a, b))
    return a == pytest.approx(b, rel=1e-9, abs=1e-9) if isinstance(a, float) else bool(a == b)


def test_something_happens(coarse):
    shard = coarse
    kinds = {(a["model"], a["kind"]) for a in told(shard)}
    assert {
        ("a", "performance"),
        ("a", "concept_drift"),
        ("a", "data_drift"),
        ("a", "data_quality"),
    } <= kinds
    assert any(a["segment"] for a in told(shard))
    names = {name for name, _ in shown(shard)}
    assert {
        "model_custom_y",
        "model_custom_spread",
        "model_custom_yes_total",
        "model_custom_last",
        "model_segment_accuracy",
        "model_anomalies_total",
    } <= names
    assert {o.topic for o in shard.outbox} == {"alerts", "anomalies", "baselines", "history"}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_cutting_the_log_does_not_matter(rows, coarse, size):
    one, other = coarse, folded(log_of(rows, size))
    assert near(one.summary(), other.summary())
    assert near(shown(one), shown(other))
    assert (
        sorted(o for o in one.outbox if o.topic == "anomalies")
        == sorted(o for o in other.outbox if o.topic == "anomalies")
        != []
    )
    assert [(a["id"], a["status"], a["subject"]) for a in told(one)] == [
        (a["id"], a["status"], a["subject"]) for a in told(other)
    ]


def test_the_same_log_gives_the_same_bytes(log, whole):
    assert {"performance", "concept_drift", "data_drift", "data_quality", "anomaly"} == {
        a["kind"] for a in told(whole)
    }
    assert folded(log).outbox == whole.outbox


def test_repeated_records_are_seen_before(log, whole):
    half = len(log) // 2
    once, again = whole, folded([*log[:half], *log[half - 10 : half], *log[half:], *log[-5:]])
    assert near(
        {k: v for k, v in once.summary().items() if k != "records"},
        {k: v for k, v in again.summary().items() if k != "records"},
    )
    assert once.outbox == again.outbox
    assert again.summary()["records"]["predictions"]["seen"] > 0


@pytest.mark.parametrize("at", [1, 17, 60])
def test_restoring_is_invisible(log, whole, at):
    first = folded(log[:at])
    parts = {k: v for k, v in first.snapshot().items() if v is not None}
    restored = Shard.restore(0, SETTINGS, parts)
    assert restored.snapshot() == parts
    after = folded(log[at:], restored)
    assert after.outbox == whole.outbox
    assert after.summary() == whole.summary()


def test_a_look_at_the_gauges_does_not_show(log, whole):
    watched = Shard(0, SETTINGS)
    for i, record in enumerate(log):
        watched.fold(record)
        if i % 5 == 0:
            assert all(s.name for s in watched.samples())
    assert watched.outbox == whole.outbox


def test_counts_add_up(rows):
    shard = folded(log_of(rows, 200))
    shard.close()
    summary = shard.summary()
    predictions = sum(kind == "predictions" for kind, _, _ in rows)
    records = summary["records"]["predictions"]
    assert records["accepted"] + records["duplicate"] + records["seen"] == predictions
    for model in summary["models"].values():
        for version in model["versions"].values():
            failures = (
                version["predictions"]
                - version["labels"]
                - version["pending"]
                - version["expired"]
                - version["evicted"]
            )
            assert failures >= 0
    assert (
        sum(v["predictions"] for m in summary["models"].values() for v in m["versions"].values())
        == records["accepted"]
    )


def test_floods_stay_within_their_limits():
    settings = CoreSettings(limits=Limits(models=5, versions=2, features=3, pending=500))
    ingest, shard = Ingest(1), Shard(0, settings)
    n = 3_000
    values: list[bytes | None] = [
        json.dumps(
            {
                "event_id": f"{i}",
                "model": f"m{i % 300}",
                "version": f"v{i % 7}",
                "timestamp": T0,
                "prediction": 1,
                "features": {f"f{i % 50}": 1.0, f"g{i % 11}": "x"},
            }
        ).encode()
        for i in range(n)
    ]
    assert not ingest.take("predictions@x/0", "predictions", values, np.arange(n), np.full(n, T0))
    for record in ingest.flush(T0)[0]:
        shard.fold(record)
    assert len(shard.registry.state.model_names) <= 6
    assert len(shard.versions) <= 6 * 3
    assert "__other__" in shard.registry.state.model_names
    assert len(shard.join.predictions) <= 500
    assert (
        sum(
            v["predictions"]
            for m in shard.summary()["models"].values()
            for v in m["versions"].values()
        )
        + sum(len(r.times_ms) for v in shard.versions for r in v._rows)
        == n
    )
