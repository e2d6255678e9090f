"""
A Kafka broker inside the process, for the demo and for tests: one node, memory only, bounded, plain
asyncio.

Rule of the file: sockets and tasks are here, answers are in `handlers.py` and `group_handlers.py`.
The broker has no disk, replication, compaction, time retention or security, and it refuses
transactions. It listens on 127.0.0.1 by default. A reader whose records were already dropped gets
OFFSET_OUT_OF_RANGE.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import struct
import threading
from collections import Counter
from io import BytesIO
from typing import Any, Self

from stream_monitor.demo.calls import Address, Call
from stream_monitor.demo.groups import REAP_S
from stream_monitor.demo.handlers import Handlers
from stream_monitor.demo.protocol import (
    API_VERSIONS,
    FRAME_BYTES_MAX,
    REQUESTS,
    api_versions,
    frame,
    read_header,
)
from stream_monitor.demo.topics import Topics

log = logging.getLogger(__name__)
PRODUCE = 0
ANSWERS_WAITING_MAX = 64
START_TIMEOUT_S = 10.0
ACCEPT_STEPS = 5
BYTES_MAX = 8 << 20


class Broker:
    """
    The broker; start and stop it on one event loop.

    Parameters
    ----------
    partitions : int
        Default number of partitions of a topic.
    bytes_max : int
        Size limit of a partition; beyond it the oldest batches are dropped.
    join_delay_s : float
        How long a group waits for further members (Kafka: 3 s).

    Examples
    --------
    >>> async def listens() -> bool:
    ...     async with Broker() as broker:
    ...         return broker.bootstrap.startswith("127.0.0.1:")
    >>> asyncio.run(listens())
    True
    """

    def __init__(
        self, *, partitions: int = 4, bytes_max: int = BYTES_MAX, join_delay_s: float = 0.05
    ) -> None:
        self.topics = Topics(partitions, bytes_max)
        self.errors: Counter[str] = Counter()
        """Requests of clients that could not be answered."""
        self._address = Address()
        self._handlers = Handlers(self.topics, self._address, join_delay_s)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._reaper: asyncio.Task[None] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"{self._address.host}:{self._address.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Broker:
        """Listen; port 0 means a free one."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=1 << 20)
        self._address.host, self._address.port = self._server.sockets[0].getsockname()[:2]
        self._reaper = asyncio.create_task(self._reap(), name="demo-broker-reaper")
        return self

    async def stop(self) -> None:
        """
        Close the port and all connections; returns when no task is left.

        All stored records are gone with the object.
        """
        if self._server is None or self._reaper is None:
            return
        self._server.close()
        for _ in range(ACCEPT_STEPS):
            # a connection that is just being accepted must be known here, to be closed
            await asyncio.sleep(0)
        self._reaper.cancel()
        for group in self._handlers.groups.by_name.values():
            group.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(self._reaper, *self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = self._reaper = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_S)
            now_s = asyncio.get_running_loop().time()
            for name, group in self._handlers.groups.by_name.items():
                for member in group.reap(now_s):
                    log.info("member %s of group %s was silent and is out", member, name)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(
            self._connection(reader, writer), name="demo-broker-connection"
        )
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        # A task that is cancelled before its first step runs no `finally`.
        connection.add_done_callback(lambda _: writer.close())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: asyncio.Queue[_Answer] = asyncio.Queue(ANSWERS_WAITING_MAX)
        sender = asyncio.create_task(_send(answers, writer), name="demo-broker-sender")
        try:
            await self._serve(reader, answers, sender)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            while not answers.empty():
                answers.get_nowait().drop()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        answers: asyncio.Queue[_Answer],
        sender: asyncio.Task[None],
    ) -> None:
        """
        Read requests until the client leaves or sends something unknown. The answers leave in the
        order of the requests.
        """
        try:
            while not sender.done():
                size = struct.unpack(">i", await reader.readexactly(4))[0]
                if not 0 < size <= FRAME_BYTES_MAX:
                    self._refuse(f"a frame of {size} bytes")
                    return
                answer = self._answer(BytesIO(await reader.readexactly(size)))
                if answer is None:
                    return
                if answer.wanted:
                    await answers.put(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _answer(self, body: BytesIO) -> _Answer | None:
        """Start to answer a request. `None`: the request is unknown, so close the connection."""
        try:
            header = read_header(body)
            if header.api_key == API_VERSIONS:
                return _Answer(header.correlation_id, None, api_versions(header.api_version))
            request_class = REQUESTS.get((header.api_key, header.api_version))
            if request_class is None:
                self._refuse(f"API {header.api_key} version {header.api_version}")
                return None
            request = request_class.decode(body)
        except (ValueError, TypeError, UnicodeDecodeError) as error:
            self._refuse(f"a request that cannot be read ({type(error).__name__})")
            return None
        try:
            result = self._handlers.by_api_key[header.api_key](
                Call(request, header.api_version, header.client_id)
            )
        except Exception:
            self.errors["handler"] += 1
            log.exception(
                "the demo broker cannot answer API %d version %d",
                header.api_key,
                header.api_version,
            )
            return None
        if inspect.iscoroutine(result):
            result = asyncio.ensure_future(result)
        return _Answer(
            header.correlation_id,
            request_class.RESPONSE_TYPE,
            result,
            wanted=header.api_key != PRODUCE or request.required_acks != 0,
        )

    def _refuse(self, what: str) -> None:
        self.errors[what] += 1
        log.warning("the demo broker does not understand %s and hangs up", what)


class _Answer:
    """An answer that may not be ready yet."""

    def __init__(
        self, correlation_id: int, response: Any, result: Any, *, wanted: bool = True
    ) -> None:
        self.correlation_id = correlation_id
        self.response = response
        self.result = result
        self.wanted = wanted

    async def encode(self) -> bytes:
        """Wait for the answer; returns the frame to send."""
        if self.response is None:
            return frame(self.correlation_id, self.result)
        fields = await self.result if asyncio.isfuture(self.result) else self.result
        return frame(self.correlation_id, self.response(*fields).encode())

    def drop(self) -> None:
        """Cancel the answer, because nobody waits for it any more."""
        if asyncio.isfuture(self.result):
            self.result.cancel()


async def _send(answers: asyncio.Queue[_Answer], writer: asyncio.StreamWriter) -> None:
    while True:
        answer = await answers.get()
        try:
            writer.write(await answer.encode())
            await writer.drain()
        except ConnectionError:
            return
        except Exception:
            log.exception("the demo broker cannot encode an answer")
            writer.close()
            return
        finally:
            answer.drop()


class BrokerThread:
    """A broker on an event loop and a daemon thread of its own; `stop` ends both."""

    def __init__(
        self, broker: Broker, loop: asyncio.AbstractEventLoop, thread: threading.Thread
    ) -> None:
        self.broker = broker
        self.bootstrap = broker.bootstrap
        self._loop = loop
        self._thread = thread

    def stop(self) -> None:
        """Close the broker and wait for the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self.broker.stop(), self._loop).result(START_TIMEOUT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_in_thread(
    *, host: str = "127.0.0.1", port: int = 0, partitions: int = 4, bytes_max: int = BYTES_MAX
) -> BrokerThread:
    """
    Start a broker on a thread of its own.

    Returns
    -------
    BrokerThread
        With `bootstrap` for clients and `stop()`.

    Raises
    ------
    OSError
        The port is in use.

    Examples
    --------
    >>> with start_in_thread() as broker:
    ...     broker.bootstrap.split(":")[0]
    '127.0.0.1'
    """
    broker, loop = Broker(partitions=partitions, bytes_max=bytes_max), asyncio.new_event_loop()
    started: list[BaseException | None] = []
    ready = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(broker.start(host, port))
            started.append(None)
        except OSError as error:
            started.append(error)
        ready.set()
        if started[0] is None:
            loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run, name="demo-broker", daemon=True)
    thread.start()
    if not ready.wait(START_TIMEOUT_S):
        raise OSError("the demo broker did not start")
    if started[0] is not None:
        thread.join(START_TIMEOUT_S)
        raise started[0]
    return BrokerThread(broker, loop, thread)
