"""
What a group of signals with evidence of drift says to people: one verdict, with its contributors.

Rule of the file: pure functions. Contributors are ranked by how far they moved, and each says from
what to what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from stream_monitor.alerts.wording import apart, number, percent, signal
from stream_monitor.arrays import Float
from stream_monitor.events.origins import label_at, prediction_at
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.evidence import Drifted, Evidence, Watched
from stream_monitor.monitors.moved_share import moved_share
from stream_monitor.monitors.signals import ERRORS
from stream_monitor.monitors.slow_hours import STAYS
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.settings import Severity
from stream_monitor.stats import divergence
from stream_monitor.times import rfc3339
from stream_monitor.verdicts import AlertKey, Kind, Level, Span, Verdict

METHOD = "evidence"
SMALL = 0.02
"""
Jensen-Shannon distance of a drift that is only `info`: a shift of 0.05 standard deviations.
"""
LARGE = 0.2
"""Distance from which a rise of errors is `critical`: that of a rate from 0.1 to 0.29."""
NOTICED = 0.1
"""Steps from which a move is named; below, the whole distribution is."""
STAYS_LABELS = 1_000
"""Labels after which a calibration that is still off, while the errors are back, is told."""
EXAMPLES = "examples"
"""Of the first contributor, in the evidence of an alert: records that show the change."""
SHOWN_MAX = 10
"""Contributors in an alert."""
Scale = Callable[[str], tuple[float, float]]
Sliced = Sequence[tuple[str, Evidence]]
"""By name (`name=value`): the detectors of a group of signals on each segment."""
NAMED_MAX = 3
"""Segments that are named in an alert on the whole stream."""


GROUPS: tuple[tuple[Kind, str], ...] = (
    ("data_drift", "__features__"),
    ("prediction_drift", "__score__"),
    ("concept_drift", ERRORS),
    ("calibration", "__calibration__"),
    ("latency", "latency_seconds"),
)
"""Kind and subject of the alert of each group of `Version.drifts`."""
BY_LABELS = frozenset({"concept_drift", "calibration"})
"""Kinds of groups whose rows come with labels: these name records of labels."""
At = Callable[[int], dict[str, Any] | None]
"""Gives the record that a row came from, as people name it."""
ONE_SIGNAL = frozenset(kind for kind, _ in GROUPS[2:])
"""Kinds of groups whose signal can become better; it is the first of the contributors."""


def scales(profiles: Sequence[Profile | None], errors: tuple[float, float]) -> Scale:
    """What undoes the standardisation of each signal: its mean and unit."""

    def scale(name: str) -> tuple[float, float]:
        if name == ERRORS:
            return errors
        for profile in profiles:
            if profile is not None and name in profile.features:
                found = profile.features[name]
                return found.mean, unit_of(found)
        return 0.0, 1.0

    return scale


def drift_verdicts(
    context: Context,
    groups: Sequence[Evidence | None],
    profiles: Sequence[Profile | None],
    errors: tuple[float, float] = (0.0, 1.0),
    sliced: Sequence[Sliced] = ((), (), ()),
    sources: Sequence[str] = (),
) -> Iterator[Verdict]:
    """
    The verdicts of the groups of `GROUPS`. A calibration that changed with the errors, and was not
    found before them, is a contributor of their alert; it has one of its own if it stays changed
    when the errors are back.

    `profiles`, and mean and unit of the errors, undo the standardisation of their signals; `sliced`
    has the same detectors on the segments of each group. `sources` are names of source partitions.
    """
    scale = scales(profiles, errors)
    of = dict(zip(GROUPS, groups, strict=False))
    slices = dict(zip(GROUPS, sliced, strict=False))
    errors_of, calibration = of.get(GROUPS[2]), of.get(GROUPS[3])
    follows = _follows(calibration, errors_of)
    for group, evidence in of.items():
        segments = slices.get(group, ())
        if evidence is None or not (evidence.drifted or any(e.drifted for _, e in segments)):
            continue
        at = partial(label_at if group[0] in BY_LABELS else prediction_at, sources=sources)
        found = contributors(evidence, scale, segments, at)
        if found and follows is not None and evidence is errors_of:
            found += contributors(follows, scale, at=at)
        elif follows is evidence:
            found = []
        (kind, subject), streams = group, [evidence, *(e for _, e in segments)]
        told_by = {w.name: d.alert or "" for e in streams for w, d in e.open()}
        for alert, drifts in _by_alert(streams).items():
            key = context.key(kind, alert or subject, METHOD)
            part = [c for c in found if told_by.get(c["subject"], "") == alert]
            yield _verdict(context, key, evidence, part, drifts)


def _follows(calibration: Evidence | None, errors: Evidence | None) -> Evidence | None:
    """The calibration, if it changed with the errors and was not found before them."""
    if calibration is None or errors is None:
        return None
    first, then = errors.drifted.get(ERRORS), next((d for _, d in calibration.open()), None)
    if first is None or then is None or then.found_ms < first.found_ms:
        return None
    over = not first.open and then.found_ms > first.ended_ms
    stays = not first.open and errors.rows >= first.ended_row + STAYS_LABELS
    return None if over or stays else calibration


def effect(watched: Watched, drifted: Drifted) -> float:
    """
    Jensen-Shannon distance (base 2) of the laws before and after the change, 0 to 1, without what
    chance alone gives among so few rows.
    """
    bins = len(watched.places)
    before, after = drifted.before[None, :bins], drifted.after[None, :bins]
    return float(divergence.jensen_shannon(before, after, unbiased=True)[0])


def describe(
    watched: Watched, drifted: Drifted, scale: tuple[float, float]
) -> tuple[str, dict[str, Any]]:
    """
    The change of one signal in words, and as numbers.

    `scale` is mean and standard deviation that undo the standardisation.
    """
    if watched.words is not None:
        found = watched.words(drifted.before, drifted.after)
        return found.pop("change"), found
    bins = len(watched.places)
    p, q = (_shares(x[:bins]) for x in (drifted.before, drifted.after))
    moved = (q - p) ** 2 / (p + q + 1e-12)
    if watched.labels:
        at = int(moved.argmax())
        was, now = apart(float(p[at]), float(q[at]), form=percent, digits=3)
        label = watched.labels[at]
        level = f"`{label}`" if at < bins - 2 else label
        return f"share of {level} from {was} to {now}", {
            "what": "share",
            "level": label,
            "before": float(p[at]),
            "after": float(q[at]),
        }
    shares = moved_share(drifted.before[:bins], drifted.after[:bins], watched.edges)
    if bins > 2 and shares is not None:
        return shares
    (mean_before, sd_before), (mean_after, sd_after) = (
        _moments(x, bins, scale) for x in (drifted.before, drifted.after)
    )
    moves = {
        "mean": (_mean_steps(mean_before, sd_before, mean_after), mean_before, mean_after),
        "standard deviation": (_spread_steps(sd_before, sd_after), sd_before, sd_after),
        "missing": (_share_steps(drifted, bins), float(p[-1]), float(q[-1])),
    }
    if bins == 2:
        what = "mean"
    elif watched.name == ERRORS and moves["mean"][0] >= NOTICED:
        what = "mean"  # people ask how wrong the answers are, not how much that varies
    else:
        what = max(moves, key=lambda each: moves[each][0])
        if moves[what][0] < NOTICED:
            text = f"distribution (its mean is {number(mean_after)})"
            return text, {"what": "distribution", "before": mean_before, "after": mean_after}
    _, before, after = moves[what]
    found = {"what": what, "before": before, "after": after}
    if what == "missing":
        was, now = apart(before, after, form=percent, digits=3)
        return f"missing or broken values from {was} to {now}", found
    was, now = apart(before, after)
    named = "" if watched.name == ERRORS and bins == 2 else f"{what} "
    return f"{named}from {was} to {now}", found


def _mean_steps(before: float, sd: float, after: float) -> float:
    """How far a mean moved, in standard deviations of one row; so do the next two."""
    return abs(after - before) / max(sd, 1e-300)


def _spread_steps(before: float, after: float) -> float:
    """That of a standard deviation, whose estimate has the variance sd²/2n for normal values."""
    return float(abs(after - before) / max(before, 1e-300) * np.sqrt(2))


def _share_steps(drifted: Drifted, bins: int) -> float:
    """That of the share of rows without a number."""
    before, after = drifted.before[:bins], drifted.after[:bins]
    rows = max(float(before.sum() + after.sum()), 2.0)
    share = min(max(float(before[-1] + after[-1]), 1.0) / rows, 1 - 1 / rows)
    moved = abs(float(_shares(after)[-1] - _shares(before)[-1]))
    return moved / float(np.sqrt(share * (1 - share)))


def _shares(counts: Float) -> Float:
    found: Float = counts / max(float(counts.sum()), 1.0)
    return found


def _moments(sums: Float, bins: int, scale: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of the rows that are numbers."""
    n = max(float(sums[: bins - 1].sum() if bins > 2 else sums[:bins].sum()), 1.0)
    mean = float(sums[bins]) / n
    sd = float(np.sqrt(max(float(sums[bins + 1]) / n - mean * mean, 0.0)))
    return scale[0] + scale[1] * mean, scale[1] * sd


