"""
Which controller is active: the member of the group that holds the one partition of `lifecycle`.

Rule of the file: membership chooses, it does not fence. A member that was stopped and wakes up
believes for a moment that it is active; what it writes then has an old epoch, and does not count.

Members say what they have and of which generation of the group that is; the newest keeps it. So a
member that comes, or wakes up, interrupts no other. aiokafka's assignor does this, but nobody tells
it the generation, and it keeps what it has for a whole process: here each member has one of its
own, and tells it.
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
        self._assignor: Any = type("Sticky", (StickyPartitionAssignor,), {})

    async def __aenter__(self) -> Self:
        kafka = self.settings.kafka
        self._consumer = AIOKafkaConsumer(
            **client_options(kafka),
            group_id=f"{self.settings.worker.group}-controller",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            auto_offset_reset="latest",
            partition_assignment_strategy=[self._assignor],
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
        self._assignor.on_generation_assignment(self._consumer._coordinator.generation)
        self.joined.set()
        if assigned:
            self.active.set()
        else:
            self.active.clear()
