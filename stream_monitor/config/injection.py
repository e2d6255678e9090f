"""
Reads the file of `replay --inject`.

Rule of the file: it is checked as `monitor.yaml` is: every problem at once, with file, line, value
and a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream_monitor.config.checker import Checker
from stream_monitor.config.injection_rules import NEEDED, USED
from stream_monitor.config.injection_settings import Drift, Injection
from stream_monitor.config.problems import BAD, Problems
from stream_monitor.config.tree import TEXT_MAX_BYTES, Node, read
from stream_monitor.errors import ConfigError
from stream_monitor.inputs.times import TimeReading
from stream_monitor.times import UNITS_MS

ALWAYS = frozenset({"kind", "only", "model", "at", "for"})
ROWS = re.compile(r"[0-9]{1,12}")
SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]+)?) ?%")
DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")


def load_injection(path: str) -> Injection:
    """
    The drifts of a file.

    Raises
    ------
    ConfigError
        With every problem.
    """
    try:
        with Path(path).open("rb") as stream:
            text = stream.read(TEXT_MAX_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8"]) from None
    except OSError as e:
        raise ConfigError([f"{path}: cannot be read: {e.strerror or e}"]) from None
    return parse_injection(text, path)


def parse_injection(text: str, name: str = "drift.yaml") -> Injection:
    """
    The drifts of the text of a file.

    Raises
    ------
    ConfigError
        With every problem.

    Examples
    --------
    >>> parse_injection("drifts: [{kind: scale, field: latency_ms, by: 3, at: 60%}]").drifts[0].by
    3.0
    """
    lines: list[str] = []
    root = read(text, name, lines)
    if root is None:
        raise ConfigError([f"{name}: is empty; it needs `drifts: [{{kind: shift, …}}]`"])
    checker = Checker(lines)
    found = checker.struct(Injection, root)
    if found is not BAD and not lines:
        _relations(found, root, checker.problems)
    if lines:
        raise ConfigError(lines)
    made: Injection = found
    return made


def _relations(injection: Injection, root: Node, problems: Problems) -> None:
    if not injection.drifts:
        problems.add(root.find("drifts"), "at least one drift is expected", got=False)
    nodes: Any = root.find("drifts").value
    for drift, node in zip(injection.drifts, nodes, strict=True):
        keys: Any = node.value
        _keys(drift, node, keys, problems)
        _place(drift, node, keys, problems, repeats=injection.repeats)


def _keys(drift: Drift, node: Node, keys: Mapping[str, Node], problems: Problems) -> None:
    """Report keys that a kind of drift needs, and those that mean nothing to it."""
    used = USED[drift.kind]
    for key in NEEDED[drift.kind]:
        if key not in keys:
            problems.add(node, f"{drift.kind} needs {key}", got=False)
    for key, item in keys.items():
        if key not in used | ALWAYS:
            known = ", ".join(sorted(used)) or "no key of its own"
            problems.add(item, f"means nothing to {drift.kind}, which has {known}", got=False)
    if drift.kind == "swap" and "levels" in keys and len(set(drift.levels)) != 2:
        problems.add(keys["levels"], "two different levels are expected", got=False)


def _place(
    drift: Drift, node: Node, keys: Mapping[str, Node], problems: Problems, *, repeats: int
) -> None:
    if repeats and drift.at is not None:
        problems.add(keys["at"], "with `repeats` places are random: remove it", got=False)
    if not repeats and drift.at is None:
        problems.add(node, "at is missing: a row, a time or a share such as 60%", got=False)
    if drift.at is not None and begin_of(drift.at) is None:
        problems.add(keys["at"], "a row, a time or a share such as 60% is expected")
    if drift.lasts is not None and length_of(drift.lasts) is None:
        problems.add(keys["for"], "a number of rows or a duration such as 2h is expected")


def begin_of(text: str) -> tuple[str, float] | None:
    """
    The beginning of a drift, as `row`, `share` or `time` (ms).

    >>> begin_of("12000"), begin_of("60%"), begin_of("2023-11-14T22:13:20Z"), begin_of("soon")
    (('row', 12000.0), ('share', 0.6), ('time', 1700000000000.0), None)
    """
    if ROWS.fullmatch(text):
        return "row", float(text)
    if share := SHARE.fullmatch(text):
        return "share", float(share[1]) / 100
    time_ms = TimeReading().ms(text)
    return None if time_ms is None else ("time", float(time_ms))


def length_of(text: str) -> tuple[str, int] | None:
    """
    The length of a drift, as `rows` or `ms`.

    >>> length_of("5000"), length_of("2h"), length_of("long")
    (('rows', 5000), ('ms', 7200000), None)
    """
    if ROWS.fullmatch(text):
        return "rows", int(text)
    found = DURATION.fullmatch(text)
    return None if found is None else ("ms", int(found[1]) * UNITS_MS[found[2]])
