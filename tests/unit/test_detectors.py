"""What is particular to a detector; what all of them keep to is in `tests/conformance`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from river import drift

from stream_monitor.detectors import river_adapters
from stream_monitor.detectors.base import EVIDENCE, METHODS, make, restore
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import Baseline, CoreSettings, Drift, ModelSettings

RNG = np.random.default_rng(5)
REAL = np.concatenate([RNG.normal(size=1500), RNG.normal(1, 1, 1000), RNG.normal(-1, 2, 500)])
ERRORS = (RNG.random(700) < 0.2).astype(float)


def one_by_one(detector: Any, values: np.ndarray) -> list[int]:
    out = []
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            out.append(i)
    return out


OURS = ("page_hinkley", "conformal", EVIDENCE)


@pytest.mark.parametrize("alpha", [0.9, 0.99, 0.9999, 1.0])
def test_page_hinkley_forgets_as_river_does(alpha):
    detector = make(
        "page_hinkley", {"min_instances": 30, "delta": 0.005, "threshold": 15.0, "alpha": alpha}
    )
    assert detector.update(REAL).tolist() == one_by_one(
        drift.PageHinkley(30, 0.005, 15.0, alpha), REAL
    )


@pytest.mark.parametrize("method", [m for m in METHODS if m not in OURS])
def test_state_of_another_river_or_broken_state_starts_anew(method, capfd):
    detector = restore(method, {}, {**make(method, {}).state(), "river": "0.1"})
    assert detector.restarted
    state = make(method, {}).state()
    broken = (
        {**state, "window": b"abc"}
        if "window" in state
        else {**state, "detector": {"object": {"no such": 1}}}
    )
    detector = restore(method, {}, broken)
    assert detector.restarted
    detector.update(np.zeros(10))
    capfd.readouterr()  # Rust tells of its panic on stderr


def broken_states(state: Any) -> Iterator[Any]:
    """
    The state with one thing less, and with each of its bytes cut short or made of something else.
    """
    if isinstance(state, bytes):
        yield from (state[:-1], b"", b"\xff" * len(state), "text", None)
    elif isinstance(state, dict):
        for key, value in state.items():
            if key != "river":
                yield {k: v for k, v in state.items() if k != key}
                yield from ({**state, key: broken} for broken in broken_states(value))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in OURS])
def test_whatever_is_wrong_with_a_state_only_its_detector_begins_anew(method, capfd):
    """
    Malformed bytes raise a panic of Rust, which is no Exception.

    A new detector is what it is then, with nothing of the broken state.
    """
    detector = make(method, {})
    detector.update(ERRORS)
    tried = 0
    for broken in broken_states(detector.state()):
        restored = restore(method, {}, broken)
        if restored.restarted:  # else what was cut off is not missed
            tried += 1
            assert restored.state() == make(method, {}).state()
    assert tried >= 4
    capfd.readouterr()


def test_a_detector_that_begins_anew_is_told_and_its_episode_goes_on():
    core = CoreSettings(
        defaults=ModelSettings(baseline=Baseline(rows=50), drift=Drift(features={"adwin": {}}))
    )
    ingest, shard = Ingest(1), Shard(0, core)
    values: list[bytes | None] = [
        json.dumps(
            {"event_id": str(i), "model": "m", "prediction": 1, "features": {"x": i % 7}}
        ).encode()
        for i in range(400)
    ]
    assert not ingest.take(
        "predictions@x/0", "predictions", values, np.arange(400), np.full(400, 1_760_000_000_000)
    )
    for log_ms in (1_760_000_000_000, 1_760_000_002_000):
        for record in ingest.flush(log_ms).get(0, [tick(log_ms)]):
            shard.fold(record)
    parts = {name: data or b"" for name, data in shard.snapshot().items()}
    assert Shard.restore(0, core, parts).restarted_detectors() == []
    old = parts | {
        "state": parts["state"].replace(
            river_adapters.VERSION.encode(), b"0" * len(river_adapters.VERSION)
        )
    }
    restored = Shard.restore(0, core, old)
    assert restored.restarted_detectors() == ["m/ x adwin"]
    assert (
        restored.versions[0].signals["x"].state.rows
        == shard.versions[0].signals["x"].state.rows
        > 0
    )


def test_unknown_names_say_what_is_known():
    with pytest.raises(ValueError, match="known are evidence, adwin"):
        make("adwine", {})
    with pytest.raises(ValueError, match="has no parameter 'detla'"):
        make("adwin", {"detla": 1})
