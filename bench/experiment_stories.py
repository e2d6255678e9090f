"""
Seeded stories of whole experiments, for `experiments.py`: calls, labels that come later, and
changes of weights, with their times.

Rule of the file: a story is columns; nothing here knows how it will be judged. A user keeps a point
between 0 and 1, and is in an arm as long as the arm's range has the point, as with the router. Arms
are alike in everything unless the name of the story says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from experiment_streams import Float, Int, Random

START_MS, HOUR_MS, DAY_MS = 1_760_000_000_000, 3_600_000, 86_400_000
KEEP_DAYS = 30
"""Labels that would come later never come."""


class Calls(NamedTuple):
    """Calls, by their times."""

    time_ms: Int
    unit: Int
    """Numbers from 0 on."""
    arm: Int
    failed: np.ndarray
    latency_ms: Float
    prediction: Int


class Labels(NamedTuple):
    """Labels, by their times; a call may have several."""

    time_ms: Int
    call: Int
    """Which call."""
    label: Int


class Story(NamedTuple):
    """What comes on the topics."""

    events: list[tuple[int, dict[str, Any]]]
    """Events of the experiment, with their times; the first one starts it."""
    calls: Calls
    labels: Labels
    flush_ms: int
    """Log time between two looks."""


Stories = Callable[[Random], Story]
Weights = tuple[tuple[float, tuple[float, ...]], ...]
"""Day of each change, and the weights in percent from then on; the first is of day 0."""
EVEN: Weights = ((0, (50, 50)),)
RAMP: Weights = ((0, (95, 5)), (7, (50, 50)))
UP: Weights = ((0, (99, 1)), (2, (95, 5)), (4, (75, 25)), (6, (50, 50)))
ACCURACY = {"metric": "accuracy", "effect": 0.02}
GUARDS = [{"metric": "error", "effect": 0.005}, {"metric": "latency_ms", "effect": 0.05}]


def _events(weights: Weights, **given: Any) -> list[tuple[int, dict[str, Any]]]:
    names = ["control", "b", "c"][: len(weights[0][1])]
    about = {"schema": 1, "model": "m", "experiment": "x"}
    started = {
        "type": "experiment_started",
        "arms": names,
        "primary": ACCURACY,
        "duration": ["0s", "1000d"],
        **given,
    }
    changed = {"type": "experiment_changed"}
    return [
        (
            START_MS + int(day * DAY_MS),
            about | (changed if i else started) | {"weights": dict(zip(names, of, strict=True))},
        )
        for i, (day, of) in enumerate(weights)
    ]


def _arms(point: Float, day: Float, weights: Weights) -> Int:
    """The arm of each call, by the point of its user and the weights of its day."""
    arm = np.empty(len(day), np.int64)
    for start, of in weights:
        # the control has the upper end, so that an arm that grows keeps its users
        ends = np.cumsum(of[1:]) / 100
        place = np.searchsorted(ends, point, side="right")
        arm = np.where(day >= start, np.where(place == len(ends), 0, place + 1), arm)
    return arm


def _users(rng: Random, users: int, each: int, days: float) -> tuple[Float, Int, Float]:
    """Day of each call in their order, its user, and the points of the users."""
    day = np.sort(rng.uniform(0, days, users * each))
    unit = rng.permutation(np.repeat(np.arange(users), each))
    return day, unit, rng.random(users)


def _ms(day: Float) -> Int:
    return START_MS + 1 + (day * DAY_MS).astype(np.int64)


def _labels(day: Float, call: Int, label: Int, delay: Float) -> Labels:
    """Labels in the order of their times, those that come at all."""
    came = day[call] + delay
    kept = np.flatnonzero(delay < KEEP_DAYS)
    order = kept[np.argsort(came[kept], kind="stable")]
    return Labels(_ms(came[order]), call[order], label[order])


def _right(rng: Random, label: Int, chance: Float) -> Int:
    """Answers that are right with these chances."""
    return np.where(rng.random(len(label)) < chance, label, 1 - label)


def delayed(
    weights: Weights = EVEN,
    maturity: str = "0s",
    *,
    sooner: bool = False,
    users: int = 4_000,
    days: float = 30,
) -> Stories:
    """
    Labels whose delay depends on the class: those of positives (20 %, right in 60 %) come after
    five days on average, the others (right in 95 %) after half a day.

    `sooner`: positives of arm b are labelled after half a day too, because somebody looks at them.
    """

    def story(rng: Random) -> Story:
        day, unit, point = _users(rng, users, 5, days)
        n = len(day)
        arm = _arms(point[unit], day, weights)
        label = (rng.random(n) < 0.2).astype(np.int64)
        prediction = _right(rng, label, np.where(label == 1, 0.6, 0.95))
        mean = np.where(label == 1, np.where(sooner & (arm == 1), 0.5, 5.0), 0.5)
        calls = Calls(_ms(day), unit, arm, np.zeros(n, bool), np.full(n, np.nan), prediction)
        labels = _labels(day, np.arange(n), label, rng.exponential(mean))
        return Story(_events(weights, maturity=maturity), calls, labels, 12 * HOUR_MS)

    return story


def falling(weights: Weights = RAMP, users: int = 6_000) -> Stories:
    """All arms are right in 92 % of their calls, and in 88 % from day 7 on; labels come at once."""

    def story(rng: Random) -> Story:
        day, unit, point = _users(rng, users, 5, 14)
        n = len(day)
        label = (rng.random(n) < 0.2).astype(np.int64)
        prediction = _right(rng, label, np.where(day < 7, 0.92, 0.88))
        arm = _arms(point[unit], day, weights)
        calls = Calls(_ms(day), unit, arm, np.zeros(n, bool), np.full(n, np.nan), prediction)
        labels = _labels(day, np.arange(n), label, np.full(n, 1e-7))
        return Story(_events(weights), calls, labels, 8 * HOUR_MS)

    return story


def corrected(weights: Weights = RAMP, maturity: str = "12h", users: int = 1_500) -> Stories:
    """Users who differ; 10 % of labels are wrong first, and corrected after a day on average."""

    def story(rng: Random) -> Story:
        day, unit, point = _users(rng, users, 20, 14)
        n = len(day)
        label = (rng.random(n) < 0.3).astype(np.int64)
        prediction = _right(rng, label, np.clip(rng.normal(0.8, 0.1, users), 0, 1)[unit])
        wrong = rng.random(n) < 0.1
        first = rng.exponential(0.2, n)
        again = np.flatnonzero(wrong)
        labels = _labels(
            day,
            np.append(np.arange(n), again),
            np.append(np.where(wrong, 1 - label, label), label[again]),
            np.append(first, first[again] + rng.exponential(1.0, len(again))),
        )
        arm = _arms(point[unit], day, weights)
        calls = Calls(_ms(day), unit, arm, np.zeros(n, bool), np.full(n, np.nan), prediction)
        return Story(_events(weights, maturity=maturity), calls, labels, 8 * HOUR_MS)

    return story


def whole(
    weights: Weights = EVEN,
    *,
    users: int = 1_500,
    each: int = 20,
    days: float = 14,
    fails: float = 0.005,
    times: float = 1.0,
    steps: tuple[float, ...] = (),
    flush_ms: int = 12 * HOUR_MS,
) -> Stories:
    """
    Accuracy, failed calls and latency together, of users who differ in all three.

    `each` is 1: every call is a unit of its own. Calls of arm b fail `times` as often.
    """

    def story(rng: Random) -> Story:
        day, unit, point = _users(rng, users, each, days)
        n = len(day)
        arm = _arms(point[unit], day, weights)
        spread = 0.1 if each > 1 else 0.0
        label = (rng.random(n) < 0.3).astype(np.int64)
        chance = np.clip(rng.normal(0.85, spread, users), 0, 1)[unit]
        own = rng.gamma(1.0, fails, users)[unit] if each > 1 else fails
        failed = rng.random(n) < own * np.where(arm == 1, times, 1.0)
        latency = np.exp(3 + 3 * rng.normal(0, spread, users)[unit] + rng.normal(0, 0.5, n))
        calls = Calls(_ms(day), unit, arm, failed, latency, _right(rng, label, chance))
        served = np.flatnonzero(~failed)
        labels = _labels(day, served, label[served], rng.exponential(0.2, len(served)))
        given: dict[str, Any] = {"guards": GUARDS, "maturity": "12h", "steps": list(steps)}
        given |= {} if each > 1 else {"unit": "event"}
        return Story(_events(weights, **given), calls, labels, flush_ms)

    return story
