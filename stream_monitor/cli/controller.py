"""
`stream-monitor controller`.

Rule of the file: the configuration is checked before anything of the loop is imported.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_monitor.cli import loop_options as options
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.settings import Settings


@click.command()
@click.option("--once", is_flag=True, help="End as soon as there is nothing to do.")
@options.config
def command(*, once: bool, config: str | None) -> None:
    """
    Retrain and deploy models: the loop that monitor.yaml describes under `lifecycle`.

    Several may run; one is active, and another one takes over if it dies. Commands are those of
    the configuration. Ctrl-C or SIGTERM ends it, and what it was doing goes on later. The first
    line on stdout is the address of its metrics (without --once).

    \b
    Examples:
      stream-monitor controller --config monitor.yaml
      stream-monitor controller --once        one pass, for a scheduler
      stream-monitor retrain status           what it does
    """  # noqa: D301  \b is how click keeps lines apart
    settings = options.settings_of(config)
    if not settings.lifecycle.models:
        raise InputError(
            "no model is configured under lifecycle.models, so there is nothing to do; "
            "docs/lifecycle.md has an example"
        )
    _demand_clones(settings)
    sys.exit(asyncio.run(_run(settings, config, once=once)))


def _demand_clones(settings: Settings) -> None:
    """
    Each model has its clone.

    Raises
    ------
    InputError
        There is none, or it is none.
    """
    from stream_monitor.lifecycle import git

    for name, loop in settings.lifecycle.models.items():
        try:
            git.place_of(Path(loop.repository))
        except (InputError, git.GitError) as e:
            raise InputError(f"lifecycle.models.{name}.repository: {e}") from None


async def _run(settings: Settings, config: str | None, *, once: bool) -> int:
    from stream_monitor.cli.produce import stopped_by_signals
    from stream_monitor.lifecycle.controller import Controller, projects_of
    from stream_monitor.lifecycle.endpoint import serving
    from stream_monitor.runtime import logs
    from stream_monitor.runtime.http import announce
    from stream_monitor.runtime.own_port import address

    logs.configure()
    controller = Controller(settings, projects_of(settings, config), once=once)
    stop = asyncio.Event()
    with stopped_by_signals(stop):
        if once:
            await controller.run(stop)
            return 0
        async with serving(controller) as port:
            announce(address(settings, "lifecycle"), port)
            await controller.run(stop)
    return 0
