"""
Which controller is active: the member of the group that holds the one partition of `lifecycle`.

Rule of the file: membership chooses, it does not fence. A member that was stopped and wakes up
believes for a moment that it is active; what it writes then has an old epoch, and does not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from stream_monitor.kafka.connection import client_options, connecting
from stream_monitor.kafka.patience import RETRY_S, quietly
from stream_monitor.settings import Settings

SESSION_MS = 6_000
"""The least that a broker allows by default (`group.min.session.timeout.ms`)."""
HEARTBEAT_MS = 1_000


class Membership(ConsumerRebalanceListener):
    """
    A member of the group of controllers; to be used in `async with`.

    Attributes
    ----------
    active : asyncio.Event
        Set while this member holds the partition.
    joined : asyncio.Event
        Set once it is in the group.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.active, self.joined = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        kafka = self.settings.kafka
        self._consumer = AIOKafkaConsumer(
            **client_options(kafka),
            group_id=f"{self.settings.worker.group}-controller",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            auto_offset_reset="latest",
            # a second controller that starts must not interrupt what the first one does
            partition_assignment_strategy=[StickyPartitionAssignor],
        )
        self._consumer.subscribe([kafka.topic_prefix + "lifecycle"], listener=self)
        with connecting(kafka):
            await self._consumer.start()
        self._polling = asyncio.ensure_future(self._poll())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._polling.cancel()
        await asyncio.wait([self._polling])
        await quietly(self._consumer.stop())

    async def _poll(self) -> None:
        """A member that does not poll is put out of its group."""
        while True:
            try:
                await self._consumer.getmany(timeout_ms=500)
            except KafkaError:
                await asyncio.sleep(RETRY_S)

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """
        Nothing yet: whenever a member comes or goes all are asked, and most keep what they have.
        """

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """The member that got the partition is active."""
        self.joined.set()
        if assigned:
            self.active.set()
        else:
            self.active.clear()
