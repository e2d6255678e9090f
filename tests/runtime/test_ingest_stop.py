"""A worker that is told to stop while a tick is under way ends cleanly."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream_monitor.settings import Settings
from stream_monitor.stages import ingest_stage
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.ingest_stage import IngestStage


class FakeProducer:
    """Acknowledges when it is told to."""

    def __init__(self) -> None:
        self.acknowledge = asyncio.Event()
        self.sent = self.acknowledged = 0
        self.stopped_after: int | None = None

    async def send_and_wait(self, *_: Any, **__: Any) -> Any:
        assert self.stopped_after is None, "sent after the end"
        self.sent += 1
        await self.acknowledge.wait()
        self.acknowledged += 1
        return SimpleNamespace(timestamp_type=0)

    async def stop(self) -> None:
        self.stopped_after = self.acknowledged


@pytest.mark.virtual_time
async def test_a_tick_under_way_is_waited_for_and_none_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def died(code: int, why: str) -> None:
        raise AssertionError(f"exit {code}: {why}")

    monkeypatch.setattr(ingest_stage, "die", died)

    stage = IngestStage(Hub(Settings()), 4)
    producer = stage._producer = FakeProducer()
    ticking = asyncio.ensure_future(stage._tick())
    await asyncio.sleep(60)
    assert producer.sent == 4
    stopping = asyncio.ensure_future(stage.stop())
    await asyncio.sleep(60)
    assert not stopping.done()
    late = asyncio.ensure_future(stage._tick())  # the pump does not know yet
    producer.acknowledge.set()
    await asyncio.gather(ticking, stopping, late)
    assert producer.stopped_after == producer.sent == 4
