"""
Laws of models that are used now and then: a pause takes nothing from them, and what is kept for
them is bounded.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream_monitor.config import parse
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import CoreSettings

T0 = 1_760_000_000_000
DAY_MS = 86_400_000


def core(**more: Any) -> CoreSettings:
    defaults = {
        "baseline": {"rows": 300},
        "windows": ["last_500"],
        "freshness": {"predictions": "off"},
        "cooldown": "0s",
        "drift": {"thresholds": {"psi": 0.25}},
    }
    return parse(json.dumps({"defaults": defaults | more.pop("defaults", {}), **more})).core


class Feed:
    """
    Batches of events with days between them, and a tick a minute while one comes and an hour while
    none does.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self.ingest, self.shard = Ingest(1), Shard(0, settings)
        self.offsets = {"predictions": 0, "labels": 0}
        self.now = T0

    def until(self, end_ms: int) -> None:
        while self.now < end_ms:
            self.now = min(self.now + 3_600_000, end_ms)
            self.shard.fold(tick(self.now))

    def send(self, kind: str, events: list[dict[str, Any]]) -> None:
        first, n = self.offsets[kind], len(events)
        self.offsets[kind] += n
        self.ingest.take(
            f"{kind}@x/0",
            kind,
            [json.dumps(e).encode() for e in events],
            np.arange(first, first + n),
            np.full(n, self.now),
        )
        for record in self.ingest.flush(self.now)[0]:
            self.shard.fold(record)

    def batch(
        self,
        number: int,
        rows: int,
        rng: np.random.Generator,
        *,
        model: str = "m",
        version: str = "",
        shift: float = 0.0,
    ) -> None:
        for start in range(0, rows, 50):
            ids = [f"{model}-{version}-{number}-{i}" for i in range(start, start + 50)]
            self.send(
                "predictions",
                [
                    {
                        "event_id": e,
                        "model": model,
                        "version": version,
                        "prediction": 1,
                        "features": {"x": float(rng.normal(shift))},
                    }
                    for e in ids
                ],
            )
            self.send(
                "labels",
                [{"event_id": e, "label": int(rng.random() < 0.9 - 0.2 * shift)} for e in ids],
            )
            self.until(self.now + 60_000)

    def numbers(self) -> dict[Any, Any]:
        return {
            (s[0], *s[1]): s[2]
            for s in self.shard.samples()
            if s[0].startswith("model_") and len(s) == 3
        }


@pytest.mark.parametrize("gap_days", [7.01, 14, 30, 92])
def test_batches_far_apart_are_judged_as_daily_ones(gap_days: float) -> None:
    """
    The same baseline, windows, counters and gauges; what fires, fires (again, where it had retired
    meanwhile).
    """

    def run(gap: float) -> tuple[dict[Any, Any], set[Any]]:
        feed, rng = Feed(core()), np.random.default_rng(3)
        for number, shift in enumerate((0.0, 0.0, 2.0)):
            feed.until(T0 + round(number * gap * DAY_MS))
            feed.batch(number, 400, rng, shift=shift)
        alerts = [json.loads(o.value) for o in feed.shard.outbox if o.topic == "alerts"]
        assert len({o.value for o in feed.shard.outbox if o.topic == "baselines"}) == 1
        return feed.numbers(), {
            (a["subject"], a["detector"]) for a in alerts if a["status"] == "firing"
        }

    (found, fired), (right, right_fired) = run(gap_days), run(1)
    assert {k: v for k, v in found.items() if "timestamp" not in k[0]} == {
        k: v for k, v in right.items() if "timestamp" not in k[0]
    }
    assert fired == right_fired
    assert ("x", "psi") in fired


