"""
`stream-monitor replay`: the same core on files, without a broker.

Rule of the file: errors that can be known early (options, configuration, a file that cannot be
written) end it before the first event is read. Nothing is written before the last event.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_monitor.cli.experiment_caps import resolve_caps
from stream_monitor.cli.experiment_outcome import outcome_lines
from stream_monitor.cli.input_options import input_options, options_of
from stream_monitor.cli.replay_inject import injection_lines, tried
from stream_monitor.cli.replay_opinions import opinion_lines
from stream_monitor.cli.terminal import readable, reading
from stream_monitor.config import load
from stream_monitor.config.injection import load_injection
from stream_monitor.errors import InputError
from stream_monitor.experiments.telling import PROGRESS, REFUSED, VERDICT
from stream_monitor.inputs.options import InputOptions
from stream_monitor.offline.experiment_file import definitions, experiment_events, merged

if TYPE_CHECKING:
    from rich.table import Table

    from stream_monitor.config.injection_settings import Injection
    from stream_monitor.offline.outcome import Note, Refused
    from stream_monitor.offline.replay import Replay
    from stream_monitor.offline.trials import Trials
    from stream_monitor.settings import Settings

LEVELS = {"info": 0, "warning": 1, "critical": 2}
POINTS = 300
"""Number of points in a chart of the report."""


@click.command(name="replay")
@click.argument("table", required=False, metavar="[FILE]")
@input_options
@click.option(
    "--config", metavar="FILE", help="The configuration. [default: ./monitor.yaml if it exists]"
)
@click.option("--alerts", metavar="FILE", help="Write the alert events to this file (JSON Lines).")
@click.option("--summary", metavar="FILE", help="Write summary.json here.")
@click.option("--report", metavar="FILE", help="Write an HTML report to this file.")
@click.option(
    "--dead-letters",
    metavar="FILE",
    help="Write the records that could not be used to this file (JSON Lines).",
)
@click.option(
    "--experiment",
    metavar="FILE",
    help="Judge an experiment: the `experiment_started` event (JSON). The rows have `variant` and "
    "`unit`.",
)
@click.option(
    "--experiment-past",
    metavar="FILE",
    help="Calls before the experiment; its caps such as p99 are read from them.",
)
@click.option(
    "--verdicts", metavar="FILE", help="Write the verdicts on it to this file (JSON Lines)."
)
@click.option(
    "--inject",
    metavar="FILE",
    help="Put the drifts of this file (YAML) into the data, and say how soon each is found.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "critical"]),
    help="Exit 1 if an alert of this severity or worse fired, or if most of the input could not be "
    "used.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(table: str | None, *, fail_on: str | None, as_json: bool, **given: Any) -> None:
    """
    Monitor files, without a broker: the same core, at full speed.

    FILE is a plain table: known names are fields of the event, every other column is a feature.

    \b
    Examples:
      stream-monitor replay scored.csv --map prediction=y_hat --map label=y --report report.html
      stream-monitor replay --predictions p.jsonl.gz --labels l.csv --config monitor.yaml --fail-on warning
      stream-monitor replay scored.csv --map label=y --inject drift.yaml
    """  # noqa: D301, E501
    settings = load(given["config"], os.environ)
    options = options_of(given, table, settings.core)
    for option in ("alerts", "summary", "report", "dead_letters", "verdicts"):
        _check_writable(option, given[option])
    if given["verdicts"] and not given["experiment"]:
        raise InputError("--verdicts needs --experiment, the event that starts the experiment")
    experiment = _experiment(given, settings)
    points = POINTS if given["report"] else 0
    injection = load_injection(given["inject"]) if given["inject"] else None
    replay, read, found, trials = _replayed(settings, options, points, experiment, injection)
    summary, alerts = replay.summary(), replay.alerts()
    events = [json.loads(alert) for alert in alerts]
    if trials is not None:
        summary["injection"] = trials.report()
    gate = _gate(fail_on, events, found) if fail_on else None
    if gate is not None:
        summary["gate"] = gate
    if given["alerts"]:
        _write(given["alerts"], b"".join(alert + b"\n" for alert in alerts))
    if given["summary"]:
        _write(given["summary"], json.dumps(summary, indent=2).encode() + b"\n")
    if given["verdicts"]:
        _write(given["verdicts"], b"".join(line + b"\n" for line in replay.verdicts()))
    if given["dead_letters"]:
        _write(
            given["dead_letters"],
            b"".join(
                json.dumps(_letter(letter)).encode() + b"\n" for letter in replay.dead_letters
            ),
        )
    if given["report"]:
        page = _report(replay, summary, events, " and ".join(_named(options)), read, found)
        _write(given["report"], page)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _show(summary, events)
        told = replay.told(VERDICT, PROGRESS)
        for line in outcome_lines(definitions(experiment), summary, told, replay.log_time_ms):
            click.echo(line)
        for line in opinion_lines(summary, events, replay.span_ms, settings.core):
            click.echo(readable(line))
        for line in injection_lines(summary["injection"]) if trials is not None else ():
            click.echo(readable(line))
    for note in found:
        click.echo(readable(f"{'warning' if note.fails else 'note'}: {note.text}"), err=as_json)
    if gate is not None and gate["failed"]:
        click.echo(f"failed: --fail-on {fail_on}: {readable('; '.join(gate['because']))}", err=True)
        sys.exit(1)


def _report(
    replay: Replay,
    summary: dict[str, Any],
    events: list[dict[str, Any]],
    title: str,
    read: list[str],
    found: list[Note],
) -> bytes:
    from stream_monitor.offline.report import render

    texts = [note.text for note in found]
    return render(
        summary, events, replay.history, title, read, texts, replay.courses, replay.witness
    ).encode()


def _experiment(
    given: dict[str, Any], settings: Settings
) -> list[tuple[dict[str, Any], int | None]]:
    """The events of --experiment, with numbers in place of quantiles of --experiment-past."""
    path, past = given["experiment"], given["experiment_past"]
    if not path:
        if past:
            raise InputError("--experiment-past needs --experiment, whose caps are read from it")
        return []
    if not past:
        return experiment_events(path, settings.core)
    return experiment_events(
        path,
        settings.core,
        lambda event: resolve_caps(event, "--experiment-past", past, given, settings),
    )


def _gate(fail_on: str, alerts: list[dict[str, Any]], found: list[Note]) -> dict[str, Any]:
    """Whether the replay fails as a check, and because of what."""
    bad = {
        alert["fingerprint"]: alert["summary"]
        for alert in alerts
        if alert["status"] in {"firing", "updated"} and LEVELS[alert["severity"]] >= LEVELS[fail_on]
    }
    because = [*bad.values(), *(note.text for note in found if note.fails)]
    return {"fail_on": fail_on, "failed": bool(because), "because": because}


def _named(options: InputOptions) -> list[str]:
    return [
        "stdin" if path == "-" else Path(path).name
        for path in (options.table, options.predictions, options.labels)
        if path is not None
    ]


def _check_writable(option: str, path: str | None) -> None:
    if path is None:
        return
    folder = Path(path).parent
    why = (
        "is a folder"
        if Path(path).is_dir()
        else f"folder {folder} does not exist"
        if not folder.is_dir()
        else ""
        if os.access(folder, os.W_OK)
        else f"cannot write to {folder}"
    )
    if why:
        raise InputError(f"--{option.replace('_', '-')} {path}: {why}")


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _letter(letter: Refused) -> dict[str, Any]:
    """A dead letter; its value as text, or in base64 if it is not text."""
    try:
        value = {"value": letter.value.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(letter.value).decode()}
    return {
        "topic": letter.kind,
        "offset": letter.offset,
        "reason": letter.reason,
        "message": letter.message,
        **value,
    }


def _replayed(
    settings: Settings,
    options: InputOptions,
    points: int,
    experiment: list[tuple[dict[str, Any], int | None]],
    injection: Injection | None = None,
) -> tuple[Replay, list[str], list[Note], Trials | None]:
    """
    All events of the input, folded; returns how the input was read, the outcome, and what was found
    of drifts.
    """
    from stream_monitor.config.baseline_files import file_profiles
    from stream_monitor.config.remarks import remarks
    from stream_monitor.inputs.times import DEFAULT_START_MS
    from stream_monitor.offline.experiment_notes import experiment_notes
    from stream_monitor.offline.outcome import notes
    from stream_monitor.offline.replay import Replay

    profiles = file_profiles(settings.core)
    with reading(options, "replaying") as events:
        events.scan()
        for note in (*events.notes, *(f"note: {each}" for each in remarks(settings.core))):
            click.echo(readable(note), err=True)
        first_ms = max(events.first_ms or 0, DEFAULT_START_MS)  # earlier times are rejected
        span_ms = max((events.last_ms or 0) - first_ms, 0)
        trials = None
        if injection is None:
            replay = Replay(settings, profiles, span_ms=span_ms, points=points)
            replay.feed(merged(events, experiment))
            replay.close()
        else:
            trials = tried(
                injection,
                events,
                lambda: Replay(settings, profiles, span_ms=span_ms, points=points),
                lambda every: merged(every, experiment),
                settings.core,
            )
            replay = trials.shown
        summary = replay.summary()
        unlabelled = events.unlabelled
        meetings = events.meetings() if options.table is None and replay.unmet_labels else None
        core = settings.core
        delays_ms = [
            core.models.get(name, core.defaults).labels.max_delay_ms for name in summary["models"]
        ]
        found = notes(
            summary,
            clipped=replay.ingest.clipped,
            ahead=replay.ingest.ahead,
            unmet=replay.unmet_labels,
            unlabelled=unlabelled,
            meetings=meetings,
            max_delay_ms=min(delays_ms, default=core.defaults.labels.max_delay_ms),
            model_column=events.column_of("model"),
        )
        found += experiment_notes(definitions(experiment), summary, replay.told(REFUSED))
    return replay, events.notes, found, trials


def _show(summary: dict[str, Any], alerts: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for kind, r in summary["records"].items():
        console.print(
            f"{kind}: {r['received']:,} received, {r['accepted']:,} accepted, "
            f"{r['duplicate']:,} duplicate, {r['rejected']:,} rejected"
        )
    rejected = {
        reason["reason"]: reason["count"]
        for found in summary.get("refused", {}).values()
        for reason in found
    }
    if rejected:
        console.print(
            "rejected: "
            + ", ".join(f"{reason} {n:,}" for reason, n in rejected.items())
            + " (--dead-letters FILE writes them with their reasons)"
        )
    table = _versions(summary)
    if table.row_count:
        console.print(table)
    for alert in alerts:
        if alert["status"] != "updated":
            when = alert["starts_at"] if alert["status"] == "firing" else alert["ends_at"]
            console.print(
                f"{when}  {alert['status']:8}  {alert['severity']:8}  {readable(alert['summary'])}",
                markup=False,
                soft_wrap=not console.is_terminal,
            )
    fired = [alert for alert in alerts if alert["status"] == "firing"]
    told = summary["alerts"]["notifications"]
    causes = len({alert["incident"] for alert in fired})
    console.print(
        f"{len(fired)} alert{'' if len(fired) == 1 else 's'} in "
        f"{causes} incident{'' if causes == 1 else 's'}; a person would have been told "
        f"{told} time{'' if told == 1 else 's'}"
        if alerts
        else "no alerts"
    )


def _versions(summary: dict[str, Any]) -> Table:
    """The windows of each model version, in rows."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "model",
        "version",
        "task",
        "predictions",
        "labels",
        "window",
        "metrics",
        box=None,
        pad_edge=False,
    )
    for model, found in summary["models"].items():
        for version, v in found["versions"].items():
            for i, (window, w) in enumerate(list(v["windows"].items()) or [("", {})]):
                numbers = "  ".join(f"{k} {x:.4g}" for k, x in w.items() if isinstance(x, float))
                head = (
                    (
                        escape(readable(model)),
                        escape(readable(version)),
                        v.get("task", "not known yet"),
                        f"{v['predictions']:,}",
                        f"{v['labels']:,}",
                    )
                    if i == 0
                    else ("", "", "", "", "")
                )
                table.add_row(*head, window, numbers)
    return table
