"""
What people have said about alerts, in the state: mutes, and episodes that were false alarms.

Rule of the file: a mark counts from its place in the log on, and a mute ends by log time. What is
kept is bounded. `lifecycle.py` says what a mark changes.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from stream_monitor.times import DAY_MS
from stream_monitor.verdicts import AlertKey

MUTES_MAX = 1_000
"""Mutes of a partition of `observations`. Of more, the one that ends first ends at once."""
MUTE_MS = DAY_MS
"""How long a mute lasts that does not say so."""
PAST_MAX = 2_000
"""Ended episodes that can still be called a false alarm: the newest ones of a partition."""
BY_MAX = 128
"""Characters of the name of a person that are kept."""
FALSE_MAX = 10_000
"""Model versions of which false alarms are counted; of more, the oldest are forgotten."""


class Mute(msgspec.Struct):
    """A fingerprint that nobody is to be told of."""

    until_ms: int
    """Log time at which it ends, ms."""
    key: AlertKey | None = None
    """The alert, once one with this fingerprint is known."""


class Past(msgspec.Struct):
    """An episode that has ended."""

    model: str
    version: str
    false: bool = False


class Said(msgspec.Struct):
    """Mutes by fingerprint, and false alarms."""

    mutes: dict[str, Mute] = {}
    past: dict[tuple[str, int], Past] = {}
    """By fingerprint and log time of the start, in the order in which they ended."""
    false: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    """By model and version: number of episodes that were false alarms."""

    def ended(self, fingerprint: str, starts_ms: int, key: AlertKey, *, false: bool) -> None:
        """Remember an episode that has ended."""
        self.past[fingerprint, starts_ms] = Past(key.model, key.version, false)
        while len(self.past) > PAST_MAX:
            del self.past[next(iter(self.past))]

    def was_false(self, fingerprint: str, starts_ms: int) -> bool:
        """Whether an episode that began at the very same moment was called a false alarm."""
        past = self.past.get((fingerprint, starts_ms))
        return past is not None and past.false

    def ended_false(self, fingerprint: str, starts_ms: int | None) -> None:
        """Count an ended episode as a false alarm, once; without a start, the newest one."""
        for (mark, start), past in reversed(self.past.items()):
            if mark == fingerprint and starts_ms in (None, start):
                if not past.false:
                    past.false = True
                    self.count_false(past.model, past.version)
                return

    def count_false(self, model: str, version: str) -> None:
        """Count a false alarm."""
        self.false[model, version] += 1
        while len(self.false) > FALSE_MAX:
            del self.false[next(iter(self.false))]

    def beyond(self) -> str | None:
        """The mute that must end because there are too many."""
        if len(self.mutes) <= MUTES_MAX:
            return None
        return min(self.mutes, key=lambda mark: self.mutes[mark].until_ms)

    def over(self, now_ms: int) -> list[str]:
        """Mutes whose end has come."""
        return [mark for mark, mute in self.mutes.items() if mute.until_ms <= now_ms]
