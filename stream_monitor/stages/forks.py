"""
Copies of the process (forks), in which records are tried that may end it without an exception.

Rule of the file: a copy writes nothing but how far it came, and ends by itself. What ended it is
told by the kernel; only who is killed from outside tells nothing.
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
from typing import NoReturn

from stream_monitor.stages.poison import MESSAGE_MAX_CHARS, TRIES, summary

log = logging.getLogger("stream_monitor")
COPIES = sys.platform == "linux"
"""
Whether a copy of the process can be trusted to work: elsewhere libraries of the system do not
survive it.
"""
COPY_CPU_S = 20
COPY_S = 60
COPY_BYTES = 1 << 30
"""
What a step may take in a copy, besides the memory that it begins with.

It needs a small part of each, and less than after what the watchdog of the hub ends the process.
"""

Step = Callable[[], object]


class EndedError(Exception):
    """What ended a copy of the process, in a line."""


async def culprits(
    attempt: Callable[[int, int], Awaitable[None]], start: int, end: int
) -> list[tuple[int, EndedError]]:
    """
    Which of the records `start` to `end` end an attempt `TRIES` times, found by halving: each
    alone, or all of the smallest run that does it only together.

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


async def apart(steps: Iterable[Step]) -> tuple[int, str]:
    """
    Take steps in a copy of the process, which may end over one of them. Where there are no copies
    only what raises is found.

    Returns
    -------
    how many went well, and what ended the copy: empty when nothing did, and when it was killed from
    outside, which says nothing of the steps
    """
    if not COPIES:
        return _in_place(steps)
    read, write = os.pipe()
    with warnings.catch_warnings():
        # of the threads, none of which holds what a step needs
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()  # on the loop, where nothing is half done
    if pid == 0:
        _copy(steps, write)
    os.close(write)
    try:
        return await asyncio.to_thread(_outcome, pid, read)
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


def _copy(steps: Iterable[Step], write: int) -> NoReturn:
    try:
        import resource

        def limit(kind: int, most: int) -> None:
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(
                kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
            )

        signal.set_wakeup_fd(-1)  # which is the one of the loop that was copied
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(3, write)  # connections, and the port
        os.closerange(write + 1, 1 << 16)
        logging.disable()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, size + COPY_BYTES)
        limit(resource.RLIMIT_CORE, 0)
        for step in steps:
            limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + COPY_CPU_S)
            signal.alarm(COPY_S)  # also for a copy whose worker is gone
            step()
            os.write(write, b"\0")
    except BaseException as e:
        os.write(write, summary(e)[:MESSAGE_MAX_CHARS].encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _outcome(pid: int, read: int) -> tuple[int, str]:
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
            signal.SIGXCPU: f", {COPY_CPU_S} s of CPU time were used up",
            signal.SIGALRM: f", {COPY_S} s had passed",
        }.get(signal.Signals(-code), "")
    elif code > 0:
        why = f"exit code {code}"
    return done, why


async def enders(
    where: str, steps: Mapping[int, Step], wanted: Callable[[], bool]
) -> dict[int, str]:
    """
    Which of some steps, by offset and one after the other, end a copy of the process `TRIES` times,
    and how; those that do are left out for the ones after them.

    Parameters
    ----------
    where : str
        For the log.
    steps : mapping of offset to callable
    wanted : callable
        Asked before each copy whether to go on.
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
