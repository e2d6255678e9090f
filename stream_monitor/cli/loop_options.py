"""
Options that `retrain`, `deploy` and `models` share, and who a person is.

Rule of the file: one place for each option.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from stream_monitor.cli.terminal import readable, user

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


def now() -> str:
    """The time, RFC 3339."""
    from stream_monitor.kafka.clocks import now_ms
    from stream_monitor.times import rfc3339

    return rfc3339(now_ms())


def person(by_: str | None) -> str:
    """Who does it: what was said, or the user of the system."""
    return by_ or user() or "somebody"


class Word(NamedTuple):
    """What a person says with a command that writes an event, and how it is told."""

    comment: str | None
    by: str | None
    dry_run: bool
    as_json: bool
    config: str | None

    @property
    def who(self) -> str:
        """Who does it."""
        return person(self.by)

    def write(self, settings: Settings, event: Event, told: str) -> None:
        """Write the event, unless it is a dry run, and tell it."""
        from stream_monitor.cli.loop_board import written
        from stream_monitor.lifecycle.events import encode

        if not self.dry_run:
            written(settings, event)
        if self.as_json:
            click.echo(encode(event).decode())
        else:
            click.echo(readable(told) + (" (not written: --dry-run)" if self.dry_run else ""))


def of_a_person(f: F) -> F:
    """The options of a command that writes an event; it gets them as `word`."""

    @wraps(f)
    def called(
        *,
        comment: str | None,
        by: str | None,
        dry_run: bool,
        as_json: bool,
        config: str | None,
        **given: Any,
    ) -> None:
        f(word=Word(comment, by, dry_run, as_json, config), **given)

    found: F = comment(by(dry_run(as_json(config(called)))))  # type: ignore[assignment]  # of wraps
    return found
