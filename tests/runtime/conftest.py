"""A process that only says that it ends."""

from __future__ import annotations

import pytest

from stream_monitor.stages import (
    dead_letters,
    evaluate_stage,
    hub,
    ingest_stage,
    restoring,
    transport,
)
from tests.runtime.died import DiedError


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Codes and last lines of processes that would have ended."""
    said: list[str] = []

    def die(code: int, why: str) -> None:
        said.append(f"{code}: {why}")
        raise DiedError

    for module in (dead_letters, evaluate_stage, hub, ingest_stage, restoring, transport):
        monkeypatch.setattr(module, "die", die)
    return said
