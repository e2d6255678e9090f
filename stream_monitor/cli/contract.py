"""
`stream-monitor baseline contract`: what features may be, inferred from rows or imported.

Rule of the file: what it writes is a part of monitor.yaml that `config check` accepts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.input_options import input_options
from stream_monitor.cli.terminal import readable, reading
from stream_monitor.errors import ConfigError, InputError

if TYPE_CHECKING:
    from stream_monitor.offline.contract import Described


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Where the contract is written (YAML). [default: the screen]",
)
@click.option(
    "--sagemaker",
    type=click.Path(dir_okay=False),
    help="Import this constraints.json of SageMaker Model Monitor; there is no FILE then.",
)
@input_options
@click.option(
    "--model",
    metavar="NAME",
    help="Model that the contract is for. [default: the only model in the input]",
)
@click.option("--version", metavar="NAME", help="Version whose rows are used.")
@click.option(
    "--rows", type=click.IntRange(min=1), metavar="N", help="Use the first N rows. [default: all]"
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with types and limits of features. [default: ./monitor.yaml if it exists]",
)
def contract(
    files: tuple[str, ...],
    *,
    output: str | None,
    sagemaker: str | None,
    model: str | None,
    version: str | None,
    rows: int | None,
    config: str | None,
    **given: Any,
) -> None:
    """
    Write the rules that rows keep, for monitor.yaml.

    It is a contract of data quality, inferred from the rows of FILE. A rule is written only if it is nearly certain: types, ranges with a margin of a tenth, categories that are all known, values that occur once, fixed forms (dates, UUIDs, codes), and how much may be missing. What it rests on stands beside it.

    \b
    Examples:
      stream-monitor baseline contract train.csv --model churn -o contract.yaml
      stream-monitor baseline contract --sagemaker constraints.json --model churn
    """  # noqa: D301, E501
    from stream_monitor.config import parse
    from stream_monitor.offline.contract import written

    if (sagemaker is not None) == bool(files or given["predictions"]):
        raise InputError("give FILE, --predictions or --sagemaker, and one of them alone")
    notes: list[str] = []
    if sagemaker is not None:
        source = sagemaker
        features, notes = _imported(sagemaker)
        model = model or "MODEL"
    else:
        source = ", ".join(files) or given["predictions"]
        model, features = _inferred(files, model, version, rows, config, given)
    text = written(model, features, Path(source).name, notes)
    for note in notes:
        click.echo(readable(f"not taken over: {note}"), err=True)
    try:
        parse(text)
    except ConfigError as e:
        raise InputError(f"{source}: {'; '.join(e.problems)}") from None
    if output is None:
        click.echo(text)
        return
    from stream_monitor.cli.baseline import write_whole

    write_whole(Path(output), text.encode())
    click.echo(f"wrote {output}: rules for {len(features)} features of {readable(model)}")


def _imported(path: str) -> tuple[dict[str, Described], list[str]]:
    from stream_monitor.offline.sagemaker import read

    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror or e}") from None
    return read(data, path)


def _inferred(
    files: tuple[str, ...],
    model: str | None,
    version: str | None,
    rows: int | None,
    config: str | None,
    given: dict[str, Any],
) -> tuple[str, dict[str, Described]]:
    """The model, and what its rows keep."""
    import msgspec

    from stream_monitor.cli.baseline import events_of, tell_refused
    from stream_monitor.config import load
    from stream_monitor.offline.baselines import Builder
    from stream_monitor.offline.contract import described

    settings = load(config, os.environ)
    builder = Builder(settings, model, version, rows)
    for options in events_of(files, model, given, settings):
        with reading(
            msgspec.structs.replace(options, first_row=builder.predictions + 1), "reading"
        ) as events:
            events.scan()
            for note in events.notes:
                click.echo(readable(note), err=True)
            if not builder.feed(events):
                break
    tell_refused(builder)
    found, waiting, profile = builder.rows_and_profile()
    return found.model, described(waiting, profile)
