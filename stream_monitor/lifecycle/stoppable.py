"""
Git and DVC in threads, ended when nobody waits for them any more.

Rule of the file: a thread cannot be ended, but the command that it waits for can. A command has a
process group of its own while somebody may end it, because git and DVC start helpers (ssh) that
keep its pipes open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
GRACE_S = 1.0
"""Between SIGTERM, at which git removes its lock files, and SIGKILL."""


class Commands:
    """The commands that threads of ours wait for."""

    def __init__(self) -> None:
        self.ended = False
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()

    def begun(self, process: subprocess.Popen[str]) -> None:
        """A command runs; if all were ended meanwhile, it is ended at once."""
        with self._lock:
            self._running.add(process)
            ended = self.ended
        if ended:
            _signal(process, signal.SIGKILL)

    def done(self, process: subprocess.Popen[str]) -> None:
        """A command ended."""
        with self._lock:
            self._running.discard(process)

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End all of them, and those that begin later."""
        with self._lock:
            self.ended = True
            running = list(self._running)
        for process in running:
            _signal(process, with_signal)


OURS: ContextVar[Commands | None] = ContextVar("commands", default=None)
"""Those of this thread; None: nobody may end them."""


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def is_ended() -> bool:
    """Whether a thread that waits may give up: nobody waits for it."""
    commands = OURS.get()
    return commands is not None and commands.ended


def finished(
    words: list[str], *, text: str | None = None, timeout_s: float, **options: Any
) -> subprocess.CompletedProcess[str]:
    """
    A command at its end, with its output.

    Parameters
    ----------
    words : list of str
        No shell.
    text : str or None
        Its input.
    timeout_s : float, s
    **options
        Of `subprocess.Popen`.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer; it is ended.
    OSError
        It cannot be started.
    """
    commands = OURS.get()
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL if text is None else subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "encoding": "utf-8",
        "errors": "replace",
        "start_new_session": commands is not None,
        **options,
    }
    with subprocess.Popen(words, **given) as process:  # noqa: S603  no shell
        if commands is not None:
            commands.begun(process)
        try:
            out, err = process.communicate(text, timeout=timeout_s)
        except BaseException:
            if commands is not None:
                _signal(process, signal.SIGKILL)
            process.kill()
            raise
        finally:
            if commands is not None:
                commands.done(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """
    What a function returns, which runs in a thread. When the task is cancelled, the commands that
    the function waits for are ended first, within about `GRACE_S`.
    """
    commands = Commands()
    token = OURS.set(commands)
    try:
        work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    finally:
        OURS.reset(token)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        commands.end()
        await asyncio.wait([work], timeout=GRACE_S)
        commands.end(signal.SIGKILL)
        await asyncio.wait([work], timeout=GRACE_S)
        with suppress(asyncio.CancelledError, Exception):
            work.result() if work.done() else None
        raise
