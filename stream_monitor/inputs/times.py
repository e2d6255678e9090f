"""
Columns of times in input files.

Rule of the file: the whole column decides how it is read (`TimeColumn.decide`), and that is
reported. A value that cannot be read stays unchanged, so that the decoder of events refuses it with
a message. A time without a zone is in the given zone, UTC by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from heapq import heappush, heapreplace
from typing import Any, NamedTuple

from stream_monitor.errors import InputError
from stream_monitor.inputs.moments import (
    EPOCH,
    MILLISECOND,
    SLASHED,
    TIME_MAX_MS,
    iso_moment,
    parse_moment,
    parse_time_ms,
)
from stream_monitor.times import DAY_MS

DEFAULT_START_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: the first time of a table without timestamps."""

GAP_MS, AHEAD_SHARE = 180 * DAY_MS, 0.01
"""
Rows come from a clock that is ahead if they are at most this share, and later than all others by
this gap and by the whole span of the others. A quarter may be a pause.
"""
NEWEST_N = 1_000
"""Number of greatest times that are remembered."""

UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")
_PER_SECOND = dict(zip(UNITS, (1, 10**3, 10**6, 10**9), strict=True))
_UPTO = dict(zip(UNITS, (1e11, 1e14, 1e17, float("inf")), strict=True))
"""
Numbers below it are in the unit: 1e11 seconds are in the year 5138, 1e11 milliseconds in 1973.
"""
DAY_NUMBERS = range(19_000_101, 22_000_101)
"""
Whole numbers that may be days written as YYYYMMDD. (A float is looked up in a range one by one.)
"""


def as_number(value: Any) -> int | float | None:
    """A time that is a number, also one in text; None for other values."""
    if isinstance(value, str):
        if "_" in value:
            return None
        try:
            number: int | float = (
                int(value) if value.strip().lstrip("-").isdigit() else float(value)
            )
        except ValueError:
            return None
    elif type(value) in (int, float):
        number = value
    else:
        return None
    return number if abs(number) < float("inf") else None


