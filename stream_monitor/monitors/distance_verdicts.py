"""
The thresholds that the configuration sets on the distances of a window to the baseline.

Rule of the file: a distance is a severity for people. It raises an alert only where the
configuration gives a threshold, and only where two samples of one law would hardly be so far apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stream_monitor.alerts.wording import apart, named, signal
from stream_monitor.monitors.distances import distances
from stream_monitor.monitors.drift import alert_of
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.settings import ModelSettings
from stream_monitor.verdicts import AlertKey, Span, Verdict

CHANCE_SD = 6.0
"""A distance is looked at every second, so that of no change must be this unlikely."""
METHOD_NAMES = {
    "psi": "PSI",
    "js": "Jensen-Shannon distance",
    "ks": "Kolmogorov-Smirnov distance",
    "wasserstein": "Wasserstein distance",
    "chi2": "Cramér's V",
}


def by_chance(expected: float, actual: float, bins: int) -> float:
    """
    The Jensen-Shannon distance that two samples of one law hardly ever exceed: that of a
    chi-squared statistic `CHANCE_SD` standard deviations above its mean.

    Parameters
    ----------
    expected, actual : float, rows
        Sizes of the samples.
    bins : int

    Examples
    --------
    >>> round(by_chance(5_000, 200, 20), 2), round(by_chance(5_000, 100_000, 20), 3)
    (0.23, 0.046)
    """
    free = max(bins - 1, 1)
    return float(
        np.sqrt(
            (free + CHANCE_SD * np.sqrt(2 * free)) * (1 / expected + 1 / actual) / (8 * np.log(2))
        )
    )


def distance_verdicts(
    model: str,
    version: str,
    inputs: Inputs,
    found: Mapping[str, Windowed],
    span: Span,
    settings: ModelSettings,
    baseline_id: str,
) -> Iterator[Verdict]:
    """Verdicts of the thresholds on distances, where the configuration has any."""
    if inputs.profile is None or not settings.drift.thresholds:
        return
    for name, now in found.items():
        profile = inputs.profile.features[name]
        scores = distances(profile, now, {"js", *settings.drift.thresholds})
        for method, threshold in settings.drift.thresholds.items():
            if method in scores:
                by_luck = scores["js"] <= by_chance(
                    profile.count, float(now.counts.sum()), int(np.count_nonzero(now.counts))
                )
                yield _verdict(
                    alert_of((model, version), name, method),
                    scores[method],
                    threshold,
                    span,
                    settings,
                    baseline_id,
                    by_luck=by_luck,
                )


def _verdict(
    key: AlertKey,
    value: float,
    threshold: float,
    span: Span,
    settings: ModelSettings,
    baseline_id: str,
    *,
    by_luck: bool,
) -> Verdict:
    beyond = value > threshold and not by_luck
    now, limit = apart(value, threshold)
    rule = f"limit of {limit} (drift.thresholds.{key.detector}; {span.count:,} rows)"
    text = f"{named(key.model, key.version)}: {signal(key.subject)} "
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
        level=settings.drift.severity if beyond else "ok",
        clear=value <= threshold,
        value=value,
        threshold=threshold,
        direction="up",
        window=span,
        summary=text,
        baseline_id=baseline_id,
        cooldown_ms=settings.cooldown_ms,
        evidence={"rows": span.count, "guarantee": "none"},
    )
