"""`stream-monitor worker`."""

from __future__ import annotations

import os
import sys

import click

from stream_monitor.config import load


@click.command()
@click.option("--config", "path", type=click.Path(dir_okay=False), help="monitor.yaml; without it ./monitor.yaml if there, else defaults.")
def command(path: str | None) -> None:
    """
    Monitor: read predictions and labels, write alerts, serve /metrics.

    Example: stream-monitor worker --config monitor.yaml
    """
    settings = load(path, os.environ)
    from stream_monitor.config.references import file_profiles
    from stream_monitor.runtime.worker import main

    sys.exit(main(settings, file_profiles(settings.core)))
