"""
`stream-monitor alerts`: the alerts that fire, by incident, and the marks of people on them.

Rule of the file: it shows the board of `alert_board.py`. An incident is an alert and, below it,
those with the same cause. Text from topics is shown without its control characters.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.alert_board import FINGERPRINT_SHOWN, Board, Filter, found_by, read
from stream_monitor.cli.terminal import readable, user

if TYPE_CHECKING:
    from stream_monitor.alerts.event import Alert
    from stream_monitor.alerts.marks import Mark, MarkType
    from stream_monitor.settings import Settings

COLOURS = {"critical": "red", "warning": "yellow", "info": "blue", "resolved": "green"}
SEVERITIES = ("info", "warning", "critical")
WORDS = {"acknowledged": "acknowledged", "muted": "muted", "false_alarm": "called a false alarm"}


@click.group(invoke_without_command=True)
@click.option("--all", "resolved", is_flag=True, help="Resolved ones too.")
@click.option("--model", metavar="NAME", help="Of this model only.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Of this severity only.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="At most N incidents; the newest."
)
@click.option("--follow", is_flag=True, help="Follow new alerts until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration with the address of Kafka. [default: ./monitor.yaml if it exists]",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    resolved: bool,
    model: str | None,
    severity: str | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
    config: str | None,
) -> None:
    """
    Show alerts: those that fire, by incident, the newest first.

    \b
    Examples:
      stream-monitor alerts
      stream-monitor alerts --all --model fraud --limit 20
      stream-monitor alerts --follow --json
      stream-monitor alerts ack 3f2a9c --for 2h --comment "looking into it"
    """  # noqa: D301
    if ctx.invoked_subcommand is not None:
        ctx.obj = config
        return
    view = _View(_settings(config), Filter(model, severity, resolved), limit, as_json=as_json)
    asyncio.run(view.run(follow=follow))


class _View:
    """Shows a board, once or as it changes."""

    def __init__(
        self, settings: Settings, wanted: Filter, limit: int | None, *, as_json: bool
    ) -> None:
        self.settings, self.wanted, self.limit, self.as_json = settings, wanted, limit, as_json
        self.board = Board()

    async def run(self, *, follow: bool) -> None:
        """Run until everything is shown; with `follow` until stopped."""
        from stream_monitor.cli.produce import stopped_by_signals
        from stream_monitor.kafka.records import TopicReader

        stop = asyncio.Event()
        with stopped_by_signals(stop):
            async with TopicReader(self.settings, ["alerts", "lifecycle"]) as records:
                await read(records, self.board, stop)
                if stop.is_set():
                    return
                self._whole()
                if follow:
                    async for record in records.follow(stop):
                        self._changed(self.board.take(record))

    def _whole(self) -> None:
        found = self.board.listed(self.wanted)
        for incident in found[: self.limit]:
            for place, alert in enumerate(incident):
                self._print(alert, below=place > 0)
        if self.board.unreadable:
            click.echo(
                f"{self.board.unreadable} records on {self.settings.kafka.topic_prefix}alerts "
                "are not readable and were skipped",
                err=True,
            )
        if self.as_json:
            return
        if not found:
            click.echo("no alert fires" if not self.wanted.resolved else "no alerts")
        elif self.limit is not None and len(found) > self.limit:
            click.echo(f"{len(found) - self.limit} more; raise --limit to see them")

    def _changed(self, change: Alert | Mark | None) -> None:
        from stream_monitor.alerts.event import Alert

        if change is None:
            return
        alert = change if isinstance(change, Alert) else self.board.alerts.get(change.fingerprint)
        if alert is not None and self.wanted.wants(alert):
            self._print(alert)

    def _print(self, alert: Alert, *, below: bool = False) -> None:
        import msgspec

        marks = self.board.marks_of(alert)
        click.echo(
            msgspec.json.encode({**msgspec.to_builtins(alert), "marks": marks})
            if self.as_json
            else shown(alert, marks, below=below)
        )
        sys.stdout.flush()


def shown(alert: Alert, marks: list[Mark], *, below: bool = False) -> str:
    """An alert as lines for people; `below` another one with the same cause."""
    over = alert.status == "resolved"
    head = click.style(
        f"{alert.status.upper():<8}  {alert.severity:<8}",
        fg=COLOURS["resolved" if over else alert.severity],
        bold=not over,
    )
    when = (alert.ends_at if over and alert.ends_at else alert.starts_at).partition(".")[
        0
    ].removesuffix("Z").replace("T", " ") + "Z"
    lines = [
        (
            f"{'  + ' if below else ''}{head}  {when}  "
            f"{readable(alert.fingerprint[:FINGERPRINT_SHOWN])}  {readable(alert.summary)}"
        )
    ]
    for mark in marks:
        ends = mark.type == "muted" and mark.until is not None and mark.until <= mark.at
        word = "not muted any more" if ends else WORDS[mark.type]
        by = f" by {mark.by}" if mark.by else ""
        until = f", until {mark.until}" if mark.until and not ends else ""
        comment = f": {mark.comment}" if mark.comment else ""
        lines.append(
            click.style(
                f"{'':20}{readable(f'{word}{by} at {mark.at}{until}{comment}')}",
                dim=True,
            )
        )
    return "\n".join(lines)


def _settings(config: str | None) -> Settings:
    from stream_monitor.config import load

    return load(config, os.environ)


# ---- marks of people


async def _say(
    settings: Settings, kind: MarkType, prefix: str, lasts_ms: int | None, comment: str | None
) -> tuple[Alert, Mark]:
    from stream_monitor.alerts.marks import Mark
    from stream_monitor.kafka.records import TopicReader, write
    from stream_monitor.times import rfc3339

    board = Board()
    async with TopicReader(settings, ["alerts"]) as records:
        await read(records, board, asyncio.Event())
    alert = found_by(board, prefix)
    now_ms = time.time_ns() // 1_000_000
    until = None if lasts_ms is None else rfc3339(now_ms + lasts_ms)
    mark = Mark(
        type=kind,
        model=alert.model,
        at=rfc3339(now_ms),
        fingerprint=alert.fingerprint,
        starts_at=None if kind == "muted" else alert.starts_at,
        until=until,
        comment=comment,
        by=user(),
    )
    await write(settings, "lifecycle", alert.model, mark.encoded())
    return alert, mark


def _subcommand(
    name: str,
    kind: MarkType,
    what: str,
    example: str,
    lasts: str | None = None,
    *,
    timed: bool = True,
) -> None:
    """A command that writes a mark; `timed` ones take `--for`, the others last for `lasts`."""

    def callback(
        outer: str | None,
        config: str | None,
        fingerprint: str,
        comment: str | None,
        as_json: bool,
        lasts: str | None = lasts,
    ) -> None:
        from stream_monitor.inputs.options import parse_duration_ms

        lasts_ms = None if lasts is None else parse_duration_ms(lasts)
        alert, mark = asyncio.run(
            _say(_settings(config or outer), kind, fingerprint, lasts_ms, comment)
        )
        if as_json:
            click.echo(json.dumps(json.loads(mark.encoded())))
        else:
            click.echo(shown(alert, [mark]))

    callback.__doc__ = f"{what}\n\nExample: stream-monitor alerts {example}"
    options: list[Any] = [
        click.argument("fingerprint"),
        click.option(
            "--for",
            "lasts",
            metavar="DURATION",
            default=lasts,
            help="How long it lasts, such as 30m, 2h or 7d; 0s ends it now. Default: "
            f"{lasts or 'as long as the episode'}.",
        ),
        click.option("--comment", metavar="TEXT", help="What others should know."),
        click.option("--json", "as_json", is_flag=True, help="Print the record that was written."),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            help="Configuration with the address of Kafka. [default: ./monitor.yaml if it exists]",
        ),
        click.pass_obj,
    ]
    if not timed:
        del options[1]
    for option in reversed(options):
        callback = option(callback)
    command.command(name=name, short_help=what.partition(",")[0].rstrip(".") + ".")(callback)


_subcommand(
    "ack",
    "acknowledged",
    "Tell others that you work on an alert, for as long as this episode lasts.",
    'ack 3f2a9c --comment "retraining"',
)
_subcommand(
    "mute",
    "muted",
    "Mute a fingerprint for some time, including later episodes. If the alert speaks for an "
    "incident that fires, all of the incident is silent until something worse joins it.",
    "mute 3f2a9c --for 7d",
    lasts="24h",
)
_subcommand(
    "unmute",
    "muted",
    "End a mute, so that what still fires is told again.",
    "unmute 3f2a9c",
    lasts="0s",
    timed=False,
)
_subcommand(
    "false",
    "false_alarm",
    "Mark an episode as a false alarm, which also silences it.",
    'false 3f2a9c --comment "the sensor was cleaned"',
    timed=False,
)
