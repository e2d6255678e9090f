"""
How far the other workers of the group have read the sources that are theirs.

Rule of the file: nobody tells anybody anything for this alone. Each worker keeps beside the offsets
it commits up to which event time it has read (`alignment.noted`), and asks for those of the
partitions it does not own; a worker that owns all asks nothing.
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
"""Between two questions; and between two looks whether something is read here, before the first."""


def elsewhere(source: Source, topics: Collection[str]) -> list[TopicPartition]:
    """Partitions of these topics that are not assigned to this worker."""
    assigned = source.assigned()
    every = (TopicPartition(t, p) for t in sorted(topics) for p in range(source.partitions(t)))
    return [tp for tp in every if tp not in assigned]


async def ask(source: Source, topics: Collection[str]) -> dict[TopicPartition, Told]:
    """What is committed of the partitions that others own, and whether there is more of them."""
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
    """Ask for ever, while something is read here."""
    while alignment.skew_ms is not None:
        if not alignment.places:
            await asyncio.sleep(OPENING_S)
            continue
        with suppress(KafkaError):  # the broker is away; it is asked again
            alignment.tell(await ask(hub.source, topics))
        await asyncio.sleep(OTHERS_S)
