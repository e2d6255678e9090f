"""
Laws of the windows: the same rows give the same window in any order and any pieces, equal to
picking them one by one; a snapshot is invisible; state is bounded.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.state import decode, encode
from stream_monitor.windows.panes import HORIZON_MS, LADDER, Panes
from stream_monitor.windows.top_n import TopN

T0 = 1_760_000_000_000
FINEST = LADDER[0][0]
TRIED_MS = (10_000, 60_000, 600_000, 3_600_000, 86_400_000)

Row = tuple[int, float]
ages = st.one_of(
    st.integers(0, 120_000), st.integers(0, 4 * 3_600_000), st.integers(0, 3 * 86_400_000)
)
rows = st.lists(
    st.tuples(ages.map(lambda age: T0 - age), st.integers(-100, 100).map(float)),
    min_size=1,
    max_size=60,
)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def pieces(values: list[Any], lengths: list[int]) -> list[list[Any]]:
    out: list[list[Any]] = []
    at = 0
    for n in itertools.cycle(lengths):
        if at >= len(values):
            return out
        out.append(values[at : at + n])
        at += n
    return out


# ---- panes


def add(panes: Panes, part: list[Row]) -> None:
    """As the monitors do: a sum of rows and of values for each pane of the finest width."""
    times, values = np.array([t for t, _ in part]), np.array([v for _, v in part])
    starts, group = np.unique(times // FINEST * FINEST, return_inverse=True)
    panes.add_grouped(
        starts,
        np.stack(
            [np.bincount(group, minlength=len(starts)), np.bincount(group, values, len(starts))],
            axis=1,
        ).astype(float),
    )


def filled(found: list[Row], lengths: list[int], *, look: bool = False) -> Panes:
    panes = Panes(2)
    for part in pieces(found, lengths):
        add(panes, part)
        if look:
            panes.window(panes.watermark_ms, 60_000)
    return panes


def windows(panes: Panes) -> list[Any]:
    return [
        (sums.tolist(), start, end)
        for sums, start, end in (panes.window(panes.watermark_ms, d) for d in TRIED_MS)
    ]


@settings(max_examples=200)
@given(rows, sizes, st.randoms(use_true_random=False), st.booleans())
def test_panes_do_not_depend_on_order_or_pieces(
    found: list[Row], lengths: list[int], rnd: random.Random, look: bool
) -> None:
    """Values are integers, so sums are exact; a look compacts the panes and does not show."""
    shuffled = rnd.sample(found, len(found))
    assert windows(filled(shuffled, lengths, look=look)) == windows(
        filled(sorted(found), [len(found)])
    )


@settings(max_examples=200)
@given(rows, sizes, st.sampled_from(TRIED_MS))
def test_a_window_has_the_rows_between_its_bounds(
    found: list[Row], lengths: list[int], duration: int
) -> None:
    panes = filled(found, lengths)
    newest = max(t for t, _ in found)
    sums, start, end = panes.window(newest, duration)
    inside = [v for t, v in found if start <= t < end]
    assert sums.tolist() == [len(inside), sum(inside)]
    assert end == newest // FINEST * FINEST + FINEST
    assert end - start >= duration
    widest = max((width for width, _ in LADDER if width <= max(duration, FINEST)), default=FINEST)
    assert end - start < duration + 2 * widest, (
        "rounded outwards by less than the panes of that age"
    )


@settings(max_examples=200)
@given(rows, sizes, st.integers(1, 70), st.sampled_from(TRIED_MS))
def test_the_newest_rows_are_those_of_the_fewest_panes(
    found: list[Row], lengths: list[int], least: int, reach: int
) -> None:
    """
    All rows since its start, as many as are wanted or all within reach, and too few without its
    oldest pane.
    """
    panes = filled(found, lengths)
    newest = max(t for t, _ in found)
    sums, start, end = panes.newest(least, newest, reach, slice(0, 1))
    inside = [v for t, v in found if start <= t < end]
    assert sums.tolist() == [len(inside), sum(inside)]
    if len(inside) < least:
        assert len(inside) == panes.window(newest, reach)[0][0], "all within reach"
    else:
        later = [
            t
            for t, _ in found
            if t >= start + panes.spans[: panes.used][panes.starts[: panes.used] == start].item()
        ]
        assert len(later) < least


@settings(max_examples=100)
@given(rows, sizes, st.integers(0, 60))
def test_a_snapshot_of_panes_is_invisible(found: list[Row], lengths: list[int], at: int) -> None:
    whole = filled(found, lengths)
    part = found[: at % len(found) + 1]
    panes = decode(encode(filled(part, lengths)), Panes)
    for piece in pieces(found[len(part) :], lengths):
        add(panes, piece)
    assert windows(panes) == windows(whole)


def test_panes_of_a_month_are_few() -> None:
    panes = Panes(2)
    for start in range(T0, T0 + 2 * HORIZON_MS, 3_600_000):
        add(panes, [(start + i * FINEST, 1.0) for i in range(360)])
    assert panes.used < 2 * HORIZON_MS / 3_600_000
    panes.window(panes.watermark_ms, 60_000)
    assert panes.used <= 30 + 115 + 132 + HORIZON_MS // 3_600_000 + 4, (
        "of 10 s for 5 min, of 1 min for 2 h, of 10 min for a day, of 1 h for the rest"
    )
    assert panes.dropped > 0


# ---- top N

TopRow = tuple[int, int, float]
top_rows = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 2**64 - 1), st.integers(-5, 5).map(float)),
    min_size=1,
    max_size=50,
    unique_by=lambda row: row[:2],
)


def top_of(found: list[TopRow], n: int, lengths: list[int]) -> TopN:
    top = TopN(n, {"value": "<f8"})
    for part in pieces(found, lengths):
        times, ids, values = zip(*part, strict=True)
        top.add(np.array(times), np.array(ids, np.uint64), value=np.array(values))
    return top


def content(top: TopN, n: int | None = None) -> list[TopRow]:
    found = top.rows(n)
    return sorted(
        zip(found["time"].tolist(), found["id"].tolist(), found["value"].tolist(), strict=True)
    )


@settings(max_examples=300)
@given(top_rows, st.integers(1, 20), sizes, st.randoms(use_true_random=False))
def test_a_top_n_is_the_greatest_n_in_any_order_and_pieces(
    found: list[TopRow], n: int, lengths: list[int], rnd: random.Random
) -> None:
    top = top_of(rnd.sample(found, len(found)), n, lengths)
    assert content(top) == sorted(found)[-n:]
    for fewer in (1, n // 2 + 1):
        assert content(top, fewer) == sorted(found)[-fewer:]
    assert (np.diff(top.rows()["time"]) >= 0).all()
    assert top.used <= 2 * n


@settings(max_examples=100)
@given(top_rows, st.integers(1, 20), sizes, st.integers(0, 50))
def test_a_snapshot_of_a_top_n_is_invisible(
    found: list[TopRow], n: int, lengths: list[int], at: int
) -> None:
    part = found[: at % len(found) + 1]
    top = decode(encode(top_of(part, n, lengths)), TopN)
    for time, id_, value in found[len(part) :]:
        top.add(np.array([time]), np.array([id_], np.uint64), value=np.array([value]))
    assert content(top) == content(top_of(found, n, lengths))


@settings(max_examples=100)
@given(top_rows, st.integers(1, 20), sizes, st.integers(0, 50))
def test_a_correction_finds_its_row_while_it_is_there(
    found: list[TopRow], n: int, lengths: list[int], at: int
) -> None:
    top = top_of(found, n, lengths)
    time, id_, _ = row = found[at % len(found)]
    known = row in sorted(found)[-n:]
    assert top.amend(id_, time, value=9.0) or not known
    assert content(top) == sorted(
        (t, i, 9.0 if (t, i) == (time, id_) else v) for t, i, v in sorted(found)[-n:]
    )


@pytest.mark.parametrize("at", [0, 3, 20])
def test_a_column_that_comes_later_has_its_default_before(at: int) -> None:
    top = TopN(10, {"value": "<f8"})
    for i in range(30):
        if i == at:
            top.add_column("late", "<f8", -1.0)
        extra = {"late": np.array([float(i)])} if i >= at else {}
        top.add(np.array([i]), np.array([i], np.uint64), value=np.array([0.0]), **extra)
        assert (
            top.rows()["late"].tolist()
            == [float(t) if t >= at else -1.0 for t in top.rows()["time"].tolist()]
            if i >= at
            else True
        )
