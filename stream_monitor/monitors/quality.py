"""
Did a field break? Missing and broken values, and outliers, as shares of a recent window against the reference; hours against the same hour of earlier days.

Rule of the file: pure functions of a `Windowed` feature and its reference. A share is judged by the lower end of its Wilson interval, so that few rows say little;
where there are too few there is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stream_monitor.monitors.anomaly import PATTERN_ROWS_MIN, Patterns, pattern
from stream_monitor.monitors.inputs import PANE_MS, Inputs, Windowed
from stream_monitor.monitors.reference import FeatureProfile
from stream_monitor.settings import ModelSettings
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.verdicts import AlertKey, Kind, Span, Verdict

Float = NDArray[np.float64]
LADDER_MS = (10_000, 60_000, 600_000, 3_600_000, 86_400_000)
"""Windows that are tried, shortest first: a broken field shows within seconds where rows are many."""
LOOK_Z = 4.0
"""A share is looked at every second, so its interval is wide: 1 in 30,000 on one side."""


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
        for name, now in found.items():
            for verdict in _shares(model, version, name, now, inputs.profile.features[name], settings, span, reference):
                known = worst.get(verdict.key)
                if known is None or (verdict.level != "ok", not verdict.clear) > (known.level != "ok", not known.clear):
                    worst[verdict.key] = verdict
    yield from worst.values()


def _shares(model: str, version: str, name: str, now: Windowed, profile: FeatureProfile, settings: ModelSettings, span: Span, reference: str) -> Iterator[Verdict]:
    seen = profile.count + profile.missing
    usual_missing = profile.missing / seen if seen else 0.0
    rule = settings.features.get(name)
    margin = 0.0 if rule is not None and rule.required else settings.quality.missing_ratio
    if margin is not None:
        key = AlertKey(model, version, "", "data_quality", name, "threshold")
        yield _share(key, now.missing, now.rows, 0.0 if not margin else usual_missing, margin, "missing", settings, span, reference)
    if settings.quality.violation_ratio is not None and now.violations is not None:
        key = AlertKey(model, version, "", "data_quality", name, "profile")
        yield _share(key, now.violations, now.rows, 0.0, settings.quality.violation_ratio, "of the wrong type, out of range or of an unknown category", settings, span, reference)
    present = now.rows - now.missing
    if profile.type == "numeric" and present > 0 and profile.q3 > profile.q1:  # without a spread every other value would be an outlier
        key = AlertKey(model, version, "", "anomaly", name, "iqr")
        yield _share(key, now.outliers, present, outlier_share(profile), settings.anomalies.share, "outside the fences", settings, span, reference)


def outlier_share(profile: FeatureProfile) -> float:
    """Share of the reference outside its fences."""
    return profile.outliers / profile.count if profile.count else 0.0


def _share(key: AlertKey, part: float, rows: float, usual: float, margin: float, what: str, settings: ModelSettings, span: Span, reference: str) -> Verdict:
    threshold = usual + margin
    low, _ = wilson_interval(part, rows, LOOK_Z)
    value = part / rows
    kind: Kind = key.kind
    level = "warning" if low > threshold else "ok"
    text = f"{key.model}: {value:.1%} of `{key.subject}` is {what} ({int(part):,} of {int(rows):,} rows; the reference has {usual:.1%}, the limit is {threshold:.1%})"
    return Verdict(
        key=AlertKey(key.model, key.version, key.segment, kind, key.subject, key.detector),
        level=level,  # type: ignore[arg-type]
        clear=value <= threshold,
        value=value,
        threshold=threshold,
        direction="up",
        window=span,
        summary=text,
        reference=reference,
        cooldown_ms=settings.cooldown_ms,
        evidence={"rows": int(rows), "count": int(part), "reference_ratio": usual, "guarantee": "none"},
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
        yield Verdict(
            key=AlertKey(model, version, "", "anomaly", name, "profile"),
            level="warning" if beyond else "ok",
            clear=known.running[name] == 0,
            value=z,
            threshold=settings.anomalies.pattern_z,
            direction="up",
            window=Span(span.start_ms, span.end_ms, int(now.rows)),
            summary=f"{model}: `{name}` is unlike the same hour of earlier days (robust z {z:.1f}, limit {settings.anomalies.pattern_z:g}, {known.running[name]} hours in a row)",
            reference=reference,
            cooldown_ms=settings.cooldown_ms,
            evidence={"mean": now.mean, "sd": now.sd, "missing_ratio": now.missing / now.rows, "outliers_ratio": now.outliers / present, "guarantee": "none"},
        )
