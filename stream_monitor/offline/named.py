"""
Ids of the events that the alerts of a replay name: a file has them at hand, the log of a worker has
not.

Rule of the file: bounded, and alerts are changed in nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stream_monitor.verdicts import Out

KEYS_MAX = 50_000
"""Newest events of a kind whose ids are known."""
ID_MAX = 64
"""Characters of an id that are shown."""


def places_in(evidence: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records that the evidence of an alert names."""
    for contributor in evidence.get("contributors", ()):
        if "first" in contributor:
            yield contributor["first"]
    yield from evidence.get("examples", ())


class Ids:
    """
    Ids of the newest events, by kind and place in their input.

    Examples
    --------
    >>> ids = Ids()
    >>> ids.add("labels", [b"a1", b"a2"])
    >>> place = {"topic": "labels", "partition": 0, "offset": 1}
    >>> alert = Out("alerts", b"", msgspec.json.encode({"evidence": {"examples": [place]}}))
    >>> msgspec.json.decode(ids.named(alert).value)["evidence"]["examples"]
    [{'topic': 'labels', 'partition': 0, 'offset': 1, 'event_id': 'a2'}]
    """

    def __init__(self) -> None:
        self._keys: dict[str, deque[bytes]] = {}
        self._ends: dict[str, int] = {}

    def add(self, kind: str, keys: Iterable[Any]) -> None:
        """Events come, in the order of their offsets; a key that is no bytes is no id."""
        known = self._keys.setdefault(kind, deque(maxlen=KEYS_MAX))
        new = [key if isinstance(key, bytes) else b"" for key in keys]
        known.extend(new)
        self._ends[kind] = self._ends.get(kind, 0) + len(new)

    def _id(self, kind: str, offset: int) -> str:
        """Empty if it is not known, or the event has none."""
        known = self._keys.get(kind, deque())
        at = offset - self._ends.get(kind, 0)
        return known[at].decode("utf-8", "replace")[:ID_MAX] if -len(known) <= at < 0 else ""

    def named(self, out: Out) -> Out:
        """An alert, with the ids of the events that it names."""
        if out.topic != "alerts":
            return out
        alert = msgspec.json.decode(out.value)
        found = [
            (place, event_id)
            for place in places_in(alert["evidence"])
            if (event_id := self._id(place["topic"], place["offset"]))
        ]
        for place, event_id in found:
            place["event_id"] = event_id
        return out._replace(value=msgspec.json.encode(alert)) if found else out
