"""
What of a model version is judged, and when.

Rule of the file: each monitor is judged within its containment, so that one that raises stops none
of the others. Windows are compared with the baseline more rarely, because that costs most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from stream_monitor.monitors import quality
from stream_monitor.monitors.distance_verdicts import distance_verdicts
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.patterns import hour_verdicts
from stream_monitor.monitors.segments import Segments
from stream_monitor.monitors.signals import ERRORS
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.verdicts import AlertKey, Verdict

if TYPE_CHECKING:
    from stream_monitor.monitors.version import Version

Judge = Callable[[Verdict], None]
COMPARE_MS = 10_000
"""Log time between two comparisons of windows with the baseline."""


def look(version: Version, log_ms: int, judge: Judge) -> None:
    """Judge what depends on time, and what changed since the last look."""
    run = version.contained.run
    run(
        "volume",
        judge_all,
        version.volume.freshness(version.model, version.name, version.settings, log_ms),
        judge,
    )
    if version.changed:
        version.changed = False
        run(
            "volume",
            judge_all,
            version.volume.verdicts(
                version.model, version.name, version.settings, version.watermark_ms
            ),
            judge,
        )
        run(
            "performance",
            judge_all,
            version.performance.verdicts(version.model, version.name),
            judge,
        )
        if version.segments is not None:
            run("segments", _judge_segments, version, version.segments, judge)
        run("patterns", judge_all, _hours(version), judge)
        for name, inputs in (("features", version.features), ("outputs", version.outputs)):
            run(name, _judge_inputs, version, inputs, judge)
        run(
            "features",
            judge_all,
            quality.unwatched(
                version.model, version.name, version.features, version.settings, version.baseline_id
            ),
            judge,
        )
        version.moved = True
        for subject in version.signals:
            run("drift", judge_signal, version, subject, judge)
    if version.moved and not 0 <= log_ms - version.compared_ms < COMPARE_MS:
        version.moved, version.compared_ms = False, log_ms
        for name, inputs in (("features", version.features), ("outputs", version.outputs)):
            run(name, _judge_distances, version, inputs, judge)
    judge_all(version.contained.verdicts(version.model, version.name, log_ms), judge)


def judge_signal(version: Version, subject: str, judge: Judge) -> None:
    """Judge the episodes of one signal."""
    signal, scale = version.signals[subject], _scale_of(version, subject)
    judge_all(
        signal.verdicts(version.model, version.name, version.settings, scale, version.baseline_id),
        judge,
    )


def _scale_of(version: Version, subject: str) -> tuple[float, float]:
    """Mean and standard deviation by which the values of a signal were standardised."""
    for inputs in (version.outputs, version.features):
        if inputs.profile is not None and subject in inputs.profile.features:
            profile = inputs.profile.features[subject]
            return profile.mean, unit_of(profile)
    return (subject == ERRORS and version.signals.error_scale) or (0.0, 1.0)


def _judge_segments(version: Version, segments: Segments, judge: Judge) -> None:
    for segment, windows in segments.changed():
        judge_all(
            version.performance.verdicts_on(
                windows,
                AlertKey(version.model, version.name, segment, "performance", "", "threshold"),
            ),
            judge,
        )


def _judge_inputs(version: Version, inputs: Inputs, judge: Judge) -> None:
    judge_all(
        quality.judge(
            version.model,
            version.name,
            inputs,
            version.watermark_ms,
            version.settings,
            version.baseline_id,
        ),
        judge,
    )


def _judge_distances(version: Version, inputs: Inputs, judge: Judge) -> None:
    if version.settings.drift.thresholds:
        rows_min = version.settings.quality.min_rows
        windows = quality.recent(inputs, version.watermark_ms, rows_min)
        for found, span in windows[quality.STEADY : quality.STEADY + 1]:
            judge_all(
                distance_verdicts(
                    version.model,
                    version.name,
                    inputs,
                    found,
                    span,
                    version.settings,
                    version.baseline_id,
                ),
                judge,
            )


def _hours(version: Version) -> Iterator[Verdict]:
    return hour_verdicts(
        AlertKey(version.model, version.name, "", "anomaly", "", "profile"),
        version.patterns,
        version.features,
        version.watermark_ms,
        version.settings,
        version.baseline_id,
    )


def judge_all(verdicts: Iterable[Verdict], judge: Judge) -> None:
    """Hand on verdicts one by one, as they are made."""
    for verdict in verdicts:
        judge(verdict)
