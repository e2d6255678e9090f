"""
The short form of `bench/chaos.py`: faults at several workers on a Kafka of its own, two readers, no
difference.

`docs/reliability.md` tells how to run the long one.
"""

from __future__ import annotations

import json

import pytest

from bench import chaos

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_counted_twice(kafka):
    options = chaos.parser().parse_args(
        ["--seed", "1", "--steals", "1", "--events", "30000", "--minutes", "1"]
    )
    report = chaos.run(options)
    print(json.dumps(report, indent=1))
    assert report["differences"] == []
    assert (
        report["alerts lost"],
        report["alerts twice"],
        report["events lost"],
        report["events counted twice"],
    ) == (0, 0, 0, 0)
    assert report["events"] == 30_000
    assert report["faults"]["zombies fenced"] >= 1
    assert report["faults"]["kill -9"] >= 4
    # Enough for losses to show. How many there are depends on when the faults fall.
    assert report["alert transitions"] > 50
    assert report["rebalances"] > 5
