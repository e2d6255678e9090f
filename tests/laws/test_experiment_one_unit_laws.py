"""
Laws of the condition that no verdict of a sequence hangs on one unit: shares are those of a loop in
plain Python, and how the log was cut, sampling and restarts do not show. Without such a unit the
same experiment is decided.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.experiments.judgement import look
from stream_monitor.experiments.units import Units
from stream_monitor.ingest import tick
from stream_monitor.settings import CoreSettings
from stream_monitor.stats.confidence_sequences import UNIT_SHARE_MAX
from tests.laws.test_experiment_laws import (
    START_MS,
    STARTED,
    Event,
    folded,
    records,
    the_experiment,
    told,
    verdicts,
)

SPENT = {"metric": "features.spent", "effect": 1.0}
PRIMARY = {**STARTED, "primary": SPENT, "guards": []}
LESS = {**SPENT, "better": "less"}
GUARD = {**STARTED, "primary": {"metric": "score", "effect": 0.05}, "guards": [LESS]}
ROBOT = "user-7"


def share_by_hand(units: dict[Any, tuple[int, float]]) -> float:
    """The greatest share of a unit, (n, sum of outcomes), in the variance: a loop."""
    mean = sum(x for _, x in units.values()) / sum(n for n, _ in units.values())
    squares = [(x - mean * n) ** 2 for n, x in units.values()]
    return max(squares) / sum(squares)


def buyers(robot: float, *, more: float = 1.0, calls: int = 1_500, seed: int = 1) -> list[Event]:
    """Users spend about 10, in arm b `more`; one user of b spends `robot` more at each call."""
    rng = random.Random(seed)
    out: list[Event] = []
    for i in range(calls):
        u = i % 750 if i < 750 else rng.randrange(750)
        in_b = u % 2 == 1
        spent = rng.gauss(10, 1) + more * in_b + robot * (f"user-{u}" == ROBOT)
        event = {
            "event_id": f"e{seed}-{i}",
            "model": "m",
            "version": "1",
            "variant": "b" if in_b else "control",
            "unit": f"user-{u}",
            "score": round(min(max(rng.gauss(0.4 + 0.2 * in_b, 0.1), 0), 1), 3),
            "features": {"spent": round(spent, 2)},
            "timestamp": START_MS + 4_000 * i,
        }
        out.append(("predictions", event))
    return out


def judged(started: dict[str, Any], events: list[Event]) -> Shard:
    log = records([("lifecycle", {**started, "timestamp": START_MS}), *events], [20] * 1_000)
    shard = folded(Shard(0, CoreSettings(), confirm_ms=0), log)
    shard.fold(tick(events[-1][1]["timestamp"] + 60_000))
    return shard


@pytest.mark.parametrize("units_max", [10_000, 150])
def test_the_share_of_the_largest_unit_is_that_of_a_loop(units_max: int) -> None:
    """Corrections and sampling too; a unit that was the largest may answer for a greater one."""
    rng = np.random.default_rng(3)
    units, arm_of = Units(2, 1, units_max), rng.integers(0, 2, 400)
    units.begin_phase()
    sums: dict[int, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for flush in range(40):
        unit = rng.integers(0, 400, 30)
        key = unit.astype(np.uint64) * np.uint64(22_222_222_222_223)
        row, kept, _, _ = units.expose(key, arm_of[unit], np.zeros(30, np.int64))
        x = np.rint(rng.lognormal(0, 2, 30) * 64) / 64
        counts = units.add(0, row, x[kept])
        assert counts.all()
        for u, value in zip(unit.tolist(), x.tolist(), strict=True):
            sums[u] = sums[u][0] + 1, sums[u][1] + value
        change = np.rint(rng.normal(0, 3, len(row)) * 64) / 64
        units.correct(0, row, np.zeros(len(row)), change)
        for u, value in zip(unit[kept].tolist(), change.tolist(), strict=True):
            sums[u] = sums[u][0], sums[u][1] + value
        units.thin()
        if flush < 5:
            continue
        restored = Units.unpacked(units.packed())
        for arm in (0, 1):
            here = {
                u: of
                for u, of in sums.items()
                if arm_of[u] == arm and u * 22_222_222_222_223 <= int(units.keep)
            }
            expected = share_by_hand(here)
            assert units.share_of_one(0, arm) == pytest.approx(expected, rel=1e-9)
            assert restored.share_of_one(0, arm) == units.share_of_one(0, arm)
            known = units.share_of_one(0, arm, enough=0.05)
            assert (known > 0.05) == (expected > 0.05)
            assert known <= expected * (1 + 1e-9)
    units.begin_phase()
    assert units.share_of_one(0, 0) == 1, "nothing is known of the new phase"


def test_nothing_is_promoted_because_of_one_unit() -> None:
    shard = judged(PRIMARY, buyers(60))
    assert verdicts(shard) == []
    spent = told(shard, "progress")[-1]["evidence"]["features.spent"]
    low, high = spent["interval"]
    assert low > 0 < high, "it would be decided"
    assert not spent["ready"]
    share, most = spent["waits_for"]["share_of_one_unit"]
    assert most == UNIT_SHARE_MAX < share < 1
    clean = judged(PRIMARY, buyers(0))
    assert [v["verdict"] for v in verdicts(clean)] == ["promote"]
    assert verdicts(clean)[0]["evidence"]["features.spent"]["ready"]


def test_a_guard_that_is_worse_because_of_one_unit_rolls_nothing_back_and_holds_promotion() -> None:
    held = judged(GUARD, buyers(60))
    assert verdicts(held) == []
    evidence = told(held, "progress")[-1]["evidence"]
    assert evidence["score"]["ready"]
    assert evidence["score"]["interval"][0] > 0, "the primary outcome is better"
    assert "share_of_one_unit" in evidence["features.spent"]["waits_for"]
    (worse,) = verdicts(judged(GUARD, buyers(0)))
    assert (worse["verdict"], worse["because"]) == ("rollback", ["features.spent"])
    (better,) = verdicts(judged(GUARD, buyers(0, more=0.0)))
    assert better["verdict"] == "promote"


def test_an_undecided_outcome_says_nothing_of_single_units() -> None:
    shard = judged(PRIMARY, buyers(30, more=0.0))
    spent = told(shard, "progress")[-1]["evidence"]["features.spent"]
    assert spent["ready"]
    assert "waits_for" not in spent


@pytest.mark.parametrize("seed", range(2))
def test_restarts_and_cuts_do_not_show_in_what_is_told_of_one_unit(seed: int) -> None:
    events = [("lifecycle", {**PRIMARY, "timestamp": START_MS}), *buyers(25, seed=seed)]
    rng = np.random.default_rng(seed)
    found = []
    for sizes in ([1] * 10_000, rng.integers(1, 60, 10_000).tolist()):
        shard = Shard(0, CoreSettings(), confirm_ms=0)
        outs: list[dict[str, Any]] = []
        for record, arrivals in records(events, sizes):
            shard.fold(record, arrivals=arrivals)
            if rng.random() < 0.1:
                outs += told(shard, "progress") + verdicts(shard)
                shard.outbox = []
                parts = shard.snapshot()
                shard = Shard.restore(0, CoreSettings(), {k: v for k, v in parts.items() if v})
                shard.log_time.confirm_ms = 0
        shard.fold(tick(START_MS + 10 * 3_600_000))
        outs += told(shard, "progress") + verdicts(shard)
        waits_for = outs[-1]["evidence"]["features.spent"]["waits_for"]
        found.append(([e["id"] for e in outs], waits_for["share_of_one_unit"]))
    assert found[0] == found[1]
    assert found[0][1][0] > UNIT_SHARE_MAX


@pytest.mark.parametrize("robot", [0, 25, 60])
def test_a_lean_look_finds_the_same_new_verdicts(robot: float) -> None:
    events = buyers(robot, calls=1_200)
    log = records([("lifecycle", {**PRIMARY, "timestamp": START_MS}), *events], [50] * 1_000)
    shard = Shard(0, CoreSettings(), confirm_ms=0)
    for record, arrivals in log:
        shard.fold(record, arrivals=arrivals)
        experiment = the_experiment(shard)
        now_ms = START_MS + 3_600_000
        told_before, experiment.told = experiment.told, {}
        lean, whole = (look(experiment, now_ms, lean=lean) for lean in (True, False))
        experiment.told = told_before
        assert [v.verdict for v in lean] == [v.verdict for v in whole]
        assert all(a.evidence == b.evidence for a, b in zip(lean, whole, strict=True) if a.because)
