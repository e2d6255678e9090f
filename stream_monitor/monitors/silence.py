"""
How long is this model usually silent? What a silence is held against when nobody set a limit.

Rule of the file: silences are seen once a second of log time, and end with the next prediction. One
outage must not make the next one usual, so it is the second longest of four weeks that counts.
"""

from __future__ import annotations

import math

import msgspec

from stream_monitor.times import DAY_MS

MEAN_FACTOR = 15.0
"""
If events come at random, one in three million (e^-15) is followed by a silence of so many times the
mean one.
"""
MEAN_Z = 3.0
"""The mean of few silences may be greater by so many standard errors."""
LONGEST_FACTOR = 2.0
CALLS_MIN = 10
"""Predictions before which no silence is reported, because their rate is not known."""
DAYS = 28


class Silences(msgspec.Struct):
    """
    The pauses between the predictions of one model version, in log time.

    Examples
    --------
    >>> silences = Silences()
    >>> for minute in range(0, 2_000, 2):
    ...     silences.heard(1, minute * 60_000)
    >>> round(silences.usual_ms() / 60_000)
    33
    """

    calls: int = 0
    first_ms: int = 0
    last_ms: int = 0
    now_ms: int = 0
    """How long it is silent, when that was looked at last."""
    days: dict[int, list[int]] = {}
    """The two longest silences of each day in ms, longest first."""

    def heard(self, calls: int, log_ms: int) -> None:
        """Predictions came."""
        if not self.calls:
            self.first_ms = log_ms
        if self.now_ms:
            # of the look, which no single record's clock decides
            day = (self.last_ms + self.now_ms) // DAY_MS
            self.days[day] = sorted([*self.days.get(day, ()), self.now_ms], reverse=True)[:2]
            self.days = {d: found for d, found in self.days.items() if d > day - DAYS}
        self.calls, self.last_ms, self.now_ms = self.calls + calls, log_ms, 0

    def heard_at_most(self, log_ms: int) -> None:
        """Log time did not jump after all."""
        self.first_ms, self.last_ms = min(self.first_ms, log_ms), min(self.last_ms, log_ms)

    def usual_ms(self) -> float:
        """The longest silence that tells nothing."""
        if self.calls < CALLS_MIN:
            return math.inf
        gaps = self.calls - 1
        mean_ms = (self.last_ms - self.first_ms) / max(gaps - MEAN_Z * math.sqrt(gaps), 1.0)
        longest = sorted((ms for day in self.days.values() for ms in day), reverse=True)
        return max(MEAN_FACTOR * mean_ms, LONGEST_FACTOR * longest[1] if len(longest) > 1 else 0.0)
