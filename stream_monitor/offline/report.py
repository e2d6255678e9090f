"""
The report of a replay: one HTML file that needs nothing else.

Rule of the file: text in, text out. No script and no other file is named; every text that comes
from the input is escaped; colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from stream_monitor.inputs.moments import parse_time_ms
from stream_monitor.offline.outcome import FOUND_BY
from stream_monitor.offline.replay import Point
from stream_monitor.times import rfc3339

WIDTH, LEFT, RIGHT, TOP, HEIGHT, LANE = 760, 150, 12, 10, 190, 18
LANES_MAX = 20
FEATURES_MAX = 200
EPISODES_MAX = 500
SUPPORT_MIN = 200
"""Values that a feature needs to be called the most drifted."""
DAYS_MS = 10 * 86_400_000
"""From here on the times of a chart are dates."""
MAIN_METRICS = ("accuracy", "mae")
"""The metric that is drawn: the first of these that there is."""
TEXTS = ("what", "kind", "detector", "reason", "what is wrong with it")
NO_NUMBERS = ("start", "end", "labels", "coverage")

STYLE = """
:root{color-scheme:light dark;--fg:#1c2024;--dim:#60646c;--bg:#fff;--line:#d9d9e0;--soft:#f4f4f7;--data:#0d62c9;--info:#0d62c9;--warning:#b45309;--critical:#c1121f;--ok:#18794e}
@media(prefers-color-scheme:dark){:root{--fg:#edeef0;--dim:#a5a9b0;--bg:#16181b;--line:#3a3f45;--soft:#202428;--data:#70b8ff;--info:#70b8ff;--warning:#ffb454;--critical:#ff8589;--ok:#3dd68c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.25rem;margin:2.2rem 0 .3rem;border-top:1px solid var(--line);padding-top:1.2rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
p,ul{margin:.3rem 0}ul{padding-left:1.2rem}li,.text{overflow-wrap:anywhere}.dim,figcaption{color:var(--dim)}figure{margin:.6rem 0}svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.22rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--dim);font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0}.text{text-align:left;white-space:normal}
.badge{border:1px solid currentColor;border-radius:.3rem;padding:0 .4rem;font-size:.85em}.info{color:var(--info)}.warning{color:var(--warning)}.critical{color:var(--critical)}.ok{color:var(--ok)}
"""  # noqa: E501


class Episode(NamedTuple):
    """An alert from its firing to its end; `end` is None while it fires."""

    first: Mapping[str, Any]
    severity: str
    start: str
    end: str | None
    updates: int


def render(
    summary: Mapping[str, Any],
    alerts: Iterable[Mapping[str, Any]],
    points: Sequence[Point],
    title: str,
    read: Sequence[str] = (),
    notes: Sequence[str] = (),
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
        How the model versions stood over time.
    title : str
        What was replayed.
    read, notes : sequences of str
        How the input was read, and what is to be said of the outcome.
    """
    found = episodes(alerts)
    firing = sum(e.end is None for e in found)
    state = (
        f'<span class="warning">{_count(firing, "alert")} firing at the end</span>'
        if firing
        else '<span class="ok">no alert is firing at the end</span>'
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">stream-monitor replay{_period(points)}</p>',
        f"<p>{state}, {_count(len(found) - firing, 'episode')} resolved.</p>",
    ]
    body += [
        _records(summary["records"], summary.get("refused", {})),
        _sentences("How it was read", read),
        _sentences("Notes", notes),
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


def episodes(alerts: Iterable[Mapping[str, Any]]) -> list[Episode]:
    """Alert events as episodes, in the order in which they began."""
    out: dict[tuple[str, str], Episode] = {}
    for alert in alerts:
        key = alert["fingerprint"], alert["starts_at"]
        known = out.get(key, Episode(alert, alert["severity"], alert["starts_at"], None, 0))
        out[key] = known._replace(
            severity=alert["severity"],
            end=alert["ends_at"],
            updates=known.updates + (alert["status"] == "updated"),
        )
    return list(out.values())


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _when(text: str | None) -> str:
    return "" if text is None else escape(text[:16].replace("T", " "))


def _number(value: Any) -> str:
    return (
        ""
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.4g}"
        if isinstance(value, float)
        else escape(str(value))
    )


def _period(points: Sequence[Point]) -> str:
    return (
        f", {_when(rfc3339(points[0].time_ms))} to {_when(rfc3339(points[-1].time_ms))} UTC"
        if points
        else ""
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already, a heading is not."""
    lines = "".join(
        "<tr>"
        + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    names = "".join(
        f'<th class="text">{escape(h)}</th>' if h in TEXTS else f"<th>{escape(h)}</th>"
        for h in head
    )
    return f'<div class="scroll"><table><tr>{names}</tr>{lines}</table></div>'


def _records(
    records: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    names = ("received", "accepted", "duplicate", "rejected")
    counts = _table(
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
        + _table(("records", "number", "reason", "first row", "what is wrong with it"), refused)
        if refused
        else ""
    )


def _sentences(heading: str, sentences: Sequence[str]) -> str:
    return (
        f"<h3>{escape(heading)}</h3><ul>{''.join(f'<li>{escape(s)}</li>' for s in sentences)}</ul>"
        if sentences
        else ""
    )


def _alerts(found: Sequence[Episode]) -> str:
    if not found:
        return "<h2>Alerts</h2><p>None.</p>"
    rows = [
        (
            f'<span class="badge {escape(e.severity)}">{escape(e.severity)}</span>',
            _when(e.start),
            _when(e.end) or "firing",
            f'<td class="text">{escape(e.first["summary"])}</td>',
            f'<td class="text">{escape(e.first["kind"])}</td>',
            f'<td class="text">{escape(e.first["detector"])}</td>',
        )
        for e in found[:EPISODES_MAX]
    ]
    more = (
        f'<p class="dim">and {_count(len(found) - EPISODES_MAX, "episode")} more</p>'
        if len(found) > EPISODES_MAX
        else ""
    )
    return (
        "<h2>Alerts</h2>"
        + _table(("severity", "from (UTC)", "to", "what", "kind", "detector"), rows)
        + more
    )


def _version(
    model: str,
    version: str,
    v: Mapping[str, Any],
    found: Sequence[Episode],
    points: Sequence[Point],
) -> str:
    counts = ", ".join(
        f"{v[name]:,} {name}"
        for name in ("predictions", "labels", "pending", "expired", "evicted")
        if v[name] or name in {"predictions", "labels"}
    )
    baseline = (
        f", reference <code>{escape(v['baseline'][:12])}</code>"
        if "baseline" in v
        else ", still learning its reference"
    )
    positive = (
        (
            f", positive class <code>{escape(v['positive_class'])}</code> "
            f"({FOUND_BY[v['positive_class_source']]})"
        )
        if v.get("positive_class")
        else ""
    )
    parts = [
        f"<h2>{escape(model)} {escape(version)}</h2>",
        f"<p>{escape(v.get('task', 'task not known yet'))}{positive}: {counts}{baseline}.</p>",
    ]
    metric = next((m for m in MAIN_METRICS if any(m in p.metrics for p in points)), None)
    if metric is not None:
        parts.append(
            _chart(
                metric,
                next(iter(v["windows"]), ""),
                [p for p in points if metric in p.metrics],
                found,
            )
        )
    windows = v["windows"]
    if windows:
        metrics = list(dict.fromkeys(k for w in windows.values() for k in w if k not in NO_NUMBERS))
        rows = [
            [
                escape(name),
                _when(w["start"]),
                _when(w["end"]),
                *(_number(w.get(k)) for k in ("labels", "coverage", *metrics)),
            ]
            for name, w in windows.items()
        ]
        parts.append(
            "<h3>Windows at the end</h3>"
            + _table(
                (
                    "window",
                    "from (UTC)",
                    "to",
                    "labels",
                    "coverage",
                    *(m.replace("_", " ") for m in metrics),
                ),
                rows,
            )
        )
    if v["features"]:
        methods = list(dict.fromkeys(m for f in v["features"].values() for m in f["drift"]))
        order = sorted(
            v["features"].items(),
            key=lambda item: (item[1]["rows"] < SUPPORT_MIN, -item[1]["drift"].get("psi", 0.0)),
        )[:FEATURES_MAX]
        rows = [
            [
                escape(name),
                _number(f["rows"]),
                _number(f.get("missing_ratio")),
                _number(f.get("mean")),
                *(_number(f["drift"].get(m)) for m in methods),
            ]
            for name, f in order
        ]
        few = any(f["rows"] < SUPPORT_MIN for _, f in order)
        parts.append(
            "<h3>Features at the end, the most drifted first</h3>"
            + _table(("feature", "values", "missing", "mean", *methods), rows)
        )
        parts.append(
            (
                f'<p class="dim">Those with fewer than {SUPPORT_MIN} values come last: of so few, '
                "chance alone makes large distances.</p>"
            )
            if few
            else ""
        )
    return "\n".join(parts)


def _chart(metric: str, window: str, points: Sequence[Point], found: Sequence[Episode]) -> str:
    """The metric over time, and under it a line for every alert, from its firing to its end."""
    lanes = list(dict.fromkeys(f"{e.first['subject']} ({e.first['detector']})" for e in found))[
        :LANES_MAX
    ]
    first, last = points[0].time_ms, max(points[-1].time_ms, points[0].time_ms + 1)
    values = [p.metrics[metric] for p in points]
    low, high = min(values), max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    low, high = low - pad, high + pad

    def x(time_ms: float) -> float:
        return round(
            LEFT
            + (WIDTH - LEFT - RIGHT) * (min(max(time_ms, first), last) - first) / (last - first),
            1,
        )

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (high - value) / (high - low), 1)

    bottom = TOP + HEIGHT
    end = bottom + 26 + LANE * len(lanes)
    out = []
    for i in range(5):
        level, time_ms = low + (high - low) * i / 4, first + (last - first) * i // 4
        out.append(
            f'<path d="M{LEFT} {y(level)}H{WIDTH - RIGHT}" stroke="var(--line)"/><text '
            f'x="{LEFT - 6}" y="{y(level) + 4}" text-anchor="end" '
            f'fill="var(--dim)">{level:.3g}</text>'
        )
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        when = (
            rfc3339(time_ms)[:10]
            if last - first > DAYS_MS
            else rfc3339(time_ms)[5:19].replace("T", " ")
        )
        out.append(
            f'<text x="{x(time_ms)}" y="{bottom + 16}" text-anchor="{anchor}" '
            f'fill="var(--dim)">{when}</text>'
        )
    line = " ".join(f"{x(p.time_ms)},{y(v)}" for p, v in zip(points, values, strict=True))
    out.append(
        f'<polyline points="{line}" fill="none" stroke="var(--data)" stroke-width="1.6" '
        'stroke-linejoin="round"/>'
    )
    for i, lane in enumerate(lanes):
        name = lane if len(lane) <= 24 else lane[:23] + "…"
        out.append(
            f'<text x="{LEFT - 6}" y="{bottom + 38 + LANE * i}" text-anchor="end" '
            f'fill="var(--dim)">{escape(name)}</text>'
        )
    for e in found:
        lane = f"{e.first['subject']} ({e.first['detector']})"
        if lane in lanes:
            a, b = (
                x(parse_time_ms(e.start) or 0),
                x(last if e.end is None else parse_time_ms(e.end) or last),
            )
            top = bottom + 30 + LANE * lanes.index(lane)
            what = escape(f"{e.start} to {e.end or 'the end'}: {e.first['summary']}")
            out.append(
                f'<rect x="{a}" y="{top}" width="{max(round(b - a, 1), 2)}" height="10" '
                f'rx="2" fill="var(--{escape(e.severity)})"><title>{what}</title></rect>'
            )
    caption = (
        f"{metric} over {escape(window)}{' and, below, when each alert fired' if lanes else ''}"
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {end}" role="img" '
        f'aria-label="{caption}">{"".join(out)}</svg><figcaption>{caption}</figcaption></figure>'
    )
