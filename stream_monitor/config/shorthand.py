"""
Short forms of values, and guesses at what a person meant.

Rule of the file: short forms are expanded before the settings of a model override the defaults, so
that a bare number and a mapping can be merged.
"""

from __future__ import annotations

import re

from stream_monitor.config.ranges import LESS_IS_BETTER, SIGNALS
from stream_monitor.config.tree import Node
from stream_monitor.times import UNITS_MS

UNIT_WORDS = {
    "msec": "ms",
    "millisecond": "ms",
    "milliseconds": "ms",
    "sec": "s",
    "secs": "s",
    "second": "s",
    "seconds": "s",
    "min": "m",
    "mins": "m",
    "minute": "m",
    "minutes": "m",
    "hr": "h",
    "hrs": "h",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
    **{unit: unit for unit in UNITS_MS},
}


def is_number(node: Node) -> bool:
    """Whether a node is a number and not a boolean."""
    return isinstance(node.value, int | float) and not isinstance(node.value, bool)


def expanded(model: Node) -> Node:
    """Settings of a model, with bare thresholds as mappings and switched-off signals as `off`."""
    if not isinstance(model.value, dict):
        return model
    value = dict(model.value)
    thresholds, drift = value.get("thresholds"), value.get("drift")
    if thresholds is not None and isinstance(thresholds.value, dict):
        value["thresholds"] = Node(
            {metric: _threshold(metric, node) for metric, node in thresholds.value.items()},
            thresholds.where,
            thresholds.path,
        )
    if drift is not None and isinstance(drift.value, dict):
        signals = {
            key: Node("off", node.where, node.path, "off")
            if key in SIGNALS and node.value == {}
            else node
            for key, node in drift.value.items()
        }
        value["drift"] = Node(signals, drift.where, drift.path)
    return Node(value, model.where, model.path)


def _threshold(metric: str, node: Node) -> Node:
    if not is_number(node):
        return node
    bound = "max" if metric in LESS_IS_BETTER else "min"
    return Node(
        {bound: Node(node.value, node.where, (*node.path, bound), node.text)}, node.where, node.path
    )


def duration_text(ms: float) -> str:
    """
    A duration as it is written in the file.

    >>> duration_text(1_500), duration_text(86_400_000), duration_text(0)
    ('1500ms', '1d', '0s')
    """
    if not ms:
        return "0s"
    unit = next(u for u in ("d", "h", "m", "s", "ms") if ms % UNITS_MS[u] == 0)
    return f"{int(ms) // UNITS_MS[unit]}{unit}"


def duration_meant(node: Node, unit: str = "s") -> str | None:
    """
    The duration that was probably meant; a bare number has the `unit` of the default.

    >>> [duration_meant(Node(v, "", (), str(v))) for v in (30, "10 minutes", "1.5h", "1H", "soon")]
    ['30s', '10m', '90m', '1h', None]
    """
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([a-zA-Z]*)\s*", node.text)
    if found is None:
        return None
    word = UNIT_WORDS.get(found[2].lower()) if found[2] else unit
    return duration_text(round(float(found[1]) * UNITS_MS[word])) if word else None


def window_meant(node: Node) -> str | None:
    """
    The window that was probably meant.

    >>> [
    ...     window_meant(Node(v, "", (), str(v)))
    ...     for v in (500, "last 100", "last100", "2 hours", "all")
    ... ]
    ['last_500', 'last_100', 'last_100', '2h', None]
    """
    found = re.fullmatch(r"(?:last)?[ _-]*([0-9]{1,7})", node.text.lower())
    return (
        f"last_{int(found[1])}"
        if found and int(found[1])
        else duration_meant(node)
        if not found
        else None
    )


def number_meant(node: Node) -> str | None:
    """
    The number that was probably meant.

    >>> [number_meant(Node(v, "", (), v)) for v in ("80%", "0,8", "1,000", "'5'", "many")]
    ['0.8', '0.8', '1000', '5', None]
    """
    text = node.text.strip(" '\"")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text):
        return f"{float(text[:-1]) / 100:g}"
    if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+", text):
        return text.replace(",", "")
    if re.fullmatch(r"[0-9]+,[0-9]+", text):
        return text.replace(",", ".")
    return (
        text if isinstance(node.value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) else None
    )
