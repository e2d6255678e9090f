"""
`stream-monitor rejudge`: what another configuration would have said of the last hours.

Rule of the file: it only reads. It writes to no topic and joins no group; what it finds goes to
stdout, and with `--alerts` to a file.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from stream_monitor.cli.rejudge_lines import lines_of, report_of
from stream_monitor.cli.terminal import readable
from stream_monitor.errors import InputError
from stream_monitor.inputs.options import parse_duration_ms
from stream_monitor.times import rfc3339

if TYPE_CHECKING:
    from stream_monitor.offline.rejudging import Beginning, Rejudging
    from stream_monitor.settings import CoreSettings, Settings
    from stream_monitor.stages.looking_back import Bounds, LookingBack

SHOW_S = 0.1


@click.command(name="rejudge")
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How far back alarms are compared: 90m, 24h, 7d.",
)
@click.option(
    "--config",
    metavar="FILE",
    help="The new configuration. [default: ./monitor.yaml if it exists]",
)
@click.option(
    "--present",
    metavar="FILE",
    help="The present configuration. [default: that of the newest snapshot]",
)
@click.option("--model", metavar="NAME", help="Only this model.")
@click.option(
    "--learn",
    default="24h",
    show_default=True,
    metavar="DURATION",
    help="How much before --since is folded too, where no snapshot is as old.",
)
@click.option(
    "--were",
    type=click.Choice(["folded", "told"]),
    default="folded",
    show_default=True,
    help="The alarms that were: found again with the present configuration, or read from the topic "
    "`alerts`, which keeps the last episode of each.",
)
@click.option("--alerts", metavar="FILE", help="Write the new alert events here (JSON Lines).")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(**given: Any) -> None:
    """
    Show the alarms that another configuration would have raised, beside those that were.

    The topic `observations` is folded again with both configurations, by the code of the worker. Nothing is written to Kafka, and workers do not notice it. The address of Kafka is in the new configuration.

    \b
    Examples:
      stream-monitor rejudge --config new.yaml
      stream-monitor rejudge --since 6h --config new.yaml --model fraud --alerts would.jsonl
      stream-monitor rejudge --config new.yaml --present monitor.yaml --json
    """  # noqa: D301, E501
    from stream_monitor.config import load

    settings = load(given["config"], os.environ)
    present = load(given["present"], os.environ).core if given["present"] else None
    now_ms = time.time_ns() // 1_000_000
    span = Span(now_ms - _duration("--since", given["since"]), _duration("--learn", given["learn"]))
    budget = 1 / settings.core.of(given["model"] or "").days_per_alarm
    if given["alerts"] and not Path(given["alerts"]).resolve().parent.is_dir():
        raise InputError(f"--alerts {given['alerts']}: its folder does not exist")
    told = asyncio.run(_run(settings, present, span, given["model"], given["were"]))
    if told is None:
        raise click.Abort
    if given["alerts"]:
        Path(given["alerts"]).write_bytes(b"".join(e + b"\n" for e in told.rejudging.found.raw))
    report = report_of(told.rejudging, told.notes, budget)
    if given["as_json"]:
        click.echo(json.dumps(report))
        return
    for line in lines_of(report):
        click.echo(readable(line))


class Span(NamedTuple):
    """The time that is folded."""

    since_ms: int
    learn_ms: int


class Told(NamedTuple):
    """The outcome, with sentences about how it was found."""

    rejudging: Rejudging
    notes: list[str]


def _duration(option: str, text: str) -> int:
    try:
        return parse_duration_ms(text)
    except InputError as e:
        raise InputError(f"{option}: {e}") from None


async def _run(
    settings: Settings, present: CoreSettings | None, span: Span, model: str | None, were: str
) -> Told | None:
    """The comparison; None if somebody stopped it."""
    from stream_monitor.cli.produce import stopped_by_signals
    from stream_monitor.stages.looking_back import LookingBack

    stop = asyncio.Event()
    with stopped_by_signals(stop):
        async with LookingBack(settings) as log:
            told = await _Run(settings, log, span, model, stop).all(present)
        if told is not None and were == "told":
            told.rejudging.found.were = await _told(settings, told.rejudging, stop)
            told.notes.append(
                "the alarms that were come from the topic alerts, which may keep only the last "
                "episode of each"
            )
    return None if stop.is_set() else told


class _Run:
    """One run: each partition that may have rows of the model, one after the other."""

    def __init__(
        self,
        settings: Settings,
        log: LookingBack,
        span: Span,
        model: str | None,
        stop: asyncio.Event,
    ) -> None:
        self.settings, self.log, self.span, self.model, self.stop = settings, log, span, model, stop
        self.notes: list[str] = []

    async def all(self, present: CoreSettings | None) -> Told | None:
        from stream_monitor.config.baseline_files import file_profiles
        from stream_monitor.offline.rejudging import Rejudging, Side
        from stream_monitor.stages.published_baselines import read_baselines

        log, core = self.log, self.settings.core
        partitions = await self._with_records()
        if present is None:
            present = await log.newest_settings()
            self.notes.append(
                "the present configuration is that of the newest snapshot"
                if present is not None
                else "no snapshot tells the present configuration, so it is the defaults; give it "
                "with --present FILE"
            )
        sides = []
        for each in (present or type(core)(), core):
            files = self._files(file_profiles, each, new=each is core)
            sides.append(Side(each, await read_baselines(self.settings, files)))
        rejudging = Rejudging(log.partitions, sides[0], sides[1], self.span.since_ms, self.model)
        total = sum(b.end - b.first for b in partitions.values())
        with _progress(total, rejudging) as show:
            for partition, bounds in partitions.items():
                if not await self._partition(rejudging, partition, bounds, show):
                    return None
        self._check(rejudging)
        return Told(rejudging, self.notes)

    def _files(
        self, read: Callable[[CoreSettings], dict[str, bytes]], core: CoreSettings, *, new: bool
    ) -> dict[str, bytes]:
        """Profiles of files; those of the present configuration may be on another machine."""
        from stream_monitor.errors import ConfigError

        try:
            return read(core)
        except ConfigError as e:
            if new:
                raise
            self.notes.append(f"a baseline of the present configuration is left out: {e}")
            return {}

    async def _with_records(self) -> dict[int, Bounds]:
        """Partitions that have records; with `--model` only that of the model."""
        from stream_monitor.ingest import home

        log = self.log
        wanted = range(log.partitions) if self.model is None else [home(self.model, log.partitions)]
        found = {p: bounds for p in wanted if (bounds := await log.bounds(p)).first < bounds.end}
        topic = f"{self.settings.kafka.topic_prefix}observations"
        if not found:
            where = (
                topic if self.model is None else f"{topic}/{wanted[0]}, where its rows would be,"
            )
            raise InputError(
                f"{where} is empty: nothing was monitored, or Kafka keeps it no longer "
                "(retention.ms of the topic)"
            )
        begins_ms = max(b.first_ms or 0 for b in found.values())
        if begins_ms > self.span.since_ms and any(b.first for b in found.values()):
            self.notes.append(
                f"{topic} begins at {rfc3339(begins_ms)}, after --since: Kafka keeps no more "
                "(retention.ms of the topic)"
            )
        return found

    async def _partition(
        self, rejudging: Rejudging, partition: int, bounds: Bounds, show: Callable[[int], None]
    ) -> bool:
        """Fold one partition; False if it was stopped."""
        beginning = await self._beginning(partition, bounds)
        rejudging.begin(partition, beginning)
        show(beginning.position - bounds.first)
        done = beginning.position
        async for offset, value, appended_ms in self.log.records(
            partition, beginning.position, bounds.end
        ):
            rejudging.fold(offset, value, appended_ms)
            show(offset + 1 - done)
            done = offset + 1
            await asyncio.sleep(0)
            if self.stop.is_set():
                return False
        rejudging.end()
        return True

    async def _beginning(self, partition: int, bounds: Bounds) -> Beginning:
        """The newest state from before `--since`, or none, and then earlier records."""
        from stream_monitor.offline.rejudging import Beginning

        since_ms, learn_ms = self.span
        since = await self.log.offset_at(partition, since_ms)
        since = bounds.end if since is None else since
        stored = await self.log.stored_before(partition, since, since_ms)
        if stored is not None and stored.position >= bounds.first:
            return Beginning(stored.position, stored.parts, whole=True)
        at = await self.log.offset_at(partition, since_ms - learn_ms)
        first = max(bounds.first, bounds.end if at is None else at)
        if first == 0:
            return Beginning(0, whole=True)
        self.notes.append(
            f"observations/{partition} has no usable snapshot from before --since: models learn "
            f"from offset {first} on (--learn), and nothing is compared until they have learnt"
        )
        return Beginning(first)

    def _check(self, rejudging: Rejudging) -> None:
        """Refuse a model that has no rows."""
        if self.model is None or self.model in rejudging.models:
            return
        close = difflib.get_close_matches(self.model, rejudging.models, 1, 0.5)
        there = ", ".join(sorted(rejudging.models)[:20]) or "none"
        raise InputError(
            f"--model {self.model}: no rows of it in observations"
            + (f"; did you mean {close[0]!r}?" if close else f"; models beside it: {there}")
        )


async def _told(settings: Settings, rejudging: Rejudging, stop: asyncio.Event) -> list[Any]:
    """The alarms on the topic `alerts`, as far as they are compared."""
    from stream_monitor.kafka.records import TopicReader
    from stream_monitor.offline.alarms import alarms_of

    events = []
    async with TopicReader(settings, ["alerts"]) as records:
        async for record in records.whole():
            if stop.is_set():
                return []
            try:
                event = json.loads(record.value or b"")
                alarms_of([event])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a tombstone, or no alert
            events.append(event)
    return [alarm for alarm in alarms_of(events) if rejudging.compares(alarm)]


@contextmanager
def _progress(total: int, rejudging: Rejudging) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal: records, rows a second, and log time."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("folding observations", total=total)
        began_s = shown_s = time.monotonic()
        waiting = 0

        def show(records: int) -> None:
            nonlocal shown_s, waiting
            waiting += records
            now_s = time.monotonic()
            if now_s - shown_s >= SHOW_S:
                rate = rejudging.rows / max(now_s - began_s, 1e-3)
                what = (
                    f"folding observations, {rate:,.0f} rows/s, at {rfc3339(rejudging.end_ms)[:19]}"
                )
                bar.update(task, advance=waiting, description=what)
                shown_s, waiting = now_s, 0

        yield show
