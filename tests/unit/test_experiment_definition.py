"""Events of experiments that cannot work are refused with the key, the value and the way out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.errors import InputError
from stream_monitor.experiments.definition import changed_of, check_maturity, definition_of
from stream_monitor.offline.experiment_file import experiment_events
from stream_monitor.settings import CoreSettings

GOOD: dict[str, Any] = {
    "type": "experiment_started",
    "model": "m",
    "experiment": "x",
    "arms": ["control", "b"],
    "weights": {"control": 99.5, "b": 0.5},
    "primary": {"metric": "accuracy", "effect": 0.02, "goal": "not worse"},
    "guards": [{"metric": "latency_ms", "effect": 0.05}],
    "maturity": "10h",
    "duration": ["2d", "14d"],
    "steps": [1, 5, 25, 50],
    "somebody": "else's key",
}


def guard(**keys: Any) -> dict[str, Any]:
    return {"guards": [keys]}


def test_a_good_event_is_read_whole() -> None:
    found = definition_of(GOOD)
    assert found.weights == (9_950, 50)
    assert [(o.metric, o.sign, o.is_log, o.needs_label) for o in found.outcomes] == [
        ("accuracy", 1, False, True),
        ("latency_ms", -1, True, False),
    ]
    assert (found.maturity_ms, found.least_ms, found.steps) == (36_000_000, 172_800_000, 4)


def test_a_metric_may_have_a_sequence_and_races_with_names_of_their_own() -> None:
    guards = [
        {"metric": "latency_ms", "effect": 0.05},
        {"metric": "latency_ms", "above": 250},
        {"metric": "latency_ms", "above": 1000.5},
        {"metric": "violations", "effect": 0.01},
        {"metric": "violations", "race": True},
    ]
    found = definition_of({**GOOD, "guards": guards})
    assert [o.name for o in found.outcomes] == ["accuracy", "latency_ms", "violations"]
    names = ["latency_ms above 250", "latency_ms above 1000.5", "violations race"]
    assert [o.name for o in found.races] == names
    assert not any(o.is_log for o in found.races)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": ["a"]}, "`arms` must be 2 to 8"),
        ({"arms": ["a", "a"]}, "different names"),
        (
            {"arms": [{"name": "control", "version": "1"}, {"name": "b", "version": "1"}]},
            "different versions",
        ),
        ({"weights": {"control": 99.999, "b": 0.001}}, "whole hundredths of a percent"),
        ({"weights": {"control": 50, "b": 49}}, "add up to 100, not 99"),
        ({"weights": {"control": 50, "c": 50}}, "must be those of the arms"),
        ({"primary": {"metric": "accuracy", "effect": 0}}, "must be greater than 0, not 0"),
        ({"primary": {"metric": "accuracy", "effect": 2}}, "must be less than 1"),
        ({"primary": {"metric": "acuracy", "effect": 0.1}}, "Did you mean 'accuracy'"),
        ({"primary": {"metric": "latency", "effect": 0.1}}, "Did you mean 'latency_ms'"),
        ({"primary": {"metric": "accuracy", "effect": 0.1, "scale": "log"}}, "no logarithm"),
        ({"guards": [{"metric": "accuracy", "effect": 0.1}]}, "each metric once"),
        ({"maturity": "ten days"}, "`maturity` must be a duration such as 10d"),
        ({"duration": ["14d", "2d"]}, "'14d' is longer than '2d'"),
        ({"alpha": 0}, "`alpha` must be between 0 and 1"),
        ({"at": "yesterday"}, "`at` must be an RFC 3339 time"),
        ({"experiment": ""}, "`experiment` must have 1 to 128 characters"),
        ({"primary": None}, "Expected `object`"),
        ({"type": "stage"}, "`type` must be experiment_started"),
        (guard(metric="latency_ms"), "`effect` of latency_ms must be greater than 0, not 0"),
        (guard(metric="latency_ms", above=250, effect=0.1), "`above` and `effect` (0.1)"),
        (guard(metric="latency_ms", above=250, scale="log"), "has no `scale`; leave it out"),
        (guard(metric="score", above=0.9, below=0.1), "has `above` and `below`: one race has one"),
        (guard(metric="latency_ms", above=float("nan")), "`above` of latency_ms must be a number"),
        (guard(metric="latency_ms", race=True), "for a number give `above` or `below`"),
        (guard(metric="violations", above=0.5), 'it is 0 or 1: give `"race": true`'),
        (guard(metric="accuracy", race=True), "wrong answers are error_rate"),
        (guard(metric="error", race=True), "every experiment has the race of failed calls"),
        (guard(metric="error_rate", race=True) | {"maturity": 0}, "give one, such as 1d"),
        ({"window": "seven"}, "`window` must be a duration such as 10d"),
        ({"window": "7d", "unit": "event"}, "with `unit` event each call is one: leave it out"),
        ({"window": "14d"}, "are not shorter than the longest `duration` (14 d)"),
        ({"primary": {"metric": "score", "above": 0.9}}, "a race shows only that an arm is worse"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        definition_of({**GOOD, **changes})


def test_nobody_waits_longer_for_labels_than_predictions_do() -> None:
    with pytest.raises(InputError, match=r"`maturity` \(10 h\) is longer than labels.max_delay"):
        check_maturity(definition_of(GOOD), 3_600_000)


def test_a_change_needs_its_weights() -> None:
    with pytest.raises(InputError, match="experiment_changed needs"):
        changed_of({"model": "m", "experiment": "x"})


def test_a_file_has_one_event_a_list_or_lines_and_changes_have_their_time(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    change = {
        "type": "experiment_changed",
        "model": "m",
        "experiment": "x",
        "weights": {"control": 50, "b": 50},
        "at": "2025-10-09T08:53:20Z",
    }
    for text, n in (
        (json.dumps(GOOD, indent=2), 1),
        (json.dumps([GOOD, change]), 2),
        (json.dumps(GOOD) + "\n" + json.dumps(change) + "\n", 2),
    ):
        path.write_text(text)
        events = experiment_events(str(path), CoreSettings())
        assert [at for _, at in events] == [None, 1_760_000_000_000][:n]
    for text, told in (
        ("{", "is not a JSON object"),
        (json.dumps([change]), "was not started before"),
        (json.dumps([GOOD, {**change, "at": None}]), "event 2: experiment_changed needs `at`"),
        (json.dumps([GOOD, {**change, "type": "traffic"}]), "`type` must be one of"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            experiment_events(str(path), CoreSettings())
