"""
Events a CPU-second of a whole worker on a real Kafka: `python bench/worker.py [--events N] [--labels] [--no-features] [--bootstrap HOST:PORT]`.

The work is that of `workload.py`: every monitor on, gauges exported, snapshots and transactions on. CPU is user + system of the worker between the moment a fifth and the
moment all of the events are counted on /metrics; start-up is left out.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import measure
import workload


def run(bootstrap: str, n: int, *, labels: bool, drift: bool = True, models: int = 1, features: int = 10, limit_s: float = 600) -> dict[str, Any]:
    """One worker, from nothing to the last event."""
    with measure.workplace() as (folder, prefix):
        size = workload.produce(bootstrap, prefix, n, labels=labels, models=models, features=features)
        command = measure.worker_command(folder, bootstrap, prefix, defaults={} if drift else {"drift": {"features": {}}}, limits={"models": max(models, 100)})
        with measure.running(command, folder) as worker:
            found = measure.drained(worker, measure.COUNTERS["pairs" if labels else "predictions"], n, limit_s=limit_s)
    return {
        "events": found.events,
        "bytes": size,
        "cpu_s": round(found.cpu_s, 2),
        "per_cpu_s": int(found.per_cpu_s),
        "per_s": int(found.events / found.wall_s),
        "rss_mb": int(found.rss_mb),
        "scrape_ms_max": int(found.scrape_ms_max),
        "complete": found.complete,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--labels", action="store_true", help="labelled pairs instead of predictions")
    parser.add_argument("--no-features", action="store_true", help="no ADWIN on features")
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--bootstrap")
    a = parser.parse_args()
    with measure.broker(a.bootstrap) as bootstrap:
        print(json.dumps(run(bootstrap, a.events, labels=a.labels, drift=not a.no_features, models=a.models, features=a.features)))


if __name__ == "__main__":
    main()
