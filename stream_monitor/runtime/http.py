"""
The HTTP endpoint: `/metrics`, `/live`, `/ready` and a page that links them.

Rule of the file: it reads and never changes anything, answers only GET and HEAD, and never shows a
stack trace. It listens on 127.0.0.1 by default. With a token, clients must send it, except for
`/live` and `/ready`: the probes of an orchestrator have no token, and these two tell almost
nothing. When all connections are in use, an idle one is closed for a new one, so that idle and slow
clients cannot shut others out.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import html
import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

from aiohttp import web

from stream_monitor.errors import StreamMonitorError
from stream_monitor.kafka.tls import server_context
from stream_monitor.settings import HttpSettings

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 4_096
KEEPALIVE_S = 75.0
HANDSHAKE_S = 10.0
SWEEP_S = 1.0
"""Time between two checks for connections that have waited too long, s."""
OPEN_PATHS = frozenset({"/live", "/ready"})
GZIP_MIN_BYTES = 1_024
HEADERS = {
    "Server": "stream-monitor",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    ),
}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>stream-monitor</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;margin:3rem}}</style>
<h1>stream-monitor</h1><p>{state}</p>
<ul><li><a href="metrics">metrics</a> for Prometheus<li><a href="ready">ready</a>: 200 when every assigned partition is open and caught up<li><a href="live">live</a>: 200 while the process answers</ul></html>
"""  # noqa: E501


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limits(NamedTuple):
    """The limits for clients."""

    connections: int = 100
    scrape_s: float = 10.0
    """Time to make the text of the metrics, s."""
    ask_s: float = 10.0
    """Time in which a new connection must have sent a request, s."""
    request_s: float = 100.0
    """
    Time from one request to the next, including reading the answer, s; longer than usual intervals
    of Prometheus.
    """


LIMITS = Limits()


class PortError(StreamMonitorError):
    """The address of the HTTP server cannot be used."""


class HttpServer:
    """
    Serves metrics and health.

    Parameters
    ----------
    settings : HttpSettings
        `worker.metrics`; port 0 means a free one.
    metrics : callable
        Awaited at each scrape with the Accept header; returns the text and its content type
        (`Exporter.scrape`).
    ready : callable
        Whether the worker does its work, and a line that gives the reason.
    limits : Limits
    key : str
        The key of the port, for messages.
    """

    def __init__(
        self,
        settings: HttpSettings,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        ready: Callable[[], tuple[bool, str]],
        limits: Limits = LIMITS,
        *,
        key: str = "worker.metrics.port",
    ) -> None:
        self._key = key
        self._settings = settings
        self._wanted = f"Bearer {settings.token.reveal()}".encode() if settings.token else None
        self._metrics = metrics
        self._ready = ready
        self._limits = limits
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._guests: _Guests | None = None

    async def start(self) -> int:
        """
        Listen.

        Returns
        -------
        int
            The port, also if a free one was requested.

        Raises
        ------
        PortError
            The port is in use, or the address does not belong to this machine.
        ConfigError
            The certificate cannot be used.
        """
        context = server_context(self._settings)
        app = web.Application(middlewares=[self._admitted, _guarded], client_max_size=1)
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/metrics", self._scrape),
                web.get("/live", self._live),
                web.get("/ready", self._readiness),
            ]
        )
        app.on_response_prepare.append(_dressed)
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=0,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
        )
        await runner.setup()
        self._runner = runner
        assert runner.server is not None
        self._guests = _Guests(runner.server, self._limits)
        try:
            self._listener = await self._listening(context)
        except (OSError, OverflowError) as error:
            await self.stop()
            reason = getattr(error, "strerror", None) or str(error)
            raise PortError(
                f"cannot listen on {self._settings.url(self._settings.port)}: {reason}; set "
                f"{self._key} to another port (0 takes a free one) and "
                "worker.metrics.host to an address of this machine"
            ) from error
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _listening(self, context: ssl.SSLContext | None) -> asyncio.Server:
        """
        A listener on one port. Without this, a host with several addresses would get a free port
        for each.
        """

        async def on(port: int) -> asyncio.Server:
            handshake_s = HANDSHAKE_S if context else None
            return await asyncio.get_running_loop().create_server(
                self._connection,
                self._settings.host,
                port,
                ssl=context,
                ssl_handshake_timeout=handshake_s,
            )

        found = await on(self._settings.port)
        port, *others = (each.getsockname()[1] for each in found.sockets)
        if any(other != port for other in others):
            found.close()
            found = await on(port)
        return found

    async def stop(self) -> None:
        """Close the port and every connection; may be called at any time, and again."""
        listener, self._listener = self._listener, None
        runner, self._runner = self._runner, None
        if listener is not None:
            listener.close()
        if self._guests is not None:
            self._guests.stop()
        if runner is not None:
            await runner.cleanup()
        if listener is not None:
            await listener.wait_closed()

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or self._guests is None or not self._guests.room():
            return _Refused()
        return server()

    @web.middleware
    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """
        Answer only clients that send the token, if there is one; `/live` and `/ready` are open.
        """
        assert self._guests is not None
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if (
            self._wanted is None
            or request.path in OPEN_PATHS
            or hmac.compare_digest(given, self._wanted)
        ):
            with self._guests.served(request.protocol):
                return await handler(request)
        return web.Response(
            text="401 Unauthorized\n",
            status=401,
            headers={"WWW-Authenticate": 'Bearer realm="stream-monitor"'},
        )

    async def _page(self, _: web.Request) -> web.Response:
        ready, why = self._ready()
        return web.Response(
            text=PAGE.format(state=html.escape(f"{'ready' if ready else 'not ready'}: {why}")),
            content_type="text/html",
        )

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def _readiness(self, _: web.Request) -> web.Response:
        ready, why = self._ready()
        return web.Response(text=f"{why}\n", status=200 if ready else 503)

    async def _scrape(self, request: web.Request) -> web.Response:
        try:
            body, content_type = await asyncio.wait_for(
                self._metrics(request.headers.get("Accept", "")), self._limits.scrape_s
            )
        except TimeoutError:
            return web.Response(
                text=f"no metrics ready within {self._limits.scrape_s:g} s\n", status=503
            )
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if len(body) >= GZIP_MIN_BYTES and accepts_gzip(request.headers.get("Accept-Encoding", "")):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)


