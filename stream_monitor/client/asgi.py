"""
ASGI middleware: each request to a model is a call of the monitor.

Rule of the file: no framework is imported; it is a plain ASGI application around another one. The
body of a response is not read: the endpoint says what the model answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from stream_monitor.client.monitoring import Call, Monitor
from stream_monitor.client.routing import Key

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class MonitorMiddleware:
    """
    Report requests as calls of a model; the endpoint answers `current_call().answer(…)`.

    Parameters
    ----------
    app : ASGI application
    monitor : Monitor
    paths : collection of str, or function of a path
        Requests to these paths are calls of the model; all others pass.
    unit, event_id : functions of the ASGI scope, optional
        As for `Monitor.call`. `header("x-user-id")` reads a header.

    Notes
    -----
    An exception, and a response of 500 or more, is an event with `status` "error". A response of
    400 to 499 is the fault of the client: no event, counted as `client_error`. The latency is that
    of the whole response.

    Examples
    --------
    With FastAPI or Starlette::

        app.add_middleware(
            MonitorMiddleware, monitor=monitor, paths=["/predict"], unit=header("x-user-id")
        )
    """

    def __init__(
        self,
        app: App,
        monitor: Monitor,
        paths: Collection[str] | Callable[[str], bool],
        *,
        unit: Callable[[Scope], Key | None] | None = None,
        event_id: Callable[[Scope], str | None] | None = None,
    ) -> None:
        if isinstance(paths, str):
            raise TypeError(f"paths: expected a list of paths, got {paths!r}; write [{paths!r}]")
        self.app, self.monitor = app, monitor
        self._of_model = paths if callable(paths) else frozenset(paths).__contains__
        self._unit, self._event_id = unit, event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._of_model(scope["path"]):
            await self.app(scope, receive, send)
            return
        call = self._call(scope)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                call.stop_clock()  # tasks that run after the response are not its latency
            await send(message)

        with call:
            await self.app(scope, receive, watched)
            if status >= 500:
                call.fail()
            elif status >= 400:
                call.leave_out("client_error", f"status {status}")

    def _call(self, scope: Scope) -> Call:
        unit, event_id = None, None
        try:
            unit = self._unit(scope) if self._unit else None
            event_id = self._event_id(scope) if self._event_id else None
        except Exception as e:
            self.monitor.sender.fault("unit", e)
        return self.monitor.call(unit=unit, event_id=event_id)


def header(name: str) -> Callable[[Scope], str | None]:
    """
    Make a function that reads a header of a request; None if it is missing or empty.

    Examples
    --------
    >>> header("X-User-Id")({"headers": [(b"x-user-id", b"user-17")]})
    'user-17'
    """
    wanted = name.lower().encode("latin-1")

    def read(scope: Scope) -> str | None:
        for key, value in scope["headers"]:
            if key.lower() == wanted:
                return value.decode("latin-1") or None
        return None

    return read
