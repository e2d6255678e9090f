"""
Segments: what is counted in each is what a plain sum over its rows gives, however the log was cut;
a fault in one segment is found and named there, and clean data has no alert.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats.contingency import relative_risk

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors.segment_blocks import KEPT, ROWS, Blocks, by_segment
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
from stream_monitor.stats.differences import katz_ratio, many_z, newcombe_difference

T0 = 1_760_000_000_000
N = 9_000
COUNTRIES = ("DE", "FR", "IT")
Row = dict[str, Any]


def core(**more: Any) -> CoreSettings:
    return CoreSettings(
        defaults=ModelSettings(
            baseline=Baseline(rows=500),
            windows=("last_500", "24h"),
            segments=(Segment(name="country"), Segment(name="gender")),
            **more,
        )
    )


def rows(fault: str, seed: int = 1, n: int = N) -> list[Row]:
    """Events with their truth; from the middle on with a fault in IT, or in all countries."""
    rng, out = np.random.default_rng(seed), []
    for i in range(n):
        country = COUNTRIES[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
        gender, score = ("F", "M")[int(rng.random() < 0.6)], float(rng.random())
        here = i >= n // 2 and (country == "IT" or fault.endswith("everywhere"))
        wrong = 0.4 if here and fault.startswith("errors") else 0.1
        lost = 0.5 if here and fault.startswith("missing") else 0.02
        answer = int(score > (0.6 if gender == "F" else 0.4))
        out.append(
            {
                "id": f"e{i}",
                "time": T0 + i * 50,
                "country": country,
                "gender": gender,
                "score": score,
                "answer": answer,
                "truth": answer ^ int(rng.random() < wrong),
                "zip": None if rng.random() < lost else float(rng.normal()),
                "plan": str(rng.choice(["a", "b"])),
            }
        )
    return out


def log_of(events: list[Row], size: int, corrected: int = 0) -> list[bytes]:
    """
    Records of `size` rows after one that makes the version known, with the labels after them; every
    k-th label is taken back later.
    """
    ingest, late = Ingest(1), list[Row]()
    sent: Counter[str] = Counter()
    known = {**_event(events[0]), "event_id": "first", "segments": {}}
    records = _taken(ingest, "predictions", [json.dumps(known).encode()], events[0]["time"], sent)
    for start in range(0, len(events), size):
        part = events[start : start + size]
        now = part[-1]["time"]
        first = [
            {**r, "truth": 1 - r["truth"]} if corrected and int(r["id"][1:]) % corrected == 0 else r
            for r in part
        ]
        late += [r for r, f in zip(part, first, strict=True) if r is not f]
        for kind, values in (
            ("predictions", [json.dumps(_event(r)).encode() for r in part]),
            ("labels", [json.dumps(_label(r, 5)).encode() for r in first]),
        ):
            records += _taken(ingest, kind, values, now, sent)
    for start in range(0, len(late), 500):
        values = [json.dumps(_label(r, 9)).encode() for r in late[start : start + 500]]
        records += _taken(ingest, "labels", values, events[-1]["time"] + 1, sent)
    return [*records, *(tick(events[-1]["time"] + 1_000 * s) for s in (2, 15, 30))]


def _taken(
    ingest: Ingest, kind: str, values: list[bytes], now: int, sent: Counter[str]
) -> list[bytes]:
    at = np.arange(sent[kind], sent[kind] + len(values))
    sent[kind] += len(values)
    given_values: list[bytes | None] = list(values)
    assert not ingest.take(f"{kind}@x/0", kind, given_values, at, np.full(len(values), now))
    return ingest.flush(now)[0]


def _event(row: Row) -> Row:
    return {
        "event_id": row["id"],
        "model": "m",
        "version": "1",
        "timestamp": row["time"],
        "prediction": row["answer"],
        "score": row["score"],
        "segments": {"country": row["country"], "gender": row["gender"]},
        "features": {"zip": row["zip"], "plan": row["plan"]},
    }


def _label(row: Row, later_ms: int) -> Row:
    time = row["time"] + later_ms
    return {"event_id": row["id"], "model": "m", "label": row["truth"], "timestamp": time}


def folded(records: list[bytes], settings: CoreSettings) -> Shard:
    shard = Shard(0, settings)
    for record in records:
        shard.fold(record)
    return shard


@cache
def told(fault: str) -> tuple[dict[str, Any], ...]:
    """Alerts of segments that began."""
    rules = core(segment_alerts=SegmentAlerts(max_gap=GapLimits(accuracy=0.05)))
    shard = folded(log_of(rows(fault), 300), rules)
    alerts = [json.loads(out.value) for out in shard.outbox if out.topic == "alerts"]
    return tuple(a for a in alerts if a["segment"] and a["status"] == "firing")


def samples(shard: Shard) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(s.name, s.labels[2:]): s.value for s in shard.samples() if isinstance(s, Sample)}


# ---- faults and clean data


def test_clean_data_has_no_alert_of_a_segment():
    assert told("none") == ()


def test_errors_in_one_segment_are_found_there_and_nowhere_else():
    found = {(a["kind"], a["subject"], a["detector"]) for a in told("errors")}
    assert found == {("performance", "accuracy", "level"), ("performance", "accuracy", "gap")}
    assert {a["segment"]["country"] for a in told("errors")} == {"IT"}
    assert all("IT" in a["summary"] for a in told("errors"))


def test_a_field_that_breaks_in_one_segment_is_found_and_named():
    assert [(a["kind"], a["subject"], a["detector"], a["segment"]) for a in told("missing")] == [
        ("data_quality", "zip", "missing", {"country": "IT"})
    ]


@pytest.mark.parametrize("fault", ["errors everywhere", "missing everywhere"])
def test_what_happens_everywhere_is_no_alert_of_a_segment(fault: str):
    assert told(fault) == ()


def test_an_alert_ends_when_the_segment_is_back():
    events = rows("missing") + [
        {**r, "id": f"e{N + i}", "time": T0 + (N + i) * 50}
        for i, r in enumerate(rows("none", seed=2))
    ]
    shard = folded(log_of(events, 300), core())
    assert [
        json.loads(out.value)["status"]
        for out in shard.outbox
        if out.topic == "alerts" and json.loads(out.value)["segment"]
    ][-1] == "resolved"
    segments = shard.versions[0].segments
    assert segments is not None
    assert not segments.quality.open


# ---- numbers, against plain Python


@cache
def whole() -> tuple[list[Row], Shard]:
    """Labels of every seventh row are corrected at the end."""
    events = rows("errors")
    limits = FairnessLimits(statistical_parity_difference=0.05, equal_opportunity_difference=0.5)
    rules = core(fairness={"gender": Fairness(reference="M", limits=limits)})
    return events, folded(log_of(events, 300, corrected=7), rules)


def of(events: list[Row], key: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """Each segment of a name, its rows, and those of the others."""
    for value in sorted({r[key] for r in events}):
        mine = [r for r in events if r[key] == value]
        yield f"{key}={value}", mine, [r for r in events if r[key] != value]


def test_traffic_answers_and_missing_values_are_those_of_plain_sums():
    events, shard = whole()
    found = samples(shard)
    for key in ("country", "gender"):
        for name, mine, _ in of(events, key):
            assert found["model_segment_predictions_total", (name,)] == len(mine)
            ratio = found["model_segment_traffic_ratio", (name, "24h")]
            assert ratio == pytest.approx(len(mine) / len(events))
            positive = np.mean([r["answer"] for r in mine])
            assert found["model_segment_positive_ratio", (name, "24h")] == pytest.approx(positive)
            lost = sum(r["zip"] is None for r in mine)
            assert found["model_segment_violations_total", (name, "zip", "missing")] == lost
            blocks = len(mine) // ROWS
            newest = mine[(blocks - 1) * ROWS : blocks * ROWS]
            share = sum(r["zip"] is None for r in newest) / ROWS
            assert found["model_segment_missing_ratio", (name, "zip")] == pytest.approx(share)


def rates(events: list[Row]) -> dict[str, tuple[int, int]]:
    """Selection, and true and false positive rates, as Fairlearn's MetricFrame has them."""
    positives = [r for r in events if r["truth"] == 1]
    negatives = [r for r in events if r["truth"] == 0]
    return {
        "selection": (sum(r["answer"] for r in events), len(events)),
        "true_positive": (sum(r["answer"] for r in positives), len(positives)),
        "false_positive": (sum(r["answer"] for r in negatives), len(negatives)),
    }


