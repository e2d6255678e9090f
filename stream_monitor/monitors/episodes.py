"""
One drift is one episode: from the change that a detector found until the signal is back at the
level before it.

Rule of the file: a detector that got used to the new level ends nothing. What ends an episode is
evidence in the values themselves that they are at the level before and not half-way to the one
after: a sum of log-likelihood ratios that is set to 0 whenever it would be negative (CUSUM), and
must reach `BACK`. How values were cut does not show.
"""

from __future__ import annotations

import msgspec
import numpy as np

from stream_monitor.alerts.wording import apart, signal
from stream_monitor.arrays import Float
from stream_monitor.settings import Severity
from stream_monitor.verdicts import AlertKey, Span, Verdict

BACK = 10.0
"""
Evidence (natural logarithm of a likelihood ratio) that a signal is back: one that stays half-way
shows it by chance once in 20,000 values, one that stays away never.
"""
SHARE_MIN = 1e-3
"""
Shares are taken to be at least so far from 0 and 1, so that one error does not prove everything.
"""


class Episode(msgspec.Struct, array_like=True):
    """The episode a detector is in, or the last one. Levels are in the detector's units."""

    open: bool = False
    first_row: int = 0
    last_row: int = 0
    first_ms: int = 0
    last_ms: int = 0
    firings: int = 0
    before: float = 0.0
    """The level to which the signal must come back."""
    after: float = 0.0
    """The level to which it went, of values as the detector gets them."""
    shown: float = 0.0
    """The level before, or the level to which it came back, of values that are not cut."""
    back: float = 0.0
    """Evidence that the signal is back."""
    back_rows: int = 0
    back_total: float = 0.0
    """Values that are not cut, since that evidence began."""

    def begin(self, row: int, time_ms: int, *, before: float, after: float, shown: float) -> None:
        """The signal left its level."""
        self.open, self.first_row, self.first_ms, self.firings, self.before = (
            True,
            row,
            time_ms,
            0,
            before,
        )
        self.go_on(row, time_ms, after=after, shown=shown)

    def go_on(self, row: int, time_ms: int, *, after: float, shown: float) -> None:
        """Whether the signal went on to another level."""
        self.last_row, self.last_ms, self.after, self.shown = row, time_ms, after, shown
        self.firings += 1
        self.back, self.back_rows, self.back_total = 0.0, 0, 0.0

    def follow(self, cut: Float, values: Float, *, binary: bool) -> int:
        """
        Read values until the signal is back, which ends the episode; returns how many were read.

        Parameters
        ----------
        cut, values : (n,) float64
            Values as the detector gets them, and not cut.
        binary : bool
            Whether values are 0 and 1; otherwise their standard deviation is about 1.
        """
        if not len(cut):
            return 0
        sums = np.concatenate([[0.0], self.back + np.cumsum(self._evidence(cut, binary=binary))])
        lowest = np.minimum.accumulate(np.minimum(sums, 0.0))
        evidence = sums[1:] - lowest[1:]
        reached = np.flatnonzero(evidence >= BACK)
        end = int(reached[0]) + 1 if len(reached) else len(cut)
        zeros = np.flatnonzero(evidence[:end] <= 0)
        start = int(zeros[-1]) + 1 if len(zeros) else 0
        if len(zeros):
            self.back_rows, self.back_total = 0, 0.0
        self.back, self.back_rows = float(evidence[end - 1]), self.back_rows + end - start
        self.back_total += float(values[start:end].sum())
        if len(reached):
            self.open, self.shown = False, self.back_total / self.back_rows
        return end

    def _evidence(self, cut: Float, *, binary: bool) -> Float:
        """
        For each value, the logarithm of how much likelier it is at the level before than half-way
        to the level after.
        """
        halfway = (self.before + self.after) / 2
        if not binary:
            return (self.before - halfway) * (cut - (self.before + halfway) / 2)
        p, q = (min(max(level, SHARE_MIN), 1 - SHARE_MIN) for level in (self.before, halfway))
        one, zero = float(np.log(p / q)), float(np.log((1 - p) / (1 - q)))
        found: Float = np.where(cut > 0.5, one, zero)
        return found

    def verdict(
        self,
        key: AlertKey,
        rows: int,
        *,
        scale: tuple[float, float],
        severity: Severity,
        cooldown_ms: int,
        baseline_id: str,
        rule: str,
        binary: bool,
        guarantee: str,
    ) -> Verdict | None:
        """
        The verdict after `rows` values of the stream, by the detector of the key `rule`; None when
        there never was a change.
        """
        if not self.firings:
            return None
        mean, sd = scale
        before, after = mean + sd * self.before, mean + sd * self.shown
        was, now = apart(before, after)
        text = f"{key.title}: {signal(key.subject, binary=binary)}"
        if self.open:
            text += (
                f" changed from {was} to {now} and has not come back (found by {rule}); look at "
                "what else changed at that time"
            )
        else:
            text += f" is back at {now}; before the change it was {was} ({rule})"
        return Verdict(
            key=key,
            level=severity if self.open else "ok",
            clear=not self.open,
            value=after,
            threshold=before,
            direction="up" if after > before else "down",
            window=Span(self.first_ms, self.last_ms, rows),
            summary=text,
            baseline_id=baseline_id,
            cooldown_ms=cooldown_ms,
            evidence={
                "before": before,
                "after": after,
                "firings": self.firings,
                "rows_since": rows - self.first_row,
                "guarantee": guarantee,
            },
        )
