"""
Virtual time: an event loop whose clock goes on to the next timer as soon as nothing is left to run.
A test waits for nothing, and a busy machine changes no result.

Rule of the file: nothing here waits. What needs a socket, a thread or a process has an ordinary
loop, whose clock a test puts forward; where everything waits in virtual time and no timer is set,
the test fails at once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Clock(Protocol):
    now: float


class OwnClock:
    """The clock of one loop; several loops may share another one."""

    now = 0.0


class VirtualLoop(asyncio.BaseEventLoop):
    """
    An event loop in virtual time, for `asyncio.Runner`, or stepped from outside one callback at a
    time.
    """

    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock: Clock = clock or OwnClock()

    # ---- what asyncio asks of a loop

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """At once: what a thread does takes no time."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as e:
            future.set_exception(e)
        return future

    def _write_to_self(self) -> None:
        """It never sleeps, so it is never woken."""

    def _run_once(self) -> None:
        """All callbacks that are ready; if there are none, those of the next timer."""
        if not self.due():
            self.clock.now = max(self.clock.now, self.next_due())
            if self.clock.now == float("inf"):
                raise RuntimeError("everything waits, and no timer is set")
            self.due()
        for _ in range(len(self._ready)):
            self._next()

    # ---- what steps it from outside

    def due(self) -> bool:
        """Whether a callback can run now."""
        while self._scheduled and (
            self._scheduled[0]._cancelled or self._scheduled[0]._when <= self.clock.now
        ):
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)
        return bool(self._ready)

    def next_due(self) -> float:
        """When the next timer is due."""
        return self._scheduled[0]._when if self._scheduled else float("inf")

    def step(self) -> None:
        """Run one callback."""
        self.do(self._next)

    def _next(self) -> None:
        handle = self._ready.popleft()
        if not handle._cancelled:
            handle._run()

    def do(self, work: Callable[[], Any]) -> None:
        """Call something in this loop."""
        asyncio._set_running_loop(self)
        try:
            work()
        finally:
            asyncio._set_running_loop(None)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An ordinary loop, with sockets and threads, whose clock a test may put forward."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


async def skip(seconds: float) -> None:
    """Put the clock of an ordinary loop forward; what is due then has begun."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skipped_s += seconds
    await asyncio.sleep(0)
    await asyncio.sleep(0)


class Time:
    """In place of the module `time` in a module under test: the clock of the loop that runs."""

    def __init__(self, epoch_ms: int = 0) -> None:
        self._epoch_ms = epoch_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def thread_time(self) -> float:
        return self.monotonic()

    def time(self) -> float:
        return self._epoch_ms / 1e3 + asyncio.get_running_loop().time()

    def time_ns(self) -> int:
        return int(self._epoch_ms + asyncio.get_running_loop().time() * 1e3) * 1_000_000


def spend(seconds: float) -> None:
    """Work that holds the loop for so long: the clock goes on, and nothing else runs meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.clock.now += seconds
