"""
The command line.

Rule of the file: a command's module is imported when it is called, not before, so that `--help` is quick. An error that is meant for people has no traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import click

from stream_monitor import __version__
from stream_monitor.errors import ConfigError, InputError, StreamMonitorError

COMMANDS = {
    "demo": "See it work: embedded broker, simulated model server, worker, in one command.",
    "worker": "Monitor: read predictions and labels, write alerts, serve /metrics.",
    "replay": "Monitor files, without a broker.",
    "produce": "Send the events of files, or of a simulated model server, to Kafka.",
    "baseline": "Build and show reference profiles.",
    "config": "Make and check monitor.yaml.",
    "topics": "List, check and apply the topics.",
    "alerts": "Show alerts.",
    "export": "Write dashboards and alerting rules.",
    "doctor": "Find out what is wrong with a set-up.",
}


class Lazy(click.Group):
    """Commands by name, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for name in COMMANDS if importlib.util.find_spec(f"stream_monitor.cli.{name}") is not None]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"stream_monitor.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stream-monitor")
def cli() -> None:
    """
    Monitor machine-learning models on Kafka, within seconds.

    Example: stream-monitor demo --seconds 30
    """


def main() -> None:
    """Run the command line; errors that are meant for people end it with one line and a code."""
    try:
        cli(prog_name="stream-monitor")
    except StreamMonitorError as e:
        click.echo(f"stream-monitor: {e}", err=True)
        sys.exit(2 if isinstance(e, (ConfigError, InputError)) else 1)
