"""
`stream-monitor worker`.

Rule of the file: the configuration is checked before anything of the runtime is imported.
"""

from __future__ import annotations

import os
import signal
import sys

import click

from stream_monitor.config import load


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)
def command(path: str | None) -> None:
    """
    Monitor: read predictions and labels, write alerts, serve /metrics.

    The first line on stdout is the address of the endpoint; the log goes to stderr. Ctrl-C or SIGTERM stops the worker cleanly. Workers of one group share the work.

    Exit codes: 0 stopped; 1 cannot start; 2 the configuration is wrong; 70 to 73 transient failure, restart the worker.

    \b
    Examples:
      stream-monitor worker --config monitor.yaml
      STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 stream-monitor worker
    """  # noqa: D301, E501 \b is how click keeps lines apart
    # for the time of the imports; the worker then installs its own handler
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = load(path, os.environ)
    from stream_monitor.config.baseline_files import file_profiles
    from stream_monitor.runtime.worker import main

    sys.exit(main(settings, file_profiles(settings.core)))
