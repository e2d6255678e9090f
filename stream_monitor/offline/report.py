"""
The report of a replay: one HTML file that needs nothing else.

Rule of the file: text in, text out. It contains no script and names no other file. Every text from
the input is escaped. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stream_monitor.offline.chart import chart
from stream_monitor.offline.episodes import Episode, episodes
from stream_monitor.offline.experiment_report import experiments
from stream_monitor.offline.markup import count, number, sentences, table, when
from stream_monitor.offline.outcome import FOUND_BY
from stream_monitor.offline.replay import Course, Point
from stream_monitor.times import rfc3339

FEATURES_MAX = 200
EPISODES_MAX = 500
SUPPORT_MIN = 200
"""Values that a feature needs to be called the most drifted."""
MAIN_METRICS = ("accuracy", "mae")
"""The metric that is drawn: the first of these that exists."""
NO_NUMBERS = ("start", "end", "labels", "coverage")
STYLE = Path(__file__).with_name("report.css").read_text("utf-8")


def render(
    summary: Mapping[str, Any],
    alerts: Iterable[Mapping[str, Any]],
    points: Sequence[Point],
    title: str,
    read: Sequence[str] = (),
    notes: Sequence[str] = (),
    courses: Sequence[Course] = (),
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
    """
    found = episodes(alerts)
    firing = sum(e.end is None for e in found)
    state = (
        f'<span class="warning">{count(firing, "alert")} firing at the end</span>'
        if firing
        else '<span class="ok">no alert is firing at the end</span>'
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">stream-monitor replay{_period(points)}</p>',
        f"<p>{state}, {count(len(found) - firing, 'episode')} resolved.</p>",
    ]
    body += [
        _records(summary["records"], summary.get("refused", {})),
        sentences("How it was read", read),
        sentences("Notes", notes),
        *experiments(summary.get("experiments", {}), courses),
        _alerts(found),
    ]
    for model, inside in summary["models"].items():
        for version, v in inside["versions"].items():
            mine = [e for e in found if (e.first["model"], e.first["version"]) == (model, version)]
            body.append(
                _version(
                    model,
                    version,
                    v,
                    mine,
                    [p for p in points if (p.model, p.version) == (model, version)],
                )
            )
    if not summary["models"]:
        body.append('<p class="dim">No prediction could be used.</p>')
    head = (
        '<meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _period(points: Sequence[Point]) -> str:
    return (
        f", {when(rfc3339(points[0].time_ms))} to {when(rfc3339(points[-1].time_ms))} UTC"
        if points
        else ""
    )


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
            f'<td class="text">{escape(r["reason"])}</td>',
            f"{r['first']['offset'] + 1:,}",
            f'<td class="text">{escape(r["first"]["message"])}</td>',
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


def _alerts(found: Sequence[Episode]) -> str:
    if not found:
        return "<h2>Alerts</h2><p>None.</p>"
    rows = [
        (
            f'<span class="badge {escape(e.severity)}">{escape(e.severity)}</span>',
            when(e.start),
            when(e.end) or "firing",
            f'<td class="text">{escape(e.first["summary"])}</td>',
            f'<td class="text">{escape(e.first["kind"])}</td>',
            f'<td class="text">{escape(e.first["detector"])}</td>',
        )
        for e in found[:EPISODES_MAX]
    ]
    more = (
        f'<p class="dim">and {count(len(found) - EPISODES_MAX, "episode")} more</p>'
        if len(found) > EPISODES_MAX
        else ""
    )
    return (
        "<h2>Alerts</h2>"
        + table(("severity", "from (UTC)", "to", "what", "kind", "detector"), rows)
        + more
    )


def _version(
    model: str,
    version: str,
    v: Mapping[str, Any],
    found: Sequence[Episode],
    points: Sequence[Point],
) -> str:
    parts = [f"<h2>{escape(model)} {escape(version)}</h2>", _counts(v)]
    metric = next((m for m in MAIN_METRICS if any(m in p.metrics for p in points)), None)
    if metric is not None:
        drawn = [p for p in points if metric in p.metrics]
        parts.append(chart(metric, next(iter(v["windows"]), ""), drawn, found))
    if v["windows"]:
        parts.append(_windows(v["windows"]))
    if v["features"]:
        parts.append(_features(v["features"]))
    return "\n".join(parts)


def _counts(v: Mapping[str, Any]) -> str:
    """The task of a version, and how many of its events were counted."""
    counts = ", ".join(
        f"{v[name]:,} {name}"
        for name in ("predictions", "labels", "pending", "expired", "evicted")
        if v[name] or name in {"predictions", "labels"}
    )
    baseline = (
        f", baseline <code>{escape(v['baseline'][:12])}</code>"
        if "baseline" in v
        else ", still learning its baseline"
    )
    positive = (
        (
            f", positive class <code>{escape(v['positive_class'])}</code> "
            f"({FOUND_BY[v['positive_class_source']]})"
        )
        if v.get("positive_class")
        else ""
    )
    return f"<p>{escape(v.get('task', 'task not known yet'))}{positive}: {counts}{baseline}.</p>"


def _windows(windows: Mapping[str, Mapping[str, Any]]) -> str:
    metrics = list(dict.fromkeys(k for w in windows.values() for k in w if k not in NO_NUMBERS))
    rows = [
        [
            escape(name),
            when(w["start"]),
            when(w["end"]),
            *(number(w.get(k)) for k in ("labels", "coverage", *metrics)),
        ]
        for name, w in windows.items()
    ]
    names = (m.replace("_", " ") for m in metrics)
    head = ("window", "from (UTC)", "to", "labels", "coverage", *names)
    return "<h3>Windows at the end</h3>" + table(head, rows)


def _features(features: Mapping[str, Mapping[str, Any]]) -> str:
    methods = list(dict.fromkeys(m for f in features.values() for m in f["drift"]))
    # a large distance of few values is chance, so these come last
    order = sorted(
        features.items(),
        key=lambda item: (item[1]["rows"] < SUPPORT_MIN, -item[1]["drift"].get("psi", 0.0)),
    )[:FEATURES_MAX]
    rows = [
        [
            escape(name),
            number(f["rows"]),
            number(f.get("missing_ratio")),
            number(f.get("mean")),
            *(number(f["drift"].get(m)) for m in methods),
        ]
        for name, f in order
    ]
    few = (
        (
            f'<p class="dim">Those with fewer than {SUPPORT_MIN} values come last: of so few, '
            "chance alone makes large distances.</p>"
        )
        if any(f["rows"] < SUPPORT_MIN for _, f in order)
        else ""
    )
    return (
        "<h3>Features at the end, the most drifted first</h3>"
        + table(("feature", "values", "missing", "mean", *methods), rows)
        + f"\n{few}"
    )
