"""
`stream-monitor export`: files about our metrics for other tools.

Rule of the file: everything comes from the catalogue; no broker and no worker is asked.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import click

from stream_monitor.errors import InputError

RULES_FILE = "stream-monitor.rules.yml"
RULES_HEAD = (
    "# Alerting rules for stream-monitor and the models it watches. Generated: stream-monitor "
    "export rules\n"
)


@click.group(name="export")
def command() -> None:
    """
    Write Grafana dashboards or Prometheus rules.

    \b
    Example:
      stream-monitor export dashboards --output /etc/grafana/dashboards
    """  # noqa: D301  \b is how click keeps lines apart


@command.command(name="dashboards")
@click.option(
    "--output",
    default="dashboards",
    show_default=True,
    metavar="DIR",
    help="Directory to write to; - prints one JSON object, file name to dashboard.",
)
def export_dashboards(output: str) -> None:
    """
    Write Grafana dashboards, for provisioning.

    \b
    Example:
      stream-monitor export dashboards --output /etc/grafana/dashboards
    """  # noqa: D301
    files = dashboard_files()
    if output == "-":
        click.echo(
            json.dumps(
                {name: json.loads(text) for name, text in files.items()},
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        _write(Path(output), files)


@command.command(name="rules", short_help="Write Prometheus rules.")
@click.option(
    "--output",
    default="dashboards",
    show_default=True,
    metavar="DIR",
    help="Directory to write to; - prints the file.",
)
def export_rules(output: str) -> None:
    """
    Write Prometheus rules that watch the workers and forward the alerts of the models.

    \b
    Example:
      stream-monitor export rules --output - > /etc/prometheus/rules/stream-monitor.yml
    """  # noqa: D301
    text = rules_text()
    if output == "-":
        click.echo(text, nl=False)
    else:
        _write(Path(output), {RULES_FILE: text})


def dashboard_files() -> dict[str, str]:
    """Text of every dashboard by file name."""
    from stream_monitor.metrics.dashboards import dashboards

    return {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        for name, content in dashboards().items()
    }


def rules_text() -> str:
    """Text of the rule file."""
    from ruamel.yaml import YAML

    from stream_monitor.metrics.rules import rules

    yaml = YAML()
    yaml.width = 4_096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(rules(), out)
    return RULES_HEAD + out.getvalue()


def _write(directory: Path, files: dict[str, str]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
            click.echo(f"wrote {directory / name}")
    except OSError as error:
        raise InputError(f"cannot write to {directory}: {error.strerror}") from error
