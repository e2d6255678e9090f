"""
Laws of the units of an experiment: sums by unit against plain Python, whatever is corrected, taken
back, thinned out or restored.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.experiments.units import KEY_BITS, OUTCOMES_OF_UNIT_MAX, Units
from stream_monitor.state import decode, encode

Row = tuple[int, int, float]
rows = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(-3, 9).map(float)), max_size=200
)


def key_of(unit: int) -> int:
    return (unit * 0x9E3779B97F4A7C15 >> 3) % (1 << KEY_BITS)


def fed(units: Units, found: list[Row], cut: int) -> None:
    for start in range(0, len(found), cut):
        part = found[start : start + cut]
        keys = np.array([key_of(u) for u, _, _ in part], np.uint64)
        row, kept, _, _ = units.expose(
            keys, np.array([a for _, a, _ in part]), np.zeros(len(part), np.int64)
        )
        units.add(0, row, np.array([x for _, _, x in part])[kept])


def sums_of(found: list[Row], keep: int) -> np.ndarray:
    first: dict[int, int] = {}
    values: dict[int, list[float]] = defaultdict(list)
    for unit, arm, x in found:
        if key_of(unit) <= keep and first.setdefault(unit, arm) == arm:
            values[unit].append(x)
    out = np.zeros((2, 6))
    for unit, xs in values.items():
        xs = xs[:OUTCOMES_OF_UNIT_MAX]
        n, x = len(xs), sum(xs)
        out[first[unit]] += [1, n, x, n * n, n * x, x * x]
    return out


@settings(max_examples=200)
@given(rows, st.integers(1, 60), st.booleans())
def test_sums_are_those_of_plain_python_however_rows_are_cut_and_where_it_is_restored(
    found: list[Row], cut: int, restored: bool
) -> None:
    units = Units(2, 1, 1_000)
    units.begin_phase()
    half = len(found) // 2
    fed(units, found[:half], cut)
    if restored:
        units = decode(encode(units), Units)
    fed(units, found[half:], cut)
    assert np.array_equal(units.sums[:, 0], sums_of(found, int(units.keep)))


@given(rows, st.integers(1, 8))
def test_of_too_many_units_a_sample_by_hash_is_kept_with_its_sums(
    found: list[Row], units_max: int
) -> None:
    units = Units(2, 1, units_max)
    units.begin_phase()
    fed(units, found, 1_000)
    thinned = units.thin()
    assert thinned == (len({u for u, _, _ in found}) > units_max)
    assert len(units.table) <= units_max
    assert np.array_equal(units.sums[:, 0], sums_of(found, int(units.keep)))
    fed(units, found, 7)
    assert np.array_equal(units.sums[:, 0], sums_of(found * 2, int(units.keep)))


def test_a_unit_counts_fifty_times_and_what_is_corrected_changes_by_the_difference() -> None:
    units = Units(2, 1, 10)
    units.begin_phase()
    fed(units, [(1, 0, 1.0)] * 80, 30)
    assert units.sums[0, 0].tolist() == [1, 50, 50, 2_500, 2_500, 2_500]
    row = units.find(np.array([key_of(1)], np.uint64))
    units.correct(0, row, np.array([-1.0]), np.array([-1.0]))
    assert units.sums[0, 0].tolist() == [1, 49, 49, 2_401, 2_401, 2_401]


def test_a_new_phase_begins_all_sums_again_and_a_unit_falls_once_in_its_life() -> None:
    units = Units(2, 1, 10)
    units.begin_phase()
    fed(units, [(1, 0, 1.0), (2, 1, 5.0)], 9)
    row = units.find(np.array([key_of(1), key_of(1), key_of(2)], np.uint64))
    assert units.fall(0, row).tolist() == [0, 2]
    units.begin_phase()
    assert not units.sums.any()
    assert not len(units.fall(0, row)), "the race of failures goes on over phases"
    assert units.fall(1, row).tolist() == [0, 2]
    fed(units, [(1, 1, 3.0)], 9)
    assert units.sums[1, 0].tolist() == [1, 1, 3, 1, 3, 9], "it may be in another arm now"


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_units_are_no_error(n: int) -> None:
    units = Units(3, 2, 10)
    units.begin_phase()
    fed(units, [(1, 0, 1.0)] * n, 9)
    assert units.sums[0, 0, 0] == n
    assert not units.thin()


@settings(max_examples=200)
@given(rows, st.integers(1, 60), st.integers(1, 40), st.integers(1, 300), st.data())
def test_with_a_window_a_unit_counts_once_when_it_is_complete(
    found: list[Row], cut: int, window_ms: int, units_max: int, data: st.DataObject
) -> None:
    """A row each ms; it is closed, restored and thinned at any time."""
    units = Units(2, 1, units_max, window_ms, lag_ms=7)
    units.begin_phase()
    for start in range(0, len(found), cut):
        part = found[start : start + cut]
        units.close(start)
        now_ms = np.arange(start, start + len(part))
        keys = np.array([key_of(u) for u, _, _ in part], np.uint64)
        row, kept, _, _ = units.expose(keys, np.array([a for _, a, _ in part]), now_ms)
        is_open = units.is_open(row, now_ms[kept], now_ms[kept])
        units.add(0, row[is_open], np.array([x for _, _, x in part])[kept][is_open])
        units.thin()
        if data.draw(st.booleans()):
            units = decode(encode(units), Units)
    end_ms = len(found) + data.draw(st.integers(0, 60))
    units.close(end_ms)
    since: dict[int, int] = {}
    inside: list[Row] = []
    for at, (unit, arm, x) in enumerate(found):
        begun = since.setdefault(unit, at)
        if at < begun + window_ms and begun + window_ms + 7 < end_ms:
            inside.append((unit, arm, x))
    assert np.array_equal(units.sums[:, 0], sums_of(inside, int(units.keep)))
    whole = {u for u, _, _ in inside if key_of(u) <= int(units.keep)}
    assert units.complete.sum() == len(whole)
    before = units.sums.copy()
    units.add(
        0, units.find(np.array([key_of(u) for u in sorted(whole)], np.uint64)), np.ones(len(whole))
    )
    assert np.array_equal(units.sums, before), "what is complete does not change"
