"""
Laws of the alerts on drift of features: what changed together is one alert, and a drift that stays
open hides no later one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_monitor.monitors.context import Context
from stream_monitor.monitors.drift_alerts import name_alerts
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Baseline, Limits, ModelSettings
from stream_monitor.times import HOUR_MS

SETTINGS = ModelSettings(baseline=Baseline(rows=1_000))
NAMES, ROWS, STEP_MS = ("counter", "sensor", "third"), 12_000, 1_000


def told(
    changes: dict[int, tuple[int, int]],
    size: dict[int, float] | None = None,
    again: dict[int, tuple[int, int]] | None = None,
    unseen: range = range(0),
) -> list[dict[str, list[str]]]:
    """
    By subject of the alert what it names, whenever that changes; columns shift for a while. Nobody
    looks while rows that are `unseen` come.
    """
    x = np.random.default_rng(3).normal(size=(3, ROWS))
    for column, (start, end) in [*changes.items(), *(again or {}).items()]:
        x[column, start:end] += (size or {}).get(column, 2.0)
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: 0.005)
    inputs.drift.days = 30.0
    context = Context("m", "1", SETTINGS)
    found: list[dict[str, list[str]]] = []
    for at in range(0, ROWS, 100):
        times = np.arange(at, at + 100, dtype=np.int64) * STEP_MS
        inputs.add(Rows(NAMES, x[:, at : at + 100].copy(), times, []))
        if (evidence := inputs.drift.evidence) is not None and at not in unseen:
            name_alerts([evidence])
            verdicts = list(drift_verdicts(context, [evidence], [inputs.profile]))
            assert all(bool(v.evidence["signals"]) != v.clear for v in verdicts)
            now: dict[str, list[str]] = {}
            for v in verdicts:
                contributors: Any = v.evidence["contributors"]
                now[v.key.subject] = [c["subject"] for c in contributors]
            if now and (not found or found[-1] != now):
                found.append(now)
    return found


HOUR = HOUR_MS // STEP_MS


def test_a_drift_that_stays_hides_no_later_one() -> None:
    always, later = (2_500, ROWS), 2_500 + HOUR + 2_000
    both = told({0: always, 1: (later, ROWS)})
    assert both == [
        {"__features__": ["counter"]},
        {"__features__": ["counter"], "sensor": ["sensor"]},
    ]


def test_what_changes_within_an_hour_is_one_alert() -> None:
    found = told({0: (2_500, ROWS), 1: (2_500, ROWS), 2: (4_000, ROWS)})
    assert set(found[-1]) == {"__features__"}
    assert sorted(found[-1]["__features__"]) == sorted(NAMES)


def test_each_alert_ends_with_its_own_drifts() -> None:
    late = 2_500 + HOUR + 1_000
    found = told({0: (2_500, 10_000), 1: (late, 8_500)})
    assert found[-3:] == [
        {"__features__": ["counter"], "sensor": ["sensor"]},
        {"__features__": ["counter"], "sensor": []},
        {"__features__": [], "sensor": []},
    ]


def test_a_drift_after_all_others_ended_is_that_of_the_group() -> None:
    found = told({0: (2_500, 9_500), 1: (10_500, ROWS)})
    assert found[-1]["__features__"] == ["sensor"]


def test_a_small_drift_is_no_alert_of_its_own_before_the_hours_are_known() -> None:
    later = 2_500 + HOUR + 1_000
    found = told({0: (2_500, ROWS), 1: (later, ROWS)}, size={1: 0.4})
    assert set(found[-1]) == {"__features__"}
    assert found[-1]["__features__"] == ["counter", "sensor"]


def test_a_feature_that_drifts_again_before_its_hours_are_known_returns_to_its_alert() -> None:
    first, again = (2_500, 4_000), (2_500 + HOUR + 2_000, ROWS)
    found = told({0: (2_500, ROWS), 1: first}, again={1: again})
    assert {k: sorted(v) for k, v in found[-1].items()} == {"__features__": ["counter", "sensor"]}
    assert {"__features__": ["counter"]} in found, "it was over in between"


def test_a_drift_that_ends_and_begins_again_before_anyone_looks_is_one() -> None:
    first, again = (2_500 + HOUR + 1_000, 8_000), (10_000, ROWS)
    unseen = range(first[1] - 200, ROWS - 100)
    found = told({0: (2_500, 8_000), 1: first}, again={1: again}, unseen=unseen)
    assert found[-2]["sensor"] == ["sensor"]
    assert found[-1] == {"__features__": [], "sensor": ["sensor"]}
