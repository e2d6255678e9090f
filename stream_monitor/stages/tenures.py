"""
Counts the tenures of EVALUATE that began at a position and neither advanced nor ended cleanly
(`stages/poison.py` explains what happens then).

Rule of the file: the counts are in the metadata of a commit on `snapshots`, which the group does
not read. A commit on `observations` would need a transaction, and time, in every open. A count that
cannot be written is left out, because it is never worth the delay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from aiokafka import TopicPartition

from stream_monitor.stages.forks import COPIES
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.owned import Committed, Owned
from stream_monitor.stages.poison import (
    CAREFUL_RECORDS,
    MARK_S,
    TRIES,
    parted,
    suspicion,
    with_failures,
)

log = logging.getLogger("stream_monitor")


class Tenures:
    """Counts of all partitions of `observations`."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def mark_of(self, tp: TopicPartition) -> TopicPartition:
        """
        The partition of `snapshots` whose commit has the count of a partition of `observations`.
        """
        return TopicPartition(self.hub.topic("snapshots"), tp.partition)

    def begin(
        self, tp: TopicPartition, owned: Owned, found: Committed, before: Owned | None
    ) -> None:
        """
        Begin a tenure; in this process it may follow `before`. If earlier tenures ended uncleanly,
        its records are tried in a fork.

        It is counted if records wait. A tenure that is only opened again was counted already.
        """
        again = (
            before is not None
            and before.begun > 0
            and (before.opened, before.begun) == (found.position, found.begun)
        )
        owned.failed, owned.opened, owned.careful_until = found.failed, found.position, -1
        owned.begun = found.begun + (found.position < found.end and not again)
        if owned.begun > TRIES:
            on_poison = self.hub.settings.worker.on_poison
            log.error(suspicion(tp, found.position, owned.begun - 1, on_poison))
            owned.careful_until = (
                found.position + CAREFUL_RECORDS if COPIES and on_poison == "skip" else -1
            )

    async def end(self, tenures: Mapping[TopicPartition, Owned]) -> None:
        """End tenures cleanly, so that those that have not advanced raise no suspicion."""
        still = {
            tp: owned
            for tp, owned in tenures.items()
            if owned.begun and owned.committed == owned.opened
        }
        for owned in still.values():
            owned.begun = 0
        await self.write(still)

    async def write(self, tenures: Mapping[TopicPartition, Owned]) -> None:
        """Write all counts in a commit, for the next owner."""
        if tenures:
            with suppress(Exception):
                async with asyncio.timeout(MARK_S):
                    await self.hub.source.commit(
                        {
                            self.mark_of(tp): (
                                max(o.note.snapshot, 0),
                                with_failures(str(o.opened), {}, o.begun),
                            )
                            for tp, o in tenures.items()
                        }
                    )


def begun_at(position: int, committed: tuple[int, str] | None) -> int:
    """
    How many tenures began at this position, by the commit on `snapshots`.

    >>> begun_at(40, (17, "40 opened=2")), begun_at(41, (17, "40 opened=2")), begun_at(0, None)
    (2, 0, 0)
    """
    place, _, begun = parted(committed[1] if committed else "")
    return begun if place == str(position) else 0
