"""
Clean data through the whole core: how many alerts fire that should not.

Rule of the file: no fault is in the data, so that every alert is a false one. Rows are seeded and
go into EVALUATE as columns, a record for each second of log time (or each row, where rows are
rarer); labels come a second later.

    python bench/clean.py                          # 3,000,000 rows of 20 features, labels, latency, failed calls
    python bench/clean.py --rows 50000 --every 60000 --accuracy 0.65 --reference 1000 --versions 2
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from stream_monitor.evaluate import Shard
from stream_monitor.events.cells import TEXT, boxed
from stream_monitor.events.observations import FAILURE, LABEL, PREDICTION, ROW, Group, Head, pack
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings

Float = NDArray[np.float64]
T0 = 1_760_000_000_000
BLOCK = 20_000
KINDS = ("normal", "lognormal", "t3", "flag", "zeros", "category", "rare")
PLANS = [f"plan{i}" for i in range(8)]
PLAN_CELLS = np.array([boxed(TEXT, i) for i in range(len(PLANS))])
RARE = np.array([1, 0.3, 0.05, 0.01, 0.002, 0.0005, 0.0005, 0.0005])
"""Weights of rare categories: some are hardly in a reference."""
SLOW_SHARE, DAY_SWING = 0.001, 0.5


def column(rng: np.random.Generator, kind: str, n: int) -> Float:
    """Cells of one feature."""
    if kind == "normal":
        return rng.normal(100, 15, n)
    if kind == "lognormal":
        return rng.lognormal(0, 1, n)
    if kind == "t3":
        return rng.standard_t(3, n)
    if kind == "flag":
        return (rng.random(n) < 0.03).astype(np.float64)
    if kind == "zeros":
        return np.where(rng.random(n) < 0.6, 0.0, rng.gamma(2, 20, n)).round(3)
    weights = 1 / np.arange(1, 9) if kind == "category" else RARE
    found: Float = PLAN_CELLS[rng.choice(len(PLANS), n, p=weights / weights.sum())]
    return found


class Stream:
    """Clean rows, in blocks of columns."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.rng = given, np.random.default_rng(given.seed)
        self.names = [f"{KINDS[i % len(KINDS)]}{i}" for i in range(given.features)]
        self.columns = (
            "prediction",
            "score",
            "latency_ms",
            *(f"features.{name}" for name in self.names),
        )

    def block(self, first: int) -> tuple[NDArray[np.void], Float, Float]:
        """Rows of predictions, their cells, and the labels of those that did not fail."""
        n, rng, given = min(BLOCK, self.given.rows - first), self.rng, self.given
        score = rng.beta(2, 3, n)
        truth = rng.random(n) < score
        answer = np.where(rng.random(n) < given.accuracy, truth, ~truth)
        rows = np.zeros(n, ROW)
        rows["offset"] = rows["id"] = first + np.arange(n)
        rows["time"] = T0 + rows["offset"] * given.every
        day = 2 * np.pi * rows["time"] / 86_400_000
        latency = rng.gamma(4, 2.5, n) * (1 + DAY_SWING * np.sin(day))
        latency = np.where(rng.random(n) < SLOW_SHARE, latency * (1 + rng.pareto(1, n)), latency)
        failed = rng.random(n) < given.failing
        rows["group"] = 2 * (rows["offset"] % given.versions) + failed
        cells = np.vstack(
            [
                answer,
                score,
                latency,
                *(column(rng, KINDS[i % len(KINDS)], n) for i in range(given.features)),
            ]
        )
        return rows, cells, truth.astype(np.float64)

    def records(self, first: int) -> list[tuple[bytes, int]]:
        """Records of the log, with the log time of each."""
        rows, cells, truth = self.block(first)
        per = max(1, round(1_000 / self.given.every))
        groups = [
            Group(kind, "m", str(v + 1), 0)
            for v in range(self.given.versions)
            for kind in (PREDICTION, FAILURE)
        ]
        out = []
        for start in range(0, len(rows), per):
            at = slice(start, start + per)
            part, now = rows[at], int(rows["time"][at][-1]) + 10
            out.append(
                (
                    pack(
                        Head(
                            now,
                            ["predictions@x/0"],
                            groups,
                            [self.columns],
                            [len(part)],
                            PLANS,
                            len(part),
                        ),
                        part,
                        [cells[:, at]],
                    ),
                    now,
                )
            )
            labels, label = part[part["group"] % 2 == 0].copy(), truth[at][part["group"] % 2 == 0]
            labels["group"], labels["time"] = 0, labels["time"] + 5
            head = Head(
                now + 500,
                ["labels@x/0"],
                [Group(LABEL, "m", None, 0)],
                [("label",)],
                [len(labels)],
                [],
                len(labels),
            )
            out.append((pack(head, labels, [label[None]]), now + 500))
        return out


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    for name, kind, default, text in (
        ("rows", int, 3_000_000, "predictions"),
        ("features", int, 20, "of each"),
        ("every", float, 10.0, "ms between two"),
        ("accuracy", float, 0.9, "of the answers"),
        ("failing", float, 0.001, "share of failed calls"),
        ("reference", int, 5_000, "rows of the reference"),
        ("versions", int, 1, "that share the traffic"),
        ("seed", int, 1, "of the random numbers"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default:,})")
    return parser.parse_args()


def main() -> int:
    given, began = arguments(), time.monotonic()
    stream, shard = (
        Stream(given),
        Shard(0, CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=given.reference)))),
    )
    fired: Counter[str] = Counter()
    for first in range(0, given.rows, BLOCK):
        for record, now in stream.records(first):
            shard.fold(record, now)
        for alert in (json.loads(out.value) for out in shard.outbox if out.topic == "alerts"):
            if alert["status"] == "firing":
                fired[f"{alert['severity']} {alert['kind']} {alert['detector']}"] += 1
                print(f"row {first:,}: {alert['severity']} {alert['summary']}", flush=True)
        shard.outbox.clear()
        print(
            f"{first + BLOCK:,} rows in {time.monotonic() - began:.0f} s", end="\r", file=sys.stderr
        )
    serious = sum(n for what, n in fired.items() if not what.startswith("info"))
    seconds = time.monotonic() - began
    print(
        f"{given.rows:,} clean rows of {given.features} features in {seconds:.0f} s: "
        f"{serious} false alerts, {fired.total() - serious} of severity info {dict(fired)}"
    )
    return int(serious > 0)


if __name__ == "__main__":
    sys.exit(main())
