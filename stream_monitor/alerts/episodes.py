"""
One drift is one episode, however often a detector fires in it.

Rule of the file: a firing opens an episode or prolongs it; it is over when `QUIET_ROWS` values passed without another. The verdict tells the change in the
signal's own units.
"""

from __future__ import annotations

from typing import Any

from stream_monitor.settings import Severity
from stream_monitor.verdicts import AlertKey, Span, Verdict

QUIET_ROWS = 5_000


class Episodes:
    """The episode a detector is in, if any."""

    def __init__(self) -> None:
        self.open = False
        self.first_row = self.last_row = 0
        self.first_ms = self.last_ms = 0
        self.firings = 0
        self.total = 0
        self.before = self.after = 0.0
        self.returned = False
        """The signal went back to where it was."""

    def over(self, *, after: float) -> None:
        """The signal is back where it was before the drift."""
        self.open, self.returned, self.after = False, True, after

    def detected(self, row: int, time_ms: int, *, before: float | None, after: float | None) -> None:
        """The detector fired at this value of its stream."""
        if not self.open:
            self.open, self.first_row, self.first_ms, self.firings = True, row, time_ms, 0
            self.before, self.returned = before or 0.0, False
        self.after = after or 0.0
        self.last_row, self.last_ms = row, time_ms
        self.firings += 1
        self.total += 1

    def verdict(self, key: AlertKey, rows: int, *, scale: tuple[float, float], severity: Severity, cooldown_ms: int, reference: str) -> Verdict | None:
        """The verdict after `rows` values of the stream; None when the detector never fired."""
        if not self.total:
            return None
        if self.open and rows - self.last_row > QUIET_ROWS:
            self.open = False
        mean, sd = scale
        before, after = mean + sd * self.before, mean + sd * self.after
        what = "the error rate" if key.subject == "__error__" else key.subject.strip("_") if key.subject.startswith("__") else f"`{key.subject}`"
        name = f"{key.model}{' ' + key.version if key.version else ''}"
        if self.open:
            text = f"{name}: {what} changed from {before:.4g} to {after:.4g} (found by {key.detector})"
        elif self.returned:
            text = f"{name}: {what} is back at {after:.4g}; before the change it was {before:.4g}"
        else:
            text = f"{name}: {what} has not changed again since it went from {before:.4g} to {after:.4g}"
        return Verdict(
            key=key,
            level=severity if self.open else "ok",
            clear=not self.open,
            value=after,
            threshold=before,
            direction="up" if after > before else "down",
            window=Span(self.first_ms, self.last_ms, rows),
            summary=text,
            reference=reference,
            cooldown_ms=cooldown_ms,
            evidence={"before": before, "after": after, "firings": self.firings, "rows_since": rows - self.first_row, "guarantee": "none"},
        )

    def state(self) -> list[Any]:
        """Plain values for the snapshot."""
        return [self.open, self.first_row, self.last_row, self.first_ms, self.last_ms, self.firings, self.total, self.before, self.after, self.returned]

    @classmethod
    def from_state(cls, state: list[Any]) -> Episodes:
        """The episode of a snapshot."""
        episodes = cls()
        (
            episodes.open,
            episodes.first_row,
            episodes.last_row,
            episodes.first_ms,
            episodes.last_ms,
            episodes.firings,
            episodes.total,
            episodes.before,
            episodes.after,
            episodes.returned,
        ) = state
        return episodes
