"""`stream-monitor replay`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from stream_monitor.config import load
from stream_monitor.inputs.options import InputOptions, parse_duration_ms

LEVELS = {"info": 0, "warning": 1, "critical": 2}


@click.command()
@click.argument("table", required=False)
@click.option("--predictions", help="Prediction events: .csv .jsonl .parquet (.gz too).")
@click.option("--labels", help="Label events.")
@click.option("--map", "maps", multiple=True, help="FIELD=COLUMN, or FIELD=:VALUE for a constant. May be repeated.")
@click.option("--ignore", multiple=True, help="A column to leave out. May be repeated.")
@click.option("--interval", default="1s", show_default=True, help="Time between the rows of a table that has no timestamps.")
@click.option("--label-delay", default="0s", show_default=True, help="How long after its row the label of a table comes.")
@click.option("--config", "path", help="monitor.yaml.")
@click.option("--alerts", "alerts_path", help="Write the alert events to this file, JSON Lines.")
@click.option("--summary", "summary_path", help="Write summary.json here.")
@click.option("--dead-letters", "dead_path", help="Write the records that could not be used here, JSON Lines.")
@click.option("--fail-on", type=click.Choice(["warning", "critical"]), help="Exit 1 when such an alert fired.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    table: str | None,
    predictions: str | None,
    labels: str | None,
    maps: tuple[str, ...],
    ignore: tuple[str, ...],
    interval: str,
    label_delay: str,
    path: str | None,
    alerts_path: str | None,
    summary_path: str | None,
    dead_path: str | None,
    fail_on: str | None,
    as_json: bool,
) -> None:
    """
    Monitor files, without a broker: the same core, at full speed.

    Example: stream-monitor replay scored.csv --map prediction=y_hat --map label=y --summary summary.json
    """
    settings = load(path, os.environ)
    options = InputOptions(
        table=table, predictions=predictions, labels=labels, maps=maps, ignore=ignore, interval_ms=parse_duration_ms(interval), label_delay_ms=parse_duration_ms(label_delay)
    )
    from stream_monitor.config.references import file_profiles
    from stream_monitor.replay import Replay

    replay = Replay(settings, file_profiles(settings.core))
    _feed(replay, options)
    replay.close()
    alerts = replay.alerts()
    summary = replay.summary()
    if alerts_path:
        Path(alerts_path).write_bytes(b"".join(a + b"\n" for a in alerts))
    if summary_path:
        Path(summary_path).write_text(json.dumps(summary, indent=2) + "\n")
    if dead_path:
        lines = (
            json.dumps({"topic": d.kind, "offset": d.offset, "reason": d.reason, "message": d.message, "value": d.value.decode("utf-8", "replace")}) for d in replay.dead_letters
        )
        Path(dead_path).write_text("".join(line + "\n" for line in lines))
    events = [json.loads(a) for a in alerts]
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _show(summary, events)
    if fail_on and any(a["status"] == "firing" and LEVELS[a["severity"]] >= LEVELS[fail_on] for a in events):
        sys.exit(1)


def _feed(replay: Any, options: InputOptions) -> None:
    from stream_monitor.cli.terminal import reading

    with reading(options, "replaying") as events:
        replay.feed(events)


def _show(summary: dict[str, Any], alerts: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200)
    records = summary["records"]
    for kind in ("predictions", "labels"):
        r = records[kind]
        console.print(f"{kind}: {r['received']:,} received, {r['accepted']:,} accepted, {r['duplicate']:,} duplicate, {r['rejected']:,} rejected")
    table = Table("model", "version", "task", "predictions", "labels", "window", "metrics", box=None, pad_edge=False)
    for model, found in summary["models"].items():
        for version, v in found["versions"].items():
            for i, (window, w) in enumerate(v["windows"].items() or [("", {})]):
                numbers = "  ".join(f"{k} {x:.4g}" for k, x in w.items() if isinstance(x, float))
                head = (model, version, v.get("task", "learning"), f"{v['predictions']:,}", f"{v['labels']:,}") if i == 0 else ("", "", "", "", "")
                table.add_row(*head, window, numbers)
    console.print(table)
    for alert in alerts:
        if alert["status"] != "updated":
            console.print(
                f"{alert['starts_at'] if alert['status'] == 'firing' else alert['ends_at']}  {alert['status']:8}  {alert['severity']:8}  {alert['summary']}", markup=False
            )
    if not alerts:
        console.print("no alerts")
