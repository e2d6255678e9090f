"""
Labels that come late by class: false alerts of thresholds and of the level on streams that do not
change, and days until a change is told.

Rule of the file: fraud is 5 % of the rows; the model finds 70 % of it and is wrong on 2 % of the
others, so its accuracy is 0.966. Each label comes after a random delay whose mean depends on the
class, also within the limit of `labels.max_delay`. Rows are seeded and go through EVALUATE.

    python bench/late_labels.py            # exits 1 if a stream without a change alarms, or a change is missed
    python bench/late_labels.py --days 10
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
from numpy.typing import NDArray

from stream_monitor.evaluate import Shard
from stream_monitor.events.observations import LABEL, PREDICTION, ROW, Group, Head, pack
from stream_monitor.settings import CoreSettings, Labels, ModelSettings, Threshold

Float = NDArray[np.float64]
T0, HOUR = 1_760_000_000_000, 3_600_000
RULES = {
    "accuracy": Threshold(min=0.93),
    "precision": Threshold(min=0.5),
    "recall": Threshold(min=0.5),
}
CASES = {
    "all after an hour": (1.0, 1.0),
    "fraud first": (1.0, 20.0),
    "fraud last": (20.0, 1.0),
}
"""Mean delay of fraud, and of the others, in hours."""


def stream(
    rng: np.random.Generator, days: int, fraud_h: float, other_h: float, change: bool
) -> tuple[Float, Float, Float, Float]:
    """Times of predictions and labels (hours), answers, labels; a minute between two rows."""
    n = days * 24 * 60
    times = np.arange(n) / 60
    fraud = rng.random(n) < 0.05
    worse = change & (times > 0.6 * 24 * days)
    found, false = np.where(worse, 0.2, 0.7), np.where(worse, 0.08, 0.02)
    answer = rng.random(n) < np.where(fraud, found, false)
    delay = np.minimum(rng.exponential(np.where(fraud, fraud_h, other_h)), 47.0)
    return times, times + delay, answer.astype(np.float64), fraud.astype(np.float64)


def folded(settings: ModelSettings, columns: tuple[Float, Float, Float, Float]) -> list[float]:
    """Hours at which an alert of kind `performance` fired."""
    times, known, answer, label = columns
    shard, fired = Shard(0, CoreSettings(defaults=settings), confirm_ms=0), []
    order, sent, told = np.argsort(known, kind="stable"), 0, 0
    for half in range(1, int(times[-1] * 2) + 1):
        now, log_ms = half / 2, T0 + half * HOUR // 2
        until, coming = np.searchsorted(times, now), np.searchsorted(known[order], now)
        for kind, at, hours, first, column in (
            (PREDICTION, np.arange(sent, until), times, sent, answer),
            (LABEL, order[told:coming], known, told, label),
        ):
            rows = np.zeros(len(at), ROW)
            rows["id"], rows["offset"] = at + 1, first + np.arange(len(at))
            rows["time"] = T0 + (hours[at] * HOUR).astype(np.int64)
            source = "predictions@x/0" if kind == PREDICTION else "labels@x/0"
            group = Group(kind, "m", "1" if kind == PREDICTION else None, 0)
            name = "prediction" if kind == PREDICTION else "label"
            head = Head(log_ms, [source], [group], [(name,)], [len(at)], [], len(at))
            shard.fold(pack(head, rows, [column[at][None]]), log_ms)
        sent, told = int(until), int(coming)
        for out in shard.outbox:
            alert = json.loads(out.value) if out.topic == "alerts" else {}
            if alert.get("status") == "firing" and alert["kind"] == "performance":
                fired.append(now)
        shard.outbox.clear()
    return fired


def main() -> int:
    """Print the table; 1 if something is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--days", type=int, default=20, help="of each stream")
    parser.add_argument("--seeds", type=int, default=3, help="streams of each case")
    given, bad = parser.parse_args(), 0
    labels = Labels(max_delay_ms=48 * HOUR)
    print("labels               judged by      false alerts  change told after (hours)")
    for name, (fraud_h, other_h) in CASES.items():
        for rules in (RULES, {}):
            settings = ModelSettings(labels=labels, thresholds=rules)
            false, delays = 0, []
            for seed in range(given.seeds):
                for change in (False, True):
                    rng = np.random.default_rng(seed)
                    fired = folded(settings, stream(rng, given.days, fraud_h, other_h, change))
                    began = 0.6 * 24 * given.days if change else np.inf
                    false += sum(hour < began for hour in fired)
                    if change:
                        delays.append(min((h - began for h in fired if h >= began), default=np.inf))
            bad |= false > 0 or max(delays) > 72
            told = " ".join(f"{d:.1f}" for d in delays)
            print(f"{name:20} {'thresholds' if rules else 'level':12} {false:12}  {told}")
    print("FAIL" if bad else "pass")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
