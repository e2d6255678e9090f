"""
Nodes that contain one value: numbers, texts, booleans, secrets, durations, windows.

Rule of the file: each function returns the value as `Settings` needs it, or `BAD` after it reported
the problem.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from stream_monitor.config import shorthand
from stream_monitor.config.forms import FORMS, LAST_N_MAX, OFF, WINDOW_MS_MAX
from stream_monitor.config.problems import BAD, Problems
from stream_monitor.config.rule import Rule
from stream_monitor.config.tree import Node
from stream_monitor.frozen import Secret
from stream_monitor.times import UNITS_MS

NUMBER_MAX = sys.float_info.max


def scalar(problems: Problems, hint: Any, node: Node, rule: Rule) -> Any:
    """A number, text, secret or boolean, by the type of its key."""
    value = node.value
    if hint is bool:
        return (
            value
            if isinstance(value, bool)
            else problems.add(
                node,
                "true or false is expected",
                {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(node.text.lower()),
            )
        )
    if hint is str:
        return text_of(problems, node, rule)
    if hint is Secret:
        return _secret(problems, node)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= NUMBER_MAX
        or (hint is int and value != math.floor(value))
    ):
        return problems.add(
            node,
            "a whole number is expected" if hint is int else "a number is expected",
            shorthand.number_meant(node),
        )
    made = hint(value)
    return made if _within(problems, node, made, rule, str) else BAD


def text_of(problems: Problems, node: Node, rule: Rule) -> Any:
    """A text in the form of its rule; a number is used as it was written."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return problems.add(
            node,
            "a text is expected; put it in quotes"
            if isinstance(value, bool)
            else "a text is expected",
        )
    text = node.text  # as written: 0123 stays 0123
    form = FORMS.get(rule.form)
    if form is not None and not re.fullmatch(form.pattern, text):
        return problems.add(node, f"{form.expected} is expected")
    return text


def _secret(problems: Problems, node: Node) -> Any:
    text = text_of(problems, node, Rule(""))
    if text is BAD:
        return BAD
    # Bytes that are not UTF-8 are not printable; an encoding error would show the secret.
    if not text.isprintable():
        return problems.add(node, "has characters that cannot be typed (a line break within?)")
    return Secret(text)


def duration(
    problems: Problems, node: Node, rule: Rule, default: Any, *, optional: bool = False
) -> Any:
    """Milliseconds of a duration such as `50ms 2s 10m 24h 30d`."""
    if optional and (node.value is None or node.value is False or node.value == OFF):
        return None
    found = (
        re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", str(node.value))
        if isinstance(node.value, str)
        else None
    )
    if found is None:
        also = " (or off)" if optional else ""
        return problems.add(
            node,
            f"{FORMS['duration'].expected}{also} is expected",
            shorthand.duration_meant(
                node, "ms" if isinstance(default, int) and default < 1_000 else "s"
            ),
        )
    ms = int(found[1]) * UNITS_MS[found[2]]
    return ms if _within(problems, node, ms, rule, shorthand.duration_text) else BAD


def window(problems: Problems, node: Node) -> Any:
    """A window: `last_N` or a duration."""
    if node.value is None and node.path[-1] == "window":
        return None
    text = str(node.value) if isinstance(node.value, str) else ""
    last = re.fullmatch(r"last_([0-9]{1,9})", text)
    time = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if last and 1 <= int(last[1]) <= LAST_N_MAX:
        return f"last_{int(last[1])}"
    if time and 1 <= int(time[1]) * UNITS_MS[time[2]] <= WINDOW_MS_MAX:
        return text
    return problems.add(
        node, f"a window is {FORMS['window'].expected}", shorthand.window_meant(node)
    )


def category(problems: Problems, node: Node, switches: dict[bool, str]) -> Any:
    """
    Text of a value that events may contain as a number or a boolean: 1.0 becomes `1`.

    `switches` has the texts of true and false.
    """
    value = node.value
    if isinstance(value, bool):
        return switches[value]
    if isinstance(value, int | float):
        return (
            repr(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
        )
    return (
        value
        if isinstance(value, str)
        else problems.add(node, "a text, a number, true or false is expected")
    )


def _within(
    problems: Problems, node: Node, value: float, rule: Rule, show: Callable[[Any], str]
) -> bool:
    """Whether a number is within the bounds of its rule; `show` writes a bound as the file does."""
    if rule.low is not None and value < rule.low:
        problems.add(node, f"must be at least {show(rule.low)}")
    elif rule.above is not None and value <= rule.above:
        problems.add(node, f"must be more than {show(rule.above)}")
    elif rule.high is not None and value > rule.high:
        problems.add(node, f"must be at most {show(rule.high)}")
    else:
        return True
    return False
