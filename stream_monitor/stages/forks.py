"""
Forks of the process, in which records are tried that may end it without an exception.

Rule of the file: a fork writes only how far it came, and ends by itself. The kernel reports what
ended it. A fork that was killed from outside proves nothing about its records.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from stream_monitor.stages.poison import MESSAGE_MAX_CHARS, TRIES, summary

log = logging.getLogger("stream_monitor")
COPIES = sys.platform == "linux"
"""
Whether a fork of the process works reliably. On other systems than Linux, system libraries do not
survive a fork.
"""
Step = Callable[[], object]


class Limits(NamedTuple):
    """
    What one step may use in a fork.

    A normal step needs a small part of each. The times are below the one after which the hub's
    watchdog ends the process.
    """

    cpu_s: int = 20
    wall_s: int = 60
    memory_bytes: int = 1 << 30
    """Besides the memory that the fork starts with."""


LIMITS = Limits()


class EndedError(Exception):
    """What ended a fork of the process, in a line."""


async def culprits(
    attempt: Callable[[int, int], Awaitable[None]], start: int, end: int
) -> list[tuple[int, EndedError]]:
    """
    Records between `start` and `end` that end an attempt `TRIES` times. They are found by halving:
    each record alone, or all of the smallest run that ends an attempt only together.

    >>> async def attempt(start, end):
    ...     if 3 in range(start, end):
    ...         raise EndedError("signal 11")
    >>> asyncio.run(culprits(attempt, 0, 10))
    [(3, EndedError('signal 11'))]
    """
    for _ in range(TRIES):
        try:
            await attempt(start, end)
        except EndedError as e:
            ended = e
        else:
            return []
        middle = (start + end) // 2
        if end - start > 1 and (
            found := await culprits(attempt, start, middle) + await culprits(attempt, middle, end)
        ):
            return found
    return [(i, ended) for i in range(start, end)]


async def apart(steps: Iterable[Step], limits: Limits = LIMITS) -> tuple[int, str]:
    """
    Run steps in a fork of the process, which one of them may end. Without forks only exceptions are
    found.

    Returns
    -------
    number of steps that succeeded, and what ended the fork; the text is empty if nothing did, and
    if the fork was killed from outside, because that proves nothing about the steps
    """
    if not COPIES:
        return _in_place(steps)
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python warns about threads; none of them holds a lock that a step needs
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()  # on the event loop, so nothing is half done
    if pid == 0:
        _copy(steps, write, limits)
    os.close(write)
    try:
        return await asyncio.to_thread(_outcome, pid, read, limits)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise


def _in_place(steps: Iterable[Step]) -> tuple[int, str]:
    done = 0
    try:
        for step in steps:
            step()
            done += 1
    except Exception as e:
        return done, summary(e)
    return done, ""


def _copy(steps: Iterable[Step], write: int, limits: Limits) -> NoReturn:
    try:
        import resource

        def limit(kind: int, most: int) -> None:
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(
                kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
            )

        signal.set_wakeup_fd(-1)  # it belongs to the event loop of the parent
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(3, write)  # connections, and the HTTP port
        os.closerange(write + 1, 1 << 16)
        logging.disable()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, size + limits.memory_bytes)
        limit(resource.RLIMIT_CORE, 0)
        for step in steps:
            limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + limits.cpu_s)
            signal.alarm(limits.wall_s)  # also for a fork whose worker is gone
            step()
            os.write(write, b"\0")
    except BaseException as e:
        os.write(write, summary(e)[:MESSAGE_MAX_CHARS].encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _outcome(pid: int, read: int, limits: Limits) -> tuple[int, str]:
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    done, why = said.count(b"\0"), said.lstrip(b"\0").decode()
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        log.error(
            "a fork of the worker, in which records were tried, was killed from outside; is "
            "memory short?"
        )
    elif code < 0:
        why = f"signal {signal.Signals(-code).name}"
        why += {
            signal.SIGXCPU: f", {limits.cpu_s} s of CPU time were used up",
            signal.SIGALRM: f", {limits.wall_s} s had passed",
        }.get(signal.Signals(-code), "")
    elif code > 0:
        why = f"exit code {code}"
    return done, why


async def enders(
    where: str, steps: Mapping[int, Step], wanted: Callable[[], bool]
) -> dict[int, str]:
    """
    Steps, by offset, that end a fork of the process `TRIES` times when they run one after the
    other, and what ended it. A step that ends the fork is left out for the steps after it.

    Parameters
    ----------
    where : str
        For the log.
    steps : mapping of offset to callable
    wanted : callable
        Called before each fork; False stops.
    """
    found: dict[int, str] = {}
    ended: Counter[int] = Counter()
    while (waiting := [offset for offset in steps if offset not in found]) and wanted():
        done, why = await apart(steps[offset] for offset in waiting)
        if not why:
            break
        offset = waiting[done]
        ended[offset] += 1
        log.error(
            "%s@%d crashes a fork of the worker (attempt %d): %s", where, offset, ended[offset], why
        )
        if ended[offset] >= TRIES:
            found[offset] = why
    return found