def test_fairness_is_that_of_a_plain_sum_after_corrections():
    """The definitions of Fairlearn: difference and ratio of the rates of the two groups."""
    events, shard = whole()
    found = samples(shard)
    groups = {name: rates(mine) for name, mine, _ in of(events, "gender")}
    for name, group in groups.items():
        for rate, (part, total) in group.items():
            assert found["model_fairness_rate_ratio", (name, rate)] == pytest.approx(part / total)
    share = {
        name: {rate: part / total for rate, (part, total) in group.items()}
        for name, group in groups.items()
    }
    f, m = share["gender=F"], share["gender=M"]
    wanted = {
        "statistical_parity_difference": f["selection"] - m["selection"],
        "disparate_impact_ratio": f["selection"] / m["selection"],
        "equal_opportunity_difference": f["true_positive"] - m["true_positive"],
        "false_positive_rate_difference": f["false_positive"] - m["false_positive"],
    }
    odds = [abs(wanted[k]) for k in list(wanted)[2:]]
    wanted["equalized_odds_difference"] = max(odds)
    for metric, value in wanted.items():
        labels = ("gender=F", metric)
        assert found["model_fairness", labels] == pytest.approx(value)
        low, high = (found[f"model_fairness_{end}", labels] for end in ("lower", "upper"))
        assert low < value < high
        assert ("model_fairness", ("gender=M", metric)) not in found
    alerts = [json.loads(o.value) for o in shard.outbox if o.topic == "alerts"]
    assert {(a["subject"], *a["segment"].items()) for a in alerts if a["kind"] == "fairness"} == {
        ("statistical_parity_difference", ("gender", "F"))
    }


