"""
The sender of a model server with threads: a thread hands events to your producer.

Rule of the file: whatever the producer does (raise, wait, be slow, be away), a prediction notices
nothing of it. The thread begins with the first event of a process, so it is there after a fork too.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from stream_monitor.client.buffer import BYTES_MAX, EVENTS_MAX, Buffer, Waiting

Target = Any
"""
A producer (an object with `produce` or `send`), or a function `send(topic, value, key)`.

confluent-kafka's `Producer` and kafka-python's `KafkaProducer` are such objects.
"""

RETRIES_S = (0.1, 1.0)
"""Pauses before an event is handed over again, if the producer raised."""
PAUSE_S = 0.02
POLL_S = 0.5
POLL_EVENTS = 100
"""confluent-kafka frees the places of its queue in `poll`."""


class Sender(Buffer):
    """
    Send events with a thread of its own.

    Parameters
    ----------
    target : producer or function, optional
        What takes the events: `confluent_kafka.Producer`, another object with `produce` or `send`,
        or a function of topic, value and key.
    connect : function without arguments, optional
        Makes the target, in the thread, when the first event of a process comes. Use it if
        processes fork after this line (gunicorn with `preload_app`), because a producer does not
        survive a fork.
    events_max, bytes_max : int
        So much may wait; beyond, new events are dropped.

    Notes
    -----
    Reasons in `counts().dropped`: `full` (the buffer), `refused` (the target raised, three times),
    `undelivered` (`on_delivery` was told so, or the flush at the end ran out of time), `closed`,
    `forked` (a producer that was made before the fork), and those of `Monitor`.

    Examples
    --------
    >>> got = []
    >>> with Sender(lambda topic, value, key: got.append((topic, value))) as sender:
    ...     sender.put("predictions", b"{}")
    True
    >>> got, sender.counts().sent
    ([('predictions', b'{}')], 1)
    """

    def __init__(
        self,
        target: Target | None = None,
        *,
        connect: Callable[[], Target] | None = None,
        events_max: int = EVENTS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        if (target is None) == (connect is None):
            raise ValueError("target, connect: give one of them")
        if target is not None:
            send_of(target)
        self._target, self._connect = target, connect
        self._forks = 0
        super().__init__(events_max=events_max, bytes_max=bytes_max)
        _OPEN.add(self)

    def _begin(self) -> None:
        super()._begin()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connected: Target | None = None
        self._forks += 1

    def _wake(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start()
        self._wakes.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="stream-monitor-sender", daemon=True)
        try:
            thread.start()
        except (
            RuntimeError
        ) as e:  # no more threads, or the interpreter ends: `close` sends the rest
            self._idle = True
            self.fault("thread", e)
        else:
            self._thread = thread

    # ---- in the thread

    def _run(self) -> None:
        while True:
            handed = 0
            while (event := self._take()) is not None:
                self._hand_over(event)
                handed += 1
                if handed % POLL_EVENTS == 0:
                    self._poll(0.0)
            self._poll(0.0)
            if handed:  # events that come soon wait for the end of the pause, and wake nobody
                self._stop.wait(PAUSE_S)
            elif self._rest():
                if self._stop.is_set():
                    return
                with suppress(queue.Empty):
                    self._wakes.get(timeout=POLL_S if self._owner("poll") else None)

    def _hand_over(self, event: Waiting) -> None:
        for pause_s in (*RETRIES_S, None):
            try:
                target = self._reach()
                if target is None:
                    self.drop("forked", "make the producer in `connect`, or after the fork")
                    return
                result = send_of(target)(event.topic, event.value, event.key)
                if hasattr(result, "__await__"):
                    result.close()
                    self.drop("refused", "the target is a coroutine: use AsyncSender")
                    return
            except BaseException as e:  # SystemExit too: the thread must go on
                if pause_s is None:
                    self.drop("refused", e)
                    return
                self._poll(pause_s)
            else:
                self._count_sent()
                return

    def _reach(self) -> Target | None:
        """The target of this process; None if it is a producer that was made before a fork."""
        if self._connected is None:
            if self._connect is not None:
                self._connected = self._connect()
            elif self._forks == 1 or _method(self._target, "flush") is None:
                self._connected = self._target
        return self._connected

    def _owner(self, name: str) -> Callable[..., Any] | None:
        return None if self._connected is None else _method(self._connected, name)

    def _poll(self, wait_s: float) -> None:
        """Let the producer work; without `poll`, wait as long."""
        poll = self._owner("poll")
        began_s = time.monotonic()
        if poll is not None:
            try:
                poll(wait_s)
            except Exception as e:
                self.fault("poll", e)
        if (left_s := wait_s - (time.monotonic() - began_s)) > 0:
            self._stop.wait(left_s)

    # ---- for the process

    def on_delivery(self, error: object, message: object = None) -> None:  # noqa: ARG002, confluent-kafka gives both
        """Count what was not delivered: `on_delivery` of confluent-kafka's configuration."""
        if error is not None:
            self.drop("undelivered", str(error))

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until every event was handed over; False if there was not enough time."""
        until_s = time.monotonic() + timeout_s
        while self._waiting or not self._idle:
            if time.monotonic() >= until_s:
                return False
            time.sleep(0.002)
        return self._flush_target(until_s) == 0

    def close(self, timeout_s: float = 5.0) -> None:
        """
        Send what waits, within `timeout_s`, and stop; the rest is counted as dropped.

        It is called at the end of the interpreter. A process that ends with `os._exit` (a child of
        `multiprocessing`) calls it itself.
        """
        until_s = time.monotonic() + timeout_s
        self._closed = True
        thread = self._thread
        if thread is None:
            while time.monotonic() < until_s and (event := self._take()) is not None:
                self._hand_over(event)
        else:
            self._stop.set()
            self._wakes.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout_s)
        self._drop_rest()
        if (left := self._flush_target(until_s)) > 0:
            self.drop("undelivered", "the producer did not deliver them in time", left)
        _OPEN.discard(self)

    def _flush_target(self, until_s: float) -> int:
        """How many events the producer still has; below 0 if it does not say."""
        flush = self._owner("flush")
        if flush is None:
            return 0
        try:
            left = flush(max(0.0, until_s - time.monotonic()))
        except Exception as e:
            self.fault("flush", e)
            return -1
        return left if isinstance(left, int) else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def send_of(target: Target) -> Callable[..., Any]:
    """
    The function of a target that takes topic, value and key.

    Raises
    ------
    TypeError
        It has none.
    """
    for name in ("produce", "send"):
        if callable(send := getattr(target, name, None)):
            return send  # type: ignore[no-any-return]
    if not callable(target):
        raise TypeError(
            f"target: expected a producer or a function of topic, value and key, got {target!r}"
        )
    return target  # type: ignore[no-any-return]


def _method(target: Target, name: str) -> Callable[..., Any] | None:
    """A method of the producer, also if the target is its `produce`."""
    for owner in (target, getattr(target, "__self__", None)):
        if callable(method := getattr(owner, name, None)):
            return method  # type: ignore[no-any-return]
    return None


_OPEN: weakref.WeakSet[Sender] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sender in list(_OPEN):
        sender.close()
