"""
Laws of what is named: fields that a given baseline does not have, classes whose scores moved, and
features that have too few values to be compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_monitor.config import parse
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.metrics.samples import Sample
from stream_monitor.offline.report import render
from stream_monitor.offline.version_report import SUPPORT_MIN

T0 = 1_760_000_000_000
DEFAULTS = {"baseline": {"rows": 500}, "drift": {"errors": "off", "features": "off"}}
Row = dict[str, Any]


class Run:
    """A model whose rows come fifty a second; it goes on from a snapshot now and then."""

    def __init__(self, defaults: dict[str, Any], baselines: dict[str, bytes] | None = None) -> None:
        self.core, self.baselines = (
            parse(json.dumps({"defaults": {**DEFAULTS, **defaults}})).core,
            baselines,
        )
        self.ingest, self.shard, self.sent, self.rng = (
            Ingest(1),
            Shard(0, self.core, baselines),
            0,
            np.random.default_rng(5),
        )
        self.out: list[Any] = []

    def send(self, n: int, row: Callable[[np.random.Generator], Row]) -> None:
        for _ in range(n // 50):
            now = T0 + self.sent * 20
            events = [
                json.dumps(
                    {"event_id": str(self.sent + i), "model": "m", "version": "1", **row(self.rng)}
                ).encode()
                for i in range(50)
            ]
            assert not self.ingest.take(
                "predictions@x/0",
                "predictions",
                events,
                np.arange(self.sent, self.sent + 50),
                np.full(50, now),
            )
            for record in self.ingest.flush(now).get(0, []):
                self.shard.fold(record)
            self.sent += 50
            self.shard.fold(tick(now + 999))
            self.out += self.shard.outbox
            self.shard.outbox.clear()
            if self.sent % 1_700 == 0:
                self.shard = Shard.restore(
                    0,
                    self.core,
                    {k: v or b"" for k, v in self.shard.snapshot().items()},
                    self.baselines,
                )

    def told(self) -> list[Row]:
        return [json.loads(o.value) for o in self.out if o.topic == "alerts"]

    def baseline(self) -> dict[str, bytes]:
        return {o.key.decode(): o.value for o in self.out if o.topic == "baselines"}


def some(**more: Any) -> Callable[[np.random.Generator], Row]:
    return lambda r: {"prediction": 1, "features": {"x": float(r.normal()), **more}}


def test_fields_that_a_given_baseline_does_not_have_are_told_by_name_as_long_as_they_come() -> None:
    learnt = Run({})
    learnt.send(1_000, some())
    run = Run({}, learnt.baseline())
    run.send(600, some())
    assert not run.told()
    run.send(2_000, some(y=1.0, z="a"))
    run.send(2_000, some())
    first, *rest = run.told()
    assert (
        first["status"],
        first["severity"],
        first["kind"],
        first["subject"],
        first["version"],
    ) == ("firing", "info", "data_quality", "__features__", "1")
    assert "`y`, `z`" in first["summary"]
    assert first["evidence"]["fields"] == ["y", "z"]
    assert [a["status"] for a in rest] == ["resolved"], (
        "after as many rows without them as a baseline is learnt from"
    )
    assert learnt.told() == []


def test_fields_that_nobody_described_are_an_alert_on_request_as_long_as_they_come() -> None:
    learnt = Run({})
    learnt.send(1_000, some())
    quality = {"unknown_field_ratio": 0.1, "violation_ratio": 0.05, "missing_ratio": "off"}
    run = Run(
        {"quality": quality, "features": {"z": {"type": "text"}}, "baseline": {"rows": 100_000}},
        learnt.baseline(),
    )
    run.send(1_000, some(z="a"))
    assert not [a for a in run.told() if a["detector"] == "unknown_field"], "z is described"
    run.send(2_000, lambda r: some(**({"y": 1.0} if r.random() < 0.75 else {}))(r))
    run.send(2_000, some())
    told = [a for a in run.told() if a["detector"] == "unknown_field"]
    assert [
        (a["status"], a["severity"], a["subject"]) for a in told if a["status"] != "updated"
    ] == [
        ("firing", "warning", "__features__"),
        ("resolved", "warning", "__features__"),
    ]
    assert "neither the baseline nor `features` has (`y`) is in" in told[0]["summary"]


def test_features_that_come_late_to_a_baseline_that_was_learnt_are_learnt_and_no_news() -> None:
    run = Run({})
    run.send(1_000, some())
    run.send(2_000, some(y=1.0))
    assert not run.told()


CLASSES = ("ok", "a/b", "x:y", 'q"', "1")


@pytest.mark.parametrize("bad", CLASSES)
def test_the_score_of_a_class_is_named_by_its_class_in_alerts_and_gauges(bad: str) -> None:
    def row(high: bool) -> Callable[[np.random.Generator], Row]:
        def one(r: np.random.Generator) -> Row:
            weights = r.gamma(2, 1, len(CLASSES)) * np.where(
                [high and c == bad for c in CLASSES], 30.0, 1.0
            )
            return {"score": dict(zip(CLASSES, (weights / weights.sum()).tolist(), strict=True))}

        return one

    run = Run(
        {
            "drift": {
                "errors": "off",
                "features": "off",
                "score": {"adwin": {}},
                "thresholds": {"js": 0.3},
            }
        }
    )
    run.send(1_500, row(high=False))
    assert not run.told()
    run.send(1_500, row(high=True))
    subject = f"__score__:{bad}"
    mine = [a for a in run.told() if a["subject"] == subject]
    assert {(a["kind"], a["detector"]) for a in mine if a["kind"] == "prediction_drift"} == {
        ("prediction_drift", "adwin"),
        ("prediction_drift", "js"),
    }
    assert all(f"the score of class `{bad}`" in a["summary"] for a in mine)
    assert any("drift.score.adwin" in a["summary"] for a in mine)
    gauges = {
        s.labels[-2:]: s.value
        for s in run.shard.samples()
        if isinstance(s, Sample) and s.name == "model_drift_detected"
    }
    assert gauges[subject, "adwin"] == gauges[subject, "js"] == 1
    assert {subject for subject, _ in gauges} >= {f"__score__:{c}" for c in CLASSES}


def test_a_feature_with_few_values_is_not_the_most_drifted_and_all_say_how_many_they_have() -> None:
    features = {
        "few": {"rows": SUPPORT_MIN - 1, "drift": {"psi": 9.0}},
        "calm": {"rows": 5_000, "drift": {"psi": 0.01}},
        "moved": {"rows": SUPPORT_MIN, "drift": {"psi": 0.4}},
        "none": {"rows": 0, "drift": {}},
    }
    version = {
        "predictions": 1,
        "labels": 0,
        "pending": 0,
        "expired": 0,
        "evicted": 0,
        "windows": {},
        "features": features,
    }
    records = dict.fromkeys(("received", "accepted", "duplicate", "rejected"), 0)
    page = render(
        {"records": {"predictions": records}, "models": {"m": {"versions": {"1": version}}}},
        [],
        [],
        "m",
    )
    places = [
        re.search(f">{name}</td><td[^>]*>{f['rows']:,}</td>", page).start()  # type: ignore[union-attr]
        for name, f in sorted(
            features.items(), key=lambda item: ("moved", "calm", "few", "none").index(item[0])
        )
    ]
    assert places == sorted(places)
    assert f"fewer than {SUPPORT_MIN} values" in page
