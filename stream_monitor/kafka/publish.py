"""
Sends events to `predictions` and `labels`, for `produce` and the demo.

Rule of the file: events are sent unchanged, with their id as key. The time of a record is the time
of sending; the time of the event is in its value. A record that the broker refuses ends the
sending.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError
from stream_monitor.kafka.connection import client_options, connecting, why_not
from stream_monitor.settings import KafkaSettings

LINGER_MS = 20
BATCH_BYTES = 128 << 10
REQUEST_TIMEOUT_MS = 15_000
AHEAD_S = 0.005
"""Waits that are shorter than this are skipped, because they cost more than they gain, s."""
CHUNK_EVENTS = 256
CHUNKS_AHEAD = 4

Sendable = tuple[str, bytes, bytes, float]
"""(kind, value, key, seconds after the start at which the event is due)."""


class Publisher:
    """
    A producer for events, to be used in `async with`.

    Raises
    ------
    BrokerError
        On entry, when no broker can be reached or a topic is not there; later, when a record is
        refused.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self.sent: Counter[str] = Counter()
        """Acknowledged events, by kind."""
        self._kafka = kafka
        self._topics = {kind: kafka.topic_prefix + kind for kind in ("predictions", "labels")}
        self._failure: BaseException | None = None
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            **client_options(self._kafka) | {"request_timeout_ms": REQUEST_TIMEOUT_MS},
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=LINGER_MS,
            max_batch_size=BATCH_BYTES,
        )
        try:
            with connecting(self._kafka):
                await self._producer.start()
            for topic in self._topics.values():
                await self._producer.partitions_for(topic)
        except BrokerError:
            await self._producer.stop()
            raise
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise BrokerError(
                f"{self._kafka.bootstrap_servers}: {why_not(error)}; do its topics exist "
                "(`stream-monitor topics apply`)?"
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(self, kind: str, value: bytes, key: bytes) -> None:
        """Pass an event to the producer; waits while its buffers are full."""
        self._raise_failure()
        try:
            delivery = await self._producer.send(self._topics[kind], value, key or None)
        except KafkaError as error:
            self._failure = error
            self._raise_failure()
        delivery.add_done_callback(
            self._delivered_labels if kind == "labels" else self._delivered_predictions
        )

    async def flush(self) -> None:
        """Wait until everything is acknowledged."""
        await self._producer.flush()
        self._raise_failure()

    def _delivered_predictions(self, delivery: asyncio.Future[Any]) -> None:
        self._delivered("predictions", delivery)

    def _delivered_labels(self, delivery: asyncio.Future[Any]) -> None:
        self._delivered("labels", delivery)

    def _delivered(self, kind: str, delivery: asyncio.Future[Any]) -> None:
        error = None if delivery.cancelled() else delivery.exception()
        if error is not None:
            self._failure = self._failure or error
        elif not delivery.cancelled():
            self.sent[kind] += 1

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise BrokerError(
                f"{self._kafka.bootstrap_servers}: a record was refused: {why_not(self._failure)}"
            ) from self._failure


class Background:
    """
    Reads slow events in chunks without blocking the event loop; to be used in `async with`.

    A daemon thread reads a little ahead. Leaving the context waits for the thread, except for a
    live input, which may never deliver anything again.

    Parameters
    ----------
    events : callable
        Opens the iterable, on that thread.
    live : bool
        Deliver each event as soon as it is read.
    """

    def __init__(self, events: Callable[[], Iterable[Sendable]], *, live: bool = False) -> None:
        self._open = events
        self._live = live
        self._left = False
        self._chunks: asyncio.Queue[list[Sendable] | BaseException | None] = asyncio.Queue(
            CHUNKS_AHEAD
        )
        self._thread = threading.Thread(target=self._read, name="input", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._left = True
        while self._thread.is_alive() and not self._live:
            while not self._chunks.empty():
                self._chunks.get_nowait()
            await asyncio.sleep(0.01)

    async def next(self) -> list[Sendable] | None:
        """The next events; `None` at the end. Raises an error that occurred while reading."""
        chunk = await self._chunks.get()
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def _read(self) -> None:
        last: BaseException | None = None
        try:
            rest: Iterator[Sendable] = iter(self._open())
            while not self._left and (
                chunk := list(islice(rest, 1 if self._live else CHUNK_EVENTS))
            ):
                self._hand_over(chunk)
        except BaseException as error:
            last = error
        self._hand_over(last)

    def _hand_over(self, chunk: list[Sendable] | BaseException | None) -> None:
        if self._loop.is_closed():
            return
        putting = self._chunks.put(chunk)
        try:
            asyncio.run_coroutine_threadsafe(putting, self._loop).result()
        except (RuntimeError, CancelledError):
            putting.close()
            self._left = True


async def publish(
    publisher: Publisher,
    events: Background,
    stop: asyncio.Event,
    on_sent: Callable[[float], None] | None = None,
) -> bool:
    """
    Send events when they are due.

    Parameters
    ----------
    publisher
        Where to send them.
    events
        Events in the order they are due; those due in the past are sent at once.
    stop
        When set, sending ends, and records that were already sent are flushed.
    on_sent : callable, optional
        Called after each event with the time it was due.

    Returns
    -------
    bool
        Whether all events were sent.
    """
    stopping = asyncio.ensure_future(stop.wait())
    start_s: float | None = None
    complete = False
    try:
        while not stop.is_set():
            following = asyncio.ensure_future(events.next())
            await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                break
            chunk = following.result()
            if chunk is None:
                complete = True
                break
            start_s = time.monotonic() if start_s is None else start_s
            for kind, value, key, due_s in chunk:
                ahead_s = start_s + due_s - time.monotonic()
                if ahead_s > AHEAD_S:
                    await asyncio.wait((stopping,), timeout=ahead_s)
                if stop.is_set():
                    break
                await publisher.send(kind, value, key)
                if on_sent is not None:
                    on_sent(due_s)
    finally:
        stopping.cancel()
    await publisher.flush()
    return complete
