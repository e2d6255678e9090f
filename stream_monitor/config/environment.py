"""
Environment variables, which override the file.

Rule of the file: a name is `STREAM_MONITOR_` and the path joined by `__`, in any case. Values are
YAML, but a secret is used unchanged. `…_FILE` names a file that contains the value. Variables that
Kubernetes sets for a Service called stream-monitor are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, NamedTuple, get_args, get_origin

from stream_monitor.config.checker import keys_of
from stream_monitor.config.problems import close_to
from stream_monitor.config.rules import SECRETS, TOP
from stream_monitor.config.tree import Node, Path, read
from stream_monitor.errors import ConfigError
from stream_monitor.frozen import Frozen
from stream_monitor.lifecycle_settings import GIVEN

PREFIX = "STREAM_MONITOR_"
FILE = "_file"
KUBERNETES = re.compile(
    r"([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class Target(NamedTuple):
    """What a variable sets: the path, whether its value is in a file, and its type; or an error."""

    path: Path
    from_file: bool
    hint: Any
    problem: str = ""


def overlay(root: Node, environ: Mapping[str, str], problems: list[str]) -> None:
    """
    Put the variables into the tree; a longer path overrides a shorter one.

    Parameters
    ----------
    root : Node
        A mapping; it is changed.
    environ : mapping
    problems : list of str
        Problems are added to it.
    """
    given: dict[Path, str] = {}
    for variable in sorted(environ, key=lambda name: (name.count("__"), name)):
        rest = variable.removeprefix(PREFIX)
        if not variable.startswith(PREFIX) or variable in GIVEN:
            continue
        if "__" not in rest and KUBERNETES.fullmatch(rest):
            continue
        path, from_file, hint, problem = _target(root, rest.split("__"))
        if problem:
            problems.append(f"{variable}: {problem}")
            continue
        if path in given:
            problems.append(f"{variable}: {given[path]} says the same; give one of them")
            continue
        given[path] = variable
        text = environ[variable]
        if from_file:
            try:
                text = FilePath(text).read_text("utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as e:
                problems.append(
                    f"{variable}: the file cannot be read: "
                    f"{getattr(e, 'strerror', None) or 'it is not UTF-8'}"
                )
                continue
        if not text and from_file and path[-1] in SECRETS:
            # ignoring it would switch off what it protects
            problems.append(f"{variable}: the file is empty")
            continue
        if not text and hint is not str:
            continue  # counts as not set
        node = _node(text, variable, path, problems)
        if node is not None:
            _put(root, path, node, variable)


def _node(text: str, variable: str, path: Path, problems: list[str]) -> Node | None:
    if path[-1] in SECRETS or not text:
        return Node(text, variable, path, text)
    try:
        return read(text, variable, problems, path, numbered=False) or Node(None, variable, path)
    except ConfigError as e:
        problems += e.problems
        return None


def _target(root: Node, parts: list[str]) -> Target:
    """What a variable sets, by the parts of its name."""
    path: list[str] = []
    hint: Any = TOP
    for i, part in enumerate(parts):
        known = (
            list(hint)
            if isinstance(hint, dict)
            else list(keys_of(hint))
            if isinstance(hint, type) and issubclass(hint, Frozen)
            else None
        )
        if known is not None:
            key, last = part.lower(), i == len(parts) - 1
            if key not in known and last and key.endswith(FILE) and key.removesuffix(FILE) in known:
                key = key.removesuffix(FILE)
                return Target(
                    (*path, key),
                    True,
                    hint[key] if isinstance(hint, dict) else keys_of(hint)[key][1],
                )
            if key not in known:
                meant = close_to(key, known)
                under = f" under {'.'.join(path)}" if path else ""
                return Target(
                    (),
                    False,
                    None,
                    f"no such key{under}; "
                    + (
                        f"did you mean '{meant}'?"
                        if meant
                        else f"known are {', '.join(sorted(known))}"
                    ),
                )
            path.append(key)
            hint = hint[key] if isinstance(hint, dict) else keys_of(hint)[key][1]
        elif get_origin(hint) is dict:
            path.append(_name(root.find(*path), part))
            hint = get_args(hint)[1]
        elif hint is Any:
            path.append(part.lower())
        else:
            return Target((), False, None, f"{'.'.join(path)} has no keys")
    return Target(tuple(path), False, hint)


def _name(node: Node, part: str) -> str:
    """
    A name of the user's own: as the file writes it, otherwise as in the variable, in lower case if
    it is all upper case.
    """
    if isinstance(node.value, dict):
        for name in node.value:
            if name.lower() == part.lower():
                return name
    return part.lower() if part == part.upper() else part


def _put(root: Node, path: Path, node: Node, variable: str) -> None:
    at = root
    for i, key in enumerate(path[:-1]):
        assert isinstance(at.value, dict)
        below = at.value.get(key)
        if below is None or not isinstance(below.value, dict):
            below = at.value[key] = Node({}, variable, path[: i + 1])
        at = below
    assert isinstance(at.value, dict)
    at.value[path[-1]] = node
