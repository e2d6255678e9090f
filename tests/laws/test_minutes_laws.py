"""
Labels and metrics of minutes equal plain sums over all that was told, in whatever order it came,
and what is older than `history` is forgotten.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.lifecycle.observed import KEPT_MS, Observed
from stream_monitor.times import DAY_MS, MINUTE_MS, rfc3339

START_MS = 1_760_000_040_000
TOLD = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(["v1.0.0", "v2.0.0"]),
        st.integers(0, 9),
        st.dictionaries(st.sampled_from(["accuracy", "f1"]), st.sampled_from([0.0, 0.25, 1.0])),
    ),
    max_size=30,
)


def a_minute(at_ms: int, version: str, labels: int, metrics: dict[str, Any]) -> bytes:
    said = {"model": "m", "version": version, "labels": labels, "metrics": metrics}
    end = rfc3339(at_ms + MINUTE_MS)
    return json.dumps({**said, "start": rfc3339(at_ms), "end": end}).encode()


@settings(max_examples=150, deadline=None)
@given(TOLD, st.integers(0, 41), st.integers(0, 41), st.sampled_from(["v1.0.0", "v2.0.0", None]))
def test_minutes_are_summed(told, since, until, version):
    observed = Observed(lambda: 0)
    for minute, *rest in told:
        observed.take("history", a_minute(START_MS + minute * MINUTE_MS, *rest))
    since_ms, until_ms = START_MS + since * MINUTE_MS, START_MS + until * MINUTE_MS
    meant = [t for t in told if version in (None, t[1])]
    assert observed.labels("m", version, since_ms) == sum(t[2] for t in meant if t[0] >= since)
    if version is None:
        return
    rows = [t for t in meant if since <= t[0] < until]
    expected: dict[str, Any] = {"labels": float(sum(t[2] for t in rows))}
    for name in ("accuracy", "f1"):
        weight = sum(t[2] for t in rows if name in t[3])
        if weight:
            total = sum(t[2] * t[3][name] for t in rows if name in t[3])
            expected[name] = pytest.approx(total / weight)
    assert observed.metrics("m", version, since_ms, until_ms) == expected


def test_a_year_of_minutes_keeps_a_month_also_of_versions_that_are_gone():
    observed = Observed(lambda: 0)
    hours = 365 * 24
    for hour in range(hours):
        value = a_minute(START_MS + hour * 60 * MINUTE_MS, f"v1.{hour // 24}.0", 2, {})
        observed.take("history", value)
    kept = sum(map(len, observed._minutes["m"].values()))
    assert kept == KEPT_MS // (60 * MINUTE_MS) + 1
    assert len(observed._minutes["m"]) <= KEPT_MS // DAY_MS + 2
    assert observed.labels("m", None, 0) == 2 * kept
