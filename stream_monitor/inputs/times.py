"""
Times of events as input files write them.

Rule of the file: only what puts events in order. Whether a timestamp is acceptable is for the decoder of events to say; what cannot be read here is `None`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DEFAULT_START_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: where the time of a table without timestamps begins."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

TIME_MAX_MS = 7_258_118_400_000
"""2200-01-01: a later time is a fault of the data (seconds or nanoseconds taken for milliseconds); it must not put everything else in the past."""


def parse_time_ms(value: object) -> int | None:
    """
    Epoch milliseconds of a timestamp: an integer, or RFC 3339 text with an offset.

    Examples
    --------
    >>> parse_time_ms(1_700_000_000_000), parse_time_ms("2000-01-01T01:00:00.5+01:00"), parse_time_ms("2000-01-01T00:00:00z")
    (1700000000000, 946684800500, 946684800000)
    >>> parse_time_ms("2000-01-01 00:00"), parse_time_ms(True), parse_time_ms(1.7e12), parse_time_ms(None)
    (None, None, None, None)
    """
    if type(value) is int:
        time_ms = value
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value[:-1] + "Z" if value[-1:] == "z" else value)
            if moment.tzinfo is None:
                return None
            time_ms = (moment - EPOCH) // MILLISECOND
        except (ValueError, OverflowError):
            return None
    else:
        return None
    return time_ms if abs(time_ms) <= TIME_MAX_MS else None
