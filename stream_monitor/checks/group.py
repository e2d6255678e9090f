"""
What the commits of the consumer group show: which workers run, how far they are behind, and with
which configuration.

Rule of the file: it reads commits and does not join the group.
"""

from __future__ import annotations

from stream_monitor.checks.patient import INPUTS, Patient
from stream_monitor.findings import Finding, about
from stream_monitor.kafka.cluster import TopicFacts
from stream_monitor.kafka.operations import READ
from stream_monitor.kafka.topic_changes import PROCEDURE
from stream_monitor.stages.commit_metadata import read_note
from stream_monitor.times import MINUTE_MS

ROLLOUT_MS = 5 * MINUTE_MS
"""Workers may have different configurations for this long, ms."""
LAG_RECORDS_WARN = 100_000


async def group(patient: Patient) -> list[Finding]:
    """State of the consumer group, and how far behind it is."""
    name = patient.settings.worker.group
    facts = await patient.cluster.group(name)
    if facts.operations is not None and READ not in facts.operations:
        return []  # the check of permissions reports it
    offsets = await patient.cluster.committed(name)
    state = f"group {name}: {facts.state or 'unknown'}, {facts.members} member(s)"
    if not offsets:
        return [
            Finding(
                "group",
                "ok",
                f"group {name}: no worker has run yet"
                if not facts.members
                else f"{state}, nothing committed yet",
            )
        ]
    found = [
        Finding("group", "ok", state)
        if facts.members
        else Finding(
            "group", "warn", f"{state}: no worker is running", "start one: stream-monitor worker"
        )
    ]
    present = [
        topic_facts
        for topic in (*INPUTS, "lifecycle", "observations")
        if (topic_facts := patient.facts(topic))
    ]
    found += [
        await _lag(
            patient,
            topic,
            {tp.partition: offset for tp, (offset, _) in offsets.items() if tp.topic == topic.name},
        )
        for topic in present
    ]
    return found


async def _lag(patient: Patient, topic: TopicFacts, offsets: dict[int, int]) -> Finding:
    ends = await patient.cluster.ends(topic.name, topic.partitions)
    lost = sum(
        max(ends[partition][0] - offset, 0)
        for partition, offset in offsets.items()
        if partition in ends
    )
    behind = sum(
        last - max(offsets.get(partition, first), first)
        for partition, (first, last) in ends.items()
    )
    if lost:
        return Finding(
            "lag",
            "fail",
            f"{topic.name}: {lost} records were deleted before they were read",
            "raise retention.ms of the topic, and add workers until they keep up",
        )
    if behind > LAG_RECORDS_WARN:
        return Finding(
            "lag",
            "warn",
            f"{topic.name}: {behind} records behind",
            "add workers (up to the number of partitions) or give them more CPU",
        )
    return Finding("lag", "ok", f"{topic.name}: {behind} records behind")


async def configuration(patient: Patient) -> list[Finding]:
    """
    The configuration with which each partition of `observations` is evaluated, and the number of
    partitions for which its rows were placed, by its last commit.
    """
    observations = patient.facts("observations")
    if observations is None:
        return []
    committed = await patient.cluster.committed(patient.settings.worker.group)
    notes = {
        tp.partition: read_note(tp, metadata)[0]
        for tp, (_, metadata) in sorted(committed.items())
        if tp.topic == observations.name
    }
    found = []
    if wrong := sorted({note.partitions for note in notes.values()} - {0, observations.partitions}):
        detail = (
            f"{observations.name} has {observations.partitions} partitions, but its rows were "
            f"partitioned for {' and '.join(map(str, wrong))}; workers refuse to start"
        )
        found.append(
            Finding(
                "configuration",
                "fail",
                detail,
                PROCEDURE.format(prefix=patient.settings.kafka.topic_prefix),
            )
        )
    by_hash: dict[str, list[int]] = {}
    for partition, note in notes.items():
        by_hash.setdefault(note.config, []).append(partition)
    if not by_hash:
        return found
    newest_ms = max(note.since_ms for note in notes.values())
    what = "; ".join(
        f"{each or 'none yet'} in {', '.join(map(str, partitions))}"
        for each, partitions in by_hash.items()
    )
    detail = (
        f"partitions of {observations.name} by the configuration of their last commit: {what} "
        f"(newest change {about(patient.now_ms - newest_ms)} ago); this one is "
        f"{patient.settings.core.hash}"
    )
    detail += "".join(
        f"; in partition {p} these parts restarted: {note.anew}"
        for p, note in notes.items()
        if note.anew
    )
    if len(by_hash) == 1 or patient.now_ms - newest_ms <= ROLLOUT_MS:
        return [*found, Finding("configuration", "ok", detail)]
    return [
        *found,
        Finding(
            "configuration",
            "warn",
            detail,
            "finish the rollout: start all workers of the group with one monitor.yaml",
        ),
    ]
