"""
`stream-monitor archive`: keep rows for training.

Rule of the file: nothing is read or written unless `archive.path` is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stream_monitor.training.archive import Written

CONFIG = click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.option(
    "--once",
    "--until-caught-up",
    "once",
    is_flag=True,
    help="Stop when everything is archived that was there at the start.",
)
@CONFIG
@JSON
@click.pass_context
def command(ctx: click.Context, *, once: bool, config: str | None, as_json: bool) -> None:
    """
    Keep predictions and labels as Parquet files, for training.

    The folder is `archive.path`; it holds raw values of features. Ctrl-C or SIGTERM stops it, and nothing is lost. Several archivers share the work if they share the folder. The first line on stdout is the address of its metrics (without --once; on stderr with --json).

    \b
    Examples:
      stream-monitor archive --config monitor.yaml
      stream-monitor archive --once --json
      stream-monitor archive forget --unit user-17 --dry-run
    """  # noqa: D301, E501
    if ctx.invoked_subcommand is not None:
        return
    from stream_monitor.config import load
    from stream_monitor.runtime.http import announce
    from stream_monitor.runtime.logs import configure
    from stream_monitor.runtime.own_port import address
    from stream_monitor.training.archive import Archiver
    from stream_monitor.training.endpoint import serving

    settings = load(config, os.environ)
    configure()

    def tell(written: Written) -> None:
        if not as_json and not once:
            click.echo(f"{written.rows:,} rows in {written.files:,} files", err=True)

    async def run() -> Written:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        archiver = Archiver(settings, tell)
        if once:
            return await archiver.run(stop, once=True)
        async with serving(archiver) as port:
            announce(address(settings, "archive"), port, sys.stderr if as_json else sys.stdout)
            return await archiver.run(stop)

    written = asyncio.run(run())
    if as_json:
        click.echo(json.dumps({k: v for k, v in vars(written).items() if k != "last_file_ms"}))
    else:
        click.echo(
            f"archived {written.rows:,} rows in {written.files:,} files"
            + (f"; {written.holes} holes, see the log" if written.holes else "")
        )


@command.command()
@click.option("--unit", "units", multiple=True, metavar="NAME", help="Rows of this unit.")
@click.option("--event", "events", multiple=True, metavar="ID", help="Rows with this event id.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@CONFIG
@JSON
def forget(
    units: tuple[str, ...],
    events: tuple[str, ...],
    *,
    dry_run: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """
    Take the rows of a person out of the archive: predictions, and their labels.

    What Kafka still has comes in again only if it was not archived yet. Files made by `collect`, and what DVC has of them, are not touched: docs/lifecycle.md says how they go.

    \b
    Examples:
      stream-monitor archive forget --unit user-17 --dry-run
      stream-monitor archive forget --event 8f14e45f --event c9f0f895
    """  # noqa: D301, E501
    from pathlib import Path

    from stream_monitor.config import load
    from stream_monitor.errors import InputError
    from stream_monitor.training.folder import Folder
    from stream_monitor.training.forgetting import forget as take_out

    path = load(config, os.environ).archive.path
    if path is None or not Path(path).is_dir():
        raise InputError(f"archive.path: {path or 'not set'}: there is no archive")
    if not units and not events:
        raise InputError("name whose rows: --unit NAME or --event ID")
    found = take_out(Folder(Path(path)), units, events, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({**found._asdict(), "dry_run": dry_run}))
    else:
        click.echo(
            f"{'would take' if dry_run else 'took'} out {found.predictions:,} predictions and "
            f"{found.labels:,} labels, in {found.files:,} files"
        )