def contributors(
    evidence: Evidence, scale: Scale, segments: Sliced = (), at: At = lambda _: None
) -> list[dict[str, Any]]:
    """
    The signals with an open drift, the one that moved farthest first.

    Each has the segments in which it drifted too. Signals that drifted in segments only come last,
    each with the segment where it moved farthest.
    """
    found = _contributors(evidence, scale, at)
    inside: dict[str, list[dict[str, Any]]] = {}
    for name, of in segments:
        for each in _contributors(of, scale, at):
            if each["subject"] != name.partition("=")[0]:  # its own values cut it
                inside.setdefault(each["subject"], []).append({"segment": name, **each})
    for own in inside.values():
        own.sort(key=lambda c: (-c["effect"], c["segment"]))
    whole = {c["subject"] for c in found}
    only = [{**of[0]} for subject, of in inside.items() if subject not in whole]
    found += sorted(only, key=lambda c: (-c["effect"], c["subject"]))
    for each in found:
        if each["subject"] in inside:
            names = [c["segment"] for c in inside[each["subject"]]]
            each["segments"] = [c for c in names if _few(c, names, segments)][:SHOWN_MAX]
    return found


def _few(segment: str, drifted: list[str], segments: Sliced) -> bool:
    """Whether only some of the segments of a name have drifted: otherwise none says anything."""
    prefix = segment.partition("=")[0] + "="
    there = sum(name.startswith(prefix) for name, _ in segments)
    return 2 * sum(name.startswith(prefix) for name in drifted) <= max(there, 2)


