"""
What the topics say of the versions of models: stages, who gave them, and how they do live.

Rule of the file: it reads `lifecycle`, `alerts` and `history`, and stores nothing. Without a broker
there is no board, and commands say so.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from stream_monitor.errors import BrokerError
from stream_monitor.lifecycle.fold import Fold
from stream_monitor.lifecycle.observed import Observed
from stream_monitor.times import DAY_MS

if TYPE_CHECKING:
    from stream_monitor.lifecycle.actions import Firing
    from stream_monitor.settings import Settings

LIVE_MS = DAY_MS


class Turn(NamedTuple):
    """A version that came to another stage."""

    version: str
    stage: str
    at: str
    by: str
    reason: str


class ModelsBoard:
    """The models of a cluster, after the records that were taken."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.fold, self.observed = Fold(), Observed(lambda: now_ms)
        self.turns: dict[str, list[Turn]] = {}
        """By model, the oldest first."""

    def take(self, topic: str, value: bytes | None, offset: int | None = None) -> None:
        """A record of one of the three topics."""
        self.observed.take(topic, value)
        if topic != "lifecycle":
            return
        before = {name: m.stage for name, m in self.fold.models.items()}
        self.fold.take(value, offset)
        for name, m in self.fold.models.items():
            was, now = before.get(name), m.stage
            if now is None or now is was:
                continue
            old = was.stages if was is not None else {}
            self.turns.setdefault(name, []).extend(
                Turn(version, stage, now.at, now.by, now.reason)
                for version, stage in now.stages.items()
                if old.get(version) != stage
            )

    def turns_of(self, model: str, version: str) -> list[Turn]:
        """How a version came to its stage, the oldest first."""
        return [t for t in self.turns.get(model, []) if t.version == version]

    def live(self, model: str, version: str) -> dict[str, float]:
        """Means of its metrics in the last 24 hours, and `labels`."""
        return self.observed.metrics(model, version, self.now_ms - LIVE_MS, self.now_ms)

    def firing(self, model: str, version: str) -> list[Firing]:
        """Alerts on it that fire now."""
        return [a for a in self.observed.firing(model) if a.version == version]


def read_board(settings: Settings) -> ModelsBoard:
    """
    Read the topics; one that does not exist is empty.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or refuses.
    """
    from stream_monitor.kafka.records import TopicReader

    async def read() -> ModelsBoard:
        board = ModelsBoard(time.time_ns() // 1_000_000)
        async with TopicReader(settings, ["lifecycle", "alerts", "history"]) as records:
            async for record in records.whole():
                board.take(record.topic, record.value, record.offset)
        return board

    return asyncio.run(read())


def board_or_note(settings: Settings, *, offline: bool) -> tuple[ModelsBoard | None, str]:
    """The board, or why there is none."""
    if offline:
        return None, "Kafka was not asked (--offline)"
    try:
        return read_board(settings), ""
    except BrokerError as e:
        return None, f"stages and live metrics are unknown: {e}"
