"""
Values and names that nobody should send: they enter no statistic, and state is bounded however many
there are.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_monitor.evaluate import Shard
from stream_monitor.events.parse import _depth
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.samples import Sample
from stream_monitor.schema import REJECT_REASONS
from stream_monitor.settings import Baseline, CoreSettings, Limits, ModelSettings, Segment

T0 = 1_760_000_000_000
SETTINGS = CoreSettings(
    defaults=ModelSettings(baseline=Baseline(rows=50), windows=("last_100", "1h"))
)
ODD = [
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"-" + b"9" * 5_000,
    b"9007199254740993",
    b"1e308",
    b"null",
    b'"NaN"',
    b"[1]",
    b'{"a": 1}',
    b"true",
]
"""Of a feature: not one of them is a number that counts, but for 1e308, which is one."""
TINY = [b"-0.0", b"5e-324", b"-2.2250738585072014e-308"]


def folded(
    values: list[bytes],
    settings: CoreSettings = SETTINGS,
    shard: Shard | None = None,
    start: int = 0,
) -> Shard:
    """A shard that has seen these predictions."""
    ingest, shard = Ingest(1), shard or Shard(0, settings)
    offsets = np.arange(start, start + len(values))
    assert not ingest.take(
        "predictions@x/0",
        "predictions",
        list(values),
        offsets,
        np.full(len(values), T0 + 1_000_000),
    )
    for record in ingest.flush(shard.log_time_ms + 1_000 if shard.log_time_ms else T0).get(0, []):
        shard.fold(record)
    return shard


def event(i: int, x: bytes) -> bytes:
    return (
        b'{"event_id": "e%d", "model": "m", "timestamp": %d, "prediction": %d, "score": 0.5, '
        b'"features": {"x": %b, "y": %d}}'
    ) % (i, T0 + i, i % 2, x, i % 7)


@pytest.mark.parametrize("odd", [x for x in ODD if x != b"1e308"], ids=lambda x: x[:12].decode())
def test_what_is_no_number_enters_no_statistic(odd: bytes) -> None:
    """
    Neither the baseline nor a window, a detector or a gauge: the mean is that of the good values,
    before, between and after.
    """
    good = [float(i % 5) for i in range(300)]
    values, n = [], 0
    for i, x in enumerate(good):
        values.append(event(n, str(x).encode()))
        n += 1
        if i % 10 == 0:
            values.append(event(n, odd))
            n += 1
    shard = folded(values)
    shard.close()
    told = shard.summary()["models"]["m"]["versions"][""]
    assert told["predictions"] == n, "the record counts, and its other features"
    assert told["features"]["x"]["mean"] == pytest.approx(np.mean(good), rel=1e-12)
    assert told["features"]["y"]["mean"] == pytest.approx(
        np.mean([i % 7 for i in range(n)]), rel=1e-12
    )
    for sample in shard.samples():
        assert not isinstance(sample, Sample) or math.isfinite(sample.value), sample
    assert "NaN" not in json.dumps(shard.summary())


def test_zeros_with_a_sign_and_the_smallest_numbers_are_numbers() -> None:
    values = [event(i, TINY[i % 3]) for i in range(300)]
    shard = folded(values)
    shard.close()
    told = shard.summary()["models"]["m"]["versions"][""]["features"]["x"]
    assert told["mean"] == pytest.approx(0.0, abs=1e-300)
    assert told["missing_ratio"] == 0
    assert all(math.isfinite(s.value) for s in shard.samples() if isinstance(s, Sample))


def test_the_greatest_numbers_leave_every_gauge_finite_or_absent() -> None:
    values = [
        event(
            i,
            [b"1e308", b"-1e308", b"1.7976931348623157e308"][i % 3] if i > 100 else b"%d" % (i % 5),
        )
        for i in range(400)
    ]
    with np.errstate(all="ignore"):
        shard = folded(values)
        shard.close()
    assert shard.summary()["models"]["m"]["versions"][""]["predictions"] == 400
    assert [
        s for s in shard.samples() if isinstance(s, Sample) and not math.isfinite(s.value)
    ] == []


# ---- records that are made to be dear: read again from each of their characters they would take
# hours

SIZE = 900_000
DEAR = {
    "brackets": (b"[" * SIZE, "too_deep"),
    "pairs of brackets": (b"[]" * (SIZE // 2), "invalid_json"),
    "quotes that are escaped in a text without end": (
        b"[" * 101 + b'"' + b'\\"' * (SIZE // 2),
        "too_deep",
    ),
    "and a backslash at its end": (
        b"[]" * 101 + b'"' + b'\\"' * (SIZE // 2) + b"\\",
        "invalid_json",
    ),
    "a text": (b"[" * 101 + b'"' + b"x" * SIZE + b'"', "too_deep"),
    "digits": (
        b'{"event_id": "a", "model": "m", "prediction": ' + b"9" * SIZE + b"}",
        "out_of_range",
    ),
    "an exponent": (
        b'{"event_id": "a", "model": "m", "prediction": 1e' + b"9" * SIZE + b"}",
        "out_of_range",
    ),
    "surrogates": (b'{"event_id": "' + b"\\ud800" * (SIZE // 6) + b'"}', "invalid_json"),
    "a time": (
        b'{"event_id": "a", "model": "m", "prediction": 1, "timestamp": "' + b"1" * SIZE + b'"}',
        "wrong_type",
    ),
}


@pytest.mark.parametrize(("raw", "reason"), DEAR.values(), ids=DEAR)
def test_the_cost_of_a_bad_record_is_linear_in_its_size(raw: bytes, reason: str) -> None:
    (reject,) = Ingest(1).take(
        "predictions@x/0", "predictions", [raw], np.zeros(1, np.int64), np.full(1, T0)
    )
    assert reject.reason == reason
    assert len(reject.message) < 300


@given(st.lists(st.sampled_from(["[", "]", "{", "}", '"', "\\", "x", '"["', '\\"']), max_size=60))
def test_the_depth_is_that_outside_of_texts(parts: list[str]) -> None:
    text = "".join(parts)
    depth = deepest = 0
    inside = escaped = False
    for c in text:
        if inside:
            inside, escaped = escaped or c != '"', not escaped and c == "\\"
        elif c == '"':
            inside = True
        elif c in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif c in "]}":
            depth -= 1
    assert _depth(text.encode()) == deepest


# ---- floods of names

LIMITS = Limits(models=10, versions=3, features=20, segments=10, categories=10, pending=3_000)
FLOODED = CoreSettings(
    defaults=ModelSettings(
        baseline=Baseline(rows=50),
        windows=("last_100", "1h"),
        segments=(Segment(name="s"), Segment(name="c")),
    ),
    limits=LIMITS,
)
IDS_N, NAMES_N = (int(os.environ.get("FLOOD", n)) for n in (100_000, 10_000))
"""
A million is no different, since the bound is reached in the first part: `FLOOD=1000000 scripts/test
tests/laws/test_abuse_laws.py -k however_many --timeout=3600`.
"""
PARTS = 20


def flood(start: int, n: int) -> Iterator[bytes]:
    """Ids, categories and segments that never come twice."""
    for i in range(start, start + n):
        yield (
            (
                b'{"event_id": "%d", "model": "m", "prediction": 1, "features": {"c": "c%d", "x": '
                b'1}, "segments": {"s": "s%d"}}'
            )
            % (i, i, i)
        )


def names(start: int, n: int) -> Iterator[bytes]:
    """
    Models, versions and features that never come twice: each makes a shape and a layout of its own.
    """
    for i in range(start, start + n):
        event: dict[str, Any] = {
            "event_id": f"{i}",
            "model": f"m{i}" if i % 3 == 0 else "m",
            "version": f"v{i}" if i % 3 == 1 else "",
            "prediction": 1,
            "features": {f"f{i}": 1},
        }
        yield json.dumps(event).encode()


@pytest.mark.parametrize(
    ("stream", "total"),
    [(flood, IDS_N), (names, NAMES_N)],
    ids=["ids, categories and segments", "models, versions and features"],
)
def test_state_stays_within_its_bound_however_many_names_come(stream: Any, total: int) -> None:
    ingest, shard = Ingest(1), Shard(0, FLOODED)
    sizes, part = [], total // PARTS
    for k in range(PARTS):
        values: list[bytes | None] = list(stream(k * part, part))
        assert not ingest.take(
            "predictions@x/0",
            "predictions",
            values,
            np.arange(k * part, (k + 1) * part),
            np.full(part, T0 + k * 1_000),
        )
        for record in ingest.flush(T0 + k * 1_000)[0]:
            shard.fold(record)
        sizes.append(sum(len(v or b"") for v in shard.snapshot().values()))
    assert sizes[-1] < 1.1 * max(sizes[PARTS // 4 : PARTS // 2])
    assert len(ingest._decoders["predictions"]._shapes) <= 4_000
    assert shard.summary()["records"]["predictions"]["accepted"] == total
    assert len(shard.versions) <= (LIMITS.models + 1) * (LIMITS.versions + 1)
    alerts = Counter(
        json.loads(o.value)["subject"]
        for o in shard.outbox
        if o.topic == "alerts" and json.loads(o.value)["status"] == "firing"
    )
    limits = {subject: n for subject, n in alerts.items() if subject.startswith("limits.")}
    assert set(limits) == {
        "limits.pending",
        *(
            ["limits.segments"]
            if stream is flood
            else ["limits.models", "limits.versions", "limits.features"]
        ),
    }
    assert set(limits.values()) == {1}


def test_every_reason_of_the_contract_is_given_by_some_test() -> None:
    """
    Those of a record by the cases of bench/odd_records.py; those of a batch, and of what ended the
    worker, by tests/runtime/test_poison.py.
    """
    from bench.odd_records import CASES

    assert {case.reason for case in CASES.values() if case.reason} | {
        "corrupt_batch",
        "ended_worker",
    } == set(REJECT_REASONS)
