"""
Laws of what lasts: an alert on a share, on a level or on a trend is one episode from the fault to
its end, and a silence is told when it is none of the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors.silence import LONGEST_FACTOR, MEAN_FACTOR, Silences
from stream_monitor.settings import (
    PREDICTIONS_MS,
    Baseline,
    CoreSettings,
    Drift,
    Feature,
    Freshness,
    ModelSettings,
    Quality,
)
from stream_monitor.state import decode, encode

T0 = 1_760_000_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
QUIET = Drift(errors={}, score={}, features={}, thresholds={})
Row = tuple[dict[str, Any], Any]


class Second:
    """A model second by second: rows of a phase, and what is told of them."""

    def __init__(self, settings: ModelSettings, *, restarts: bool = False) -> None:
        self.core, self.restarts = CoreSettings(defaults=settings), restarts
        self.ingest, self.shard, self.rng = Ingest(1), Shard(0, self.core), np.random.default_rng(7)
        self.sent, self.second, self.told = (
            {"predictions": 0, "labels": 0},
            0,
            list[dict[str, Any]](),
        )

    def feed(self, topic: str, events: list[dict[str, Any]], now_ms: int) -> None:
        first = self.sent[topic]
        self.sent[topic] += len(events)
        values = [json.dumps(e).encode() for e in events]
        self.ingest.take(
            f"{topic}@x/0",
            topic,
            values,
            np.arange(first, first + len(values)),
            np.full(len(values), now_ms),
        )
        for record in self.ingest.flush(now_ms).get(0, []):
            self.shard.fold(record)

    def run(self, seconds: int, a_second: int, row: Callable[[np.random.Generator], Row]) -> None:
        for _ in range(seconds):
            now_ms, first = T0 + self.second * 1_000, self.sent["predictions"]
            rows = [row(self.rng) for _ in range(a_second)]
            self.feed(
                "predictions",
                [
                    {"event_id": str(first + i), "model": "m", "timestamp": now_ms, **r}
                    for i, (r, _) in enumerate(rows)
                ],
                now_ms,
            )
            self.feed(
                "labels",
                [
                    {"event_id": str(first + i), "label": y}
                    for i, (_, y) in enumerate(rows)
                    if y is not None
                ],
                now_ms,
            )
            self.shard.fold(tick(now_ms + 999))
            self.told += [
                json.loads(out.value) for out in self.shard.outbox if out.topic == "alerts"
            ]
            self.shard.outbox.clear()
            self.second += 1
            if self.restarts and self.second % 13 == 5:
                self.shard = Shard.restore(
                    0,
                    self.core,
                    {name: value or b"" for name, value in self.shard.snapshot().items()},
                )

    def steps(self, detector: str, subject: str) -> list[tuple[str, float]]:
        """What was told of an alert, and in which second."""
        return [
            (
                a["status"],
                (
                    np.datetime64(
                        a["ends_at" if a["status"] == "resolved" else "starts_at"][:-1], "ms"
                    ).astype(int)
                    - T0
                )
                / 1e3,
            )
            for a in self.told
            if (a["detector"], a["subject"]) == (detector, subject) and a["status"] != "updated"
        ]


SHARES: dict[str, tuple[str, str, float, Callable[[np.random.Generator, bool], dict[str, Any]]]] = {
    # detector, subject, share of rows while it is bad, row
    "failed calls": (
        "profile",
        "prediction_errors",
        0.08,
        lambda _, bad: {"status": "error"} if bad else {"prediction": 1},
    ),
    "slow calls": (
        "profile",
        "latency_seconds",
        0.08,
        lambda r, bad: {
            "prediction": 1,
            "latency_ms": float(r.uniform(9, 11) * (50 if bad else 1)),
        },
    ),
    "missing": (
        "missing",
        "x",
        0.2,
        lambda r, bad: {"prediction": 1, "features": {} if bad else {"x": float(r.normal())}},
    ),
    "unknown category": (
        "category",
        "x",
        0.12,
        lambda r, bad: {"prediction": 1, "features": {"x": "new" if bad else "ab"[r.integers(2)]}},
    ),
    "not of its pattern": (
        "pattern",
        "code",
        0.12,
        lambda r, bad: {
            "prediction": 1,
            "features": {"code": "?" if bad else f"a{r.integers(100, 999)}"},
        },
    ),
    "repeated": (
        "unique",
        "once",
        0.12,
        lambda r, bad: {
            "prediction": 1,
            "features": {"once": "same" if bad else f"u{r.integers(2**60)}"},
        },
    ),
    "outside the fences": (
        "iqr",
        "x",
        0.12,
        lambda r, bad: {"prediction": 1, "features": {"x": float(r.normal() + 9 * bad)}},
    ),
}


@pytest.mark.parametrize("a_second", [15, 50])
@pytest.mark.parametrize("name", SHARES)
def test_a_share_beyond_its_limit_is_one_episode(name: str, a_second: int) -> None:
    """
    Near the limit the share of few rows is within it now and then, and a pane that begins has few:
    neither ends an episode.
    """
    detector, subject, share, row = SHARES[name]
    run = Second(
        ModelSettings(
            baseline=Baseline(rows=1_000),
            drift=QUIET,
            cooldown_ms=0,
            features={"code": Feature(pattern=r"[a-z]\d{3}"), "once": Feature(unique=True)},
            quality=Quality(repeated_ratio=0.05),
        ),
        restarts=a_second == 15,
    )
    clean = 2_500 // a_second

    def rows(bad: float) -> Callable[[np.random.Generator], Row]:
        return lambda r: (row(r, bool(r.random() < bad)), None)

    for seconds, bad in ((clean, 0.0), (150, share), (60, 0.0)):
        run.run(seconds, a_second, rows(bad))
    found = run.steps(detector, subject)
    assert [status for status, _ in found] == ["firing", "resolved"], found
    (_, began), (_, ended) = found
    assert clean < began <= clean + 60 * 50 / a_second, found
    assert clean + 150 < ended <= clean + 150 + 20 * 50 / a_second, found


@pytest.mark.parametrize("share", [0.2, 0.02])
def test_of_a_required_feature_any_missing_row_is_told_with_what_the_baseline_has(
    share: float,
) -> None:
    settings = ModelSettings(
        baseline=Baseline(rows=1_000), drift=QUIET, features={"x": Feature(required=True)}
    )
    run = Second(settings)
    run.run(
        60,
        20,
        lambda r: (
            {"prediction": 1, "features": {"x": None if r.random() < share else float(r.normal())}},
            None,
        ),
    )
    (alert,) = [a for a in run.told if a["status"] == "firing"]
    told = float(alert["summary"].split("baseline ")[1].split("%")[0]) / 100
    assert told == pytest.approx(share, abs=0.03)
    assert alert["evidence"]["reference_ratio"] == pytest.approx(told, rel=0.01)
    assert alert["threshold"] == 0
    assert "limit 0% by features.x.required" in alert["summary"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_fall_of_accuracy_is_one_episode_of_its_trend_and_of_its_level(restarts: bool) -> None:
    """
    It does not end because the line through ten bad blocks is flat, nor because few labelled rows
    are within the limit by chance.
    """
    run = Second(
        ModelSettings(windows=("last_200",), drift=QUIET, cooldown_ms=0), restarts=restarts
    )

    def row(right: float) -> Callable[[np.random.Generator], Row]:
        return lambda r: (
            {"prediction": "ab"[(y := int(r.random() < 0.5))]},
            "ab"[y if r.random() < right else 1 - y],
        )

    for seconds, right in ((60, 0.95), (120, 0.75), (60, 0.95)):
        run.run(seconds, 40, row(right))
    for detector in ("threshold", "trend"):
        found = run.steps(detector, "accuracy")
        assert [status for status, _ in found] == ["firing", "resolved"], found
        assert 60 <= found[0][1] <= 60 + 10 * 200 / 40
        assert 180 <= found[1][1] <= 180 + 6 * 200 / 40, found
    of_trends = [a for a in run.told if a["detector"] == "trend"]
    assert {a["subject"] for a in of_trends} == {"accuracy", "precision", "recall", "f1"}
    trend = next(a for a in of_trends if a["subject"] == "accuracy")
    assert trend["value"] < trend["threshold"] < 0.95
    assert [
        s.value
        for s in run.shard.samples()
        if isinstance(s, Sample) and s.name == "model_anomalies_total" and s.labels[-1] == "trend"
    ] == [sum(a["status"] == "firing" for a in of_trends)]


def test_a_mean_absolute_error_near_its_limit_is_one_episode() -> None:
    run = Second(ModelSettings(windows=("last_500",), drift=QUIET, cooldown_ms=0))

    def row(scale: float) -> Callable[[np.random.Generator], Row]:
        return lambda r: ({"prediction": float(r.normal(0, scale))}, float(r.normal(0, scale)))

    for seconds, scale in ((60, 1.0), (120, 1.35), (60, 1.0)):
        run.run(seconds, 40, row(scale))
    assert [status for status, _ in run.steps("threshold", "mae")] == ["firing", "resolved"]


# ---- silence


def silences(
    arrivals_ms: np.ndarray[Any, Any], end_ms: float, limit_ms: int | None = PREDICTIONS_MS
) -> list[tuple[str, int]]:
    """
    What is told of silence: by status, ms since the beginning; the log goes on where nothing comes.
    """
    run = Second(
        ModelSettings(
            drift=QUIET, freshness=Freshness(predictions_ms=limit_ms), retire_after_ms=366 * DAY_MS
        )
    )
    log_ms, step_ms = 0, max(MINUTE_MS, int(np.median(np.diff(arrivals_ms))) // 10)
    for at in [*arrivals_ms.astype(np.int64).tolist(), int(end_ms)]:
        for quiet_ms in range(log_ms + step_ms, at, step_ms):
            run.shard.fold(tick(T0 + quiet_ms))
        if at < end_ms:
            run.feed("predictions", [{"event_id": str(at), "model": "m", "prediction": 1}], T0 + at)
        log_ms = at
    told = [json.loads(out.value) for out in run.shard.outbox if out.topic == "alerts"]
    return [
        (a["status"], np.datetime64(a["starts_at"][:-1], "ms").astype(int) - T0)
        for a in told
        if a["kind"] == "freshness" and a["status"] != "updated"
    ]


@pytest.mark.parametrize("mean_ms", [5_000, 2 * MINUTE_MS, 40 * MINUTE_MS])
def test_events_at_random_are_no_silence_and_their_end_is_told(mean_ms: int) -> None:
    arrivals = np.cumsum(np.random.default_rng(mean_ms).exponential(mean_ms, 2_000))
    end_ms = arrivals[-1] + 40 * mean_ms + HOUR_MS
    ((status, at),) = silences(arrivals, end_ms)
    assert status == "firing"
    limit_ms = max(10 * MINUTE_MS, MEAN_FACTOR * mean_ms)
    assert 0.9 * limit_ms <= at - arrivals[-1] <= 1.2 * limit_ms + mean_ms + 2 * MINUTE_MS


def test_nights_are_told_twice_and_then_known_and_a_day_without_events_is_told() -> None:
    day = np.arange(0, 8 * HOUR_MS, 5 * MINUTE_MS)
    arrivals = np.concatenate([d * DAY_MS + day for d in range(10)])
    told = silences(arrivals, 13 * DAY_MS)
    assert [status for status, _ in told] == ["firing", "resolved", "firing", "resolved", "firing"]
    night_ms = 16 * HOUR_MS + 5 * MINUTE_MS
    assert (
        LONGEST_FACTOR * night_ms
        <= told[-1][1] - arrivals[-1]
        <= LONGEST_FACTOR * night_ms + 2 * MINUTE_MS
    )


def test_one_outage_does_not_make_the_next_one_usual() -> None:
    dense = np.arange(0, 3 * HOUR_MS, 10_000)
    told = silences(np.concatenate([dense, dense + 9 * HOUR_MS]), 13 * HOUR_MS)
    assert [at // MINUTE_MS for status, at in told if status == "firing"] == [190, 730]


def test_a_limit_that_somebody_gave_is_the_limit() -> None:
    arrivals = np.cumsum(np.random.default_rng(3).exponential(2 * MINUTE_MS, 200))
    assert len(silences(arrivals, arrivals[-1] + 1, 5 * MINUTE_MS)) > 10
    assert not silences(arrivals, arrivals[-1] + DAY_MS, None)


def test_few_predictions_tell_nothing_of_silence() -> None:
    assert not silences(np.arange(9) * 100, DAY_MS)
    assert len(silences(np.arange(10) * 100, DAY_MS)) == 1


def test_silences_are_those_of_their_times() -> None:
    """Against numpy: the mean of all, and the second longest of 28 days."""
    rng = np.random.default_rng(11)
    pauses = np.maximum(rng.exponential(HOUR_MS, 2_000).astype(np.int64), 1_000)
    found, now_ms = Silences(), T0
    found.heard(1, now_ms)
    for pause in pauses.tolist():
        now_ms += pause
        found.now_ms = pause
        found.heard(1, now_ms)
    found = decode(encode(found), Silences)
    ends = T0 + np.cumsum(pauses)
    recent = np.sort(pauses[ends // DAY_MS > now_ms // DAY_MS - 28])
    n = len(pauses)
    assert found.usual_ms() == pytest.approx(
        max(MEAN_FACTOR * pauses.sum() / (n - 3 * np.sqrt(n)), LONGEST_FACTOR * recent[-2])
    )
    assert sum(map(len, found.days.values())) <= 2 * 28
