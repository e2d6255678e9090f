"""
The port of a program that is no worker: `/metrics`, `/live` and `/ready`, as a worker has them.

Rule of the file: it serves what it is given, and knows no program.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from stream_monitor.metrics.samples import AnySample
from stream_monitor.runtime.exporter import Exporter
from stream_monitor.runtime.http import HttpServer
from stream_monitor.settings import HttpSettings


@asynccontextmanager
async def serving_at(
    address: HttpSettings,
    samples: Callable[[], Iterator[AnySample]],
    ready: Callable[[], tuple[bool, str]],
    *,
    key: str,
    series_limit: int,
) -> AsyncIterator[int]:
    """
    Serve while the block runs; gives the port.

    Parameters
    ----------
    address : HttpSettings
    samples : callable
        Returns what `/metrics` shows; it is called at each scrape.
    ready : callable
        Returns whether the program does its work, and a line that says so.
    key : str
        The key of the configuration with the port, for messages.
    series_limit : int

    Raises
    ------
    PortError
        The port is in use.
    ConfigError
        The certificate cannot be used.
    """
    exporter = Exporter(lambda: [samples()], series_limit=series_limit)
    server = HttpServer(address, exporter.scrape, ready, key=key)
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()
