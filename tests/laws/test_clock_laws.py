"""
Laws of time: no clock that is wrong, of a producer or of a worker, takes anything from what the
others say.

Each compares a shard that met such a clock with one that did not, on the same rows.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.config import parse
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.offline.replay import Replay
from stream_monitor.outcomes import AHEAD_MS
from stream_monitor.windows.log_time import CONFIRM_MS, JUMP_MS, LogTime

T0 = 1_760_000_000_000
HOUR_MS, DAY_MS, YEAR_MS = 3_600_000, 86_400_000, 365 * 86_400_000
CORE = parse(
    json.dumps(
        {
            "defaults": {
                "baseline": {"rows": 300},
                "windows": ["last_100", "5m", "1h"],
                "thresholds": {"accuracy": {"min": 0.8, "window": "5m"}},
            }
        }
    )
).core


class Feed:
    """Events of one second after the other, as a worker writes them."""

    def __init__(self) -> None:
        self.ingest, self.shard = Ingest(1), Shard(0, CORE)
        self.offsets = {"predictions": 0, "labels": 0}
        self.log: list[bytes] = []

    def send(
        self, kind: str, events: list[dict[str, Any]], now_ms: int, record_ms: int | None = None
    ) -> None:
        first, n = self.offsets[kind], len(events)
        self.offsets[kind] += n
        times = np.full(n, now_ms if record_ms is None else record_ms)
        assert not self.ingest.take(
            f"{kind}@x/0",
            kind,
            [json.dumps(e).encode() for e in events],
            np.arange(first, first + n),
            times,
        )
        for record in self.ingest.flush(now_ms)[0]:
            self.fold(record)

    def fold(self, record: bytes) -> None:
        self.log.append(record)
        self.shard.fold(record)

    def second(self, s: int, rng: np.random.Generator, *, bad: bool) -> None:
        now = T0 + s * 1_000
        rows = [
            {
                "event_id": f"{s}-{i}",
                "model": "m",
                "prediction": 1,
                "timestamp": now - 20,
                "features": {"x": float(rng.normal(9.0 * bad))},
            }
            for i in range(20)
        ]
        self.send("predictions", rows, now)
        self.send(
            "labels",
            [
                {"event_id": r["event_id"], "label": int(rng.random() > 0.05 + 0.8 * bad)}
                for r in rows
            ],
            now + 10,
        )
        self.fold(tick(now + 20))

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(o.value) for o in self.shard.outbox if o.topic == "alerts"]

    def numbers(self) -> dict[Any, Any]:
        """Gauges of the model `m`, without those of alerts."""
        return {
            (s[0], *s[1]): s[2]
            for s in self.shard.samples()
            if s[0].startswith("model_") and s[1][:1] == ("m",) and len(s) == 3
        }


def told(feed: Feed) -> set[tuple[str, ...]]:
    return {
        (a["subject"], a["detector"], a["status"], a["starts_at"])
        for a in feed.alerts()
        if a["model"] == "m"
    }


def run(seconds: int, seed: int = 0, odd: Any = lambda feed, s: None) -> Feed:
    feed, rng = Feed(), np.random.default_rng(seed)
    for s in range(seconds):
        odd(feed, s)
        feed.second(s, rng, bad=s >= seconds // 2)
    return feed


# ---- producers


@settings(max_examples=5, deadline=None)
@given(
    ahead_ms=st.sampled_from([AHEAD_MS + 1, 50 * 60_000, DAY_MS, YEAR_MS, 900 * YEAR_MS]),
    at=st.integers(1, 119),
    many=st.integers(1, 40),
    by_record=st.booleans(),
    by_field=st.booleans(),
)
def test_rows_of_a_clock_that_is_ahead_take_nothing_from_another_model(
    ahead_ms: int, at: int, many: int, by_record: bool, by_field: bool
) -> None:
    """They are of a model of their own: everything about the other one is as it is without them."""

    def odd(feed: Feed, s: int) -> None:
        if s == at:
            now = T0 + s * 1_000 - 500
            stamp = {"timestamp": now + ahead_ms} if by_field or not by_record else {}
            rows = [
                {"event_id": f"odd-{i}", "model": "other", "prediction": 1, "features": {"x": 0.0}}
                | stamp
                for i in range(many)
            ]
            feed.send("predictions", rows, now, now + ahead_ms * by_record)
            feed.send(
                "labels",
                [{"event_id": r["event_id"], "label": 0} | stamp for r in rows],
                now,
                now + ahead_ms * by_record,
            )

    found, plain = run(120, odd=odd), run(120)
    assert found.numbers() == plain.numbers()
    same, right = sorted(told(found)), sorted(told(plain))
    assert [a[:3] for a in same] == [a[:3] for a in right]
    # a record of another model moves log time on, and what waits is looked at that much sooner
    for one, other in zip(same, right, strict=True):
        sooner = datetime.fromisoformat(other[3]) - datetime.fromisoformat(one[3])
        assert timedelta(0) <= sooner <= timedelta(seconds=1)


@pytest.mark.parametrize("ahead_ms", [50 * 60_000, YEAR_MS])
def test_rows_of_a_clock_that_is_ahead_are_rows_of_when_they_came(ahead_ms: int) -> None:
    """
    Of the same model: as if their clock had been right, in every window, and they are counted.
    """

    def odd(ahead: int) -> Any:
        def send(feed: Feed, s: int) -> None:
            if s == 40:
                now = T0 + s * 1_000
                rows = [
                    {
                        "event_id": f"odd-{i}",
                        "model": "m",
                        "prediction": 1,
                        "timestamp": now + ahead,
                        "features": {"x": 0.0},
                    }
                    for i in range(30)
                ]
                feed.send("predictions", rows, now, now + ahead)
                feed.send(
                    "labels",
                    [
                        {"event_id": r["event_id"], "label": 0, "timestamp": now + ahead}
                        for r in rows
                    ],
                    now,
                    now + ahead,
                )

        return send

    found, plain = run(120, odd=odd(ahead_ms)), run(120, odd=odd(0))
    assert (found.numbers(), told(found)) == (plain.numbers(), told(plain))
    assert (found.shard.outcomes.ahead, plain.shard.outcomes.ahead) == (60, 0)


def test_a_label_of_a_clock_that_is_ahead_can_be_corrected() -> None:
    feed = Feed()
    feed.send(
        "predictions",
        [{"event_id": str(i), "model": "m", "prediction": i % 2} for i in range(200)],
        T0,
    )
    feed.send(
        "labels",
        [{"event_id": str(i), "label": 1 - i % 2, "timestamp": T0 + YEAR_MS} for i in range(200)],
        T0 + 1_000,
        T0 + YEAR_MS,
    )
    feed.send("labels", [{"event_id": str(i), "label": i % 2} for i in range(200)], T0 + 2_000)
    feed.shard.close()
    assert feed.numbers()["model_accuracy", "m", "", "last_100"] == 1.0


# ---- workers


@settings(max_examples=5, deadline=None)
@given(
    jump_ms=st.sampled_from(
        [2 * JUMP_MS, HOUR_MS, DAY_MS, 8 * DAY_MS, YEAR_MS, -2 * JUMP_MS, -DAY_MS, -YEAR_MS]
    ),
    at=st.lists(st.integers(2, 119), min_size=1, max_size=5, unique=True),
)
def test_ticks_of_a_worker_whose_clock_is_wrong_change_nothing(jump_ms: int, at: list[int]) -> None:
    """Single ticks in between: as many rows, the same alerts, at the same times."""

    def odd(feed: Feed, s: int) -> None:
        if s in at:
            feed.fold(tick(T0 + s * 1_000 - 500 + jump_ms))

    found, plain = run(120, odd=odd), run(120)
    assert found.numbers() == plain.numbers()
    assert {t[:3] for t in told(found)} == {
        t[:3] for t in told(plain)
    }  # a look more may find something a moment sooner
    assert all(
        T0 <= np.datetime64(t[3][:-1], "ms").astype(int) <= T0 + 121_000 for t in told(found)
    )
    assert found.shard.log_time.refused == len(at)


def test_a_worker_whose_clock_is_a_day_ahead_for_good_does_not_move_log_time() -> None:
    def odd(feed: Feed, s: int) -> None:
        if s >= 10:
            feed.fold(tick(T0 + s * 1_000 - 700 + DAY_MS))
            feed.fold(tick(T0 + s * 1_000 - 690 + DAY_MS))

    assert run(60, odd=odd).shard.log_time_ms == T0 + 59_020


@given(st.integers(JUMP_MS + 1, YEAR_MS), st.integers(0, 1_000))
def test_log_time_follows_a_gap_once_the_log_goes_on_after_it(gap_ms: int, spacing_ms: int) -> None:
    log = LogTime()
    for s in range(10):
        log.read(T0 + s * 1_000)
    start = T0 + 9_000 + gap_ms
    read = 0
    while log.is_waiting or not read:
        # rows after the gap have its time from the first on
        assert log.read(start + read) == start + read
        read += 1 + spacing_ms
    assert log.now_ms - start <= CONFIRM_MS + spacing_ms + 1


@given(st.integers(JUMP_MS + 20_000, YEAR_MS))
def test_log_time_comes_back_when_the_clock_that_led_it_is_put_right(ahead_ms: int) -> None:
    log = LogTime()
    for s in range(10):
        log.read(T0 + ahead_ms + s * 1_000)
    for s in range(10, 14):
        log.read(T0 + s * 1_000)
    assert log.now_ms == T0 + 13_000


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.integers(JUMP_MS, DAY_MS))
def test_a_log_with_a_record_a_day_goes_on_by_days(hours: list[int], step_ms: int) -> None:
    log = LogTime()
    for k in range(10):
        log.read(T0 + k * step_ms)
        assert log.now_ms == T0 + k * step_ms


def test_a_jump_that_waits_is_part_of_a_snapshot() -> None:
    one = run(30)
    one.fold(tick(T0 + DAY_MS))
    parts = {name: data or b"" for name, data in one.shard.snapshot().items()}
    other = Shard.restore(0, CORE, parts)
    for record in (tick(T0 + 30_000), tick(T0 + DAY_MS), tick(T0 + DAY_MS + CONFIRM_MS)):
        one.shard.fold(record)
        other.fold(record)
        assert (one.shard.log_time_ms, one.shard.log_time.refused) == (
            other.log_time_ms,
            other.log_time.refused,
        )
    assert one.shard.snapshot()["state"] == other.snapshot()["state"]


def test_the_time_of_the_broker_goes_before_that_of_the_writer() -> None:
    shard = Shard(0, CORE)
    for s in range(5):
        shard.fold(tick(T0 + DAY_MS + s), T0 + s * 1_000)
    assert shard.log_time_ms == T0 + 4_000


@pytest.mark.parametrize("gap_ms", [2 * HOUR_MS, DAY_MS, 30 * DAY_MS])
def test_a_replay_follows_every_gap_of_its_file_at_once(gap_ms: int) -> None:
    """Silence, expiry and dwell go by the times of the file, however far apart its rows are."""
    replay = Replay(
        parse(
            json.dumps(
                {"defaults": {"freshness": {"predictions": "1h"}, "labels": {"max_delay": "1h"}}}
            )
        ),
        span_ms=2 * gap_ms,
    )
    for k in range(3):
        now = T0 + k * gap_ms
        replay.feed(
            [
                (
                    "predictions",
                    json.dumps(
                        {"event_id": f"{k}", "model": "m", "timestamp": now, "prediction": 1}
                    ).encode(),
                    None,
                    now,
                )
            ]
        )
    replay.close()
    silences = [a for a in map(json.loads, replay.alerts()) if a["kind"] == "freshness"]
    assert [a["status"] for a in silences[:2]] == ["firing", "resolved"]
    assert replay.summary()["models"]["m"]["versions"][""]["expired"] == 2
    assert replay.shards[0].log_time_ms >= T0 + 2 * gap_ms
