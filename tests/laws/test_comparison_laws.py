"""
Champion against challenger: the numbers are those of scikit-learn, scipy and plain Python, and what
must not matter (order, spelling, copies of rows) does not.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from stream_monitor.errors import InputError
from stream_monitor.lifecycle.champion import decide
from stream_monitor.lifecycle.comparison import paired_bootstrap, paired_means
from stream_monitor.lifecycle.events import RESULT_BYTES_MAX
from stream_monitor.lifecycle.matched_metrics import METRICS, Said, Truth, compared
from stream_monitor.lifecycle_settings import Decide

Z = stats.norm.ppf(0.95)
SKLEARN = {
    "accuracy": lambda y, p, s: sk.accuracy_score(y, p),
    "error_rate": lambda y, p, s: 1 - sk.accuracy_score(y, p),
    "brier": lambda y, p, s: sk.brier_score_loss(y, s),
    "log_loss": lambda y, p, s: sk.log_loss(y, s),
    "absolute_error": lambda y, p, s: sk.mean_absolute_error(y, p),
    "squared_error": lambda y, p, s: sk.mean_squared_error(y, p),
    "rmse": lambda y, p, s: math.sqrt(sk.mean_squared_error(y, p)),
    "r2": lambda y, p, s: sk.r2_score(y, p),
    "precision": lambda y, p, s: sk.precision_score(y, p),
    "recall": lambda y, p, s: sk.recall_score(y, p),
    "f1": lambda y, p, s: sk.f1_score(y, p),
    "roc_auc": lambda y, p, s: sk.roc_auc_score(y, s),
}


def model(rng: np.random.Generator, y: np.ndarray, wrong: float) -> Said:
    code = np.where(rng.random(len(y)) < wrong, 1 - y, y)
    score = np.clip(code * 0.5 + 0.25 + rng.normal(0, 0.15, len(y)).round(2), 0.01, 0.99)
    return Said(code, code.astype(float), score)


def world(seed: int, n: int = 400, wrong: tuple[float, float] = (0.2, 0.15)) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    truth = Truth(y, y.astype(float), 1, 2)
    return truth, (model(rng, y, wrong[0]), model(rng, y, wrong[1]))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_scikit_learn(name):
    truth, said = world(1)
    found = compared(METRICS[name], truth, said)
    values = [SKLEARN[name](truth.code, s.code, s.score) for s in said]
    assert [found.champion, found.challenger] == pytest.approx(values)
    sign = -1 if METRICS[name].less_is_better else 1
    assert found.gain == pytest.approx(sign * (values[1] - values[0]))
    assert found.lower < found.gain < found.upper


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_several_classes_are_weighted_as_in_scikit_learn(name):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 500)
    number = y.astype(float)

    def one() -> Said:
        return Said(np.where(rng.random(500) < 0.3, rng.integers(0, 3, 500), y), number, number)

    said = one(), one()
    found = compared(METRICS[name], Truth(y, number, -1, 4), said)
    score = getattr(sk, f"{name}_score")
    for value, s in zip((found.champion, found.challenger), said, strict=True):
        assert value == pytest.approx(score(y, s.code, average="weighted", zero_division=0))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 400))
def test_wald_is_that_of_a_table_with_half_a_pair_more_in_each_cell(better, worse, same):
    a = np.repeat([0.0, 1, 1], [better, worse, same])
    b = np.repeat([1.0, 0, 1], [better, worse, same])
    found = paired_means(a, b)
    n, up, down = len(a) + 2, better + 0.5, worse + 0.5
    mean = (up - down) / n
    error = math.sqrt(up + down - (up - down) ** 2 / n) / n
    if better or worse:
        assert found.lower == pytest.approx(mean - Z * error, abs=1e-12)
        assert found.upper == pytest.approx(mean + Z * error, abs=1e-12)
    assert found.lower < 0 or found.gain > 0


def exact_size(n: int, differ: float) -> float:
    """How often equal models are called better, summed over all tables."""
    total = 0.0
    low, high = stats.binom.ppf([1e-7, 1 - 1e-7], n, differ).astype(int)
    for m in range(low, high + 1):
        # the bound rises with the wins, so the first count that passes decides
        first = next(
            (
                up
                for up in range(m // 2, m + 1)
                if paired_means(
                    np.repeat([0.0, 1, 1], [up, m - up, n - m]),
                    np.repeat([1.0, 0, 1], [up, m - up, n - m]),
                ).lower
                > 0
            ),
            m + 1,
        )
        total += stats.binom.pmf(m, n, differ) * stats.binom.sf(first - 1, m, 0.5)
    return total


@pytest.mark.parametrize(("n", "differ"), [(200, 0.1), (500, 0.03), (500, 0.3)])
def test_equal_models_are_called_better_in_at_most_five_percent(n, differ):
    assert 0.03 < exact_size(n, differ) <= 0.0501


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=60
    )
)
def test_units_are_summed_as_in_plain_python(rows):
    names = sorted({u for u, _, _ in rows})
    units = np.array([names.index(u) for u, _, _ in rows])
    a, b = (np.array([r[i] for r in rows]) for i in (1, 2))
    found = paired_means(a, b, units, less_is_better=True)
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for u, x, y in rows:
        sums[u][0] += x - y
        sums[u][1] += 1
    size = len(rows) / len(sums)
    there = [d * d for d, _ in sums.values() if d]
    if there:
        usual = sum(there) / len(there)
        n = len(rows) + 2 * size
        mean = sum(d for d, _ in sums.values()) / n
        # four halves of a unit, two of them with the usual difference, up and down
        more = [(math.sqrt(usual), size), (-math.sqrt(usual), size), (0, size), (0, size)]
        squares = sum((d - mean * k) ** 2 for d, k in sums.values())
        squares += sum((d - mean * k) ** 2 for d, k in more) / 2
        assert found.lower == pytest.approx(mean - Z * math.sqrt(squares) / n, rel=1e-9, abs=1e-9)
    assert found.gain == pytest.approx(float(np.mean(a - b)), abs=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(sorted(METRICS)), st.booleans())
def test_swapped_models_flip_the_sign(seed, name, by_unit):
    truth, said = world(seed, n=60)
    units = np.random.default_rng(seed).integers(0, 20, 60) if by_unit else None
    units = None if units is None else np.unique(units, return_inverse=True)[1]
    found = compared(METRICS[name], truth, said, units, seed=seed)
    other = compared(METRICS[name], truth, said[::-1], units, seed=seed)
    if found.is_defined:
        assert (found.gain, found.lower, found.upper) == pytest.approx(
            (-other.gain, -other.upper, -other.lower), abs=1e-9
        )


@pytest.mark.parametrize("copies", [2, 7])
def test_copies_of_all_rows_of_units_change_nothing(copies):
    truth, (a, b) = world(8, n=300)
    units = np.arange(300) // 3
    a, b = ((truth.code == s.code).astype(float) for s in (a, b))
    one = paired_means(a, b, units)
    first, other = np.tile(a, copies), np.tile(b, copies)
    many = paired_means(first, other, np.tile(units, copies))
    assert many[:5] == pytest.approx(one[:5])
    # as rows they would seem to know more
    rows = paired_means(first, other)
    assert rows.upper - rows.lower < (one.upper - one.lower) / math.sqrt(copies / 1.5)


def test_alike_rows_of_a_unit_are_not_evidence():
    """20 like rows a unit: equal models are promoted in 5 % of cases by units, by rows in 30 %."""
    rng = np.random.default_rng(5)
    by_rows = by_units = 0
    for _ in range(1_500):
        gain = np.repeat(rng.choice([-1.0, 0, 1], 100, p=[0.1, 0.8, 0.1]), 20)
        zero, units = np.zeros(2_000), np.repeat(np.arange(100), 20)
        by_rows += paired_means(zero, gain).lower > 0
        by_units += paired_means(zero, gain, units).lower > 0
    assert by_rows / 1_500 > 0.25
    assert by_units / 1_500 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1_500)


def area(y: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC curve by ranks; scikit-learn is too slow for a thousand samples."""
    ups = int(y.sum())
    ranks = stats.rankdata(score)[y == 1].sum() - ups * (ups + 1) / 2
    return float(ranks / (ups * (len(y) - ups)))


