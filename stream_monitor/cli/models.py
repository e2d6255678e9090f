"""
`stream-monitor models`: versions of a model.

Rule of the file: the group alone; each command has its own module.
"""

from __future__ import annotations

import click

from stream_monitor.cli import models_compare


@click.group(name="models")
def command() -> None:
    """
    Compare versions of a model.

    \b
    Example:
      stream-monitor models compare --predictions champion.csv challenger.csv --fail-on worse
    """  # noqa: D301  \b is how click keeps lines apart


command.add_command(models_compare.compare)
