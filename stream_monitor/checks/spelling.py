"""
Checks whether predictions and labels write their ids in the same way.

Rule of the file: the newest labels need not belong to the newest predictions. So ids that are not
shared prove nothing, but ids of another form do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from stream_monitor.errors import UNREADABLE
from stream_monitor.findings import Finding

EXAMPLES_N = 2
SHOWN_MAX = 40
SIGNS = {"uuid": "u", "digits": "9", "lower": "a", "upper": "A"}
FORMS = re.compile(
    r"(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|(?P<digits>[0-9]+)|(?P<lower>[a-z]+)|(?P<upper>[A-Z]+)"
)


class _Identified(Struct):
    event_id: str = ""


def form(event_id: str) -> str:
    """
    The form of an id: which kinds of characters follow each other.

    >>> form("order-17"), form("0042"), form("AB_7"), form("1f0c1f9e-0b1a-4c38-9d4b-2f6f3a1c9b7e")
    ('a-9', '9', 'A_9', 'u')
    """
    return FORMS.sub(lambda found: SIGNS[found.lastgroup or ""], event_id)


def ids_of(values: Iterable[bytes | None]) -> list[str]:
    """The ids of records that have one, the newest last."""
    found = []
    for value in values:
        try:
            event_id = msgspec.json.decode(value or b"", type=_Identified).event_id
        except UNREADABLE:
            continue
        if event_id:
            found.append(event_id)
    return found


def compared(predictions: list[str], labels: list[str]) -> Finding | None:
    """
    Whether the ids of both topics have the same form; None if one topic has no ids.

    >>> compared(["17", "18"], ["order-17"]).status, compared(["17", "18"], ["3"]).status
    ('warn', 'ok')
    """
    if not predictions or not labels:
        return None
    shared = len(set(predictions) & set(labels))
    both = f"predictions such as {_shown(predictions)}, labels such as {_shown(labels)}"
    if shared or {form(i) for i in predictions} & {form(i) for i in labels}:
        return Finding(
            "ids",
            "ok",
            f"{shared} of the newest {len(labels)} labels are of the newest "
            f"{len(predictions)} predictions; {both}",
        )
    return Finding(
        "ids",
        "warn",
        f"ids of labels are of another form than those of predictions: {both}",
        "write the same event_id on both sides: a label meets the prediction whose id it has, "
        "letter by letter",
    )


def _shown(ids: list[str]) -> str:
    return ", ".join(repr(i[:SHOWN_MAX]) for i in list(dict.fromkeys(reversed(ids)))[:EXAMPLES_N])