def f1(y: np.ndarray, code: np.ndarray) -> float:
    return float(2 * (y & code).sum() / (y.sum() + code.sum()))


def test_the_bootstrap_is_that_of_scipy():
    truth, (a, b) = world(12, n=300)
    found = compared(METRICS["roc_auc"], truth, (a, b), seed=3)

    def gain(i: np.ndarray) -> float:
        y = truth.code[i]
        return area(y, b.score[i]) - area(y, a.score[i])

    theirs = stats.bootstrap(
        (np.arange(300),),
        gain,
        n_resamples=1_500,
        vectorized=False,
        method="percentile",
        confidence_level=0.9,
        rng=np.random.default_rng(1),
    )
    error = theirs.standard_error
    assert found.lower == pytest.approx(theirs.confidence_interval.low, abs=0.2 * error)
    assert found.upper == pytest.approx(theirs.confidence_interval.high, abs=0.2 * error)


def test_the_bootstrap_draws_whole_units():
    """Each sample is made of the rows of its units."""
    truth, (a, b) = world(6, n=120)
    units = np.random.default_rng(1).integers(0, 15, 120)
    units = np.unique(units, return_inverse=True)[1]
    many = int(units.max()) + 1
    rng = np.random.default_rng(77)
    for name in ("roc_auc", "f1"):
        whole = compared(METRICS[name], truth, (a, b), units)
        gains = []
        for _ in range(600):
            rows = np.concatenate([np.flatnonzero(units == u) for u in rng.integers(0, many, many)])
            y = truth.code[rows]
            first, other = (
                area(y, s.score[rows]) if name == "roc_auc" else f1(y, s.code[rows]) for s in (a, b)
            )
            gains.append(other - first)
        error = float(np.std(gains))
        assert whole.lower == pytest.approx(np.quantile(gains, 0.05), abs=0.3 * error)
        assert whole.upper == pytest.approx(np.quantile(gains, 0.95), abs=0.3 * error)


