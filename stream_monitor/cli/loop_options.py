"""
Options that `retrain`, `deploy` and `models` share, and who a person is.

Rule of the file: one place for each option.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from stream_monitor.lifecycle.events import Event
    from stream_monitor.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
comment = click.option("--comment", metavar="TEXT", help="Why; it is kept.")
by = click.option("--by", metavar="WHO", help="Who does it. [default: the user]")
dry_run = click.option("--dry-run", is_flag=True, help="Print the event; write nothing.")
model = click.option("--model", metavar="NAME", help="The model, if there are several.")
config = click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)


def settings_of(path: str | None) -> Settings:
    """The settings of a file and the environment."""
    from stream_monitor.config import load

    return load(path, os.environ)


def user(by_: str | None) -> str:
    """Who does it: what was said, or the user of the system."""
    if by_:
        return by_
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "somebody"


def now() -> str:
    """The time, RFC 3339."""
    import time

    from stream_monitor.times import rfc3339

    return rfc3339(time.time_ns() // 1_000_000)


def say(settings: Settings, event: Event, told: str, *, dry_run: bool, as_json: bool) -> None:
    """Write an event of a person, unless it is a dry run, and tell it."""
    from stream_monitor.cli.loop_board import written
    from stream_monitor.cli.terminal import readable
    from stream_monitor.lifecycle.events import encode

    if not dry_run:
        written(settings, event)
    if as_json:
        click.echo(encode(event).decode())
    else:
        click.echo(readable(told) + (" (not written: --dry-run)" if dry_run else ""))
