"""Our detectors are River's, value by value, however they are cut and through snapshots."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from river import drift
from river.drift import binary

from stream_monitor.detectors.base import METHODS, make, restore

RNG = np.random.default_rng(5)
REAL = np.concatenate([RNG.normal(size=1500), RNG.normal(1, 1, 1000), RNG.normal(-1, 2, 500)])
ERRORS = (RNG.random(3000) < np.repeat([0.1, 0.4, 0.1], [1500, 1000, 500])).astype(float)
CASES: dict[str, tuple[Any, np.ndarray]] = {
    "adwin": (drift.ADWIN, REAL),
    "page_hinkley": (lambda: drift.PageHinkley(min_instances=1_000, delta=0.25, threshold=50.0, alpha=1.0), REAL),
    "ddm": (binary.DDM, ERRORS),
    "hddm_a": (binary.HDDMA, ERRORS),
    "hddm_w": (binary.HDDMW, ERRORS),
    "kswin": (lambda: drift.KSWIN(alpha=0.0001, seed=1), REAL[1300:1900]),
}


def one_by_one(detector: Any, values: np.ndarray) -> list[int]:
    out = []
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            out.append(i)
    return out


def test_every_method_is_tested():
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("size", [100_000, 333])
def test_fires_where_river_fires(method, size):
    reference, values = CASES[method]
    detector, fired = make(method, {}), []
    for start in range(0, len(values), size):
        fired += (detector.update(values[start : start + size]) + start).tolist()
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(detector.state()))
        detector = restore(method, {}, state)
        assert not getattr(detector, "learning", False)
    expected = one_by_one(reference(), values)
    assert fired == expected
    assert expected or method == "kswin"


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
