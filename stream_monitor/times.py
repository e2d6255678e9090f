"""
Times as people and JSON write them.

Rule of the file: inside the program a time is milliseconds since 1970, and a length of time is
milliseconds. Only input and output have other forms.
"""

from __future__ import annotations

from datetime import UTC, datetime

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
UNITS_MS = {"ms": 1, "s": 1_000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
"""Milliseconds of each unit of a duration such as `10m`."""


def rfc3339(time_ms: int) -> str:
    """
    A time in ms as RFC 3339 in UTC.

    >>> rfc3339(1_760_000_000_123)
    '2025-10-09T08:53:20.123Z'
    """
    seconds, ms = divmod(time_ms, 1_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms:03}Z"
