"""
The product without one of its rules, each of which a simulation must notice.

Rule of the file: a mutation takes away one rule and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import numpy as np

from stream_monitor import ingest
from stream_monitor.kafka.deliveries import Fetched
from stream_monitor.outcomes import Outcomes
from stream_monitor.stages.evaluate_stage import EvaluateStage
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage
from tests.simulation.broker import Broker, Coordinated, Entry
from tests.simulation.process import DiedError


async def _deliver_anything(hub: Hub, stage: Any, fetched: Fetched) -> None:
    if (
        hub.source.flowing()
        and fetched.tp not in hub._reopening
        and stage.position(fetched.tp) >= 0
    ):
        await stage.next(fetched)


async def _send_all_at_once(stage: IngestStage, target: int, values: list[bytes]) -> None:
    topic = stage.hub.topic("observations")
    await asyncio.gather(
        *[await stage._producer.send(topic, value, partition=target) for value in values]
    )


async def _send_and_go_on(stage: IngestStage, target: int, values: list[bytes]) -> None:
    for value in values:
        with suppress(Exception):
            await stage._producer.send_and_wait(
                stage.hub.topic("observations"), value, partition=target
            )


_send = IngestStage._send


async def _commit_what_is_not_sent(stage: IngestStage) -> None:
    for reading in stage.readings.values():
        reading.acknowledged = reading.read
    async with stage._lock:
        await stage._commit()
    await _send(stage)


_calls = itertools.count()


def _wandering(model: str, targets: int) -> int:
    return (len(model) + next(_calls) // 5) % targets


def _nothing_is_seen(outcomes: Outcomes, observations: Any) -> Any:
    return np.ones(len(observations.rows), bool)


def _no_fence(broker: Broker, name: str) -> int:
    broker.transactional.setdefault(name, Coordinated())
    return broker.transactional[name].epoch


def _uncommitted(broker: Broker, tp: Any, start: int, limit: int) -> tuple[list[Entry], int]:
    found = [e for e in broker.logs[tp] if e.offset >= start and not e.control][:limit]
    return found, found[-1].offset + 1 if found else max(start, broker.end(tp))


_checkpoint = EvaluateStage._checkpoint


async def _keep_what_is_in_doubt(
    stage: EvaluateStage, tp: Any, owned: Any, *, closing: bool = False
) -> None:
    with suppress(DiedError):
        await _checkpoint(stage, tp, owned, closing=closing)
    owned.broken = False


async def _no_watch(hub: Hub) -> None:
    """Holes show only when the next batch comes."""


WITHOUT: dict[str, Callable[[], Any]] = {
    "1 noticing holes": lambda: patch.object(Hub, "deliver", _deliver_anything),
    "2 one record in flight": lambda: patch.object(IngestStage, "_send_to", _send_all_at_once),
    "3 stopping at a failed send": lambda: patch.object(IngestStage, "_send_to", _send_and_go_on),
    "4 committing what is acknowledged": lambda: patch.object(
        IngestStage, "_send", _commit_what_is_not_sent
    ),
    "5 one partition for a model": lambda: patch.object(ingest, "home", _wandering),
    "dropping what was seen": lambda: patch.object(Outcomes, "unseen", _nothing_is_seen),
    "fencing": lambda: patch.object(Broker, "init", _no_fence),
    "reading what is committed only": lambda: patch.object(Broker, "read", _uncommitted),
    "throwing away what is in doubt": lambda: patch.object(
        EvaluateStage, "_checkpoint", _keep_what_is_in_doubt
    ),
    "a look for holes where nothing more comes": lambda: patch.object(
        Hub, "_watch_holes", _no_watch
    ),
}
