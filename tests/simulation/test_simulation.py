"""
Five hundred seeds against the oracles, in a process each with a fixed order of sets, so that a seed
that is printed can be seen again; and every rule taken away once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.mutations import WITHOUT
from tests.simulation.world import FAULTS

ROOT = Path(__file__).parents[2]
REQUESTS = (
    "init",
    "send in a transaction",
    "send offsets",
    "end",
    "send",
    "committed",
    "bounds",
    "commit",
    "restore",
    "ids",
)
"""
Every request that a stage waits for: at each of them workers are killed and stopped, and told
errors.
"""
SEEDS, REAL_SEEDS, PLAIN_SEEDS, MUTATION_SEEDS = 500, 50, 50, 1_000
"""Of the first, each fault happens at each request twice or more."""


def simulation(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


def reports(runs: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    told = [run.communicate(timeout=900) for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), "\n".join(
        err[-3_000:] for _, err in told
    )
    return [json.loads(out) for out, _ in told]


@pytest.mark.slow
@pytest.mark.timeout(1_000)
def test_five_hundred_seeds():
    found = reports(
        [simulation("--seeds", f"{start}:{start + SEEDS // 2}") for start in (0, SEEDS // 2)]
    )
    faults = {k: sum(one["faults"].get(k, 0) for one in found) for k in found[0]["faults"]}
    assert sum(one["seeds"] - one["wrong"] for one in found) == SEEDS
    assert {f"{request}: {fault}" for request in REQUESTS for fault in FAULTS} - {
        k for k, n in faults.items() if n > 1
    } == set()
    assert sum(one["fenced"] for one in found) > SEEDS / 10
    assert sum(one["rebalances"] for one in found) > SEEDS
    assert sum(one["events"] for one in found) > 50 * SEEDS


@pytest.mark.slow
@pytest.mark.timeout(1_000)
def test_real_statistics_and_brokers_without_transactions():
    real, plain = reports(
        [
            simulation("--real", "--seeds", f"0:{REAL_SEEDS}"),
            simulation("--at-least-once", "--seeds", f"0:{PLAIN_SEEDS}"),
        ]
    )
    assert (real["wrong"], plain["wrong"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1_000)
@pytest.mark.parametrize("rule", WITHOUT)
def test_no_rule_can_be_left_out(rule):
    run = simulation("--without", rule, "--seeds", f"0:{MUTATION_SEEDS}")
    _, noticed = run.communicate(timeout=900)
    assert run.returncode == 0
    assert "seed " in noticed


def test_a_seed_is_seen_again():
    one, other = reports([simulation("--seeds", "17:22"), simulation("--seeds", "17:22")])
    assert one == other
