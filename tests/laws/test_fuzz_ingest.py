"""
Fuzzing of INGEST: real events, whole and mutilated, in any mixture.

Nothing raises; every record is forwarded, rejected for a reason of the closed set, or a tombstone;
what stands around a bad record is read as if it stood alone; and whatever is forwarded can be
evaluated.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.odd_records import FRAGMENTS
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.samples import Sample
from stream_monitor.schema import REJECT_REASONS
from stream_monitor.settings import Baseline, CoreSettings, ModelSettings
from tests.laws.test_decode_laws import rows_of

T0 = 1_760_000_000_000
BYTES_MAX = 20_000
OF_A_RECORD = set(REJECT_REASONS) - {"corrupt_batch"}


def prediction(i: int, kind: int) -> dict[str, Any]:
    """The `i`-th event of one of six servers, each with its own manner."""
    event: dict[str, Any] = {
        "event_id": f"e{i}",
        "model": f"m{kind}",
        "version": "1",
        "timestamp": T0 + i,
    }
    bodies: list[dict[str, Any]] = [
        {
            "prediction": i % 2,
            "score": 0.25,
            "latency_ms": 12.5,
            "features": {"amount": 120.5 + i, "country": "DE", "new": True},
        },
        {"score": {"cat": 0.25, "dog": 0.75}, "features": {"x": i}, "segments": {"site": "a"}},
        {
            "prediction": 3.25 * i,
            "features": {"x": None, "y": 1e5},
            "timestamp": "2025-10-09T08:15:00.123Z",
            "variant": "b",
            "unit": f"u{i}",
        },
        {"prediction": "yes", "embedding": [0.5, 1], "features": {}},
        {"status": "error", "latency_ms": 3},
        {"prediction": 1, "features": {"tags": ["a", "b"], "box": {"x": 1}}},
    ]
    return event | bodies[kind]


def label(i: int, kind: int) -> dict[str, Any]:
    bodies: list[dict[str, Any]] = [
        {"label": i % 2},
        {"label": "cat", "model": "m1"},
        {"label": 3.5, "model": "m2", "version": "1"},
        {"label": True, "score": 0.5},
        {"label": "no"},
        {"label": "yes", "tags": ["a", "b"]},
    ]
    return {"event_id": f"e{i}", "timestamp": T0 + i + 5} | bodies[kind]


@st.composite
def mutilated(draw: st.DrawFn, raw: bytes) -> bytes | None:
    """A record after one to three accidents."""
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        accident = draw(
            st.sampled_from(
                ["flip", "cut", "drop", "repeat", "insert", "value", "value", "value", "nothing"]
            )
        )
        if accident == "flip" and raw:
            raw = (
                raw[: at - 1] + bytes([raw[at - 1] ^ 1 << draw(st.integers(0, 7))]) + raw[at:]
                if at
                else raw
            )
        elif accident == "cut":
            raw = raw[:at]
        elif accident == "drop":
            raw = raw[:at] + raw[end:]
        elif accident == "repeat":
            raw = raw[:end] + raw[at:end] * draw(st.integers(1, 3)) + raw[end:]
        elif accident == "insert":
            raw = raw[:at] + draw(st.sampled_from(FRAGMENTS)) + raw[at:]
        elif accident == "value":  # well-formed, but with another value in one place
            places = [i + 1 for i, byte in enumerate(raw) if byte in b":"]
            if places:
                place = draw(st.sampled_from(places))
                rest = raw[place:].lstrip()
                length = next((i for i, byte in enumerate(rest) if byte in b",}"), len(rest))
                raw = raw[:place] + draw(st.sampled_from(FRAGMENTS)) + rest[length:]
        elif draw(st.integers(0, 3)) == 0:
            return None
    return raw


@st.composite
def records(draw: st.DrawFn, make: Any) -> list[tuple[bytes | None, bool]]:
    """
    (value, whether it is whole) of a batch; most servers send one kind of event, so that the fast
    path is taken too.
    """
    kinds = draw(st.sampled_from([[0], [1], [2], [5], [0, 0, 0, 1, 2, 3, 4, 5]]))
    out: list[tuple[bytes | None, bool]] = []
    for i in range(draw(st.integers(1, 25))):
        raw = json.dumps(make(i, draw(st.sampled_from(kinds)))).encode()
        whole = draw(st.integers(0, 2)) > 0
        out.append((raw if whole else draw(mutilated(raw)), whole))
    return out


def taken(
    ingest: Ingest, kind: str, values: list[bytes | None], offsets: list[int]
) -> list[tuple[int, str]]:
    before = sum(ingest.counts.values())
    rejects = ingest.take(
        "s@id/0", kind, list(values), np.array(offsets, np.int64), np.full(len(values), T0 + 1_000)
    )
    assert sum(ingest.counts.values()) - before == len(values)
    for reject in rejects:
        assert reject.reason in OF_A_RECORD
        assert reject.message.encode()
        assert values[reject.index] is not None
    assert len({r.index for r in rejects}) == len(rejects)
    return [(offsets[r.index], r.reason) for r in rejects]


def check(kind: str, make: Any, batch: list[tuple[bytes | None, bool]]) -> None:
    values = [value for value, _ in batch]
    warm = [json.dumps(make(1_000 + i, k)).encode() for i in range(3) for k in range(6)]
    whole = [i for i, (_, good) in enumerate(batch) if good]
    for learnt in (False, True):  # the slow path, then the fast one
        mixed, alone = Ingest(2, max_record_bytes=BYTES_MAX), Ingest(2, max_record_bytes=BYTES_MAX)
        for ingest in (mixed, alone):
            if learnt:
                assert not taken(ingest, kind, list(warm), list(range(len(warm))))
                ingest.flush(T0)
            ingest.counts.clear()
        rejects = taken(mixed, kind, values, list(range(len(values))))
        assert mixed.counts[kind, "rejected"] == len(rejects)
        assert mixed.counts[kind, "tombstone"] == values.count(None)
        assert (
            mixed.counts[kind, "forwarded"]
            == mixed.rows
            == len(values) - values.count(None) - len(rejects)
        )
        assert not {offset for offset, _ in rejects} & set(whole), "a whole record was rejected"
        assert not taken(alone, kind, [values[i] for i in whole], whole)
        good = set(whole)
        found = {
            target: [row for row in rows if row[0] in good]
            for target, rows in rows_of(mixed).items()
        }
        assert {target: rows for target, rows in found.items() if rows} == rows_of(alone)


@settings(max_examples=200)
@given(records(prediction))
def test_predictions(batch: list[tuple[bytes | None, bool]]) -> None:
    check("predictions", prediction, batch)


@settings(max_examples=150)
@given(records(label))
def test_labels(batch: list[tuple[bytes | None, bool]]) -> None:
    check("labels", label, batch)


@settings(max_examples=100)
@given(
    st.lists(st.one_of(st.binary(max_size=60), st.none(), st.sampled_from(FRAGMENTS)), max_size=30),
    st.sampled_from(["predictions", "labels"]),
)
def test_any_bytes(values: list[bytes | None], kind: str) -> None:
    ingest = Ingest(2, max_record_bytes=BYTES_MAX)
    rejects = taken(ingest, kind, values, list(range(len(values))))
    assert len(rejects) + values.count(None) + ingest.counts[kind, "forwarded"] == len(values)


def test_what_is_too_large_is_not_read() -> None:
    ingest = Ingest(1, max_record_bytes=BYTES_MAX)
    raw = json.dumps({**prediction(1, 0), "features": {"x": "y" * BYTES_MAX}}).encode()
    assert taken(ingest, "predictions", [raw, json.dumps(prediction(2, 0)).encode()], [0, 1]) == [
        (0, "too_large")
    ]


def no_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return all(no_nan(v) for v in value.values())
    return not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=60)
@given(st.lists(st.tuples(records(prediction), records(label)), min_size=1, max_size=3))
def test_what_is_forwarded_can_be_evaluated(
    rounds: list[tuple[list[tuple[bytes | None, bool]], list[tuple[bytes | None, bool]]]],
) -> None:
    ingest = Ingest(1, max_record_bytes=BYTES_MAX)
    shard = Shard(
        0,
        CoreSettings(defaults=ModelSettings(baseline=Baseline(rows=20), windows=("last_20", "1h"))),
    )
    at = 0
    for second, (predictions, labels) in enumerate(rounds):
        for kind, batch in (("predictions", predictions), ("labels", labels)):
            taken(ingest, kind, [value for value, _ in batch], list(range(at, at + len(batch))))
        at += 100
        for record in ingest.flush(T0 + second * 1_000).get(0, []):
            shard.fold(record)
    shard.close()
    counts = shard.summary()["records"]
    for kind in ("predictions", "labels"):
        assert sum(counts[kind].values()) == ingest.counts[kind, "forwarded"]
    assert no_nan(shard.summary())
    json.dumps(shard.summary(), allow_nan=False)
    assert all(math.isfinite(s.value) for s in shard.samples() if isinstance(s, Sample))
