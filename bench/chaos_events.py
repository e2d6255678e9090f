"""
What the chaos run sends, and what must come of it.

Rule of the file: events are a function of the seed; the oracle knows the input alone (plain Python,
one event at a time) and imports nothing of stream_monitor.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

WINDOW = 100
"""Labelled rows of the window `last_100`, by which alerts are judged."""
PHASE = 120
"""
Predictions of a model version between good and bad times: each change fires or resolves alerts.
"""
Key = tuple[str, str]


class Event(NamedTuple):
    topic: str
    value: dict[str, Any]


def stream(seed: int, models: int, start_ms: int, *, phase: int = PHASE) -> Iterator[Event]:
    """
    Predictions, and their labels later (some before, some very late, corrected, repeated, or
    never), without end.

    A third of the labels names no model, a third the model, a third the version too. One prediction
    in twenty is made by both versions under one id.
    """
    rnd = random.Random(seed)
    waiting: list[tuple[int, int, Event]] = []
    numbers = itertools.count()
    made: dict[Key, int] = defaultdict(int)

    def later(delay: int, event: Event) -> None:
        heapq.heappush(waiting, (i + delay, next(numbers), event))

    for i in itertools.count():
        while waiting and waiting[0][0] <= i:
            yield heapq.heappop(waiting)[2]
        m = rnd.randrange(models)
        model, identity, at = f"model-{m:02}", f"{seed}-{i}", start_ms + i
        versions = ["1", "2"] if rnd.random() < 0.05 else ["1" if rnd.random() < 0.6 else "2"]
        k = made[model, versions[0]]
        bad = k // phase % 2 == 1
        outcome, label, wrong_label = _outcome(rnd, m % 6, bad)
        for version in versions:
            made[model, version] += 1
            event = {
                "event_id": identity,
                "model": model,
                "version": version,
                "timestamp": at,
                **outcome,
                "latency_ms": round(rnd.expovariate(0.1), 3),
            }
            event["features"] = {
                "a": rnd.gauss(2.0 * (k // 1000 % 2), 1),
                "b": rnd.gauss(5, 2),
                "c": rnd.choice(["x", "y", "z"]),
                "d": None if rnd.random() < 0.05 else rnd.random(),
            }
            later(rnd.randrange(50), Event("predictions", event))
            if rnd.random() < 0.02:
                later(rnd.randrange(3_000), Event("predictions", event))
        if rnd.random() < 0.06:
            continue
        scope = rnd.choice([{}, {"model": model}, {"model": model, "version": versions[0]}])
        told = {"event_id": identity, **scope, "label": label, "timestamp": at + 1_000}
        delay = 20_000 if rnd.random() < 0.02 else rnd.randrange(600)
        later(delay, Event("labels", told))
        chance = rnd.random()
        if chance < 0.02:
            later(rnd.randrange(5_000), Event("labels", told))
        elif chance < 0.05:
            later(
                rnd.randrange(5_000),
                Event("labels", told | {"label": wrong_label, "timestamp": at + 2_000}),
            )


def _outcome(rnd: random.Random, kind: int, bad: bool) -> tuple[dict[str, Any], Any, Any]:
    """
    Prediction and score, the true label, and another that a correction brings.

    Two thirds of the models are binary, a sixth each multiclass and regression.
    """
    wrong = rnd.random() < (0.45 if bad else 0.04)
    if kind < 4:
        score = rnd.random()
        predicted = int(score > 0.5)
        return {"prediction": predicted, "score": score}, predicted ^ wrong, predicted ^ wrong ^ 1
    if kind == 4:
        predicted, other, third = rnd.sample(["cat", "cow", "dog"], 3)
        return {"prediction": predicted}, other if wrong else predicted, third
    value = rnd.gauss(10, 3)
    truth = value + rnd.gauss(0, 4 if bad else 1)
    return {"prediction": value}, truth, truth + 1


class Oracle:
    """What /metrics must show at the end, from the events that were sent."""

    def __init__(self, window: int = WINDOW) -> None:
        self.window = window
        self.predictions: dict[tuple[str, str, str], tuple[int, Any]] = {}
        self.labels: dict[str, list[tuple[int, str | None, str | None, Any]]] = defaultdict(list)
        self.events = self.repeated = self.corrections = self.without_model = 0

    def take(self, event: Event) -> None:
        """One event that was sent."""
        self.events += 1
        v = event.value
        if event.topic == "predictions":
            key = v["model"], v["version"], v["event_id"]
            self.repeated += key in self.predictions
            self.predictions[key] = v["timestamp"], v["prediction"]
            return
        self.without_model += "model" not in v
        known = self.labels[v["event_id"]]
        self.corrections += any(v["timestamp"] != k[0] for k in known)
        known.append((v["timestamp"], v.get("model"), v.get("version"), v["label"]))

    def expected(self) -> dict[Key, dict[str, float]]:
        """
        By model and version: `predictions`, `labels`, and metrics as `METRIC/WINDOW`; what is
        undefined is absent.

        The label with the greatest timestamp counts; `last_WINDOW` has the labelled predictions
        with the greatest timestamps; `1h` has all of them, since the run's event times span less.
        """
        totals: dict[Key, int] = defaultdict(int)
        pairs: dict[Key, list[tuple[int, Any, Any]]] = defaultdict(list)
        for (model, version, identity), (at, predicted) in self.predictions.items():
            totals[model, version] += 1
            fitting = [
                k
                for k in self.labels.get(identity, ())
                if k[1] in (None, model) and k[2] in (None, version)
            ]
            if fitting:
                pairs[model, version].append((at, predicted, max(fitting, key=lambda k: k[0])[3]))
        out = {}
        for key, n in totals.items():
            rows = sorted(pairs[key], key=lambda row: row[0])
            out[key] = {"predictions": float(n), "labels": float(len(rows))}
            for window, part in ((f"last_{self.window}", rows[-self.window :]), ("1h", rows)):
                out[key] |= {
                    f"{metric}/{window}": value for metric, value in _metrics(part).items()
                }
        return out


def _metrics(rows: list[tuple[int, Any, Any]]) -> dict[str, float]:
    if not rows:
        return {}
    n, found = len(rows), {"window_labels": float(len(rows))}
    if isinstance(rows[0][1], float):
        errors = [predicted - actual for _, predicted, actual in rows]
        return found | {
            "mae": sum(map(abs, errors)) / n,
            "rmse": (sum(e * e for e in errors) / n) ** 0.5,
            "bias": sum(errors) / n,
        }
    found["accuracy"] = sum(predicted == actual for _, predicted, actual in rows) / n
    classes = [1] if isinstance(rows[0][1], int) else sorted({actual for _, _, actual in rows})
    share = {c: sum(actual == c for _, _, actual in rows) / n for c in classes}
    hits = {c: sum(predicted == actual == c for _, predicted, actual in rows) for c in classes}
    said, were = (
        Counter(predicted for _, predicted, _ in rows),
        Counter(actual for _, _, actual in rows),
    )
    for name, of in (("precision", said), ("recall", were)):
        if len(classes) > 1:  # averages of several classes are weighted by support
            found[name] = sum(share[c] * hits[c] / of[c] for c in classes if of[c])
        elif of[1]:
            found[name] = hits[1] / of[1]
    return found
