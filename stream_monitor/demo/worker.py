"""
The worker of the demo: a process of its own, configured by a file in a temporary directory.

Rule of the file: it is started and stopped as an operator would do it (`worker --config FILE`,
SIGTERM), so the demo shows the real product.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from stream_monitor.demo.simulation import MODEL
from stream_monitor.errors import BrokerError
from stream_monitor.settings import KafkaSettings

NEW_PROCESS_GROUP = 0x200
"""CREATE_NEW_PROCESS_GROUP of Windows."""
COMMAND = (sys.executable, "-m", "stream_monitor", "worker")
LISTENING = "listening on "
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
READY_POLL_S = 0.1
LOG_LINES_SHOWN = 15
WINDOW = "last_500"
ACCURACY_MIN = 0.8


def configuration(
    kafka: KafkaSettings, *, guarantee: str, port: int, baseline_rows: int
) -> dict[str, Any]:
    """Content of `monitor.yaml` for the demo; topics and group have the same prefix."""
    return {
        "kafka": {
            "bootstrap_servers": kafka.bootstrap_servers,
            "topic_prefix": kafka.topic_prefix,
            "create_topics": True,
        },
        "worker": {
            "group": f"{kafka.topic_prefix}stream-monitor",
            "processing_guarantee": guarantee,
            "auto_offset_reset": "earliest",
            "metrics": {"host": "127.0.0.1", "port": port},
        },
        "models": {
            MODEL: {
                "task": "binary",
                "windows": [WINDOW, "1m"],
                "labels": {"max_delay": "10m"},
                "baseline": {"source": "learn", "rows": baseline_rows},
                "segments": ["country"],
                "thresholds": {
                    "accuracy": {
                        "min": ACCURACY_MIN,
                        "severity": "critical",
                        "window": WINDOW,
                        "min_labels": 100,
                    }
                },
            }
        },
    }


def free_port(wanted: int) -> int:
    """The wanted port if it is free, otherwise 0 (the worker then uses any)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


class WorkerProcess:
    """
    A worker, to be used in `async with`: ready on entry, ended on exit.

    Parameters
    ----------
    settings : dict
        Content of its `monitor.yaml`.
    command : sequence of str
        Command that starts it; `--config FILE` is added.

    Raises
    ------
    BrokerError
        On entry if it ends or is not ready in time; with the end of its log.
    """

    def __init__(self, settings: dict[str, Any], command: Sequence[str] = COMMAND) -> None:
        self.url = ""
        """Address of its `/metrics`."""
        self._settings = settings
        self._command = command
        self._directory = tempfile.TemporaryDirectory(prefix="stream-monitor-demo-")
        self._process: asyncio.subprocess.Process | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES_SHOWN)
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        path = Path(self._directory.name) / "monitor.yaml"
        path.write_text(json.dumps(self._settings, indent=2), encoding="utf-8")  # JSON is YAML
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("STREAM_MONITOR_")
        }
        # Ctrl-C goes to the whole foreground group; the worker is stopped by us, after the last
        # event.
        group: dict[str, Any] = (
            {"creationflags": NEW_PROCESS_GROUP}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--config",
                str(path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                **group,
            )
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._started(self._process)
        except TimeoutError:
            await self.__aexit__()
            raise BrokerError(
                f"the worker was not ready within {START_TIMEOUT_S:.0f} s{self._tail()}"
            ) from None
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._directory.cleanup()

    async def wait(self) -> None:
        """
        Never return, unless the worker ends by itself.

        Raises
        ------
        BrokerError
            The worker ended.
        """
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        raise BrokerError(f"the worker ended with code {code}{self._tail()}")

    async def _started(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers.append(asyncio.create_task(self._drain(process.stderr)))
        ended = asyncio.create_task(self.wait())
        try:
            while not self.url:
                line = (await process.stdout.readline()).decode(errors="replace").strip()
                if not line:
                    await ended
                self._log.append(line)
                self.url = line.removeprefix(LISTENING) if line.startswith(LISTENING) else ""
            self._readers.append(asyncio.create_task(self._drain(process.stdout)))
            ready = asyncio.create_task(self._ready())
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                await ended
            await ready
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._log.append(line.decode(errors="replace").rstrip())

    async def _ready(self) -> None:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/ready") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(READY_POLL_S)

    def _tail(self) -> str:
        return (
            "; the end of its log:\n" + "\n".join(f"  {line}" for line in self._log)
            if self._log
            else ""
        )
