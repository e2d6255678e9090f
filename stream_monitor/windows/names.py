"""
Names of windows: `last_N` rows, or a duration of event time.

Rule of the file: these two functions are the only readers of window names.
"""

from __future__ import annotations

from stream_monitor.times import UNITS_MS


def duration_ms(text: str) -> int | None:
    """
    Milliseconds of `50ms 2s 10m 24h 30d`; None if it is not a duration.

    >>> duration_ms("10m"), duration_ms("last_10")
    (600000, None)
    """
    for unit in ("ms", "s", "m", "h", "d"):
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return int(text[: -len(unit)]) * UNITS_MS[unit]
    return None


def last_n(window: str) -> int | None:
    """
    N of `last_N`; None for a duration.

    >>> last_n("last_10"), last_n("1h")
    (10, None)
    """
    return int(window[5:]) if window.startswith("last_") else None
