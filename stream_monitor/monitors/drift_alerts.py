"""
Which alert a drift of a feature belongs to: features that changed together are one alert, and what
changes later is another.

Rule of the file: an alert takes in what changed up to an hour after its first drift was found. A
drift keeps its alert until it is over and that was told. So one that stays open, as that of a
counter does, hides no other.
"""

from __future__ import annotations

from collections.abc import Iterable

from stream_monitor.alerts.incidents import TOGETHER_MS
from stream_monitor.monitors.evidence import Evidence
from stream_monitor.monitors.evidence_verdicts import LARGE, effect


def name_alerts(streams: Iterable[Evidence]) -> None:
    """
    Give each drift that has begun its alert: "" is that of the group, others have the name of the
    signal that was found first.

    While its hours of the day are not known yet, a signal has no other alert for a small drift, nor
    when it drifts again: ten features that follow the hour would be an alert each, twice a day.

    `streams` are the detectors of the same signals, on all rows and on segments. Times are event
    times.
    """
    streams = list(streams)
    found = [(e, watched, drifted) for e in streams for watched, drifted in e.open()]
    for drifted in (d for e in streams for d in e.drifted.values()):
        drifted.over = not drifted.open  # the verdicts that follow tell it
    fresh = [(d.found_ms, w.name, e, w, d) for e, w, d in found if d.alert is None]
    for found_ms, name, evidence, watched, drifted in sorted(fresh, key=lambda each: each[:2]):
        told = [(w.name, d) for _, w, d in found if d.alert is not None]
        same = [d for other, d in told if other == name]
        young = [d for _, d in told if drifted.change_ms <= d.alert_ms + TOGETHER_MS]
        if not young and evidence.hours(name) == "learning":
            large = effect(watched, drifted) >= LARGE
            young = [d for _, d in told if d.alert == drifted.last_alert or not large]
        joined = next(iter(same), None) or max(young, key=lambda d: d.alert_ms, default=None)
        if joined is not None:
            drifted.alert, drifted.alert_ms = joined.alert, joined.alert_ms
        else:
            free = all(d.alert for _, d in told)
            drifted.alert, drifted.alert_ms = "" if free else name, found_ms
