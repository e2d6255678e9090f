"""
One file and the events its rows become.

Rule of the file: a row gives one event and, in a plain table, at most one label. Defaults (id,
model, time) are given to rows of a plain table only. A column is read as a whole before the first
event: its type, the unit of its times, and whether it can be the field whose name it has.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec

from stream_monitor.errors import UNREADABLE
from stream_monitor.inputs.columns import Told
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.facts import CHECKED, Facts, misfit
from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.json_lines import JsonLinesReader, decoded
from stream_monitor.inputs.merge import Event, in_order
from stream_monitor.inputs.moments import zone_named
from stream_monitor.inputs.options import InputOptions, Mapping, Role, parse_path
from stream_monitor.inputs.readers import Reader
from stream_monitor.inputs.shape import Shaper, as_id
from stream_monitor.inputs.times import DEFAULT_START_MS, TimeColumn, TimeReading

LABEL_COPIES = ("event_id", "model", "version")
_INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
"""Names that pandas gives to an index without one, when it writes it and when it reads it again."""
Parts = Iterator[tuple[Event, Event | None]]
LabelTimes = Callable[[bytes, int], int]
"""Time of a label, given its key and the time that it would have had."""


class _Head(msgspec.Struct):
    """
    Of an event as it should be: what puts it in order, and what a data frame writes as a number.
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

    A row without a usable time has that of the row before it. As long as no row had one, they are
    `interval_ms` apart from 2000-01-01 on.
    """

    def __init__(self, interval_ms: int, first_row: int = 1) -> None:
        self._interval_ms = interval_ms
        self._now_ms = DEFAULT_START_MS + (first_row - 1) * interval_ms
        self.told = False
        """Whether a row had a time of its own."""

    def next(self, time_ms: int | None) -> int:
        """Time of the next row, given its own."""
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

    def __init__(
        self, role: Role, path: str, options: InputOptions, maps: list[Mapping], meter: Meter
    ) -> None:
        stem, self.format, gzipped = parse_path(path)
        self.options = options
        self.model = options.model or stem
        self.role = role
        self.kind = "labels" if role == "labels" else "predictions"
        self.file = InputFile(path, meter, gzipped=gzipped, live=options.live)
        self.shaper = Shaper(role, maps, options.ignore)
        self.zone = zone_named(options.timezone)
        self.reader = self._make_reader()
        self.columns = self.reader.columns()
        """`None`: each row has its own."""
        self._leave_out_index()
        self.times = TimeColumn()
        self.reading = TimeReading(zone=self.zone)
        """How times are read, known after `scan`."""
        self.time_column: str | None = None
        self.misfits: dict[str, str] = {}
        """
        Columns that cannot be the field of their name, and why; they are features.

        Known after `scan`.
        """
        self.ahead: list[int] = []
        """
        Times of rows whose clock is ahead, known after `scan`; they have the time of the row
        before.
        """
        self.rows = 0
        """Known after `scan`."""
        self.first_ms: int | None = None
        """The least time of an event, known after `scan`."""
        self.last_ms: int | None = None
        """The greatest time of an event, known after `scan`."""
        self.label_times: LabelTimes | None = None
        """Where labels take their times from, when not from the file."""
        self.unlabelled = 0
        """
        Rows of the last pass that have a place for a label and no label yet: they are no label
        events.
        """
        self._sorted = True
        self._interval_ms = options.interval_ms
        self._first_row = options.first_row
        self._label_delay_ms = options.label_delay_ms
        self._fast = msgspec.json.Encoder().encode

    def _make_reader(self) -> Reader:
        if self.format == "csv":
            return CsvReader(self.file, self._tell)
        if self.format == "jsonl":
            return JsonLinesReader(self.file, is_table=self.role == "table")
        from stream_monitor.inputs.parquet import ParquetReader

        return ParquetReader(
            self.file,
            CHECKED if self.role == "table" else frozenset(),
            naive_as_text=self.options.timezone != "UTC",
        )

    def _leave_out_index(self) -> None:
        """An index of a data frame is no feature; as a field of the event it may serve."""
        index: frozenset[str] = getattr(self.reader, "index", frozenset())
        features = self.shaper.features(self.columns) if self.columns is not None else {}
        mapped = self.shaper.mapped_columns
        self.index = tuple(
            column
            for column in features
            if (column in index or _INDEX.fullmatch(column)) and column not in mapped
        )
        self.shaper.leave_out(self.index)

    def _tell(self, column: str) -> Told:
        columns = self.columns or ()
        is_name = column in self.shaper.names(columns)
        feature = self.shaper.features(columns).get(column, "")
        kind: Any = self.options.types.get(feature, "auto")
        return Told(
            kind,
            self.options.decimal,
            frozenset(self.options.missing),
            is_name,
            watch=column == "score",
        )

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
        """
        Whether its rows are known to have neither prediction nor score, so that none is a
        prediction event.
        """
        return (
            self.role != "labels"
            and self.fields is not None
            and not any(
                field.partition(".")[0] in {"prediction", "score", "status"}
                for field in self.fields
            )
        )

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that are no field of the event."""
        return self.shaper.plan(self.columns).unused if self.columns is not None else ()

    @property
    def has_times(self) -> bool:
        """Whether a row has a time of its own; known after `scan`."""
        return (
            self.shaper.constant("timestamp") is not None
            or self.times.bounds_ms(self.reading) is not None
        )

    def scan(self) -> None:
        """
        Read the file once: types of columns, what can be a field, whether it is in order, the first
        and the last time.
        """
        constant = self.shaper.constant("timestamp")
        self.time_column = None if constant is not None else self.shaper.time_column(self.columns)
        times = self.times = TimeColumn()
        self.rows = 0
        for value in self.reader.learn(self.time_column):
            self.rows += 1
            times.add(value)
        self._find_misfits()
        if constant is not None:
            first_ms = last_ms = TimeReading(zone=self.zone).ms(constant) or DEFAULT_START_MS
        else:
            self.reading = times.decide(
                self.time_column or "timestamp", self.zone, self.options.day_first
            )
            if getattr(self.reader, "has_typed_times", False):
                self.reading = self.reading._replace(unit="milliseconds")
            self._sorted = times.in_order(self.reading)
            bounds = times.bounds_ms(self.reading)
            if bounds and (
                ahead := times.ahead(self.reading, self.rows, time.time_ns() // 1_000_000)
            ):
                bounds = bounds[0], ahead[0]
                self.reading, self._sorted = self.reading._replace(latest_ms=ahead[0]), False
                self.ahead = ahead[1]
            start_ms = DEFAULT_START_MS + (self._first_row - 1) * self._interval_ms
            first_ms, last_ms = bounds or (
                start_ms + self._interval_ms,
                start_ms + self.rows * self._interval_ms,
            )
            if bounds and times.missing + times.unreadable and not self._sorted:
                first_ms = min(first_ms, start_ms)
        if self.rows:
            self._bound(first_ms, last_ms)

    def _bound(self, first_ms: int, last_ms: int) -> None:
        has_labels = self.role == "table" and (
            self.columns is None or "label" in self.shaper.plan(self.columns).fields
        )
        self.first_ms, self.last_ms = (
            first_ms,
            last_ms + self._label_delay_ms if has_labels else last_ms,
        )

    def _find_misfits(self) -> None:
        """
        Take columns from fields that they cannot be; only in a plain table, where a name may be one
        by chance.
        """
        if self.role != "table":
            return
        mapped = self.shaper.mapped_columns
        for field in sorted(CHECKED):
            facts: Facts | None = (
                self.reader.facts(field)
                if field not in mapped and field not in self.shaper.mapped_fields
                else None
            )
            why = misfit(field, facts) if facts is not None else None
            if why is not None:
                self.misfits[field] = why
        self.shaper.take_from_fields(self.misfits)
        if self.options.fill_prediction and self.lacks_prediction:
            self.shaper.fill("prediction", 0)

    def events(self) -> Generator[Event]:
        """All events in order: (time, predictions first, order in the file)."""
        if not self._sorted or self.label_times is not None:
            yield from in_order(
                event for pair in self._parts() for event in pair if event is not None
            )
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
        self.unlabelled = 0
        if (
            isinstance(self.reader, JsonLinesReader)
            and not self.shaper.changes
            and self.label_times is None
        ):
            return self._untouched(self.reader)
        return self._shaped()

    def _clock(self, first_row: int = 1) -> Clock:
        clock = Clock(self._interval_ms, first_row)
        if self.ahead:
            clock.next(self.first_ms)  # the first row may be one of them
        return clock

    def _untouched(self, reader: JsonLinesReader) -> Parts:
        """Lines as they are, where they are events; only time and names are looked at."""
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
                yield (
                    (
                        kind,
                        line,
                        head.event_id.encode("utf-8", "replace"),
                        clock.next(reading.ms(head.timestamp)),
                    ),
                    None,
                )
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
        """The time of an event; what the event says of it becomes what the decoder reads."""
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
        """Rows become events."""
        clock = self._clock(self._first_row)
        kind, table, shape = self.kind, self.role == "table", self.shaper.event
        for number, row in enumerate(self.reader.rows(), self._first_row):
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
        """Whether a row has a place for a label and no label yet, which is counted."""
        lacks = (
            self.role != "predictions"
            and event.get("label") is None
            and "label" in self.shaper.plan(tuple(row)).fields
        )
        self.unlabelled += lacks
        return lacks

    def _encode(self, event: dict[str, Any]) -> bytes:
        if self.reader.infinite:  # the fast encoder would write null for it
            return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "replace"
            )
        return self._fast(event)

    def _default(
        self, event: dict[str, Any], row: dict[str, Any], number: int, time_ms: int | None
    ) -> None:
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
        return (
            "labels",
            self._encode({**fields, "label": value, "timestamp": time_ms}),
            key,
            time_ms,
        )


def _key(event_id: Any) -> bytes:
    return event_id.encode("utf-8", "replace") if isinstance(event_id, str) else b""
