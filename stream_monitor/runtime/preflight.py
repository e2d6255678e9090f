"""
What must hold before a worker begins.

Rule of the file: what `doctor` calls a failure of access ends the start with the access that is missing; else it would show later, and in other words.
"""

from __future__ import annotations

import logging
import time

from aiokafka.errors import KafkaError

from stream_monitor.errors import BrokerError
from stream_monitor.runtime.cluster import COORDINATOR_STARTS, Cluster, name_of
from stream_monitor.runtime.doctor import TIMEOUT_S, permissions, transactions
from stream_monitor.runtime.findings import Patient
from stream_monitor.settings import Settings

log = logging.getLogger("stream_monitor")
NOT_YET = frozenset(map(name_of, COORDINATOR_STARTS))


async def demand_access(settings: Settings) -> None:
    """
    See whether the user may do what a worker does with topics, group and transactional ids.

    Raises
    ------
    BrokerError
        With everything that is missing.
    """
    async with Cluster(settings.kafka, TIMEOUT_S) as cluster:
        try:
            patient = Patient(settings, cluster, await cluster.topics(), {}, 0, time.time_ns() // 1_000_000)
            found = [*await permissions(patient), *await transactions(patient)]
        except (BrokerError, KafkaError, TimeoutError) as e:  # a fresh broker's coordinators take their time, and that is no matter of access
            log.warning("access could not be checked: %s", e or type(e).__name__)
            return
    lacking = [f"{finding.detail} ({finding.advice})" for finding in found if finding.status == "fail" and not NOT_YET & set(finding.detail.split())]
    if lacking:
        raise BrokerError(f"access is missing: {'; '.join(lacking)}")
