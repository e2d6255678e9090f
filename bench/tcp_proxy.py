"""
A TCP proxy before a broker that loses or delays EndTxn, in a process of its own.

Rule of the file: it knows the frames of Kafka's protocol (length, api key, correlation id) and
nothing else; what is not asked to be hurt goes through byte by byte. A delayed request reaches the
broker even when its client has given up and closed the connection: that is the hazard it is there
for. It also tells the generation of the consumer group that each JoinGroup was answered with: the
number of rebalances. A process, because a thread beside busy ones would stall everybody's
heartbeats. It is told faults by lines (`KIND SECONDS`, `clear`) and tells what happened by lines.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
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
    """
    The proxy as the chaos run sees it: listens on `port` of 127.0.0.1 and forwards to `target`; use
    `start` and `stop`.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.done: Counter[str] = Counter()
        """Faults that happened."""
        self.generation = 0

    def start(self) -> TcpProxy:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.port), str(self.target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n", "the proxy does not listen"
        threading.Thread(target=self._listen, name="proxy", daemon=True).start()
        return self

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, value = line.split()
            if what == "generation":
                self.generation = max(self.generation, int(value))
            else:
                self.done[value] += 1

    def arm(self, fault: Fault) -> None:
        """Hurt the next EndTxn."""
        self._tell(f"{fault.kind} {fault.delay_s}")

    def disarm(self) -> None:
        """Hurt none of those that come."""
        self._tell("clear 0")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


class Server:
    """What runs in the process."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.armed: deque[Fault] = deque()
        """Faults for the next EndTxn requests, one each."""

    async def serve(self, port: int) -> None:
        """Until stdin is closed: with whoever started it, it ends."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        print("listening", flush=True)
        stdin = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
        )
        while line := await stdin.readline():
            kind, delay = line.decode().split()
            if kind == "clear":
                self.armed.clear()
            else:
                self.armed.append(Fault(kind, float(delay)))
        server.close()

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
            # a client that is gone: what it sent still arrives
            await asyncio.wait({there}, timeout=60)
        for task in (there, back):
            task.cancel()
        for end in (writer, up_writer):
            end.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hurt: dict[int, tuple[int, Fault | None]],
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", size)[0])
                key, _, correlation = struct.unpack_from(">hhi", frame)
                if key == JOIN_GROUP:
                    hurt[correlation] = key, None
                if key == END_TXN and self.armed:
                    fault = self.armed.popleft()
                    print("hurt", fault.kind, flush=True)
                    if fault.kind == "lose_request":
                        continue
                    if fault.kind == "delay_request":
                        await asyncio.sleep(fault.delay_s)
                    else:
                        hurt[correlation] = key, fault
                writer.write(size + frame)
                await writer.drain()

    async def _responses(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hurt: dict[int, tuple[int, Fault | None]],
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = await reader.readexactly(4)
                frame = await reader.readexactly(struct.unpack(">i", size)[0])
                key, fault = hurt.pop(struct.unpack_from(">i", frame)[0], (0, None))
                if key == JOIN_GROUP:
                    # after correlation id, throttle time and error code
                    print("generation", struct.unpack_from(">i", frame, 10)[0], flush=True)
                if fault is not None and fault.kind == "lose_response":
                    continue
                if fault is not None:
                    await asyncio.sleep(fault.delay_s)
                writer.write(size + frame)
                await writer.drain()


if __name__ == "__main__":
    asyncio.run(Server(int(sys.argv[2])).serve(int(sys.argv[1])))
