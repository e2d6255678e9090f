"""
An alert of drift says from which record on, and names some that show it: of `predictions`, or of
`labels` if labels say so. One of data quality names some that break the rule. How the log was cut
and a restart never show.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.monitors.baseline import Profile, category_profile
from stream_monitor.monitors.faults import BITS, Faults
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.windowed import OFFSET
from stream_monitor.settings import (
    Baseline,
    CoreSettings,
    Feature,
    ModelSettings,
    Quality,
    Segment,
)

T0, STEP_MS = 1_760_000_000_000, 1_000
ROWS, CHANGE, BLOCK = 4_800, 4_310, 25
FIRST = {"predictions": (500, 90_000), "labels": (70, 4)}
"""Offset of the first record of each of two partitions."""
SETTINGS = CoreSettings(
    defaults=ModelSettings(baseline=Baseline(rows=500), segments=(Segment(name="country"),))
)


class Event:
    """One call and its label, with their places; all that follows is computed from these."""

    def __init__(self, i: int, rng: np.random.Generator) -> None:
        late = i >= CHANGE
        self.partition = i // BLOCK % 2
        self.country = "de" if i % 3 else "fr"
        self.x = float(rng.normal())
        self.colour = "green" if late and rng.random() < 0.2 else "red"
        self.wrong = bool(rng.random() < (0.5 if late and self.country == "fr" else 0.05))
        self.ms = 300.0 if late and rng.random() < 0.3 else float(rng.uniform(10, 20))
        self.time_ms = T0 + i * STEP_MS
        self.offsets = {"predictions": 0, "labels": 0}

    def value(self, i: int, kind: str) -> bytes:
        common = {"event_id": f"e{i}", "model": "m", "version": "1", "timestamp": self.time_ms}
        answer = int(self.x > 0)
        if kind == "labels":
            return json.dumps({**common, "label": answer ^ self.wrong}).encode()
        call = {
            **common,
            "prediction": answer,
            "latency_ms": self.ms,
            "features": {"x": self.x, "colour": self.colour},
            "segments": {"country": self.country},
        }
        return json.dumps(call).encode()


@cache
def events() -> list[Event]:
    rng = np.random.default_rng(5)
    found = [Event(i, rng) for i in range(ROWS)]
    for kind, first in FIRST.items():
        seen = list(first)
        for event in found:
            event.offsets[kind] = seen[event.partition]
            seen[event.partition] += 1
    return found


@cache
def at(kind: str) -> dict[tuple[int, int], int]:
    """By partition and offset: the number of the event."""
    return {(e.partition, e.offsets[kind]): i for i, e in enumerate(events())}


@cache
def rows() -> list[tuple[str, int, bytes]]:
    """Calls block by block, and after each block its labels."""
    order = [
        (kind, i)
        for block in range(0, ROWS, BLOCK)
        for kind in FIRST
        for i in range(block, block + BLOCK)
    ]
    return [(kind, i, events()[i].value(i, kind)) for kind, i in order]


def log_of(size: int) -> list[bytes]:
    ingest, out = Ingest(1), []
    for at in range(0, len(rows()), size):
        piece = rows()[at : at + size]
        for (kind, partition), run in groupby(piece, lambda r: (r[0], events()[r[1]].partition)):
            _, places, values = zip(*run, strict=True)
            offsets = np.array([events()[i].offsets[kind] for i in places])
            times = np.array([events()[i].time_ms for i in places])
            assert not ingest.take(f"eu.{kind}@id/{partition}", kind, values, offsets, times)
        newest = max(i for _, i, _ in rows()[: at + size])
        out += ingest.flush(events()[newest].time_ms)[0]
    return [*out, tick(T0 + (ROWS + 60) * STEP_MS)]


def alerts_of(log: list[bytes], stop: int | None = None) -> dict[str, dict[str, Any]]:
    """The first alert of each kind that detectors on counts have told."""
    shard = Shard(0, SETTINGS)
    told = []
    for place, record in enumerate(log):
        shard.fold(record)
        told += shard.outbox
        shard.outbox = []
        if place == stop:
            shard = Shard.restore(0, SETTINGS, whole(shard.snapshot()))
    found = [json.loads(out.value) for out in told if out.topic == "alerts"]
    out: dict[str, dict[str, Any]] = {}
    for alert in found:
        if alert["detector"] == "evidence":
            out.setdefault(alert["kind"], alert["evidence"])
    return out


def whole(parts: dict[str, bytes | None]) -> dict[str, bytes]:
    return {name: part for name, part in parts.items() if part is not None}


def places(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What alerts say of records; which segments have drifted too may be known a record later."""
    return {
        kind: (evidence["contributors"][0]["first"], evidence["examples"])
        for kind, evidence in told.items()
    }


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    return alerts_of(log_of(300))


def event_of(place: dict[str, Any], kind: str) -> Event:
    assert place["topic"] == f"eu.{kind}"
    return events()[at(kind)[place["partition"], place["offset"]]]


