"""
Laws of people's words in the log: a shard that reads them says the same after any restart, and its
gauges are what its own alert events say.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from stream_monitor.alerts.marks import Mark, MarkType
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import Baseline, CoreSettings, Drift, ModelSettings, Threshold
from stream_monitor.times import rfc3339

T0, STEP_MS, BATCH = 1_760_000_000_000, 100, 50
CORE = CoreSettings(
    defaults=ModelSettings(
        drift=Drift(
            errors={"adwin": {}, "page_hinkley": {}},
            score={"adwin": {}, "page_hinkley": {}},
            prediction={},
            features={"adwin": {}},
            thresholds={"js": 0.3},
        ),
        baseline=Baseline(rows=300),
        windows=("last_300", "1h"),
        thresholds={"accuracy": Threshold(min=0.8)},
    )
)
SAYINGS: dict[int, tuple[MarkType, str, int]] = {
    50: ("acknowledged", "accuracy", 0),
    52: ("muted", "accuracy", 3_600_000),
    56: ("false_alarm", "amount", 0),
    57: ("false_alarm", "amount", 0),
    60: ("muted", "accuracy", 0),
    90: ("false_alarm", "accuracy", 0),
}
"""By batch: what a person says about which alert of the board, and for how long (ms)."""
BATCHES = 95


def batch_of(rng: np.random.Generator, number: int) -> tuple[list[Any], list[Any]]:
    """Calls of one version: both inputs and errors are bad in the middle."""
    bad = 35 <= number < 70
    calls, labels = [], []
    for i in range(number * BATCH, (number + 1) * BATCH):
        truth = int(rng.random() < 0.4)
        answer = truth if rng.random() < (0.5 if bad else 0.95) else 1 - truth
        head = {"event_id": f"e{i}", "model": "m", "timestamp": T0 + i * STEP_MS}
        features = {"amount": float(rng.normal(4.0 if bad else 0.0, 1))}
        calls.append({**head, "version": "1", "prediction": answer, "features": features})
        labels.append({**head, "label": truth})
    return calls, labels


def told_of(board: dict[str, dict[str, Any]], number: int, now_ms: int) -> list[Any]:
    """A person reads the board, and says something about the alert that speaks."""
    if number not in SAYINGS:
        return []
    kind, subject, lasts_ms = SAYINGS[number]
    about = next(
        a
        for a in sorted(board.values(), key=lambda a: (not a["primary"], a["starts_at"]))
        if a["subject"] == subject
    )
    mark = Mark(
        type=kind,
        model="m",
        at=rfc3339(now_ms),
        fingerprint=about["fingerprint"],
        starts_at=None if kind == "muted" else about["starts_at"],
        until=rfc3339(now_ms + lasts_ms) if kind == "muted" else None,
        by="ana",
        comment="not for the log",
    )
    return [json.loads(mark.encoded())]


@cache
def log() -> tuple[tuple[bytes, ...], tuple[tuple[str, ...], ...]]:
    """Records of `observations` with what people said, and the alert events after each of them."""
    rng, ingest, shard = np.random.default_rng(8), Ingest(1), Shard(0, CORE)
    board: dict[str, dict[str, Any]] = {}
    records: list[bytes] = []
    events: list[tuple[str, ...]] = []
    said = 0
    for number in range(BATCHES):
        now_ms = T0 + (number + 1) * BATCH * STEP_MS
        calls, labels = batch_of(rng, number)
        marks = told_of(board, number, now_ms)
        for kind, values, start in (
            ("lifecycle", marks, said),
            ("predictions", calls, number * BATCH),
            ("labels", labels, number * BATCH),
        ):
            encoded = [json.dumps(value).encode() for value in values]
            at = np.arange(start, start + len(encoded))
            assert not ingest.take(f"{kind}@x/0", kind, encoded, at, np.full(len(at), now_ms))
        said += len(marks)
        for record in (*ingest.flush(now_ms)[0], tick(now_ms)):
            shard.fold(record)
            records.append(record)
            events.append(drained(shard))
            board |= {a["fingerprint"]: a for a in map(json.loads, events[-1])}
    return tuple(records), tuple(events)


def drained(shard: Shard) -> tuple[str, ...]:
    out = tuple(o.value.decode() for o in shard.outbox if o.topic == "alerts")
    shard.outbox = []
    return out


def gauges(shard: Shard) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for sample in shard.samples():
        if sample.name.startswith(("model_alerts", "model_incidents")):
            value = getattr(sample, "value", 0)
            found.setdefault(sample.name, Counter())[sample.labels[-1]] += int(value)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_people_said_survives_restarts(seed: int) -> None:
    """Byte for byte the same events, and gauges that agree with the newest event of each alert."""
    records, events = log()
    stops = set(np.random.default_rng(seed).integers(0, len(records), 12).tolist())
    shard, newest = Shard(0, CORE), dict[str, Any]()
    for i, record in enumerate(records):
        shard.fold(record)
        told = drained(shard)
        assert told == events[i]
        newest |= {a["fingerprint"]: a for a in map(json.loads, told)}
        if i in stops:
            parts = {name: data or b"" for name, data in shard.snapshot().items()}
            shard = Shard.restore(0, CORE, parts)
            found = gauges(shard)
            firing = Counter(a["severity"] for a in newest.values() if a["status"] != "resolved")
            shown = found.get("model_alerts_firing", Counter())
            assert shown + found.get("model_alerts_muted", Counter()) == firing
            incidents = {a["incident"] for a in newest.values() if a["status"] != "resolved"}
            assert found.get("model_incidents_firing", Counter()).total() <= len(incidents)
    assert gauges(shard)["model_alerts_marked_false_total"] == {"1": 2}


def test_the_story_is_told_to_people_as_they_asked() -> None:
    """Two causes, two incidents; a mute that is lifted tells again; false is false once."""
    events = [json.loads(text) for of_record in log()[1] for text in of_record]
    fired = [e for e in events if e["status"] == "firing" and e["severity"] != "info"]
    inputs, errors = dict.fromkeys(e["incident"] for e in fired)
    assert len(fired) > 6
    told = [(e["incident"], e["status"]) for e in events if e["notify"]]
    assert told == [
        (inputs, "firing"),
        (errors, "firing"),
        (errors, "updated"),  # the mute was lifted while it fired
        (errors, "resolved"),  # nobody hears of the end of what was false
    ]
    assert {e["acknowledged_by"] for e in events if e["acknowledged_by"]} == {"ana"}
    mute = [e for e in events if e["muted_until"]]
    assert mute
    assert not any(e["notify"] for e in mute)
    assert {e["notify"] for e in events if e["false_alarm"]} == {False}


def test_clean_data_is_told_to_nobody() -> None:
    """Nothing fires in the good part, 1,750 rows of one version, so no incident begins either."""
    records, events = log()
    assert not any(events[i] for i in range(len(records)) if i < 2 * 35)
