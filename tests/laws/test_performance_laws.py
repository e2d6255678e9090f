"""Windows of performance equal scikit-learn on the same rows, to 1e-9, in any order and any cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn import metrics as sk

from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.performance import Performance
from stream_monitor.settings import ModelSettings

N = 3_000
T0 = 1_760_000_000_000


def pairs(rng: np.random.Generator, outcome, label, score, probabilities=None) -> Pairs:
    n = len(label)
    times = T0 + rng.permutation(n) * 100
    return Pairs(
        row=np.arange(n),
        version=np.zeros(n, np.int64),
        id=rng.integers(1, 2**63, n).astype(np.uint64),
        time=times,
        outcome=outcome.astype(float),
        score=score,
        segment=np.zeros(n, np.int64),
        probabilities=np.empty((n, 0)) if probabilities is None else probabilities,
        label=label.astype(float),
        label_time=times,
        previous=np.full(n, np.nan),
        corrected=np.zeros(n, bool),
        origin=np.arange(n),
    )


def fed(
    rows: Pairs, settings: ModelSettings, sizes: list[int], score_classes: Sequence[str] = ()
) -> Performance:
    performance = Performance(settings)
    for name in score_classes:
        performance.score_classes[name]
    at = 0
    while at < len(rows.row):
        size = sizes[at % len(sizes)]
        list(performance.add(rows.at(slice(at, at + size)), []))
        at += size
    return performance


def newest(rows: Pairs, n: int) -> np.ndarray:
    return np.lexsort((rows.id, rows.time))[-n:]


def ece(y, s):
    bins = np.minimum((s * 10).astype(int), 9)
    return sum(abs(s[bins == b].sum() - y[bins == b].sum()) for b in range(10)) / len(y)


@pytest.mark.parametrize("sizes", [[N], [7, 501, 64], [1000]])
def test_binary(sizes):
    rng = np.random.default_rng(1)
    score = np.round(rng.beta(2, 2, N), 3)
    label = (rng.random(N) < score).astype(float)
    rows = pairs(rng, score >= 0.5, label, score)
    performance = fed(rows, ModelSettings(windows=("last_500", "1h"), task="binary"), sizes)
    for window, at in (("last_500", newest(rows, 500)), ("1h", np.arange(N))):
        found, span = performance.window(window)
        y, p, s = label[at], rows.outcome[at], score[at]
        expected = {
            "accuracy": sk.accuracy_score(y, p),
            "precision": sk.precision_score(y, p),
            "recall": sk.recall_score(y, p),
            "f1": sk.f1_score(y, p),
            "log_loss": sk.log_loss(y, s),
            "brier_score": sk.brier_score_loss(y, s),
            "calibration_error": ece(y, s),
        }
        if window == "last_500":
            expected["roc_auc"] = sk.roc_auc_score(y, s)
        assert span.count == len(at)
        assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(y, s), abs=0.02)


@pytest.mark.parametrize("sizes", [[N], [7, 501, 64]])
def test_multiclass(sizes):
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([1, 1, 1], N)
    label = np.array([rng.choice(3, p=p) for p in probabilities])
    predicted = probabilities.argmax(axis=1)
    rows = pairs(rng, predicted, label, np.full(N, np.nan), probabilities)
    performance = fed(
        rows, ModelSettings(windows=("last_700", "1h"), task="multiclass"), sizes, ["0", "1", "2"]
    )
    for window, at in (("last_700", newest(rows, 700)), ("1h", np.arange(N))):
        found, _ = performance.window(window)
        y, p, q = label[at], predicted[at], probabilities[at]
        expected = {
            "accuracy": sk.accuracy_score(y, p),
            "precision": sk.precision_score(y, p, average="weighted"),
            "recall": sk.recall_score(y, p, average="weighted"),
            "f1": sk.f1_score(y, p, average="weighted"),
            "log_loss": sk.log_loss(y, q),
            "brier_score": float(((q - np.eye(3)[y]) ** 2).sum(axis=1).mean()),
        }
        if window == "last_700":
            expected["roc_auc"] = sk.roc_auc_score(y, q, multi_class="ovr", average="macro")
        assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("sizes", [[N], [7, 501, 64]])
def test_a_row_without_a_prediction_is_wrong_and_counts_for_no_class(sizes):
    rng = np.random.default_rng(5)
    label = rng.integers(0, 4, N)
    outcome = np.where(
        rng.random(N) < 0.1, np.nan, np.where(rng.random(N) < 0.7, label, rng.integers(0, 4, N))
    )
    rows = pairs(rng, outcome, label, np.full(N, np.nan))
    performance = fed(rows, ModelSettings(task="multiclass", windows=("last_1000", "1h")), sizes)
    for window, n in (("last_1000", 1_000), ("1h", N)):
        at = newest(rows, n)
        y, p = label[at], np.nan_to_num(outcome[at], nan=-1).astype(int)
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            y, p, labels=range(4), average="weighted", zero_division=0
        )
        found = performance.window(window)[0]
        assert found["accuracy"] == pytest.approx((y == p).mean(), abs=1e-9)
        assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(
            (precision, recall, f1), abs=1e-9
        )


@pytest.mark.parametrize("sizes", [[N], [7, 501, 64]])
def test_regression(sizes):
    rng = np.random.default_rng(3)
    label = rng.normal(1e6, 3, N)
    predicted = label + rng.normal(0.1, 1, N)
    rows = pairs(rng, predicted, label, np.full(N, np.nan))
    performance = fed(rows, ModelSettings(windows=("last_700", "1h"), task="regression"), sizes)
    for window, at in (("last_700", newest(rows, 700)), ("1h", np.arange(N))):
        found, _ = performance.window(window)
        y, p = label[at], predicted[at]
        expected = {
            "mae": sk.mean_absolute_error(y, p),
            "rmse": sk.mean_squared_error(y, p) ** 0.5,
            "r2": sk.r2_score(y, p),
            "bias": float((p - y).mean()),
        }
        assert found == pytest.approx(expected, abs=1e-8)


def test_what_is_undefined_is_absent():
    rng = np.random.default_rng(4)
    n = 200
    rows = pairs(rng, np.zeros(n), np.zeros(n), np.full(n, np.nan))
    performance = fed(rows, ModelSettings(windows=("last_100",), task="binary"), [50])
    found, _ = performance.window("last_100")
    assert found == {"accuracy": 1.0}
    assert Performance(ModelSettings()).window("last_1000")[0] == {}


def test_a_correction_amends_both_kinds_of_window():
    rng = np.random.default_rng(5)
    n = 400
    rows = pairs(rng, np.ones(n), np.zeros(n), np.full(n, 0.9))
    performance = fed(rows, ModelSettings(windows=("last_400", "1h"), task="binary"), [100])
    again = rows.at(slice(0, 100))._replace(
        label=np.ones(100), previous=np.zeros(100), corrected=np.ones(100, bool)
    )
    list(performance.add(again, []))
    for window in ("last_400", "1h"):
        found, span = performance.window(window)
        assert span.count == n
        assert found["accuracy"] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_the_same_labelled_rows_gives_the_same_metrics(seed):
    """Classes 1 and 2, of which the score points to 2; the first rows may be of one class only."""
    rng = np.random.default_rng(seed)
    n = 900
    label = np.where(rng.random(n) < 0.3, 2.0, 1.0)
    score = np.round(np.where(label == 2, rng.beta(5, 2, n), rng.beta(2, 5, n)), 3)
    rows = pairs(rng, np.where(score >= 0.5, 2.0, 1.0), label, score)
    expected = {
        "precision": sk.precision_score(label, rows.outcome, pos_label=2),
        "roc_auc": sk.roc_auc_score(label == 2, score),
        "log_loss": sk.log_loss(label == 2, score),
    }
    for order in (
        np.arange(n),
        rng.permutation(n),
        np.argsort(label, kind="stable"),
        np.argsort(-label, kind="stable"),
    ):
        found, _ = fed(rows.at(order), ModelSettings(windows=("last_1000", "1h")), [70]).window(
            "last_1000"
        )
        assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("wrong", [1e9, -1e15, 1e30])
def test_corrections_leave_no_trace(wrong):
    """To a wrong unit, to no number at all, and back."""
    rng = np.random.default_rng(9)
    label = rng.normal(size=N)
    rows = pairs(rng, label + rng.normal(size=N), label, np.full(N, np.nan))
    first = label.copy()
    first[:50] = wrong * (1 + rng.random(50))
    performance = fed(
        rows._replace(label=first),
        ModelSettings(windows=("last_500", "1h"), task="regression"),
        [64],
    )
    before = first[:50]
    for now in (np.full(50, np.nan), label[:50]):
        list(
            performance.add(
                rows.at(slice(0, 50))._replace(
                    label=now, previous=before, corrected=np.ones(50, bool)
                ),
                [],
            )
        )
        before = now
    found = performance.window("1h")[0]
    expected = {
        "mae": sk.mean_absolute_error(label, rows.outcome),
        "rmse": sk.mean_squared_error(label, rows.outcome) ** 0.5,
        "r2": sk.r2_score(label, rows.outcome),
    }
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-9)
