"""
Events of the client are valid, and what would be rejected raises a ValueError that names the field.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_monitor import client


def test_a_full_prediction_event():
    value = client.prediction(
        "e1",
        "churn",
        prediction=True,
        score={"yes": 0.75, "no": 0.25},
        version="3",
        features={"age": 5, "x": 1.5, "city": "Rome", "new": False, "gone": None},
        timestamp=1_700_000_000_000,
        latency_ms=2.5,
        segments={"country": "IT"},
        variant="b",
        unit="user-1",
        embedding=[1, 2.5],
    )
    assert json.loads(value) == {
        "event_id": "e1",
        "model": "churn",
        "prediction": True,
        "score": {"yes": 0.75, "no": 0.25},
        "version": "3",
        "features": {"age": 5, "x": 1.5, "city": "Rome", "new": False, "gone": None},
        "timestamp": 1_700_000_000_000,
        "latency_ms": 2.5,
        "segments": {"country": "IT"},
        "variant": "b",
        "unit": "user-1",
        "embedding": [1, 2.5],
    }


def test_a_failed_call_needs_neither_prediction_nor_score():
    assert json.loads(client.prediction("e1", "churn", status="error")) == {
        "event_id": "e1",
        "model": "churn",
        "status": "error",
    }


def test_a_label_event():
    value = client.label(
        "e1",
        "yes",
        model="churn",
        version="",
        timestamp=1_700_000_000_000,
        prediction="no",
        score=0.2,
    )
    assert json.loads(value) == {
        "event_id": "e1",
        "label": "yes",
        "model": "churn",
        "version": "",
        "timestamp": 1_700_000_000_000,
        "prediction": "no",
        "score": 0.2,
    }


@pytest.mark.parametrize(
    "timestamp",
    [
        1_714_557_600_250,
        "2024-05-01T12:00:00.25+02:00",
        "2024-05-01T10:00:00.250Z",
        datetime(2024, 5, 1, 12, 0, 0, 250_999, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times_become_epoch_milliseconds(timestamp):
    assert json.loads(client.label("e", 1, timestamp=timestamp))["timestamp"] == 1_714_557_600_250


def scalar(value: Any) -> Any:
    """A scalar of numpy, which the client takes beside those its signature names."""
    return value


def test_scalars_of_numpy_are_what_they_hold():
    features: dict[str, Any] = {
        "a": np.float32(1.5),
        "b": np.int64(2),
        "c": np.bool_(True),
        "d": np.str_("x"),
        "e": np.float64(0.5),
        "f": np.array(3),
    }
    value = json.loads(
        client.prediction(
            "e",
            "m",
            prediction=scalar(np.int64(1)),
            score=scalar(np.float32(0.5)),
            features=features,
            embedding=np.array([1.0, 2.0]),
        )
    )
    assert value["features"] == {"a": 1.5, "b": 2, "c": True, "d": "x", "e": 0.5, "f": 3}
    assert (value["prediction"], value["score"], value["embedding"]) == (1, 0.5, [1.0, 2.0])


def test_a_strange_feature_is_sent_for_data_quality_to_count():
    value = json.loads(
        client.prediction(
            "e",
            "m",
            prediction=1,
            features={
                "a": math.nan,
                "b": math.inf,
                "c": scalar(np.float32("-inf")),
                "d": np.float64("nan"),
            },
        )
    )
    assert value["features"] == {"a": None, "b": "inf", "c": "-inf", "d": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event_id": ""}, "event_id must have 1 to 256 characters, not 0"),
        ({"event_id": "x" * 257}, "not 257"),
        ({"event_id": 7}, "event_id must be text, not 7"),
        ({"model": ""}, "model must have 1 to 128"),
        ({"version": "x" * 129}, "version must have at most 128"),
        ({"prediction": None}, "prediction or score is needed"),
        ({"prediction": [1]}, "prediction must be"),
        ({"prediction": math.nan}, "prediction must be a finite number"),
        ({"score": 1.5}, "score must be at least 0 and at most 1, not 1.5"),
        ({"score": True}, "score must be a finite number"),
        ({"score": {"a": -0.1}}, "score of 'a'"),
        ({"score": {}}, "at least one class"),
        ({"score": {1: 0.5}}, "a class must be text"),
        ({"status": "failed"}, "status must be"),
        ({"latency_ms": -1}, "latency_ms must be at least 0"),
        ({"features": {"a": [1]}}, r"feature 'a' must be a number.*\(list\)"),
        ({"features": {1: 1}}, "a feature's name must be text"),
        ({"segments": {"a": 1}}, "segment 'a' must be text"),
        ({"variant": 1}, "variant must be text"),
        ({"embedding": [1, "x"]}, "embedding must be a finite number"),
        ({"timestamp": "2024-05-01"}, "needs an offset"),
        ({"timestamp": "yesterday"}, "RFC 3339"),
        ({"timestamp": datetime(2024, 5, 1)}, "needs an offset"),  # noqa: DTZ001, that is the fault
        ({"timestamp": 1.7e12}, "epoch milliseconds"),
        ({"timestamp": 1_700_000_000}, "in milliseconds"),
        ({"timestamp": datetime(1999, 1, 1, tzinfo=UTC)}, "after 2000-01-01"),
    ],
)
def test_what_would_be_rejected_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        client.prediction(**{"event_id": "e", "model": "m", "prediction": 1, **arguments})


def test_a_label_is_checked_too():
    with pytest.raises(ValueError, match="label must be"):
        client.label("e", None)  # type: ignore[arg-type] # that is the point
    with pytest.raises(ValueError, match="model must have"):
        client.label("e", 1, model="")


def test_importing_it_is_light():
    """The standard library, msgspec and the client itself; asyncio only where it is used."""
    code = (
        "import sys; before = set(sys.modules); import stream_monitor.client; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - sys.stdlib_module_names | {'asyncio', 'urllib.request'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )
    optional = {"typing_extensions"}  # msgspec imports it where it is installed
    assert set(done.stdout.split()) - optional == {"msgspec", "stream_monitor"}


@pytest.mark.parametrize(
    ("score", "sent"),
    [
        (1 + 1e-7, 1.0),
        (np.nextafter(np.float32(1), np.float32(2)), 1.0),
        (-1e-9, 0.0),
        (0.25, 0.25),
    ],
)
def test_a_score_within_rounding_is_clipped(score, sent):
    assert json.loads(client.prediction("e", "m", score=score))["score"] == sent
    assert json.loads(client.prediction("e", "m", score={"yes": score}))["score"] == {"yes": sent}
