"""
Log time: the clock of a fold, read from the records of its log.

Rule of the file: one record is not a clock. Times come from machines whose clocks may be wrong. So
log time follows small steps, but a jump (ahead or back) only when the log goes on from there and no
record contradicts it. The same times give the same log time.
"""

from __future__ import annotations

import msgspec

JUMP_MS = 60_000
"""A step beyond this is a jump: a worker ticks every second, so even a restart is shorter."""
CONFIRM_MS = 2_000
"""
The log goes on for so long after a jump before it is followed: time for every other worker to tick.
"""


class LogTime(msgspec.Struct):
    """
    The time of a log whose records may be dated by a clock that is wrong.

    Parameters
    ----------
    confirm_ms : int, ms
        How long a jump waits for the log to go on from it; 0 believes every step.

    Examples
    --------
    >>> log = LogTime()
    >>> [log.read(s * 1_000) for s in (100, 101, 90_000, 102)], log.now_ms, log.refused
    ([100000, 101000, 90000000, 102000], 102000, 1)
    >>> [log.read(s * 1_000) for s in (90_000, 90_001, 90_002)], log.now_ms
    ([90000000, 90001000, 90002000], 90002000)
    """

    confirm_ms: int = CONFIRM_MS
    now_ms: int = 0
    """Log time; never ahead of what the log confirms."""
    refused: int = 0
    """Jumps that the next records contradicted."""
    step_ms: int = 0
    """Length of the last step. A log with one record a day goes on by days."""
    jumped_ms: int = 0
    """Beginning of a jump that is not followed yet; 0 if there is none."""

    @property
    def is_waiting(self) -> bool:
        """Whether the last record was a jump that is not followed yet."""
        return self.jumped_ms > 0

    def read(self, time_ms: int) -> int:
        """
        Advance by the time of the next record.

        Returns
        -------
        int, ms
            The time of this record's rows: log time, or the time that the record jumped to.
        """
        step = time_ms - self.now_ms
        near = abs(step) <= max(JUMP_MS, self.step_ms)
        if near and step <= 0:
            self._refuse()
        elif near or not (self.step_ms and self.confirm_ms) or self._goes_on(time_ms):
            self._refuse(really=near)
            # the first step of a log is believed too: nothing is known of it yet
            self.step_ms = abs(step) if self.now_ms else 0
            self.now_ms = time_ms
        elif not self.is_waiting or abs(time_ms - self.jumped_ms) > JUMP_MS:
            self.jumped_ms = time_ms
        return time_ms if self.is_waiting else self.now_ms

    def _refuse(self, *, really: bool = True) -> None:
        self.refused += really and self.is_waiting
        self.jumped_ms = 0

    def settle(self) -> None:
        """The log ends: nothing will contradict a jump any more."""
        if self.is_waiting:
            self.now_ms, self.jumped_ms = self.jumped_ms, 0

    def _goes_on(self, time_ms: int) -> bool:
        return self.is_waiting and time_ms >= self.jumped_ms + self.confirm_ms
