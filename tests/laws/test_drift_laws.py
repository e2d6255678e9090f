"""
Law: how the values of a signal were cut into arrays shows neither in its episodes nor in what is
told of them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from stream_monitor.monitors.drift import Signal

LEVELS = [(0.0, 1_500), (2.0, 700), (-1.0, 800), (-1.0, 500)]
METHODS = {"adwin": {"delta": 0.002}, "page_hinkley": {"min_instances": 200, "threshold": 20.0}}
NEAR = [(0.0, 1_000), (4.0, 40), (-4.0, 400)]
"""A second change so soon after the first that a detector fires twice within one array."""


def stream(levels: list[tuple[float, int]]) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(mean, 1, n) for mean, n in levels])


def told(values: np.ndarray, size: int, method: str) -> tuple[bool, list[Any]]:
    signal = Signal("x", {method: METHODS[method]})
    confirmed = False
    for start in range(0, len(values), size):
        part = values[start : start + size]
        confirmed |= signal.update(part, np.arange(start, start + len(part)))
    return confirmed, list(msgspec.to_builtins(signal.state.episodes[method]))


def same(one: tuple[bool, list[Any]], other: tuple[bool, list[Any]]) -> bool:
    return one[0] == other[0] and one[1] == pytest.approx(other[1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 50, 333])
def test_cutting_does_not_show(method: str, size: int) -> None:
    values = stream(LEVELS)
    whole = told(values, 1_000, method)
    assert whole[0]
    assert same(told(values, size, method), whole)


def test_cutting_does_not_show_where_a_detector_fires_twice_in_an_array() -> None:
    values = stream(NEAR)
    assert same(told(values, 1, "adwin"), told(values, 2_000, "adwin"))
