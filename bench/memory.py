"""
What a worker keeps: `python bench/memory.py [--events N] [--pending N] [--models N] [--only
wide|pending|many]`.

`wide`: peak resident memory of a worker with one model of 100 features at full speed (target under
300 MB). `pending`: bytes a prediction that waits for its label, in the arrays of the join itself,
from a quarter of the limit up to the limit (target at most 64). `many`: 1,000 models of ten
features (target: 40,000 events a CPU-second, under 2 GB).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import measure
import numpy as np
import worker
import workload

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.settings import CoreSettings, Limits

CHUNK = 4_000
WIDE_FEATURES = 100


def array_bytes(thing: Any, seen: set[int] | None = None) -> int:
    """
    Bytes of all numpy arrays that can be reached from an object; views count as what they look at.
    """
    seen = set() if seen is None else seen
    if isinstance(thing, np.ndarray):
        while isinstance(thing.base, np.ndarray):
            thing = thing.base
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, dict):
        return sum(array_bytes(v, seen) for v in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(array_bytes(v, seen) for v in thing)
    held = getattr(thing, "__dict__", None) or {
        name: getattr(thing, name)
        for name in getattr(type(thing), "__slots__", ())
        if hasattr(thing, name)
    }
    return (
        sum(array_bytes(v, seen) for v in held.values())
        if type(thing).__module__.startswith("stream_monitor")
        else 0
    )


def pending(limit: int) -> Iterator[tuple[int, float]]:
    """(predictions that wait, bytes each) at each quarter of the limit."""
    ingest, shard = Ingest(1), Shard(0, CoreSettings(limits=Limits(pending=limit)))
    values: list[bytes | None] = []
    done, marks = 0, [limit * i // 4 for i in range(1, 5)]
    for event in workload.events(limit, features=1):
        values.append(event.prediction)
        if len(values) < min(CHUNK, marks[0] - done):
            continue
        ingest.take(
            "predictions@0/0",
            "predictions",
            values,
            np.arange(done, done + len(values)),
            np.full(len(values), event.time_ms),
        )
        done, values = done + len(values), []
        for record in ingest.flush(event.time_ms)[0]:
            shard.fold(record)
        if done == marks[0]:
            marks.pop(0)
            waiting = int(shard.join.state.pending.sum())
            assert waiting == done, f"{waiting} of {done} predictions wait"
            yield done, array_bytes(shard.join) / done
            if not marks:
                return


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--events", type=int, default=600_000, help="of `many`; `wide` takes a fifth"
    )
    parser.add_argument("--pending", type=int, default=500_000, help="the limit of the join")
    parser.add_argument("--models", type=int, default=1_000)
    parser.add_argument("--only", choices=("wide", "pending", "many"))
    parser.add_argument("--bootstrap", metavar="HOST:PORT")
    a = parser.parse_args()
    if a.only in (None, "pending"):
        for n, each in pending(a.pending):
            print(
                json.dumps({"measured": "pending", "waiting": n, "bytes_each": round(each, 1)}),
                flush=True,
            )
    if a.only == "pending":
        return
    with measure.broker(a.bootstrap) as bootstrap:
        if a.only in (None, "wide"):
            found = worker.run(bootstrap, a.events // 5, labels=True, features=WIDE_FEATURES)
            print(json.dumps({"measured": "wide", "features": WIDE_FEATURES, **found}), flush=True)
        if a.only in (None, "many"):
            found = worker.run(bootstrap, a.events, labels=False, models=a.models)
            print(json.dumps({"measured": "many", "models": a.models, **found}), flush=True)


if __name__ == "__main__":
    main()
