"""
What everybody sees in a plot is an alert within a minute of dense traffic, with defaults; the same
rows without the fault are none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings
from stream_monitor.times import rfc3339

Row = dict[str, Any]
T0 = 1_760_000_000_000
EVERY_MS, BATCH = 100, 100
CLEAN, FAULTY = 2_500, 600
"""Rows before the fault, and a minute of it."""


def folded(rows: list[Row], labels: list[Row] | None = None, every_ms: int = EVERY_MS) -> list[Row]:
    """The alerts that fire on rows of one model; only the baseline is shorter than by default."""
    ingest, shard = (
        Ingest(1),
        Shard(0, CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=1_000)))),
    )
    for start in range(0, len(rows), BATCH):
        for topic, events in (("predictions", rows), ("labels", labels or [])):
            part = [
                json.dumps(
                    {"event_id": str(start + i), "model": "m", "version": "1", **row}
                ).encode()
                for i, row in enumerate(events[start : start + BATCH])
            ]
            now = T0 + (start + BATCH) * every_ms + (topic == "labels") * 5
            ingest.take(
                f"{topic}@x/0",
                topic,
                part,
                np.arange(start, start + len(part)),
                np.full(len(part), now),
            )
            for record in ingest.flush(now).get(0, []):
                shard.fold(record)
    shard.fold(tick(T0 + len(rows) * every_ms + 1_000))
    told = [json.loads(out.value) for out in shard.outbox if out.topic == "alerts"]
    return [
        alert
        for alert in told
        if alert["status"] == "firing" and alert["severity"] in ("warning", "critical")
    ]


def scores(p: float) -> Row:
    return {"score": {"a": p, "b": (1 - p) * 0.6, "c": (1 - p) * 0.4}}


FAULTS: dict[str, tuple[str, Callable[[np.random.Generator, bool], Row]]] = {
    "latency x 10": (
        "latency",
        lambda r, bad: {"prediction": 1, "latency_ms": float(r.gamma(4, 2.5) * (10 if bad else 1))},
    ),
    "latency x 500": (
        "latency",
        lambda r, bad: {
            "prediction": 1,
            "latency_ms": float(r.gamma(4, 2.5) * (500 if bad else 1)),
        },
    ),
    "10 % of calls fail": (
        "volume",
        lambda r, bad: (
            {"status": "error"} if r.random() < (0.12 if bad else 0.001) else {"prediction": 1}
        ),
    ),
    "30 % of calls fail": (
        "volume",
        lambda r, bad: (
            {"status": "error"} if r.random() < (0.3 if bad else 0.02) else {"prediction": 1}
        ),
    ),
    "a category from 90 % to 10 %": (
        "data_drift",
        lambda r, bad: {
            "prediction": 1,
            "features": {"c": "ab"[int(r.random() < (0.9 if bad else 0.1))]},
        },
    ),
    "a flag from 5 % to 60 %": (
        "data_drift",
        lambda r, bad: {
            "prediction": 1,
            "features": {"c": int(r.random() < (0.6 if bad else 0.05))},
        },
    ),
    "probabilities of three classes permuted": (
        "prediction_drift",
        lambda r, bad: scores(float(r.beta(2, 8) if bad else r.beta(8, 2))),
    ),
    "score turned round": (
        "prediction_drift",
        lambda r, bad: {"score": float(r.beta(8, 2) if bad else r.beta(2, 8))},
    ),
    "answers from 10 % to 90 %": (
        "prediction_drift",
        lambda r, bad: {"prediction": "ab"[int(r.random() < (0.9 if bad else 0.1))]},
    ),
    "a third of numbers is text": (
        "data_quality",
        lambda r, bad: {"prediction": float(r.normal()) if r.random() > 0.33 * bad else "unknown"},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_gross_fault_is_told_within_a_minute_and_clean_rows_are_quiet(fault: str) -> None:
    kind, row = FAULTS[fault]
    rng = np.random.default_rng(1)
    clean = [row(rng, False) for _ in range(CLEAN)]
    assert not folded([*clean, *(row(rng, False) for _ in range(FAULTY))]), "clean"
    alerts = folded([*clean, *(row(rng, True) for _ in range(FAULTY))])
    assert kind in {alert["kind"] for alert in alerts}, alerts
    assert all(alert["starts_at"] > rfc3339(T0 + CLEAN * EVERY_MS) for alert in alerts)
    assert all(alert["summary"].startswith("m 1: ") for alert in alerts)


@pytest.mark.parametrize("prefix", ["", "order-"])
def test_labels_of_other_ids_are_told_within_the_hour(prefix: str) -> None:
    rows = [{"prediction": 1} for _ in range(3_000)]
    labels = [{"event_id": f"{prefix}{i}", "label": 1} for i in range(len(rows))]
    alerts = folded(rows, labels, every_ms=1_000)
    assert [alert["subject"] for alert in alerts] == (["labels"] if prefix else [])
    assert all(
        alert["starts_at"] < rfc3339(T0 + 3_600_000) and "doctor" in alert["summary"]
        for alert in alerts
    )
