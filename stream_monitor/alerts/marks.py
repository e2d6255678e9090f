"""
The marks that people put on alerts: acknowledged, muted, false alarm.

Rule of the file: a mark is a record on `lifecycle`, and the newest of its type counts. An
acknowledgement or a false alarm belongs to the episode that it names by `starts_at`, otherwise to
that in which it was given. A mute belongs to the fingerprint, in every episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import msgspec

from stream_monitor.errors import UNREADABLE
from stream_monitor.times import rfc3339

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MarkType = Literal["acknowledged", "muted", "false_alarm"]


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A record on `lifecycle` about an alert.

    Times are RFC 3339 in UTC. Without `until` the mark ends with the episode.
    """

    type: MarkType
    model: str
    at: str
    fingerprint: str
    starts_at: str | None = None
    """When the episode began."""
    until: str | None = None
    comment: str | None = None
    by: str | None = None

    def encoded(self) -> bytes:
        """The value of the record."""
        return msgspec.json.encode({"schema": 1, **msgspec.to_builtins(self)})


def decoded(value: bytes | str) -> Mark | None:
    """The mark in a record of `lifecycle`; None: it is about something else or cannot be read."""
    try:
        mark = msgspec.json.decode(value, type=Mark)
        for time in (mark.at, mark.until, mark.starts_at):
            if time is not None:
                rfc3339(ms_of(time))
    except UNREADABLE:
        return None
    return mark


def marks_of(events: list[tuple[int, str]]) -> tuple[list[Mark], list[tuple[int, str]]]:
    """
    The marks among events of the log, and the events that are none. A mark that cannot be read is
    left out.

    Parameters
    ----------
    events : list of (place in the record, JSON)
    """
    marks, others = [], []
    for place, text in events:
        if msgspec.json.decode(text, type=_Typed).type not in get_args(MarkType):
            others.append((place, text))
        elif (mark := decoded(text)) is not None:
            marks.append(mark)
    return marks, others


class _Typed(msgspec.Struct):
    """The type of an event of the log."""

    type: str = ""


class Marks:
    """The newest mark of each type, by fingerprint."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], Mark] = {}

    def take(self, value: bytes) -> Mark | None:
        """
        Process a record of `lifecycle`; None if it is about something else, or cannot be read.
        """
        mark = decoded(value)
        if mark is not None:
            self._marks[mark.fingerprint, mark.type] = mark
        return mark

    def of(self, fingerprint: str, starts_at: str, now: datetime) -> Iterator[Mark]:
        """
        The marks in force on an episode that began at `starts_at`.

        Examples
        --------
        >>> marks = Marks()
        >>> _ = marks.take(
        ...     Mark(
        ...         type="acknowledged", model="m", at="2025-01-01T10:00:00Z", fingerprint="f"
        ...     ).encoded()
        ... )
        >>> now = time_of("2025-01-01T12:00:00Z")
        >>> (
        ...     [m.type for m in marks.of("f", "2025-01-01T09:00:00Z", now)],
        ...     list(marks.of("f", "2025-01-01T11:00:00Z", now)),
        ... )
        (['acknowledged'], [])
        """
        for kind in ("acknowledged", "muted", "false_alarm"):
            mark = self._marks.get((fingerprint, kind))
            if (
                mark is not None
                and (mark.until is None or now < time_of(mark.until))
                and (
                    kind == "muted"
                    or (
                        time_of(mark.at) >= time_of(starts_at)
                        if mark.starts_at is None
                        else time_of(mark.starts_at) == time_of(starts_at)
                    )
                )
            ):
                yield mark


def ms_of(text: str) -> int:
    """
    A moment from RFC 3339 text, in ms.

    >>> ms_of("2025-10-09T08:53:20.123Z")
    1760000000123
    """
    return (time_of(text) - EPOCH) // timedelta(milliseconds=1)


def time_of(text: str) -> datetime:
    """
    A moment from RFC 3339 text with an offset.

    Raises
    ------
    ValueError
        The text is not a moment.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        message = f"{text} has no offset"
        raise ValueError(message)
    return time
