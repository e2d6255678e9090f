"""
Messages about errors in `monitor.yaml` and in the environment.

Rule of the file: a message says where, which key, what is wrong, which value was given (unless it
is secret), and what was probably meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from stream_monitor.config import rules
from stream_monitor.config.tree import Node

BAD: Any = object()
"""Marks a value that cannot be used and whose problem was reported."""


def close_to(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, 1, 0.55)
    return by_lower[found[0]] if found else None


def shown(node: Node) -> str:
    """The given value, for a message."""
    last = node.path[-1] if node.path else ""
    if (
        last in rules.SECRETS
        or (node.path[:2] in rules.SHOWN and last not in rules.SHOWN[node.path[:2]])
        or ("bootstrap_servers" in node.path and "@" in node.text)
    ):
        return "a value that is not shown"
    if isinstance(node.value, dict | list):
        return "a mapping" if isinstance(node.value, dict) else "a list"
    if isinstance(node.value, str):
        return repr(node.value if len(node.value) <= 60 else node.value[:57] + "...")
    return "nothing" if node.value is None else node.text[:60]


def named(path: tuple[str, ...]) -> str:
    """
    A path for a message.

    If the path may contain a secret, only that part of a key is shown that looks like a key,
    because `password:hush` is a key in YAML.

    >>> named(("kafka", "security", "password:hush")), named(("models", "a:b"))
    ('kafka.security.password…', 'models.a:b')
    """
    if path[:2] in rules.SHOWN:
        path = path[:2] + tuple(
            word if word == key else f"{word}…"
            for key in path[2:]
            for word in re.findall(r"^[A-Za-z_]*", key)
        )
    return ".".join(path) or "the file"


class Problems:
    """
    Collects problems as lines of text.

    Parameters
    ----------
    lines : list of str
        Problems so far; new ones are added to it.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def add(self, node: Node, what: str, meant: str | None = None, *, got: bool = True) -> Any:
        """Add a problem, once however often the node is checked; returns `BAD`."""
        given = f" (got {shown(node)})" if got else ""
        hint = f"; did you mean '{meant}'?" if meant else ""
        line = f"{node.where}: {named(node.path)}: {what}{given}{hint}"
        if line not in self.lines:
            self.lines.append(line)
        return BAD

    def is_known(self, key: str, node: Node, known: Iterable[str]) -> bool:
        """Whether a key is known; reports a problem if not."""
        if key in known:
            return True
        meant = close_to(key, known)
        self.add(
            node,
            "unknown key" if meant else f"unknown key; known are {', '.join(sorted(known))}",
            meant,
            got=False,
        )
        return False
