"""
`stream-monitor topics`: list the topics, compare them with those of the broker, and apply the
specification.

Rule of the file: `list` and `export` need no broker. Only `apply` changes anything, and it prints
everything that it does.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stream_monitor.errors import InputError
from stream_monitor.schema import REPLICAS

if TYPE_CHECKING:
    from stream_monitor.kafka.topic_changes import Difference
    from stream_monitor.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """The option `--config`, the same in all commands."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False),
        help="The configuration. [default: ./monitor.yaml if it exists]",
    )(command)


def json_option(command: Command) -> Command:
    """The option `--json`, the same in all commands."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@click.group(name="topics")
def command() -> None:
    """
    List, check and apply the topics.

    \b
    Examples:
      stream-monitor topics list
      stream-monitor topics apply --config monitor.yaml
    """  # noqa: D301  \b is how click keeps lines apart


@command.command(name="list")
@config_option
@json_option
def list_topics(config: str | None, as_json: bool) -> None:
    """
    Show the topics as they are specified, without a broker.

    With --json each has its JSON Schema and examples too.

    \b
    Examples:
      stream-monitor topics list
      stream-monitor topics list --json
    """  # noqa: D301
    import msgspec

    from stream_monitor.schema import topics

    prefix = _settings(config).kafka.topic_prefix
    if as_json:
        click.echo(
            _json(
                [
                    {"topic": prefix + spec.name, **msgspec.to_builtins(spec)}
                    for spec in topics().values()
                ]
            )
        )
        return
    rows = [("topic", "partitions", "cleanup", "retention", "key", "written by")]
    rows += [
        (
            prefix + spec.name,
            str(spec.partitions),
            spec.config["cleanup.policy"],
            kept(spec.config.get("retention.ms")),
            spec.key,
            spec.writer,
        )
        for spec in topics().values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


@command.command(short_help="Compare the topics of the broker with their specification.")
@config_option
@json_option
def check(config: str | None, as_json: bool) -> None:
    """
    Compare the topics of the broker with their specification; exit 1 if they differ.

    predictions, labels, observations, snapshots and history may have more partitions than specified.

    \b
    Example:
      stream-monitor topics check --config monitor.yaml
    """  # noqa: D301, E501
    import msgspec

    from stream_monitor.kafka import topic_changes

    settings = _settings(config)
    differences = asyncio.run(topic_changes.differences(settings.kafka))
    if as_json:
        click.echo(_json({"differences": msgspec.to_builtins(differences)}))
    else:
        for difference in differences:
            click.echo(shown(difference, settings.kafka.topic_prefix))
        click.echo(
            f"{len(differences)} difference(s)" if differences else "all topics are as specified"
        )
    if differences:
        raise SystemExit(1)


@command.command(short_help="Create missing topics and set differing settings.")
@config_option
@click.option(
    "--partitions",
    multiple=True,
    metavar="NAME=N",
    help="More partitions than specified: added to predictions and labels; for other topics only "
    "when they are created.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@json_option
def apply(config: str | None, partitions: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """
    Create missing topics and correct settings; a second run changes nothing.

    Topics get 3 replicas if there are 3 brokers. Settings that are not specified stay as they are. Exit code 1 if a difference is left that cannot be changed in place.

    \b
    Examples:
      stream-monitor topics apply --config monitor.yaml --dry-run
      stream-monitor topics apply --partitions predictions=12 --partitions observations=8
    """  # noqa: D301, E501
    import msgspec

    from stream_monitor.kafka import topic_changes

    settings = _settings(config)
    asked = topic_changes.asked_partitions(partitions)
    differences = asyncio.run(topic_changes.differences(settings.kafka, asked))
    repaired, left = [d for d in differences if d.repair], [d for d in differences if not d.repair]
    if not dry_run:
        asyncio.run(topic_changes.apply(settings, repaired))
    if as_json:
        click.echo(
            _json(
                {
                    "dry_run": dry_run,
                    "changed": msgspec.to_builtins(repaired),
                    "left": msgspec.to_builtins(left),
                }
            )
        )
    else:
        for difference in repaired:
            click.echo(change(difference, settings.kafka.topic_prefix, dry_run=dry_run))
        for difference in left:
            click.echo(f"left as it is: {shown(difference, settings.kafka.topic_prefix)}")
        if not repaired:
            click.echo("nothing to change" if not left else f"nothing changed, {len(left)} left")
    if left:
        raise SystemExit(1)


@command.command()
@config_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["strimzi", "asyncapi"]),
    required=True,
    help="KafkaTopic resources of Strimzi, or an AsyncAPI 3 document.",
)
@click.option(
    "--cluster",
    default="kafka",
    show_default=True,
    metavar="NAME",
    help="strimzi: name of the Kafka resource.",
)
@click.option(
    "--replicas",
    default=REPLICAS,
    show_default=True,
    type=click.IntRange(1),
    help="strimzi: replication factor of every topic.",
)
@click.option(
    "--output", default="-", show_default=True, metavar="FILE", help="File to write to; - prints."
)
@json_option
def export(
    config: str | None, form: str, cluster: str, replicas: int, output: str, as_json: bool
) -> None:
    """
    Write the topics for other tools, without a broker.

    \b
    Examples:
      stream-monitor topics export --format strimzi --cluster events | kubectl apply -f -
      stream-monitor topics export --format asyncapi --output asyncapi.yaml
    """  # noqa: D301
    from stream_monitor.exports.asyncapi import document
    from stream_monitor.exports.strimzi import kafka_topics

    prefix = _settings(config).kafka.topic_prefix
    documents = (
        kafka_topics(prefix, cluster=cluster, replicas=replicas)
        if form == "strimzi"
        else [document(prefix)]
    )
    whole = (
        {"apiVersion": "v1", "kind": "List", "items": documents}
        if form == "strimzi"
        else documents[0]
    )
    text = f"{_json(whole)}\n" if as_json else yaml_text(documents)
    if output == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {output}: {error.strerror}") from error
    click.echo(f"wrote {output}")


def yaml_text(documents: list[dict[str, Any]]) -> str:
    """Documents as one YAML stream."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4_096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.explicit_start = len(documents) > 1
    out = io.StringIO()
    yaml.dump_all(documents, out)
    return out.getvalue()


