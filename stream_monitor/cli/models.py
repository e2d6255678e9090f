"""
`stream-monitor models`: versions of a model.

Rule of the file: the group alone; each command has its own module.
"""

from __future__ import annotations

import click

from stream_monitor.cli import models_compare, models_stages, models_versions


@click.group(name="models")
def command() -> None:
    """
    Register, show and compare versions of a model, and say which one is in production.

    A version is an annotated tag NAME@vX.Y.Z of git, which DVC and GTO read too.

    \b
    Examples:
      stream-monitor models register --model churn
      stream-monitor models list
      stream-monitor models show champion
      stream-monitor models compare champion HEAD --fail-on worse
      stream-monitor models compare --predictions champion.csv challenger.csv --fail-on worse
      stream-monitor models promote v1.2.0
    """  # noqa: D301  \b is how click keeps lines apart


for _each in (
    models_versions.register,
    models_versions.list_,
    models_versions.show,
    models_compare.compare,
    models_stages.promote,
    models_stages.retire,
):
    command.add_command(_each)
