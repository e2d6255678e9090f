"""
`stream-monitor dead-letters`: records that could not be used, the reasons, and sending them again.

Rule of the file: a dead letter is never changed or removed, and nothing is sent without a request.
The unchanged value is sent again, with its key and its time. A record that is refused again becomes
a new dead letter. Text from topics is shown without its control characters.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError, StreamMonitorError
from stream_monitor.schema import REJECT_REASONS

if TYPE_CHECKING:
    from stream_monitor.kafka.records import Record
    from stream_monitor.settings import Settings

SHOWN_BYTES = 2_000
MESSAGE_SHOWN_CHARS = 100
SOURCES = ("predictions", "labels")
"""
Only records of these topics are sent again. Rows of `observations` are left out, because later rows
have made them stale.
"""


class Letter(NamedTuple):
    """A dead letter."""

    position: str
    """PARTITION:OFFSET in `dead-letters`."""
    time_ms: int
    reason: str
    message: str
    topic: str
    """Topic that the record came from, with the prefix."""
    source: str
    """PARTITION:OFFSET in that topic."""
    key: bytes | None
    value: bytes
    truncated: int | None
    """Size in bytes of a value that was left out."""

    def shown(self) -> dict[str, Any]:
        """All fields except key and value."""
        found = {
            "position": self.position,
            "time": _time(self.time_ms),
            "topic": self.topic,
            "source": self.source,
            "reason": self.reason,
            "message": self.message,
        }
        return found if self.truncated is None else {**found, "truncated": self.truncated}


class Filter(NamedTuple):
    """Which dead letters are selected."""

    reasons: tuple[str, ...]
    topic: str | None
    since_ms: int

    def wants(self, letter: Letter, prefix: str) -> bool:
        """Whether a dead letter is selected."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.topic in {None, letter.topic, letter.topic.removeprefix(prefix)}
            and letter.time_ms >= self.since_ms
        )


