"""
Turns the rows of one file into events, each with its label if it has one.

Rule of the file: a row gives one event and, in a plain table, at most one label, in the order of
the file. Only rows of a plain table get defaults (id, model, time). A row that cannot be used is
passed on unchanged, so that the decoder of events refuses it with a message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from stream_monitor.errors import UNREADABLE
from stream_monitor.inputs.json_lines import JsonLinesReader, decoded
from stream_monitor.inputs.merge import Event
from stream_monitor.inputs.options import Role
from stream_monitor.inputs.readers import Reader
from stream_monitor.inputs.shape import Shaper, as_id
from stream_monitor.inputs.times import DEFAULT_START_MS, TimeReading

LABEL_COPIES = ("event_id", "model", "version")
"""Fields that a label takes from the event of its row."""
Parts = Iterator[tuple[Event, Event | None]]
LabelTimes = Callable[[bytes, int], int]
"""Time of a label, from its key and the time that it would otherwise have."""


class Defaults(NamedTuple):
    """Values for a row that does not have its own."""

    model: str
    first_row: int
    """The number of the first row, which becomes its id."""
    interval_ms: int
    """Time between rows without times, ms."""
    label_delay_ms: int
    """Time from a row to its label, ms."""


class _Head(msgspec.Struct):
    """
    Fields of a line that is already an event: those that decide its order, and those that a data
    frame may write as a number. A line that does not decode as this is read field by field.
    """

    event_id: str
    timestamp: int | str | None = None
    model: str | None = None
    version: str | None = None
    variant: str | None = None
    unit: str | None = None
    segments: dict[str, str] | None = None
    label: msgspec.Raw = msgspec.Raw()


class Clock:
    """
    Times of rows in their order.

    A row without a usable time gets the time of the row before it. Until the first usable time,
    rows are `interval_ms` apart from 2000-01-01 on.
    """

    def __init__(self, interval_ms: int, first_row: int = 1) -> None:
        self._interval_ms = interval_ms
        self._now_ms = DEFAULT_START_MS + (first_row - 1) * interval_ms
        self.told = False
        """Whether a row had a time of its own."""

    def next(self, time_ms: int | None) -> int:
        """Time of the next row, from its own time."""
        if time_ms is not None:
            self._now_ms, self.told = time_ms, True
        elif not self.told:
            self._now_ms += self._interval_ms
        return self._now_ms


class RowEvents:
    """
    One pass over the rows of a file.

    Parameters
    ----------
    role : str
        Role of the file.
    reader : Reader
    shaper : Shaper
        Turns columns into fields.
    reading : TimeReading
        How times are read.
    defaults : Defaults
    begin_ms : int, optional
        Time of rows before the first with a usable time, if there may be such rows.
    label_times : callable, optional
        Source of the times of labels, if they are not in the file.
    """

    def __init__(
        self,
        role: Role,
        reader: Reader,
        shaper: Shaper,
        reading: TimeReading,
        defaults: Defaults,
        begin_ms: int | None = None,
        label_times: LabelTimes | None = None,
    ) -> None:
        self.role = role
        self.kind = kind_of(role)
        self.reader, self.shaper, self.reading = reader, shaper, reading
        self.defaults, self.begin_ms, self.label_times = defaults, begin_ms, label_times
        self.unlabelled = 0
        """Number of rows so far with an empty label; they give no label events."""
        self._fast = msgspec.json.Encoder().encode

    def parts(self) -> Parts:
        """Rows as events with their labels, in the order of the file."""
        if (
            isinstance(self.reader, JsonLinesReader)
            and not self.shaper.changes
            and self.label_times is None
        ):
            return self._untouched(self.reader)
        return self._shaped()

    def _clock(self, first_row: int = 1) -> Clock:
        clock = Clock(self.defaults.interval_ms, first_row)
        if self.begin_ms is not None:
            clock.next(self.begin_ms)
        return clock

    def _untouched(self, reader: JsonLinesReader) -> Parts:
        """Unchanged lines that are events already; only time and names are read."""
        decode = msgspec.json.Decoder(_Head).decode
        clock = self._clock()
        kind, reading = self.kind, self.reading
        for line in reader.lines():
            try:
                head = decode(line)
            except UNREADABLE:
                head = None
            if head is not None and kind == "labels" and bytes(head.label) == b"null":
                self.unlabelled += 1
                clock.next(reading.ms(head.timestamp))
                continue
            if (
                head is not None
                and head.event_id == as_id(head.event_id)
                and reading.event_value(head.timestamp) is head.timestamp
                and not reading.is_ahead(head.timestamp)
            ):
                key = head.event_id.encode("utf-8", "replace")
                yield (kind, line, key, clock.next(reading.ms(head.timestamp))), None
                continue
            row = decoded(line)
            if row is None:
                yield (kind, line, b"", clock.next(None)), None
                continue
            event = self.shaper.mend(row)
            time_ms = clock.next(self._take_time(event))
            if self._lacks_label(event, row):
                continue
            value = line if event == row else self._encode(event)
            yield (kind, value, _key(event.get("event_id")), time_ms), None

    def _take_time(self, event: dict[str, Any]) -> int | None:
        """The time of an event; its field becomes a value that the decoder reads."""
        value = event.get("timestamp")
        if value is None:
            return None
        if self.reading.is_ahead(value):
            del event["timestamp"]
            return None
        time_ms = self.reading.ms(value)
        event["timestamp"] = self.reading.event_value(value)
        return time_ms

    def _shaped(self) -> Parts:
        """Rows whose columns become fields of events."""
        clock = self._clock(self.defaults.first_row)
        kind, table, shape = self.kind, self.role == "table", self.shaper.event
        for number, row in enumerate(self.reader.rows(), self.defaults.first_row):
            if isinstance(row, bytes):
                yield (kind, row, b"", clock.next(None)), None
                continue
            event = shape(row)
            time_ms = clock.next(self._take_time(event))
            if not table:
                if self._lacks_label(event, row):
                    continue
                key = _key(event.get("event_id"))
                if self.label_times is not None:
                    time_ms = event["timestamp"] = self.label_times(key, time_ms)
                yield (kind, self._encode(event), key, time_ms), None
                continue
            self._default(event, row, number, None if clock.told else time_ms)
            self._lacks_label(event, row)
            value = event.pop("label", None)
            key = _key(event["event_id"]) if "event_id" in event else b""
            yield (
                (kind, self._encode(event), key, time_ms),
                None if value is None else self._label(event, value, key, time_ms),
            )

    def _lacks_label(self, event: dict[str, Any], row: dict[str, Any]) -> bool:
        """Whether the label of a row is empty; counts it."""
        lacks = (
            self.role != "predictions"
            and event.get("label") is None
            and "label" in self.shaper.plan(tuple(row)).fields
        )
        self.unlabelled += lacks
        return lacks

    def _encode(self, event: dict[str, Any]) -> bytes:
        if self.reader.infinite:  # the fast encoder would write null for an infinity
            return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "replace"
            )
        return self._fast(event)

    def _default(
        self, event: dict[str, Any], row: dict[str, Any], number: int, time_ms: int | None
    ) -> None:
        """Give an event of a plain table the fields for which the table has no column."""
        fields = self.shaper.plan(tuple(row)).fields
        if "event_id" not in fields:
            event["event_id"] = str(number)
        if "model" not in fields:
            event["model"] = self.defaults.model
        if "timestamp" not in fields and time_ms is not None:
            event["timestamp"] = time_ms

    def _label(self, event: dict[str, Any], value: Any, key: bytes, time_ms: int) -> Event:
        time_ms += self.defaults.label_delay_ms
        fields = {field: event[field] for field in LABEL_COPIES if field in event}
        label = self._encode({**fields, "label": value, "timestamp": time_ms})
        return "labels", label, key, time_ms


def kind_of(role: Role) -> str:
    """The kind of the events that rows of a file become; a plain table also gives labels."""
    return "labels" if role == "labels" else "predictions"


def _key(event_id: Any) -> bytes:
    return event_id.encode("utf-8", "replace") if isinstance(event_id, str) else b""
