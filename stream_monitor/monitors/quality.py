"""
Did a field break? Missing and broken values, and outliers, as shares of a recent window against the reference; hours against the same hour of earlier days.

Rule of the file: pure functions of a `Windowed` feature and its reference. A share is judged by the lower end of the interval of what it is beyond that of the
reference, so that few rows say little, and what the reference itself has is no fault; where there are too few rows there is no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.wording import apart, named, percent, signal
from stream_monitor.events.cells import class_name
from stream_monitor.monitors.anomaly import PATTERN_ROWS_MIN, Patterns, pattern
from stream_monitor.monitors.inputs import PANE_MS, Inputs
from stream_monitor.monitors.reference import Profile
from stream_monitor.monitors.windowed import Windowed, outlier_share, share_outside
from stream_monitor.settings import ModelSettings
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.verdicts import AlertKey, Span, Verdict

Float = NDArray[np.float64]
LADDER_MS = (10_000, 60_000, 600_000, 3_600_000, 86_400_000)
"""Windows that are tried, shortest first: a broken field shows within seconds where rows are many."""
LOOK_Z = 4.0
"""A share is looked at every second, so its interval is wide: 1 in 30,000 on one side."""
VIOLATIONS = ("of the wrong type", "out of range", "of an unknown category")


def recent(inputs: Inputs, watermark_ms: int, rows_min: int) -> list[tuple[dict[str, Windowed], Span]]:
    """
    Every feature in up to two recent windows, with their bounds: the newest, and the steady one. None where even a day has too few rows.

    The newest is the shortest of the ladder that has enough rows, the pane that has only begun among them: something new shows there first. The steady one has enough rows
    in the panes before that one, so that it keeps its length when a pane begins: what goes on is held there.
    """
    if inputs.profile is None:
        return []
    begun, _, _ = inputs.panes.window(watermark_ms, PANE_MS)
    found: list[tuple[Float, int, int]] = []
    for durations, beside in ((LADDER_MS, 0.0), ([d + PANE_MS for d in LADDER_MS], float(begun[-1]))):
        windows = (inputs.panes.window(watermark_ms, d) for d in durations)
        wanted = next((w for w in windows if w[0][-1] - beside >= rows_min), None)
        if wanted is not None and (not found or wanted[1] != found[0][1]):
            found.append(wanted)
    return [({name: inputs.windowed(name, vector) for name in inputs.start}, Span(start, end, int(vector[-1]))) for vector, start, end in found]


def judge(model: str, version: str, inputs: Inputs, watermark_ms: int, settings: ModelSettings, reference: str) -> Iterator[Verdict]:
    """Verdicts on missing values, broken values and outliers of every feature, each of the worse of its recent windows."""
    if inputs.profile is None:
        return
    worst: dict[AlertKey, Verdict] = {}
    for found, span in recent(inputs, watermark_ms, settings.quality.min_rows):
        for name, now in ((name, now) for name, now in found.items() if now.rows):
            for verdict in _shares(AlertKey(model, version, "", "data_quality", name, "threshold"), now, inputs, settings, span, reference):
                known = worst.get(verdict.key)
                if known is None or (verdict.level != "ok", not verdict.clear) > (known.level != "ok", not known.clear):
                    worst[verdict.key] = verdict
    yield from worst.values()


def _shares(key: AlertKey, now: Windowed, inputs: Inputs, settings: ModelSettings, span: Span, reference: str) -> Iterator[Verdict]:
    assert inputs.profile is not None
    name, profile, given = key.subject, inputs.profile.features[key.subject], Given(settings, span, reference)
    rule = settings.features.get(name)
    required = rule is not None and rule.required
    margin, of_missing = (0.0, f"features.{name}.required") if required else (settings.quality.missing_ratio, "quality.missing_ratio")
    if margin is not None:
        yield _share(key, Share(now.missing, now.rows, 0 if required else profile.missing, profile.rows, margin), "missing", of_missing, given)
    if settings.quality.violation_ratio is not None:
        counts = ((now.wrong_type, profile.wrong_type), (now.out_of_range, profile.out_of_range), (now.unknown, 0))
        shares = [Share(n, now.rows, usual, profile.rows, settings.quality.violation_ratio) for n, usual in counts]
        worst = max(range(len(shares)), key=lambda i: shares[i].surplus)
        yield _share(key._replace(detector="profile"), shares[worst], VIOLATIONS[worst], "quality.violation_ratio", given)
    numbers = float(now.counts.sum())
    if profile.type == "numeric" and profile.count and numbers > 0:
        outliers = Share(now.outliers, numbers, outlier_share(profile, settings.anomalies.fence) * profile.count, profile.count, settings.anomalies.share)
        yield _share(key._replace(kind="anomaly", detector="iqr"), outliers, "outside its fences", "anomalies.share", given)


def breaches(profile: Profile, settings: ModelSettings) -> list[str]:
    """Sentences on the rules under `features` that the reference itself breaks, of more rows than would be an alert."""
    found = []
    for name, rule in settings.features.items():
        f = profile.features.get(name)
        if f is None or not f.rows:
            continue
        low, high = (-math.inf if rule.min is None else rule.min), (math.inf if rule.max is None else rule.max)
        allowed = {class_name(c) for c in rule.categories or f.categories}
        limit = 1.0 if settings.quality.violation_ratio is None else settings.quality.violation_ratio
        for key, n, least in (
            ("required", float(f.missing) if rule.required else 0.0, 0.0),
            ("min and max", share_outside(f, low, high) * f.count if f.type == "numeric" else 0.0, limit),
            ("categories", float(sum(k for c, k in f.categories.items() if c not in allowed)), limit),
        ):
            if n / f.rows > least:
                found.append(f"the reference itself breaks `{key}` of feature `{name}` in {percent(n / f.rows)} of its rows: rows like these are an alert")
    return found


class Given(NamedTuple):
    """What a verdict needs besides."""

    settings: ModelSettings
    span: Span
    reference: str


class Share(NamedTuple):
    """So many of the rows of a window, and of those of the reference; by `margin` it may be more."""

    part: float
    rows: float
    usual_part: float
    usual_rows: float
    margin: float

    @property
    def usual(self) -> float:
        """Share of the reference."""
        return self.usual_part / self.usual_rows if self.usual_rows else 0.0

    @property
    def surplus(self) -> float:
        """
        The lower end of an interval of what the share is more than that of the reference.

        Both are samples: the interval is Newcombe's, of two Wilson intervals. What the reference does not have at all is no
        estimate, and has no error.

        >>> round(Share(30, 100, 0, 5_000, 0.05).surplus, 2), round(Share(30, 100, 12, 100, 0.05).surplus, 2)
        (0.16, -0.05)
        """
        share, low = self.part / self.rows, wilson_interval(self.part, self.rows, LOOK_Z)[0]
        if not self.usual_part:
            return low
        high = wilson_interval(self.usual_part, self.usual_rows, LOOK_Z)[1]
        return share - self.usual - math.hypot(share - low, high - self.usual)


def _share(key: AlertKey, found: Share, what: str, rule: str, given: Given) -> Verdict:
    threshold, value = found.usual + found.margin, found.part / found.rows
    said, limit = apart(value, threshold, form=percent, digits=3)
    counts = f"{int(found.part):,} of {int(found.rows):,}; reference {percent(found.usual)}, limit {limit} by {rule}"
    return Verdict(
        key=key,
        level="warning" if found.surplus > found.margin else "ok",
        clear=value <= threshold,
        value=value,
        threshold=threshold,
        direction="up",
        window=given.span,
        summary=f"{named(key.model, key.version)}: {signal(key.subject)} is {what} in {said} of rows ({counts})",
        reference=given.reference,
        cooldown_ms=given.settings.cooldown_ms,
        evidence={"rows": int(found.rows), "count": int(found.part), "reference_ratio": found.usual, "guarantee": "none"},
    )


def patterns(model: str, version: str, known: Patterns, hour_ms: int, found: dict[str, Windowed], span: Span, settings: ModelSettings, reference: str) -> Iterator[Verdict]:
    """Verdicts on an hour that is over, of every numeric feature with enough rows and enough earlier days."""
    for name, now in found.items():
        present = now.rows - now.missing
        if now.mean is None or now.sd is None or present < PATTERN_ROWS_MIN:
            continue
        values = pattern(now.rows, present, now.mean, now.sd, now.missing, now.outliers)
        if not known.judge(name, hour_ms, values, settings.anomalies):
            continue
        z, beyond = known.z[name], known.running[name] >= settings.anomalies.pattern_windows
        said, limit = apart(z, settings.anomalies.pattern_z)
        text = f"{signal(name)} {'differs from' if known.running[name] else 'is like'} the same hour on earlier days (robust z-score {said}, limit {limit} by anomalies.pattern_z)"
        text += f" for {known.running[name]} hours in a row" if beyond else ""
        yield Verdict(
            key=AlertKey(model, version, "", "anomaly", name, "profile"),
            level="warning" if beyond else "ok",
            clear=known.running[name] == 0,
            value=z,
            threshold=settings.anomalies.pattern_z,
            direction="up",
            window=Span(span.start_ms, span.end_ms, int(now.rows)),
            summary=f"{named(model, version)}: {text}",
            reference=reference,
            cooldown_ms=settings.cooldown_ms,
            evidence={"mean": now.mean, "sd": now.sd, "missing_ratio": now.missing / now.rows, "outliers_ratio": now.outliers / present, "guarantee": "none"},
        )
