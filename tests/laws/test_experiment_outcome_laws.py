"""
Laws of outcomes of experiments: violations, races, labels of every type, windows. What is counted
is what loops in plain Python count (`experiment_oracle.py`), wherever the log was cut and the
worker was restarted. Two equal arms are told apart no more often than promised.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import Arrivals
from stream_monitor.experiments.calls import Calls
from stream_monitor.experiments.definition import definition_of
from stream_monitor.experiments.experiment import GUARDS, Experiment
from stream_monitor.experiments.judgement import look
from stream_monitor.ingest import tick
from stream_monitor.settings import CoreSettings, Feature, ModelSettings
from tests.laws.experiment_oracle import RULES, START_MS, Counted, Event, counted, stream
from tests.laws.test_experiment_laws import CHANGED, STARTED, folded, records, the_experiment

SETTINGS = CoreSettings(
    models={"m": ModelSettings(features={name: Feature(**rule) for name, rule in RULES.items()})}
)
MATURITY_MS = 1_800_000
RACES: list[dict[str, Any]] = [
    {"metric": "latency_ms", "above": 250},
    {"metric": "violations", "race": True},
    {"metric": "error_rate", "race": True},
    {"metric": "label", "above": 0.5},
    {"metric": "score", "below": 0.05},
]
SEQUENCES: list[dict[str, Any]] = [
    {"metric": "violations", "effect": 0.02},
    {"metric": "label", "effect": 0.1},
    {"metric": "error_rate", "effect": 0.02},
    {"metric": "features.amount", "effect": 1.0},
    {"metric": "custom.basket", "effect": 1.0, "field": "features.amount"},
]


def told(events: list[Event], started: dict[str, Any], *, change: bool = True) -> list[Event]:
    """The experiment before the events, and a change of weights in the middle."""
    middle = len(events) // 2
    changed = ("lifecycle", {**CHANGED, "timestamp": events[middle][1]["timestamp"]})
    return [
        ("lifecycle", {**started, "timestamp": START_MS}),
        *events[:middle],
        *([changed] if change else []),
        *events[middle:],
    ]


def restarted(log: list[tuple[bytes, Arrivals]], rng: random.Random, often: float) -> Shard:
    """The shard after the log, restored from a snapshot now and then."""
    shard = Shard(0, SETTINGS, confirm_ms=0)
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        if rng.random() < often:
            parts = shard.snapshot()
            shard = Shard.restore(0, SETTINGS, {k: v for k, v in parts.items() if v})
            shard.log_time.confirm_ms = 0
    return shard


def is_as_counted(experiment: Experiment, expected: Counted, least: int = 20) -> None:
    for a, arm in enumerate(("control", "b")):
        for o, outcome in enumerate(experiment.definition.outcomes):
            found = experiment.units.sums[a, o].tolist()
            assert found == pytest.approx(expected.sums[arm, outcome.name], rel=1e-12), outcome
    for i, outcome in enumerate(experiment.definition.races, GUARDS):
        (race,) = experiment.races[i]
        trials = expected.trials[outcome.name]
        assert len(trials) >= least, f"{outcome.name}: the stream has too few"
        in_arm = sum(in_b for in_b, _ in trials)
        assert [race.in_control, race.in_arm] == [len(trials) - in_arm, in_arm], outcome.name
        assert race.peak == pytest.approx(expected.peak(outcome.name), abs=1e-9), outcome.name


@pytest.mark.parametrize("guards", [RACES, SEQUENCES], ids=["races", "sequences"])
@pytest.mark.parametrize("seed", range(2))
def test_outcomes_are_those_of_a_loop_wherever_the_log_was_cut_and_the_worker_restarted(
    seed: int, guards: list[dict[str, Any]]
) -> None:
    started = {**STARTED, "guards": guards}
    events = told(stream(seed, 1_500, 300, bad=0.05), started)
    end_ms = events[-1][1]["timestamp"] + 7_200_000
    expected = counted(events, started, MATURITY_MS, 0, end_ms)
    rng = random.Random(seed)
    cuts = ([3] * 10_000, [600] * 100, [rng.randrange(1, 90) for _ in range(10_000)])
    for sizes, often in zip(cuts, (0.0, 0.3, 0.05), strict=True):
        shard = restarted(records(events, sizes), rng, often)
        shard.fold(tick(end_ms))
        is_as_counted(the_experiment(shard), expected)


WINDOW_MS = 1_200_000


@pytest.mark.parametrize("change", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_with_a_window_units_count_once_as_a_loop_counts_them(seed: int, change: bool) -> None:
    started = {**STARTED, "guards": [*SEQUENCES[:3], RACES[0], RACES[2]], "window": "20m"}
    events = told(stream(seed + 7, 1_500, 300, bad=0.05, step_ms=2_000), started, change=change)
    rng = random.Random(seed)
    complete = []
    phase_ms = [e["timestamp"] for kind, e in events if kind == "lifecycle"][-1]
    for end_ms in (events[-1][1]["timestamp"] + 7_200_000, phase_ms + 3_360_000):
        seen = [e for e in events if e[1]["timestamp"] <= end_ms]
        expected = counted(seen, started, MATURITY_MS, WINDOW_MS, end_ms)
        for sizes, often in (([600] * 100, 0.3), ([rng.randrange(1, 90)] * 10_000, 0.05)):
            shard = restarted(records(seen, sizes), rng, often)
            shard.fold(tick(end_ms))
            experiment = the_experiment(shard)
            is_as_counted(experiment, expected, least=0)
            assert experiment.units.complete.tolist() == list(expected.complete.values())
        complete.append(sum(expected.complete.values()))
    assert 200 < complete[0] <= 300
    assert 20 < complete[1] < 200, "some are complete at that time, and others are not"


@pytest.mark.parametrize("race", RACES[:3], ids=[r["metric"] for r in RACES[:3]])
def test_an_arm_with_more_bad_calls_is_rolled_back_by_their_race(race: dict[str, Any]) -> None:
    started = {**STARTED, "guards": [race], "weights": {"control": 90, "b": 10}}
    events = told(stream(5, 3_000, 2_000, share=0.1, bad=0.6), started, change=False)
    shard = folded(Shard(0, SETTINGS, confirm_ms=0), records(events, [50] * 1_000))
    shard.fold(tick(events[-1][1]["timestamp"] + 3_600_000))
    (verdict, *_) = [json.loads(o.value) for o in shard.outbox if o.topic == "lifecycle"]
    name = the_experiment(shard).definition.races[0].name
    assert verdict["verdict"] == "rollback"
    assert name in verdict["because"]
    evidence = verdict["evidence"][name]
    assert evidence["e"] > evidence["needed"] == pytest.approx(3 / 0.01)  # primary, failures, race
    assert evidence["share"] == pytest.approx(0.1)
    alerts = [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
    (alert,) = [a for a in alerts if a["kind"] == "experiment"]
    assert alert["detector"] == "race"
    assert "more often than control" in alert["summary"]


RUNS = 100


@pytest.mark.slow
@pytest.mark.parametrize("race", RACES[:3], ids=[r["metric"] for r in RACES[:3]])
def test_equal_arms_lose_a_race_no_more_often_than_promised(race: dict[str, Any]) -> None:
    """At alpha_guard 0.3 with three guards, each race may lose in 10 % of runs."""
    started = {**STARTED, "guards": [race], "alpha_guard": 0.3, "maturity": "10m"}
    needed, lost, trials = math.log(3 / 0.3), 0, 0
    for seed in range(RUNS):
        events = told(stream(1_000 + seed, 350, 200), started)
        shard = folded(Shard(0, SETTINGS, confirm_ms=0), records(events, [120] * 100))
        shard.fold(tick(events[-1][1]["timestamp"] + 3_600_000))
        found = the_experiment(shard).races[GUARDS][0]
        lost += found.peak > needed
        trials += found.in_arm + found.in_control
    assert trials > 10 * RUNS, "it looked at something"
    assert lost <= RUNS * 0.1 + 2 * math.sqrt(RUNS * 0.1 * 0.9)


def told_apart(seed: int, better: float, units: int = 800) -> tuple[bool, int]:
    """
    Whether arms are ever told apart, and how many units were complete at the end.

    Units come one after the other, first with bad calls and then with a good one: those that are
    not complete look worse. Looks come after every 50 units.
    """
    event = {
        **STARTED,
        "primary": {"metric": "features.spent", "effect": 0.2, "cap": 10},
        "guards": [],
        "window": "10m",
        "maturity": 0,
        "duration": ["1m", "30d"],
    }
    rng = np.random.default_rng(seed)
    experiment = Experiment.begun(definition_of(event), 0, units_max=10_000, calls_max=1_000)
    arm, level = rng.integers(0, 2, units), rng.normal(0, 0.5, units)
    # unit i makes calls at minutes i, i + 3 and i + 6
    unit, minute = np.repeat(np.arange(units), 3), np.tile([0, 3, 6], units)
    x = (level + better * arm)[unit] + np.tile([4.0, 5.0, 9.0], units)
    x += rng.normal(0, 0.3, len(x))
    apart = False
    for part in np.array_split(np.argsort(unit + minute, kind="stable"), units // 50):
        time_ms = (unit + minute)[part] * 60_000 + 60_000
        calls = Calls(
            row=part,
            id=part.astype(np.uint64),
            version=np.zeros(len(part), np.int64),
            time_ms=time_ms,
            now_ms=time_ms,
            unit=unit[part].astype(np.uint64) << np.uint64(40),
            has_unit=np.ones(len(part), bool),
            arm=arm[unit[part]],
            failed=np.zeros(len(part), bool),
            values=np.minimum(x[part], 10)[None],
        )
        experiment.tick(int(time_ms[0]), 0)
        experiment.add(calls)
        (found,) = look(experiment, int(time_ms[-1]))
        apart |= found.verdict in {"promote", "rollback"}
    return apart, int(experiment.units.complete.sum())


def test_equal_arms_with_a_window_are_told_apart_no_more_often_than_promised() -> None:
    runs = [told_apart(seed, 0.0) for seed in range(RUNS)]
    assert sum(n for _, n in runs) > 0.9 * RUNS * 800
    assert sum(a for a, _ in runs) <= RUNS * 0.05 + 2 * math.sqrt(RUNS * 0.05 * 0.95)
    assert sum(told_apart(seed, 0.4)[0] for seed in range(20)) >= 18, "a difference is seen"
