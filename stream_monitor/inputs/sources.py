"""
One file and the events its rows become.

Rule of the file: a row gives one event and, in a plain table, at most one label. Defaults (id, model, time) are given to rows of a plain table only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.merge import Event, in_order
from stream_monitor.inputs.options import InputOptions, Mapping, Role, parse_path
from stream_monitor.inputs.readers import CsvReader, JsonLinesReader, Reader
from stream_monitor.inputs.shape import Shaper, as_timestamp
from stream_monitor.inputs.times import DEFAULT_START_MS, parse_time_ms

LABEL_COPIES = ("event_id", "model", "version")
Parts = Iterator[tuple[Event, Event | None]]


class _Head(msgspec.Struct):
    timestamp: Any = None
    event_id: Any = None


class Clock:
    """
    Times of rows in their order.

    A row without a usable time has that of the row before it. As long as no row had one, they are `interval_ms` apart from 2000-01-01 on.
    """

    def __init__(self, interval_ms: int, first_row: int = 1) -> None:
        self._interval_ms = interval_ms
        self._now_ms = DEFAULT_START_MS + (first_row - 1) * interval_ms
        self.told = False
        """Whether a row had a time of its own."""

    def next(self, timestamp: object) -> int:
        """Time of the next row, given what it says itself."""
        time_ms = parse_time_ms(timestamp)
        if time_ms is not None:
            self._now_ms, self.told = time_ms, True
        elif not self.told:
            self._now_ms += self._interval_ms
        return self._now_ms


class Source:
    """
    One file of the input.

    Raises
    ------
    InputError
        It is not there, or lacks a column that is needed.
    """

    def __init__(self, role: Role, path: str, options: InputOptions, maps: list[Mapping], meter: Meter) -> None:
        stem, self.format, gzipped = parse_path(path)
        self.model = options.model or stem
        self.role = role
        self.kind = "labels" if role == "labels" else "predictions"
        self.file = InputFile(path, meter, gzipped=gzipped, live=options.live)
        self.shaper = Shaper(role, maps, options.ignore)
        self.reader = self._make_reader()
        self.columns = self.reader.columns()
        """`None`: each row has its own."""
        self.first_ms: int | None = None
        """The least time of an event, known after `scan`."""
        self.last_ms: int | None = None
        """The greatest time of an event, known after `scan`."""
        self._sorted = True
        self._interval_ms = options.interval_ms
        self._first_row = options.first_row
        self._label_delay_ms = options.label_delay_ms
        self._encode = msgspec.json.Encoder().encode

    def _make_reader(self) -> Reader:
        if self.format == "csv":
            return CsvReader(self.file)
        if self.format == "jsonl":
            return JsonLinesReader(self.file)
        from stream_monitor.inputs.parquet import ParquetReader

        return ParquetReader(self.file)

    def check(self) -> None:
        """Refuse a header without the columns that are needed."""
        if self.columns is not None:
            self.shaper.check(self.columns, self.file.name)

    @property
    def fields(self) -> frozenset[str] | None:
        """Fields that its columns and constants give; `None`: each row has its own."""
        return self.shaper.plan(self.columns).fields if self.columns is not None else None

    @property
    def lacks_prediction(self) -> bool:
        """Whether its rows are known to have neither prediction nor score, so that none is a prediction event."""
        return self.role != "labels" and self.fields is not None and not any(field.partition(".")[0] in {"prediction", "score", "status"} for field in self.fields)

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that are no field of the event."""
        return self.shaper.plan(self.columns).unused if self.columns is not None else ()

    def scan(self) -> None:
        """Read the file once: types of columns, whether it is in order, the greatest time."""
        clock = Clock(self._interval_ms, self._first_row)
        constant = self.shaper.constant("timestamp")
        first_ms: int | None = None
        last_ms: int | None = None
        for value in self._times():
            time_ms = clock.next(as_timestamp(value) if constant is None else constant)
            if first_ms is None or last_ms is None:
                first_ms = last_ms = time_ms
            elif time_ms > last_ms:
                last_ms = time_ms
            elif time_ms < last_ms:
                self._sorted, first_ms = False, min(first_ms, time_ms)
        self.first_ms = first_ms
        has_labels = self.role == "table" and (self.columns is None or "label" in self.shaper.plan(self.columns).fields)
        self.last_ms = last_ms + self._label_delay_ms if last_ms is not None and has_labels else last_ms

    def _times(self) -> Iterator[Any]:
        if self.columns is not None:
            return self.reader.scan(self.shaper.text_columns(self.columns), self.shaper.time_column(self.columns))
        if "timestamp" not in self.shaper.mapped_fields:
            return self.reader.scan(frozenset(), None)
        return (None if isinstance(row, bytes) else self.shaper.event(row).get("timestamp") for row in self.reader.rows())

    def events(self) -> Generator[Event]:
        """All events in order: (time, predictions first, order in the file)."""
        if not self._sorted:
            yield from in_order(event for pair in self._parts() for event in pair if event is not None)
            return
        waiting: deque[Event] = deque()
        for event, label in self._parts():
            while waiting and waiting[0][3] < event[3]:
                yield waiting.popleft()
            yield event
            if label is not None:
                waiting.append(label)
        yield from waiting

    def _parts(self) -> Parts:
        """Rows as events with their labels, in the order of the file."""
        if isinstance(self.reader, JsonLinesReader) and not self.shaper.changes:
            return self._untouched(self.reader)
        return self._shaped()

    def _untouched(self, reader: JsonLinesReader) -> Parts:
        """Lines as they are; only time and id are looked at."""
        decode = msgspec.json.Decoder(_Head).decode
        clock = Clock(self._interval_ms)
        kind = self.kind
        for line in reader.lines():
            try:
                head = decode(line)
            except msgspec.DecodeError:
                yield (kind, line, b"", clock.next(None)), None
                continue
            yield (kind, line, _key(head.event_id), clock.next(head.timestamp)), None

    def _shaped(self) -> Parts:
        """Rows become events."""
        clock = Clock(self._interval_ms, self._first_row)
        kind, table, encode, shape = self.kind, self.role == "table", self._encode, self.shaper.event
        for number, row in enumerate(self.reader.rows(), self._first_row):
            if isinstance(row, bytes):
                yield (kind, row, b"", clock.next(None)), None
                continue
            event = shape(row)
            time_ms = clock.next(event.get("timestamp"))
            if not table:
                yield (kind, encode(event), _key(event.get("event_id")), time_ms), None
                continue
            self._default(event, row, number, None if clock.told else time_ms)
            value = event.pop("label", None)
            key = _key(event["event_id"]) if "event_id" in event else b""
            yield (kind, encode(event), key, time_ms), None if value is None else self._label(event, value, key, time_ms)

    def _default(self, event: dict[str, Any], row: dict[str, Any], number: int, time_ms: int | None) -> None:
        fields = self.shaper.plan(tuple(row)).fields
        if "event_id" not in fields:
            event["event_id"] = str(number)
        if "model" not in fields:
            event["model"] = self.model
        if "timestamp" not in fields and time_ms is not None:
            event["timestamp"] = time_ms

    def _label(self, event: dict[str, Any], value: Any, key: bytes, time_ms: int) -> Event:
        time_ms += self._label_delay_ms
        fields = {field: event[field] for field in LABEL_COPIES if field in event}
        return "labels", self._encode({**fields, "label": value, "timestamp": time_ms}), key, time_ms


def _key(event_id: Any) -> bytes:
    return event_id.encode("utf-8", "replace") if isinstance(event_id, str) else b""
