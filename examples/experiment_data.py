"""
Data of an A/B test and of a canary, for `stream-monitor replay --experiment`: the tables, and the
events that start the experiments.

Rule of the file: the split is that of the Router, and everything else is drawn with a seed.

    python examples/experiment_data.py FOLDER
"""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from stream_monitor.client import Router
from stream_monitor.client.allocation import reassign

START = datetime(2026, 11, 2, 9, tzinfo=UTC)
AB: dict[str, Any] = {
    "type": "experiment_started",
    "model": "fraud",
    "experiment": "fraud-17",
    "arms": [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}],
    "weights": {"control": 50, "b": 50},
    "unit": "user",
    "primary": {"metric": "accuracy", "effect": 0.02},
    "guards": [
        {"metric": "error", "effect": 0.005},
        {"metric": "latency_ms", "effect": 0.05},
    ],
    "maturity": "12h",
    "duration": ["2d", "14d"],
}
CANARY: dict[str, Any] = {
    **AB,
    "experiment": "fraud-18",
    "arms": [{"name": "control", "version": "4"}, {"name": "canary", "version": "5"}],
    "weights": {"control": 95, "canary": 5},
    "steps": [5, 25, 50],
}


def rows(
    event: dict[str, Any], seed: int, days: float, accuracy: float, errors: float
) -> list[dict[str, Any]]:
    """
    Calls of 4,000 users, each in the arm that the Router gives it. The control is right in 90 % and
    fails in 0.5 % of its calls.
    """
    rng = np.random.default_rng(seed)
    names = [arm["name"] for arm in event["arms"]]
    versions = {arm["name"]: arm["version"] for arm in event["arms"]}
    ranges = reassign([], event["weights"], control=names[0])
    router = Router(event["experiment"], ranges)
    users = [f"user-{i}" for i in range(4_000)]
    arms = [router(user) for user in users]
    taste = rng.normal(0, 0.05, len(users))  # a user's cases are alike
    out: list[dict[str, Any]] = []
    for i in range(int(days * 3_000)):
        u = int(rng.integers(len(users)))
        arm, truth = arms[u], int(rng.random() < 0.2)
        is_treated = arm != names[0]
        right = rng.random() < (accuracy if is_treated else 0.9) + taste[u]
        failed = rng.random() < (errors if is_treated else 0.005)
        at = START + timedelta(days=i / 3_000)
        out.append(
            {
                "event_id": f"call-{i}",
                "timestamp": at.isoformat(timespec="milliseconds"),
                "model": event["model"],
                "version": versions[arm],
                "variant": arm,
                "unit": users[u],
                "status": "error" if failed else "ok",
                "latency_ms": round(float(rng.lognormal(3, 0.5)), 2),
                "prediction": "" if failed else truth if right else 1 - truth,
                "label": "" if failed else truth,
            }
        )
    return out


def main(folder: Path) -> None:
    """Write two tables and two events."""
    for name, event, table in (
        ("ab", AB, rows(AB, 17, days=10, accuracy=0.92, errors=0.005)),
        ("canary", CANARY, rows(CANARY, 18, days=10, accuracy=0.9, errors=0.05)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(event, indent=1) + "\n")
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
