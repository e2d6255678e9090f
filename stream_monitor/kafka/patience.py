"""
Waiting for a broker that is away: which errors mean that, how to wait, and how to stop clients
meanwhile.

Rule of the file: an error that may pass by trying again is waited for; every other error is raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

log = logging.getLogger("stream_monitor")
T = TypeVar("T")
RETRY_S = 1.0
STOP_LIMIT_S = 5


def is_away(error: Exception) -> bool:
    """
    Whether an error, or the cause that aiokafka wraps in a less precise one, means that a broker
    cannot be reached now, so that trying again may help.
    """
    if isinstance(error, OSError | KafkaConnectionError | KafkaTimeoutError) or (
        isinstance(error, KafkaError) and bool(error.retriable)
    ):
        return True
    return (
        type(error) is KafkaError
        and isinstance(error.__cause__, Exception)
        and is_away(error.__cause__)
    )


async def patiently(what: str, work: Callable[[], Awaitable[T]]) -> T:
    """Repeat an operation until the broker answers; the caller sets the time limit."""
    while True:
        try:
            return await work()
        except Exception as e:
            if not is_away(e):
                raise
            log.warning("%s is waiting for the broker: %r", what, e)
        await asyncio.sleep(RETRY_S)


async def quietly(stopping: Awaitable[Any]) -> None:
    """
    Stop a client within a time limit, and ignore its errors (a client without a group may raise
    CancelledError).
    """
    with suppress(Exception, asyncio.CancelledError):
        await asyncio.wait_for(stopping, STOP_LIMIT_S)
