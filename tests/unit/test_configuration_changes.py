"""What a changed configuration does to a monitor that is off, and to predictions that wait."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.join.join import Join
from stream_monitor.join.rows import LabelRows, Predictions
from stream_monitor.join.store import ANY
from stream_monitor.monitors.containment import Containment
from stream_monitor.monitors.context import Context
from stream_monitor.settings import CoreSettings, ModelSettings, Segment, Threshold
from stream_monitor.state import decode, encode

HOUR_MS = 3_600_000
CONTEXT = Context("m", "1", ModelSettings())


def broken() -> None:
    raise ValueError("no")


def test_a_monitor_that_is_off_is_tried_again_and_its_alert_ends_when_it_works():
    first = Containment()
    first.run("features", broken)
    assert [v.level for v in first.verdicts(CONTEXT, 0)] == ["critical"]
    same, other, worse = (decode(encode(first), Containment) for _ in range(3))
    same.go_on(again=False)
    same.run("features", lambda: None)
    assert [v.level for v in same.verdicts(CONTEXT, 0)] == ["critical"]
    other.go_on(again=True)
    assert not list(other.verdicts(CONTEXT, 0)), "nothing is known yet"
    other.run("features", lambda: None)
    assert [(v.level, v.clear) for v in other.verdicts(CONTEXT, 0)] == [("ok", True)]
    assert not list(other.verdicts(CONTEXT, 0))
    worse.go_on(again=True)
    worse.run("features", broken)
    assert [v.level for v in worse.verdicts(CONTEXT, 0)] == ["critical"]


def predictions(ids: list[int]) -> Predictions:
    n = len(ids)
    at, none = np.arange(n), np.full(n, np.nan)
    return Predictions(
        row=at,
        id=np.array(ids, np.uint64),
        time=at,
        version=np.zeros(n, np.int64),
        outcome=none,
        score=none,
        segment=np.zeros(n, np.int64),
        probabilities=np.empty((n, 0)),
        failed=np.zeros(n, bool),
    )


def labels(ids: list[int]) -> LabelRows:
    n = len(ids)
    at, none = np.arange(n), np.full(n, np.nan)
    any_ = np.full(n, ANY)
    return LabelRows(
        row=at,
        id=np.array(ids, np.uint64),
        model=any_,
        version=any_,
        label=np.ones(n),
        time=at,
        partition=at,
        offset=at,
        own=any_,
        outcome=none,
        score=none,
        probabilities=np.empty((n, 0)),
    )


def matched(join: Join, ids: list[int], now_ms: int) -> Any:
    return join.apply(predictions([]), labels(ids), now_ms).outcomes["matched"]


def waiting(delay_ms: int) -> Join:
    join = Join(1_000, delay_ms)
    join.register(0, 0, delay_ms)
    join.apply(predictions(list(range(10))), labels([]), 0)
    return join


def test_what_waits_gets_the_new_delay():
    shorter, longer = waiting(HOUR_MS), waiting(HOUR_MS)
    shorter.wait([60_000])
    shorter.expire(120_000)
    assert (shorter.state.expired[0], shorter.state.pending[0], matched(shorter, [1], 120_000)) == (
        10,
        0,
        0,
    )
    longer.wait([3 * HOUR_MS])
    longer.expire(2 * HOUR_MS)
    assert (
        longer.state.expired[0],
        matched(longer, [1], 2 * HOUR_MS),
        longer.state.pending[0],
    ) == (0, 1, 9)


def test_what_has_expired_stays_so_under_a_longer_delay():
    join = waiting(60_000)
    join.register(1, 0, 10 * HOUR_MS)  # keeps the rows in the store
    join.expire(120_000)
    assert (join.state.expired[0], join.state.pending[0]) == (10, 0)
    join.wait([HOUR_MS, 10 * HOUR_MS])
    assert matched(join, [1], 120_000) == 0
    join.expire(2 * HOUR_MS)
    assert (join.state.expired[0], join.state.pending[0]) == (10, 0)


@pytest.mark.parametrize(
    ("before", "after", "fires"), [(0.9, 0.5, False), (0.5, 0.9, True)], ids=["ends", "begins"]
)
def test_a_new_rule_is_judged_on_what_is_there_where_no_row_comes_any_more(before, after, fires):
    def config(least: float) -> CoreSettings:
        rule = Threshold(min=least, min_labels=50, window="last_100")
        return CoreSettings(
            defaults=ModelSettings(
                windows=("last_100",), thresholds={"accuracy": rule}, segments=(Segment(name="s"),)
            )
        )

    core, ingest, t0 = config(before), Ingest(1), 1_760_000_000_000
    shard = Shard(0, core)
    for kind in ("predictions", "labels"):
        answer = {"prediction": 1, "segments": {"s": "x"}}
        values = [
            json.dumps(
                {
                    "event_id": str(i),
                    "model": "m",
                    **(answer if kind == "predictions" else {"label": int(i % 10 < 7)}),
                }
            ).encode()
            for i in range(200)
        ]
        assert not ingest.take(f"{kind}@x/0", kind, list(values), np.arange(200), np.full(200, t0))
    for record in [*ingest.flush(t0)[0], *(tick(t0 + s * 1_000) for s in range(1, 10))]:
        shard.fold(record)
    names = {"", "s=x"}
    assert {key.segment for key, _ in shard.alerts.firing() if key.subject == "accuracy"} == (
        set() if fires else names
    )
    other = Shard.restore(
        0, config(after), {name: data or b"" for name, data in shard.snapshot().items()}
    )
    for s in range(10, 12):
        other.fold(tick(t0 + s * 1_000))
    assert {key.segment for key, _ in other.alerts.firing() if key.subject == "accuracy"} == (
        names if fires else set()
    )
