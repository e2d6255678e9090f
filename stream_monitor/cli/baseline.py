"""
`stream-monitor baseline`: make, show and publish baseline profiles.

Rule of the file: a profile contains no name, date or path, so that its id is the one that a worker
would give to the same rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.contract import contract
from stream_monitor.cli.input_options import input_options, options_of
from stream_monitor.cli.terminal import readable, reading
from stream_monitor.errors import InputError, StateError, StreamMonitorError

if TYPE_CHECKING:
    from stream_monitor.inputs.options import InputOptions
    from stream_monitor.monitors.baseline import FeatureProfile, Profile
    from stream_monitor.offline.baselines import Builder
    from stream_monitor.settings import Settings

CATEGORIES_SHOWN = 4


@click.group()
def command() -> None:
    """
    Make, show and publish baseline profiles.

    \b
    Examples:
      stream-monitor baseline build train.csv -o profile.json
      stream-monitor baseline show profile.json
      stream-monitor baseline publish profile.json --model fraud
      stream-monitor baseline contract train.csv --model fraud
    """  # noqa: D301


command.add_command(contract)


@command.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    help="Where the profile is written (JSON).",
)
@input_options
@click.option(
    "--model",
    metavar="NAME",
    help="Model to use: for rows that name none, and to select rows. [default: the only model in "
    "the input]",
)
@click.option(
    "--version",
    metavar="NAME",
    help="Version whose rows are used. [default: the only version in the input]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use the first N rows, as a worker with baseline.rows: N does. [default: all]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with types and limits of features. [default: ./monitor.yaml if it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build(
    files: tuple[str, ...],
    *,
    output: str,
    model: str | None,
    version: str | None,
    rows: int | None,
    config: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """
    Make a profile from the rows of files.

    FILE is a plain table: known names are fields of the event, every other column is a feature. Several files are read as one table, in this order.

    \b
    Examples:
      stream-monitor baseline build train.parquet --ignore customer_id --map label=churned -o profile.json
      stream-monitor baseline build --predictions served.jsonl.gz --model fraud --version 3 --rows 5000 -o profile.json
    """  # noqa: D301, E501
    import msgspec

    from stream_monitor.config import load
    from stream_monitor.monitors.baseline import encode_profile, profile_id
    from stream_monitor.monitors.quality import breaches
    from stream_monitor.offline.baselines import Builder

    settings = load(config, os.environ)
    builder = Builder(settings, model, version, rows)
    for options in events_of(files, model, given, settings):
        with reading(
            msgspec.structs.replace(options, first_row=builder.predictions + 1), "building"
        ) as events:
            builder.answers &= not events.lacks_prediction
            events.scan()
            for note in events.notes:
                click.echo(readable(note), err=True)
            if not builder.feed(events):
                break
    tell_refused(builder)
    found, profile = builder.profile()
    if rows is not None and profile.rows < rows:
        click.echo(
            f"there are {profile.rows:,} rows, not {rows:,}; the profile is of these", err=True
        )
    for text in breaches(profile, found.settings):
        click.echo(readable(text), err=True)
    write_whole(Path(output), encode_profile(profile))
    name = f"{found.model}/{found.name}"
    if as_json:
        click.echo(
            json.dumps(
                {
                    "id": profile_id(profile),
                    "path": output,
                    "model": found.model,
                    "version": found.name,
                    "rows": profile.rows,
                    "features": len(profile.features),
                }
            )
        )
    else:
        click.echo(
            f"wrote {output}: {profile_id(profile)}, {len(profile.features)} features of "
            f"{profile.rows:,} rows of {readable(name)}"
        )


def tell_refused(builder: Builder) -> None:
    """Report for each reason how many records were refused, and which was the first."""
    from stream_monitor.offline.outcome import reasons

    for kind, refused in reasons(builder.replay.dead_letters).items():
        for reason in refused:
            click.echo(
                readable(
                    f"{kind} refused as {reason['reason']}: {reason['count']:,}; the first "
                    f"(row {reason['first']['offset'] + 1:,}): {reason['first']['message']}"
                ),
                err=True,
            )


def events_of(
    files: tuple[str, ...], model: str | None, given: dict[str, Any], settings: Settings
) -> list[InputOptions]:
    """
    The events of the input. Files of training rows often have no predictions, and a profile of
    features needs none.
    """
    from stream_monitor.inputs.options import parse_path

    if given["predictions"] is not None or given["labels"] is not None or not files:
        return [options_of(given, files[0] if files else None, settings.core)]
    return [
        options_of(
            given, file, settings.core, model=model or parse_path(files[0])[0], fill_prediction=True
        )
        for file in files
    ]


def write_whole(path: Path, data: bytes) -> None:
    """Write the whole file or nothing of it."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data + b"\n")
        part.replace(path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {e.strerror or e}") from None


@command.command()
@click.argument("what", metavar="FILE|MODEL/VERSION")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with the address of Kafka, for MODEL/VERSION. [default: ./monitor.yaml if "
    "it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(what: str, config: str | None, as_json: bool) -> None:
    """
    Print a profile: from a file, or a published or learnt one.

    \b
    Examples:
      stream-monitor baseline show profile.json
      stream-monitor baseline show fraud/3 --config monitor.yaml
      stream-monitor baseline show fraud/ --json
    """  # noqa: D301
    from stream_monitor.config import load
    from stream_monitor.config.baseline_files import read_profile
    from stream_monitor.monitors.baseline import profile_id

    if Path(what).is_file() or what.endswith(".json"):
        source, profile = what, read_profile(what)
    else:
        source, profile = _published(load(config, os.environ), what)
    if as_json:
        import msgspec

        click.echo(
            msgspec.json.encode({"id": profile_id(profile), "source": source, "profile": profile})
        )
    else:
        _show(source, profile_id(profile), profile)


def _published(settings: Settings, what: str) -> tuple[str, Profile]:
    """The profile under this key of `baselines`; that of the model if the version has none."""
    from stream_monitor.inputs.options import did_you_mean
    from stream_monitor.kafka.records import read_compacted
    from stream_monitor.monitors.baseline import decode_profile

    there = asyncio.run(read_compacted(settings, "baselines"))
    key = next((k for k in (what, f"{what}/") if k in there), None)
    if key is None:
        known = (
            f" There are: {', '.join(sorted(there)[:20])}" if there else " There are none at all."
        )
        raise StreamMonitorError(
            f"{what}: no file, and no profile of that MODEL/VERSION is on "
            f"{settings.kafka.topic_prefix}baselines.{did_you_mean(what, list(there))}{known}"
        )
    try:
        return key, decode_profile(there[key])
    except StateError as e:
        raise StateError(f"{key}: {e}") from None


def _show(source: str, identity: str, profile: Profile) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(
        f"{readable(source)}: {identity}, {len(profile.features)} features of "
        f"{profile.rows:,} rows",
        highlight=False,
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for name in (
        "feature",
        "type",
        "count",
        "missing",
        "broken",
        "mean",
        "sd",
        "q1",
        "median",
        "q3",
        "fences",
        "outliers",
        "categories",
    ):
        table.add_column(
            name,
            justify="left" if name in {"feature", "type", "fences", "categories"} else "right",
            overflow="fold",
        )
    for name, feature in (*profile.features.items(), *profile.outputs.items()):
        table.add_row(*_row(name, feature))
    console.print(table, markup=False, highlight=False)
    if profile.performance:
        console.print(
            "performance: "
            + "  ".join(f"{metric} {value:.4g}" for metric, value in profile.performance.items()),
            highlight=False,
        )


def _row(name: str, feature: FeatureProfile) -> list[str]:
    from rich.markup import escape

    from stream_monitor.monitors.baseline import FENCE, fences_of

    counts = [
        escape(readable(name)),
        feature.type,
        f"{feature.count:,}",
        f"{feature.missing:,}",
        f"{feature.wrong_type + feature.out_of_range:,}",
    ]
    if feature.type == "category":
        shown = list(feature.categories.items())
        rest = f", {len(shown) - CATEGORIES_SHOWN} more" if len(shown) > CATEGORIES_SHOWN else ""
        return [
            *counts,
            *[""] * 7,
            escape(
                ", ".join(
                    f"{readable(c)} {n / max(feature.count, 1):.1%}"
                    for c, n in shown[:CATEGORIES_SHOWN]
                )
            )
            + rest,
        ]
    low, high = fences_of(feature.q1, feature.q3, feature.min, feature.max, FENCE)
    numbers = [
        f"{x:.4g}" for x in (feature.mean, feature.sd, feature.q1, feature.median, feature.q3)
    ]
    return [*counts, *numbers, f"{low:.4g} to {high:.4g}", f"{feature.outliers:,}", ""]


@command.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--model", required=True, metavar="NAME", help="Model that the profile is for.")
@click.option(
    "--version",
    default="",
    metavar="NAME",
    help="Version that the profile is for. [default: all versions of the model]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with the address of Kafka. [default: ./monitor.yaml if it exists]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(file: str, *, model: str, version: str, config: str | None, as_json: bool) -> None:
    """
    Write a profile to the topics `baselines` and `lifecycle`.

    Workers judge the version by it from its place in the log on, without a restart. Without
    --version it counts for versions that are new from there on.

    \b
    Examples:
      stream-monitor baseline publish profile.json --model fraud
      stream-monitor baseline publish profile.json --model fraud --version 3
    """  # noqa: D301
    from stream_monitor.cli import loop_options as loop
    from stream_monitor.config import load
    from stream_monitor.config.baseline_files import read_profile
    from stream_monitor.lifecycle import references
    from stream_monitor.monitors.baseline import baseline_key, encode_profile, profile_id

    if not 1 <= len(model) <= 128 or len(version) > 128:
        raise InputError("--model has 1 to 128 characters, --version at most 128")
    profile = read_profile(file)
    settings, content = load(config, os.environ), encode_profile(profile)
    key, topic = baseline_key(model, version), f"{settings.kafka.topic_prefix}baselines"
    parts = references.parts_of(model, version, content, loop.now(), loop.person(None))
    asyncio.run(references.publish(settings, model, version, content, parts))
    if as_json:
        click.echo(json.dumps({"id": profile_id(profile), "topic": topic, "key": key}))
    else:
        counts = (
            f"version {version} of {model}; workers judge it by this from here on"
            if version
            else f"all versions of {model} that are new from here on"
        )
        click.echo(f"published {profile_id(profile)} on {topic} for {readable(counts)}")