def kept(retention_ms: str | None) -> str:
    """
    How long records are kept, for people.

    >>> kept("604800000"), kept("86400000"), kept("5400000"), kept(None)
    ('7d', '24h', '1.5h', '-')
    """
    if retention_ms is None:
        return "-"
    hours = int(retention_ms) / 3_600_000
    return f"{hours / 24:g}d" if hours > 24 else f"{hours:g}h"


def shown(difference: Difference, prefix: str) -> str:
    """A difference as a sentence, with what to do about it."""
    d = difference
    topic = prefix + d.topic
    if d.aspect == "topic":
        return f"{topic}: is missing"
    what = (
        f"has partitions: {d.have}, wanted: {d.want}"
        if d.aspect == "partitions"
        else f"{d.aspect} is {d.have or 'not set'}, expected {d.want}"
    )
    text = f"{topic}: {what}"
    return f"{text}\n  -> {d.advice}" if d.advice else text


def change(difference: Difference, prefix: str, *, dry_run: bool) -> str:
    """A repair as a sentence."""
    d = difference
    topic = prefix + d.topic
    if d.repair == "create":
        return f"{'would make' if dry_run else 'made'} {topic}, partitions: {d.want}"
    if d.repair == "add_partitions":
        return f"{'would add' if dry_run else 'added'} partitions to {topic}: {d.have} -> {d.want}"
    return (
        f"{'would set' if dry_run else 'set'} {d.aspect} of {topic}: {d.have or 'not set'} -> "
        f"{d.want}"
    )


def _settings(config: str | None) -> Settings:
    from stream_monitor.config import load

    return load(config, os.environ)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
