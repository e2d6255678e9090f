"""
Seeded streams with one known change each, and streams without any, for `detection.py`.

Rule of the file: a stream is cells as the worker folds them, (features, rows). The 20 features of a
run all have the same change at the same row and independent noise, so that each is one trial:
detectors of a model watch each signal on its own, by a bound that counts all 20.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.cells import ABSENT_CELL, TEXT, boxed

Float = NDArray[np.float64]
Random = np.random.Generator
FEATURES, ROW_MS = 20, 86.4
HORIZON = 20_000
"""Rows after the change within which a detector may find it."""
LEVELS = np.array([0.3, 0.25, 0.1, 0.1, 0.1, 0.08, 0.05, 0.02])
TEXTS = [f"level{i}" for i in range(len(LEVELS) + 1)]
LEVEL_CELLS = np.array([boxed(TEXT, i) for i in range(len(TEXTS))])


def normal(rng: Random, shape: tuple[int, ...]) -> Float:
    return rng.normal(size=shape)


def laplace(rng: Random, shape: tuple[int, ...]) -> Float:
    return rng.laplace(scale=np.sqrt(0.5), size=shape)


def lognormal(rng: Random, shape: tuple[int, ...]) -> Float:
    """Mean 0 and standard deviation 1."""
    return (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def t3(rng: Random, shape: tuple[int, ...]) -> Float:
    return rng.standard_t(3, shape) / np.sqrt(3)


def zeros(rng: Random, shape: tuple[int, ...], share: float = 0.6) -> Float:
    return np.where(rng.random(shape) < share, 0.0, rng.lognormal(size=shape))


def flags(rng: Random, shape: tuple[int, ...], share: float = 0.01) -> Float:
    return (rng.random(shape) < share).astype(np.float64)


def categories(rng: Random, shape: tuple[int, ...], law: Float = LEVELS) -> Float:
    found = np.searchsorted(np.cumsum(law / law.sum()), rng.random(shape), side="right")
    return LEVEL_CELLS[np.minimum(found, len(law) - 1)]


def autoregressive(rho: float) -> Callable[[Random, tuple[int, ...]], Float]:
    """AR(1) with unit variance."""

    def made(rng: Random, shape: tuple[int, ...]) -> Float:
        noise = rng.normal(size=shape) * np.sqrt(1 - rho * rho)
        x = np.empty(shape)
        x[:, 0] = rng.normal(size=shape[0])
        for i in range(1, shape[1]):
            x[:, i] = rho * x[:, i - 1] + noise[:, i]
        return x

    return made


def season(rng: Random, shape: tuple[int, ...], day_rows: int) -> Float:
    """A sine of half a standard deviation a day; its height differs by a fifth between days."""
    rows = np.arange(shape[1])
    height = 0.5 * (1 + 0.2 * rng.normal(size=rows[-1] // day_rows + 1))[rows // day_rows]
    phase = rng.random((shape[0], 1))
    return rng.normal(size=shape) + height * np.sin(2 * np.pi * (rows / day_rows + phase))


def mixed(rng: Random, rows: int) -> Float:
    """20 features of the kinds that models have, without a change."""
    made = (
        *[normal] * 6,
        *[lognormal] * 3,
        *[t3] * 2,
        *[zeros] * 3,
        *[flags] * 2,
        *[categories] * 4,
    )
    x = np.concatenate([make(rng, (1, rows)) for make in made])
    x[:2][rng.random((2, rows)) < 0.02] = ABSENT_CELL
    return x


def replaced(
    before: Callable[[Random, tuple[int, ...]], Float],
    after: Callable[[Random, tuple[int, ...]], Float],
) -> Callable[[Random, int, int], Float]:
    """One law before the change and another one after it."""

    def made(rng: Random, rows: int, t0: int) -> Float:
        x = before(rng, (FEATURES, rows))
        x[:, t0:] = after(rng, (FEATURES, rows - t0))
        return x

    return made


def changed(
    before: Callable[[Random, tuple[int, ...]], Float],
    change: Callable[[Random, Float], Float],
) -> Callable[[Random, int, int], Float]:
    """The values after the change are a function of those that would have been."""

    def made(rng: Random, rows: int, t0: int) -> Float:
        x = before(rng, (FEATURES, rows))
        x[:, t0:] = change(rng, x[:, t0:])
        return x

    return made


def moved(by: float) -> Callable[[Random, Float], Float]:
    return lambda _, x: x + by


def _hole(rng: Random, x: Float) -> Float:
    x[rng.random(x.shape) < 0.05] = ABSENT_CELL
    return x


def _unseen(rng: Random, x: Float) -> Float:
    x[rng.random(x.shape) < 0.02] = LEVEL_CELLS[-1]
    return x


def more(at: int, share: float) -> Float:
    """The law of the levels when one has another share."""
    law = LEVELS * (1 - share) / (1 - LEVELS[at])
    law[at] = share
    return law


def scored(rng: Random, rows: int, t0: int) -> Float:
    """
    Scores and labels of four models, (models, 2, rows): log-odds move by the hour, chances are
    right. From `t0` on the scores are twice as far out, and every answer is the same.
    """
    hours = np.sin(2 * np.pi * np.arange(rows) * ROW_MS / 86_400_000)
    return _scored(rng, rows, t0, 4, 0.5 * hours)


def _scored(rng: Random, rows: int, t0: int, models: int, moved: Float | float = 0.0) -> Float:
    log_odds = 1.5 * rng.normal(size=(models, rows)) + moved
    label = (rng.random((models, rows)) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    log_odds[:, t0:] *= 2
    return np.stack([1 / (1 + np.exp(-log_odds)), label], axis=1)


def latencies(rng: Random, shape: tuple[int, ...]) -> Float:
    """In ms."""
    return 20 * rng.lognormal(sigma=0.5, size=shape)


def _longer_tail(rng: Random, x: Float) -> Float:
    """3 % instead of 1 % of the calls are beyond the quantile of 99 % (64 ms)."""
    slow = rng.random(x.shape) < 0.0202
    return np.where(slow, 64.0 * (1 + rng.random(x.shape)), x)


class Case(NamedTuple):
    """One change, and what to reach: delay at the 90 % quantile of runs, in rows."""

    name: str
    goal: int
    make: Callable[[Random, int, int], Float]
    """Returns cells (features, rows) by random numbers, rows and the row of the change."""
    kind: str = "features"
    """Share of the budget, as in `detection_feeds.BOUNDS`."""
    horizon: int = HORIZON
    numbers: bool = True
    """Whether a detector of a mean can read it."""


def _errors(p: float, q: float) -> Callable[[Random, int, int], Float]:
    return replaced(lambda r, s: flags(r, s, p), lambda r, s: flags(r, s, q))


def _classes(p: float, q: float) -> Callable[[Random, int, int], Float]:
    def of(share: float) -> Callable[[Random, tuple[int, ...]], Float]:
        return lambda r, s: categories(r, s, np.array([1 - share, share]))

    return replaced(of(p), of(q))


CASES = [
    *(
        Case(f"mean +{by:g} sd", goal, changed(normal, moved(by)))
        for by, goal in ((0.1, 7_500), (0.25, 900), (0.5, 300), (1.0, 150))
    ),
    Case("variance × 1.5", 900, changed(normal, lambda _, x: x * np.sqrt(1.5))),
    Case("normal to Laplace", 1_200, replaced(normal, laplace)),
    Case("lognormal +0.25 sd", 250, changed(lognormal, moved(0.25))),
    Case("t3 +0.5 sd", 250, changed(t3, moved(0.5))),
    Case(
        "stuck at one value", 150, changed(normal, lambda _, x: np.repeat(x[:, :1], x.shape[1], 1))
    ),
    Case("missing 0 to 5 %", 200, changed(normal, _hole), numbers=False),
    Case(
        "category 10 to 15 %",
        2_800,
        replaced(categories, lambda r, s: categories(r, s, more(3, 0.15))),
        numbers=False,
    ),
    Case("unseen category 2 %", 700, changed(categories, _unseen), numbers=False),
    Case("0/1 feature 1 to 2 %", 12_000, _errors(0.01, 0.02)),
    Case("zeros 60 to 65 %", 5_500, replaced(zeros, lambda r, s: zeros(r, s, 0.65))),
    Case(
        "ramp of 0.5 sd over 20,000 rows",
        6_500,
        changed(normal, lambda _, x: x + np.minimum(np.arange(x.shape[1]) / 40_000, 0.5)),
    ),
    Case(
        "+1 sd in 10 % of the rows",
        10_000,
        changed(normal, lambda r, x: x + (r.random(x.shape) < 0.1)),
    ),
    Case("AR(1) 0.7, +0.5 sd", 1_200, changed(autoregressive(0.7), moved(0.5))),
    Case("score, its logit +0.25 sd", 1_200, changed(normal, moved(0.25)), kind="outputs"),
    Case("predicted class 40 to 55 %", 900, _classes(0.40, 0.55), kind="outputs", numbers=False),
    *(
        Case(f"errors {100 * p:g} to {100 * q:g} %", goal, _errors(p, q), kind="errors")
        for p, q, goal in (
            (0.05, 0.10, 1_000),
            (0.10, 0.20, 650),
            (0.02, 0.04, 3_200),
            (0.005, 0.015, 3_200),
            (0.10, 0.05, 1_300),
        )
    ),
    Case(
        "scores too extreme, same answers",
        800,
        lambda r, rows, t0: _scored(r, rows, t0, FEATURES),
        kind="calibration",
        numbers=False,
    ),
    Case("residuals of a regression +0.25 sd", 900, changed(normal, moved(0.25)), kind="residuals"),
    Case("latency × 1.5", 300, changed(latencies, lambda _, x: 1.5 * x), kind="latency"),
    Case("slowest calls 1 to 3 %", 2_000, changed(latencies, _longer_tail), kind="latency"),
]
