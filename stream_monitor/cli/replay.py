"""
`stream-monitor replay`: the same core on files, without a broker.

Rule of the file: what can be seen to be wrong (options, configuration, a file that cannot be written) ends it before the first event is read; nothing is written before the last.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.terminal import readable, reading
from stream_monitor.config import load
from stream_monitor.errors import InputError
from stream_monitor.inputs.options import InputOptions, parse_duration_ms

if TYPE_CHECKING:
    from stream_monitor.replay import DeadLetter, Replay

LEVELS = {"info": 0, "warning": 1, "critical": 2}
POINTS = 300
"""Points of a chart of the report."""


@click.command(name="replay")
@click.argument("table", required=False, metavar="[FILE]")
@click.option("--predictions", metavar="FILE", help="Prediction events: .csv, .jsonl or .parquet (.gz too); - is JSON Lines on stdin.")
@click.option("--labels", metavar="FILE", help="Label events, merged with the predictions by time.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Which column is a field of the event; FIELD=:VALUE is a constant.")
@click.option("--ignore", multiple=True, metavar="COLUMN", help="Leave a column out.")
@click.option("--interval", default="1s", show_default=True, help="Time between the rows of a table without timestamps.")
@click.option("--label-delay", default="0s", show_default=True, help="How much later than its prediction the label of a table is.")
@click.option("--config", metavar="FILE", help="The configuration; ./monitor.yaml if there, else the defaults.")
@click.option("--alerts", metavar="FILE", help="Write the alert events here, JSON Lines.")
@click.option("--summary", metavar="FILE", help="Write summary.json here.")
@click.option("--report", metavar="FILE", help="Write a report for people here, one HTML file.")
@click.option("--dead-letters", metavar="FILE", help="Write the records that could not be used here, JSON Lines.")
@click.option("--fail-on", type=click.Choice(["warning", "critical"]), help="Exit 1 when an alert of this severity or worse fired.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(table: str | None, *, fail_on: str | None, as_json: bool, **given: Any) -> None:
    """
    Monitor files, without a broker: the same core, at full speed.

    FILE is a plain table: known names are fields of the event, every other column is a feature.

    \b
    Examples:
      stream-monitor replay scored.csv --map prediction=y_hat --map label=y --report report.html
      stream-monitor replay --predictions p.jsonl.gz --labels l.csv --config monitor.yaml --fail-on warning
    """  # noqa: D301
    options = InputOptions(
        table=table,
        predictions=given["predictions"],
        labels=given["labels"],
        maps=given["maps"],
        ignore=given["ignore"],
        interval_ms=parse_duration_ms(given["interval"]),
        label_delay_ms=parse_duration_ms(given["label_delay"]),
    )
    for option in ("alerts", "summary", "report", "dead_letters"):
        _check_writable(option, given[option])
    replay = _replayed(given["config"], options, points=POINTS if given["report"] else 0)
    summary, alerts = replay.summary(), replay.alerts()
    events = [json.loads(alert) for alert in alerts]
    rejected = Counter(letter.reason for letter in replay.dead_letters)
    if given["alerts"]:
        _write(given["alerts"], b"".join(alert + b"\n" for alert in alerts))
    if given["summary"]:
        _write(given["summary"], json.dumps(summary, indent=2).encode() + b"\n")
    if given["dead_letters"]:
        _write(given["dead_letters"], b"".join(json.dumps(_letter(letter)).encode() + b"\n" for letter in replay.dead_letters))
    if given["report"]:
        from stream_monitor.report import render

        _write(given["report"], render(summary, events, replay.history, rejected, " and ".join(_named(options))).encode())
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _show(summary, events, rejected)
    if fail_on and any(alert["status"] in {"firing", "updated"} and LEVELS[alert["severity"]] >= LEVELS[fail_on] for alert in events):
        sys.exit(1)


def _named(options: InputOptions) -> list[str]:
    return ["stdin" if path == "-" else Path(path).name for path in (options.table, options.predictions, options.labels) if path is not None]


def _check_writable(option: str, path: str | None) -> None:
    if path is None:
        return
    folder = Path(path).parent
    why = (
        "is a folder" if Path(path).is_dir() else f"there is no folder {folder}" if not folder.is_dir() else "" if os.access(folder, os.W_OK) else f"{folder} cannot be written to"
    )
    if why:
        raise InputError(f"--{option.replace('_', '-')} {path}: {why}")


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _letter(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter; its value as text, or in base64 when it is none."""
    try:
        value = {"value": letter.value.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(letter.value).decode()}
    return {"topic": letter.kind, "offset": letter.offset, "reason": letter.reason, "message": letter.message, **value}


def _replayed(config: str | None, options: InputOptions, points: int) -> Replay:
    """All events of the input, folded."""
    from stream_monitor.config.references import file_profiles
    from stream_monitor.inputs.times import DEFAULT_START_MS
    from stream_monitor.replay import Replay

    settings = load(config, os.environ)
    profiles = file_profiles(settings.core)
    with reading(options, "replaying") as events:
        for note in events.notes:
            click.echo(readable(note), err=True)
        events.scan()
        first_ms = max(events.first_ms or 0, DEFAULT_START_MS)  # what is earlier is rejected
        replay = Replay(settings, profiles, span_ms=max((events.last_ms or 0) - first_ms, 0), points=points)
        replay.feed(events)
        replay.close()
    return replay


def _show(summary: dict[str, Any], alerts: list[dict[str, Any]], rejected: Counter[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for kind, r in summary["records"].items():
        console.print(f"{kind}: {r['received']:,} received, {r['accepted']:,} accepted, {r['duplicate']:,} duplicate, {r['rejected']:,} rejected")
    if rejected:
        console.print("rejected: " + ", ".join(f"{reason} {n:,}" for reason, n in rejected.most_common()) + " (--dead-letters FILE writes them, with what is wrong)")
    table = Table("model", "version", "task", "predictions", "labels", "window", "metrics", box=None, pad_edge=False)
    for model, found in summary["models"].items():
        for version, v in found["versions"].items():
            for i, (window, w) in enumerate(list(v["windows"].items()) or [("", {})]):
                numbers = "  ".join(f"{k} {x:.4g}" for k, x in w.items() if isinstance(x, float))
                head = (
                    (escape(readable(model)), escape(readable(version)), v.get("task", "not known yet"), f"{v['predictions']:,}", f"{v['labels']:,}")
                    if i == 0
                    else ("", "", "", "", "")
                )
                table.add_row(*head, window, numbers)
    if table.row_count:
        console.print(table)
    for alert in alerts:
        if alert["status"] != "updated":
            when = alert["starts_at"] if alert["status"] == "firing" else alert["ends_at"]
            console.print(f"{when}  {alert['status']:8}  {alert['severity']:8}  {readable(alert['summary'])}", markup=False, soft_wrap=not console.is_terminal)
    if not alerts:
        console.print("no alerts")
    for note in _notes(summary):
        console.print(note, markup=False, soft_wrap=not console.is_terminal)


def _notes(summary: dict[str, Any]) -> Iterator[str]:
    """What a person may wonder about: why there is nothing, or no drift."""
    if not any(records["received"] for records in summary["records"].values()):
        yield "note: the input has no rows"
    for model, found in summary["models"].items():
        for version, v in found["versions"].items():
            name = readable(f"{model} {version}".strip())
            if v["predictions"] and "baseline" not in v:
                yield f"note: {name}: fewer rows than baseline.rows (5,000 by default), so there is no reference yet for drift, quality and anomalies"