class TimeReading(NamedTuple):
    """How the times of one column are read."""

    unit: str = "milliseconds"
    """Unit of numbers; `days` are whole numbers such as 20251009."""
    zone: tzinfo = UTC
    day_first: bool = False
    """Whether dates with slashes begin with the day."""
    latest_ms: int | None = None
    """Later times come from a clock that is ahead; None if no time does."""

    def ms(self, value: Any) -> int | None:
        """
        Epoch milliseconds; None for what is no time.

        Examples
        --------
        >>> reading = TimeReading("seconds")
        >>> (
        ...     reading.ms(1_700_000_000.5),
        ...     reading.ms("2023-11-14 22:13:20"),
        ...     reading.ms("14.11.2023 22:13"),
        ...     reading.ms("soon"),
        ... )
        (1700000000500, 1700000000000, 1699999980000, None)
        """
        number = as_number(value)
        if number is not None:
            found = self._of_number(number)
        else:
            moment = (
                parse_moment(value, day_first=self.day_first) if isinstance(value, str) else None
            )
            if moment is None:
                return None
            try:
                found = (
                    (moment if moment.tzinfo else moment.replace(tzinfo=self.zone)) - EPOCH
                ) // MILLISECOND
            except OverflowError:
                return None
        return found if found is not None and abs(found) <= TIME_MAX_MS else None

    def _of_number(self, number: float) -> int | None:
        if self.unit == "days":
            is_day = type(number) is int and number in DAY_NUMBERS
            moment = iso_moment(str(number)) if is_day else None
            return (moment.replace(tzinfo=self.zone) - EPOCH) // MILLISECOND if moment else None
        per_second = _PER_SECOND[self.unit]
        if per_second >= 1_000:
            return int(number // (per_second // 1_000))
        return round(number * 1_000)

    def is_ahead(self, value: Any) -> bool:
        """Whether this time comes from a clock that is ahead."""
        return self.latest_ms is not None and (self.ms(value) or 0) > self.latest_ms

    def event_value(self, value: Any) -> Any:
        """
        The value for the event: unchanged if it is already valid there, otherwise milliseconds,
        otherwise a text that is refused.

        Examples
        --------
        >>> reading = TimeReading()
        >>> (
        ...     reading.event_value(1_700_000_000_000),
        ...     reading.event_value("1700000000000"),
        ...     reading.event_value(17 * 10**15),
        ... )
        (1700000000000, 1700000000000, '17000000000000000')
        """
        found = self.ms(value)
        if found is None:
            # A number that is no time becomes text, which the decoder refuses; as a number it
            # would count as a time that is too far ahead.
            return str(value) if type(value) in (int, float) else value
        is_rfc3339 = isinstance(value, str) and "T" in value and parse_time_ms(value) is not None
        return value if is_rfc3339 or (type(value) is int and value == found) else found


class TimeColumn:
    """
    The form of the times of a column, from its first value to its last.

    Examples
    --------
    >>> times = TimeColumn()
    >>> for value in (1_760_000_000_000_000, 1_760_000_000_500_000):
    ...     times.add(value)
    >>> times.decide("timestamp", UTC).unit
    'microseconds'
    """

    def __init__(self) -> None:
        self.numbers = dict.fromkeys((*UNITS, "days"), 0)
        self.example: Any = None
        self.naive = self.aware = self.missing = self.unreadable = 0
        self.naive_example = self.unreadable_example = ""
        self._bounds: dict[str, tuple[Any, Any]] = {}
        """Least and greatest value of each form."""
        self._newest: dict[str, list[Any]] = {}
        """The greatest values of each form, as a heap."""
        self._last: Any = None
        self._ascending = True
        self._day_first = self._month_first = self._slashed = 0

    def add(self, value: Any) -> None:
        """Learn from a value."""
        if value is None or value == "":
            self.missing += 1
            self._ascending = self._ascending and bool(self._bounds)
            return
        number = as_number(value)
        if number is not None:
            self.example = value if self.example is None else self.example
            self.numbers["days"] += type(number) is int and number in DAY_NUMBERS
            unit = next(unit for unit in UNITS if abs(number) < _UPTO[unit])
            self.numbers[unit] += 1
            self._note(unit, number)
        elif isinstance(value, str):
            self._add_text(value)
        else:
            self.unreadable += 1

    def _add_text(self, text: str) -> None:
        found = SLASHED.fullmatch(text.strip())
        if found:
            self._slashed += 1
            self._day_first += int(found[1]) > 12
            self._month_first += int(found[2]) > 12
        kinds = ("day first", "month first") if found else ("naive",)
        moments = {
            kind: moment
            for kind in kinds
            if (moment := parse_moment(text, day_first=kind == "day first")) is not None
        }
        if not moments:
            self.unreadable_example = self.unreadable_example or text
            self.unreadable += 1
            return
        for kind, moment in moments.items():
            if moment.tzinfo is None:
                self._note(kind, moment.replace(tzinfo=UTC))
            else:
                self._note("aware", moment)
        is_naive = next(iter(moments.values())).tzinfo is None
        self.naive += is_naive
        self.aware += not is_naive
        if is_naive:
            self.naive_example = self.naive_example or text

    def _note(self, kind: str, value: Any) -> None:
        low, high = self._bounds.get(kind, (value, value))
        self._bounds[kind] = min(low, value), max(high, value)
        newest = self._newest.setdefault(kind, [])
        if len(newest) < NEWEST_N:
            heappush(newest, value)
        elif value > newest[0]:
            heapreplace(newest, value)
        if self._last is not None:
            alike = isinstance(value, datetime) == isinstance(self._last, datetime)
            self._ascending = self._ascending and alike and value >= self._last
        self._last = value

    def in_order(self, reading: TimeReading) -> bool:
        """Whether no time is before the one that it follows; False if that is not certain."""
        sure = not self._slashed and not (self.naive and (self.aware or reading.zone is not UTC))
        return self._ascending and sure

    def _read(self, reading: TimeReading, values: Mapping[str, Iterable[Any]]) -> list[int]:
        """Times of values by their form, in milliseconds."""
        unread = "month first" if reading.day_first else "day first"
        found = []
        for kind in values.keys() - {unread}:
            for value in values[kind]:
                if isinstance(value, datetime):
                    moment = value if kind == "aware" else value.replace(tzinfo=reading.zone)
                    time_ms: int | None = (moment - EPOCH) // MILLISECOND
                else:
                    time_ms = reading.ms(value)
                if time_ms is not None and abs(time_ms) <= TIME_MAX_MS:
                    found.append(time_ms)
        return found

    def bounds_ms(self, reading: TimeReading) -> tuple[int, int] | None:
        """The least and the greatest time; None if there is none."""
        found = self._read(reading, self._bounds)
        return (min(found), max(found)) if found else None

    def ahead(self, reading: TimeReading, rows: int, now_ms: int) -> tuple[int, list[int]] | None:
        """
        The last time before those of the few rows whose clock is ahead, and those times: later than
        now, or half a year after all others.

        If most rows of a file are in the future, none is ahead.
        """
        newest, bounds = sorted(self._read(reading, self._newest)), self.bounds_ms(reading)
        if bounds is None:
            return None
        future = [t for t in newest if t > now_ms + DAY_MS]
        if future and len(future) < min(rows / 2, len(newest)):
            return newest[-len(future) - 1], future
        for at in range(max(1, len(newest) - int(rows * AHEAD_SHARE)), len(newest)):
            before = newest[at - 1]
            if newest[at] - before > max(GAP_MS, before - bounds[0]):
                return before, newest[at:]
        return None

    def decide(self, column: str, zone: tzinfo, day_first: bool | None = None) -> TimeReading:
        """
        Decide how the whole column is read.

        Raises
        ------
        InputError
            Dates such as 3/4/2025 may mean two days, and nothing decides which.
        """
        units = {unit: self.numbers[unit] for unit in UNITS}
        unit = max(units, key=lambda u: units[u]) if any(units.values()) else "milliseconds"
        if 0 < self.numbers["days"] == sum(units.values()):
            unit = "days"
        if day_first is None and self._slashed:
            if not self._day_first and not self._month_first:
                raise InputError(
                    f"column {column!r}: {self.naive_example!r} may mean two days, and no "
                    "date of the column tells which is the day; "
                    "say it with --dates day-first or --dates month-first"
                )
            day_first = self._day_first >= self._month_first
        return TimeReading(unit, zone, bool(day_first))

    def notes(self, column: str, reading: TimeReading, zone_name: str) -> Iterator[str]:
        """Sentences about how the times were read."""
        if any(self.numbers.values()) and reading.unit != "milliseconds":
            what = "days, YYYYMMDD" if reading.unit == "days" else f"{reading.unit} since 1970"
            yield f"{column}: numbers such as {self.example} are read as {what}"
        if self.naive:
            order = f", {'day' if reading.day_first else 'month'} first" if self._slashed else ""
            yield (
                f"{column}: times without a zone, such as {self.naive_example!r}, are read as "
                f"{zone_name}{order} (--timezone)"
            )
        if self.missing:
            yield (
                f"{column}: {self.missing:,} row{'s have' if self.missing > 1 else ' has'} no "
                f"time and take{'' if self.missing > 1 else 's'} that of the row before"
            )
        if self.unreadable:
            yield (
                f"{column}: {self.unreadable:,} value{'s are' if self.unreadable > 1 else ' is'} "
                f"no time, such as {self.unreadable_example!r}; these rows are refused"
            )