def test_a_mean_has_the_same_bounds_in_both_ways():
    truth, said = world(2, n=3_000)
    right = [(truth.code == s.code).astype(float) for s in said]
    wald = paired_means(right[0], right[1])
    boot = paired_bootstrap(
        lambda w: (w @ right[0] / w.sum(1), w @ right[1] / w.sum(1)), 3_000, seed=5
    )
    assert boot.gain == pytest.approx(wald.gain)
    assert (boot.lower, boot.upper) == pytest.approx((wald.lower, wald.upper), abs=0.001)


# ---- files


def written(path: Path, rows: list[dict[str, Any]], order: np.ndarray | None = None) -> str:
    rows = rows if order is None else [rows[i] for i in order]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def rows_of(seed: int, n: int = 900, wrong: float = 0.2, **more: Any) -> list[dict[str, Any]]:
    """Rows of one model; the labels are those of every seed."""
    y = np.random.default_rng(99).integers(0, 2, n)
    rng = np.random.default_rng(seed)
    p = np.where(rng.random(n) < wrong, 1 - y, y)
    score = np.clip(p * 0.5 + 0.25 + rng.normal(0, 0.2, n), 0, 1).round(4)
    return [
        {
            "event_id": f"e{i}",
            "label": int(y[i]),
            "prediction": int(p[i]),
            "score": float(score[i]),
            "user": f"u{i % 211}",
            "country": "DE" if i % 3 else "FR",
            **{k: v(i) if callable(v) else v for k, v in more.items()},
        }
        for i in range(n)
    ]


