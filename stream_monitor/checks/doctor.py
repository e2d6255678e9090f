"""
Is everything there that a worker needs, and does what flows mean what it should?

Rule of the file: every check is one function that returns findings and writes nothing; what it
cannot find out it says, and a check that breaks is a finding too. A finding that is not ok says
what to do about it.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import numpy as np

from stream_monitor.checks.patient import Checkup, Patient
from stream_monitor.checks.spelling import compared, ids_of
from stream_monitor.errors import BrokerError
from stream_monitor.events.observations import flushed
from stream_monitor.events.parse import model_of
from stream_monitor.findings import Finding, about, span
from stream_monitor.ingest import Ingest
from stream_monitor.kafka.clocks import OFF_MS, worker_clocks
from stream_monitor.kafka.cluster import READ, WRITE, Cluster, Records, TopicFacts
from stream_monitor.kafka.topic_changes import PROCEDURE
from stream_monitor.schema import topics as topic_specs
from stream_monitor.settings import MINUTE_MS, HttpSettings, Settings
from stream_monitor.stages.notes import read_note
from stream_monitor.stages.reach import reach
from stream_monitor.verdicts import Reject

INPUTS = ("predictions", "labels")
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
"""What a worker does with each topic."""
API_NAMES = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    14: "SyncGroup",
}
TRANSACTION_API_NAMES = {
    22: "InitProducerId",
    25: "AddOffsetsToTxn",
    24: "AddPartitionsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
}
AHEAD_MS = 5 * MINUTE_MS
ROLLOUT_MS = 5 * MINUTE_MS
"""So long may workers have different configurations."""
LAG_RECORDS_WARN = 100_000
EXAMPLES_N = 3
TIMESTAMP_TYPE = "message.timestamp.type"
TIMEOUT_S = 10.0
AT_LEAST_ONCE = (
    "set worker.processing_guarantee: at_least_once (an alert may then be repeated after a "
    "crash), or use a broker with transactions"
)


async def examine(
    settings: Settings, *, sample_n: int = 100, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Finding]:
    """
    Run all checks, one after another.

    Parameters
    ----------
    settings : Settings
        The whole configuration.
    sample_n : int, records
        Newest records of `predictions` and of `labels` that are checked against the contract; 0
        reads none.
    timeout_s : float, seconds
        For each question to the broker.

    Yields
    ------
    Finding
        As soon as it is known.
    """
    yield await metrics_port(settings.worker.metrics)
    try:
        async with Cluster(settings.kafka, timeout_s) as cluster:
            topics = await cluster.topics()
            yield Finding(
                "broker",
                "ok",
                f"{settings.kafka.bootstrap_servers} answers, {cluster.brokers} broker(s) in "
                "the cluster",
            )
            ours = [settings.kafka.topic_prefix + topic for topic in ACCESS]
            configs = await _configs(cluster, [name for name in ours if name in topics])
            patient = Patient(
                settings, cluster, topics, configs, sample_n, time.time_ns() // 1_000_000
            )
            for check, checkup in CHECKUPS.items():
                try:
                    for finding in await checkup(patient):
                        yield finding
                except Exception as error:
                    yield Finding(
                        check,
                        "fail",
                        f"could not be checked: {str(error) or type(error).__name__}",
                        "check that the user of kafka.security may describe it and that the "
                        "broker is healthy",
                    )
    except (BrokerError, TimeoutError) as error:
        yield Finding(
            "broker",
            "fail",
            f"cannot be used: {str(error) or 'no answer'}",
            "check kafka.bootstrap_servers and kafka.security, and that the broker's "
            "advertised listeners are reachable from here",
        )


async def _configs(cluster: Cluster, names: list[str]) -> dict[str, dict[str, str]]:
    """Settings of the topics, none when we may not ask; the check of topics says so."""
    try:
        return await cluster.configs(names)
    except Exception:
        return {}


async def metrics_port(http: HttpSettings) -> Finding:
    """Whether the port of the metrics is free, or a worker answers on it."""
    place = f"{http.host}:{http.port}"
    if http.port == 0:
        return Finding("metrics port", "ok", "the worker picks a free port at start")
    with socket.socket(socket.AF_INET6 if ":" in http.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            reason = error.strerror
        else:
            return Finding("metrics port", "ok", f"{place} is free")
    try:
        # whose certificate it is does not matter: nothing is told to it
        url = f"{http.url(http.port)}/ready"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
            session.get(url, ssl=False) as response,
        ):
            text = (await response.text())[:200].strip()
            if response.headers.get("Server") == "stream-monitor":
                if response.status == 200:
                    return Finding("metrics port", "ok", f"a worker answers on {place}: {text}")
                return Finding(
                    "metrics port",
                    "warn",
                    f"the worker on {place} is not ready: {text}",
                    "see the log of the worker",
                )
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        pass
    return Finding(
        "metrics port",
        "fail",
        f"{place} cannot be used: {reason}",
        "set worker.metrics.port to another port (0 takes a free one), or stop the program "
        "that has it",
    )


async def apis(patient: Patient) -> list[Finding]:
    """Whether the broker speaks what is needed, transactions included."""
    needed = API_NAMES | (
        TRANSACTION_API_NAMES
        if patient.settings.worker.processing_guarantee == "exactly_once"
        else {}
    )
    missing = [name for key, name in needed.items() if key not in patient.cluster.versions]
    if not missing:
        return [
            Finding(
                "protocol", "ok", f"the broker supports all {len(needed)} requests that are needed"
            )
        ]
    if set(missing) <= set(TRANSACTION_API_NAMES.values()):
        return [
            Finding(
                "protocol",
                "fail",
                "worker.processing_guarantee is exactly_once, but the broker does not "
                f"support transactions (no {', '.join(missing)})",
                AT_LEAST_ONCE,
            )
        ]
    return [
        Finding(
            "protocol",
            "fail",
            f"the broker does not support {', '.join(missing)}",
            "use Apache Kafka 2.1 or later, or a compatible broker",
        )
    ]


async def transactions(patient: Patient) -> list[Finding]:
    """Whether there is a coordinator for our transactions, and we may use it."""
    worker = patient.settings.worker
    if worker.processing_guarantee != "exactly_once":
        return [
            Finding(
                "transactions", "ok", "not needed: worker.processing_guarantee is at_least_once"
            )
        ]
    if not set(TRANSACTION_API_NAMES) <= set(patient.cluster.versions):
        return []
    transactional_id = f"{worker.group}.observations.0"
    refusal = await patient.cluster.transaction_coordinator(transactional_id)
    if refusal:
        return [
            Finding(
                "transactions",
                "fail",
                f"no coordinator for {transactional_id}: {refusal}",
                "grant Describe and Write on transactional ids that begin with "
                f"{worker.group}., or {AT_LEAST_ONCE}",
            )
        ]
    return [Finding("transactions", "ok", f"a coordinator answers for {transactional_id}")]


async def topics(patient: Patient) -> list[Finding]:
    """
    Whether the topics are there, with leaders, and what the worker will do about those that are
    not.
    """
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
    """Whether we may do with topics and group what a worker does."""
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


async def group(patient: Patient) -> list[Finding]:
    """State of the consumer group, and how far behind it is."""
    name = patient.settings.worker.group
    facts = await patient.cluster.group(name)
    if facts.operations is not None and READ not in facts.operations:
        return []  # the check of permissions says so
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
        topic_facts for topic in (*INPUTS, "observations") if (topic_facts := patient.facts(topic))
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


async def configuration(patient: Patient) -> list[Finding]:
    """
    With which configuration each partition of `observations` is evaluated, as its last commit notes
    it, and by how many partitions its rows are placed.
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
        f"; in partition {p} began anew {note.anew}" for p, note in notes.items() if note.anew
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


async def sample(patient: Patient) -> list[Finding]:
    """
    Whether the newest records of the inputs mean what the contract says, and when they were made.
    """
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


async def log_time(patient: Patient) -> list[Finding]:
    """Whose clock log time goes by, and what the clocks of workers are like."""
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


def _taken(
    kind: str, topic: str, batches: list[Records], max_record_bytes: int
) -> tuple[Ingest, list[tuple[Records, Reject]]]:
    """Records as a worker would take them, and which it would refuse."""
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


def judged(kind: str, topic: str, batches: list[Records], max_record_bytes: int) -> Finding:
    """Decode records as the worker would, and show what it would refuse."""
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


def clock(kind: str, batches: list[Records], now_ms: int) -> Finding:
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


CHECKUPS: dict[str, Checkup] = {
    "protocol": apis,
    "transactions": transactions,
    "topics": topics,
    "permissions": permissions,
    "retention": retention,
    "group": group,
    "configuration": configuration,
    "sample": sample,
    "clock": log_time,
}
