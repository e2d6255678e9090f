"""
Conditions that must hold before a worker starts.

Rule of the file: missing permissions, which `doctor` reports as failures, end the start with a list
of them. Otherwise they would show later, in other words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TransactionalIdAuthorizationFailed

from stream_monitor.checks.broker import transactions
from stream_monitor.checks.doctor import TIMEOUT_S
from stream_monitor.checks.patient import Patient
from stream_monitor.checks.topics import permissions
from stream_monitor.errors import BrokerError
from stream_monitor.kafka.cluster import COORDINATOR_STARTS, Cluster, name_of
from stream_monitor.kafka.connection import client_options
from stream_monitor.kafka.patience import quietly
from stream_monitor.kafka.topic_changes import PROCEDURE
from stream_monitor.settings import Settings
from stream_monitor.stages.evaluate_stage import TRANSACTION_TIMEOUT_MS
from stream_monitor.stages.hub import Hub

log = logging.getLogger("stream_monitor")
CHECK_S = 40
"""
Time limit for the check of transactions at the start, s: one of several brokers may have just gone
away.
"""
NOT_YET = frozenset(map(name_of, COORDINATOR_STARTS))


async def demand_access(settings: Settings) -> None:
    """
    Check that the user has the permissions of a worker on topics, group and transactional ids.

    Raises
    ------
    BrokerError
        Lists everything that is missing.
    """
    async with Cluster(settings.kafka, TIMEOUT_S) as cluster:
        try:
            patient = Patient(
                settings, cluster, await cluster.topics(), {}, 0, time.time_ns() // 1_000_000
            )
            found = [*await permissions(patient), *await transactions(patient)]
        except (
            BrokerError,
            KafkaError,
            TimeoutError,
        ) as e:
            # the coordinators of a new broker need time; that is not a missing permission
            log.warning("cannot check access: %s", e or type(e).__name__)
            return
    lacking = [
        f"{finding.detail} ({finding.advice})"
        for finding in found
        if finding.status == "fail" and not NOT_YET & set(finding.detail.split())
    ]
    if lacking:
        raise BrokerError(f"missing access: {'; '.join(lacking)}")


def demand_placed(settings: Settings, partitions: Mapping[str, int]) -> None:
    """
    Check that every partition of `observations` has its own partition of `snapshots`.

    Raises
    ------
    BrokerError
        A partition of `snapshots` is missing.
    """
    rows, states = partitions["observations"], partitions["snapshots"]
    if states < rows:
        prefix = settings.kafka.topic_prefix
        raise BrokerError(
            f"{prefix}snapshots has {states} partitions and {prefix}observations has {rows}: "
            f"the state of the others has no place; {PROCEDURE.format(prefix=prefix)}"
        )


async def check_transactions(hub: Hub) -> None:
    """
    Check that the broker has transactions.

    Raises
    ------
    BrokerError
        The broker has none, but `processing_guarantee: exactly_once` needs them.
    """
    if hub.settings.worker.processing_guarantee != "exactly_once":
        return
    producer = AIOKafkaProducer(
        **client_options(hub.settings.kafka),
        transactional_id=f"{hub.group}.probe",
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
    )
    try:
        await asyncio.wait_for(producer.start(), CHECK_S)
    except TimeoutError:
        what_to_look_at = (
            "its log says why; a single broker needs transaction.state.log.replication.factor=1 "
            "and transaction.state.log.min.isr=1"
        )
        raise BrokerError(
            f"no transaction coordinator answers within {CHECK_S} s ({what_to_look_at}), or "
            "set worker.processing_guarantee to at_least_once"
        ) from None
    except Exception as e:
        if isinstance(e, TransactionalIdAuthorizationFailed):
            raise BrokerError(
                "missing access: transactions not allowed (grant Describe and Write on "
                f"transactional ids that begin with {hub.group}.)"
            ) from None
        raise BrokerError(
            f"the broker does not support transactions ({e!r}): set "
            "worker.processing_guarantee to at_least_once, or use a broker that has them"
        ) from None
    finally:
        await quietly(producer.stop())
