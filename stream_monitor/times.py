"""
Times as people and JSON have them.

Rule of the file: inside the program a time is milliseconds since 1970; only what is written out has
another form.
"""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(time_ms: int) -> str:
    """
    A time in ms as RFC 3339 in UTC.

    >>> rfc3339(1_760_000_000_123)
    '2025-10-09T08:53:20.123Z'
    """
    seconds, ms = divmod(time_ms, 1_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms:03}Z"