def _time(time_ms: int) -> str:
    return (
        datetime.fromtimestamp(time_ms / 1_000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def letter_of(record: Record) -> Letter:
    """A record of `dead-letters`; missing headers give empty fields."""

    def header(name: str) -> str:
        return (record.headers.get(name) or b"").decode("utf-8", "replace")

    truncated = header("stream-monitor.truncated")
    return Letter(
        position=f"{record.partition}:{record.offset}",
        time_ms=record.time_ms,
        reason=header("stream-monitor.reason"),
        message=header("__connect.errors.exception.message"),
        topic=header("__connect.errors.topic"),
        source=f"{header('__connect.errors.partition')}:{header('__connect.errors.offset')}",
        key=record.key_bytes,
        value=record.value or b"",
        truncated=int(truncated) if truncated.isdecimal() else None,
    )


def _filters(command: Any) -> Any:
    for option in (
        click.option("--since", metavar="DURATION", help="Only records of the last 30m, 2h, 7d …"),
        click.option(
            "--topic", metavar="NAME", help="Only records of this topic: predictions or labels."
        ),
        click.option(
            "--reason",
            "reasons",
            type=click.Choice(REJECT_REASONS),
            multiple=True,
            help="Only records with this reason; may be repeated.",
        ),
    ):
        command = option(command)
    return command


_config = click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with the address of Kafka. [default: ./monitor.yaml if it exists]",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """
    Show records that could not be used, and send them again.

    \b
    Examples:
      stream-monitor dead-letters list --since 1h
      stream-monitor dead-letters show 1
      stream-monitor dead-letters replay --reason ended_worker --dry-run
    """  # noqa: D301


@command.command(name="list")
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Show at most the N newest; all are counted.",
)
@_as_json
@_config
def list_(
    *,
    reasons: tuple[str, ...],
    topic: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Count dead letters by topic and reason, and show the newest.

    \b
    Example:
      stream-monitor dead-letters list --topic labels --since 24h
    """  # noqa: D301
    settings = _settings(config)
    counts: Counter[tuple[str, str]] = Counter()
    newest: deque[Letter] = deque(maxlen=limit)

    def take(letter: Letter) -> None:
        counts[letter.topic, letter.reason] += 1
        newest.append(letter)

    asyncio.run(_read(settings, _filter(reasons, topic, since), take))
    letters = sorted(newest, key=lambda letter: letter.time_ms, reverse=True)
    if as_json:
        for (name, reason), n in sorted(counts.items()):
            click.echo(json.dumps({"topic": name, "reason": reason, "count": n}))
        for letter in letters:
            click.echo(json.dumps(letter.shown()))
        return
    if not counts:
        click.echo("no dead letters")
    for (name, reason), n in sorted(counts.items(), key=lambda item: -item[1]):
        click.echo(f"{n:>9,}  {readable(name)}  {readable(reason)}")
    if letters:
        click.echo()
    for letter in letters:
        message = letter.message[:MESSAGE_SHOWN_CHARS]
        what = readable(f"{letter.topic}/{letter.source}  {letter.reason}  {message}")
        click.echo(f"{letter.position:>9}  {_time(letter.time_ms)}  {what}")


@command.command()
@click.argument("position")
@click.option(
    "--bytes",
    "bytes_max",
    type=click.IntRange(min=0),
    default=SHOWN_BYTES,
    show_default=True,
    metavar="N",
    help="Show at most N bytes of the value.",
)
@_as_json
@_config
def show(*, position: str, bytes_max: int, as_json: bool, config: str | None) -> None:
    """
    Show one dead letter.

    POSITION is a position that `list` prints, or 1 for the newest, 2 for the one before.

    \b
    Example:
      stream-monitor dead-letters show 0:41
    """  # noqa: D301
    if not (position.isdecimal() and int(position) > 0) and not all(
        part.isdecimal() for part in (position.split(":") if position.count(":") == 1 else [""])
    ):
        raise InputError(
            f"{position!r} is not a position: write PARTITION:OFFSET as `stream-monitor "
            "dead-letters list` prints it, or 1 for the newest"
        )
    settings = _settings(config)
    kept: deque[Letter] = deque(maxlen=int(position) if position.isdecimal() else 1)

    def take(letter: Letter) -> None:
        if position in {letter.position, position.partition(":")[0]}:
            kept.append(letter)

    asyncio.run(_read(settings, Filter((), None, 0), take))
    if len(kept) < (kept.maxlen or 0):
        raise StreamMonitorError(
            f"dead letter {position} does not exist; `stream-monitor dead-letters list` lists them"
        )
    letter = kept[0]
    if as_json:
        click.echo(
            json.dumps(
                {
                    **letter.shown(),
                    "key": _json_of(letter.key),
                    "value": _json_of(letter.value[:bytes_max]),
                    "value_bytes": len(letter.value),
                }
            )
        )
        return
    for name, value in letter.shown().items():
        click.echo(f"{name:<10} {readable(str(value))}")
    click.echo(f"{'key':<10} {'none' if letter.key is None else _text(letter.key[:bytes_max])}")
    click.echo(f"{'value':<10} {_text(letter.value[:bytes_max])}")
    if len(letter.value) > bytes_max:
        click.echo(f"{len(letter.value) - bytes_max:,} more bytes; raise --bytes to see them")


def _text(value: bytes) -> str:
    """A value as text if it is UTF-8 (cut or not), otherwise as hex."""
    try:
        return readable(value.decode())
    except UnicodeDecodeError as e:
        return (
            readable(value[: e.start].decode())
            if e.reason == "unexpected end of data"
            else f"hex {value.hex()}"
        )


def _json_of(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex() if value else ""}


@command.command()
@_filters
@click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@_config
def replay(
    *,
    reasons: tuple[str, ...],
    topic: str | None,
    since: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Send records again to the topic they came from.

    Use it when the cause is repaired. Values are sent unchanged, with key and time. Missing values (truncated, broken batches) and those of other topics than predictions and labels are left out. A record that is refused again becomes a new dead letter.

    \b
    Example:
      stream-monitor dead-letters replay --reason ended_worker --since 24h --dry-run
    """  # noqa: D301, E501
    if not reasons:
        raise InputError(
            f"choose at least one reason: --reason ({', '.join(REJECT_REASONS)}), may be repeated"
        )
    settings = _settings(config)
    topics = {settings.kafka.topic_prefix + name for name in SOURCES}
    wanted: dict[tuple[str, str], Letter] = {}
    left: Counter[str] = Counter()

    def take(letter: Letter) -> None:
        if letter.topic not in topics:
            left["of another topic"] += 1
        elif letter.truncated is not None:
            left["without their value"] += 1
        else:
            wanted[letter.topic, letter.source] = (
                letter  # the same record may have two dead letters
            )

    asyncio.run(_read(settings, _filter(reasons, topic, since), take))
    counts = Counter(letter.topic for letter in wanted.values())
    what = ", ".join(f"{n:,} to {name}" for name, n in sorted(counts.items())) or "none"
    sent = bool(wanted) and not dry_run
    if sent and not yes:
        if not sys.stdin.isatty():
            raise InputError(f"this would send {what}; add --yes to do it, or --dry-run to see it")
        click.confirm(f"send {what} again?", abort=True, err=True)
    if sent:
        asyncio.run(_send(settings, list(wanted.values())))
    if as_json:
        click.echo(json.dumps({"sent": sent, "records": dict(counts), "left_out": dict(left)}))
        return
    done = "sent" if sent else "would send" if wanted else "nothing to send"
    click.echo(f"{done}: {what}" if wanted else done)
    for why, n in left.items():
        click.echo(f"left out: {n:,} {why}")


def _settings(config: str | None) -> Settings:
    from stream_monitor.config import load

    return load(config, os.environ)


def _filter(reasons: tuple[str, ...], topic: str | None, since: str | None) -> Filter:
    from stream_monitor.inputs.options import parse_duration_ms

    return Filter(
        reasons,
        topic,
        0 if since is None else time.time_ns() // 1_000_000 - parse_duration_ms(since),
    )


async def _read(settings: Settings, wanted: Filter, take: Any) -> None:
    """Every selected dead letter, the oldest first."""
    from stream_monitor.cli.produce import stopped_by_signals
    from stream_monitor.kafka.records import TopicReader

    stop = asyncio.Event()
    with stopped_by_signals(stop):
        async with TopicReader(settings, ["dead-letters"]) as records:
            if records.missing:
                raise StreamMonitorError(
                    f"the topic {settings.kafka.topic_prefix}dead-letters does not exist yet; "
                    "a worker creates it when it starts"
                )
            async for record in records.whole():
                letter = letter_of(record)
                if wanted.wants(letter, settings.kafka.topic_prefix):
                    take(letter)
                if stop.is_set():
                    raise StreamMonitorError(
                        "interrupted before everything was read; nothing was done"
                    )


async def _send(settings: Settings, letters: list[Letter]) -> None:
    from stream_monitor.kafka.records import send_again

    await send_again(
        settings, [(letter.topic, letter.key, letter.value, letter.time_ms) for letter in letters]
    )
