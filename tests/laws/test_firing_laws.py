"""
Laws of the whole core: a threshold on all rows or on a slice fires exactly as long as it is bad, in
gauges and events alike, with a restart in the middle or without.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.special import rel_entr

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.metrics.samples import Sample
from stream_monitor.settings import (
    Anomalies,
    Calls,
    CoreSettings,
    Drift,
    ModelSettings,
    Segment,
    SegmentAlerts,
    Threshold,
)

T0 = 1_760_000_000_000
A_SECOND, WINDOW, LEAST, STEPS = 40, 200, 100, 120
QUIET = Drift(errors={}, score={}, prediction={}, features={})
LEVELS = (0.5, 0.7, 0.78, 0.9, 0.98)


class Run:
    """Two countries whose accuracy changes every few seconds, second by second."""

    def __init__(self, rule: Threshold, seed: int) -> None:
        self.core = CoreSettings(
            defaults=ModelSettings(
                task="binary",
                windows=(f"last_{WINDOW}",),
                thresholds={"accuracy": rule},
                cooldown_ms=0,
                segments=(Segment(name="country"),),
                segment_alerts=SegmentAlerts(level=False),
                drift=QUIET,
                anomalies=Anomalies(trend_slope=-1.0),
                calls=Calls(latency_factor=None, error_share=None),
            )
        )
        self.rng, self.ingest, self.shard, self.sent = (
            np.random.default_rng(seed),
            Ingest(1),
            Shard(0, self.core),
            0,
        )
        self.right: dict[str, list[int]] = {"": [], "country=DE": [], "country=FR": []}
        self.levels = {"DE": 0.9, "FR": 0.9}
        self.told: list[dict[str, Any]] = []

    def second(self, now: int) -> None:
        if self.rng.random() < 0.1:
            self.levels[self.rng.choice(["DE", "FR"])] = float(self.rng.choice(LEVELS))
        predictions, labels = [], []
        for i in range(self.sent, self.sent + A_SECOND):
            country = "DE" if self.rng.random() < 0.5 else "FR"
            right = int(self.rng.random() < self.levels[country])
            base = {"event_id": str(i), "model": "m", "timestamp": T0 + i}
            predictions.append(base | {"prediction": 1, "segments": {"country": country}})
            labels.append(base | {"label": right})
            self.right[""].append(right)
            self.right[f"country={country}"].append(right)
        for topic, events in (("predictions", predictions), ("labels", labels)):
            values = [json.dumps(e).encode() for e in events]
            self.ingest.take(
                f"{topic}@x/0",
                topic,
                values,
                np.arange(self.sent, self.sent + A_SECOND),
                np.full(A_SECOND, now),
            )
            for record in self.ingest.flush(now).get(0, []):
                self.shard.fold(record)
        self.sent += A_SECOND
        self.shard.fold(tick(now + 900))
        self.shard.fold(tick(now + 1_000))
        self.told += [json.loads(out.value) for out in self.shard.outbox if out.topic == "alerts"]
        self.shard.outbox.clear()

    def restart(self) -> None:
        parts = {name: value or b"" for name, value in self.shard.snapshot().items()}
        self.shard = Shard.restore(0, self.core, parts)

    def firing(self) -> set[str]:
        newest = {alert["fingerprint"]: alert for alert in self.told}
        found = [
            a for a in newest.values() if a["status"] != "resolved" and a["subject"] == "accuracy"
        ]
        return {"=".join(*(a["segment"] or {"": ""}).items()).strip("=") for a in found}


RULES = {
    "min": Threshold(min=0.8, min_labels=LEAST, judge="value"),
    "max": Threshold(max=0.85, min_labels=LEAST, judge="value"),
    "clear": Threshold(min=0.8, clear=0.88, min_labels=LEAST, judge="value"),
    "for": Threshold(min=0.8, for_ms=10_000, min_labels=LEAST, judge="value"),
    "bound": Threshold(min=0.8, min_labels=LEAST),
    "bound of max": Threshold(max=0.85, min_labels=LEAST),
    "bound and clear": Threshold(min=0.8, clear=0.88, min_labels=LEAST),
}


def certain(right: list[int], limit: float) -> bool:
    """Whether these answers are beyond a limit by the nats of 3.5 standard errors, by scipy."""
    share, rows = float(np.mean(right)), len(right)
    nats = rel_entr([share, 1 - share], [limit, 1 - limit]).sum()
    return bool(rows * nats > 3.5**2 / 2)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_threshold_fires_as_long_as_it_is_bad_on_all_rows_and_on_slices(
    name: str, seed: int
) -> None:
    rule = RULES[name]
    run, other = Run(rule, seed), Run(rule, seed)
    since: dict[str, int | None] = dict.fromkeys(run.right)
    expected: set[str] = set()
    for step in range(STEPS):
        now = T0 + step * 1_000
        run.second(now)
        other.second(now)
        if step % 17 == 5:
            other.restart()
        for segment, right in run.right.items():
            if len(right) < LEAST:
                continue
            value = float(np.mean(right[-WINDOW:]))
            bad = (rule.min is not None and value < rule.min) or (
                rule.max is not None and value > rule.max
            )
            if not bad:
                since[segment] = None
                if segment in expected and value >= (rule.clear or 0):
                    expected.discard(segment)
                continue
            limit = rule.min if rule.min is not None and value < rule.min else rule.max
            if rule.judge == "bound" and not certain(right[-WINDOW:], limit or 0.0):
                continue
            began = since[segment] = now if since[segment] is None else since[segment]
            if began is not None and now - began >= rule.for_ms:
                expected.add(segment)
        assert run.firing() == expected, (
            step,
            {s: float(np.mean(r[-WINDOW:])) for s, r in run.right.items()},
        )
        shown = sum(
            s.value
            for s in run.shard.samples()
            if isinstance(s, Sample) and s.name == "model_alerts_firing"
        )
        assert shown == len(expected)
    assert run.told == other.told
    assert max(Counter(alert["id"] for alert in run.told).values()) == 1
    ended = any(alert["status"] == "resolved" for alert in run.told)
    assert ended or (rule.judge == "bound" and run.told), "few falls are certain in 200 rows"
