"""
The port of a program that is no worker: `/metrics`, `/live` and `/ready`, as a worker has them.

Rule of the file: it serves what it is given, and knows of a program its port alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from stream_monitor.metrics.samples import AnySample
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.runtime.http import HttpServer
from stream_monitor.settings import HttpSettings, Settings

Program = Literal["archive", "lifecycle"]
"""Parts of the configuration whose `port` it is."""


def address(settings: Settings, program: Program) -> HttpSettings:
    """
    Where a program listens: as a worker (`worker.metrics`), on its own port.

    >>> address(Settings(), "archive").port, address(Settings(), "lifecycle").port
    (9110, 9109)
    """
    port = settings.archive.port if program == "archive" else settings.lifecycle.port
    return msgspec.structs.replace(settings.worker.metrics, port=port)


@asynccontextmanager
async def serving_at(
    settings: Settings,
    program: Program,
    samples: Callable[[], Iterator[AnySample]],
    ready: Callable[[], tuple[bool, str]],
) -> AsyncIterator[int]:
    """
    Serve while the block runs; gives the port.

    Parameters
    ----------
    settings : Settings
    program : {"archive", "lifecycle"}
    samples : callable
        Returns what `/metrics` shows; it is called at each scrape.
    ready : callable
        Returns whether the program does its work, and a line that says so.

    Raises
    ------
    PortError
        The port is in use.
    ConfigError
        The certificate cannot be used.
    """
    exporter = Exporter(lambda: [samples()], series_limit=settings.core.limits.series)
    at = address(settings, program)
    server = HttpServer(at, exporter.scrape, ready, key=f"{program}.port")
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()
