"""
Segments through the whole core: alerts on clean data with many of them, and how soon a fault in one
of them is found and named.

Rule of the file: rows are seeded and go into EVALUATE as columns, a record for each second of log
time; labels come a second later. Without `--fault` every alert is a false one. Segments have
weights 1, 1/2, 1/3, … (or `--equal` ones) and two groups of another name beside them; 2 % of one
feature is missing.

    python bench/segments.py                        # 3,000,000 clean rows, 50 segments
    python bench/segments.py --fault errors         # in one segment, runs with other seeds
    python bench/segments.py --fault missing
    python bench/segments.py --fault shift --by 1 --equal --segments 10 --every 86 --rows 60000
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.evaluate import Shard
from stream_monitor.events.cells import NULL_CELL, TEXT, boxed
from stream_monitor.events.observations import LABEL, PREDICTION, ROW, Group, Head, pack
from stream_monitor.settings import (
    Baseline,
    CoreSettings,
    Fairness,
    FairnessLimits,
    GapLimits,
    ModelSettings,
    Segment,
    SegmentAlerts,
)

Float = NDArray[np.float64]
T0 = 1_760_000_000_000
GROUPS = ("F", "M")
COLUMNS = ("prediction", "score", "segments.country", "segments.gender")
DETECTORS = ("level", "gap", "threshold", "profile")
FAULTS = ("errors", "missing", "shift")


def settings(given: argparse.Namespace) -> CoreSettings:
    """Defaults, and limits of gaps and fairness at which clean data has nothing to say."""
    model = ModelSettings(
        baseline=Baseline(rows=5_000),
        segments=(Segment(name="country"), Segment(name="gender")),
        segment_alerts=SegmentAlerts(max_gap=GapLimits(accuracy=given.gap, recall=given.gap)),
        fairness={
            "gender": Fairness(
                limits=FairnessLimits(
                    statistical_parity_difference=given.gap, equalized_odds_difference=given.gap
                )
            )
        },
    )
    if given.without:
        model = msgspec.structs.replace(
            model, segments=(), segment_alerts=SegmentAlerts(), fairness={}
        )
    return CoreSettings(defaults=model)


def records(given: argparse.Namespace, seed: int) -> Iterator[tuple[bytes, int, int]]:
    """Records of the log, with the log time and the first row of each."""
    rng = np.random.default_rng(seed)
    names = [*(f"c{i:02d}" for i in range(given.segments)), *GROUPS]
    cells = np.array([boxed(TEXT, i) for i in range(len(names))])
    weights = weights_of(given)
    columns = (*COLUMNS, *(f"features.x{i}" for i in range(given.features)))
    per = max(1, round(1_000 / given.every))
    for first in range(0, given.rows, per):
        n = min(per, given.rows - first)
        rows = np.zeros(n, ROW)
        rows["offset"] = rows["id"] = first + np.arange(n)
        rows["time"] = T0 + rows["offset"] * given.every
        country = rng.choice(given.segments, n, p=weights / weights.sum())
        gender = given.segments + (rng.random(n) < 0.4)
        score = rng.beta(2, 3, n)
        wrong = np.full(n, 1 - given.accuracy)
        features = rng.normal(size=(given.features, n))
        features[0, rng.random(n) < 0.02] = NULL_CELL
        broken = (country == given.broken) & (rows["offset"] >= given.rows // 2)
        if given.fault == "errors":
            wrong[broken] *= given.by
        if given.fault == "shift":
            features[1, broken] += given.by
        if given.fault == "missing":
            features[1, broken & (rng.random(n) < 0.5)] = NULL_CELL
        answer = score >= 0.5
        truth = np.where(rng.random(n) < wrong, ~answer, answer)
        matrix = np.vstack([answer, score, cells[country], cells[gender], features])
        now = int(rows["time"][-1]) + 10
        groups = [Group(PREDICTION, "m", "1", 0)]
        head = Head(now, ["predictions@x/0"], groups, [columns], [n], names, n)
        yield pack(head, rows, [matrix]), now, first
        labels = rows.copy()
        labels["time"] += 5
        of = [Group(LABEL, "m", None, 0)]
        head = Head(now + 500, ["labels@x/0"], of, [("label",)], [n], [], n)
        yield pack(head, labels, [truth.astype(np.float64)[None]]), now + 500, first


def weights_of(given: argparse.Namespace) -> Float:
    """Shares of the segments of the first name, times a constant."""
    return np.ones(given.segments) if given.equal else 1 / np.arange(1, given.segments + 1)


def names(alert: dict[str, Any]) -> set[str]:
    """The segments that an alert names: its own, or those of what drifted."""
    found = {"=".join(each) for each in (alert["segment"] or {}).items()}
    for each in alert["evidence"].get("contributors", ()):
        found |= {each["segment"]} if "segment" in each else set(each.get("segments", ()))
    return found


def alerts(shard: Shard) -> Iterator[dict[str, Any]]:
    """Alerts that began since the last call."""
    for out in shard.outbox:
        if out.topic == "alerts":
            alert = json.loads(out.value)
            if alert["status"] == "firing":
                yield alert
    shard.outbox.clear()


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    for name, kind, default, text in (
        ("rows", int, 3_000_000, "predictions, each with a label"),
        ("segments", int, 50, "of the first name"),
        ("features", int, 5, "numeric ones"),
        ("every", int, 10, "ms between two"),
        ("accuracy", float, 0.9, "of the answers"),
        ("gap", float, 0.02, "limit of gaps and of fairness"),
        ("broken", int, 9, "number of the segment with the fault"),
        ("by", float, 3, "how many times more errors, or by how many standard deviations"),
        ("runs", int, 10, "with a fault"),
        ("seed", int, 1, "of the random numbers"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default:,})")
    parser.add_argument("--fault", choices=FAULTS, help="from the middle on, in one segment")
    parser.add_argument("--equal", action="store_true", help="segments of equal weight")
    parser.add_argument("--without", action="store_true", help="without segments: what they cost")
    return parser.parse_args()


def clean(given: argparse.Namespace) -> int:
    """False alerts by detector."""
    shard, fired, began = Shard(0, settings(given)), Counter[str](), time.process_time()
    for record, now, first in records(given, given.seed):
        shard.fold(record, now)
        for alert in alerts(shard):
            of = "segment" if alert["segment"] else "all traffic"
            fired[f"{of} {alert['kind']} {alert['detector']}"] += 1
            print(f"row {first:,}: {alert['summary']}", flush=True)
    false = sum(n for what, n in fired.items() if what.startswith("segment"))
    print(
        f"{given.rows:,} clean rows, {given.segments} segments and 2 groups: {false} false alerts "
        f"of segments {dict(fired)}; {time.process_time() - began:.0f} s of CPU"
    )
    return int(false > 0)


def broken(given: argparse.Namespace) -> int:
    """How often the segment is named, after how many of its rows, and what else is."""
    name, late, others, wrong = f"country=c{given.broken:02d}", list[int](), 0, 0
    weights = weights_of(given)
    share = weights[given.broken] / weights.sum()
    for run in range(given.runs):
        shard, found = Shard(0, settings(given)), None
        for record, now, first in records(given, given.seed + run):
            shard.fold(record, now)
            for alert in alerts(shard):
                if name in names(alert) and first >= given.rows // 2:
                    found = first if found is None else found
                elif names(alert) or first < given.rows // 2:
                    others += 1
                else:
                    wrong += 1
        late += [] if found is None else [found - given.rows // 2]
    late.sort()
    delay = (
        f"{statistics.median(late):,.0f} rows of the stream, {late[len(late) * 9 // 10]:,} in 90 % "
        f"of the runs ({late[len(late) * 9 // 10] * share:,.0f} of its own)"
        if late
        else "none"
    )
    print(
        f"{given.fault} in segment {name} ({share:.1%} of the traffic): named in {len(late)} of "
        f"{given.runs} runs, after {delay}; {others} alerts of other segments or before it, "
        f"{wrong} on all traffic that name none"
    )
    return int(len(late) < given.runs)


def main() -> int:
    given = arguments()
    return broken(given) if given.fault else clean(given)


if __name__ == "__main__":
    sys.exit(main())
