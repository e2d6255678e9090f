"""
What the broker itself must support: the requests of a worker, and transactions.

Rule of the file: a worker with `at_least_once` needs no transactions, so they are not checked then.
"""

from __future__ import annotations

from stream_monitor.checks.patient import Patient
from stream_monitor.findings import Finding

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
AT_LEAST_ONCE = (
    "set worker.processing_guarantee: at_least_once (an alert may then be repeated after a "
    "crash), or use a broker with transactions"
)


async def apis(patient: Patient) -> list[Finding]:
    """Whether the broker supports the requests that a worker sends, including transactions."""
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
    """Whether our transactions have a coordinator, and we may use it."""
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
