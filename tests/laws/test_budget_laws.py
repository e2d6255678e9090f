"""
The budget of false alarms: what all versions of a model may have together is the budget of the
model, and what all models may have, on all partitions, is at most that of the fleet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.samples import Sample
from stream_monitor.settings import CoreSettings, Limits, ModelSettings

T0 = 1_760_000_000_000
CALLS = (("fraud", "1"), ("fraud", "2"), ("churn", "1"), ("price", "1"), ("price", "2"))


def records(partitions: int) -> dict[int, list[bytes]]:
    ingest = Ingest(partitions)
    values: list[bytes | None] = [
        json.dumps(
            {"event_id": str(i), "model": m, "version": v, "timestamp": T0, "score": 0.5}
        ).encode()
        for i, (m, v) in enumerate(CALLS)
    ]
    at = np.arange(len(values))
    assert not ingest.take("p@x/0", "predictions", values, at, np.full(len(values), T0))
    return ingest.flush(T0)


def allowed(settings: CoreSettings, partitions: int) -> dict[tuple[str, ...], float]:
    """False alarms a day by version, of a fleet on so many partitions."""
    found: dict[tuple[str, ...], float] = {}
    for partition, of in records(partitions).items():
        shard = Shard(partition, settings, partitions=partitions)
        for record in of:
            shard.fold(record, T0)
        for sample in shard.samples():
            if isinstance(sample, Sample) and sample.name == "model_alarm_budget_per_day":
                found[sample.labels] = sample.value
        for version in shard.versions:
            assert all(group.sharers is version.sharers for group in version.drifts)
    return found


def by_model(found: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    return {
        m: sum(v for (of, _), v in found.items() if of == m) for m in ("fraud", "churn", "price")
    }


def core(fleet: str | None, **models: ModelSettings) -> CoreSettings:
    return CoreSettings(limits=Limits(fleet_alarm_budget=fleet), models=dict(models))


@pytest.mark.parametrize("partitions", [1, 4])
def test_versions_share_the_budget_of_their_model(partitions: int) -> None:
    settings = core(None, churn=ModelSettings(alarm_budget="2/1d"))
    found = by_model(allowed(settings, partitions))
    assert found == pytest.approx({"fraud": 1 / 30, "churn": 2.0, "price": 1 / 30})


@pytest.mark.parametrize("partitions", [1, 4])
def test_models_share_the_budget_of_the_fleet(partitions: int) -> None:
    found = by_model(allowed(core("1/365d"), partitions))
    assert all(v > 0 for v in found.values())
    assert sum(found.values()) <= 1 / 365 * (1 + 1e-12)
    if partitions == 1:
        assert sum(found.values()) == pytest.approx(1 / 365)


def test_the_budget_of_a_model_holds_beside_that_of_the_fleet() -> None:
    found = by_model(allowed(core("1/1d", fraud=ModelSettings(alarm_budget="1/365d")), 1))
    assert found["fraud"] == pytest.approx(1 / 365)
    assert found["churn"] == pytest.approx(1 / 30)


def test_the_share_goes_on_after_a_restart() -> None:
    settings = core("1/365d")
    before = Shard(0, settings)
    for record in records(1)[0]:
        before.fold(record, T0)
    parts = {name: data or b"" for name, data in before.snapshot().items()}
    after = Shard.restore(0, settings, parts)
    assert [v.sharers() for v in after.versions] == [v.sharers() for v in before.versions]