def _contributors(evidence: Evidence, scale: Scale, at: At) -> list[dict[str, Any]]:
    found = []
    for watched, drifted in evidence.open():
        text, numbers = describe(watched, drifted, scale(watched.name))
        found.append(
            {
                "subject": watched.name,
                "effect": round(effect(watched, drifted), 6),
                **numbers,
                "change": text,
                "changed_at": rfc3339(drifted.change_ms),
                **_places(drifted, at),
                "rows": drifted.found_row - drifted.change_row,
                "evidence_days": drifted.evidence,
                "bound_days": drifted.bound,
                "hours": evidence.hours(watched.name),
                "days": evidence.days(watched.name),
            }
        )
    return sorted(found, key=lambda c: (-c["effect"], c["subject"]))


def _places(drifted: Drifted, at: At) -> dict[str, Any]:
    """The record from which on a signal is another, and some that show it; empty: not known."""
    first, rows = at(drifted.origin), [at(o) for o in drifted.rows]
    return {} if first is None else {"first": first, EXAMPLES: rows}


def _by_alert(streams: Sequence[Evidence]) -> dict[str, list[Drifted]]:
    """All drifts by the alert that they have, or had; "" is that of the group."""
    found: dict[str, list[Drifted]] = {}
    for drifted in (d for e in streams for d in e.drifted.values()):
        found.setdefault(drifted.alert or "", []).append(drifted)
    return dict(sorted(found.items()))


