"""
Errors, by where the fault lies.

    StreamMonitorError
    ├── ConfigError      the operator: every problem at once, exit 2 before any connection
    ├── InputError       a file or argument of a command cannot be used, exit 2
    ├── BrokerError      the environment: the broker refuses or cannot be reached, exit 1
    └── StateError       we or our topics: a snapshot that cannot be used, exit 1

Rule of the file: a bad record is never an exception, it is a `Reject` with a reason
(`events.decode`).
"""

from __future__ import annotations

from collections.abc import Sequence

UNREADABLE = (ValueError, RecursionError)
"""
What msgspec raises on foreign data: its own errors, those of UTF-8, and the error for endless
brackets.
"""


class StreamMonitorError(Exception):
    """Base of all errors that people see without a traceback."""


class ConfigError(StreamMonitorError):
    """
    The configuration is wrong; `problems` has one line per error, with file, line and a suggestion.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class InputError(StreamMonitorError):
    """A file or an argument cannot be used."""


class BrokerError(StreamMonitorError):
    """The broker cannot be reached, or refuses what is needed."""


class BrokerAwayError(BrokerError):
    """A broker went away while it was asked. If there are several, another one may answer."""


class StateError(StreamMonitorError):
    """Stored state cannot be used: another schema, a broken checksum, a missing part."""
