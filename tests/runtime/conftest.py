"""A process that only says that it ends, and the clock of stages in virtual time."""

from __future__ import annotations

import pytest

from stream_monitor.stages import (
    dead_letters,
    evaluate_stage,
    hub,
    ingest_stage,
    owned,
    restoring,
    transport,
)
from tests.clock import Time
from tests.runtime.died import DiedError


@pytest.fixture(autouse=True)
def clock_of_the_stages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual time, folding takes what a test spends, and not what the machine needs for it."""
    if request.node.get_closest_marker("virtual_time"):
        for module in (evaluate_stage, owned):
            monkeypatch.setattr(module, "time", Time())


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
