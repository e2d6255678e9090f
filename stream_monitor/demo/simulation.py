"""
A simulated model server: a real model on invented customers, and a story of what goes wrong.

Rule of the file: everything follows from the arguments; no clock, no I/O. The model is River's. It
is trained on the clean start and never again, like a served model. So its accuracy falls because
the world changes, not because the demo says so. River is imported when a simulation is made.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from stream_monitor import client

MODEL = "credit-risk"
NUMERIC = (
    "age",
    "income",
    "amount",
    "tenure_months",
    "utilisation",
    "late_payments",
    "session_minutes",
)
CATEGORY, CATEGORIES, CATEGORY_SHARES = "channel", ("app", "web", "branch"), (0.5, 0.35, 0.15)
COUNTRIES, COUNTRY_SHARES = ("DE", "FR", "IT"), (0.5, 0.3, 0.2)
BROKEN = "tenure_months"
DRIFTING = "session_minutes"

# Centre and spread of each feature, its effect on the risk at first, and after the world has
# changed.
CENTRE = np.array([42.0, 3_200.0, 12_000.0, 60.0, 0.45, 1.5, 8.0])
SPREAD = np.array([12.0, 900.0, 5_000.0, 30.0, 0.2, 1.2, 3.0])
RISK = np.array([-0.6, -2.4, 2.2, -0.8, 2.6, 2.0, 0.0])
RISK_CHANGED = np.array([-0.6, 2.0, 2.2, -0.8, -1.6, 2.0, 0.0])
CHANNEL_RISK = {"app": 0.3, "web": 0.0, "branch": -0.6}

TRAINING_ROWS = 3_000
BLOCK_ROWS = 1_000
LABEL_DELAY_S = (1.5, 2.5)
FAILED_SHARE = 0.004
LATENCY_MEDIAN_MS = 4.0


class Step(NamedTuple):
    """One event, and when to send it, in seconds from the start."""

    kind: str
    value: bytes
    key: bytes
    due_s: float


class Chapter(NamedTuple):
    """A chapter of the story."""

    at_s: float
    name: str
    sentence: str


CHAPTERS = (
    Chapter(0.0, "clean", "A new model serves; stream-monitor learns what is normal."),
    Chapter(
        0.35,
        "concept",
        "The world changes: what makes a loan go bad is no longer what the model learnt.",
    ),
    Chapter(0.55, "feature", f"An app update makes `{DRIFTING}` longer: an input drifts."),
    Chapter(0.7, "broken", f"A broken release sends `{BROKEN}` as null or as text."),
    Chapter(0.85, "repaired", f"`{BROKEN}` is repaired; the rest stays."),
)


def chapter_at(chapters: tuple[Chapter, ...], at_s: float) -> Chapter:
    """The chapter at a time."""
    return max(chapter for chapter in chapters if chapter.at_s <= max(at_s, 0.0))


class Block(NamedTuple):
    """Random draws for `BLOCK_ROWS` customers."""

    normal: np.ndarray
    channel: np.ndarray
    country: np.ndarray
    uniform: np.ndarray


class Simulation:
    """
    Predictions of a credit model and, about two seconds later, the outcome of the loans.

    Parameters
    ----------
    seed : int
        The same arguments give the same events, byte for byte.
    rate_per_s : float
        Predictions a second.
    story_s : float
        Length of the story; after it the last chapter continues.

    Examples
    --------
    >>> next(Simulation(seed=1, rate_per_s=100, story_s=60).steps(start_ms=1_700_000_000_000)).kind
    'predictions'
    """

    def __init__(self, *, seed: int = 0, rate_per_s: float = 200.0, story_s: float = 60.0) -> None:
        self.rate_per_s = rate_per_s
        self.chapters = tuple(chapter._replace(at_s=chapter.at_s * story_s) for chapter in CHAPTERS)
        self._starts_s = {chapter.name: chapter.at_s for chapter in self.chapters}
        self._seed = seed
        self._model = _train(np.random.default_rng([seed, 0]))

    def steps(self, start_ms: int) -> Iterator[Step]:
        """
        All events in the order in which they are due, without end.

        Parameters
        ----------
        start_ms : int
            Epoch time of the first event; it is also part of the ids, so that two runs do not share
            any.
        """
        labels: list[tuple[float, int, Step]] = []
        for number, (due_s, prediction, label_step) in enumerate(self._customers(start_ms)):
            while labels and labels[0][0] <= due_s:
                yield heapq.heappop(labels)[2]
            yield prediction
            if label_step is not None:
                heapq.heappush(labels, (label_step.due_s, number, label_step))

    def _customers(self, start_ms: int) -> Iterator[tuple[float, Step, Step | None]]:
        rng = np.random.default_rng([self._seed, 1])
        number = 0
        while True:
            block = _draw(rng, BLOCK_ROWS)
            for row in range(BLOCK_ROWS):
                due_s = number / self.rate_per_s
                yield (
                    due_s,
                    *self._customer(f"{start_ms:x}-{number}", start_ms, due_s, block, row),
                )
                number += 1

    def _customer(
        self, event_id: str, start_ms: int, due_s: float, block: Block, row: int
    ) -> tuple[Step, Step | None]:
        """One prediction and its label."""
        changed, drifted = due_s >= self._starts_s["concept"], due_s >= self._starts_s["feature"]
        broken = self._starts_s["broken"] <= due_s < self._starts_s["repaired"]
        failed_draw, latency_draw, truth_draw, delay_draw, broken_draw = block.uniform[row]
        standard = block.normal[row]
        channel, country = CATEGORIES[block.channel[row]], COUNTRIES[block.country[row]]
        features = _features(standard, channel)
        if drifted:
            features[DRIFTING] = round(features[DRIFTING] * 1.6 + 2.0, 2)
        if broken and broken_draw < 0.8:
            features[BROKEN] = None if broken_draw < 0.5 else "n/a"
        key, now_ms = event_id.encode(), start_ms + int(due_s * 1_000)
        about: dict[str, Any] = {
            "version": "1",
            "timestamp": now_ms,
            "features": features,
            "segments": {"country": country},
        }
        if failed_draw < FAILED_SHARE:
            return Step(
                "predictions",
                client.prediction(event_id, MODEL, status="error", **about),
                key,
                due_s,
            ), None
        score = float(self._model.predict_proba_one(_inputs(features))[True])
        latency_ms = round(LATENCY_MEDIAN_MS * float(np.exp(1.2 * (latency_draw - 0.5))), 3)
        prediction = client.prediction(
            event_id,
            MODEL,
            score=round(score, 6),
            prediction=int(score >= 0.5),
            latency_ms=latency_ms,
            **about,
        )
        label_s = due_s + LABEL_DELAY_S[0] + delay_draw * (LABEL_DELAY_S[1] - LABEL_DELAY_S[0])
        truth = int(truth_draw < _risk(standard, channel, RISK_CHANGED if changed else RISK))
        label = client.label(
            event_id, truth, model=MODEL, timestamp=start_ms + int(label_s * 1_000)
        )
        return Step("predictions", prediction, key, due_s), Step("labels", label, key, label_s)


def _draw(rng: np.random.Generator, rows: int) -> Block:
    return Block(
        rng.standard_normal((rows, len(NUMERIC))),
        rng.choice(len(CATEGORIES), rows, p=CATEGORY_SHARES),
        rng.choice(len(COUNTRIES), rows, p=COUNTRY_SHARES),
        rng.random((rows, 5)),
    )


def _features(standard: np.ndarray, channel: str) -> dict[str, Any]:
    """The features of a customer that the server sees."""
    values = np.maximum(CENTRE + SPREAD * standard, 0.0)
    features: dict[str, Any] = {
        name: round(float(value), 2) for name, value in zip(NUMERIC, values, strict=True)
    }
    features["age"], features["late_payments"] = (
        max(18, int(features["age"])),
        int(features["late_payments"]),
    )
    features[CATEGORY] = channel
    return features


def _risk(standard: np.ndarray, channel: str, risk: np.ndarray) -> float:
    """Probability that the loan goes bad."""
    return float(1.0 / (1.0 + np.exp(-(standard @ risk + CHANNEL_RISK[channel]))))


def _inputs(features: dict[str, Any]) -> dict[str, float]:
    """
    The input of the model: a value that it cannot use is replaced by the centre, as servers do.
    """
    inputs = {
        name: float(features[name]) if isinstance(features[name], (int, float)) else float(centre)
        for name, centre in zip(NUMERIC, CENTRE, strict=True)
    }
    inputs.update(
        {f"{CATEGORY}={category}": float(features[CATEGORY] == category) for category in CATEGORIES}
    )
    return inputs


def _train(rng: np.random.Generator) -> Any:
    """Train the model on customers of the clean start."""
    from river import linear_model, optim, preprocessing

    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(
        optimizer=optim.SGD(0.05)
    )
    block = _draw(rng, TRAINING_ROWS)
    for row in range(TRAINING_ROWS):
        channel = CATEGORIES[block.channel[row]]
        truth = bool(block.uniform[row, 2] < _risk(block.normal[row], channel, RISK))
        model.learn_one(_inputs(_features(block.normal[row], channel)), truth)
    return model
