"""What an alert of drift says that changed: the part of the law that moved farthest."""

from __future__ import annotations

import numpy as np
import pytest

from stream_monitor.detectors.tilts import number_tilts
from stream_monitor.monitors.evidence import Drifted, Watched
from stream_monitor.monitors.evidence_verdicts import describe, effect
from stream_monitor.monitors.signals import ERRORS

EDGES = np.quantile(np.random.default_rng(0).normal(size=20_000), np.arange(1, 20) / 20)
BINS = len(EDGES) + 2


def counted(values: np.ndarray) -> np.ndarray:
    there = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(EDGES, there), minlength=BINS - 1)
    return np.array(
        [*counts, len(values) - len(there), there.sum(), (there**2).sum()], dtype=np.float64
    )


def told(before: np.ndarray, after: np.ndarray) -> tuple[str, str, float]:
    places = tuple((k,) for k in range(BINS))
    watched = Watched("x", number_tilts(np.ones(BINS, np.int64)), 0.0, places, (BINS, BINS + 1))
    drifted = Drifted(True, 1, 1, 0, 0, 1.0, 1.0, counted(before), counted(after))
    text, found = describe(watched, drifted, (10.0, 2.0))
    return text, found["what"], effect(watched, drifted)


def missing(values: np.ndarray, share: float) -> np.ndarray:
    return np.where(np.random.default_rng(9).random(len(values)) < share, np.nan, values)


@pytest.mark.parametrize("rows", [100, 1_000])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda x: x + 0.5, "mean"),
        (lambda x: (x + 5) * 100, "mean"),
        (lambda x: x * 2, "standard deviation"),
        (np.zeros_like, "standard deviation"),
        (lambda x: np.full_like(x, 3.0), "mean"),
        (lambda x: missing(x, 0.1), "missing"),
        (lambda x: np.full_like(x, np.nan), "missing"),
    ],
)
def test_what_moved_farthest_is_named_however_few_the_rows(change, what: str, rows: int) -> None:
    random = np.random.default_rng(3)
    before, after = random.normal(size=10_000), random.normal(size=rows)
    after = (after - after.mean()) / after.std()
    text, found, _ = told(before, change(after))
    assert (found, what in text) == (what, True), text


def test_the_size_of_a_change_is_without_what_chance_gives() -> None:
    random = np.random.default_rng(4)
    before = random.normal(size=10_000)
    sizes = [told(before, random.normal(size=100))[2] for _ in range(50)]
    assert np.median(sizes) < 0.08
    exact = told(random.normal(size=400_000), random.normal(0.5, 1, 400_000))[2]
    few = [told(before, random.normal(0.5, 1, 200))[2] for _ in range(50)]
    assert np.mean(few) == pytest.approx(exact, abs=0.02)


def test_an_error_of_a_regression_is_told_by_its_mean() -> None:
    """Absolute errors twice as great: their spread moves farther than their mean does."""
    random = np.random.default_rng(5)
    before, after = (np.abs(random.normal(0, s, 5_000)) for s in (1, 2))
    places = tuple((k,) for k in range(BINS))
    tilts = number_tilts(np.ones(BINS, np.int64))
    watched = Watched(ERRORS, tilts, 0.0, places, (BINS, BINS + 1))
    drifted = Drifted(True, 1, 1, 0, 0, 1.0, 1.0, counted(before), counted(after))
    text, found = describe(watched, drifted, (0.0, 1.0))
    assert (text, found["what"]) == (f"mean from {before.mean():.4g} to {after.mean():.4g}", "mean")
