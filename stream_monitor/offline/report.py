"""
The report of a replay: one HTML file that needs nothing else. What happened comes first, then the
pictures that prove it, then everything else.

Rule of the file: text in, text out. It contains no script and names no other file. Every text from
the input is escaped. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stream_monitor.offline.cause_report import Card, cards, cause_sections
from stream_monitor.offline.chart import Mark
from stream_monitor.offline.episodes import Episode, causes, episodes
from stream_monitor.offline.experiment_report import experiments
from stream_monitor.offline.markup import (
    count,
    details,
    number,
    prose,
    sentence,
    sentences,
    short,
    table,
    when,
    words,
)
from stream_monitor.offline.metric_curves import MAIN_METRICS, Curves
from stream_monitor.offline.replay import Course, Point
from stream_monitor.offline.version_report import version_section, watched_sentence
from stream_monitor.offline.witness import Witness
from stream_monitor.times import rfc3339

CAUSES_MAX, VERSIONS_MAX = 30, 20
"""Causes and versions with a section of their own; the others are in a table."""
WATCHED_MAX = 10
STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


def render(
    summary: Mapping[str, Any],
    alerts: Iterable[Mapping[str, Any]],
    points: Sequence[Point],
    title: str,
    read: Sequence[str] = (),
    notes: Sequence[str] = (),
    courses: Sequence[Course] = (),
    witness: Witness | None = None,
) -> str:
    """
    The HTML of a report.

    Parameters
    ----------
    summary : mapping
        The content of `summary.json`.
    alerts : iterable of mappings
        Alert events in order.
    points : sequence of Point
        Metrics of the model versions over time.
    title : str
        Name of the input.
    read, notes : sequences of str
        How the input was read, and the notes on the outcome.
    courses : sequence of Course
        Experiments over time.
    witness : Witness or None
        What the replay kept of distributions and labelled rows; without it there are no pictures
        of these.
    """
    found, witness = episodes(alerts), witness or Witness()
    curves = Curves(summary, points, found, witness)
    told = cards(causes(found), summary, witness, curves)
    heard = [card for card in told if card.cause.severity != "info"]
    marks: dict[tuple[str, str], list[Mark]] = {}
    for card in heard:
        marks.setdefault((card.cause.model, card.cause.version), []).append(card.mark)
    body = [
        f"<header><h1>{escape(title)}</h1>",
        f'<p class="dim">stream-monitor replay{_period(points)}</p></header>',
        *_happened(summary, heard, len(told) - len(heard)),
        _watched(summary, witness),
        *cause_sections(heard[:CAUSES_MAX], witness, curves, marks),
        "<h2>Nobody would have been told</h2>" if told[len(heard) : CAUSES_MAX] else "",
        *cause_sections(told[len(heard) : CAUSES_MAX], witness, curves, marks),
        _more_causes(told[CAUSES_MAX:]),
        *experiments(summary.get("experiments", {}), courses),
        *_versions(summary, found, marks, curves, witness),
        "<h2>The input</h2>",
        _records(summary["records"], summary.get("refused", {})),
        sentences("Notes", notes),
        sentences("How it was read", read),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _period(points: Sequence[Point]) -> str:
    return (
        f", {when(rfc3339(points[0].time_ms))} to {when(rfc3339(points[-1].time_ms))} UTC"
        if points
        else ""
    )


def _happened(summary: Mapping[str, Any], heard: Sequence[Card], unheard: int) -> list[str]:
    """What happened, in sentences; of `unheard` causes nobody would have been told."""
    predictions = summary["records"].get("predictions", {}).get("accepted", 0)
    labels = summary["records"].get("labels", {}).get("accepted", 0)
    rows = f"{count(predictions, 'prediction')} and {count(labels, 'label')}"
    if not summary["models"]:
        return ['<h2 class="lead">No prediction could be used.</h2>']
    if not heard:
        also = f" {count(unheard, 'remark')} of severity info: see below." if unheard else ""
        return [f'<h2 class="lead"><span class="ok">No alert fired in {rows}.</span>{also}</h2>']
    firing = sum(card.cause.end is None for card in heard)
    state = (
        f'<span class="warning">{_going_on(firing, len(heard))} at the end</span>'
        if firing
        else '<span class="ok">no alert is firing at the end</span>'
    )
    items = "".join(
        f'<li><a href="#cause-{card.n}">{prose(sentence(card.told.headline))}</a> '
        f'<span class="dim">{when(card.cause.start)}, '
        f"{escape(_name(card.cause.model, card.cause.version))}</span></li>"
        for card in heard[:CAUSES_MAX]
    )
    things = "One thing" if len(heard) == 1 else f"{len(heard):,} things"
    return [
        f'<h2 class="lead">{things} happened in {rows}; {state}.</h2>',
        f'<ol class="causes">{items}</ol>',
    ]


def _going_on(firing: int, heard: int) -> str:
    if firing < heard:
        return f"{firing:,} of them {'goes' if firing == 1 else 'go'} on"
    return "it goes on" if heard == 1 else "all go on"


def _name(model: str, version: str) -> str:
    return " ".join(part for part in (short(model), short(version)) if part)


def _watched(summary: Mapping[str, Any], witness: Witness) -> str:
    """What was watched, with which budget."""
    lines = [
        f"<li>{prose(watched_sentence(_name(m, name), v, witness.watched.get((m, name))))}.</li>"
        for m, inside in summary["models"].items()
        for name, v in inside["versions"].items()
    ]
    if not lines or not witness.watched:
        return ""
    more = len(lines) - WATCHED_MAX
    rest = f"<li>and {count(more, 'version')} more</li>" if more > 0 else ""
    quiet = not any(summary["alerts"].values())
    inside = f"<ul>{''.join(lines[:WATCHED_MAX])}{rest}</ul>"
    return details("What was watched, and with which budget", inside, is_open=quiet)


def _more_causes(told: Sequence[Card]) -> str:
    if not told:
        return ""
    rows = [
        (
            f"{card.n}",
            escape(card.cause.severity),
            when(card.cause.start),
            when(card.cause.end) or "firing",
            words(prose(sentence(card.told.headline))),
        )
        for card in told[:500]
    ]
    head = ("", "severity", "from (UTC)", "to", "what")
    return f"<h3>{count(len(told), 'cause')} more</h3>" + table(head, rows)


def _versions(
    summary: Mapping[str, Any],
    found: Sequence[Episode],
    marks: Mapping[tuple[str, str], Sequence[Mark]],
    curves: Curves,
    witness: Witness,
) -> list[str]:
    every = [
        ((model, version), v)
        for model, inside in summary["models"].items()
        for version, v in inside["versions"].items()
    ]
    shown = every
    if len(every) > VERSIONS_MAX:  # those that something happened to come first
        shown = sorted(every, key=lambda item: item[0] not in marks)[:VERSIONS_MAX]
    out = [
        version_section(
            at,
            v,
            [e for e in found if (e.first["model"], e.first["version"]) == at],
            marks.get(at, ()),
            curves,
            witness,
            len(shown),
        )
        for at, v in shown
    ]
    drawn = {at for at, _ in shown}
    rest = [(at, v) for at, v in every if at not in drawn]
    if rest:
        rows = [
            (
                escape(short(at[0])),
                escape(short(at[1])),
                number(v["predictions"]),
                number(v["labels"]),
                *(number(_newest(v).get(metric)) for metric in MAIN_METRICS),
            )
            for at, v in rest[:1_000]
        ]
        head = ("model", "version", "predictions", "labels", *MAIN_METRICS)
        text = f"{count(len(rest), 'version')} more"
        out.append(f"<h2>{text}</h2>" + details(text, table(head, rows)))
    return out


def _newest(v: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first window of a version."""
    windows: Mapping[str, Mapping[str, Any]] = v["windows"]
    return next(iter(windows.values()), {})


def _records(
    records: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    names = ("received", "accepted", "duplicate", "rejected")
    counts = table(
        ("records", *names),
        ([kind, *(f"{found[n]:,}" for n in names)] for kind, found in records.items()),
    )
    refused = [
        (
            escape(kind),
            f"{r['count']:,}",
            words(escape(r["reason"])),
            f"{r['first']['offset'] + 1:,}",
            words(escape(r["first"]["message"])),
        )
        for kind, of_kind in reasons.items()
        for r in of_kind
    ]
    return counts + (
        "<h3>Refused</h3>"
        + table(("records", "number", "reason", "first row", "what is wrong with it"), refused)
        if refused
        else ""
    )
