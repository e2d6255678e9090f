"""
A worker's process without a process: an event loop that is stepped from outside, one callback at a
time, in virtual time.

Rule of the file: what is killed is never stepped again, so that no `finally` and no `except` of it
runs, as after kill -9; what is stopped goes on later, as a zombie does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVarTuple, Unpack

from tests.clock import Clock, Time, VirtualLoop

Ts = TypeVarTuple("Ts")
GRAIN_S = 0.2
"""The least a timer waits: slower clocks, fewer steps."""


class DiedError(BaseException):
    """In place of the end of the process, until control is back in the world."""


class Process(VirtualLoop):
    """One worker."""

    def __init__(self, clock: Clock, number: int) -> None:
        super().__init__(clock)
        self.number = number
        self.alive, self.stopped_until = True, 0.0
        self.exit_code: int | None = None
        self.why = ""
        self.held_s = 0.0
        """What folding is said to have held the loop; see `ProcessTime`."""
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

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task that failed says so by its result."""

    # ---- what the world does

    def due(self) -> bool:
        """Whether a step is possible now."""
        return self.alive and self.stopped_until <= self.clock.now and super().due()

    def next_due(self) -> float:
        """When a step will be possible."""
        return max(super().next_due(), self.stopped_until) if self.alive else float("inf")

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


class ProcessTime(Time):
    """The clock of the process that runs, with what folding is said to have held its loop."""

    def __init__(self, epoch_ms: int, chance: Callable[[], float]) -> None:
        super().__init__(epoch_ms)
        self._chance, self._cpu_s = chance, 0.0

    def monotonic(self) -> float:
        process = asyncio.get_running_loop()
        assert isinstance(process, Process)
        process.held_s += 0.06 if self._chance() < 0.1 else 0.0
        return process.time() + process.held_s

    def thread_time(self) -> float:
        self._cpu_s += 0.3 * self._chance()
        return self._cpu_s
