"""
Values whose form is not clear from their type: durations, windows, brokers, names.

Rule of the file: each pattern is here once, for the checker and for the JSON Schema, with its name
for messages.
"""

from __future__ import annotations

from typing import NamedTuple

from stream_monitor.times import DAY_MS

DURATION = r"^[0-9]{1,9}(ms|s|m|h|d)$"
WINDOW = r"^(last_[0-9]{1,7}|[0-9]{1,9}(ms|s|m|h|d))$"
LAST_N_MAX = 1_000_000
WINDOW_MS_MAX = 31 * DAY_MS
"""Longest window, ms. A longer one would need panes that were already dropped."""
WINDOWS_MAX = 20
OFF = "off"


class Form(NamedTuple):
    """A pattern, and its name for messages."""

    pattern: str
    expected: str


FORMS = {
    "duration": Form(DURATION, "a duration such as 50ms, 2s, 10m, 24h or 30d"),
    "window": Form(
        WINDOW, f"`last_N` (N from 1 to {LAST_N_MAX:,}) or a duration up to 31d, such as 1h"
    ),
    "prefix": Form(r"^[a-zA-Z0-9._-]{0,200}$", "letters, digits, `.`, `_` and `-` (at most 200)"),
    "brokers": Form(
        r"^(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(:[0-9]{1,5})?( *, "
        r"*(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(:[0-9]{1,5})?)*$",
        "HOST:PORT, several with commas between",
    ),
    "name": Form(r"^.{1,255}$", "a name"),
    "budget": Form(
        r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,8}(ms|s|m|h|d)$",
        "a number of false alarms and a duration, such as 1/30d or 10/1d,",
    ),
    "step": Form(r"^[a-z0-9][a-z0-9_-]{0,63}$", "a name of small letters, digits, `-` and `_`"),
    "field": Form(
        r"^(prediction|score|latency_ms|features\..+)$",
        "prediction, score, latency_ms or features.NAME",
    ),
}
