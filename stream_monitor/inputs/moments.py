"""
Moments in text: the forms of events, and those of data frames, databases and spreadsheets.

Rule of the file: one value at a time; a value that is not a moment gives None. What only the whole
column shows (the order of day and month, the zone) is an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from stream_monitor.errors import InputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

TIME_MAX_MS = 7_258_118_400_000
"""
2200-01-01. A later time is an error in the data; it must not move everything else into the past.
"""

_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(.*)", re.DOTALL)
SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(.*)", re.DOTALL)
"""Dates with slashes, which begin with the day or with the month."""
_YEAR_FIRST = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(.*)", re.DOTALL)
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_DAY_NAMED = re.compile(
    r"(?:[A-Za-z]{3,9},?\s+)?(\d{1,2})[-\s./]?([A-Za-z]{3,9})[-\s.,/]*(\d{4})[:,\s]*(.*)", re.DOTALL
)
_NAMED_DAY = re.compile(
    r"(?:[A-Za-z]{3,9},?\s+)?([A-Za-z]{3,9})[-\s.]+(\d{1,2}),?\s+(\d{4})[,\s]*(.*)", re.DOTALL
)
"""9-Oct-2025, 09OCT2025:08:15, Thu, 09 Oct 2025; October 9, 2025."""
_OFFSET = re.compile(r"[+-]\d\d:?\d\d")
_HALF_DAY = re.compile(r"(\d{1,2}):(\d\d)(:\d\d)?\s*([AP])\.?M\.?", re.IGNORECASE)
_ZONE_NAME = re.compile(r"\s*(UTC|GMT|z)$")


def zone_named(name: str) -> tzinfo:
    """
    A zone of the IANA database, or an offset.

    Raises
    ------
    InputError
        No zone has that name.

    Examples
    --------
    >>> (
    ...     zone_named("UTC"),
    ...     zone_named("+02:00"),
    ...     zone_named("Europe/Berlin").utcoffset(datetime(2025, 7, 1)).seconds,
    ... )
    (datetime.timezone.utc, datetime.timezone(datetime.timedelta(seconds=7200)), 7200)
    """
    if name.upper() in {"UTC", "Z", "GMT"}:
        return UTC
    if _OFFSET.fullmatch(name):
        found = datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo
        assert found is not None
        return found
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise InputError(
            f"--timezone {name}: there is no such zone; write it like Europe/Berlin, UTC or +02:00"
        ) from None


def parse_time_ms(value: object) -> int | None:
    """
    Epoch milliseconds of a timestamp of an event: an integer, or RFC 3339 text with an offset.

    Examples
    --------
    >>> (
    ...     parse_time_ms(1_700_000_000_000),
    ...     parse_time_ms("2000-01-01T01:00:00.5+01:00"),
    ...     parse_time_ms("2000-01-01T00:00:00z"),
    ... )
    (1700000000000, 946684800500, 946684800000)
    >>> (
    ...     parse_time_ms("2000-01-01 00:00"),
    ...     parse_time_ms(True),
    ...     parse_time_ms(1.7e12),
    ...     parse_time_ms(None),
    ... )
    (None, None, None, None)
    """
    if type(value) is int:
        time_ms = value
    elif isinstance(value, str):
        moment = iso_moment(value)
        if moment is None or moment.tzinfo is None:
            return None
        time_ms = (moment - EPOCH) // MILLISECOND
    else:
        return None
    return time_ms if abs(time_ms) <= TIME_MAX_MS else None


def iso_moment(text: str) -> datetime | None:
    """A moment in ISO 8601; None for other text."""
    try:
        # `fromisoformat` accepts Z, but not z, which RFC 3339 also allows
        return datetime.fromisoformat(text[:-1] + "Z" if text[-1:] == "z" else text)
    except (ValueError, OverflowError):
        return None


def parse_moment(text: str, *, day_first: bool = False) -> datetime | None:
    """
    A moment in the forms of data frames, databases and spreadsheets.

    Examples
    --------
    >>> [
    ...     parse_moment(t).isoformat()
    ...     for t in (
    ...         "2025-10-09 08:15:00.5",
    ...         "2025/10/9",
    ...         "9.10.2025 08:15",
    ...         "2025-10-09 08:15 UTC",
    ...     )
    ... ]
    ['2025-10-09T08:15:00.500000', '2025-10-09T00:00:00', '2025-10-09T08:15:00', '2025-10-09T08:15:00+00:00']
    >>> parse_moment("10/9/2025 8:15 PM").isoformat(), parse_moment("10/9/2025", day_first=True).day
    ('2025-10-09T20:15:00', 10)
    >>> {
    ...     parse_moment(t).isoformat()
    ...     for t in (
    ...         "09-Oct-2025 08:15",
    ...         "09OCT2025:08:15:00",
    ...         "Thu, 9 Oct 2025 08:15:00",
    ...         "October 9, 2025 8:15 AM",
    ...     )
    ... }
    {'2025-10-09T08:15:00'}
    """  # noqa: E501
    text = text.strip()
    moment = iso_moment(text)
    if moment is not None:
        return moment
    if named := _month_named(text):
        year, month, day, rest = named
    elif not text[:1].isdigit():
        return None
    elif found := _DOTTED.fullmatch(text):
        day, month, year, rest = found.groups()
    elif found := SLASHED.fullmatch(text):
        first, second, year, rest = found.groups()
        day, month = (first, second) if day_first else (second, first)
    elif found := _YEAR_FIRST.fullmatch(text):
        year, month, day, rest = found.groups()
    else:
        year, month, day, rest = text[:4], text[5:7], text[8:10], text[10:]
    rest = _ZONE_NAME.sub("Z", rest.strip())
    if half := _HALF_DAY.fullmatch(rest):
        rest = f"{int(half[1]) % 12 + 12 * (half[4].upper() == 'P'):02}:{half[2]}{half[3] or ''}"
    if len(rest.partition(":")[0]) == 1:
        rest = "0" + rest
    return iso_moment(f"{year}-{month:0>2}-{day:0>2}" + (f"T{rest.lstrip('T')}" if rest else ""))


def _month_named(text: str) -> tuple[str, str, str, str] | None:
    """Year, month, day and the rest of a date with the English name of its month."""
    if found := _DAY_NAMED.fullmatch(text):
        day, name, year, rest = found.groups()
    elif found := _NAMED_DAY.fullmatch(text):
        name, day, year, rest = found.groups()
    else:
        return None
    month = next((i for i, full in enumerate(_MONTHS, 1) if full.startswith(name.lower())), None)
    return None if month is None else (year, str(month), day, rest)
