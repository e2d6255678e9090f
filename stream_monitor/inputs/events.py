"""
Turns files into one stream of events.

Rule of the file: a file is read once to learn (types of CSV columns, whether it is in order, the
last time), and once for its events; a live stdin only once. Files in order are merged as a stream.
A file that is not in order is sorted in runs that wait in a temporary file (`merge.in_order`). A
live stdin keeps its own order. Labels of a plain table wait in memory for `label_delay_ms` of the
table's time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Self

from stream_monitor.errors import InputError
from stream_monitor.inputs.files import Meter
from stream_monitor.inputs.meetings import Meetings, give_times_to_labels, meetings_of
from stream_monitor.inputs.merge import Event, merge
from stream_monitor.inputs.notes import notes_of
from stream_monitor.inputs.options import (
    InputOptions,
    Mapping,
    did_you_mean,
    is_field,
    parse_files,
    parse_maps,
)
from stream_monitor.inputs.shape import check_ignored, listed
from stream_monitor.inputs.sources import Source


class EventStream(Iterator[Event]):
    """
    Events of the input: `(kind, value, key, time in ms)`, with the kind `predictions` or `labels`,
    in the order (time, predictions first, order in the file).

    Iterate once. `scan` runs before the first event if it was not called. Use it as a context
    manager, or call `close`.
    """

    def __init__(self, sources: list[Source], meter: Meter) -> None:
        self.notes: list[str] = []
        """Sentences for the person who gave the input: how it is read. Complete after `scan`."""
        self._sources = sources
        self._meter = meter
        self._events: Generator[Event] | None = None
        self._scanned = False

    @property
    def total_bytes(self) -> int:
        """Number of bytes that will be read in all passes together; 0 while unknown (stdin)."""
        return self._meter.total_bytes

    @property
    def read_bytes(self) -> int:
        """Number of bytes that were read."""
        return self._meter.read_bytes

    @property
    def live(self) -> bool:
        """Whether events come from a stdin that is read as it arrives."""
        return any(source.file.live for source in self._sources)

    @property
    def lacks_prediction(self) -> bool:
        """Whether rows of a file are known to have neither prediction nor score."""
        return any(source.lacks_prediction for source in self._sources)

    @property
    def last_ms(self) -> int | None:
        """
        The greatest time of all events, known after `scan`; `None` for an empty or live input.
        """
        times_ms = [source.last_ms for source in self._sources if source.last_ms is not None]
        return max(times_ms, default=None)

    @property
    def first_ms(self) -> int | None:
        """The least time of all events, known after `scan`; `None` for an empty or live input."""
        times_ms = [source.first_ms for source in self._sources if source.first_ms is not None]
        return min(times_ms, default=None)

    @property
    def has_times(self) -> bool:
        """Whether predictions have times of their own, known after `scan`."""
        return all(source.has_times for source in self._sources if source.role != "labels")

    def scan(self) -> Self:
        """
        Read the files once, to learn types, order and the last time.

        Raises
        ------
        InputError
            A file cannot be read to its end.
        """
        if not self._scanned:
            for source in self._sources:
                if not source.file.live:
                    source.scan()
                    self.notes += notes_of(source)
            self.notes += give_times_to_labels(self._sources)
            self._scanned = True
        return self

    def __next__(self) -> Event:
        if self._events is None:
            self.scan()
            self._events = self._in_order()
        return next(self._events)

    def _in_order(self) -> Generator[Event]:
        streams = [source.events() for source in self._sources]
        return merge(*streams) if len(streams) > 1 else streams[0]

    def again(self) -> Iterator[Event]:
        """All events once more, or once before; not for a live input."""
        self.scan()
        self._meter.total_bytes += sum(source.file.size_bytes for source in self._sources)
        return self._in_order()

    @property
    def unlabelled(self) -> int:
        """Rows of the last pass with an empty label."""
        return sum(source.unlabelled for source in self._sources)

    def column_of(self, field: str) -> str | None:
        """The column of a plain table from which a field is read."""
        source = self._sources[0]
        if source.role != "table" or source.columns is None:
            return None
        return next(
            (column for name, column, _ in source.shaper.plan(source.columns).top if name == field),
            None,
        )

    def meetings(self) -> Meetings:
        """
        How labels and predictions of the input match, found by reading it once more; not for a live
        input.
        """
        return meetings_of(self._in_order())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and remove temporary ones."""
        # A thread may be waiting in the generator of a live input, for ever.
        if self._events is not None and not self.live:
            self._events.close()
        for source in self._sources:
            source.file.close()


def open_events(
    options: InputOptions, on_progress: Callable[[int, int], None] | None = None
) -> EventStream:
    """
    Open predictions and labels.

    Parameters
    ----------
    options : InputOptions
        Files and how to read them.
    on_progress : callable, optional
        Called now and then with the bytes read and all bytes, also while scanning.

    Returns
    -------
    EventStream
        An iterator of `(kind, value, key, time in ms)`.

    Raises
    ------
    InputError
        The options contradict each other, a file does not exist or lacks a column; while
        iterating: a file cannot be read to its end.
    """
    meter = Meter(on_progress)
    maps = parse_maps(options.maps)
    sources = [Source(role, path, options, maps, meter) for role, path in parse_files(options)]
    _check_maps(maps, sources)
    for source in sources:
        source.check()
    known = [source.columns for source in sources]
    if all(columns is not None for columns in known):
        check_ignored(options.ignore, [column for columns in known for column in columns or ()])
    meter.read_bytes = 0
    meter.total_bytes = sum(source.reader.passes * source.file.size_bytes for source in sources)
    return EventStream(sources, meter)


def _check_maps(maps: list[Mapping], sources: list[Source]) -> None:
    """Check that each map fits at least one file."""
    for mapping in maps:
        fitting = [source for source in sources if is_field(mapping.field, source.role)]
        if not fitting:
            raise InputError(
                f"{mapping}: {sources[0].file.name} holds {sources[0].kind}, which have no "
                f"field {mapping.field!r}"
            )
        if mapping.column is None or any(
            source.columns is None or mapping.column in source.columns for source in fitting
        ):
            continue
        columns = fitting[0].columns or ()
        raise InputError(
            f"{mapping}: {fitting[0].file.name} has no column "
            f"{mapping.column!r}.{did_you_mean(mapping.column, list(columns))} It has: "
            f"{listed(columns)}"
        )