def decided(paths: Sequence[str], settings: Decide, **more: Any) -> dict[str, Any]:
    a, b = paths
    return decide(a, b, settings, "r", **more)


def without(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in names} for r in rows]


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc", "f1"])
@pytest.mark.parametrize("ids", [True, False])
def test_the_order_of_rows_does_not_matter(tmp_path, metric, ids):
    a, b = rows_of(1), rows_of(2, wrong=0.15)
    if not ids:
        a, b = without(a, "event_id"), without(b, "event_id")
    settings = Decide(metric=metric, unit="user", segments=("country",))
    one = decide(written(tmp_path / "a.csv", a), written(tmp_path / "b.csv", b), settings, "run")
    rng = np.random.default_rng(3)
    order = rng.permutation(len(a))
    other = decide(
        written(tmp_path / "c.csv", a, order),
        written(tmp_path / "d.csv", b, rng.permutation(len(a)) if ids else order),
        settings,
        "run",
    )
    assert one == other
    assert decide(str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), settings, "run") == one


def test_formats_and_spellings_are_the_same_rows(tmp_path):
    a, b = rows_of(1), rows_of(2, wrong=0.1)
    words = {
        "csv": lambda r: {
            **r,
            "label": str(bool(r["label"])),
            "prediction": f"{r['prediction']}.0",
        },
        "jsonl": lambda r: {**r, "label": bool(r["label"]), "prediction": str(r["prediction"])},
        "parquet": lambda r: {**r, "label": float(r["label"]), "prediction": bool(r["prediction"])},
    }
    settings = Decide(unit="user")
    plain = decide(written(tmp_path / "a.csv", a), written(tmp_path / "b.csv", b), settings, "r")
    for kind, spelled in words.items():
        other = decide(
            str(tmp_path / "a.csv"),
            written(tmp_path / f"x.{kind}", [spelled(r) for r in b]),
            settings,
            "r",
        )
        assert other == plain


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_rows_without_a_label_are_left_out(tmp_path, missing):
    def blank(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**r, "label": missing if i % 10 == 0 else r["label"]} for i, r in enumerate(rows)]

    a, b = rows_of(1), rows_of(2)
    kept = [[r for i, r in enumerate(rows) if i % 10] for rows in (a, b)]
    kinds = ("csv", "jsonl") if missing != "" else ("csv",)
    for kind in kinds:
        found = decide(
            written(tmp_path / f"a.{kind}", blank(a)),
            written(tmp_path / f"b.{kind}", blank(b)),
            Decide(),
            "r",
        )
        assert found.pop("unlabelled") == 90
        only = decide(
            written(tmp_path / f"c.{kind}", kept[0]),
            written(tmp_path / f"d.{kind}", kept[1]),
            Decide(),
            "r",
        )
        assert only.pop("unlabelled") == 0
        assert found == only


def test_constant_predictions_and_one_class(tmp_path):
    a = rows_of(1)
    never = written(tmp_path / "never.csv", [{**r, "prediction": 0} for r in a])
    champion = written(tmp_path / "a.csv", a)
    assert decide(champion, never, Decide(), "r")["decision"] == "reject"
    found = decide(champion, never, Decide(metric="precision"), "r")
    assert (found["decision"], found["lower"], found["challenger"]) == ("inconclusive", None, None)
    assert decide(champion, never, Decide(metric="f1"), "r")["challenger"] == 0
    same = decide(never, never, Decide(), "r")
    assert same["decision"] == "reject"
    assert same["lower"] < 0 == same["difference"] < same["upper"]

    one = [{**r, "label": 0} for r in a]
    champion, other = written(tmp_path / "x.csv", one), written(tmp_path / "y.csv", one)
    for metric, decision in (
        ("roc_auc", "inconclusive"),
        ("recall", "inconclusive"),
        ("accuracy", "reject"),
        ("brier", "reject"),
    ):
        found = decide(champion, other, Decide(metric=metric), "r")
        assert (found["decision"], found["rows"]) == (decision, 900), metric
        json.dumps(found, allow_nan=False)


