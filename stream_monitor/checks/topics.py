"""
The topics of the cluster: whether they exist, what we may do with them, and how long they keep
records.

Rule of the file: `ACCESS` is the only list of what a worker does with each topic.
"""

from __future__ import annotations

from stream_monitor.checks.patient import INPUTS, Patient
from stream_monitor.findings import Finding, span
from stream_monitor.kafka.operations import READ, WRITE

ACCESS: dict[str, frozenset[int]] = {
    "predictions": frozenset({READ}),
    "labels": frozenset({READ}),
    "observations": frozenset({READ, WRITE}),
    "alerts": frozenset({READ, WRITE}),
    "dead-letters": frozenset({WRITE}),
    "anomalies": frozenset({WRITE}),
    "history": frozenset({READ, WRITE}),
    "snapshots": frozenset({READ, WRITE}),
    "baselines": frozenset({READ, WRITE}),
    "lifecycle": frozenset({READ, WRITE}),
}
"""The operations that a worker needs on each topic."""


async def topics(patient: Patient) -> list[Finding]:
    """Whether the topics exist and have leaders, and what the worker will do about missing ones."""
    found: list[Finding] = []
    create = patient.settings.kafka.create_topics
    absent = [patient.physical(topic) for topic in ACCESS if patient.facts(topic) is None]
    hidden = await patient.cluster.hidden(absent)
    if hidden:
        found.append(
            Finding(
                "topics",
                "fail",
                f"hidden from us: {', '.join(sorted(hidden))}",
                "grant Describe (and what a worker does with them) on these topics",
            )
        )
    if missing := [name for name in absent if name not in hidden]:
        advice = (
            "the worker creates them when it starts"
            if create
            else (
                "run `stream-monitor topics apply`, or set kafka.create_topics: true; the worker "
                "waits until the input topics are there"
            )
        )
        found.append(Finding("topics", "warn", f"not there: {', '.join(missing)}", advice))
    for topic in ACCESS:
        facts = patient.facts(topic)
        if facts is not None and facts.leaderless:
            found.append(
                Finding(
                    "topics",
                    "fail",
                    f"{facts.name}: {facts.leaderless} of {facts.partitions} partitions have "
                    "no leader",
                    "check the brokers: too few of them are running",
                )
            )
        if facts is not None and facts.name not in patient.configs:
            found.append(
                Finding(
                    "topics",
                    "warn",
                    f"{facts.name}: its settings cannot be read",
                    "grant DescribeConfigs on the topic",
                )
            )
    observations = patient.facts("observations")
    if observations is not None and observations.replicas < 2 <= patient.cluster.brokers:
        found.append(
            Finding(
                "topics",
                "warn",
                f"{observations.name} has no replica",
                "in production use replication factor 3 and min.insync.replicas 2: rows in "
                "transit exist only there",
            )
        )
    return found or [Finding("topics", "ok", f"all {len(ACCESS)} exist and have leaders")]


async def permissions(patient: Patient) -> list[Finding]:
    """Whether we have the permissions on topics and group that a worker needs."""
    names = {READ: "Read", WRITE: "Write"}
    found: list[Finding] = []
    unknown = False
    for topic, needed in ACCESS.items():
        facts = patient.facts(topic)
        if facts is None:
            continue
        if facts.operations is None:
            unknown = True
        elif lacking := [names[operation] for operation in sorted(needed - facts.operations)]:
            found.append(
                Finding(
                    "permissions",
                    "fail",
                    f"topic {facts.name}: {' and '.join(lacking)} not allowed",
                    f"allow {' and '.join(lacking)} on topic {facts.name}",
                )
            )
    group = await patient.cluster.group(patient.settings.worker.group)
    if group.operations is not None and READ not in group.operations:
        found.append(
            Finding(
                "permissions",
                "fail",
                f"group {patient.settings.worker.group}: Read not allowed",
                f"allow Read on group {patient.settings.worker.group}",
            )
        )
    if found:
        return found
    if unknown:
        return [
            Finding(
                "permissions",
                "ok",
                "topics and group can be described; this broker does not report what else is "
                "allowed",
            )
        ]
    return [Finding("permissions", "ok", "topics and group allow everything a worker does")]


async def retention(patient: Patient) -> list[Finding]:
    """Whether records live as long as labels may take."""
    core = patient.settings.core
    delay_ms = max(model.labels.max_delay_ms for model in (core.defaults, *core.models.values()))
    found: list[Finding] = []
    for topic in INPUTS:
        kept_ms = int(patient.configs.get(patient.physical(topic), {}).get("retention.ms", -1))
        if 0 <= kept_ms < delay_ms:
            detail = (
                f"{patient.physical(topic)} keeps records for {span(kept_ms)}, labels may take "
                f"{span(delay_ms)}"
            )
            found.append(
                Finding(
                    "retention",
                    "warn",
                    detail,
                    "raise retention.ms or lower labels.max_delay: a replay could not join "
                    "such labels, and a worker that was down would have lost them",
                )
            )
    if not found and not any(patient.physical(topic) in patient.configs for topic in INPUTS):
        return []
    return found or [
        Finding(
            "retention", "ok", f"inputs are kept for at least labels.max_delay ({span(delay_ms)})"
        )
    ]
