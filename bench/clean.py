"""
Clean data through the whole core: how many alerts fire that should not.

Rule of the file: no fault is in the data, so that every alert is a false one. Rows are seeded; event time and log time go together.

    python bench/clean.py                          # 3,000,000 rows of 20 features, labels, latency, failed calls
    python bench/clean.py --rows 100000 --every 60000 --accuracy 0.65 --reference 1000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

import numpy as np

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings

T0 = 1_760_000_000_000
BATCH = 2_000
KINDS = ("normal", "lognormal", "t3", "flag", "zeros", "category", "rare")
PLANS = [f"plan{i}" for i in range(8)]


def column(rng: np.random.Generator, kind: str, n: int) -> list[object]:
    """Values of one feature."""
    if kind == "normal":
        return rng.normal(100, 15, n).round(4).tolist()
    if kind == "lognormal":
        return rng.lognormal(0, 1, n).round(5).tolist()
    if kind == "t3":
        return rng.standard_t(3, n).round(5).tolist()
    if kind == "flag":
        return (rng.random(n) < 0.03).astype(int).tolist()
    if kind == "zeros":
        return np.where(rng.random(n) < 0.6, 0.0, rng.gamma(2, 20, n)).round(3).tolist()
    weights = 1 / np.arange(1, 9) if kind == "category" else 1 / np.arange(1, 9) ** 3
    return rng.choice(PLANS, n, p=weights / weights.sum()).tolist()


def batch(rng: np.random.Generator, first: int, given: argparse.Namespace) -> tuple[list[bytes], list[bytes]]:
    """Predictions and their labels."""
    n = min(BATCH, given.rows - first)
    features = {f"{KINDS[i % len(KINDS)]}{i}": column(rng, KINDS[i % len(KINDS)], n) for i in range(given.features)}
    score = rng.beta(2, 3, n)
    truth = (rng.random(n) < score).astype(int)
    answer = np.where(rng.random(n) < given.accuracy, truth, 1 - truth)
    failed = rng.random(n) < given.failing
    hour = (first + np.arange(n)) * given.every / 3_600_000
    latency = rng.gamma(4, 2.5, n) * (1 + 0.5 * np.sin(hour * 2 * np.pi / 24))
    rows, labels = [], []
    for i in range(n):
        event = {"event_id": str(first + i), "model": "m", "version": "1", "timestamp": int(T0 + (first + i) * given.every)}
        if failed[i]:
            rows.append(json.dumps(event | {"status": "error"}).encode())
            continue
        own = {name: values[i] for name, values in features.items()}
        rows.append(json.dumps(event | {"prediction": int(answer[i]), "score": float(score[i]), "latency_ms": float(latency[i]), "features": own}).encode())
        labels.append(json.dumps({"event_id": str(first + i), "model": "m", "label": int(truth[i])}).encode())
    return rows, labels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    for name, kind, default, text in (
        ("rows", int, 3_000_000, "predictions"),
        ("features", int, 20, "of each"),
        ("every", float, 10.0, "ms between two"),
        ("accuracy", float, 0.9, "of the answers"),
        ("failing", float, 0.001, "share of failed calls"),
        ("reference", int, 5_000, "rows of the reference"),
        ("seed", int, 1, "of the random numbers"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default:,})")
    given = parser.parse_args()
    rng, began = np.random.default_rng(given.seed), time.monotonic()
    ingest, shard = Ingest(1), Shard(0, CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=given.reference))))
    offsets = {"predictions": 0, "labels": 0}
    fired: Counter[str] = Counter()
    for first in range(0, given.rows, BATCH):
        for topic, values in zip(offsets, batch(rng, first, given), strict=True):
            now = int(T0 + (first + BATCH) * given.every) + (topic == "labels") * 5
            start = offsets[topic]
            offsets[topic] += len(values)
            ingest.take(f"{topic}@x/0", topic, values, np.arange(start, offsets[topic]), np.full(len(values), now))
            for records in ingest.flush(now).values():
                for record in records:
                    shard.fold(record)
        for out in shard.outbox:
            if out.topic == "alerts":
                alert = json.loads(out.value)
                if alert["status"] == "firing":
                    fired[f"{alert['severity']} {alert['kind']} {alert['detector']}"] += 1
                    print(f"{alert['starts_at']} {alert['severity']} {alert['summary']}", flush=True)
        shard.outbox.clear()
    serious = sum(n for what, n in fired.items() if not what.startswith("info"))
    print(
        f"{given.rows:,} clean rows of {given.features} features in {time.monotonic() - began:.0f} s: {serious} false alerts, {fired.total() - serious} of severity info {dict(fired)}"
    )
    return int(serious > 0)


if __name__ == "__main__":
    sys.exit(main())
