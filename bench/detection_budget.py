"""
False alarms that the budget states, and those that happen; and what detectors cost. Tables of
`detection.py`.

Rule of the file: for the budget, counts of chunks are drawn from the laws of bins themselves, so
that many days of many models fit into minutes. An alarm sets the evidence of its signal back to 0,
and the signal goes on.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import detection_feeds as feeds
import numpy as np
from detection_streams import FEATURES, LEVELS, ROW_MS
from detection_tables import head, line
from river import drift

from stream_monitor.detectors.pool_tilt import PoolTilt
from stream_monitor.detectors.tilts import Tilts, level_tilts, number_tilts
from stream_monitor.monitors.input_drift import CHUNK_ROWS
from stream_monitor.monitors.rows import Rows

BLOCK, TOGETHER = 100, 5
"""Chunks that are drawn together, and models: what fits into the cache."""


class World(NamedTuple):
    """Models for which a budget is measured."""

    budget: str
    days_an_alarm: float
    models: int
    days: float
    rows_a_day: int


WORLDS = (
    World("1/30d", 30.0, 40, 16, 25_000),
    World("1/30d", 30.0, 40, 60, 1_440),
    World("1/1d", 1.0, 10, 8, 100_000),
    World("1/1d", 1.0, 5, 1, 1_000_000),
    World("10/1d", 0.1, 10, 4, 100_000),
    World("10/1d", 0.1, 5, 1, 1_000_000),
    World("100/1d", 0.01, 10, 2, 100_000),
    World("100/1d", 0.01, 5, 1, 1_000_000),
)


def _laws() -> list[tuple[np.ndarray, bool]]:
    """Laws on bins: numbers, numbers with a value of much weight, missing values, categories."""
    even = np.append(np.full(20, 0.05), 0.0)
    atom = np.append(np.full(9, 0.4 / 9), [0.6, 0.0])
    holes = np.append(np.full(20, 0.98 / 20), 0.02)
    flag = np.array([0.99, 0.01, 0.0])
    zipf = np.append(1 / np.arange(1, 12), [0.02, 0.0])
    return [
        *[(even, True)] * 8,
        *[(holes, True)] * 3,
        *[(atom, True)] * 3,
        *[(flag, True)] * 2,
        *[(LEVELS, False)] * 2,
        *[(zipf / zipf.sum(), False)] * 2,
    ]


def _tilts(law: np.ndarray, number: bool, rng: np.random.Generator, reference: int) -> Tilts:
    counts = rng.multinomial(reference, law)
    return number_tilts(counts, (0, len(law) - 2)) if number else level_tilts(counts)


def kept(world: World, scale: float, rng: np.random.Generator) -> int:
    """False alarms in a world."""
    groups, alarms = range(0, world.models, TOGETHER), 0
    for first in groups:
        alarms += _group(world, min(TOGETHER, world.models - first), scale, rng)
        print(f"  {world.budget}: {first + TOGETHER} models", file=sys.stderr, flush=True)
    return alarms


def _group(world: World, models: int, scale: float, rng: np.random.Generator) -> int:
    """False alarms of some models; half of them have a reference of 1,000 rows."""
    laws = _laws()
    tilts = [
        _tilts(law, number, rng, 5_000 if m % 2 else 1_000)
        for m in range(models)
        for law, number in laws
    ]
    detector, alarms = PoolTilt(tilts, [feeds.TOLERANCE] * len(tilts)), 0
    bound = np.full(len(tilts), world.days_an_alarm / feeds.SHARES[0] * FEATURES)
    chunks = int(world.days * scale * world.rows_a_day / CHUNK_ROWS)
    for start in range(0, chunks, BLOCK):
        size = min(BLOCK, chunks - start)
        counts = np.zeros((size, len(tilts), detector.pools.shape[2]))
        for s, (law, _) in enumerate(laws):
            drawn = rng.multinomial(CHUNK_ROWS, law, size=(size, models))
            counts[:, s :: len(laws), : len(law)] = drawn
        rows, days = np.full(size, CHUNK_ROWS), np.full(size, CHUNK_ROWS / world.rows_a_day)
        at = 0
        while at < size:
            found, taken = detector.step(counts[at:], rows[at:], days[at:], bound)
            at += taken
            alarms += len(found)
            detector.live[[a.signal for a in found]] = True
    return alarms


def budgets(scale: float) -> None:
    """Stated against kept."""
    print("\n### Stated and kept: false alarms of 20 features by budget\n")
    head(
        "budget",
        "rows a day",
        "model-days",
        "the share of features allows",
        "false alarms",
        "95 % upper bound",
        "kept",
    )
    total = 0.0
    for number, world in enumerate(WORLDS):
        found = kept(world, scale, np.random.default_rng([17, number]))
        model_days = world.models * world.days * scale
        total += model_days
        allowed = model_days / world.days_an_alarm * feeds.SHARES[0]
        high = poisson_upper(found)
        within = "yes" if high <= allowed else "NO" if found > allowed else "too few days to say"
        line(
            [
                world.budget,
                f"{world.rows_a_day:,}",
                f"{model_days:,.4g}",
                f"{allowed:.3g}",
                found,
                f"{high:.3g}",
                within,
            ]
        )
    print(f"\n{total:,.0f} model-days.", flush=True)


def poisson_upper(found: int) -> float:
    """
    The mean at which so few events or fewer have a chance of 5 %.

    >>> round(poisson_upper(0), 2), round(poisson_upper(5), 2)
    (3.0, 10.51)
    """
    low, high = 0.0, 20.0 + 3.0 * found
    terms = np.arange(found + 1)
    logs = np.cumsum(np.log(np.maximum(terms, 1)))
    for _ in range(60):
        mean = (low + high) / 2
        chance = np.exp(terms * np.log(mean) - mean - logs).sum()
        low, high = (mean, high) if chance > 0.05 else (low, mean)
    return high


def cost(rows: int) -> None:
    """Feature values a CPU-second, and the ratio to River's ADWIN."""
    print("\n### Cost: million feature values a CPU-second\n")
    rng = np.random.default_rng(18)
    x = rng.normal(size=(FEATURES, rows))
    scaled = x[:, : min(rows, 50_000)]
    began = time.process_time()
    for values in scaled.tolist():
        detector = drift.ADWIN()
        for value in values:
            detector.update(value)
    adwin = scaled.size / (time.process_time() - began)
    head("rows a second", "detectors alone", "with sums and bins", "sums and bins alone", "× ADWIN")
    for a_second in (1000 / ROW_MS, 1_000.0, 10_000.0):
        when = feeds.times(rows, 1000 / a_second)
        rates = {}
        for tolerance in (feeds.TOLERANCE, None):
            of = feeds.inputs(5_000, feeds.BOUNDS["features"], FEATURES, tolerance)
            at = 10_000
            _fold(of, x, when, slice(0, at))
            spent = _fold(of, x, when, slice(at, rows))
            rates[tolerance] = (rows - at) * FEATURES / spent / 1e6
        both, bare = rates[feeds.TOLERANCE], rates[None]
        alone = 1 / max(1 / both - 1 / bare, 1e-9)
        name = f"{a_second:,.0f}"
        line([name, f"{alone:.3g}", f"{both:.3g}", f"{bare:.3g}", f"{alone / adwin * 1e6:.2g}"])
    print(f"\nRiver's ADWIN in a loop over values: {adwin / 1e6:.2g} million.")


def _fold(of: feeds.Inputs, x: np.ndarray, when: np.ndarray, rows: slice) -> float:
    """CPU seconds of folding these rows, as many at a time as a second has, at least 50."""
    size = int(np.clip(1000 / max(when[1] - when[0], 0.1), CHUNK_ROWS, 4_000))
    columns, began = feeds.names(len(x)), time.process_time()
    for at in range(rows.start, rows.stop, size):
        part = slice(at, min(at + size, rows.stop))
        of.add(Rows(columns, x[:, part], when[part], []))
    return time.process_time() - began
