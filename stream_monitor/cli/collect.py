"""
`stream-monitor collect`: training data in one file.

Rule of the file: without `--until` the range ends now, and the manifest says when that was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError

if TYPE_CHECKING:
    from stream_monitor.settings import Settings
    from stream_monitor.training.collect import Manifest
    from stream_monitor.training.sources import Source

HOLES_SHOWN = 5


@click.command()
@click.option("--model", required=True, metavar="NAME", help="Model whose predictions are taken.")
@click.option(
    "--since",
    metavar="TIME",
    help="First event time: 30d (ago), 2026-01-31, 2026-01-31T12:00:00Z. [default: all]",
)
@click.option("--until", metavar="TIME", help="Event times before this one. [default: now]")
@click.option(
    "--as-of",
    metavar="TIME",
    help="Only what had come by then, so that a later call gives the same bytes. [default: all]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("data/collected.parquet"),
    show_default=True,
    help="The Parquet file; its manifest is beside it.",
)
@click.option(
    "--from",
    "origin",
    metavar="FOLDER|kafka",
    help="An archive, or kafka for what the topics still have. [default: archive.path if set, "
    "otherwise kafka]",
)
@click.option("--unlabelled", is_flag=True, help="Also predictions that have no label yet.")
@click.option("--dry-run", is_flag=True, help="Write nothing; tell what would be in the file.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="The configuration. [default: ./monitor.yaml if it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def command(
    *,
    model: str,
    since: str | None,
    until: str | None,
    as_of: str | None,
    output: Path,
    origin: str | None,
    unlabelled: bool,
    dry_run: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """
    Make training data: each prediction with its newest label, in one Parquet file.

    Of predictions with the same id and version the first counts. Columns are named as in events, so the file can be given to `replay`, `baseline build` and `quality check`.

    \b
    Examples:
      stream-monitor collect --model fraud --since 30d
      stream-monitor collect --model fraud --since 2026-01-01 --until 2026-02-01 -o data/january.parquet
      stream-monitor collect --model fraud --from kafka --json
    """  # noqa: D301, E501
    import tempfile

    import msgspec

    from stream_monitor.config import load
    from stream_monitor.kafka.clocks import now_ms
    from stream_monitor.training.collect import collect

    if output.suffix != ".parquet":
        raise InputError(f"--output {output}: the file is Parquet; name it *.parquet")
    now = now_ms()
    since_ms, until_ms, as_of_ms = (
        None if text is None else _time(option, text, now)
        for option, text in (("--since", since), ("--until", until), ("--as-of", as_of))
    )
    until_ms = now if until_ms is None else until_ms
    if since_ms is not None and since_ms >= until_ms:
        raise InputError(f"--since {since} is not before --until {until or 'now'}")
    source = _source(load(config, os.environ), origin)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / output.name if dry_run else output
        manifest = collect(
            source, model, since_ms, until_ms, target, as_of_ms=as_of_ms, unlabelled=unlabelled
        )
    if as_json:
        click.echo(msgspec.json.encode(manifest))
    else:
        _tell(manifest, output, until_ms, dry_run=dry_run)


def _time(option: str, text: str, now_ms: int) -> int:
    """A time, or a duration before now, in ms. A time without a zone is of UTC."""
    from datetime import UTC, datetime

    from stream_monitor.inputs.options import DURATION, parse_duration_ms

    if DURATION.fullmatch(text.strip()):
        return now_ms - parse_duration_ms(text)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(
            f"{option} {text!r} is not a time; write 30d, 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e3)


def _source(settings: Settings, origin: str | None) -> Source:
    from stream_monitor.training.sources import ArchiveSource, KafkaSource

    path = settings.archive.path if origin is None else origin
    if path is None or origin == "kafka":
        return KafkaSource(settings)
    return ArchiveSource(Path(path))


def _tell(manifest: Manifest, output: Path, until_ms: int, *, dry_run: bool) -> None:
    from stream_monitor.times import rfc3339

    versions = ", ".join(f"{name or 'no name'} {n:,}" for name, n in manifest.versions.items())
    click.echo(
        readable(
            f"{'would write' if dry_run else 'wrote'} {output}: {manifest.rows:,} rows of "
            f"{manifest.model} ({versions}), {len(manifest.columns)} columns, {manifest.hash}"
        )
    )
    click.echo(f"{manifest.labelled:,} of {manifest.predictions:,} predictions have a label")
    if manifest.empty:
        click.echo(readable(f"without any value: {', '.join(manifest.empty)}"), err=True)
    for hole in manifest.holes[:HOLES_SHOWN]:
        span = " to ".join(
            "?" if t is None else rfc3339(t) for t in (hole.after_ms, hole.before_ms)
        )
        click.echo(
            f"missing: {hole.topic}/{hole.partition}, offsets {hole.first} to {hole.end - 1}, "
            f"between {span}",
            err=True,
        )
    if len(manifest.holes) > HOLES_SHOWN:
        click.echo(f"and {len(manifest.holes) - HOLES_SHOWN} more: --json has them", err=True)
    if manifest.archived_until is not None and manifest.archived_until < rfc3339(until_ms):
        click.echo(
            f"the archive has everything up to {manifest.archived_until}; what came later may be "
            "missing (`stream-monitor archive --once` catches up)",
            err=True,
        )