def test_classes_as_words(tmp_path):
    def spelled(rows: list[dict[str, Any]], words: tuple[str, str]) -> list[dict[str, Any]]:
        return [
            {**r, "label": words[r["label"]], "prediction": words[r["prediction"]]} for r in rows
        ]

    numbers = [written(tmp_path / f"{i}.csv", rows_of(i)) for i in (1, 2)]
    plain = decided(numbers, Decide(metric="f1"))
    for words, positive in ((("No", "Yes"), None), (("ham", "spam"), "spam")):
        paths = [written(tmp_path / f"w{i}.csv", spelled(rows_of(i), words)) for i in (1, 2)]
        found = decided(paths, Decide(metric="f1", positive_class=positive))
        assert found == plain
        if positive is not None:
            with pytest.raises(InputError, match="which class is positive"):
                decided(paths, Decide(metric="f1"))


def test_a_score_answers_without_a_prediction(tmp_path):
    a, b = rows_of(1), rows_of(2)
    by_score = [without(rows, "prediction") for rows in (a, b)]
    paths = [written(tmp_path / f"{i}.csv", rows) for i, rows in enumerate(by_score)]
    found = decided(paths, Decide())
    y = [r["label"] for r in a]
    assert found["champion"] == pytest.approx(sk.accuracy_score(y, [r["score"] >= 0.5 for r in a]))


