"""
Events on their way: a bounded buffer between predictions and whatever sends them.

Rule of the file: `put` never waits and never raises. What does not fit is counted by its reason. A
fork begins with an empty buffer, because the parent still has its events.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from stream_monitor.client.forking import register

LOG = logging.getLogger("stream_monitor.client")
LOG_EVERY_S = 60.0
EVENTS_MAX = 10_000
BYTES_MAX = 64 * 1024 * 1024


class Waiting(NamedTuple):
    """A record that waits to be sent."""

    topic: str
    value: bytes
    key: bytes | None


class Counts(NamedTuple):
    """What became of the events of one process."""

    waiting: int
    sent: int
    """Handed to the producer."""
    dropped: dict[str, int]
    """Events that are lost, by reason."""
    faults: dict[str, int]
    """What went wrong without the loss of an event, by reason."""
    errors: dict[str, str]
    """The newest error of each reason, in words."""


class Buffer:
    """
    Base of `Sender` and `AsyncSender`: what waits, and what was dropped.

    Parameters
    ----------
    events_max : int
        So many events may wait; beyond, new ones are dropped (`full`).
    bytes_max : int
        So many bytes of values may wait.
    """

    _idle: bool

    def __init__(self, *, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        if events_max < 1 or bytes_max < 1:
            raise ValueError(f"events_max, bytes_max: at least 1, got {events_max}, {bytes_max}")
        self._events_max, self._bytes_max = events_max, bytes_max
        self._closed = False
        self._begin()
        register(self)

    def put(self, topic: str, value: bytes, key: bytes | None = None) -> bool:
        """
        Let an event wait to be sent; False if it was dropped.

        It may be called from every thread, and costs about a microsecond.
        """
        with self._lock:
            if self._closed:
                reason = "closed"
            elif (
                len(self._waiting) >= self._events_max or self._bytes + len(value) > self._bytes_max
            ):
                reason = "full"
            else:
                self._waiting.append(Waiting(topic, value, key))
                self._bytes += len(value)
                wake = self._idle
                self._idle = False
                reason = ""
        if reason:
            self.drop(reason)
            return False
        if wake:
            self._wake()
        return True

    def drop(self, reason: str, error: BaseException | str = "", count: int = 1) -> None:
        """Count events that are lost, and say so in the log once a minute."""
        self._report(self._dropped, reason, error, count)

    def fault(self, reason: str, error: BaseException | str) -> None:
        """Count something that went wrong, but lost no event."""
        self._report(self._faults, reason, error, 1)

    def _report(
        self, counted: dict[str, int], reason: str, error: BaseException | str, count: int
    ) -> None:
        now_s = time.monotonic()
        with self._lock:
            total = counted[reason] = counted.get(reason, 0) + count
            self._errors[reason] = _words(error)
            silent = now_s - self._told_s.get(reason, -math.inf) < LOG_EVERY_S
            if silent:
                return
            self._told_s[reason] = now_s
        what = "events dropped" if counted is self._dropped else "faults around events"
        with suppress(Exception):  # a handler of yours must not fail a prediction
            LOG.warning("%s: %d (%s) %s", what, total, reason, _words(error))

    def counts(self) -> Counts:
        """What waits, was sent and was dropped, in this process."""
        with self._lock:
            return Counts(
                len(self._waiting),
                self._sent,
                dict(self._dropped),
                dict(self._faults),
                dict(self._errors),
            )

    # ---- for the classes that send

    def after_fork(self) -> None:
        """Begin empty: what waits is sent by the parent."""
        self._begin()

    def _wake(self) -> None:
        """Tell the sending side, which found nothing to do, that an event waits."""

    def _begin(self) -> None:
        """Start empty: at first, and in the child after a fork."""
        self._lock = threading.RLock()  # a signal handler may predict, too
        self._waiting: deque[Waiting] = deque()
        self._bytes = self._sent = 0
        self._idle = True
        self._dropped: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self._errors: dict[str, str] = {}
        self._told_s: dict[str, float] = {}

    def _take(self) -> Waiting | None:
        """The oldest event; None if nothing waits."""
        with self._lock:
            if not self._waiting:
                return None
            event = self._waiting.popleft()
            self._bytes -= len(event.value)
            return event

    def _rest(self) -> bool:
        """Be idle from now on, so that the next event calls `_wake`; False if an event waits."""
        with self._lock:
            self._idle = not self._waiting
            return self._idle

    def _count_sent(self) -> None:
        with self._lock:
            self._sent += 1

    def _drop_rest(self) -> None:
        with self._lock:
            left = len(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        if left:
            self.drop("closed", "there was no time to send them", left)


def _words(error: BaseException | str) -> str:
    if isinstance(error, str):
        return error
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its text is made by code of yours
        return type(error).__name__
