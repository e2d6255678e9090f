"""Intervals of metrics against scipy, plain loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import rel_entr
from sklearn import metrics as sk

from stream_monitor.stats.metric_intervals import (
    CERTAINTY,
    Z,
    auc_interval,
    calibration_interval,
    macro_intervals,
    share_interval,
    weighted_intervals,
)
from stream_monitor.stats.regression_sums import RegressionSums, regression_intervals


@pytest.mark.parametrize("rows", [1, 7, 100, 1_000, 10**7])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.01, 0.5, 0.8, 0.999, 1.0])
def test_the_interval_of_a_share_is_that_of_scipy(share, rows):
    def nats(q):
        return rows * rel_entr([share, 1 - share], [q, 1 - q]).sum() - CERTAINTY

    tiny = 1e-300
    low = brentq(nats, tiny, share, xtol=1e-15) if share and nats(tiny) > 0 else 0.0
    top = 1 - 2**-53
    high = brentq(nats, share, top, xtol=1e-15) if share < 1 and nats(top) > 0 else 1.0
    assert share_interval(share, rows) == pytest.approx((low, high), abs=1e-9)


def test_the_variance_of_roc_auc_is_that_of_pairs():
    """DeLong's components, pair by pair."""
    rng = np.random.default_rng(1)
    score = rng.normal(size=120).round(1)
    true = rng.random(120) < 1 / (1 + np.exp(-score))
    pairs = (score[true][:, None] > score[~true]) + 0.5 * (score[true][:, None] == score[~true])
    area = pairs.mean()
    variance = sum(
        pairs.mean(axis=a).var(ddof=1) / n for a, n in ((1, true.sum()), (0, (~true).sum()))
    )
    at = np.unique(score, return_inverse=True)[1]
    found = auc_interval(*(np.bincount(at, w * 1.0).astype(np.float64) for w in (~true, true)))
    assert found == pytest.approx(share_interval(area, area * (1 - area) / variance), abs=1e-9)
    assert area == pytest.approx(sk.roc_auc_score(true, score))


@pytest.mark.parametrize("average", ["weighted", "macro"])
def test_averages_over_classes_lie_in_their_intervals_and_these_are_not_endless(average):
    """Half of their width is four spreads, which 400 samples tell to 7 %, or a little more."""
    rng = np.random.default_rng(2)
    table = np.array([[60, 5, 1], [10, 15, 2], [2, 1, 4]]) / 100
    found, ends = [], []
    for counts in rng.multinomial(500, table.ravel(), 400).reshape(400, 3, 3):
        actual, predicted = np.repeat(np.indices((3, 3)).reshape(2, 9), counts.ravel(), axis=1)
        metrics = (sk.f1_score, sk.precision_score, sk.recall_score)
        found.append([of(actual, predicted, average=average, zero_division=0) for of in metrics])
        table_of = counts.astype(np.float64)
        columns = table_of.diagonal(), table_of.sum(axis=0), table_of.sum(axis=1)
        intervals = macro_intervals if average == "macro" else weighted_intervals
        ends.append([intervals(*columns)[m] for m in ("f1", "precision", "recall")])
    spread, half = np.std(found, axis=0), np.diff(ends, axis=2)[:, :, 0].mean(axis=0) / 2
    assert (half >= 0.9 * Z * spread).all()
    assert (half < 10 * spread).all()


def test_intervals_of_a_regression_have_the_truth():
    rng = np.random.default_rng(3)
    for _ in range(300):
        actual = rng.normal(0, 2, 400)
        predicted = actual + rng.normal(0.1, 1, 400)
        found = regression_intervals(predicted, actual)
        truth = {"mae": 0.80189, "rmse": 1.01**0.5, "bias": 0.1, "r2": 1 - 1.01 / 4}
        assert all(found[m][0] < value < found[m][1] for m, value in truth.items())
        assert all(np.diff(ends)[0] < 0.6 for ends in found.values())
        sums = RegressionSums.rows(predicted, actual, np.zeros(400, np.int64), 1)[0]
        of_sums = RegressionSums.intervals(sums)
        assert all(of_sums[m] == pytest.approx(found[m], abs=1e-9) for m in ("mae", "bias"))


def test_the_calibration_error_of_a_calibrated_score_may_be_0():
    rng = np.random.default_rng(4)
    for rows in (50, 1_000, 20_000):
        for _ in range(100):
            score = rng.random(rows)
            true = rng.random(rows) < score
            at = np.minimum((score * 10).astype(int), 9)
            counts, scores, outcomes = (
                np.bincount(at, w, 10).astype(np.float64)
                for w in (np.ones(rows), score, true.astype(np.float64))
            )
            error = np.abs(scores - outcomes).sum() / rows
            assert calibration_interval(counts * 1.0, error, outcomes)[0] == 0
    low, high = calibration_interval(np.array([5_000.0] * 2), 0.2, np.array([1_000.0, 4_000.0]))
    assert 0.15 < low < 0.2 < high < 0.25