def announce(settings: HttpSettings, port: int, out: TextIO | None = None) -> None:
    """
    Print the address of the server: the first line of the worker on stdout, which programs read.

    Examples
    --------
    >>> announce(HttpSettings(), 9108)
    listening on http://127.0.0.1:9108
    """
    print(f"listening on {settings.url(port)}", file=out or sys.stdout, flush=True)


def accepts_gzip(header: str) -> bool:
    """
    Whether an Accept-Encoding header allows gzip.

    Examples
    --------
    >>> (
    ...     accepts_gzip("deflate, gzip;q=0.5"),
    ...     accepts_gzip("gzip;q=0"),
    ...     accepts_gzip("*"),
    ...     accepts_gzip("identity"),
    ... )
    (True, False, True, False)
    """
    allowed: dict[str, bool] = {}
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        quality = parameters.strip().removeprefix("q=").strip()
        allowed[name.strip()] = not (quality and not quality.strip("0."))
    return allowed.get("gzip", allowed.get("*", False))


class _Guests:
    """
    The connected clients, and when each last sent a request.

    `server.connections` lists them, the oldest first.
    """

    def __init__(self, server: web.Server, limits: Limits) -> None:
        self._server, self._limits = server, limits
        self._loop = asyncio.get_running_loop()
        self._asked: dict[object, float] = {}
        self._served: set[object] = set()
        self._came: dict[object, float] = {}
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def room(self) -> bool:
        """
        Whether one more client may connect.

        If the server is full, one connection is closed for it: one that has sent no request, the
        oldest first; otherwise the one whose last request is longest ago. A client that is being
        served keeps its connection.
        """
        present = [
            each
            for each in self._server.connections
            if each.transport is not None and not each.transport.is_closing()
        ]
        if len(present) < self._limits.connections:
            return True
        idle = min(
            (each for each in present if each not in self._served),
            key=lambda each: self._asked.get(each, 0.0),
            default=None,
        )
        if idle is not None:
            _drop(idle)
        return idle is not None

    @contextmanager
    def served(self, guest: object) -> Iterator[None]:
        """Context of answering a request."""
        self._asked[guest] = self._loop.time()
        self._served.add(guest)
        try:
            yield
        finally:
            self._served.discard(guest)

    def _sweep(self) -> None:
        now = self._loop.time()
        present = list(self._server.connections)
        self._asked = {each: self._asked[each] for each in present if each in self._asked}
        self._came = {each: self._came.get(each, now) for each in present}
        for each in present:
            if now - self._asked.get(each, now) > self._limits.request_s or (
                each not in self._asked and now - self._came[each] > self._limits.ask_s
            ):
                _drop(each)
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        self._timer.cancel()


def _drop(guest: Any) -> None:
    if isinstance(guest.transport, asyncio.WriteTransport):
        # `close` would wait until the client reads the rest
        guest.transport.abort()


class _Refused(asyncio.Protocol):
    """The protocol of a connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a short text; the trace goes to the log."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        return web.Response(
            text=f"{refusal.status} {refusal.reason}\n",
            status=refusal.status,
            headers={"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else None,
        )
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.Response(text="500 Internal Server Error\n", status=500)


async def _dressed(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers[name] = value
