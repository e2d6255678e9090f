"""
Laws of rules on single values: patterns mean what `re` says, and take linear time.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.errors import InputError
from stream_monitor.events.pattern import Pattern

ATOMS = st.sampled_from(["a", "b", r"\d", r"\.", "[a-c]", "[^a]", ".", r"\w", " ", "é", "{", "]"])
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{,2}", "{1,}", "*?", "{a"])
EXPRESSIONS = st.recursive(
    st.tuples(ATOMS, REPEATS).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, REPEATS).map(lambda both: f"({both[0]}){both[1]}"),
    ),
    max_leaves=8,
)
TEXTS = st.text(alphabet="abc1. \né{]", max_size=8)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, st.lists(TEXTS, min_size=1, max_size=12))
def test_a_pattern_matches_what_re_matches(expression: str, texts: list[str]) -> None:
    pattern = Pattern(expression)
    for text in texts:
        assert pattern.matches(text) == bool(re.fullmatch(expression, text)), (expression, text)


@pytest.mark.parametrize(
    "expression",
    [r"(a)\1", "(?=a)b", "(?i)a", r"\bword", "a++", "(?>a)", r"\Aa", "a^b", "$a", "(?#x)a"],
)
def test_what_has_no_bounded_time_is_refused(expression: str) -> None:
    with pytest.raises(InputError, match="cannot be matched in bounded time"):
        Pattern(expression)


@pytest.mark.parametrize("expression", ["(", "[a", "a**", "x{3,1}", "((a{99}){99}){99}", "a" * 501])
def test_what_is_no_expression_or_too_large_is_refused(expression: str) -> None:
    with pytest.raises(InputError):
        Pattern(expression)


@pytest.mark.parametrize("expression", ["(a+)+b", "(a|a)*b", "(.*,){9}x", "(a?){200}a{200}b"])
def test_no_text_stops_a_worker(expression: str) -> None:
    """`re` takes 2^n steps for these; 256 characters are the longest text of an event."""
    pattern, began = Pattern(expression), time.process_time()
    assert not pattern.matches("a" * 256)
    assert time.process_time() - began < 2.0


def test_steps_are_forgotten_and_made_again() -> None:
    pattern = Pattern(r".\d+")
    for code in range(0x4E00, 0x4E00 + 21_000):
        assert pattern.matches(f"{chr(code)}1")
    assert len(pattern._steps) <= 20_010
    assert pattern.matches("x22")
    assert not pattern.matches("xx")
