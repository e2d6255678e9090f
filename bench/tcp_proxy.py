"""
A TCP proxy before a broker that loses or delays EndTxn, in a thread of its own.

Rule of the file: it knows the frames of Kafka's protocol (length, api key, correlation id) and nothing else; what is not asked to be hurt goes through byte by byte.
A delayed request reaches the broker even when its client has given up and closed the connection: that is the hazard it is there for.
It also keeps the greatest generation of the consumer group that a JoinGroup was answered with: the number of rebalances.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter, deque
from contextlib import suppress
from typing import NamedTuple

END_TXN, JOIN_GROUP = 26, 11
KINDS = ("lose_request", "lose_response", "delay_request", "delay_response")


class Fault(NamedTuple):
    kind: str
    delay_s: float


class TcpProxy:
    """Listens on `port` of 127.0.0.1 and forwards to `target`; use `start` and `stop`."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.armed: deque[Fault] = deque()
        """Faults for the next EndTxn requests, one each."""
        self.done: Counter[str] = Counter()
        """Faults that happened."""
        self.generation = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="tcp proxy", daemon=True)

    def start(self) -> TcpProxy:
        self._thread.start()
        assert self._listening.wait(10), "the proxy does not listen"
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        hurt: dict[int, tuple[int, Fault | None]] = {}
        there = asyncio.ensure_future(self._requests(reader, up_writer, hurt))
        back = asyncio.ensure_future(self._responses(up_reader, writer, hurt))
        with suppress(asyncio.CancelledError):
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            if back.done():
                there.cancel()  # the broker is gone
            await asyncio.wait({there}, timeout=60)  # a client that is gone: what it sent still arrives
        for task in (there, back):
            task.cancel()
        for end in (writer, up_writer):
            end.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hurt: dict[int, tuple[int, Fault | None]]) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", size)[0])
                key, _, correlation = struct.unpack_from(">hhi", frame)
                if key == JOIN_GROUP:
                    hurt[correlation] = key, None
                if key == END_TXN and self.armed:
                    fault = self.armed.popleft()
                    self.done[fault.kind] += 1
                    if fault.kind == "lose_request":
                        continue
                    if fault.kind == "delay_request":
                        await asyncio.sleep(fault.delay_s)
                    else:
                        hurt[correlation] = key, fault
                writer.write(size + frame)
                await writer.drain()

    async def _responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hurt: dict[int, tuple[int, Fault | None]]) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", size)[0])
                key, fault = hurt.pop(struct.unpack_from(">i", frame)[0], (0, None))
                if key == JOIN_GROUP:
                    self.generation = max(self.generation, struct.unpack_from(">i", frame, 10)[0])  # after correlation id, throttle time and error code
                if fault is not None and fault.kind == "lose_response":
                    continue
                if fault is not None:
                    await asyncio.sleep(fault.delay_s)
                writer.write(size + frame)
                await writer.drain()