@pytest.mark.parametrize(
    ("alert", "topic"),
    [("data_drift", "predictions"), ("concept_drift", "labels"), ("latency", "predictions")],
)
def test_the_first_record_is_the_one_of_that_time_and_near_the_change(
    told: dict[str, dict[str, Any]], alert: str, topic: str
) -> None:
    first = told[alert]["contributors"][0]
    event = event_of(first["first"], topic)
    assert first["changed_at"][:19] == str(np.datetime64(event.time_ms, "ms"))[:19]
    assert abs(event.time_ms - (T0 + CHANGE * STEP_MS)) <= 150 * STEP_MS


def test_examples_show_the_change(told: dict[str, dict[str, Any]]) -> None:
    green = [event_of(p, "predictions") for p in told["data_drift"]["examples"]]
    assert told["data_drift"]["contributors"][0]["subject"] == "colour"
    assert len(green) == 5
    assert {e.colour for e in green} == {"green"}
    slow = [event_of(p, "predictions") for p in told["latency"]["examples"]]
    assert len(slow) == 5
    assert {e.ms for e in slow} == {300.0}
    wrong = [event_of(p, "labels") for p in told["concept_drift"]["examples"]]
    assert 1 <= len(wrong) <= 5
    assert all(e.wrong and e.time_ms >= T0 + CHANGE * STEP_MS for e in wrong)


@pytest.mark.parametrize(("size", "stop"), [(2_200, None), (130, 66)])
def test_neither_cuts_nor_restarts_show(
    told: dict[str, dict[str, Any]], size: int, stop: int | None
) -> None:
    assert places(alerts_of(log_of(size), stop)) == places(told)


FAULTS: dict[str, tuple[Any, Any]] = {
    "missing": ("a", None),
    "type": ("b", "text"),
    "range": ("c", 2.0),
    "category": ("d", "new"),
    "pattern": ("e", "x-1"),
    "unique": ("f", "same"),
}
"""By rule: a feature, and a value that breaks the rule."""


@pytest.mark.parametrize("size", [100, 37])
def test_an_alert_of_data_quality_names_the_newest_rows_that_break_the_rule(size: int) -> None:
    features = {"c": Feature(max=1.0), "e": Feature(pattern="k-.*"), "f": Feature(unique=True)}
    quality = Quality(repeated_ratio=0.05)
    model = ModelSettings(baseline=Baseline(rows=300), features=features, quality=quality)
    rng = np.random.default_rng(2)
    bad = {rule: (np.arange(900) >= 600) & (rng.random(900) < 0.3) for rule in FAULTS}
    values = []
    for i in range(900):
        row: dict[str, Any] = {"a": i % 7, "b": i % 5, "c": i % 3 / 3, "d": "uv"[i % 2]}
        row |= {"e": f"k-{i % 4}", "f": f"id{i}"}
        row |= {name: value for rule, (name, value) in FAULTS.items() if bad[rule][i]}
        call = {"event_id": f"e{i}", "model": "m", "prediction": 1, "features": row}
        values.append(json.dumps({**call, "timestamp": T0 + i * STEP_MS}).encode())
    ingest, shard = Ingest(1), Shard(0, CoreSettings(defaults=model))
    rules: set[str] = set()
    for first in range(0, 900, size):
        rows = np.arange(first, min(first + size, 900))
        now = T0 + rows * STEP_MS
        ingest.take("predictions@id/2", "predictions", [values[i] for i in rows], 40 + rows, now)
        record, later = ingest.flush(int(now[-1]))[0][0], tick(int(now[-1]) + 1_000)
        for each, seen in ((record, first), (later, len(rows) + first)):
            shard.fold(each)  # it is judged each second, before the rows of a record
            told = [json.loads(out.value) for out in shard.outbox if out.topic == "alerts"]
            shard.outbox = []
            for alert in (a for a in told if a["kind"] == "data_quality"):
                mine = next(r for r, (of, _) in FAULTS.items() if of == alert["subject"])
                broken = np.flatnonzero(bad[mine][:seen])
                if alert["detector"] == "unique":  # the first of the values is no repeat
                    broken = broken[1:]
                assert alert["evidence"]["examples"] == [
                    {"topic": "predictions", "partition": 2, "offset": 40 + int(i)}
                    for i in broken[-5:]
                ]
                rules.add(alert["detector"])
    assert rules == FAULTS.keys()


def test_a_category_of_the_baseline_that_its_rule_does_not_have_breaks_the_rule() -> None:
    profile = Profile(features={"d": category_profile({"u": 5, "v": 5}, 0)})
    layout = Layout(profile, {"d": Feature(categories=("u",))})
    bins = np.array([[layout.start["d"] + OFFSET + k for k in range(3)]], np.int32)
    found = Faults(layout, np.empty((0, 3)), [], []).of(slice(None), bins)
    assert found.tolist() == [[0, BITS["category"], BITS["category"]]]
