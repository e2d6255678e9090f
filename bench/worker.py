"""
Events a CPU-second of a whole worker on a real Kafka: `python bench/worker.py [--events N]
[--labels] [--no-features] [--bootstrap HOST:PORT]`.

The work is that of `workload.py`: every monitor on, gauges exported, snapshots and transactions on.
CPU is user + system of the worker between the moment a fifth and the moment all of the events are
counted on /metrics; start-up is left out. With --labels it is also told how many labels met their
prediction, and it is a failure (1) where some did not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import measure
import workload


def run(
    bootstrap: str,
    n: int,
    *,
    labels: bool,
    drift: bool = True,
    models: int = 1,
    features: int = 10,
    limit_s: float = 600,
) -> dict[str, Any]:
    """One worker, from nothing to the last event."""
    with measure.workplace() as (folder, prefix):
        size = workload.produce(
            bootstrap, prefix, n, labels=labels, models=models, features=features
        )
        command = measure.worker_command(
            folder,
            bootstrap,
            prefix,
            defaults={} if drift else {"drift": {"features": {}}},
            limits={"models": max(models, 100)},
        )
        with measure.running(command, folder) as worker:
            found = measure.drained(
                worker, measure.COUNTERS["pairs" if labels else "predictions"], n, limit_s=limit_s
            )
            joined = settled(worker, n) if labels else 0
    told = {"joined": joined, "labels lost": n - joined} if labels else {}
    return told | {
        "events": found.events,
        "bytes": size,
        "cpu_s": round(found.cpu_s, 2),
        "per_cpu_s": int(found.per_cpu_s),
        "per_s": int(found.events / found.wall_s),
        "rss_mb": int(found.rss_mb),
        "scrape_ms_max": int(found.scrape_ms_max),
        "waited_%": round(100 * found.waited),
        "complete": found.complete,
    }


def with_experiments(
    bootstrap: str, n: int, *, labels: bool, models: int, experiments: int, rounds: int
) -> dict[str, Any]:
    """The same events without and with experiments, in turns; the other one begins each round."""
    counter = measure.COUNTERS["pairs" if labels else "predictions"]
    rates: dict[bool, list[float]] = {False: [], True: []}
    rows = 0
    with measure.workplace() as (folder, prefix):
        workload.produce(bootstrap, prefix, n, labels=labels, models=models, users=20_000)
        for number in range(rounds):
            for has in (False, True)[:: -1 if number % 2 else 1]:
                workload.forget_state(bootstrap, prefix, workload.INPUTS)
                if has:
                    workload.begin_experiments(bootstrap, prefix, models, experiments)
                command = measure.worker_command(folder, bootstrap, prefix)
                with measure.running(command, folder) as worker:
                    found = measure.whole(worker, counter, n)
                    rates[has].append(found.per_cpu_s)
                    rows = max(rows, worker.counted("model_experiment_units_total"))
        workload.forget_state(bootstrap, prefix, ())
    ratios = [some / none for none, some in zip(rates[False], rates[True], strict=True)]
    return {
        "experiments": experiments,
        "models": models,
        "units": rows,
        "per_cpu_s, none": round(statistics.median(rates[False])),
        "per_cpu_s": round(statistics.median(rates[True])),
        "speed to none": [round(f(ratios), 3) for f in (min, statistics.median, max)],
    }


def settled(worker: measure.Subject, n: int, limit_s: float = 20) -> int:
    """Labels that met their prediction, once all have or no more do."""
    joined, until_s = -1, time.monotonic() + limit_s
    while (now := worker.counted(measure.COUNTERS["pairs"])) < n and time.monotonic() < until_s:
        if now > joined:
            joined, until_s = now, time.monotonic() + limit_s
        time.sleep(1)
    return now


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument(
        "--labels", action="store_true", help="labelled pairs instead of predictions"
    )
    parser.add_argument("--no-features", action="store_true", help="no ADWIN on features")
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--experiments", type=int, metavar="N", help="without and with so many")
    parser.add_argument("--rounds", type=int, default=3, help="with --experiments")
    parser.add_argument("--bootstrap")
    a = parser.parse_args()
    with measure.broker(a.bootstrap) as bootstrap:
        if a.experiments:
            sizes = {"labels": a.labels, "models": a.models, "rounds": a.rounds}
            told = with_experiments(bootstrap, a.events, experiments=a.experiments, **sizes)
            print(json.dumps(told))
            return
        found = run(
            bootstrap,
            a.events,
            labels=a.labels,
            drift=not a.no_features,
            models=a.models,
            features=a.features,
        )
    print(json.dumps(found))
    if found.get("labels lost"):
        sys.exit(f"{found['labels lost']:,} of {a.events:,} labels did not meet their prediction")


if __name__ == "__main__":
    main()
