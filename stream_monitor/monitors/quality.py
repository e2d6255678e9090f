"""
Did a field break? Missing and broken values, and outliers, as shares of a recent window against the reference.

Rule of the file: pure functions of a `Windowed` feature and its reference. A share is judged by the lower end of its Wilson interval, so that few rows say little;
where there are too few there is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream_monitor.monitors.inputs import Inputs, Windowed
from stream_monitor.monitors.reference import FeatureProfile
from stream_monitor.settings import ModelSettings
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.verdicts import AlertKey, Kind, Span, Verdict

LADDER_MS = (10_000, 60_000, 600_000, 3_600_000, 86_400_000)
"""Windows that are tried, shortest first: a broken field shows within seconds where rows are many."""


def recent(inputs: Inputs, watermark_ms: int, rows_min: int) -> tuple[dict[str, Windowed], Span]:
    """Every feature in the shortest window of the ladder that holds enough rows, with the window's bounds; empty when none does."""
    for duration in LADDER_MS:
        found, start, end = inputs.window(watermark_ms, duration)
        rows = int(max((w.rows for w in found.values()), default=0))
        if rows >= rows_min:
            return found, Span(start, end, rows)
    return {}, Span(watermark_ms, watermark_ms, 0)


def judge(model: str, version: str, inputs: Inputs, watermark_ms: int, settings: ModelSettings, reference: str) -> Iterator[Verdict]:
    """Verdicts on missing values, broken values and outliers of every feature."""
    if inputs.profile is None:
        return
    found, span = recent(inputs, watermark_ms, settings.quality.min_rows)
    for name, now in found.items():
        profile = inputs.profile.features[name]
        yield from _shares(model, version, name, now, profile, settings, span, reference)


def _shares(model: str, version: str, name: str, now: Windowed, profile: FeatureProfile, settings: ModelSettings, span: Span, reference: str) -> Iterator[Verdict]:
    seen = profile.count + profile.missing
    usual_missing = profile.missing / seen if seen else 0.0
    if settings.quality.missing_ratio is not None:
        key = AlertKey(model, version, "", "data_quality", name, "threshold")
        yield _share(key, now.missing, now.rows, usual_missing, settings.quality.missing_ratio, "missing", settings, span, reference)
    if settings.quality.violation_ratio is not None and now.violations is not None:
        key = AlertKey(model, version, "", "data_quality", name, "profile")
        yield _share(key, now.violations, now.rows, 0.0, settings.quality.violation_ratio, "of the wrong type or out of range", settings, span, reference)
    present = now.rows - now.missing
    if profile.type == "numeric" and present > 0:
        key = AlertKey(model, version, "", "anomaly", name, "iqr")
        yield _share(key, now.outliers, present, outlier_share(profile), settings.anomalies.share, "outside the fences", settings, span, reference)


def outlier_share(profile: FeatureProfile) -> float:
    """Share of the reference outside its fences."""
    return profile.outliers / profile.count if profile.count else 0.0


def _share(key: AlertKey, part: float, rows: float, usual: float, margin: float, what: str, settings: ModelSettings, span: Span, reference: str) -> Verdict:
    threshold = usual + margin
    low, _ = wilson_interval(part, rows)
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
