"""Laws of the ring: what is found is what a search through all living rows finds, however often an id comes, and what one id costs does not grow with its rows."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.events import ring as module
from stream_monitor.events.ring import Ring

STEPS = st.lists(st.tuples(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 9)), min_size=1, max_size=40)


def ids_of(numbers) -> np.ndarray:
    return np.array(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def pairs(ring: Ring, ids: np.ndarray) -> set[tuple[int, int]]:
    of, seq = ring.find(ids)
    found = list(zip(of.tolist(), seq.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([8, 16, 64]), st.sampled_from([0, 2, 100]))
def test_find_is_a_search_through_all_living_rows(steps, capacity, few):
    before = module.CAPACITY_MIN, module.FEW
    module.CAPACITY_MIN, module.FEW = capacity, few  # small, so that places are used again and the index is made anew
    try:
        ring, rows = Ring({"x": "<i8"}), []
        for numbers, forgotten in steps:
            ring.append(ids_of(numbers), x=np.arange(len(numbers)))
            rows += numbers
            ring.forget(ring.tail + forgotten)
            asked = [6, 0, 3, 3, 99]
            want = {(i, seq) for i, number in enumerate(asked) for seq in range(ring.tail, len(rows)) if rows[seq] == number}
            assert pairs(ring, ids_of(asked)) == want
            state = ring.state()
            again = Ring.from_state(state, {}, (), None)  # as after a restore
            assert pairs(again, ids_of(asked)) == want
    finally:
        module.CAPACITY_MIN, module.FEW = before


def cpu_s(ids: np.ndarray) -> float:
    ring, began = Ring({}), time.thread_time()
    for part in np.array_split(ids, 100):
        ring.append(part)
        ring.find(part[:1])
    return time.thread_time() - began


def test_a_flood_of_one_id_costs_little_more_than_as_many_ids():
    n = 20_000
    assert cpu_s(ids_of([7] * n)) < 20 * cpu_s(ids_of(range(n))) + 10  # it was quadratic: minutes