def _verdict(
    context: Context,
    key: AlertKey,
    evidence: Evidence,
    found: list[dict[str, Any]],
    drifts: Sequence[Drifted],
) -> Verdict:
    """The verdict of one alert of a group, by its contributors and all drifts it has, or had."""
    times = [d for d in drifts if d.open] or drifts
    start = min(d.change_ms for d in times)
    span = Span(start, max(max(d.found_ms, d.ended_ms) for d in times), evidence.rows)
    value = found[0]["effect"] if found else 0.0
    level: Level = "ok"
    if found:
        level = _severity(context, key, found)
    return Verdict(
        key=key,
        level=level,
        clear=not found,
        value=value,
        threshold=0.0,
        direction=_direction(found),
        window=span,
        summary=f"{key.title}: {_text(context, key, found, binary=_binary(evidence))}",
        baseline_id=context.baseline_id,
        cooldown_ms=context.settings.cooldown_ms,
        evidence={
            "contributors": [
                {name: value for name, value in c.items() if name != EXAMPLES}
                for c in found[:SHOWN_MAX]
            ],
            EXAMPLES: found[0].get(EXAMPLES, []) if found else [],
            "signals": len(found),
            "budget": context.settings.alarm_budget,
            "guarantee": "measured",
        },
    )


def _severity(context: Context, key: AlertKey, found: list[dict[str, Any]]) -> Severity:
    """By size; that of errors says how much harm is done, so they may be critical by themselves."""
    value, errors = found[0]["effect"], key.kind == "concept_drift"
    better = key.kind in ONE_SIGNAL and not _worse(found[0])
    learning = key.kind == "latency" and any(
        c["hours"] == "learning" and c["slow_hours"] < STAYS for c in found
    )
    if better or learning or (value < SMALL and not found[0].get("segments")):
        return "info"
    everywhere = errors and "segment" not in found[0]
    return "critical" if everywhere and value >= LARGE else context.settings.drift.severity


def _worse(contributor: dict[str, Any]) -> bool:
    return bool(contributor.get("worse", contributor["after"] >= contributor["before"]))


def _direction(found: list[dict[str, Any]]) -> Any:
    if not found:
        return None
    return "up" if found[0]["after"] >= found[0]["before"] else "down"


def _binary(evidence: Evidence) -> bool:
    """Whether the errors are 0 and 1, so that they have a rate; of other groups nobody asks."""
    return all(len(w.places) == 2 for w in evidence.watched if w.name == ERRORS)


def _text(context: Context, key: AlertKey, found: list[dict[str, Any]], *, binary: bool) -> str:
    """One sentence for people on call."""
    if not found:
        if key.subject == "__features__":
            return "all features are back to what they were before the change"
        return f"{signal(key.subject, binary=binary)} is back to what it was before the change"
    first = found[0]
    inside = f" in segment `{first['segment']}`" if "segment" in first else ""
    text = f"{signal(first['subject'], binary=binary)} changed{inside}: {first['change']}"
    if not inside and first.get("segments"):
        names = ", ".join(f"`{s}`" for s in first["segments"][:NAMED_MAX])
        text += f" (above all in segment {names})"
    text += f", since {first['changed_at']}"
    if len(found) > 1:
        others = ", ".join(signal(c["subject"]) for c in found[1:4])
        text += f"; also {others}" + (f" and {len(found) - 4} more" if len(found) > 4 else "")
    if first["hours"] == "learning":
        text += "; the hours of the day are not known yet"
    elif first["days"] == "learning":
        text += "; some days of the week are not known yet"
    count, _, duration = context.settings.alarm_budget.partition("/")
    often = "once" if count == "1" else f"{count} times"
    return (
        f"{text}; look at what else changed at that time (by chance alone such an alert comes "
        f"at most {often} in {duration})"
    )