@pytest.mark.parametrize("late_days", [8, 20, 29])
def test_labels_that_may_still_come_keep_a_version(late_days: int) -> None:
    feed, rng = (
        Feed(core(defaults={"labels": {"max_delay": "30d"}, "retire_after": "1h"})),
        np.random.default_rng(0),
    )
    feed.send(
        "predictions",
        [
            {
                "event_id": str(i),
                "model": "m",
                "prediction": 1,
                "features": {"x": float(rng.normal())},
            }
            for i in range(400)
        ],
    )
    feed.until(T0 + late_days * DAY_MS)
    assert feed.numbers()["model_predictions_total", "m", ""] == 400
    feed.send("labels", [{"event_id": str(i), "label": 1} for i in range(400)])
    feed.until(feed.now + 60_000)
    assert feed.numbers()["model_window_labels", "m", "", "last_500"] == 400


def test_limits_count_what_is_active_and_who_comes_back_has_a_place() -> None:
    feed, rng = Feed(core(limits={"models": 2, "versions": 2})), np.random.default_rng(1)
    for day, (model, version) in enumerate(
        [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("a", "3")]
    ):
        feed.until(T0 + 8 * day * DAY_MS)
        feed.batch(day, 50, rng, model=model, version=version)
    assert feed.shard.registry.state.hits == {}
    assert {k[1:3] for k in feed.numbers() if k[0] == "model_predictions_total"} == {("a", "3")}
    for model, version in (("a", "1"), ("b", "1"), ("c", "1")):
        feed.batch(9, 50, rng, model=model, version=version)
    shown = {k[1:3]: n for k, n in feed.numbers().items() if k[0] == "model_predictions_total"}
    assert shown == {("a", "3"): 50, ("a", "1"): 100, ("b", "1"): 100, ("c", "1"): 100}
    assert feed.shard.registry.state.hits == {}
    feed.batch(9, 50, rng, model="d", version="1")
    assert feed.shard.registry.state.hits == {"models": 1}


def test_models_that_only_labels_name_give_their_places_back() -> None:
    feed, rng = Feed(core(limits={"models": 3})), np.random.default_rng(1)
    feed.send("labels", [{"event_id": str(i), "model": f"typo{i}", "label": 1} for i in range(3)])
    feed.until(T0 + 8 * DAY_MS)
    feed.batch(0, 50, rng, model="real")
    assert ("model_predictions_total", "real", "") in feed.numbers()


def test_what_is_kept_of_the_retired_is_bounded_and_who_is_forgotten_keeps_its_counters() -> None:
    feed, rng = Feed(core(limits={"models": 3, "versions": 2})), np.random.default_rng(1)
    for day in range(12):
        feed.until(T0 + 8 * day * DAY_MS)
        feed.batch(day, 350, rng, model="often", version=str(day))
        feed.batch(day, 350, rng, model=f"once{day}")
    registry = feed.shard.registry
    kept = [registry.versions[code] for code in registry.state.retired]
    assert len([v for v in kept if v.model == "often"]) == 2
    assert {"once9", "once10"} <= {v.model for v in kept if v.model != "often"}
    assert len([v for v in kept if v.model != "often"]) <= 3
    assert sum(v.features.profile is not None for v in registry.versions) <= 2 + 3 + 2
    feed.batch(99, 50, rng, model="often", version="0")
    assert feed.numbers()["model_predictions_total", "often", "0"] == 400


def test_a_retired_version_is_part_of_a_snapshot() -> None:
    settings = core()
    one, rng = Feed(settings), np.random.default_rng(5)
    one.batch(0, 400, rng)
    one.until(T0 + 9 * DAY_MS)
    assert one.shard.registry.state.retired
    other = Feed(settings)
    other.shard = Shard.restore(
        0, settings, {name: data or b"" for name, data in one.shard.snapshot().items()}
    )
    other.now, other.offsets = one.now, dict(one.offsets)
    for feed in (one, other):
        feed.batch(1, 400, np.random.default_rng(6), shift=2.0)
    assert one.numbers() == other.numbers()
    assert one.shard.snapshot()["state"] == other.shard.snapshot()["state"]
