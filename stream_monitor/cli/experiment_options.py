"""
Options of `stream-monitor experiment` as keys of events.

Rule of the file: an error names the option, its text, and what would be right.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.errors import UNREADABLE, InputError


def asked(file: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The experiment of a file, with the options in place of its keys.

    Raises
    ------
    InputError
        The file cannot be read, an option is wrong, or both are missing.

    Examples
    --------
    >>> asked(
    ...     None,
    ...     {
    ...         "name": "x-1",
    ...         "model": "m",
    ...         "arms": ("control=3", "b"),
    ...         "metric": "error",
    ...         "effect": 0.01,
    ...     },
    ... )["arms"]
    [{'name': 'control', 'version': '3'}, {'name': 'b'}]
    """
    given = {} if file is None else _read(file)
    texts = {"experiment": "name", "model": "model", "unit": "unit", "maturity": "maturity"}
    texts["window"] = "window"
    for key, option in (*texts.items(), ("alpha", "alpha"), ("on_rollback", "on_rollback")):
        if options.get(option) is not None:
            given[key] = options[option]
    if options.get("arms"):
        given["arms"] = [_arm(text) for text in options["arms"]]
    if options.get("weights") is not None:
        given["weights"] = weights_of(options["weights"])
    primary = {k: options.get(k) for k in ("metric", "effect", "goal")}
    if any(v is not None for v in primary.values()):
        given["primary"] = dict(given.get("primary") or {}) | {
            k: v for k, v in primary.items() if v is not None
        }
    if options.get("guards"):
        given["guards"] = [_guard(text) for text in options["guards"]]
    if options.get("duration") is not None:
        given["duration"] = [part.strip() for part in options["duration"].split(",")]
    if options.get("steps") is not None:
        text = options["steps"]
        given["steps"] = [_number("--steps", text, part) for part in text.split(",")]
    for key, option in (
        ("model", "--model NAME"),
        ("experiment", "--name NAME"),
        ("arms", "--arm NAME[=VERSION], twice"),
        ("primary", "--metric NAME --effect NUMBER"),
    ):
        if key not in given:
            raise InputError(f"`{key}` is missing: give a FILE with it, or {option}")
    return given


def _read(file: str) -> dict[str, Any]:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        found = msgspec.json.decode(raw)
    except OSError as e:
        raise InputError(f"{file}: cannot be read: {e.strerror or e}") from None
    except UNREADABLE as e:
        raise InputError(f"{file}: is not JSON: {e}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: expected one JSON object with the keys of an experiment")
    return found


def weights_of(text: str) -> dict[str, float]:
    """
    `control=95,b=5` as percent by arm.

    >>> weights_of("control=99.5, b=0.5")
    {'control': 99.5, 'b': 0.5}
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        arm, equals, number = part.strip().rpartition("=")
        if not equals or not arm:
            raise InputError(f"--weights {text}: expected ARM=PERCENT,…, such as control=95,b=5")
        if arm in found:
            raise InputError(f"--weights {text}: {arm} is there twice")
        found[arm] = _number("--weights", text, number.removesuffix("%"))
    return found


def _guard(text: str) -> dict[str, Any]:
    """
    A guard, by the words in which verdicts name it.

    >>> _guard("error=0.005"), _guard("latency_ms above 250")
    ({'metric': 'error', 'effect': 0.005}, {'metric': 'latency_ms', 'above': 250.0})
    >>> _guard("violations race")
    {'metric': 'violations', 'race': True}
    """
    for key in ("above", "below"):
        metric, found, limit = text.rpartition(f" {key} ")
        if found:
            return {"metric": metric, key: _number("--guard", text, limit)}
    if text.endswith(" race"):
        return {"metric": text.removesuffix(" race"), "race": True}
    metric, _, effect = text.rpartition("=")
    return {"metric": metric, "effect": _number("--guard", text, effect)}


def _arm(text: str) -> dict[str, str]:
    name, equals, version = text.partition("=")
    return {"name": name, **({"version": version} if equals else {})}


def _number(option: str, text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise InputError(f"{option} {text}: expected a number, not {number!r}") from None
