"""
Laws of experiments: sums are those of a loop in plain Python, and how the log was cut, in which
order labels come, and where the worker was restarted do not show in a verdict.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import Arrivals
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.units import OUTCOMES_OF_UNIT_MAX
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import CoreSettings

START_MS = 1_760_000_000_000
STARTED = {
    "schema": 1,
    "type": "experiment_started",
    "model": "m",
    "experiment": "x-1",
    "arms": [{"name": "control"}, {"name": "b"}],
    "weights": {"control": 50, "b": 50},
    "primary": {"metric": "accuracy", "effect": 0.02},
    "guards": [
        {"metric": "error", "effect": 0.005},
        {"metric": "latency_ms", "effect": 0.05},
        {"metric": "features.spent", "effect": 1.0},
    ],
    "maturity": "30m",
    "duration": ["1h", "30d"],
}
CHANGED = {
    "schema": 1,
    "type": "experiment_changed",
    "model": "m",
    "experiment": "x-1",
    "weights": {"control": 80, "b": 20},
}
Event = tuple[str, dict[str, Any]]


def calls(seed: int, n: int, units: int, *, wrong: float = 0.1, share: float = 0.5) -> list[Event]:
    """Calls of sticky units, some failed, and their labels later; some labels are corrected."""
    rng = np.random.default_rng(seed)
    arm_of = rng.random(units) < share
    out: list[tuple[float, Event]] = []
    for i in range(n):
        u = int(rng.integers(0, units))
        at = i * 1_000.0
        event: dict[str, Any] = {
            "event_id": f"e{seed}-{i}",
            "model": "m",
            "version": "1",
            "variant": "b" if arm_of[u] else "control",
            "unit": f"user-{u}",
            "latency_ms": float(np.round(rng.lognormal(3, 0.5), 3)),
        }
        if rng.random() < 0.02:
            out.append((at, ("predictions", {**event, "status": "error"})))
            continue
        y = int(rng.random() < 0.3)
        event |= {
            "prediction": int(y != (rng.random() < wrong * (1 + arm_of[u]))),
            "features": {"spent": float(rng.integers(0, 50))},
        }
        out.append((at, ("predictions", event)))
        if rng.random() < 0.9:
            later = at + float(rng.exponential(600_000))
            out.append((later, ("labels", {"event_id": event["event_id"], "label": y})))
            if rng.random() < 0.2:
                other = {"event_id": event["event_id"], "label": 1 - y}
                out.append((later + float(rng.exponential(1_200_000)), ("labels", other)))
    out.sort(key=lambda e: e[0])
    return [(kind, {**event, "timestamp": START_MS + int(at)}) for at, (kind, event) in out]


def records(events: list[Event], sizes: list[int]) -> list[tuple[bytes, Arrivals]]:
    """Records of `observations`, each with so many events that came at their own times."""
    ingest = Ingest(1)
    offsets: dict[str, int] = defaultdict(int)
    out: list[tuple[bytes, Arrivals]] = []
    at = 0
    for size in sizes:
        chunk, at = events[at : at + size], at + size
        if not chunk:
            break
        start = 0
        firsts = dict(offsets)
        came: dict[str, list[int]] = defaultdict(list)
        for i in range(1, len(chunk) + 1):
            if i < len(chunk) and chunk[i][0] == chunk[start][0]:
                continue
            kind = chunk[start][0]
            values = [json.dumps(e).encode() for _, e in chunk[start:i]]
            times = np.array([e["timestamp"] for _, e in chunk[start:i]])
            rejects = ingest.take(
                f"{kind}@t/0", kind, list(values), offsets[kind] + np.arange(len(values)), times
            )
            assert not rejects
            offsets[kind] += len(values)
            came[kind] += times.tolist()
            start = i
        arrivals = {
            f"{kind}@t/0": (firsts.get(kind, 0), np.array(times)) for kind, times in came.items()
        }
        flushed = ingest.flush(int(chunk[-1][1]["timestamp"]), arrivals)[0]
        out += [(record, arrivals) for record in flushed]
    return out


def story(seed: int, n: int = 3_000, units: int = 400, **given: float) -> list[Event]:
    """An experiment, a change of weights in the middle, calls and labels."""
    events = calls(seed, n, units, **given)
    middle = len(events) // 2
    time_ms = events[middle][1]["timestamp"]
    return [
        ("lifecycle", {**STARTED, "timestamp": START_MS}),
        *events[:middle],
        ("lifecycle", {**CHANGED, "timestamp": time_ms}),
        *events[middle:],
    ]


def folded(shard: Shard, log: list[tuple[bytes, Arrivals]]) -> Shard:
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
    return shard


def the_experiment(shard: Shard) -> Experiment:
    shard.experiments.settle()  # rows wait for the next look
    return shard.experiments.state.of_model["m"]["x-1"]


def told(shard: Shard, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(o.value) for o in shard.outbox if o.topic == "lifecycle"]
    return [e for e in events if e["type"] == f"experiment_{kind}"]


def verdicts(shard: Shard) -> list[dict[str, Any]]:
    return told(shard, "verdict")


def by_hand(events: list[Event], end_ms: int) -> dict[tuple[str, str], Any]:
    """The sums of the last phase in plain Python, each call in its order."""
    changed_ms = next(e["timestamp"] for k, e in events if e.get("type") == "experiment_changed")
    labels: dict[str, int] = {}
    for kind, e in events:
        if kind == "labels":
            labels[e["event_id"]] = e["label"]  # the latest has the greatest time
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    second = False
    for _, e in events:
        second |= e.get("type") == "experiment_changed"
        if "variant" not in e or not second or e["timestamp"] < changed_ms + 60_000:
            continue
        of_unit = values[e["variant"], e["unit"]]
        failed = e.get("status") == "error"
        of_unit["error"].append(float(failed))
        if failed:
            continue
        of_unit["latency_ms"].append(round(math.log(e["latency_ms"]) * 1_024) / 1_024)
        of_unit["features.spent"].append(e["features"]["spent"])
        label = labels.get(e["event_id"])
        if label is not None and e["timestamp"] + 1_800_000 <= end_ms:
            of_unit["accuracy"].append(float(label == e["prediction"]))
    sums: dict[tuple[str, str], Any] = defaultdict(lambda: np.zeros(6))
    for (arm, _), metrics in values.items():
        for metric, xs in metrics.items():
            n, x = len(xs), sum(xs)
            assert n <= OUTCOMES_OF_UNIT_MAX
            sums[arm, metric] += [1, n, x, n * n, n * x, x * x]
    return sums


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_units_are_those_of_a_loop_in_plain_python(seed: int) -> None:
    events = story(seed)
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, [20] * 1_000))
    end_ms = events[-1][1]["timestamp"] + 3_600_000
    shard.fold(tick(end_ms))
    experiment = the_experiment(shard)
    assert experiment.phase == 2
    expected = by_hand(events, end_ms)
    for a, arm in enumerate(("control", "b")):
        for o, outcome in enumerate(experiment.definition.outcomes):
            found = experiment.units.sums[a, o]
            assert found == pytest.approx(expected[arm, outcome.metric], rel=1e-12), outcome.metric


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_anywhere_does_not_show(seed: int) -> None:
    log = records(story(seed, wrong=0.2), [25] * 1_000)
    whole = folded(Shard(0, CoreSettings(), confirm_ms=0), log)
    rng = np.random.default_rng(seed)
    shard = Shard(0, CoreSettings(), confirm_ms=0)
    told = []
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        if rng.random() < 0.1:
            told += verdicts(shard)
            shard.outbox = []
            parts = shard.snapshot()
            shard = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
            shard.log_time.confirm_ms = 0
    assert told + verdicts(shard) == verdicts(whole)
    assert np.array_equal(the_experiment(shard).units.sums, the_experiment(whole).units.sums)
    assert the_experiment(shard).races == the_experiment(whole).races


@pytest.mark.parametrize("seed", range(3))
def test_how_the_log_is_cut_does_not_show_in_what_is_counted(seed: int) -> None:
    events = story(seed)
    rng = np.random.default_rng(seed)
    end_ms = events[-1][1]["timestamp"] + 3_600_000
    found = []
    for sizes in ([7] * 10_000, [700] * 100, rng.integers(1, 90, 10_000).tolist()):
        shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, sizes))
        shard.fold(tick(end_ms))
        found.append(the_experiment(shard))
    for other in found[1:]:
        assert np.array_equal(other.counts, found[0].counts)
        assert other.units.sums[:, 1] == pytest.approx(found[0].units.sums[:, 1], rel=1e-12)
        assert other.races[0] == found[0].races[0]


def test_clean_arms_are_told_nothing() -> None:
    events = [
        (kind, e)
        for kind, e in story(11, n=6_000, units=3_000)
        if e.get("type") != "experiment_changed" and kind != "labels"
    ]
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, [50] * 1_000))
    assert the_experiment(shard).units.sums[:, 1, 1].min() > 2_000, "it looked at something"
    assert not [v for v in verdicts(shard) if v["verdict"] in {"rollback", "mismatch"}]


def test_an_arm_that_fails_more_is_rolled_back_and_one_that_takes_all_units_is_a_mismatch() -> None:
    def failing(e: dict[str, Any]) -> dict[str, Any]:
        bad = e.get("variant") == "b" and hash_of(e["event_id"]) % 4 == 0
        if not bad:
            return e
        return {k: v for k, v in e.items() if k not in {"prediction", "features"}} | {
            "status": "error"
        }

    def hash_of(text: str) -> int:
        return sum(text.encode())

    clean = [(k, e) for k, e in story(5) if e.get("type") != "experiment_changed"]
    worse = [(k, failing(e)) for k, e in clean]
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(worse, [50] * 1_000))
    assert [(v["verdict"], v["because"]) for v in verdicts(shard)] == [("rollback", ["failures"])]
    uneven = story(6, units=3_000, n=6_000, share=0.6)
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(uneven, [50] * 1_000))
    assert "mismatch" in [v["verdict"] for v in verdicts(shard)]


AGES_H = [1, 2, 4, 8, 16, 24, 48, 72]


def test_numbers_are_told_at_ages_that_double_and_then_each_day() -> None:
    """Of four days; the experiment lasts three, and nothing is told after it but verdicts."""
    started = {**STARTED, "duration": ["2d", "3d"]}
    events = [("lifecycle", {**started, "timestamp": START_MS}), *calls(3, 400, 100)]
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, [50] * 100))
    for minute in range(10, 4 * 24 * 60, 10):
        shard.fold(tick(START_MS + minute * 60_000))
    found = told(shard, "progress")
    ended = [v for v in verdicts(shard) if v["verdict"] == "inconclusive"]
    assert [v["hours"] for v in ended] == [72]
    assert [e["hours"] for e in found] == AGES_H
    assert len({e["id"] for e in found}) == len(found)
    evidence = found[0]["evidence"]["accuracy"]
    assert evidence["waits_for"]["effective_units"][1] == 200
    assert evidence["waits_for"]["effective_units"][0] < 100
    assert [e["verdict"] for e in found] == ["continue"] * 7 + ["inconclusive"]


def test_after_a_silence_numbers_are_told_once() -> None:
    events = [("lifecycle", {**STARTED, "timestamp": START_MS}), *calls(3, 100, 50)]
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), records(events, [50] * 100))
    shard.fold(tick(START_MS + 5 * 86_400_000))
    assert [e["hours"] for e in told(shard, "progress")] == [120]


@pytest.mark.parametrize("seed", range(2))
def test_numbers_have_the_same_ids_however_the_log_was_cut_and_after_restarts(seed: int) -> None:
    calls_end_ms = START_MS + 4_000_000  # later, labels are so rare that a record lasts hours
    events = [e for e in story(seed, n=4_000, units=400) if e[1]["timestamp"] < calls_end_ms]
    found = []
    for size in (9, 200):
        shard = Shard(0, CoreSettings(), confirm_ms=0)
        outs: list[dict[str, Any]] = []
        for number, (record, arrivals) in enumerate(records(events, [size] * 10_000)):
            shard.fold(record, arrivals=arrivals)
            if number % 50 == seed:
                outs += told(shard, "progress")
                shard.outbox = []
                parts = shard.snapshot()
                shard = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
                shard.log_time.confirm_ms = 0
        shard.fold(tick(START_MS + 2 * 3_600_000))
        outs += told(shard, "progress")
        found.append([(e["id"], e["arm"], e["phase"]) for e in outs])
    assert found[0] == found[1]
    assert [phase for _, _, phase in found[0]] == [2, 2]
