"""What is particular to a detector; what all of them keep to is in `tests/conformance`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from river import drift

from stream_monitor.detectors.base import METHODS, make, restore

RNG = np.random.default_rng(5)
REAL = np.concatenate([RNG.normal(size=1500), RNG.normal(1, 1, 1000), RNG.normal(-1, 2, 500)])


def one_by_one(detector: Any, values: np.ndarray) -> list[int]:
    out = []
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            out.append(i)
    return out


@pytest.mark.parametrize("alpha", [0.9, 0.99, 0.9999, 1.0])
def test_page_hinkley_forgets_as_river_does(alpha):
    detector = make("page_hinkley", {"min_instances": 30, "delta": 0.005, "threshold": 15.0, "alpha": alpha})
    assert detector.update(REAL).tolist() == one_by_one(drift.PageHinkley(30, 0.005, 15.0, alpha), REAL)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "page_hinkley"])
def test_state_of_another_river_or_broken_state_starts_anew(method, capfd):
    detector = restore(method, {}, {**make(method, {}).state(), "river": "0.1"})
    assert detector.learning
    state = make(method, {}).state()
    broken = {**state, "window": b"abc"} if "window" in state else {**state, "detector": {"object": {"no such": 1}}}
    detector = restore(method, {}, broken)
    assert detector.learning
    detector.update(np.zeros(10))
    capfd.readouterr()  # Rust tells of its panic on stderr


def test_unknown_names_say_what_is_known():
    with pytest.raises(ValueError, match="known are adwin"):
        make("adwine", {})
    with pytest.raises(ValueError, match="has no parameter 'detla'"):
        make("adwin", {"detla": 1})
