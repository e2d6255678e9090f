"""
How far the archive for training is, and whether it loses rows.

Rule of the file: nothing is said unless `archive.path` is set. It reads commits and joins no group.
"""

from __future__ import annotations

import json

from stream_monitor.checks.patient import Patient
from stream_monitor.findings import Finding, about
from stream_monitor.times import HOUR_MS

LATE_MS = 6 * HOUR_MS
"""A quarter of the time that `observations` is kept."""


async def archive(patient: Patient) -> list[Finding]:
    """State of the archive."""
    topic = patient.facts("observations")
    if patient.settings.archive.path is None or topic is None:
        return []
    offsets = await patient.cluster.committed(f"{patient.settings.worker.group}-archive")
    if not offsets:
        return [
            Finding(
                "archive", "warn", "nothing is archived yet", "start it: stream-monitor archive"
            )
        ]
    ends = await patient.cluster.ends(topic.name, topic.partitions)
    at = {tp.partition: committed for tp, committed in offsets.items() if tp.topic == topic.name}
    lost = sum(max(ends[p][0] - offset, 0) for p, (offset, _) in at.items() if p in ends)
    if lost:
        detail = f"{topic.name}: {lost} records were deleted before they were archived"
        advice = "run `stream-monitor archive` all the time; manifests of collect name the hole"
        return [Finding("archive", "fail", detail, advice)]
    behind_ms = max(
        (
            patient.now_ms - time_ms
            for p, (offset, note) in at.items()
            if p in ends and offset < ends[p][1] and (time_ms := log_time_of(note)) is not None
        ),
        default=0,
    )
    detail = f"archived up to {about(behind_ms)} ago" if behind_ms > 0 else "all is archived"
    if behind_ms > LATE_MS:
        advice = "start `stream-monitor archive` before Kafka deletes what is not archived"
        return [Finding("archive", "warn", detail, advice)]
    return [Finding("archive", "ok", detail)]


def log_time_of(note: str) -> int | None:
    """
    Log time of the newest archived record, in the metadata of a commit; None if it is not there.

    >>> log_time_of('{"time_ms": 7}'), log_time_of("")
    (7, None)
    """
    try:
        told = json.loads(note)["time_ms"]
    except (ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, int) else None
