"""
The part of a report on one model version: what was watched, its metrics over time, labelled rows at
first and at the end, windows, features.

Rule of the file: text in, text out, from `summary.json` and what the witness of the replay kept.
Every text from the input is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from stream_monitor.alerts.wording import signal
from stream_monitor.offline.chart import Mark, lanes
from stream_monitor.offline.episodes import Episode
from stream_monitor.offline.labelled_pictures import labelled_pictures
from stream_monitor.offline.law_picture import law_picture
from stream_monitor.offline.laws import Law
from stream_monitor.offline.markup import count, details, number, short, table, when
from stream_monitor.offline.metric_curves import Curves
from stream_monitor.offline.outcome import FOUND_BY
from stream_monitor.offline.witness import Watch, Witness

FEATURES_MAX, FEATURES_LEAST = 600, 20
"""Rows of the tables of features: of all of them, and at least of each."""
PICTURES_MAX = 24
"""Pictures of answers and features at the end, of all versions."""
SUPPORT_MIN = 200
"""Values that a feature needs to be called the most drifted."""
NO_NUMBERS = ("start", "end", "labels", "coverage")
GROUPS = {
    "data_drift": "features",
    "prediction_drift": "score and prediction",
    "concept_drift": "errors",
    "calibration": "calibration",
    "latency": "latency",
}


def version_section(
    at: tuple[str, str],
    v: Mapping[str, Any],
    found: Sequence[Episode],
    marks: Sequence[Mark],
    curves: Curves,
    witness: Witness,
    versions: int = 1,
) -> str:
    """The section of one of so many versions."""
    model, version = at
    name = " ".join(part for part in (short(model), short(version)) if part)
    parts = [f"<h2>{escape(name)}</h2>", _counts(v)]
    metrics = curves.metrics(at)
    if metrics:
        drawn = [curves.draw(at, metrics[0], marks)]
        points = curves.of[at]
        if found:
            drawn.append(lanes(found, points[0].time_ms, points[-1].time_ms))
        parts.append(f'<div class="main">{"".join(drawn)}</div>')
        others = "".join(curves.draw(at, metric, marks) for metric in metrics[1:])
        if others:
            parts.append(f"<h3>The other metrics</h3><div class=pictures>{others}</div>")
    parts.append(_at_end(witness.at_end.get(at, ())[: PICTURES_MAX // versions]))
    parts.append(_labelled(at, witness))
    if v["windows"]:
        parts.append(_windows(v["windows"]))
    if v["features"]:
        parts.append(_features(v["features"], max(FEATURES_MAX // versions, FEATURES_LEAST)))
    return "\n".join(part for part in parts if part)


def _at_end(laws: Sequence[Law]) -> str:
    """Answers and features as they are."""
    pictures = "".join(law_picture(law, signal(law.signal), "") for law in laws)
    if not pictures:
        return ""
    title = "Answers, and the features farthest from the baseline"
    return f"<h3>{title}</h3><div class=pictures>{pictures}</div>"


def _labelled(at: tuple[str, str], witness: Witness) -> str:
    first, end = (witness.samples.get((*at, name)) for name in ("first", "end"))
    if end is None:
        return ""
    samples = [("at the end", end)]
    if first is not None and first.end_ms < end.start_ms:
        samples.insert(0, ("at first", first))
    pictures = "".join(labelled_pictures(samples))
    return f"<h3>Labelled rows</h3><div class=pictures>{pictures}</div>" if pictures else ""


def watched_sentence(name: str, v: Mapping[str, Any], watch: Watch | None) -> str:
    """
    What was watched of a version, and with which budget.

    >>> watch = Watch("1/30d", {"data_drift": (3, 3), "concept_drift": (1, 0)}, 9_000, {}, {}, "")
    >>> v = {"predictions": 9_000, "labels": 0, "baseline": "x"}
    >>> watched_sentence("m 1", v, watch).split(". ")[1:]
    ['Drift was watched of 3 features; by chance alone at most 1 false alarm of it comes in 30d', 'Too few rows yet to judge errors']
    """  # noqa: E501
    head = f"{name}: {count(v['predictions'], 'prediction')}, {count(v['labels'], 'label')}. "
    if watch is None or not watch.signals:
        why = (
            "no detector of it is on, or none has had enough rows"
            if "baseline" in v
            else "it has fewer rows than its baseline needs (`baseline.rows`)"
        )
        return f"{head}Drift was not watched: {why}"
    found = []
    ready = {kind: n for kind, (n, counts) in watch.signals.items() if counts}
    if ready:
        names = [
            count(n, "feature") if kind == "data_drift" else GROUPS[kind]
            for kind, n in ready.items()
        ]
        alarms, _, days = watch.budget.partition("/")
        found.append(
            f"Drift was watched of {' and '.join(', '.join(names).rsplit(', ', 1))}; by chance "
            f"alone at most {count(int(alarms), 'false alarm')} of it comes in {days}"
        )
    early = [GROUPS[kind] for kind, (n, counts) in watch.signals.items() if n and not counts]
    if early:
        found.append(f"Too few rows yet to judge {', '.join(early)}")
    if v["labels"]:
        limits = ", ".join(f"`thresholds.{metric}`" for metric in watch.limits)
        found.append(f"Metrics were compared with {limits or 'the level of the model'}")
    return head + ". ".join(found)


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
            f", positive class <code>{escape(short(v['positive_class']))}</code> "
            f"({FOUND_BY[v['positive_class_source']]})"
        )
        if v.get("positive_class")
        else ""
    )
    return f"<p>{escape(v.get('task', 'task not known yet'))}{positive}: {counts}{baseline}.</p>"


def _windows(windows: Mapping[str, Mapping[str, Any]]) -> str:
    """A column for each window."""
    metrics = list(dict.fromkeys(k for w in windows.values() for k in w if k not in NO_NUMBERS))
    rows = [[name, *(when(w[name])[5:] for w in windows.values())] for name in ("start", "end")]
    rows += [
        [k.replace("_", " "), *(number(w.get(k)) for w in windows.values())]
        for k in ("labels", "coverage", *metrics)
    ]
    return "<h3>Windows at the end</h3>" + table(("", *windows), rows, kind="plain")


def _features(features: Mapping[str, Mapping[str, Any]], most: int) -> str:
    methods = list(dict.fromkeys(m for f in features.values() for m in f["drift"]))
    # a large distance of few values is chance, so these come last
    order = sorted(
        features.items(),
        key=lambda item: (item[1]["rows"] < SUPPORT_MIN, -item[1]["drift"].get("psi", 0.0)),
    )[:most]
    rows = [
        [
            escape(short(name)),
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
    if len(features) > len(order):
        few += f'<p class="dim">and {len(features) - len(order):,} more</p>'
    inside = table(("feature", "values", "missing", "mean", *methods), rows) + f"\n{few}"
    title = "Features at the end, the most drifted first"
    if len(rows) > 12:
        return f"<h3>{title}</h3>" + details(count(len(rows), "feature"), inside)
    return f"<h3>{title}</h3>{inside}"
