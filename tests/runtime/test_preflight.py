"""What ends the start of a worker, and what does not."""

from __future__ import annotations

from typing import Any, Self

import pytest

from stream_monitor.errors import BrokerError
from stream_monitor.findings import Finding
from stream_monitor.runtime import preflight
from stream_monitor.settings import Settings


class FakeCluster:
    def __init__(self, *_: Any) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def topics(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the checks of access answer."""
    answers: list[Any] = []

    async def permissions(_: Any) -> list[Finding]:
        for each in answers:
            if isinstance(each, Exception):
                raise each
        return answers

    async def transactions(_: Any) -> list[Finding]:
        return []

    monkeypatch.setattr(preflight, "Cluster", FakeCluster)
    monkeypatch.setattr(preflight, "permissions", permissions)
    monkeypatch.setattr(preflight, "transactions", transactions)
    return answers


async def test_everything_that_is_missing_is_told_at_once(found: list[Any]) -> None:
    found += [
        Finding("permissions", "fail", "topic alerts: Write not allowed", "allow it"),
        Finding("permissions", "warn", "odd"),
        Finding("transactions", "fail", "no", "allow that"),
    ]
    with pytest.raises(
        BrokerError,
        match=r"^missing access: topic alerts: Write not allowed \(allow it\); no \(allow that\)$",
    ):
        await preflight.demand_access(Settings())


@pytest.mark.parametrize(
    "slow",
    [
        TimeoutError(),
        BrokerError("group g: GroupCoordinatorNotAvailable"),
        Finding(
            "transactions",
            "fail",
            "no coordinator for g.observations.0: GroupCoordinatorNotAvailable",
            "allow it",
        ),
    ],
)
async def test_a_coordinator_that_is_not_there_yet_is_no_lack_of_access(
    found: list[Any], slow: Any
) -> None:
    found.append(slow)
    await preflight.demand_access(Settings())
