"""
Laws of releases: gauges and alerts say what a loop in plain Python says, wherever the log was cut
and the worker was restarted.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.monitors.releases import VERSIONS_MAX, Releases
from stream_monitor.settings import CoreSettings

START_MS = 1_760_000_000_000
VERSIONS = ("v1.0.0", "v1.1.0", "by-hand")
STAGES = ("shadow", "canary", "production", "retired")


def story(seed: int, n: int = 300) -> list[tuple[str, dict[str, Any]]]:
    """Calls of three versions, and what is said of them; old controllers speak too."""
    rng = np.random.default_rng(seed)
    out: list[tuple[str, dict[str, Any]]] = []
    for i in range(n):
        at = START_MS + i * 1_000
        version = VERSIONS[int(rng.integers(3))]
        out.append(
            (
                "predictions",
                {
                    "event_id": f"e{i}",
                    "model": "m",
                    "version": version,
                    "prediction": 1,
                    "timestamp": at,
                },
            )
        )
        if rng.random() < 0.05:
            stages = {v: STAGES[int(rng.integers(4))] for v in VERSIONS[:2] if rng.random() < 0.8}
            event: dict[str, Any] = {"type": "stage", "stages": stages, "reason": "x" * 100}
            if rng.random() < 0.5:
                event["epoch"] = int(rng.integers(0, 30))
            out.append(("lifecycle", event))
        if rng.random() < 0.03:
            named = VERSIONS[int(rng.integers(2))]
            event = {"type": "version", "version": named, "revision": f"{i:040x}", "metrics": {}}
            out.append(("lifecycle", event))
        if rng.random() < 0.03:
            out.append(("lifecycle", {"type": "retraining", "version": "v7.0.0"}))
    return [
        (k, e if k == "predictions" else {"schema": 1, "model": "m", "at": str(i), **e})
        for i, (k, e) in enumerate(out)
    ]


def by_hand(events: list[tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, str]]:
    """Commit and stage of each version, by the rules as they are written."""
    commits: dict[str, str] = {}
    stages: dict[str, str] = {}
    said, epoch, known = False, 0, set()
    for kind, event in events:
        if kind == "predictions" or event["type"] not in ("stage", "version"):
            continue
        if event.get("epoch", epoch) < epoch:
            continue
        epoch, said = event.get("epoch", epoch), True
        if event["type"] == "version":
            commits[event["version"]] = event["revision"]
            known.add(event["version"])
        else:
            stages = event["stages"]
            known |= set(stages)
    return {
        v: (commits.get(v, ""), stages.get(v, "") if v in known else "unregistered" if said else "")
        for v in VERSIONS
    }


def folded(
    events: list[tuple[str, dict[str, Any]]], cuts: list[int], restarts: set[int]
) -> tuple[Shard, list[dict[str, Any]]]:
    ingest, shard, alerts = Ingest(1), Shard(0, CoreSettings()), []
    offsets = {"predictions": 0, "lifecycle": 100}  # claims came before
    for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(events)], strict=True)):
        for kind, event in events[start:end]:
            now_ms = event.get("timestamp", START_MS)
            value = json.dumps(event).encode()
            at = np.array([offsets[kind]])
            assert not ingest.take(f"{kind}@t/0", kind, [value], at, np.array([now_ms]))
            offsets[kind] += 1
        times = [e["timestamp"] for _, e in events[:end] if "timestamp" in e]
        for record in ingest.flush(times[-1] if times else START_MS).get(0, []):
            shard.fold(record)
        alerts += [json.loads(out.value) for out in shard.outbox if out.topic == "alerts"]
        shard.outbox = []
        if n in restarts:
            parts = {k: v for k, v in shard.snapshot().items() if v is not None}
            shard = Shard.restore(0, CoreSettings(), parts)
    return shard, alerts


@pytest.mark.parametrize("seed", range(6))
def test_gauges_say_commit_and_stage_however_the_log_is_cut(seed: int):
    events = story(seed)
    rng = np.random.default_rng(seed)
    cuts = sorted(set(rng.integers(1, len(events), 12).tolist()))
    shard, alerts = folded(events, cuts, {2, 5})
    told = {s.labels[1]: s.labels[-2:] for s in shard.samples() if s.name == "model_info"}
    used = {e["version"] for k, e in events if k == "predictions"}
    assert told == {v: about for v, about in by_hand(events).items() if v in used}
    firing = {a["version"] for a in alerts if a["subject"] == "version"}
    assert firing >= {v for v, (_, stage) in told.items() if stage == "unregistered"}


def test_an_unregistered_version_is_told_until_it_is_registered():
    def call(i: int) -> tuple[str, dict[str, Any]]:
        event = {"event_id": f"e{i}", "model": "m", "version": "v1.1.0", "prediction": 1}
        return "predictions", {**event, "timestamp": START_MS + i * 1_000}

    def said(version: str) -> tuple[str, dict[str, Any]]:
        event = {"type": "version", "model": "m", "at": version, "version": version}
        return "lifecycle", {**event, "revision": "ab" * 20}

    calm = [*map(call, range(10))]
    assert folded(calm, [], set())[1] == [], "no version of the model is registered"
    events = [*calm, said("v1.0.0"), *map(call, range(10, 20))]
    alerts = folded(events, [5, 11, 15], set())[1]
    (alert,) = alerts
    assert (alert["status"], alert["severity"], alert["kind"]) == ("firing", "info", "anomaly")
    assert alert["annotations"]["stage"] == "unregistered"
    assert alert["summary"].startswith("m v1.1.0 is used, and was never registered")
    events += [said("v1.1.0"), *map(call, range(20, 30))]
    _, alerts = folded(events, [5, 11, 15, 21, 25], {3})
    assert [a["status"] for a in alerts] == ["firing", "resolved"]
    assert alerts[1]["annotations"]["revision"] == "ab" * 20


@pytest.mark.parametrize(
    "event",
    [
        {"type": "version", "version": 7},
        {"type": "version", "version": "v1", "revision": None},
        {"type": "stage", "stages": ["v1.0.0"]},
        {"type": "stage", "stages": {"v1.0.0": {}}},
        {"type": "stage", "epoch": "x"},
    ],
)
def test_what_is_of_another_form_is_skipped(event: dict[str, Any]):
    events = [*story(1, 5)[:1], ("lifecycle", {"model": "m", "at": "1", **event})]
    shard, _ = folded(events, [], set())
    assert shard.releases.of_model == {}


def test_versions_are_bounded_and_those_in_use_stay():
    releases = Releases()
    stage = {"type": "stage", "model": "m", "stages": {"v0": "production"}}
    events = [stage, *({"type": "version", "model": "m", "version": f"v{i}"} for i in range(3_000))]
    releases.take([(i, json.dumps(e)) for i, e in enumerate(events)])
    assert len(releases.of_model["m"]) == VERSIONS_MAX
    assert releases.of("m", "v0").stage == "production"
    assert releases.of("m", "v2999").stage == ""


def test_events_of_experiments_of_an_older_controller_change_nothing():
    releases = Releases()

    def left(kind: str, epoch: int | None) -> int:
        event: dict[str, Any] = {"type": kind, "model": "m", "experiment": "x"}
        event |= {} if epoch is None else {"epoch": epoch}
        return len(releases.take([(0, json.dumps(event))]))

    assert left("experiment_started", 3) == 1
    assert left("stage", 8) == 0, "it is not of experiments"
    assert left("experiment_changed", 3) == 0, "an older controller"
    assert left("experiment_changed", None) == 1, "a person"
    assert left("experiment_stopped", 8) == 1
    assert len(releases.take([(0, "[]"), (1, '{"type": "x", "epoch": "y"}')])) == 2


@pytest.mark.parametrize("restarts", [False, True])
def test_a_controller_that_was_taken_over_from_counts_nowhere_also_after_a_restart(restarts):
    """Only its claim says that the newer one is there; INGEST forgets it, the log does not."""

    def said(event: dict[str, Any], offset: int) -> None:
        value = json.dumps({"schema": 1, "at": "t", **event}).encode()
        at, time = np.array([offset]), np.array([START_MS])
        assert not ingest[-1].take("lifecycle@t/0", "lifecycle", [value], at, time)
        for target, records in ingest[-1].flush(START_MS).items():
            for record in records:
                shards[target].fold(record)
        if restarts:
            ingest.append(Ingest(2))
            for i, shard in enumerate(shards):
                parts = {k: v for k, v in shard.snapshot().items() if v is not None}
                shards[i] = Shard.restore(i, CoreSettings(), parts)

    ingest, shards = [Ingest(2)], [Shard(0, CoreSettings()), Shard(1, CoreSettings())]
    stage = {"type": "stage", "model": "m", "stages": {"v1": "production"}, "epoch": 10}
    said(stage, 12)
    said({"type": "claim", "model": "", "host": "b"}, 20)
    said({"type": "claim", "model": "", "host": "b", "epoch": 20}, 21)
    said({**stage, "stages": {"v2": "production"}}, 22)
    started = {"type": "experiment_started", "model": "m", "experiment": "x", "epoch": 10}
    said(started, 23)
    of = next(s for s in shards if s.releases.of_model)
    assert of.releases.of("m", "v1").stage == "production"
    assert of.releases.of("m", "v2").stage == "unregistered"
    assert all(s.releases.epochs == {"": 20} for s in shards)
    assert not any(s.experiments.state.of_model or s.outbox for s in shards)
