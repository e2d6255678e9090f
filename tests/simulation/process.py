"""
A worker's process without a process: an event loop that is stepped from outside, one callback at a
time, in virtual time.

Rule of the file: what is killed is never stepped again, so that no `finally` and no `except` of it
runs, as after kill -9; what is stopped goes on later, as a zombie does.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
GRAIN_S = 0.2
"""The least a timer waits: slower clocks, fewer steps."""


class Clock(Protocol):
    now: float


class DiedError(BaseException):
    """In place of the end of the process, until control is back in the world."""


class Process(asyncio.BaseEventLoop):
    """One worker."""

    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self, clock: Clock, number: int) -> None:
        super().__init__()
        self.clock, self.number = clock, number
        self.alive, self.stopped_until = True, 0.0
        self.exit_code: int | None = None
        self.why = ""
        self.held_s = 0.0
        """What folding is said to have held the loop; see `Time`."""
        self.tasks: list[
            asyncio.Task[Any]
        ] = []  # kept: a task that is collected is closed, and closing runs its code
        self.set_task_factory(self._kept)

    def _kept(
        self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        task._log_destroy_pending = False  # type: ignore[attr-defined] # private, in C
        self.tasks.append(task)
        return task

    # ---- what asyncio asks of a loop

    def time(self) -> float:
        return self.clock.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Any = None,
    ) -> asyncio.TimerHandle:
        return super().call_at(
            max(when, self.clock.now + GRAIN_S), callback, *args, context=context
        )

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as e:
            future.set_exception(e)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that failed says so by its result."""

    # ---- what the world does

    def due(self) -> bool:
        """Whether a step is possible now."""
        if not self.alive or self.stopped_until > self.clock.now:
            return False
        while self._scheduled and (
            self._scheduled[0]._cancelled or self._scheduled[0]._when <= self.clock.now
        ):
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)
        return bool(self._ready)

    def next_due(self) -> float:
        """When a step will be possible."""
        if not self.alive:
            return float("inf")
        return max(
            self._scheduled[0]._when if self._scheduled else float("inf"), self.stopped_until
        )

    def step(self) -> None:
        """Run one callback."""
        handle = self._ready.popleft()
        if not handle._cancelled:
            self.do(handle._run)

    def do(self, work: Callable[[], Any]) -> None:
        """Call something in this process."""
        asyncio._set_running_loop(self)
        try:
            work()
        finally:
            asyncio._set_running_loop(None)

    def end(self, code: int, why: str) -> None:
        """No step follows."""
        if self.alive:
            self.alive, self.exit_code, self.why = False, code, why

    def bury(self) -> None:
        """
        When the simulation is over: what its coroutines still do on being closed reaches nobody.
        """
        self.alive = False
        for task in self.tasks:
            coro: Any = task.get_coro()
            for _ in range(5):
                try:
                    self.do(coro.close)
                    break
                except BaseException:
                    continue
        self.tasks.clear()
        self.close()


class Time:
    """
    In place of the module `time`, in the modules of the runtime: what a process sees of the clock.
    """

    def __init__(self, epoch_ms: int, chance: Callable[[], float]) -> None:
        self._epoch_ms, self._chance, self._cpu_s = epoch_ms, chance, 0.0

    @staticmethod
    def _process() -> Process:
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        return process

    def monotonic(self) -> float:
        process = self._process()
        process.held_s += 0.06 if self._chance() < 0.1 else 0.0
        return process.time() + process.held_s

    def thread_time(self) -> float:
        self._cpu_s += 0.3 * self._chance()
        return self._cpu_s

    def time(self) -> float:
        return self._epoch_ms / 1e3 + self._process().time()

    def time_ns(self) -> int:
        return int(self._epoch_ms + self._process().time() * 1e3) * 1_000_000
