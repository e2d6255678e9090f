"""
Sources of a `Follower`: a file, a URL, a consumer of confluent-kafka or aiokafka.

Rule of the file: no Kafka client is imported; a consumer that you made is handed in, or a function
that makes one. Whatever a source does (raise, hang, be away), it is counted by the follower, and
tried again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stream_monitor.client.following import Follower
from stream_monitor.client.forking import register

READ_BYTES_MAX = 16 * 1024 * 1024
KAFKA_POLL_S = 0.25
KAFKA_ASK_S = 5.0
"""An idle consumer does not say whether its broker is away, so the broker is asked so often."""
KAFKA_ANSWER_S = 0.75
"""Patience with an answer; a thread that is to stop waits no longer."""
PARTITION_EOF = -191
"""`KafkaError._PARTITION_EOF`: told if `enable.partition.eof` is on."""
QUIET_S = 2.0
"""
After so much time without an event the log counts as read to its end.

Its last offset says so earlier, but markers of transactions may stand behind the last event.
"""


class Source:
    """
    A thread that reads a source again and again, until `close`.

    After a fork the child has a thread of its own, if the source can be read from a child.
    """

    def __init__(
        self,
        follower: Follower,
        read: Callable[[], None],
        every_s: float,
        *,
        forks: bool,
        end: Callable[[], None] | None = None,
    ) -> None:
        if not every_s >= 0:
            raise ValueError(f"every_s: expected seconds, got {every_s!r}")
        self.follower, self._read, self._every_s, self._forks = follower, read, every_s, forks
        self._end = end
        self._start()
        register(self)

    def after_fork(self) -> None:
        """Read in the child too; a consumer that was handed in cannot, and the follower says so."""
        if self._stop.is_set():
            return
        if self._forks:
            self._start()
        else:
            self.follower.failed(
                "source", "a consumer does not survive a fork; hand in a function that makes one"
            )

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop reading. A consumer that you handed in stays yours to close."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _start(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="stream-monitor-follower", daemon=True
        )
        self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            pause_s = self._every_s
            try:
                self._read()
            except Exception as e:
                self.follower.failed("source", e)
                pause_s = max(pause_s, 1.0)
            stop.wait(pause_s)
        if self._end is not None:
            try:
                self._end()
            except Exception as e:
                self.follower.failed("source", e)


def follow_file(follower: Follower, path: str | Path, *, every_s: float = 2.0) -> Source:
    """
    Follow a file of events, one JSON object a line.

    It has all events of the experiments, in their order; append to it, or replace it by `rename`.

    Parameters
    ----------
    follower : Follower
    path : str or Path
    every_s : float
        Pause between two looks.
    """
    last: list[bytes] = []

    def read() -> None:
        with Path(path).open("rb") as file:
            content = file.read(READ_BYTES_MAX + 1)
        _take(follower, content, last)

    return Source(follower, read, every_s, forks=True)


def follow_url(
    follower: Follower,
    url: str,
    *,
    every_s: float = 5.0,
    timeout_s: float = 5.0,
    headers: Mapping[str, str] | None = None,
) -> Source:
    """
    Follow events behind an HTTP address, one JSON object a line, as of `follow_file`.

    Parameters
    ----------
    follower : Follower
    url : str
        http or https. A server that sends an `ETag` is asked for changes only.
    every_s, timeout_s : float
        Pause between two requests, and the patience with one.
    headers : mapping, optional
        For instance `Authorization`.

    Raises
    ------
    ValueError
        The address is of another scheme.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"url: expected http:// or https://, got {url!r}")
    last: list[bytes] = []
    tag: list[str] = []

    def read() -> None:
        asked = {**(headers or {}), **({"If-None-Match": tag[0]} if tag else {})}
        request = Request(url, headers=asked)  # noqa: S310, the scheme was checked
        try:
            with urlopen(request, timeout=timeout_s) as response:  # noqa: S310, as above
                content = response.read(READ_BYTES_MAX + 1)
                found = response.headers["ETag"]
        except HTTPError as e:
            with e:
                if e.code != 304:
                    raise
            follower.caught_up()
            return
        tag[:] = [found] if _take(follower, content, last) and found else []

    return Source(follower, read, every_s, forks=True)


def _take(follower: Follower, content: bytes, last: list[bytes]) -> bool:
    """Take what was read, if it is new; False if a part of it could not be read."""
    if len(content) > READ_BYTES_MAX:
        raise ValueError(f"the source has more than {READ_BYTES_MAX} bytes")
    if [content] != last:
        before = follower.errors.get("unreadable", 0)
        follower.take_all(content.splitlines())
        if follower.errors.get("unreadable", 0) > before:
            last[:] = []
            return False  # a page of a proxy is no news of experiments
        last[:] = [content]
    follower.caught_up()
    return True


