"""
Which classes a model has and what its numbers are of: scikit-learn's numbers, in any order of rows,
and never a number of the wrong class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.metrics.samples import Sample
from stream_monitor.settings import CoreSettings, Drift, ModelSettings, Segment

T0 = 1_760_000_000_000
QUIET = Drift(errors={}, score={}, features={})
Row = dict[str, Any]


def folded(rows: Sequence[Row], cut: int = 64, **settings: Any) -> tuple[Shard, list[Row]]:
    """A shard that took these rows, each a prediction with its label, and the alerts that fired."""
    core = CoreSettings(
        defaults=ModelSettings(
            drift=QUIET, windows=("last_10000", "24h"), segments=(Segment(name="s"),), **settings
        )
    )
    ingest, shard = Ingest(1), Shard(0, core)
    for start in range(0, len(rows), cut):
        part = list(enumerate(rows))[start : start + cut]
        now, at = T0 + (start + cut) * 100, np.arange(start, start + len(part))
        for kind in ("predictions", "labels"):
            events = [
                {
                    "event_id": str(i),
                    "model": "m",
                    "timestamp": T0 + i * 100,
                    **(
                        {"label": row["label"]}
                        if kind == "labels"
                        else {k: v for k, v in row.items() if k != "label"}
                    ),
                }
                for i, row in part
            ]
            assert not ingest.take(
                f"{kind}@x/0",
                kind,
                [json.dumps(e).encode() for e in events],
                at,
                np.full(len(at), now),
            )
        for record in ingest.flush(now).get(0, []):
            shard.fold(record)
    shard.close()
    return shard, [
        a
        for out in shard.outbox
        if out.topic == "alerts" and (a := json.loads(out.value))["status"] == "firing"
    ]


def told(shard: Shard, segment: str = "") -> list[dict[str, float]]:
    """Metrics of each window, of the whole or of a slice."""
    found: dict[str, dict[str, float]] = {}
    prefix = "model_segment_" if segment else "model_"
    for sample in shard.samples():
        if (
            isinstance(sample, Sample)
            and sample.name.startswith(prefix)
            and sample.labels[2:-1] == ((f"s={segment}",) if segment else ())
            and sample.labels[-1] in ("last_10000", "24h")
        ):
            found.setdefault(sample.labels[-1], {})[sample.name.removeprefix(prefix)] = sample.value
    return list(found.values())


def rows_of(
    rng: np.random.Generator, n: int, names: tuple[str, str], strength: float = 1.0
) -> list[Row]:
    """
    A model whose score is the probability of the second name, and calibrated with a strength of 1.
    """
    score = rng.beta(0.6, 1.5, n).round(4).clip(0.001, 0.999)
    true = rng.random(n) < (score if strength == 1 else 1 - score)
    return [
        {
            "prediction": names[int(s >= 0.5)],
            "score": float(s),
            "label": names[int(t)],
            "segments": {"s": "uv"[i % 2]},
        }
        for i, (s, t) in enumerate(zip(score, true, strict=True))
    ]


def of_class(rows: list[Row], positive: str, segment: str = "") -> dict[str, float]:
    """
    What scikit-learn says of them: a label of a third class is not of the positive one, and wrong
    unless it was answered.
    """
    rows = [r for r in rows if not segment or r["segments"]["s"] == segment]
    y, p, s = ([r[k] for r in rows] for k in ("label", "prediction", "score"))
    is_positive, answered = (
        np.array([c == positive for c in y]),
        np.array([c == positive for c in p]),
    )
    found = {
        "accuracy": sk.accuracy_score(y, p),
        "precision": sk.precision_score(is_positive, answered),
        "recall": sk.recall_score(is_positive, answered),
        "log_loss": sk.log_loss(is_positive, s),
        "brier_score": sk.brier_score_loss(is_positive, s),
        "roc_auc": sk.roc_auc_score(is_positive, s),
    }
    return {k: float(v) for k, v in found.items()}


def check(shard: Shard, rows: list[Row], positive: str, segment: str = "") -> None:
    right, windows = of_class(rows, positive, segment), told(shard, segment)
    assert len(windows) == 2
    for found in windows:
        bound = {"roc_auc": found.pop("roc_auc")} if "roc_auc" in found else {}
        assert {k: found[k] for k in right if k != "roc_auc"} == pytest.approx(
            {k: v for k, v in right.items() if k != "roc_auc"}, abs=1e-9
        )
        assert bound == pytest.approx({"roc_auc": right["roc_auc"]} if bound else {}, abs=0.02)


def said(shard: Shard) -> tuple[str, str | None, str | None]:
    version = shard.summary()["models"]["m"]["versions"][""]
    return version["task"], version.get("positive_class"), version.get("positive_class_source")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("order", ["as it came", "by label", "by label, turned round"])
@pytest.mark.parametrize("names", [("ok", "bad"), ("good", "bad"), (2, 1), ("no", "Yes")])
def test_the_score_is_of_the_class_that_is_answered_with_it(names, order, seed):
    """In any order of rows, and nobody is warned on the way."""
    rows = rows_of(np.random.default_rng(seed), 1_500, names)
    if order != "as it came":
        rows = sorted(
            rows, key=lambda r: (r["label"] == names[1]) != (order == "by label, turned round")
        )
    shard, alerts = folded(rows)
    assert said(shard) == ("binary", str(names[1]), "name" if names[1] == "Yes" else "score")
    check(shard, rows, names[1])
    check(shard, rows, names[1], "u")
    assert [a for a in alerts if a["subject"] == "score_contradicts_prediction"] == []


@pytest.mark.parametrize("names", [("ok", "bad"), (1, 2), (0, 1)])
def test_a_model_that_is_always_wrong_is_not_taken_for_one_whose_score_is_of_the_other_class(names):
    rows = rows_of(np.random.default_rng(3), 1_500, names, strength=-1.0)
    shard, alerts = folded(rows)
    assert said(shard)[1] == str(names[1])
    assert of_class(rows, names[1])["roc_auc"] < 0.2
    check(shard, rows, names[1])
    assert [a for a in alerts if a["subject"] == "score_contradicts_prediction"] == []


@pytest.mark.parametrize("names", [("no", "yes"), (0, 1), (False, True)])
def test_scores_turned_round_are_a_warning(names):
    rows = [{**r, "score": 1 - r["score"]} for r in rows_of(np.random.default_rng(4), 1_000, names)]
    shard, alerts = folded(rows)
    check(shard, rows, names[1])
    assert {a["severity"] for a in alerts if a["subject"] == "score_contradicts_prediction"} == {
        "warning"
    }


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_rare_classes_are_no_contradiction(share):
    """Scores of a rare class are hardly ever 0.5, and its answers begin lower or higher."""
    rng = np.random.default_rng(5)
    for limit in (0.1, 0.5, 0.9):
        score = rng.beta(share, 1, 3_000).round(5)
        rows = [
            {
                "prediction": int(s >= limit),
                "score": float(s),
                "label": int(rng.random() < s),
                "segments": {"s": "u"},
            }
            for s in score
        ]
        assert [a for a in folded(rows)[1] if a["subject"] == "score_contradicts_prediction"] == []


@pytest.mark.parametrize("task", ["auto", "binary"])
@pytest.mark.parametrize("third", [0.004, 0.15])
def test_labels_of_a_third_class(task, third):
    """Few of them leave a model binary, many do not, unless it is configured; by slices too."""
    rng = np.random.default_rng(6)
    rows = [
        {**r, "label": "unclear"} if rng.random() < third else r
        for r in rows_of(rng, 1_500, ("ok", "bad"))
    ]
    shard, alerts = folded(rows, task=task)
    if task == "auto" and third > 0.1:
        assert said(shard)[0] == "multiclass"
        for segment in ("", "u", "v"):
            mine = [r for r in rows if not segment or r["segments"]["s"] == segment]
            y, p = [r["label"] for r in mine], [r["prediction"] for r in mine]
            for found in told(shard, segment):
                assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, p), abs=1e-9)
                assert found["f1"] == pytest.approx(sk.f1_score(y, p, average="weighted"), abs=1e-9)
        return
    assert said(shard) == ("binary", "bad", "score")
    assert shard.summary()["models"]["m"]["versions"][""]["unexpected_classes"] == ["unclear"]
    assert "unexpected_class" in {a["subject"] for a in alerts}
    for segment in ("", "u", "v"):
        check(shard, rows, "bad", segment)


@pytest.mark.parametrize("scale", [1.0, 0.4, 1.9])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_class_scores_are_divided_by_their_sum_in_whatever_order_they_come(order, scale):
    rng, names = np.random.default_rng(7), ("cat", "dog", "eel")
    given = (rng.dirichlet([1, 1, 1], 900) * 0.5 * scale).clip(0, 1)
    shares = given / given.sum(axis=1, keepdims=True)
    true = np.array([rng.choice(3, p=p) for p in shares])
    rows = [
        {
            "score": {names[i]: float(g[i]) for i in (order if n % 2 else order[::-1])},
            "label": names[t],
            "segments": {"s": "u"},
        }
        for n, (g, t) in enumerate(zip(given, true, strict=True))
    ]
    shard, _ = folded(rows)
    right = {
        "accuracy": sk.accuracy_score(true, shares.argmax(axis=1)),
        "f1": sk.f1_score(true, shares.argmax(axis=1), average="weighted"),
        "log_loss": sk.log_loss(true, shares),
        "brier_score": float(((shares - np.eye(3)[true]) ** 2).sum(axis=1).mean()),
        "roc_auc": sk.roc_auc_score(true, shares, multi_class="ovr"),
    }
    assert said(shard)[0] == "multiclass"
    for segment in ("", "u"):
        for found in told(shard, segment):
            assert {k: found[k] for k in right if k in found} == pytest.approx(
                {k: v for k, v in right.items() if k in found}, abs=1e-9
            )


@pytest.mark.parametrize("pair", [(0, 1), (-1, 1), (-1.0, 1.0), ("-1", "1")])
def test_two_numbers_that_are_classes(pair):
    rng = np.random.default_rng(8)
    rows = [
        {"prediction": pair[int(a)], "label": pair[int(b)], "segments": {"s": "u"}}
        for a, b in rng.random((400, 2)) < (0.3, 0.4)
    ]
    shard, _ = folded(rows)
    assert said(shard) == ("binary", "1", "name")
    y, p = [r["label"] == pair[1] for r in rows], [r["prediction"] == pair[1] for r in rows]
    for found in told(shard):
        assert found["f1"] == pytest.approx(sk.f1_score(y, p), abs=1e-9)


@pytest.mark.parametrize("cut", [7, 64, 1_000])
@pytest.mark.parametrize("digits", [0, 6])
@pytest.mark.parametrize("first", [(0.0, 1.0), (-1.0, 1.0)])
def test_what_began_as_two_numbers_and_is_a_regression(first, digits, cut):
    """
    Amounts and counts, of which the first 200 were of two values: no value is lost, however many
    there are.
    """
    rng = np.random.default_rng(9)
    label = np.concatenate([rng.choice(first, 200), rng.normal(0, 3000, 800).round(digits)])
    answer = np.concatenate(
        [rng.choice(first, 200), (label[200:] + rng.normal(0, 1000, 800)).round(digits)]
    )
    shard, alerts = folded(
        [
            {"prediction": float(p), "label": float(y), "segments": {"s": "u"}}
            for p, y in zip(answer, label, strict=True)
        ],
        cut,
    )
    assert said(shard) == ("regression", None, None)
    assert cut == 1_000 or "task" in {
        a["subject"] for a in alerts
    }  # else nobody was told of another task
    for segment in ("", "u"):
        for found in told(shard, segment):
            assert {k: found[k] for k in ("mae", "r2")} == pytest.approx(
                {"mae": sk.mean_absolute_error(label, answer), "r2": sk.r2_score(label, answer)},
                abs=1e-9,
            )


def test_a_regression_with_texts_among_its_labels_stays_one():
    rng = np.random.default_rng(10)
    label, known = rng.integers(0, 50, 800), rng.random(800) > 0.1
    answer = label + rng.normal(size=800).round(2)
    rows = [
        {"prediction": float(p), "label": int(y) if k else "pending", "segments": {"s": "u"}}
        for p, y, k in zip(answer, label, known, strict=True)
    ]
    shard, alerts = folded(rows)
    assert said(shard)[0] == "regression"
    assert "unexpected_class" in {a["subject"] for a in alerts}
    for found in told(shard):
        assert found["mae"] == pytest.approx(
            sk.mean_absolute_error(label[known], answer[known]), abs=1e-9
        )
