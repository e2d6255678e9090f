"""
The thresholds that the configuration sets on the distances of a window to the baseline.

Rule of the file: a distance is a severity for people. It raises an alert only if the configuration
has a threshold, and only if two samples of one distribution would hardly be so far apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stream_monitor.alerts.wording import apart, signal
from stream_monitor.monitors import quality
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.distances import distances
from stream_monitor.monitors.drift import alert_of
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.settings import STEADY
from stream_monitor.stats.chance import by_chance
from stream_monitor.verdicts import AlertKey, Span, Verdict

METHOD_NAMES = {
    "psi": "PSI",
    "js": "Jensen-Shannon distance",
    "ks": "Kolmogorov-Smirnov distance",
    "wasserstein": "Wasserstein distance",
    "chi2": "Cramér's V",
}


def distance_verdicts(context: Context, inputs: Inputs, watermark_ms: int) -> Iterator[Verdict]:
    """
    Verdicts of the configured thresholds on distances of the steady window.
    """
    if inputs.profile is None or not context.settings.drift.thresholds:
        return
    windows = quality.recent(inputs, watermark_ms, context.settings.quality.min_rows)
    for found, span in windows[STEADY : STEADY + 1]:
        yield from _of_window(context, inputs.profile, found, span)


def _of_window(
    context: Context, baseline: Profile, found: Mapping[str, Windowed], span: Span
) -> Iterator[Verdict]:
    thresholds = context.settings.drift.thresholds
    for name, now in found.items():
        profile = baseline.features[name]
        scores = distances(profile, now, {"js", *thresholds})
        for method, threshold in thresholds.items():
            if method in scores:
                by_luck = scores["js"] <= by_chance(
                    profile.count, float(now.counts.sum()), int(np.count_nonzero(now.counts))
                )
                key = alert_of(context, name, method)
                yield _verdict(context, key, scores[method], threshold, span, by_luck=by_luck)


def _verdict(
    context: Context,
    key: AlertKey,
    value: float,
    threshold: float,
    span: Span,
    *,
    by_luck: bool,
) -> Verdict:
    beyond = value > threshold and not by_luck
    now, limit = apart(value, threshold)
    rule = f"limit of {limit} (drift.thresholds.{key.detector}; {span.count:,} rows)"
    text = f"{key.title}: {signal(key.subject)} "
    if beyond:
        text += (
            f"has drifted: {METHOD_NAMES[key.detector]} {now} against its baseline, above the "
            f"{rule}; compare its values with the baseline"
        )
    else:
        text += f"is near its baseline: {METHOD_NAMES[key.detector]} {now}, " + (
            f"within the {rule}" if value <= threshold else f"by chance above the {rule}"
        )
    return Verdict(
        key=key,
        level=context.settings.drift.severity if beyond else "ok",
        clear=value <= threshold,
        value=value,
        threshold=threshold,
        direction="up",
        window=span,
        summary=text,
        baseline_id=context.baseline_id,
        cooldown_ms=context.settings.cooldown_ms,
        evidence={"rows": span.count, "guarantee": "none"},
    )
