"""
The sender of a model server on asyncio: a task hands events to your producer.

Rule of the file: as of `sending.py`, with a task in place of a thread. The task begins with the
first event that comes while a loop runs; `put` may be called from other threads as well.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

from stream_monitor.client.buffer import BYTES_MAX, EVENTS_MAX, Buffer, Waiting
from stream_monitor.client.sending import RETRIES_S, Target, send_of

if (
    TYPE_CHECKING
):  # asyncio takes most of the time of the import, and a server with threads has none
    import asyncio


class AsyncSender(Buffer):
    """
    Send events with a task of its own.

    Parameters
    ----------
    target : producer or function, optional
        What takes the events: `aiokafka.AIOKafkaProducer`, another object with `send` or `produce`,
        or a function of topic, value and key; what it returns is awaited if it can be.
    connect : function without arguments, optional
        Makes the target, or a coroutine that does, when the first event comes. Use it if the
        sender is made before the loop runs. A target made here is stopped by `close`.
    events_max, bytes_max : int
        So much may wait; beyond, new events are dropped.

    Notes
    -----
    Reasons in `counts().dropped` are those of `Sender`. Call `await sender.close()` at the end:
    after the loop has ended, nothing can be sent.

    Examples
    --------
    >>> import asyncio
    >>> got = []
    >>> async def send(topic, value, key):
    ...     got.append((topic, value))
    >>> async def main():
    ...     async with AsyncSender(send) as sender:
    ...         sender.put("predictions", b"{}")
    >>> asyncio.run(main())
    >>> got
    [('predictions', b'{}')]
    """

    def __init__(
        self,
        target: Target | None = None,
        *,
        connect: Callable[[], Target | Awaitable[Target]] | None = None,
        events_max: int = EVENTS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        if (target is None) == (connect is None):
            raise ValueError("target, connect: give one of them")
        if target is not None:
            send_of(target)
        self._target, self._connect = target, connect
        super().__init__(events_max=events_max, bytes_max=bytes_max)
        _ALL.add(self)

    def _begin(self) -> None:
        super()._begin()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._awake: asyncio.Event | None = None
        self._connected: Target | None = None

    def _wake(self) -> None:
        import asyncio

        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        loop = self._loop
        if loop is None or loop.is_closed() or self._task is None or self._task.done():
            if running is None:
                self._idle = True  # the next event, or `start`, tries again
                return
            self._run_in(running)
        elif loop is running:
            self._set_awake()
        else:
            try:
                loop.call_soon_threadsafe(self._set_awake)
            except RuntimeError:  # it was closed just now
                self._idle = True

    def _set_awake(self) -> None:
        if self._awake is not None:
            self._awake.set()

    def _run_in(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self._loop, self._awake, self._connected = loop, asyncio.Event(), None
        self._idle = False
        self._task = loop.create_task(self._run(self._awake), name="stream-monitor-sender")

    async def _run(self, awake: asyncio.Event) -> None:
        try:
            while True:
                while (event := self._take()) is not None:
                    await self._hand_over(event)
                if self._rest():
                    if self._closed:
                        return
                    await awake.wait()
                    awake.clear()
        finally:  # it was cancelled: the next event begins a task again
            self._idle = True

    async def _hand_over(self, event: Waiting) -> None:
        import asyncio

        for pause_s in (*RETRIES_S, None):
            try:
                sent = send_of(await self._reach())(event.topic, event.value, event.key)
                report = await sent if hasattr(sent, "__await__") else sent
                if isinstance(report, asyncio.Future):  # aiokafka: the delivery comes later
                    report.add_done_callback(self._delivered)
            except asyncio.CancelledError:
                self.drop("cancelled", "the task of the sender was cancelled")
                raise
            except Exception as e:
                if pause_s is None:
                    self.drop("refused", e)
                    return
                await asyncio.sleep(0.0 if self._closed else pause_s)
            else:
                self._count_sent()
                return

    async def _reach(self) -> Target:
        if self._connected is None:
            target: Any = self._target if self._connect is None else self._connect()
            self._connected = await target if hasattr(target, "__await__") else target
        return self._connected

    def _delivered(self, report: asyncio.Future[Any]) -> None:
        if not report.cancelled() and (error := report.exception()) is not None:
            self.drop("undelivered", error)

    def start(self) -> None:
        """Begin to send in the loop that runs; events begin it too."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._task is None or self._task.done():
            self._run_in(loop)

    async def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until every event was handed over and delivered; False if there was no time."""
        import asyncio

        self.start()
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting or not self._idle:  # noqa: ASYNC110, the task must not pay for it
                    await asyncio.sleep(0.002)
                await self._ask("flush")
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits, within `timeout_s`, and stop; the rest is counted as dropped."""
        import asyncio

        if self._waiting:
            self.start()
        self._closed = True
        try:
            async with asyncio.timeout(timeout_s):
                if self._task is not None and self._loop is asyncio.get_running_loop():
                    self._set_awake()
                    await asyncio.shield(self._task)
                await self._ask("flush" if self._connect is None else "stop")
        except TimeoutError:
            if self._task is not None:
                self._task.cancel()
        except Exception as e:
            self.fault("flush", e)
        self._drop_rest()

    async def _ask(self, name: str) -> None:
        """Call a method of the target, if it has one."""
        method = getattr(self._connected, name, None)
        if callable(method) and hasattr(done := method(), "__await__"):
            await done

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


_ALL: weakref.WeakSet[AsyncSender] = weakref.WeakSet()


@atexit.register
def _count_what_is_lost() -> None:
    for sender in list(_ALL):
        sender._drop_rest()