def follow_confluent(follower: Follower, consumer: Any) -> Source:
    """
    Follow `lifecycle` with a consumer of confluent-kafka, in a thread.

    Parameters
    ----------
    follower : Follower
    consumer : function without arguments, or confluent_kafka.Consumer
        Makes a consumer that is assigned to the topic from its beginning::

            def connect():
                consumer = Consumer(
                    {
                        "bootstrap.servers": "127.0.0.1:9092",
                        "group.id": "unused",
                        "enable.auto.commit": False,
                        "enable.partition.eof": True,
                    }
                )
                consumer.assign([TopicPartition("lifecycle", 0, OFFSET_BEGINNING)])
                return consumer

        It is called in the thread, and again in each child after a fork; `close` closes what it
        made. A consumer that you hand in is used by nobody else, stays yours to close, and does not
        survive a fork.

        Do not `subscribe`: in a group only one server would get the events. Leave
        `isolation.level` at `read_committed`, its default: the worker writes verdicts in
        transactions, and one that was aborted never was. With `enable.partition.eof` the follower
        is ready sooner.
    """
    quiet = _Quiet(follower)
    made = _Made(consumer, os.getpid()) if callable(consumer) else None

    def read() -> None:
        source = consumer if made is None else made.consumer()
        message = source.poll(KAFKA_POLL_S)
        if message is not None and message.error() is not None:
            if message.error().code() != PARTITION_EOF:
                raise RuntimeError(str(message.error()))
            follower.caught_up()
        elif message is not None:
            quiet.events()
            follower.take(message.value(), message.offset())
        elif quiet.ask():
            assigned = source.assignment()
            _assigned(assigned)
            marks = [source.get_watermark_offsets(p, timeout=KAFKA_ANSWER_S) for p in assigned]
            quiet.answered(
                # The position is below 0 before the first event.
                [
                    (end - (low if p.offset < 0 else p.offset), p.offset < 0)
                    for (low, end), p in zip(marks, source.position(assigned), strict=True)
                ]
            )

    return Source(
        follower, read, 0.0, forks=made is not None, end=None if made is None else made.close
    )


class _Made:
    """The consumer of this process, by a function that makes one."""

    def __init__(self, connect: Callable[[], Any], pid: int) -> None:
        self._connect, self._pid = connect, pid
        self._consumer: Any = None
        self._inherited: list[Any] = []
        """Of the parents: to free one would wait for threads that a child does not have."""

    def consumer(self) -> Any:
        if self._pid != os.getpid():
            self._inherited.append(self._consumer)
            self._consumer, self._pid = None, os.getpid()
        if self._consumer is None:
            self._consumer = self._connect()
        return self._consumer

    def close(self) -> None:
        if self._consumer is not None and self._pid == os.getpid():
            self._consumer.close()


async def follow_aiokafka(follower: Follower, consumer: Any) -> None:
    """
    Follow `lifecycle` with a consumer of aiokafka, until the task is cancelled.

    Parameters
    ----------
    follower : Follower
    consumer : function without arguments, or aiokafka.AIOKafkaConsumer
        Makes a consumer of the whole topic without a group. It is started here, again and again
        while the broker is away, and stopped at the end::

            def connect():
                return AIOKafkaConsumer(
                    "lifecycle",
                    bootstrap_servers="127.0.0.1:9092",
                    group_id=None,
                    auto_offset_reset="earliest",
                    isolation_level="read_committed",
                )


            task = asyncio.create_task(follow_aiokafka(follower, connect))

        A consumer that you hand in is started, used by nobody else, and yours to stop.

        With a `group_id` only one server would get the events. Without `read_committed` a verdict
        of an aborted transaction would be read.
    """
    import asyncio

    if not callable(consumer):
        await _follow_started(follower, consumer)
        return
    while True:
        made = consumer()
        try:
            await made.start()
            await _follow_started(follower, made)
        except Exception as e:  # the broker is not there yet
            follower.failed("source", e)
            await asyncio.sleep(1.0)
        finally:
            await made.stop()


async def _follow_started(follower: Follower, consumer: Any) -> None:
    import asyncio

    quiet = _Quiet(follower)
    while True:
        try:
            batches = await consumer.getmany(timeout_ms=int(KAFKA_POLL_S * 1_000))
            for records in batches.values():
                quiet.events()
                for record in records:
                    follower.take(record.value, record.offset)
            if not batches and quiet.ask():
                async with asyncio.timeout(KAFKA_ASK_S):
                    assigned = consumer.assignment()
                    _assigned(assigned)
                    ends = await consumer.end_offsets(assigned)
                    left = [end - await consumer.position(p) for p, end in ends.items()]
                quiet.answered([(n, False) for n in left])
        except Exception as e:
            follower.failed("source", e)
            await asyncio.sleep(1.0)


def _assigned(partitions: Any) -> None:
    if not partitions:
        raise RuntimeError("the consumer has no partition; assign lifecycle to it")


class _Quiet:
    """When an idle consumer asks its broker, and what the answer means."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._event_s = time.monotonic()
        self._asked_s = float("-inf")

    def events(self) -> None:
        self._event_s = time.monotonic()

    def ask(self) -> bool:
        now_s = time.monotonic()
        if self._follower.ready and now_s - self._asked_s < KAFKA_ASK_S:
            return False
        self._asked_s = now_s
        return True

    def answered(self, left: Iterable[tuple[int, bool]]) -> None:
        """
        For each partition, how many offsets are left to read, and whether none was read yet.
        """
        self._follower.heard()
        quiet = time.monotonic() - self._event_s >= QUIET_S
        if all(n <= 0 or (quiet and not fresh) for n, fresh in left):
            self._follower.caught_up()
