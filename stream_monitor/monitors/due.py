"""
What is judged of a model version, and when.

Rule of the file: it reads a version, and only notes in it that it has looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from stream_monitor.monitors import quality, segment_verdicts
from stream_monitor.monitors.containment import Monitor
from stream_monitor.monitors.distance_verdicts import distance_verdicts
from stream_monitor.monitors.drift_alerts import name_alerts
from stream_monitor.monitors.estimate_verdicts import estimate_verdicts
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.monitors.patterns import hour_verdicts
from stream_monitor.verdicts import Verdict

if TYPE_CHECKING:
    from stream_monitor.monitors.inputs import Inputs
    from stream_monitor.monitors.version import Version

COMPARE_MS = 10_000
"""Log time between two comparisons of windows with the baseline, which cost most."""


def what_is_due(version: Version, log_ms: int) -> Iterator[tuple[Monitor, Iterable[Verdict]]]:
    """By monitor, the verdicts on what depends on time, and on what changed since the last."""
    context, watermark_ms = version.context, version.watermark_ms
    segments, performance = version.segments, version.performance
    inputs: tuple[tuple[Monitor, Inputs], ...] = (
        ("features", version.features),
        ("outputs", version.outputs),
    )
    yield "volume", version.volume.freshness(context, log_ms)
    if version.changed:
        version.changed, version.moved = False, True
        yield "volume", version.volume.verdicts(context, watermark_ms)
        yield "performance", performance.verdicts(context)
        if segments is not None:
            yield "segments", segment_verdicts.limits(context, segments, performance)
            yield "segments", segment_verdicts.at_once(context, segments)
        yield "estimate", of_estimate(version)
        yield "patterns", hour_verdicts(context, version.patterns, version.features, watermark_ms)
        for monitor, columns in inputs:
            yield monitor, quality.judge(context, columns, watermark_ms, version.sources)
        yield "features", quality.unwatched(context, version.features)
        for subject in version.signals:
            yield "drift", of_signal(version, subject)
        yield "drift", of_evidence(version)
    if version.moved and not 0 <= log_ms - version.compared_ms < COMPARE_MS:
        version.moved, version.compared_ms = False, log_ms
        for monitor, columns in inputs:
            yield monitor, distance_verdicts(context, columns, watermark_ms)
        if segments is not None:
            yield "segments", segment_verdicts.compared(context, segments, performance)


def of_signal(version: Version, subject: str) -> Iterator[Verdict]:
    """The verdicts of the detectors on the values of one signal."""
    profiles = (version.outputs.profile, version.features.profile)
    scale = version.signals.scale_of(subject, profiles)
    yield from version.signals[subject].verdicts(version.context, scale)


def of_estimate(version: Version) -> Iterator[Verdict]:
    """The verdicts on what is estimated without labels."""
    version.estimate.checked.state.turned = False
    return estimate_verdicts(version.context, version.estimate, version.watermark_ms)


def of_evidence(version: Version) -> Iterator[Verdict]:
    """The verdicts of the detectors on counts, one of each group of signals that moved together."""
    profiles = (version.features.profile, version.outputs.profile)
    groups = [group.evidence for group in version.drifts]
    sliced = [
        []
        if version.segments is None or group.sliced is None
        else [(version.segments.name_of(n), e) for n, e in sorted(group.sliced.evidence.items())]
        for group in version.drifts
    ]
    features = version.drifts[0]
    if features.evidence is not None:
        name_alerts([features.evidence, *(e for _, e in sliced[0])])
    return drift_verdicts(
        version.context, groups, profiles, version.errors.scale, sliced, version.sources
    )
