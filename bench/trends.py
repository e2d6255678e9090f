"""
Trends of performance: how often they fire on labels of the same law, and how soon on a metric that
falls.

Rule of the file: labels and answers are seeded and go into `Trend` as in a worker, in groups of a
fifth of a block. A false trend is one that fires on clean data; looks are one a block.

    python bench/trends.py                 # 10,000 looks a case
    python bench/trends.py --looks 2000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.trend import GROUPS, LOOK_ALPHA, Trend
from stream_monitor.settings import Anomalies

Float = NDArray[np.float64]
Rows = tuple[Float, Float]
BINARY = Reading("binary", "1", "0", "name", 1, 0)
MULTICLASS = Reading("multiclass", "", "", "", -1, -1)
RUNS = 30


def binary(rng: np.random.Generator, n: int, *, rate: float, recall: float, false: float) -> Rows:
    """Answers and labels: positives at `rate`, found at `recall`; others taken for one: `false`."""
    label = rng.random(n) < rate
    return np.where(label, rng.random(n) < recall, rng.random(n) < false) * 1.0, label * 1.0


def multiclass(rng: np.random.Generator, n: int, *, right: float, rare: float = 0.0) -> Rows:
    """Five classes, the rarest of 3 %; `rare` of its rows are taken for the first."""
    label = rng.choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03]).astype(np.float64)
    answer = np.where(rng.random(n) < right, label, rng.integers(0, 5, n))
    return np.where((label == 4) & (rng.random(n) < rare), 0.0, answer), label


def bursts(rng: np.random.Generator, n: int) -> Rows:
    """Errors that come in runs of 10 rows, 10 % of the rows."""
    label = (rng.random(n) < 0.5) * 1.0
    wrong = np.repeat(rng.random(-(-n // 10)) < 0.1, 10)[:n]
    return np.where(wrong, 1 - label, label), label


Case = tuple[Reading | None, int, Callable[[np.random.Generator, int], Rows]]
CLEAN: dict[str, Case] = {
    "balanced, accuracy 0.9, block 1,000": (
        *(BINARY, 1_000),
        lambda r, n: binary(r, n, rate=0.5, recall=0.9, false=0.1),
    ),
    "balanced, accuracy 0.65, block 100": (
        *(BINARY, 100),
        lambda r, n: binary(r, n, rate=0.5, recall=0.65, false=0.35),
    ),
    "positives 5 %, block 1,000": (
        *(BINARY, 1_000),
        lambda r, n: binary(r, n, rate=0.05, recall=0.7, false=0.02),
    ),
    "positives 1 %, block 1,000": (
        *(BINARY, 1_000),
        lambda r, n: binary(r, n, rate=0.01, recall=0.7, false=0.005),
    ),
    "5 classes, macro, block 500": (MULTICLASS, 500, lambda r, n: multiclass(r, n, right=0.85)),
    "errors in runs of 10, block 500": (BINARY, 500, bursts),
    "regression, R2 0.8, block 500": (
        *(None, 500),
        lambda r, n: (np.abs(r.normal(0, 0.5, n)), r.normal(0, 1.118, n)),
    ),
    "regression, errors t3, block 500": (
        *(None, 500),
        lambda r, n: (np.abs(r.standard_t(3, n)), r.normal(0, 3, n)),
    ),
}


def falling(n: int, at: float) -> Iterator[tuple[str, Case, str]]:
    """Cases whose metric falls along ten blocks; `at` is how far they are, 0 to 1."""
    yield (
        "recall 0.9 to 0.6 of positives of 5 %",
        (BINARY, n, lambda r, k: binary(r, k, rate=0.05, recall=0.9 - 0.3 * at, false=0.01)),
        "recall",
    )
    yield (
        "precision 0.8 to 0.5 of positives of 5 %",
        (BINARY, n, lambda r, k: binary(r, k, rate=0.05, recall=0.8, false=0.0105 + 0.032 * at)),
        "precision",
    )
    yield (
        "accuracy 0.9 to 0.75, balanced",
        (
            *(BINARY, n),
            lambda r, k: binary(r, k, rate=0.5, recall=0.9 - 0.15 * at, false=0.1 + 0.15 * at),
        ),
        "accuracy",
    )
    yield (
        "the rarest of 5 classes is lost, macro",
        (MULTICLASS, n, lambda r, k: multiclass(r, k, right=0.95, rare=at)),
        "recall",
    )


def look(trend: Trend, case: Case, rng: np.random.Generator) -> None:
    """One block, and its look."""
    reading, block, rows = case
    for _ in range(GROUPS):
        first, labels = rows(rng, block // GROUPS)
        if reading is None:
            trend.add_numbers(first, labels)
        else:
            trend.add_classes(first, labels)
        trend.close_group()
    trend.look(reading, macro=True)


def false_looks(case: Case, looks: int, seed: int = 1) -> tuple[dict[str, int], dict[str, int]]:
    """By metric, looks whose line is beyond chance; and of these, that fall by more than 0.1."""
    rng, trend = np.random.default_rng(seed), Trend(Anomalies())
    steep: dict[str, int] = {}
    alarms: dict[str, int] = {}
    for _ in range(looks):
        look(trend, case, rng)
        for name, line in trend.lines.items():
            if line.steep:
                steep[name] = steep.get(name, 0) + 1
                alarms[name] = alarms.get(name, 0) + (line.rise < trend.anomalies.trend_slope)
    return steep, alarms


def found_share(which: int, n: int = 1_000, runs: int = RUNS) -> tuple[str, str, float]:
    """Runs in which the metric that falls has its trend within ten blocks after the fall."""
    hits = 0
    for seed in range(runs):
        rng, trend = np.random.default_rng(seed), Trend(Anomalies())
        for block in range(30):
            at = min(max(block - 9, 0) / 10, 1.0)
            name, case, metric = list(falling(n, at))[which]
            look(trend, case, rng)
            if block >= 10 and metric in trend.state.fell_from:
                hits += 1
                break
    return name, metric, hits / runs


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--looks", type=int, default=10_000)
    looks = parser.parse_args().looks
    print(f"false looks of {looks:,} (stated: at most {LOOK_ALPHA * looks:.1f} a row)")
    print("| clean data | beyond chance, any fall | and by more than 0.1 (the default) |")
    print("|---|---|---|")
    for name, case in CLEAN.items():
        told = [
            ", ".join(f"{metric} {n}" for metric, n in found.items() if n) or "0"
            for found in false_looks(case, looks)
        ]
        print(f"| {name} | {told[0]} | {told[1]} |", flush=True)
    print("\n| falls along ten blocks of 1,000 | metric | found |\n|---|---|---|")
    for which in range(4):
        name, metric, share = found_share(which)
        print(f"| {name} | `{metric}` | {share:.0%} of {RUNS} |", flush=True)


if __name__ == "__main__":
    main()
