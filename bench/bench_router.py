"""
Nanoseconds a call of the router: `python bench/bench_router.py [--keys N] [--rounds N]`.

Beside it what it could have been: xxh3 (a package with a compiled extension, and not in the
standard library of other languages) and the remainder that is no split at all
(`modulo_split.py` shows why). The first column is the minimum of the rounds, the second the median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import xxhash

from stream_monitor.client import Router, reassign


def costs_ns(call: Callable[[Any], object], keys: Sequence[object], rounds: int) -> list[float]:
    """CPU time a call of each round, with what the loop itself costs."""
    costs = []
    for _ in range(rounds):
        start = time.process_time_ns()
        for key in keys:
            call(key)
        costs.append((time.process_time_ns() - start) / len(keys))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    table = reassign([], {"control": 50, "b": 30, "c": 20})
    router = Router("fraud-17", table)
    owner = [router.ranges[0][1]] * 10_000
    digest = xxhash.xxh3_64_intdigest
    texts = [f"user-{i}" for i in range(options.keys)]
    calls: list[tuple[str, Callable[[Any], object], Sequence[object]]] = [
        ("Router, text", router, texts),
        ("Router, whole number", router, range(options.keys)),
        ("Router.fields", router.fields, texts),
        (
            "xxh3, text",
            lambda key: owner[digest(b"fraud-17\0" + key.encode()) * 10_000 >> 64],
            texts,
        ),
        ("% 100, whole number", lambda key: "b" if key % 100 < 30 else "a", range(options.keys)),
        ("a call that does nothing", lambda _: None, texts),
    ]
    print(f"{'':26} min  median   (ns a call)")
    for name, call, keys in calls:
        costs = costs_ns(call, keys, options.rounds)
        print(f"{name:26} {min(costs):4.0f} {statistics.median(costs):6.0f}")


if __name__ == "__main__":
    main()
