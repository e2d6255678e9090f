"""
The level of performance: a slow fall is told with no configuration, clean data is not, and what
labels are is found by them.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.level import Level, Loss
from stream_monitor.monitors.version import Version
from stream_monitor.settings import CoreSettings
from stream_monitor.state import decode, encode

T0 = 1_760_000_000_000
CHUNK = 1_000


def judged(outcome, label, score=None, built=None) -> tuple[Version, dict[str, list]]:
    """
    A version of no configuration that got these pairs, and its alarms of performance by subject.
    """
    n = len(label)
    version = Version("m", "1", CoreSettings(), {}, [], [])
    version.performance.built = built or {}
    times, nan = T0 + np.arange(n) * 100, np.full(n, np.nan)
    ids = np.random.default_rng(n).integers(1, 2**63, n).astype(np.uint64)
    rows = Pairs(
        row=np.arange(n),
        version=np.zeros(n, np.int64),
        id=ids,
        time=times,
        outcome=np.asarray(outcome, float),
        score=nan if score is None else score,
        segment=np.zeros(n, np.int64),
        probabilities=np.empty((n, 0)),
        label=np.asarray(label, float),
        label_time=times,
        previous=nan,
        corrected=np.zeros(n, bool),
        origin=np.arange(n),
    )
    found: dict[str, list] = {}

    def judge(verdict) -> None:
        if verdict.level != "ok" and verdict.key.kind in {"performance", "anomaly"}:
            found.setdefault(verdict.key.subject, []).append(verdict)

    for at in range(0, n, CHUNK):
        version.take_pairs(rows.at(slice(at, at + CHUNK)), [], 0)
        version.reduce(judge, look=False)
    assert not version.contained.off
    return version, found


def answers(rng: np.random.Generator, right) -> tuple[np.ndarray, np.ndarray]:
    label = rng.integers(0, 2, len(right))
    return np.where(rng.random(len(right)) < right, label, 1 - label), label


@pytest.mark.parametrize("seed", range(6))
def test_a_slow_fall_of_accuracy_is_told(seed):
    """From 0.96 to 0.88 along the first 5,000 rows: its beginning is the level, not its whole."""
    found = judged(
        *answers(
            np.random.default_rng(seed), np.maximum(0.88, 0.96 - 0.08 * np.arange(8_000) / 5_000)
        )
    )[1]
    assert {v.level for v in found["accuracy"]} == {"warning"}


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_rise_of_errors_is_told(seed):
    rng = np.random.default_rng(seed)
    label = rng.normal(size=8_000)
    found = judged(
        label + rng.normal(size=8_000) * np.minimum(2, 1 + np.arange(8_000) / 5_000), label
    )[1]
    assert {v.level for v in found["mae"]} == {"warning"}


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.5, 0.65, 0.9, 0.96, 0.99, 0.999])
def test_a_model_that_stays_as_it_is_is_quiet(accuracy):
    for seed in range(3):
        found = judged(*answers(np.random.default_rng(seed), np.full(300_000, accuracy)))[1]
        assert {v.level for told in found.values() for v in told} <= {"info"}
        assert bool(found) == (accuracy < 0.7), "told once, while there is no level"
        assert all(v.window.count < 1_000 for told in found.values() for v in told)


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["normal", "t3", "lognormal"])
def test_a_regression_that_stays_as_it_is_is_quiet(errors):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        label = rng.normal(size=300_000)
        drawn = rng.standard_t(3, 300_000) if errors == "t3" else getattr(rng, errors)(size=300_000)
        assert judged(label + drawn, label)[1] == {}


def test_the_level_of_a_profile_counts_from_the_first_labels():
    rng = np.random.default_rng(1)
    label = rng.normal(size=400)
    worse = label + 2 * rng.normal(size=400)
    assert judged(worse, label)[1] == {}
    found = judged(worse, label, built={"mae": 0.8, "rmse": 1.0, "labels": 5_000})[1]
    assert "of the baseline" in found["mae"][0].summary
    assert judged(worse, label, built={"accuracy": 0.9, "labels": 5_000})[1] == {}, (
        "the profile of a classification says nothing of errors"
    )


@pytest.mark.parametrize("sizes", [[1], [7, 300, 2], [4_000]])
def test_the_level_does_not_depend_on_how_rows_were_cut(sizes):
    losses = np.random.default_rng(2).lognormal(size=4_000)
    level, at = Level(500), 0
    while at < len(losses):
        level.add(losses[at : at + sizes[at % len(sizes)]], "numbers")
        at += sizes[at % len(sizes)]
        level = decode(encode(level), Level)
    whole = Level(500)
    whole.add(losses, "numbers")
    assert encode(level) == encode(whole)
    assert isinstance(level.loss, Loss)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["floats", "whole", "zeros", "with a score", "few"])
def test_a_regression_is_found_by_its_labels(seed, kind):
    """
    Its metrics are those of scikit-learn, however many zeros there are, and with a score beside.
    """
    rng = np.random.default_rng(seed)
    n = 60 if kind == "few" else 16_000
    label, predicted = rng.normal(100, 20, (2, n))
    if kind == "whole":
        label, predicted = label.round(), predicted.round()
    if kind == "zeros":
        label, predicted = (
            np.where(rng.random(n) < 0.97, 0, rng.lognormal(size=n)) for _ in range(2)
        )
    version, _ = judged(predicted, label, np.full(n, 0.5) if kind == "with a score" else None)
    found, span = version.performance.window("last_1000")
    at = slice(-1_000, None)
    assert (version.performance.task, span.count) == ("regression", min(n, 1_000))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(label[at], predicted[at]), abs=1e-9)
    assert found["r2"] == pytest.approx(sk.r2_score(label[at], predicted[at]), abs=1e-9)


def test_classes_without_a_place_of_their_own_are_told_apart():
    """More classes than are kept apart, and answers that are right by chance alone."""
    rng = np.random.default_rng(4)
    predicted, label = rng.integers(0, 2_000, (2, 5_000))
    predicted[:100] = label[:100]
    version, _ = judged(predicted, label, np.full(5_000, 0.5))
    assert version.performance.window("all")[0]["accuracy"] == pytest.approx(
        sk.accuracy_score(label, predicted)
    )
