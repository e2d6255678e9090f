"""
What the commands need for terminals: a progress bar, text without control characters, and who
sits there.

Rule of the file: a bar is on stderr, and only if that is a terminal. Output for programs never
passes through here.
"""

from __future__ import annotations

import getpass
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_monitor.inputs.events import EventStream
    from stream_monitor.inputs.options import InputOptions


def user() -> str | None:
    """The name of the system's user; None if it has none, as in some containers."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return None


def readable(text: str) -> str:
    r"""
    Text of a topic or file without control characters, which a terminal would obey.

    >>> readable("churn 2: \x1b[2J accuracy")
    'churn 2: ?[2J accuracy'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def reading(options: InputOptions, what: str) -> Iterator[EventStream]:
    """
    The events of input files, with a bar that names the work (`what`).

    SIGTERM ends it like Ctrl-C, so that temporary files are removed.
    """
    from stream_monitor.inputs.events import open_events

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            on_progress = None
            if sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import (
                    BarColumn,
                    Progress,
                    TaskProgressColumn,
                    TextColumn,
                    TimeRemainingColumn,
                )

                columns = (
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TaskProgressColumn(),
                    TimeRemainingColumn(),
                )
                bar = stack.enter_context(
                    Progress(*columns, console=Console(stderr=True), transient=True)
                )
                task = bar.add_task(what, total=None)

                def on_progress(read: int, total: int) -> None:
                    bar.update(task, completed=read, total=total or None)

            yield stack.enter_context(open_events(options, on_progress))
    finally:
        signal.signal(signal.SIGTERM, before)
