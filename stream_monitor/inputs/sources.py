"""
One file of the input: its columns, and its events in order.

Rule of the file: a column is read as a whole before the first event: its type, the unit of its
times, and whether it can be the field whose name it has. `row_events` turns rows into events.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Generator
from typing import Any

from stream_monitor.inputs.columns import Told
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.facts import CHECKED, Facts, misfit
from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.merge import Event, in_order
from stream_monitor.inputs.moments import zone_named
from stream_monitor.inputs.options import InputOptions, Mapping, Role, parse_path
from stream_monitor.inputs.readers import Reader
from stream_monitor.inputs.row_events import Defaults, LabelTimes, RowEvents, kind_of
from stream_monitor.inputs.shape import Shaper
from stream_monitor.inputs.times import DEFAULT_START_MS, TimeColumn, TimeReading

INDEX = re.compile(r"__index_level_\d+__|Unnamed: \d+")
"""Names that pandas gives to an unnamed index when it writes it, and when it reads it again."""


class Source:
    """
    One file of the input.

    Raises
    ------
    InputError
        The file does not exist, or lacks a required column.
    """

    def __init__(
        self, role: Role, path: str, options: InputOptions, maps: list[Mapping], meter: Meter
    ) -> None:
        stem, self.format, gzipped = parse_path(path)
        self.options = options
        self.role = role
        self.kind = kind_of(role)
        self._defaults = Defaults(
            options.model or stem, options.first_row, options.interval_ms, options.label_delay_ms
        )
        self.file = InputFile(path, meter, gzipped=gzipped, live=options.live)
        self.shaper = Shaper(role, maps, options.ignore)
        self.zone = zone_named(options.timezone)
        self.reader = self._make_reader()
        self.columns = self.reader.columns()
        """Columns of the file; `None` if each row has its own."""
        self._leave_out_index()
        self.times = TimeColumn()
        self.reading = TimeReading(zone=self.zone)
        """How times are read; known after `scan`."""
        self.time_column: str | None = None
        self.misfits: dict[str, str] = {}
        """
        Columns that cannot be the field of their name, and why; they are features.

        Known after `scan`.
        """
        self.ahead: list[int] = []
        """
        Times of rows whose clock is ahead; known after `scan`. They get the time of the row before.
        """
        self.rows = 0
        """Number of rows; known after `scan`."""
        self.first_ms: int | None = None
        """The least time of an event, known after `scan`."""
        self.last_ms: int | None = None
        """The greatest time of an event, known after `scan`."""
        self.label_times: LabelTimes | None = None
        """Source of the times of labels, if they are not in the file."""
        self._sorted = True
        self._rows: RowEvents | None = None
        """The last pass over the file."""

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
        """
        Leave out the index of a data frame: it is not a feature, but it may serve as a field of the
        event.
        """
        index: frozenset[str] = getattr(self.reader, "index", frozenset())
        features = self.shaper.features(self.columns) if self.columns is not None else {}
        mapped = self.shaper.mapped_columns
        self.index = tuple(
            column
            for column in features
            if (column in index or INDEX.fullmatch(column)) and column not in mapped
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
        """Refuse a header without the required columns."""
        if self.columns is not None:
            self.shaper.check(self.columns, self.file.name)

    @property
    def fields(self) -> frozenset[str] | None:
        """Fields that the columns and constants give; `None` if each row has its own."""
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
        """Columns that are not fields of the event."""
        return self.shaper.plan(self.columns).unused if self.columns is not None else ()

    @property
    def has_times(self) -> bool:
        """Whether a row has a time of its own; known after `scan`."""
        return (
            self.shaper.constant("timestamp") is not None
            or self.times.bounds_ms(self.reading) is not None
        )

    @property
    def unlabelled(self) -> int:
        """Rows of the last pass with an empty label."""
        return self._rows.unlabelled if self._rows is not None else 0

    def scan(self) -> None:
        """
        Read the file once: types of columns, which column can be which field, whether it is in
        order, the first and the last time.
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
            first_row, interval_ms = self._defaults.first_row, self._defaults.interval_ms
            start_ms = DEFAULT_START_MS + (first_row - 1) * interval_ms
            first_ms, last_ms = bounds or (
                start_ms + interval_ms,
                start_ms + self.rows * interval_ms,
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
            last_ms + self._defaults.label_delay_ms if has_labels else last_ms,
        )

    def _find_misfits(self) -> None:
        """
        Make features of columns that cannot be the field of their name; only in a plain table,
        where a name may be a coincidence.
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
        rows = self._rows = RowEvents(
            self.role,
            self.reader,
            self.shaper,
            self.reading,
            self._defaults,
            # the clock of the first rows may be ahead, and no row is before them
            begin_ms=self.first_ms if self.ahead else None,
            label_times=self.label_times,
        )
        if not self._sorted or self.label_times is not None:
            yield from in_order(
                event for pair in rows.parts() for event in pair if event is not None
            )
            return
        waiting: deque[Event] = deque()
        for event, label in rows.parts():
            while waiting and waiting[0][3] < event[3]:
                yield waiting.popleft()
            yield event
            if label is not None:
                waiting.append(label)
        yield from waiting
