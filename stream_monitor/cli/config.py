"""`stream-monitor config`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from stream_monitor.config import load
from stream_monitor.config.references import file_profiles
from stream_monitor.errors import ConfigError, InputError
from stream_monitor.runtime.tls import client_context, server_context

EXAMPLE = """# stream-monitor: everything here is optional; these are the defaults, and a model with a threshold of its own.
kafka: {bootstrap_servers: "127.0.0.1:9092"}
worker: {group: stream-monitor, metrics: {host: 127.0.0.1, port: 9108}}
defaults:
  windows: [last_1000, 1h, 24h]
  labels: {max_delay: 24h}
models:
  fraud:
    task: binary
    thresholds: {accuracy: {min: 0.9, severity: critical, window: last_1000, min_labels: 200}}
"""


@click.group()
def command() -> None:
    """
    Make and check monitor.yaml.

    Example: stream-monitor config check monitor.yaml
    """


@command.command()
@click.argument("path", default="monitor.yaml")
@click.option("--force", is_flag=True, help="Overwrite.")
def init(path: str, force: bool) -> None:
    """
    Write a small monitor.yaml to begin with.

    Example: stream-monitor config init
    """
    file = Path(path)
    if file.exists() and not force:
        raise InputError(f"{path} is there already; use --force to overwrite it")
    file.write_text(EXAMPLE)
    click.echo(f"wrote {path}")


@command.command()
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def check(path: str | None, as_json: bool) -> None:
    """
    Say everything that is wrong with a configuration; exit 2 when there is something.

    Example: stream-monitor config check monitor.yaml
    """
    try:
        settings = load(path, os.environ)
        file_profiles(settings.core)
        client_context(settings.kafka.security)
        server_context(settings.worker.metrics)
    except ConfigError as e:
        if not as_json:
            raise
        click.echo(json.dumps({"problems": e.problems}))
        sys.exit(2)
    click.echo(json.dumps({"problems": []}) if as_json else f"good: {len(settings.core.models)} models configured, brokers {settings.kafka.bootstrap_servers}")
