"""
The story of the demo happens in the data: a clean start, then a model that is no longer right, a
feature that drifts, a field that breaks.
"""

from __future__ import annotations

import json
from itertools import islice, takewhile

import pytest

from stream_monitor.demo.simulation import BROKEN, DRIFTING, MODEL, Simulation, chapter_at

STORY_S, RATE, START_MS = 40.0, 100.0, 1_700_000_000_000


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(seed=3, rate_per_s=RATE, story_s=STORY_S)


@pytest.fixture(scope="module")
def steps(simulation):
    return list(takewhile(lambda step: step.due_s < STORY_S, simulation.steps(START_MS)))


def between(steps, simulation, first: str, then: str, kind: str = "predictions") -> list[dict]:
    starts_s = {chapter.name: chapter.at_s for chapter in simulation.chapters}
    return [
        json.loads(step.value)
        for step in steps
        if step.kind == kind and starts_s[first] <= step.due_s < starts_s[then]
    ]


def test_the_same_arguments_give_the_same_bytes_and_other_seeds_do_not(simulation, steps):
    again = Simulation(seed=3, rate_per_s=RATE, story_s=STORY_S)
    assert list(islice(again.steps(START_MS), 500)) == steps[:500]
    assert (
        list(islice(Simulation(seed=4, rate_per_s=RATE, story_s=STORY_S).steps(START_MS), 5))
        != steps[:5]
    )


def test_events_are_due_in_order_at_the_rate_with_their_labels_about_two_seconds_later(steps):
    assert [step.due_s for step in steps] == sorted(step.due_s for step in steps)
    predictions = {step.key: step for step in steps if step.kind == "predictions"}
    assert len(predictions) == RATE * STORY_S
    delays_s = [step.due_s - predictions[step.key].due_s for step in steps if step.kind == "labels"]
    assert 1.5 <= min(delays_s) <= max(delays_s) <= 2.5
    assert all(
        json.loads(step.value)["timestamp"] == START_MS + int(step.due_s * 1_000)
        for step in steps[:200]
    )


def accuracy(steps, predictions: list[dict]) -> float:
    truth = {
        step.key.decode(): json.loads(step.value)["label"]
        for step in steps
        if step.kind == "labels"
    }
    right = [
        event["prediction"] == truth[event["event_id"]]
        for event in predictions
        if event["event_id"] in truth
    ]
    return sum(right) / len(right)


def test_the_model_is_good_at_first_and_no_longer_when_the_world_has_changed(simulation, steps):
    assert accuracy(steps, between(steps, simulation, "clean", "concept")) > 0.85
    assert accuracy(steps, between(steps, simulation, "concept", "feature")) < 0.75


def test_one_feature_drifts_and_one_field_breaks_and_is_repaired(simulation, steps):
    def mean(events, feature):
        values = [event["features"][feature] for event in events]
        return sum(values) / len(values)

    def usable(events):
        return sum(isinstance(event["features"][BROKEN], float) for event in events) / len(events)

    before, after = (
        between(steps, simulation, "concept", "feature"),
        between(steps, simulation, "feature", "broken"),
    )
    assert mean(after, DRIFTING) > 1.5 * mean(before, DRIFTING)
    assert abs(mean(after, "income") / mean(before, "income") - 1) < 0.1
    broken = between(steps, simulation, "broken", "repaired")
    assert (usable(after), usable(broken) < 0.3) == (1.0, True)
    assert {type(event["features"][BROKEN]) for event in broken} == {float, str, type(None)}
    last_s = simulation.chapters[-1].at_s
    assert (
        usable(
            [
                json.loads(step.value)
                for step in steps
                if step.kind == "predictions" and step.due_s >= last_s
            ]
        )
        == 1.0
    )


def test_events_are_those_of_a_model_server(steps):
    event = json.loads(steps[0].value)
    assert event["model"] == MODEL
    assert event["version"] == "1"
    assert len(event["features"]) == 8
    assert isinstance(event["features"]["channel"], str)
    assert 0 <= event["score"] <= 1
    assert event["latency_ms"] > 0
    assert set(event["segments"]) == {"country"}
    statuses = [
        json.loads(step.value).get("status", "ok") for step in steps if step.kind == "predictions"
    ]
    assert 0 < statuses.count("error") < len(statuses) * 0.02


def test_the_chapter_of_a_time(simulation):
    assert [chapter_at(simulation.chapters, at_s).name for at_s in (-1, 0, 13.9, 14.1, 1_000)] == [
        "clean",
        "clean",
        "clean",
        "concept",
        "repaired",
    ]
