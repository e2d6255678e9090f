"""
`stream-monitor produce`: send the events of a file, or of a simulated model server, to Kafka.

Rule of the file: it sends exactly the events that `replay` would read; only `--now` changes them,
and only their timestamps.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.input_options import input_options, options_of
from stream_monitor.cli.terminal import readable
from stream_monitor.config import load
from stream_monitor.errors import UNREADABLE, InputError

if TYPE_CHECKING:
    from stream_monitor.inputs import EventStream
    from stream_monitor.kafka.publish import Sendable
    from stream_monitor.settings import KafkaSettings, Settings

RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?")
SIMULATED_PER_S = 200.0
REALTIME, MAX = -1.0, 0.0


@click.command(name="produce")
@click.argument("table", required=False, metavar="[FILE]")
@input_options
@click.option(
    "--rate",
    metavar="N/s|realtime|max",
    help="Events per second; realtime: as far apart as their timestamps.  [default: max; with "
    "--simulate 200/s]",
)
@click.option("--now", is_flag=True, help="Shift all timestamps so that the last one is now.")
@click.option(
    "--simulate", is_flag=True, help="Simulate the model server of the demo until stopped."
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    help="With --simulate: random seed; the same seed gives the same events.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds."
)
@click.option(
    "--config", metavar="FILE", help="The configuration. [default: ./monitor.yaml if it exists]"
)
@click.option(
    "--broker", metavar="HOST:PORT", help="Overrides kafka.bootstrap_servers of the configuration."
)
@click.option(
    "--topic-prefix", metavar="TEXT", help="Overrides kafka.topic_prefix of the configuration."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def command(table: str | None, *, seconds: float | None, as_json: bool, **given: Any) -> None:
    """
    Send predictions and labels to Kafka.

    FILE is a plain table: known names are fields of the event, every other column is a feature.

    \b
    Examples:
      stream-monitor produce --predictions p.jsonl --labels l.csv --rate realtime --now
      stream-monitor produce churn.csv --map label=churned --label-delay 10s --rate 100/s
      stream-monitor produce --simulate --broker 127.0.0.1:9092
    """  # noqa: D301
    rate = parse_rate(given["rate"])
    if given["simulate"]:
        if table or given["predictions"] or given["labels"]:
            raise click.UsageError("--simulate takes no files")
        if rate == MAX and given["rate"]:
            raise click.UsageError("--simulate does not support --rate max; give N/s")
    settings = load(given["config"], os.environ)
    kafka = _kafka(settings.kafka, given["broker"], given["topic_prefix"])
    with _source(table, given, rate, settings) as source:
        for note in source.notes:
            click.echo(readable(note), err=True)
        sent, complete, took_s = asyncio.run(_run(kafka, source, seconds))
    if as_json:
        import json

        click.echo(
            json.dumps(
                {
                    "sent": {"predictions": sent["predictions"], "labels": sent["labels"]},
                    "complete": complete,
                    "seconds": round(took_s, 3),
                }
            )
        )
    else:
        end = "" if complete or source.endless else "; stopped before the end of the input"
        click.echo(
            f"sent {sent['predictions']:,} predictions and {sent['labels']:,} labels in "
            f"{took_s:.1f} s{end}"
        )


def parse_rate(text: str | None) -> float:
    """
    Events per second, `REALTIME` or `MAX`.

    Raises
    ------
    InputError
        The text is none of these.

    Examples
    --------
    >>> parse_rate("50/s"), parse_rate("0.5"), parse_rate("realtime"), parse_rate(None)
    (50.0, 0.5, -1.0, 0.0)
    """
    if text in {None, "max"}:
        return MAX
    if text == "realtime":
        return REALTIME
    found = RATE.fullmatch(text or "")
    if found is None or float(found[1]) == 0:
        raise InputError(f"--rate {text}: write N/s (such as 100/s), realtime or max")
    return float(found[1])


def paced(events: Iterable[tuple[str, bytes, bytes, int]], rate: float) -> Iterator[Sendable]:
    """
    Events with the time at which each is due, in seconds from the first.

    Examples
    --------
    >>> events = [("predictions", b"{}", b"", 5_000), ("predictions", b"{}", b"", 7_500)]
    >>> (
    ...     [due_s for *_, due_s in paced(events, REALTIME)],
    ...     [due_s for *_, due_s in paced(events, 10.0)],
    ...     [due_s for *_, due_s in paced(events, MAX)],
    ... )
    ([0.0, 2.5], [0.0, 0.1], [0.0, 0.0])
    """
    first_ms: int | None = None
    for number, (kind, value, key, time_ms) in enumerate(events):
        first_ms = time_ms if first_ms is None else first_ms
        yield (
            kind,
            value,
            key,
            (time_ms - first_ms) / 1_000 if rate == REALTIME else number / rate if rate else 0.0,
        )


def shifted(value: bytes, by_ms: int) -> bytes:
    """
    An event with its timestamp moved; one without a usable timestamp stays as it is.

    Examples
    --------
    >>> shifted(b'{"event_id":"1","timestamp":"2000-01-01T00:00:00Z"}', 1_500)
    b'{"event_id":"1","timestamp":946684801500}'
    >>> shifted(b'{"event_id": "1"}', 1_500)
    b'{"event_id": "1"}'
    """
    import msgspec

    from stream_monitor.inputs.moments import parse_time_ms

    try:
        event = msgspec.json.decode(value)
    except UNREADABLE:
        return value
    time_ms = parse_time_ms(event.get("timestamp")) if isinstance(event, dict) else None
    return (
        value if time_ms is None else msgspec.json.encode({**event, "timestamp": time_ms + by_ms})
    )


class Source:
    """The events that are sent: a file or a simulation."""

    def __init__(
        self, events: Callable[[], Iterable[Sendable]], stream: EventStream | None
    ) -> None:
        self.events = events
        self.stream = stream
        self.live = stream is not None and stream.live
        self.endless = stream is None or self.live
        self.notes = stream.notes if stream is not None else []


@contextmanager
def _source(
    table: str | None, given: dict[str, Any], rate: float, settings: Settings
) -> Iterator[Source]:
    if given["simulate"]:
        from stream_monitor.demo.simulation import Simulation

        rate_per_s = rate if rate > 0 else SIMULATED_PER_S
        simulation = Simulation(seed=given["seed"], rate_per_s=rate_per_s)
        yield Source(lambda: simulation.steps(int(time.time() * 1_000)), None)
        return
    from stream_monitor.inputs import open_events

    options = options_of(given, table, settings.core, live=not given["now"])
    with open_events(options) as stream:
        stream.scan()

        def events() -> Iterator[Sendable]:
            if not given["now"]:
                return paced(stream, rate)
            last_ms = stream.scan().last_ms
            by_ms = int(time.time() * 1_000) - last_ms if last_ms is not None else 0
            return paced(
                (
                    (kind, shifted(value, by_ms), key, time_ms + by_ms)
                    for kind, value, key, time_ms in stream
                ),
                rate,
            )

        yield Source(events, stream)


def _kafka(kafka: KafkaSettings, broker: str | None, topic_prefix: str | None) -> KafkaSettings:
    import msgspec

    changes = {"bootstrap_servers": broker, "topic_prefix": topic_prefix}
    return msgspec.structs.replace(
        kafka, **{name: value for name, value in changes.items() if value is not None}
    )


async def _run(
    kafka: KafkaSettings, source: Source, seconds: float | None
) -> tuple[dict[str, int], bool, float]:
    from stream_monitor.kafka.publish import Background, Publisher, publish

    stop = asyncio.Event()
    with stopped_by_signals(stop):
        async with Publisher(kafka) as publisher:
            start_s = time.monotonic()
            timer = (
                asyncio.get_running_loop().call_later(seconds, stop.set)
                if seconds is not None
                else None
            )
            with _progress(source) as show:
                async with Background(source.events, live=source.live) as events:
                    complete = await publish(publisher, events, stop, show)
            if timer is not None:
                timer.cancel()
            return publisher.sent, complete, time.monotonic() - start_s


@contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Set an event at SIGINT and SIGTERM, inside a running event loop."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[float], None] | None]:
    """A progress bar on stderr if stdout is a terminal."""
    if not sys.stdout.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[sent]:,} events"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=5
    ) as progress:
        task = progress.add_task("sending", total=None, sent=0)
        sent = 0

        def show(_due_s: float) -> None:
            nonlocal sent
            sent += 1
            if sent % 50 == 0 or source.endless:
                stream = source.stream
                known = stream is not None and stream.total_bytes > 0
                progress.update(
                    task,
                    sent=sent,
                    total=stream.total_bytes if known and stream else None,
                    completed=stream.read_bytes if stream else 0,
                )

        yield show
