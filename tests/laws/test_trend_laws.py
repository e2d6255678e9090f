"""
Laws of trends: metrics of blocks are those of scikit-learn, their errors those of many repetitions,
clean labels raise no alarm, and a metric that falls is found though accuracy stays.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, r2_score

from bench.trends import CLEAN, MULTICLASS, false_looks, found_share
from stream_monitor.arrays import Float
from stream_monitor.config import parse
from stream_monitor.evaluate import Shard
from stream_monitor.monitors.trend import GROUPS, Trend
from stream_monitor.settings import Anomalies
from stream_monitor.state import decode, encode
from stream_monitor.stats.block_metrics import (
    class_metrics,
    jackknife_error,
    line_weights,
    r2,
    scatter_error,
)
from tests.unit.test_evaluate import T0, Stream, label, prediction


def counts(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    of = (labels[answers == labels], answers, labels)
    return np.array([np.bincount(c, minlength=classes) for c in of], np.float64)


@pytest.mark.parametrize("average", ["weighted", "macro"])
@pytest.mark.parametrize("rows", [1, 7, 400])
def test_metrics_of_a_block_are_those_of_scikit_learn(rows: int, average: str) -> None:
    rng = np.random.default_rng(rows)
    for _ in range(20):
        labels = rng.choice(4, rows, p=[0.6, 0.3, 0.1, 0.0])
        answers = np.where(rng.random(rows) < 0.7, labels, rng.integers(0, 4, rows))
        found = class_metrics(counts(answers, labels, 6), None, macro=average == "macro")
        expected = precision_recall_fscore_support(
            labels, answers, average=average, zero_division=0
        )
        assert found["accuracy"] == pytest.approx(accuracy_score(labels, answers))
        assert [found[k] for k in ("precision", "recall", "f1")] == pytest.approx(expected[:3])


def test_an_r2_is_that_of_scikit_learn_and_a_line_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(3, 2, 200)
    errors = rng.normal(0, 1, 200)
    sums = np.array([200, (errors**2).sum(), y.sum(), (y * y).sum()])
    assert r2(sums) == pytest.approx(r2_score(y, y + errors))
    values = rng.random(10)
    line = linregress(np.arange(10), values)
    assert line_weights(10) @ values == pytest.approx(line.slope * 9)
    assert scatter_error(values) == pytest.approx(line.stderr * 9)


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1"])
def test_the_jackknife_is_the_spread_of_many_repetitions(metric: str) -> None:
    """Of 300 blocks of 500 rows with positives of 10 %, in five groups."""
    rng = np.random.default_rng(5)
    labels = (rng.random((300, 5, 100)) < 0.1).astype(int)
    answers = np.where(rng.random(labels.shape) < 0.85, labels, 1 - labels)
    of = np.array(
        [
            [counts(a, y, 2) for a, y in zip(*both, strict=True)]
            for both in zip(answers, labels, strict=True)
        ]
    )
    whole = of.sum(axis=1)
    values = class_metrics(whole, 1, macro=False)[metric]
    without = class_metrics(whole[:, None] - of, 1, macro=False)[metric]
    errors = [
        jackknife_error(values[i : i + 10], without[i : i + 10], np.full(10, 5))
        for i in range(0, 300, 10)
    ]
    true = values.std() * np.sqrt((line_weights(10) ** 2).sum())
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize("name", CLEAN)
def test_labels_of_one_law_have_no_trend(name: str) -> None:
    """At 1e-4 a look, 100 looks have one in 100 runs; `bench/trends.py` has many more."""
    _, alarms = false_looks(CLEAN[name], 100, seed=7)
    assert not any(alarms.values())


@pytest.mark.parametrize("which", range(4))
def test_a_metric_that_falls_is_found(which: int) -> None:
    name, metric, share = found_share(which, runs=8)
    assert share >= 0.5, (name, metric)


def test_groups_and_snapshots_do_not_show() -> None:
    """Rows in pieces, another class half way, and a restart within a group."""
    rng = np.random.default_rng(8)
    labels: Float = rng.integers(0, 3, 12_000).astype(np.float64)
    labels[6_000:6_010] = 7.0
    answers: Float = np.where(
        rng.random(12_000) < np.linspace(1.2, 0.2, 12_000), labels, 0.0
    ).astype(np.float64)
    found = []
    for pieces in (1, 4):
        trend = Trend(Anomalies())
        for group in range(60):
            for piece in np.array_split(np.arange(group * 200, group * 200 + 200), pieces):
                trend.add_classes(answers[piece], labels[piece])
                again = Trend(trend.anomalies)
                again.state = decode(encode(trend.state), type(trend.state))
                trend = again
            trend.close_group()
            if group % GROUPS == GROUPS - 1:
                trend.look(MULTICLASS, macro=True)
        found.append((trend.state.fell_from, trend.lines["f1"].values.tolist()))
    assert found[0] == found[1]
    assert found[0][0].keys() == {"accuracy", "precision", "recall", "f1"}


def test_macro_averages_are_those_of_scikit_learn_in_windows_segments_and_thresholds() -> None:
    core = parse(
        '{"defaults": {"average": "macro", "task": "multiclass", "windows": ["last_500", "1h"],'
        ' "segments": ["s"], "thresholds": {"recall": {"min": 0.8, "min_labels": 100}}}}'
    ).core
    rng, stream = np.random.default_rng(4), Stream(core)
    labels = rng.choice(3, 400, p=[0.8, 0.15, 0.05])
    answers = np.where(rng.random(400) < 0.2, labels, 0)
    for start in range(0, 400, 40):
        at = range(start, start + 40)
        rows = [prediction(i, prediction=f"c{answers[i]}", segments={"s": "ab"[i % 2]}) for i in at]
        stream.send("predictions", rows, T0 + start * 20)
        stream.send("labels", [label(i, f"c{labels[i]}") for i in at], T0 + start * 20)
    stream.close()
    found = stream.samples()
    for window in ("last_500", "1h"):
        expected = precision_recall_fscore_support(
            labels, answers, average="macro", zero_division=0
        )
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert found[f"model_{name}", "m", "1", window] == pytest.approx(value)
    of_a = precision_recall_fscore_support(
        labels[::2], answers[::2], average="macro", zero_division=0
    )
    assert found["model_segment_f1", "m", "1", "s=a", "last_500"] == pytest.approx(of_a[2])
    told = {(str(a["segment"]), a["subject"]) for a in stream.told() if a["kind"] == "performance"}
    assert ("None", "recall") in told
    assert {subject for _, subject in told} == {"recall"}, "its weighted average is 0.84"
    weighted = parse('{"defaults": {"task": "multiclass", "windows": ["last_500", "1h"]}}').core
    parts = {k: v or b"" for k, v in stream.shard.snapshot().items()}
    again = Shard.restore(0, weighted, parts, {})
    f1 = precision_recall_fscore_support(labels, answers, average="weighted", zero_division=0)[2]
    (shown,) = [s[2] for s in again.samples() if s[0] == "model_f1" and s[1][-1] == "1h"]
    assert shown == pytest.approx(f1), "another average reads the same sums"
