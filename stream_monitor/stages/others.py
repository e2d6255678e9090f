"""
How far the other workers of the group have read the source partitions that they own.

Rule of the file: there are no extra messages for this. Each worker stores the event time up to
which it has read in the metadata of its commits (`alignment.noted`), and reads those of the
partitions that it does not own. A worker that owns all partitions reads nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream_monitor.stages.alignment import Alignment, Told, note_of
from stream_monitor.stages.hub import Hub, Source
from stream_monitor.stages.poison import parted

OTHERS_S, OPENING_S = 0.5, 0.05
"""
OTHERS_S: time between two requests. OPENING_S: time between two checks, before the first request,
whether this worker reads anything.
"""


def elsewhere(source: Source, topics: Collection[str]) -> list[TopicPartition]:
    """Partitions of these topics that are not assigned to this worker."""
    assigned = source.assigned()
    every = (TopicPartition(t, p) for t in sorted(topics) for p in range(source.partitions(t)))
    return [tp for tp in every if tp not in assigned]


async def ask(source: Source, topics: Collection[str]) -> dict[TopicPartition, Told]:
    """The committed positions of partitions that others own, and whether there are more records."""
    others = elsewhere(source, topics)
    if not others:
        return {}
    committed, bounds = await source.committed(others), await source.bounds(others)
    return {
        tp: Told(note_of(parted(at[1])[0])[1], at[0], at[0] < bounds[tp][1])
        for tp, at in committed.items()
        if at
    }


async def watch(alignment: Alignment, hub: Hub, topics: Collection[str]) -> None:
    """Ask again and again, while this worker reads something."""
    while alignment.skew_ms is not None:
        if not alignment.places:
            await asyncio.sleep(OPENING_S)
            continue
        with suppress(KafkaError):  # the broker is away; ask again later
            alignment.tell(await ask(hub.source, topics))
        await asyncio.sleep(OTHERS_S)
