"""
Laws of the ring: what is found is what a search through all living rows finds, however often an id
comes, and what one id costs does not grow with its rows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_monitor.join import ring as module
from stream_monitor.join.ring import SLAB_ROWS, Ring
from stream_monitor.join.ring_snapshot import form_of, full_slabs, restored, slab

STEPS = st.lists(
    st.tuples(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 9)),
    min_size=1,
    max_size=40,
)


def ids_of(numbers) -> np.ndarray:
    return np.array(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def pairs(ring: Ring, ids: np.ndarray) -> set[tuple[int, int]]:
    of, seq = ring.find(ids)
    found = list(zip(of.tolist(), seq.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


@settings(max_examples=200)
@given(STEPS, st.sampled_from([8, 16, 64]), st.sampled_from([0, 2, 100]))
@example([([0, 1], 1), ([0] * 7, 0)], 8, 100)  # the last has the place of the one forgotten
def test_find_is_a_search_through_all_living_rows(steps, capacity, few):
    before = module.CAPACITY_MIN, module.FEW
    # small, so that places are used again and the index is made again
    module.CAPACITY_MIN, module.FEW = (
        capacity,
        few,
    )
    try:
        ring, rows = Ring({"x": "<i8"}), []
        for numbers, forgotten in steps:
            ring.append(ids_of(numbers), x=np.arange(len(numbers)))
            rows += numbers
            ring.forget(ring.tail + forgotten)
            asked = [6, 0, 3, 3, 99]
            want = {
                (i, seq)
                for i, number in enumerate(asked)
                for seq in range(ring.tail, len(rows))
                if rows[seq] == number
            }
            assert pairs(ring, ids_of(asked)) == want
            again = restored(form_of(ring), {}, (), None)  # as after a restore
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


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_by_closing_up_is_found_and_survives_a_snapshot(seed: int) -> None:
    """Rows of several slabs, some of which move; ids that come twice in every other case."""
    rng = np.random.default_rng(seed)
    n = 3 * SLAB_ROWS + 1_000
    stored: dict[Any, Any] = {}
    ids = (
        rng.permutation(n).astype(np.uint64) + 1
        if seed % 2
        else rng.integers(1, n // 2, n).astype(np.uint64)
    )
    ring = Ring({"value": "<i8", "mark": "u1"}, ("mark",), n)
    ring.append(ids, value=np.arange(n), mark=np.uint8(1))
    alive = np.arange(n)  # values of the rows that are there, in their order
    for end in (SLAB_ROWS // 2, 2 * SLAB_ROWS + 7, n - 5):
        names = {
            (k, ring.editions.get(k, 0)): slab(ring, *bounds)
            for k, bounds in full_slabs(ring).items()
        }
        stored = {
            name: stored.get(name, part) for name, part in names.items()
        }  # what is stored is not stored again
        before = np.arange(ring.tail, end)
        kept = before[rng.random(len(before)) < 0.3]
        alive = np.concatenate([ring.get("value", kept), ring.rows("value", end, ring.head)])
        ring.close_up(kept, end)
        assert ring.rows("value", ring.tail, ring.head).tolist() == alive.tolist()
        names = {
            (k, ring.editions.get(k, 0)): slab(ring, *bounds)
            for k, bounds in full_slabs(ring).items()
        }
        stored = {name: stored.get(name, part) for name, part in names.items()}
        again = restored(form_of(ring), {k: part for (k, _), part in stored.items()}, ("mark",), n)
        for each in (ring, again):
            assert each.rows("value", each.tail, each.head).tolist() == alive.tolist()
            asked = ids[rng.integers(0, n, 5_000)]
            of, seq = each.find(asked)
            found = sorted(zip(of.tolist(), each.get("value", seq).tolist(), strict=True))
            rows_of: dict[int, list[int]] = {}
            for value in alive.tolist():
                rows_of.setdefault(int(ids[value]), []).append(value)
            assert found == [
                (i, value) for i, one in enumerate(asked.tolist()) for value in rows_of.get(one, [])
            ]