def test_the_gap_is_that_of_a_plain_sum_and_the_worst_is_named():
    events, shard = whole()
    found = samples(shard)
    lows = {}
    for key, groups in (("country", 3), ("gender", 2)):
        for name, mine, others in of(events, key):
            right, rest = (
                (sum(r["answer"] == r["truth"] for r in side), len(side)) for side in (mine, others)
            )
            gap, low, high = newcombe_difference(*rest, *right, many_z(groups))
            labels = (name, "accuracy")
            for suffix, value in (("", gap), ("_lower", low), ("_upper", high)):
                assert found[f"model_segment_gap{suffix}", labels] == pytest.approx(value)
            lows[name] = low
    worst = [labels[0] for n, labels in found if n == "model_worst_segment_gap"]
    assert worst[0] == max(lows, key=lows.__getitem__) == "country=IT"
    assert found["model_worst_segment_gap_lower", ("accuracy",)] == pytest.approx(
        lows["country=IT"]
    )


def test_blocks_are_the_same_however_the_log_was_cut():
    """Blocks of exactly so many rows of a segment, as plain Python counts them."""
    events = rows("errors", n=4_000)
    got = []
    for size in (97, 1_000):
        segments = folded(log_of(events, size), core()).versions[0].segments
        assert segments is not None
        kept = segments.errors.blocks.kept, segments.outputs.blocks.kept
        got.append(
            {segments.name_of(n): [k[n].tolist() for k in kept] for n in range(len(segments.ids))}
        )
        start, width = segments.outputs.at["__score__"]
    assert got[0] == got[1]
    for name, mine, _ in (*of(events, "country"), *of(events, "gender")):
        wrong = [r["answer"] != r["truth"] for r in mine]
        full = [sum(wrong[k : k + ROWS]) for k in range(0, len(wrong) - ROWS + 1, ROWS)]
        newest = full[::-1][:KEPT]
        errors, outputs = got[0][name]
        assert [block[0] for block in errors][: len(newest)] == newest
        scores = [sum(block[start : start + width]) for block in outputs]
        assert set(scores[: len(newest)]) == {ROWS}


@settings(max_examples=30, deadline=None)
@given(
    slices=st.lists(st.integers(0, 4), min_size=1, max_size=1_500),
    cuts=st.lists(st.integers(1, 600), min_size=1, max_size=8),
)
def test_blocks_do_not_depend_on_the_cuts(slices: list[int], cuts: list[int]):
    of_rows, values = np.array(slices), np.arange(len(slices)) % 7 == 0

    def filled(ends: list[int]) -> Blocks:
        blocks, start = Blocks(1), 0
        for end in [*ends, len(slices)]:
            here, mine = of_rows[start:end], values[start:end]

            def summed(at: Any, n: int, here: Any = here, mine: Any = mine) -> Any:
                return by_segment(here[at], mine[at], n)

            for done in blocks.add(here, 5, np.arange(5), summed) if len(here) else ():
                blocks.learn(done[blocks.firsts[done] < KEPT])
            start = max(end, start)
        return blocks

    one, many = filled([]), filled(np.cumsum(cuts).tolist())
    for name in Blocks.__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(many, name)), name
    for segment in range(5):
        mine = values[of_rows == segment]
        full = len(mine) // ROWS
        assert one.closed[segment] == full
        assert one.now[segment, 0] == mine[full * ROWS :].sum()
        assert one.first[segment, 0] == mine[: min(full, KEPT) * ROWS].sum()
        if full > 1:
            ends = np.flatnonzero(of_rows == segment)[[(full - 1) * ROWS - 1, full * ROWS - 1]] + 1
            beside = slice(*ends.tolist())
            others = of_rows[beside] != segment
            rest, n = one.rest(1)
            assert (rest[segment, 0], n[segment]) == (values[beside][others].sum(), others.sum())


def test_the_interval_of_a_ratio_is_that_of_scipy():
    result = relative_risk(29, 107, 21, 91)
    interval = result.confidence_interval(0.95)
    found = katz_ratio(29, 107, 21, 91, 1.959963984540054)
    assert found == pytest.approx((result.relative_risk, interval.low, interval.high))


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_intervals_hold_the_difference_as_often_as_they_say(share: float):
    """Simulated: at z = 2.33 about 1 % of the lower ends are above the true difference, 0."""
    rng = np.random.default_rng(5)
    a, b = rng.binomial(300, share, 2_000), rng.binomial(2_000, share, 2_000)
    above = [
        newcombe_difference(x, 300, y, 2_000, 2.326)[1] > 0
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert np.mean(above) < 0.02