FAULTS = {
    "lacks 3 rows of": lambda b: b[3:],
    "is in 2 rows": lambda b: [*b, b[0]],
    "both must be of the same held-out rows": lambda b: [
        {**b[0], "label": 1 - b[0]["label"]},
        *b[1:],
    ],
    "1 labelled rows have no prediction": lambda b: [{**b[0], "prediction": None}, *b[1:]],
    "no column `event_id`": lambda b: without(b, "event_id"),
    "no column `prediction` or `score`": lambda b: without(b, "prediction", "score"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_files_that_do_not_match_are_refused(tmp_path, message):
    a = written(tmp_path / "a.jsonl", rows_of(1))
    b = written(tmp_path / "b.jsonl", FAULTS[message](rows_of(2)))
    with pytest.raises(InputError, match=message):
        decide(a, b, Decide(), "r")
    if "prediction" not in message and "event_id" not in message and "2 rows" not in message:
        with pytest.raises(InputError, match="rows"):
            decide(b, a, Decide(), "r")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
        ({"unit": "session"}, "no column 'session'"),
        ({"segments": ("region",)}, "no column 'region'"),
        ({"metric": "f1", "positive_class": "7"}, "positive class '7'"),
        ({"segments": ("event_id",)}, "900 values"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, change, message):
    paths = [written(tmp_path / f"{i}.csv", rows_of(i)) for i in (1, 2)]
    with pytest.raises(InputError, match=message):
        decided(paths, Decide(**change))


# ---- the rule


def test_rules(tmp_path):
    worse, a, near, better = (
        written(tmp_path / f"{name}.csv", rows)
        for name, rows in (
            ("worse", rows_of(5, n=4_000, wrong=0.3)),
            ("a", rows_of(1, n=4_000)),
            ("near", [{**r, "prediction": r["prediction"]} for r in rows_of(1, n=4_000)]),
            ("better", rows_of(2, n=4_000, wrong=0.1)),
        )
    )
    not_worse = Decide(rule="not worse", margin=0.01)
    assert decide(a, better, Decide(), "r")["decision"] == "promote"
    assert decide(a, near, Decide(), "r")["decision"] == "reject"
    assert decide(a, worse, Decide(), "r")["decision"] == "reject"
    alone = decide(a, near, not_worse, "r")
    assert alone["decision"] == "inconclusive"
    assert "margins against the champion alone add up" in alone["reason"]
    assert decide(a, near, not_worse, "r", anchor_file=a)["decision"] == "promote"
    # a champion that crept down: the anchor stops the next step
    crept = decide(worse, a, not_worse, "r", anchor_file=better)
    assert crept["decision"] == "reject"
    assert crept["lower"] > 0 > crept["anchor"]["upper"]
    few = decide(a, better, Decide(min_rows=4_001), "r")
    assert (few["decision"], few["reason"]) == (
        "inconclusive",
        "4,000 labelled rows, and 4,001 are needed",
    )
    for found in (alone, crept, few):
        assert len(json.dumps(found)) < RESULT_BYTES_MAX


def test_alpha_is_divided_by_the_number_of_challengers(tmp_path):
    paths = [written(tmp_path / f"{i}.csv", rows_of(i)) for i in (1, 2)]
    one, ten = (decided(paths, Decide(), challengers=n) for n in (1, 10))
    same = decided(paths, Decide(alpha=0.005))
    assert ten["lower"] == same["lower"] < one["lower"]


def test_guards(tmp_path):
    a = written(tmp_path / "a.csv", rows_of(1, n=4_000, latency_ms=lambda i: 10 + i % 5))
    good = rows_of(2, n=4_000, wrong=0.1, latency_ms=lambda i: 10 + i % 5)
    b = written(tmp_path / "b.csv", good)
    harmed = [
        {**r, "prediction": 1 - r["label"]} if r["country"] == "FR" and i % 4 == 0 else r
        for i, r in enumerate(good)
    ]
    c = written(tmp_path / "c.csv", harmed)
    slow = written(
        tmp_path / "slow.csv", [{**r, "latency_ms": 13 + i % 5} for i, r in enumerate(good)]
    )
    by_country = Decide(segments=("country",))
    assert decide(a, b, by_country, "r")["decision"] == "promote"
    assert decide(a, c, Decide(), "r")["decision"] == "promote"
    found = decide(a, c, by_country, "r")
    assert (found["decision"], found["segments"][0]["value"]) == ("reject", "FR")
    assert found["reason"].startswith("country=FR may be worse by ")
    assert "latency_p95_ms 17 against 14" in decide(a, slow, Decide(), "r")["reason"]
    big = decide(a, b, Decide(), "r", model_bytes=(1_000, 2_001))
    assert (big["decision"], big["guards"]["model_bytes"]["passed"]) == ("reject", False)
    assert decide(a, b, Decide(), "r", model_bytes=(1_000, 2_000))["decision"] == "promote"
    assert decide(a, b, Decide(), "r", quality_passed=False)["decision"] == "reject"
    assert decide(a, b, Decide(), "r", quality_passed=True)["decision"] == "promote"


def test_a_small_segment_holds_up_nothing_unless_harm_is_shown(tmp_path):
    def small(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**r, "country": "MT" if i < 60 else r["country"]} for i, r in enumerate(rows)]

    a = written(tmp_path / "a.csv", small(rows_of(1, n=4_000)))
    good = small(rows_of(2, n=4_000, wrong=0.1))
    settings = Decide(segments=("country",))
    found = decide(a, written(tmp_path / "b.csv", good), settings, "r")
    assert found["decision"] == "promote"
    assert {s["value"]: s["verdict"] for s in found["segments"]}["MT"] in ("few", "harmless")
    bad = [{**r, "prediction": 1 - r["label"]} if i < 60 else r for i, r in enumerate(good)]
    found = decide(a, written(tmp_path / "c.csv", bad), settings, "r")
    assert (found["decision"], found["segments"][0]["verdict"]) == ("reject", "harmful")


def test_a_result_with_many_segments_stays_below_the_limit(tmp_path):
    rows = [rows_of(i, country=lambda i: f"{'é' * 300}{i % 150}") for i in (1, 2)]
    paths = [written(tmp_path / f"{i}.csv", r) for i, r in enumerate(rows)]
    found = decided(paths, Decide(segments=("country",)))
    assert found["segments_left_out"] == 130
    assert len(json.dumps(found).encode()) < RESULT_BYTES_MAX
