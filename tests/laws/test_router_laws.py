"""
Routers: the table of an experiment moves as little as can be, and keys fall on it by chance alone.
"""

from __future__ import annotations

import json
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest

from stream_monitor.client import SLOTS, Ranges, Router, point, reassign, shares
from stream_monitor.client.allocation import checked

ARMS = ["control", "b", "c", "d"]


@st.composite
def weights(draw, arms=ARMS):
    """Whole hundredths of a percent that sum up to 100, as floats in percent."""
    names = draw(st.permutations(arms).map(lambda a: a[: max(2, draw(st.integers(2, len(arms))))]))
    cuts = sorted(draw(st.integers(0, SLOTS)) for _ in names[1:])
    slots = [b - a for a, b in zip([0, *cuts], [*cuts, SLOTS], strict=True)]
    return {name: n / 100 for name, n in zip(names, slots, strict=True)}


def owners(table):
    """The arm of each slot."""
    out: list[str] = []
    for end, arm in table:
        out += [arm] * (end - len(out))
    return out


@given(weights())
def test_shares_are_the_weights_exactly(given):
    slots = shares(given)
    assert sum(slots.values()) == SLOTS
    assert list(slots) == list(given)
    assert all(Fraction(n, 100) == Fraction(str(given[name])) for name, n in slots.items())
    # parts of any sum are the same parts
    assert shares({name: 3 * n for name, n in slots.items()}) == slots
    assert shares({name: round(w / 100, 6) for name, w in given.items()}) == slots


@given(st.lists(weights(), min_size=1, max_size=6))
@settings(max_examples=60)
def test_a_change_moves_the_least_possible(changes):
    table: Ranges = []
    before = dict.fromkeys(ARMS, 0)
    for step, new in enumerate(changes):
        was, table = owners(table), reassign(table, new, control="control")
        now = owners(table)
        want = {arm: shares(new).get(arm, 0) for arm in ARMS}
        assert {arm: now.count(arm) for arm in ARMS} == want
        assert checked(json.loads(json.dumps(table))) == table
        assert all(a[1] != b[1] for a, b in pairwise(table))
        if step:
            moved = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
            assert len(moved) == sum(abs(want[arm] - before[arm]) for arm in ARMS) // 2
            assert all(want[a] < before[a] and want[b] > before[b] for a, b in moved)
        own = [[i for i, arm in enumerate(x) if arm == "control"] for x in (was, now)]
        if step and want["control"] <= before["control"]:  # it keeps its lowest
            assert own[1] == own[0][: len(own[1])]
        before = want


@given(st.lists(st.integers(0, SLOTS), min_size=1, max_size=8), st.integers(0, SLOTS))
@settings(max_examples=60)
def test_of_two_arms_the_table_knows_no_history(path, last):
    """What grows and shrinks again keeps its oldest keys."""
    table: Ranges = []
    for n in [*path, last]:
        table = reassign(table, {"control": (SLOTS - n) / 100, "b": n / 100})
    assert table == reassign([], {"control": (SLOTS - last) / 100, "b": last / 100})
    assert len(table) <= 2


def test_tables_stay_short_whatever_happens():
    """The event carries them: a controller that changes weights every hour must not bloat it."""
    rng = np.random.default_rng(5)
    table: Ranges = []
    longest = 0
    for _ in range(300):
        slots = rng.multinomial(SLOTS, rng.dirichlet(np.ones(4)))
        table = reassign(table, dict(zip(ARMS, (slots / 100).tolist(), strict=True)))
        longest = max(longest, len(table))
    assert longest < 200


@given(st.text(min_size=1).filter(lambda t: "\0" not in t), st.text(), weights())
def test_a_router_is_the_words_of_the_algorithm(experiment, key, given):
    """With a list in place of ranges, and integers in place of shifts."""
    table = reassign([], given)
    data = experiment.encode() + b"\0" + key.encode()
    p = int(sha256(data).hexdigest()[:16], 16) // 2**11
    router = Router(experiment, table)
    assert point(experiment, key) == p
    assert router(key) == router(key.encode()) == owners(table)[p * SLOTS // 2**53]
    assert router.fields(key) == {"variant": router(key), "unit": key}


@given(st.text(st.characters(categories=["Cs", "Lu", "Nd"])))
def test_any_text_has_an_arm_and_a_unit_that_json_can_carry(key):
    router = Router("x", reassign([], {"control": 50, "b": 50}))
    fields = router.fields(key)
    assert json.loads(json.dumps(fields).encode()) == fields
    assert fields["unit"].encode().decode() == fields["unit"]
    assert router(fields["unit"]) == fields["variant"]  # the event says what was hashed


KEYS = {
    "numbers": lambda i: i,
    "steps of 100": lambda i: 100 * i,
    "users": lambda i: f"user-{i}",
    "hexadecimal": lambda i: f"{i:032x}",
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_are_in_balance_whatever_they_look_like(kind):
    slots = [point("balance", KEYS[kind](i)) * 100 >> 53 for i in range(20_000)]
    assert chisquare(np.bincount(slots, minlength=100)).pvalue > 0.001


def test_p_values_of_the_balance_are_uniform_over_experiments():
    """Neither too uneven nor too even: a hash, and no design."""
    p = [
        chisquare(
            np.bincount([point(f"e{e}", i) * 20 >> 53 for i in range(2_000)], minlength=20)
        ).pvalue
        for e in range(60)
    ]
    assert kstest(p, "uniform").pvalue > 0.001


def test_two_experiments_are_independent():
    table = np.zeros((10, 10))
    for i in range(20_000):
        table[point("one", i) * 10 >> 53, point("two", i) * 10 >> 53] += 1
    assert chi2_contingency(table).pvalue > 0.001


def test_a_split_that_is_not_salted_is_found_out_by_the_same_test():
    table = np.zeros((10, 10))
    for i in range(20_000):
        table[point("one", i) * 10 >> 53, point("one", i) * 10 >> 53] += 1
    assert chi2_contingency(table).pvalue < 1e-9


def test_a_ramp_moves_the_keys_that_it_must():
    keys = [f"user-{i}" for i in range(20_000)]
    table = reassign([], {"control": 99, "b": 1})
    routed = [list(map(Router("ramp", table), keys))]
    path = [5, 25, 50, 25, 5, 1]
    for b in path:
        table = reassign(table, {"control": 100 - b, "b": b})
        routed.append(list(map(Router("ramp", table), keys)))
    for before, after, a, b in zip(routed, routed[1:], [1, *path], path, strict=False):
        moved = np.mean([x != y for x, y in zip(before, after, strict=True)])
        assert moved == pytest.approx(abs(a - b) / 100, abs=0.01)
        assert not (b > a and any(x == "b" != y for x, y in zip(before, after, strict=True)))
    assert routed[0] == routed[-1]  # the first 1 % are the last
