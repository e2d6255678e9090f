"""
What is heard over HTTP: `/metrics`, `/live`, `/ready` and a page that links them.

Rule of the file: it reads and never changes anything, answers GET and HEAD only, and shows nobody a stack trace.
It binds to 127.0.0.1 unless it is told otherwise and has no authentication: who opens it to a network puts a proxy or a network policy before it.
"""

from __future__ import annotations

import asyncio
import gzip
import html
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TextIO

from aiohttp import web

from stream_monitor.errors import StreamMonitorError
from stream_monitor.runtime.exporter import CONTENT_TYPE

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 100
LINE_BYTES_MAX = 4_096
METRICS_TIMEOUT_S = 10.0
KEEPALIVE_S = 75.0
GZIP_MIN_BYTES = 1_024
HEADERS = {
    "Server": "stream-monitor",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>stream-monitor</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;margin:3rem}}</style>
<h1>stream-monitor</h1><p>{state}</p>
<ul><li><a href="metrics">metrics</a> for Prometheus<li><a href="ready">ready</a>: 200 when every assigned partition is open and caught up<li><a href="live">live</a>: 200 while the process answers</ul></html>
"""


class PortError(StreamMonitorError):
    """The address of the HTTP server cannot be used."""


class HttpServer:
    """
    Serves metrics and health.

    Parameters
    ----------
    host, port : str, int
        `worker.metrics`; port 0 takes a free one.
    metrics : callable
        Awaited at each scrape; returns Prometheus text (`Exporter.scrape`).
    ready : callable
        Whether the worker does its work, and a line that says why.
    """

    def __init__(self, host: str, port: int, metrics: Callable[[], Awaitable[bytes]], ready: Callable[[], tuple[bool, str]]) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> int:
        """
        Listen.

        Returns
        -------
        int
            The port, also when a free one was asked for.

        Raises
        ------
        PortError
            The port is taken, or the address is not one of this machine.
        """
        app = web.Application(middlewares=[_guarded], client_max_size=1)
        app.add_routes([web.get("/", self._page), web.get("/metrics", self._scrape), web.get("/live", self._live), web.get("/ready", self._readiness)])
        app.on_response_prepare.append(_dressed)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S, lingering_time=0, max_line_size=LINE_BYTES_MAX, max_field_size=LINE_BYTES_MAX)
        await runner.setup()
        self._runner = runner
        try:
            self._listener = await asyncio.get_running_loop().create_server(self._connection, self._host, self._port)
        except (OSError, OverflowError) as error:
            await self.stop()
            reason = getattr(error, "strerror", None) or str(error)
            raise PortError(
                f"cannot listen on {_url(self._host, self._port)}: {reason}; set worker.metrics.port to another port (0 takes a free one) and worker.metrics.host to an address of this machine"
            ) from error
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close the port and every connection; may be called at any time, and again."""
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if listener is not None:
            listener.close()
        if runner is not None:
            await runner.cleanup()
        if listener is not None:
            await listener.wait_closed()

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or len(server.connections) >= CONNECTIONS_MAX:
            return _Refused()
        return server()

    async def _page(self, _: web.Request) -> web.Response:
        ready, why = self._ready()
        return web.Response(text=PAGE.format(state=html.escape(f"{'ready' if ready else 'not ready'}: {why}")), content_type="text/html")

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _readiness(self, _: web.Request) -> web.Response:
        ready, why = self._ready()
        return web.Response(text=f"{why}\n", status=200 if ready else 503)

    async def _scrape(self, request: web.Request) -> web.Response:
        try:
            body = await asyncio.wait_for(self._metrics(), METRICS_TIMEOUT_S)
        except TimeoutError:
            return web.Response(text=f"no metrics within {METRICS_TIMEOUT_S:g} s\n", status=503)
        headers = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
        if len(body) >= GZIP_MIN_BYTES and accepts_gzip(request.headers.get("Accept-Encoding", "")):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)


def announce(host: str, port: int, out: TextIO | None = None) -> None:
    """
    Say where the server listens: the first line of the worker on stdout, which programs read.

    Examples
    --------
    >>> announce("127.0.0.1", 9108)
    listening on http://127.0.0.1:9108
    """
    print(f"listening on {_url(host, port)}", file=out or sys.stdout, flush=True)


def accepts_gzip(header: str) -> bool:
    """
    Whether an Accept-Encoding header allows gzip.

    Examples
    --------
    >>> accepts_gzip("deflate, gzip;q=0.5"), accepts_gzip("gzip;q=0"), accepts_gzip("*"), accepts_gzip("identity")
    (True, False, True, False)
    """
    allowed: dict[str, bool] = {}
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        quality = parameters.strip().removeprefix("q=").strip()
        allowed[name.strip()] = not (quality and not quality.strip("0."))
    return allowed.get("gzip", allowed.get("*", False))


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _guarded(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Turn whatever goes wrong into a short text; the trace goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return web.Response(text=f"{refusal.status} {refusal.reason}\n", status=refusal.status, headers={"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.Response(text="500 Internal Server Error\n", status=500)


async def _dressed(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers[name] = value
