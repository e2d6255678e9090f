"""
The newest records of the topics: whether they fit the contract, and when they were made.

Rule of the file: records are decoded by the code of a worker (`Ingest`), so that the two agree.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from stream_monitor.checks.patient import INPUTS, Patient
from stream_monitor.checks.spelling import compared, ids_of
from stream_monitor.events.observations import flushed
from stream_monitor.events.parse import model_of
from stream_monitor.findings import Finding, about
from stream_monitor.ingest import Ingest
from stream_monitor.kafka.clocks import OFF_MS, worker_clocks
from stream_monitor.kafka.cluster import NewestRecords
from stream_monitor.schema import topics as topic_specs
from stream_monitor.stages.reach import reach
from stream_monitor.times import MINUTE_MS
from stream_monitor.verdicts import Reject

AHEAD_MS = 5 * MINUTE_MS
EXAMPLES_N = 3
TIMESTAMP_TYPE = "message.timestamp.type"


async def sample(patient: Patient) -> list[Finding]:
    """Whether the newest records of the inputs fit the contract, and when they were made."""
    found: list[Finding] = []
    ids: dict[str, list[str]] = {}
    for kind in INPUTS if patient.sample_n else ():
        facts = patient.facts(kind)
        if facts is None:
            continue
        batches = await patient.cluster.newest(facts.name, facts.partitions, patient.sample_n)
        if not batches:
            found.append(
                Finding(
                    kind,
                    "warn",
                    f"{facts.name} is empty",
                    "send events, for example with `stream-monitor produce`",
                )
            )
            continue
        ingest, refused = _taken(
            kind, facts.name, batches, patient.settings.worker.max_record_bytes
        )
        useless = {(batch.partition, reject.index) for batch, reject in refused}
        ids[kind] = ids_of(
            value
            for batch in batches
            for i, value in enumerate(batch.values)
            if (batch.partition, i) not in useless
        )
        found += [
            judged(kind, facts.name, batches, patient.settings.worker.max_record_bytes),
            clock(kind, batches, patient.now_ms),
            *_dated(kind, ingest, patient.now_ms),
        ]
        if kind == "predictions":
            found += reach(batches, patient.settings.core)
    alike = compared(ids["predictions"], ids["labels"]) if len(ids) == len(INPUTS) else None
    return [*found, alike] if alike is not None else found


def _taken(
    kind: str, topic: str, batches: list[NewestRecords], max_record_bytes: int
) -> tuple[Ingest, list[tuple[NewestRecords, Reject]]]:
    """The records that a worker would accept, and those that it would refuse."""
    ingest, refused = Ingest(1, max_record_bytes=max_record_bytes), []
    for batch in batches:
        rejects = ingest.take(
            f"{topic}/{batch.partition}",
            kind,
            batch.values,
            np.array(batch.offsets, np.int64),
            np.array(batch.times_ms, np.int64),
        )
        refused += [(batch, reject) for reject in rejects]
    return ingest, refused


def judged(kind: str, topic: str, batches: list[NewestRecords], max_record_bytes: int) -> Finding:
    """Decode records as a worker would, and show those that it would refuse."""
    refused = _taken(kind, topic, batches, max_record_bytes)[1]
    total = sum(len(batch.values) for batch in batches)
    models = Counter(
        model for batch in batches for value in batch.values if value and (model := model_of(value))
    )
    if not refused:
        named = [f"{name} ({count})" for name, count in models.most_common(EXAMPLES_N + 2)]
        seen = f"; models: {', '.join(named)}" if named else ""
        return Finding(kind, "ok", f"the newest {total} records of {topic} can be used{seen}")
    examples = [
        (
            f"{topic}/{batch.partition}@{batch.offsets[reject.index]}: {reject.reason}: "
            f"{reject.message}"
        )
        for batch, reject in refused[:EXAMPLES_N]
    ]
    lost = Counter(model_of(batch.values[reject.index] or b"") for batch, reject in refused)
    by_model = ", ".join(
        f"{name} {count} of {models[name]}"
        for name, count in lost.most_common(EXAMPLES_N + 2)
        if name
    )
    detail = (
        f"of the newest {total} records of {topic} {len(refused)} cannot be used: "
        f"{'; '.join(examples)}{f'; by the model that they name: {by_model}' if by_model else ''}"
    )
    return Finding(
        kind,
        "fail" if len(refused) == total else "warn",
        detail,
        "compare with the schema in topics/ and correct the sender; such records go to "
        "dead-letters",
    )


def _dated(kind: str, ingest: Ingest, now_ms: int) -> list[Finding]:
    """Whether events are dated ahead of their record, or of this machine."""
    times = [part for parts in ingest.newest_ms.values() for part in parts]
    ahead = ingest.ahead + sum(int((part > now_ms + OFF_MS).sum()) for part in times)
    if not ahead:
        return []
    detail = (
        f"{ahead} of the newest {sum(map(len, times))} {kind} are dated ahead of their record or "
        "of this machine: they count at the time at which they came"
    )
    return [
        Finding(
            "clock",
            "warn",
            detail,
            "correct the clocks of who sends them (NTP), or the unit of `timestamp`",
        )
    ]


def clock(kind: str, batches: list[NewestRecords], now_ms: int) -> Finding:
    """How the timestamps of the newest records compare with the clock of this machine."""
    age_ms = now_ms - max(max(batch.times_ms) for batch in batches)
    if age_ms < -AHEAD_MS:
        detail = f"the newest record of {kind} is dated {about(-age_ms)} ahead of this machine"
        return Finding(
            "clock",
            "warn",
            detail,
            "compare the clocks of the senders and of this machine (NTP): event time follows "
            "the records, lag is measured with the clock here",
        )
    return Finding(
        "clock",
        "ok",
        f"the newest record of {kind} is {about(age_ms)} old"
        if age_ms >= 0
        else f"the newest record of {kind} is dated {about(-age_ms)} ahead",
    )


async def log_time(patient: Patient) -> list[Finding]:
    """Which clock log time follows, and how far the clocks of workers differ."""
    facts = patient.facts("observations")
    if facts is None or not patient.sample_n:
        return []
    kind = patient.configs.get(facts.name, {}).get(TIMESTAMP_TYPE)
    if kind is not None and kind != topic_specs()["observations"].config[TIMESTAMP_TYPE]:
        detail = (
            f"{facts.name} has {TIMESTAMP_TYPE} {kind}: log time goes by the clocks of workers, "
            "and one that is wrong shifts windows and alerts"
        )
        return [Finding("clock", "warn", detail, "run `stream-monitor topics apply`")]
    batches = await patient.cluster.newest(facts.name, facts.partitions, patient.sample_n)
    pairs = [
        (flushed_ms, t)
        for batch in batches
        for t, value in zip(batch.times_ms, batch.values, strict=True)
        if (flushed_ms := flushed(value)) is not None
    ]
    return (
        [worker_clocks(facts.name, [f for f, _ in pairs], [a for _, a in pairs])] if pairs else []
    )
