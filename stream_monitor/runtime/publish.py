"""
Events go out to `predictions` and `labels`: for `produce` and the demo.

Rule of the file: what is sent is sent as it is, with the event's id as key; nothing is made up here. The time of a record is that of sending; the time of the event is in its
value. A record that the broker refuses ends the sending.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError
from stream_monitor.runtime.cluster import connection
from stream_monitor.settings import KafkaSettings

LINGER_MS = 20
BATCH_BYTES = 128 << 10
REQUEST_TIMEOUT_MS = 15_000
AHEAD_S = 0.005
"""Sleeping for less than this costs more than it gains."""
CHUNK_EVENTS = 256
CHUNKS_AHEAD = 4

Sendable = tuple[str, bytes, bytes, float]
"""(kind, value, key, when it is due in seconds from the start)."""


class Publisher:
    """
    A producer for events, to be used in `async with`.

    Raises
    ------
    BrokerError
        On entry, when no broker can be reached or a topic is not there; later, when a record is refused.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self.sent: Counter[str] = Counter()
        """Events acknowledged, by kind."""
        self._kafka = kafka
        self._topics = {kind: kafka.topic_prefix + kind for kind in ("predictions", "labels")}
        self._failure: BaseException | None = None
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            **connection(self._kafka),
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=LINGER_MS,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        try:
            await self._producer.start()
            for topic in self._topics.values():
                await self._producer.partitions_for(topic)
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise BrokerError(f"{self._kafka.bootstrap_servers}: {str(error) or type(error).__name__}; is the broker there, and are its topics (`stream-monitor topics apply`)?") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(self, kind: str, value: bytes, key: bytes) -> None:
        """Hand an event to the producer; waits while its buffers are full."""
        self._raise_failure()
        try:
            delivery = await self._producer.send(self._topics[kind], value, key or None)
        except KafkaError as error:
            self._failure = error
            self._raise_failure()
        delivery.add_done_callback(self._delivered_labels if kind == "labels" else self._delivered_predictions)

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
            raise BrokerError(f"{self._kafka.bootstrap_servers}: a record was refused: {str(self._failure) or type(self._failure).__name__}") from self._failure


async def in_background(events: Callable[[], Iterable[Sendable]], *, one_by_one: bool = False) -> AsyncIterator[Sendable]:
    """
    Iterate over events that take time to read, without holding up the event loop.

    The reading is done by a daemon thread, a little ahead: it may wait for a live stdin for ever, and must not keep the process from ending.

    Parameters
    ----------
    events : callable
        Opens the iterable, on that thread.
    one_by_one : bool
        Hand over each event as soon as it is read, for a live input.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[list[Sendable] | BaseException | None] = asyncio.Queue(CHUNKS_AHEAD)
    size = 1 if one_by_one else CHUNK_EVENTS

    def read() -> None:
        last: BaseException | None = None
        try:
            rest: Iterator[Sendable] = iter(events())
            while chunk := list(islice(rest, size)):
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
        except BaseException as error:  # handed over to the one who iterates
            last = error
        try:
            asyncio.run_coroutine_threadsafe(chunks.put(last), loop).result()
        except (RuntimeError, asyncio.CancelledError):
            return  # the loop is gone, nobody iterates any more

    threading.Thread(target=read, name="input", daemon=True).start()
    while True:
        chunk = await chunks.get()
        if chunk is None:
            return
        if isinstance(chunk, BaseException):
            raise chunk
        for event in chunk:
            yield event


async def publish(publisher: Publisher, events: AsyncIterator[Sendable], stop: asyncio.Event, on_sent: Callable[[float], None] | None = None) -> bool:
    """
    Send events when they are due.

    Parameters
    ----------
    events
        Those due in the past are sent at once.
    stop
        When set, sending ends and what is under way is flushed.
    on_sent : callable, optional
        Called after each event with the time it was due.

    Returns
    -------
    bool
        Whether all events were sent.
    """
    stopping = asyncio.ensure_future(stop.wait())
    start_s = time.monotonic()
    complete = False
    try:
        while not stop.is_set():
            following = asyncio.ensure_future(anext(events, None))
            await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                break
            event = following.result()
            if event is None:
                complete = True
                break
            kind, value, key, due_s = event
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
