"""
Rounding, NaN and infinity in an event: what is not known is missing, what rounding did is undone,
and an answer that is no number is refused.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from stream_monitor.events import cells
from stream_monitor.events.cells import Texts
from stream_monitor.events.parse import PARSERS, Bad

RECORD_MS = 1_760_000_000_000
NAN, INF = math.nan, math.inf


def parsed(event: dict[str, Any], kind: str = "predictions") -> dict[str, float]:
    """Cells of an event as `json.dumps` writes it."""
    raw = json.dumps({"event_id": "1", "model": "m", **event}).encode()
    found = PARSERS[kind](raw, RECORD_MS, Texts(), 10_000)
    return dict(zip(found.columns, found.cells, strict=True))


@pytest.mark.parametrize(
    "score",
    [
        0.0,
        0.25,
        1.0,
        1 + 1e-7,
        float(np.nextafter(np.float32(1), np.float32(2))),
        -1e-9,
        -1e-6,
        1 + 1e-6,
    ],
)
def test_a_score_within_rounding_is_clipped(score):
    right = float(np.clip(score, 0, 1))
    assert parsed({"score": score}) == {"score": right}
    assert parsed({"score": {"cat": score, "dog": 0.5}}) == {"score.cat": right, "score.dog": 0.5}
    assert parsed({"score": score, "label": 1}, "labels")["score"] == right


@pytest.mark.parametrize("score", [1 + 2e-6, 1.2, -2e-6, 300, INF, -INF, NAN])
def test_a_score_beyond_rounding_is_refused_by_name_and_value(score):
    for event, name in (({"score": score}, "score"), ({"score": {"cat": score}}, "score.cat")):
        with pytest.raises(Bad, match=rf"`{name}` must be in \[0, 1\], not {score:g}") as bad:
            parsed(event)
        assert bad.value.reason == "out_of_range"


def test_nan_in_a_feature_is_missing_and_infinity_a_value_that_is_not_finite():
    found = parsed({"prediction": 1, "features": {"a": NAN, "b": INF, "c": -INF, "d": 1.5}})
    tags = {name: int(cells.tags(np.array([cell]))[0]) for name, cell in found.items()}
    assert tags == {
        "prediction": -1,
        "features.a": cells.NULL,
        "features.b": cells.NOT_FINITE,
        "features.c": cells.NOT_FINITE,
        "features.d": -1,
    }


def test_nan_beside_the_answer_is_left_out():
    assert list(
        parsed({"prediction": 1, "latency_ms": NAN, "segments": {"a": NAN, "b": None}})
    ) == ["prediction"]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_answer_that_is_no_number_is_refused(value):
    for event, kind in (
        ({"prediction": value}, "predictions"),
        ({"label": value}, "labels"),
        ({"label": 1, "prediction": value}, "labels"),
    ):
        with pytest.raises(Bad, match="not finite") as bad:
            parsed(event, kind)
        assert bad.value.reason == "out_of_range"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"event_id": NaNo}',
        b'{"a": NaN',
        b"NaN NaN",
        b'{"event_id": "\\ud800", "a": NaN}',
        '{"a": NaN}'.encode("utf-16"),
    ],
)
def test_what_is_no_json_with_nan_in_it_either_is_refused(raw):
    with pytest.raises(Bad) as bad:
        PARSERS["predictions"](raw, RECORD_MS, Texts(), 10_000)
    assert bad.value.reason == "invalid_json"
