"""
The command line.

Rule of the file: the module of a command is imported when the command is called, not before, so
that `--help` is quick. An error that is meant for people has no traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from difflib import get_close_matches

import click

from stream_monitor import __version__
from stream_monitor.errors import ConfigError, InputError, StreamMonitorError

COMMANDS = {
    "demo": "See it work: embedded broker, simulated model server, worker, in one command.",
    "worker": "Monitor: read predictions and labels, write alerts, serve /metrics.",
    "replay": "Monitor files, without a broker.",
    "rejudge": "Show what another configuration would have said of the last hours.",
    "produce": "Send the events of files, or of a simulated model server, to Kafka.",
    "baseline": "Build, show and publish baseline profiles.",
    "models": "Compare two versions of a model on the same rows; a gate for CI.",
    "experiment": "Start, change, watch and stop experiments; compare two models.",
    "controller": "Retrain and deploy models, as monitor.yaml says.",
    "retrain": "Start, watch and decide retrainings.",
    "deploy": "Watch and steer the deployment of versions.",
    "archive": "Keep predictions and labels as files, for training.",
    "collect": "Make training data: predictions with their labels, in one file.",
    "quality": "Check a file: may a model be trained on it?",
    "config": "Make, check and describe monitor.yaml.",
    "topics": "List, check and apply the topics.",
    "alerts": "Show alerts; acknowledge and mute them.",
    "dead-letters": "Show records that could not be used, and send them again.",
    "export": "Write Grafana dashboards and Prometheus rules.",
    "doctor": "Find out what is wrong with a set-up.",
}


def _module(name: str) -> str:
    return f"stream_monitor.cli.{name.replace('-', '_')}"


class Lazy(click.Group):
    """Commands by name, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for name in COMMANDS if importlib.util.find_spec(_module(name)) is not None]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(_module(name)).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
        if close and args[0] not in self.list_commands(ctx):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stream-monitor")
def cli() -> None:
    """
    Monitor machine-learning models on Kafka, within seconds.

    \b
    Examples:
      stream-monitor demo --seconds 60                 see it work; you need nothing else
      stream-monitor replay scored.csv --map label=y   your own predictions, without a broker
      stream-monitor config init                       a configuration to start from
      stream-monitor worker                            monitor what is on your Kafka

    Each command has a --help. Exit codes: 0 success, 1 failure, 2 usage or configuration error.
    """  # noqa: D301  \b is how click keeps lines apart


def main() -> None:
    """
    Run the command line. An error that is meant for people ends it with one line and an exit code.
    """
    try:
        cli(prog_name="stream-monitor")
    except StreamMonitorError as e:
        click.echo(f"stream-monitor: {e}", err=True)
        sys.exit(2 if isinstance(e, (ConfigError, InputError)) else 1)
