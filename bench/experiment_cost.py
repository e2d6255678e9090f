"""
What experiments cost EVALUATE: `python bench/experiment_cost.py [--pairs N] [--models N]
[--rounds N] [--units N ...] [--json]`.

Rule of the file: no broker, and no time but that of the CPU. Every row of every model is of its
experiment, each of which has three outcomes (accuracy by labels, error, latency).

- `fold`: the same log of pairs is folded without experiments and with one for each model, in turns,
  and the other one begins each round. The ratio of the speeds is the median of the rounds.
- `snapshot`: what a snapshot of the shard with and without them has and takes, at the end of it.
- `units`: one experiment with so many units; µs a row and outcome, and bytes of its state.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from experiment_worker import keys

from stream_monitor.evaluate import Shard
from stream_monitor.experiments.calls import Calls
from stream_monitor.experiments.definition import definition_of
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.ingest import Ingest
from stream_monitor.runtime.worker import GC_THRESHOLDS
from stream_monitor.settings import CoreSettings
from stream_monitor.state import encode

START_MS, FEATURES, USERS = 1_760_000_000_000, 10, 20_000
PAIRS_PER_MS = 10
"""Log time runs at 10,000 pairs a second."""
FLUSH, BATCH = 2_000, 2_000
"""Pairs of a record of the log, and rows of one experiment that are taken in at once."""
SEED = 7


def started(model: str) -> dict[str, Any]:
    """The event that starts the experiment of a model."""
    return {
        "type": "experiment_started",
        "model": model,
        "experiment": "x",
        "arms": ["control", "b"],
        "primary": {"metric": "accuracy", "effect": 0.02},
        "guards": [{"metric": "error", "effect": 0.01}, {"metric": "latency_ms", "effect": 0.05}],
        "maturity": "2s",
    }


def log(pairs: int, models: int) -> tuple[bytes, list[bytes]]:
    """Records of `observations`: that of the events that start experiments, and those of pairs."""
    rng = np.random.default_rng(SEED)
    user = rng.integers(0, USERS, pairs)
    answer, right = rng.random(pairs) < 0.5, rng.random(pairs) < 0.9
    values = rng.normal(size=(pairs, FEATURES)).round(4)
    ingest, records = Ingest(1), []
    events = [json.dumps(started(f"m{i}")).encode() for i in range(models)]
    times = np.full(models, START_MS)
    ingest.take("lifecycle@0/0", "lifecycle", events, np.arange(models), times)
    (start,) = ingest.flush(START_MS)[0]
    for at in range(0, pairs, FLUSH):
        now_ms = START_MS + at // PAIRS_PER_MS
        predictions, labels = [], []
        for i in range(at, min(at + FLUSH, pairs)):
            of_call = {"event_id": f"e{i}", "model": f"m{i % models}", "timestamp": now_ms}
            prediction = {
                "version": "1",
                "unit": f"user-{user[i]}",
                "variant": ("control", "b")[user[i] % 2],
                "prediction": int(answer[i]),
                "score": 0.4,
                "latency_ms": 20.0 + int(user[i]) % 7,
                "features": {f"f{k}": values[i, k] for k in range(FEATURES)},
            }
            predictions.append(json.dumps(of_call | prediction).encode())
            labels.append(json.dumps(of_call | {"label": int(answer[i] == right[i])}).encode())
        for kind, rows in (("predictions", predictions), ("labels", labels)):
            offsets = np.arange(at, at + len(rows))
            ingest.take(f"{kind}@0/0", kind, rows, offsets, np.full(len(rows), now_ms))
        records += ingest.flush(now_ms)[0]
    return start, records


def folded(records: list[bytes], first: list[bytes]) -> tuple[float, Shard]:
    """CPU seconds of all but the first fifth of the records, after those that come before."""
    shard, warm = Shard(0, CoreSettings()), len(records) // 5
    for record in first + records[:warm]:
        shard.fold(record)
    began = time.process_time()
    for record in records[warm:]:
        shard.fold(record)
        shard.outbox.clear()
    return time.process_time() - began, shard


def snapshot(shard: Shard) -> tuple[float, int]:
    """CPU seconds and bytes of a snapshot."""
    began = time.process_time()
    parts = shard.snapshot()
    return time.process_time() - began, sum(len(part) for part in parts.values() if part)


def folds(pairs: int, models: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A log without and with experiments."""
    start, records = log(pairs, models)
    n = pairs - FLUSH * (len(records) // 5)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    spent: dict[bool, list[float]] = {False: [], True: []}
    shards: dict[bool, Shard] = {}
    folded(records[: len(records) // 3], [start])  # the first calls of numpy take longer
    for number in range(rounds):
        for has in (False, True)[:: -1 if number % 2 else 1]:
            seconds, shards[has] = folded(records, [start] if has else [])
            spent[has].append(seconds)
    shards[True].experiments.settle()
    ratios = [none / some for none, some in zip(spent[False], spent[True], strict=True)]
    yield {
        "what": "fold",
        "experiments": sum(1 for _ in shards[True].experiments),
        "rows": sum(e.rows for e in shards[True].experiments),
        "us a pair, none": round(min(spent[False]) / n * 1e6, 2),
        "us a pair": round(min(spent[True]) / n * 1e6, 2),
        "speed to none": [round(f(ratios), 3) for f in (min, statistics.median, max)],
    }
    found = {has: snapshot(shard) for has, shard in shards.items()}
    yield {
        "what": "snapshot",
        "MB, none": round(found[False][1] / 1e6, 2),
        "MB": round(found[True][1] / 1e6, 2),
        "ms, none": round(found[False][0] * 1e3, 1),
        "ms": round(found[True][0] * 1e3, 1),
    }


def one(units: int) -> dict[str, Any]:
    """An experiment into which calls of so many units come in batches, each unit twice."""
    rng = np.random.default_rng(SEED)
    event = started("m") | {"primary": {"metric": "score", "effect": 0.02}}
    experiment = Experiment.begun(definition_of(event), START_MS, 200_000, 500_000)
    spent, rows = 0.0, 2 * units
    for at in range(0, rows, BATCH):
        n = min(BATCH, rows - at)
        user = rng.integers(0, units, n) if at >= units else np.arange(at, at + n) % units
        time_ms = np.full(n, START_MS + at)
        calls = Calls(
            row=np.arange(n),
            id=rng.integers(1, 2**63, n, np.uint64),
            version=np.zeros(n, np.int64),
            time_ms=time_ms,
            now_ms=time_ms,
            unit=keys(user),
            has_unit=np.ones(n, bool),
            arm=user % 2,
            failed=np.zeros(n, bool),
            values=np.stack([rng.random(n).round(3), np.zeros(n), np.log(20.0 + user % 7)]),
        )
        began = time.process_time()
        experiment.add(calls)
        spent += time.process_time() - began
    began = time.process_time()
    size = len(encode(experiment))
    return {
        "what": "units",
        "units": len(experiment.units.table),
        "outcomes": len(experiment.definition.outcomes),
        "us a row and outcome": round(spent / rows / 3 * 1e6, 3),
        "MB of memory": round(experiment.memory_bytes / 1e6, 1),
        "MB in a snapshot": round(size / 1e6, 1),
        "ms of a snapshot": round((time.process_time() - began) * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=160_000)
    parser.add_argument("--models", type=int, default=16, help="and experiments, one a model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--units", type=int, nargs="*", default=[100_000, 200_000])
    parser.add_argument("--json", action="store_true", help="one object a line")
    a = parser.parse_args()
    found = [*map(one, a.units), *folds(a.pairs, a.models, a.rounds)]
    for line in found:
        told = ", ".join(f"{key} {value}" for key, value in line.items() if key != "what")
        print(json.dumps(line) if a.json else f"{line['what']:10}{told}")


if __name__ == "__main__":
    main()
