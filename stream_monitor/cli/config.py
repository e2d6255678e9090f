"""
`stream-monitor config`: make, check and describe monitor.yaml.

Rule of the file: the package `config` checks; this module only calls it and prints. No broker is
needed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from stream_monitor.config import DEFAULT_FILE, load
from stream_monitor.config.baseline_files import file_profiles
from stream_monitor.config.remarks import remarks
from stream_monitor.errors import ConfigError, InputError
from stream_monitor.kafka.tls import client_context, server_context

STARTER = """\
# Configuration of stream-monitor: the Kafka cluster, and what you expect of your models.
# You may leave everything out: without a file every model that sends events is monitored, and its
# baseline is learnt from its first rows. All keys: docs/configuration.md. Check this file with
# `stream-monitor config check`. Variables such as STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS override it.

kafka:
  bootstrap_servers: "127.0.0.1:9092"
  # topic_prefix: "prod."                 # prefix of the names of all topics
  # security: {protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512, username: monitor}   # password: STREAM_MONITOR_KAFKA__SECURITY__PASSWORD_FILE

worker:
  group: stream-monitor                   # the workers of one group share the work
  metrics: {host: 127.0.0.1, port: 9108}  # 0.0.0.0 if Prometheus runs on another machine; then also set STREAM_MONITOR_WORKER__METRICS__TOKEN_FILE

# Settings for every model. A model below inherits them, unless it sets its own.
defaults:
  windows: [last_1000, 1h, 24h]           # windows of accuracy and other metrics: the last labelled rows, or event time
  labels: {max_delay: 24h}                # how long a prediction waits for its label
  baseline: {source: learn, rows: 5000}   # learnt from the first rows, or {source: file, path: profile.json} from `baseline build`
  quality: {missing_ratio: 0.1}           # alert if this much more of a feature is missing than in the baseline
  freshness: {predictions: 10m}           # alert on silence; at 10m it waits longer for a model that is usually silent for longer
  # drift: {thresholds: {psi: 0.25}}      # distances to the baseline are gauges; with a threshold they also raise alerts

# Settings of single models, by the name in their events (`model`).
models:
  fraud:
    task: binary                          # binary, multiclass or regression; auto decides by the first labels
    thresholds:
      accuracy: {min: 0.9, severity: critical, window: last_1000, min_labels: 200}
    # features:
    #   amount: {type: numeric, min: 0}
    #   country: {categories: [DE, FR, IT]}
    # segments: [country]                 # the same metrics for each country
"""  # noqa: E501


@click.group()
def command() -> None:
    """
    Make, check and describe monitor.yaml.

    \b
    Examples:
      stream-monitor config init
      stream-monitor config check monitor.yaml
      stream-monitor config schema > monitor.schema.json
    """  # noqa: D301  \b is how click keeps lines apart


@command.command(short_help="Write a commented monitor.yaml to start from.")
@click.argument("path", default=DEFAULT_FILE)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def init(path: str, force: bool) -> None:
    """
    Write a commented monitor.yaml to start from.

    \b
    Examples:
      stream-monitor config init
      stream-monitor config init staging.yaml --force
    """  # noqa: D301
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path} is a folder; give a file name, such as {file / DEFAULT_FILE}")
    if file.exists() and not force:
        raise InputError(f"{path} already exists; use --force to overwrite it")
    try:
        file.write_text(STARTER, encoding="utf-8")
    except OSError as e:
        raise InputError(f"{path}: cannot be written: {e.strerror or e}") from None
    click.echo(
        f"wrote {path}; next: stream-monitor config "
        f"check{'' if path == DEFAULT_FILE else f' {path}'}"
    )


@command.command(short_help="Report everything that is wrong with a configuration.")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def check(path: str | None, as_json: bool) -> None:
    """
    Report everything that is wrong with a configuration; exit code 2 if there is something.

    Variables that begin with STREAM_MONITOR_ and the profiles that the file names are checked too. The default PATH is ./monitor.yaml.

    \b
    Examples:
      stream-monitor config check
      stream-monitor config check monitor.yaml --json
    """  # noqa: D301, E501
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
    notes = remarks(settings.core)
    if as_json:
        click.echo(json.dumps({"problems": [], "notes": notes}))
        return
    name = path or (
        DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else f"no ./{DEFAULT_FILE}, so the defaults"
    )
    models = len(settings.core.models)
    click.echo(
        f"good: {name}; {models} model{'' if models == 1 else 's'} configured, brokers "
        f"{settings.kafka.bootstrap_servers}"
    )
    for note in notes:
        click.echo(f"note: {note}")


@command.command(short_help="Print the JSON Schema of monitor.yaml, for editors.")
@click.option("--inject", is_flag=True, help="Of the file of `replay --inject`.")
def schema(*, inject: bool) -> None:
    """
    Print the JSON Schema of monitor.yaml (draft 2020-12), for editors and other checks.

    Only `config check` checks the relations between keys.

    \b
    Examples:
      stream-monitor config schema > monitor.schema.json
      stream-monitor config schema --inject > drift.schema.json
    """  # noqa: D301
    from stream_monitor.config.json_schema import injection_schema, json_schema

    made = injection_schema() if inject else json_schema()
    click.echo(json.dumps(made, indent=2, ensure_ascii=False))
