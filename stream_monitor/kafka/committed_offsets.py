"""
Committed offsets of the group, with their metadata.

Rule of the file: "nothing is committed" is believed only if the coordinator says so about that very
partition. aiokafka's own call checks only the errors of partitions. Since version 2 the answer also
has an error of the whole group, and then no partitions. While a coordinator loads the group, after
a restart or a move, that looks as if nothing was committed. The partition would then be folded
again from its beginning, and each of its alerts be written twice (this happened in
`bench/chaos.py`, seed 1).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest

RETRY_S = 0.1


async def committed_offsets(
    coordinator: Any, tps: Collection[TopicPartition]
) -> dict[TopicPartition, tuple[int, str] | None]:
    """
    Committed offset and metadata of each partition; None if there is none. Asks until the
    coordinator knows; the caller sets the time limit.

    Raises
    ------
    KafkaError
        The coordinator refuses.
    """
    wanted: dict[str, list[int]] = defaultdict(list)
    for tp in tps:
        wanted[tp.topic].append(tp.partition)
    while wanted:
        await coordinator.ensure_coordinator_known()
        try:
            found = told(
                await coordinator._send_req(
                    OffsetFetchRequest(coordinator.group_id, list(wanted.items()))
                )
            )
            if not found.keys() >= set(tps):
                raise UnknownTopicOrPartitionError
            return {tp: found[tp] for tp in tps}
        except KafkaError as e:
            if isinstance(e, NotCoordinatorForGroupError | GroupCoordinatorNotAvailableError):
                coordinator.coordinator_dead()  # look for the coordinator again
            if not e.retriable:
                raise
        await asyncio.sleep(RETRY_S)
    return {}


def told(answer: Any) -> dict[TopicPartition, tuple[int, str] | None]:
    """
    The content of an answer to OffsetFetch, by partition.

    Raises
    ------
    KafkaError
        It is an error of the group, or of a partition.
    """
    found: dict[TopicPartition, tuple[int, str] | None] = {}
    errors = [
        getattr(answer, "error_code", 0)
    ]  # before version 2 the answer has no error of the group
    for topic, partitions in answer.topics:
        for partition, offset, metadata, error in partitions:
            errors.append(error)
            found[TopicPartition(topic, partition)] = None if offset < 0 else (offset, metadata)
    for error in errors:
        if error:
            raise for_code(error)
    return found
