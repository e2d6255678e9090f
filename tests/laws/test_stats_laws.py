"""
Laws of the statistics: equal to numpy, scipy and scikit-learn on the same samples; sums of pieces
are the sums of the whole; what is undefined is said to be.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as sk

from stream_monitor.stats import divergence
from stream_monitor.stats.auc_bins import AUC_BOUND_MAX, auc_of_bins, logit_bins
from stream_monitor.stats.binning import BinTable, bins_of, edges_of
from stream_monitor.stats.class_sums import ClassSums, Positive
from stream_monitor.stats.classification import roc_auc, roc_auc_macro
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.stats.quantiles import LATENCY_EDGES, latency_bins, latency_quantile
from stream_monitor.stats.regression_sums import RegressionSums

counts = hnp.arrays(
    np.float64, st.tuples(st.just(2), st.integers(2, 12)), elements=st.integers(0, 200).map(float)
).filter(lambda c: bool((c.sum(axis=1) > 0).all()))
values = st.floats(-1e3, 1e3, allow_subnormal=False)


# ---- counts on bins


@settings(max_examples=150)
@given(
    st.lists(
        st.lists(st.one_of(values, st.just(math.nan)), min_size=3, max_size=3),
        min_size=1,
        max_size=40,
    ),
    st.lists(
        st.lists(values, min_size=0, max_size=5, unique=True).map(sorted), min_size=3, max_size=3
    ),
)
def test_bins_are_those_of_comparisons(rows, edges):
    x = np.ascontiguousarray(np.array(rows).T)
    first = np.array([0, 100, 200])
    found = bins_of(x, [np.array([*e, math.inf]) for e in edges], first)
    for f in range(3):
        expected = [
            len(edges[f]) + 1 if math.isnan(v) else sum(v >= edge for edge in edges[f])
            for v in x[f].tolist()
        ]
        assert (found[f] - first[f]).tolist() == expected


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(
        st.sampled_from(
            ["normal", "lognormal", "cauchy", "poisson", "zeros", "one value", "huge", "tiny"]
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_a_table_of_bins_is_a_search(seed, laws):
    rng = np.random.default_rng(seed)

    def drawn(law: str, n: int) -> np.ndarray:
        return {
            "normal": lambda: rng.normal(size=n),
            "lognormal": lambda: rng.lognormal(sigma=3, size=n),
            "cauchy": lambda: rng.standard_cauchy(n),
            "poisson": lambda: rng.poisson(3, n) * 1.0,
            "zeros": lambda: np.where(rng.random(n) < 0.6, 0, rng.lognormal(size=n)),
            "one value": lambda: np.full(n, 0.1),
            "huge": lambda: rng.normal(size=n) * 3e307,
            "tiny": lambda: rng.integers(0, 9, n) * 5e-324,
        }[law]()

    edges = [np.append(edges_of(drawn(law, 3_000)), np.inf) for law in laws]
    x = np.array([drawn(law, 500) for law in laws])
    for row, each in zip(x, edges, strict=True):
        # the edges themselves, and their neighbours
        near = np.concatenate([f(each[:-1], to) for f in (np.nextafter,) for to in (-np.inf, 0.0)])
        row[: len(near)], row[200 : 200 + len(each) - 1] = near, each[:-1]
        row[400:404] = -1.7e308, 1.7e308, -0.0, math.nan
    first = np.cumsum([7, *(len(e) + 9 for e in edges[:-1])])
    table = BinTable(edges, first)
    assert (table.bins_of(x) == bins_of(x, edges, first)).all()
    assert (table.bins_of(x[:, :3]) == bins_of(x[:, :3], edges, first)).all()


# ---- distances


@settings(max_examples=150)
@given(counts)
def test_distances_are_those_of_scipy(pair):
    p, q = pair[0], pair[1]
    middles = np.arange(len(p), dtype=float) * 1.5
    assert divergence.jensen_shannon(p[None], q[None])[0] == pytest.approx(
        jensenshannon(p, q, base=2), abs=1e-7
    )
    repeated = np.repeat(middles, p.astype(int)), np.repeat(middles, q.astype(int))
    assert divergence.ks(p[None], q[None])[0] == pytest.approx(
        scipy_stats.ks_2samp(*repeated, method="asymp").statistic, abs=1e-9
    )
    table = pair[:, pair.sum(axis=0) > 0]
    statistic = (
        scipy_stats.chi2_contingency(table, correction=False).statistic
        if table.shape[1] > 1
        else 0.0
    )
    assert divergence.chi2(p[None], q[None])[0] == pytest.approx(
        math.sqrt(statistic / table.sum()), abs=1e-9
    )
    p, q = p[(p + q) > 0], q[(p + q) > 0]
    share_p, share_q = (
        np.maximum(p, divergence.EMPTY) / p.sum(),
        np.maximum(q, divergence.EMPTY) / q.sum(),
    )
    expected = float(((share_q - share_p) * np.log(share_q / share_p)).sum())
    assert divergence.psi(p[None], q[None])[0] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100)
@given(counts, st.randoms(use_true_random=False), st.integers(2, 9))
def test_distances_are_symmetric_and_do_not_depend_on_names_or_scale(pair, rnd, factor):
    p, q = pair[:1], pair[1:]
    order = list(range(pair.shape[1]))
    rnd.shuffle(order)
    for distance in (divergence.psi, divergence.jensen_shannon, divergence.ks, divergence.chi2):
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-9)
        assert distance(p, p) == pytest.approx(np.zeros(1), abs=1e-7)
        assert (distance(p, q) >= 0).all()
        if distance is not divergence.ks:
            assert distance(p[:, order], q[:, order]) == pytest.approx(distance(p, q), abs=1e-9)
        if distance not in {
            divergence.chi2,
            divergence.psi,
        }:  # V weighs samples by their size, and an empty bin counts half a row
            assert distance(p * factor, q) == pytest.approx(distance(p, q), abs=1e-7)
    assert 0 <= divergence.chi2(p, q)[0] <= 1 + 1e-12
    assert 0 <= divergence.jensen_shannon(p, q)[0] <= 1 + 1e-12


@settings(max_examples=50)
@given(counts, counts)
def test_features_do_not_touch_each_other(one, other):
    width = min(one.shape[1], other.shape[1])
    one, other = one[:, :width] + 1, other[:, :width] + 1
    expected, actual = np.stack([one[0], other[0]]), np.stack([one[1], other[1]])
    for distance in (divergence.psi, divergence.jensen_shannon, divergence.ks, divergence.chi2):
        alone = [distance(expected[i : i + 1], actual[i : i + 1])[0] for i in range(2)]
        assert distance(expected, actual).tolist() == pytest.approx(alone, abs=1e-12)


def test_an_empty_sample_has_no_distance():
    full, empty = np.array([[1.0, 2.0]]), np.zeros((1, 2))
    for distance in (divergence.psi, divergence.jensen_shannon, divergence.ks, divergence.chi2):
        assert np.isnan(distance(full, empty)[0])
        assert np.isnan(distance(empty, full)[0])


def test_the_unbiased_psi_of_equal_samples_is_about_zero():
    rng = np.random.default_rng(1)
    draws = np.array(
        [
            divergence.psi(
                *(rng.multinomial(500, [0.05] * 20)[None].astype(float) for _ in range(2)),
                unbiased=True,
            )[0]
            for _ in range(400)
        ]
    )
    plain = np.array(
        [
            divergence.psi(
                *(rng.multinomial(500, [0.05] * 20)[None].astype(float) for _ in range(2))
            )[0]
            for _ in range(400)
        ]
    )
    assert plain.mean() == pytest.approx(19 * (1 / 500 + 1 / 500), rel=0.1)
    assert draws.mean() < 0.2 * plain.mean()


# ---- inference and quantiles


@settings(max_examples=200)
@given(st.integers(1, 5_000), st.floats(0, 1))
def test_the_wilson_interval_is_that_of_scipy(total, share):
    part = round(total * share)
    low, high = wilson_interval(part, total)
    expected = scipy_stats.binomtest(part, total).proportion_ci(0.99, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= part / total + 1e-12
    assert part / total - 1e-12 <= high <= 1


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.011, 600_000), min_size=1, max_size=200),
    st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]),
)
def test_latency_quantiles_are_near_those_of_numpy(latencies, q):
    ordered = np.sort(latencies)
    found = latency_quantile(
        np.bincount(latency_bins(ordered), minlength=len(LATENCY_EDGES) + 1).astype(float), q
    )
    assert found == pytest.approx(ordered[math.floor(q * (len(ordered) - 1) + 1e-9)], rel=0.022)


# ---- performance


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_the_area_under_the_curve_is_that_of_scikit_learn(rows):
    score, positive = np.array([s for s, _ in rows]), np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        assert roc_auc(score, positive) is None
    else:
        assert roc_auc(score, positive) == pytest.approx(
            sk.roc_auc_score(positive, score), abs=1e-12
        )


def test_the_macro_area_needs_every_class():
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([1, 1, 1], 60)
    actual = rng.integers(0, 3, 60)
    assert roc_auc_macro(probabilities, actual) == pytest.approx(
        sk.roc_auc_score(actual, probabilities, multi_class="ovr", average="macro"), abs=1e-12
    )
    assert roc_auc_macro(probabilities, actual % 2) is None
    assert roc_auc_macro(probabilities[:, :1], np.zeros(60, np.int64)) is None


@pytest.mark.parametrize(
    ("sharpness", "told"), [(0.3, False), (1.0, True), (4.0, True), (30.0, False)]
)
def test_the_area_of_bins_is_within_its_bound_or_not_told(sharpness, told):
    """Scores that lie in few bins, or beyond the last ones, have no area."""
    rng = np.random.default_rng(3)
    positive = rng.random(4_000) < 0.3
    score = 1 / (1 + np.exp(-sharpness * (rng.normal(size=4_000) + positive - 0.5)))
    found = auc_of_bins(
        *(
            np.bincount(logit_bins(score[positive == p]), minlength=256).astype(float)
            for p in (False, True)
        )
    )
    assert (found is not None) == told
    assert not told or found == pytest.approx(
        sk.roc_auc_score(positive, score), abs=AUC_BOUND_MAX / 4
    )


KINDS = ("binary", "multiclass", "regression")


def accumulator(kind, rng, n):
    """
    Layout of the sums, the function of rows, groups and their number, and the metrics of a vector
    of sums.
    """
    score = np.where(rng.random(n) < 0.1, np.nan, rng.random(n))
    if kind == "regression":
        columns = rng.normal(50, 3, n), rng.normal(50, 3, n)
        return RegressionSums.width, columns, RegressionSums.rows, RegressionSums.metrics
    sums = ClassSums(classes=2, candidates=1) if kind == "binary" else ClassSums(classes=5)
    read = Positive(positive=1, negative=0)

    def rows(predicted, actual, score, group, groups):
        class_scored = None if kind == "binary" else (-np.log(score), score**2)
        return sums.rows(
            predicted, actual, [score] if kind == "binary" else [], class_scored, group, groups
        )

    predicted = rng.integers(-1, sums.classes, n)
    actual = rng.integers(0, sums.classes, n)
    return (
        sums.width,
        (predicted, actual, score),
        rows,
        lambda vector: getattr(sums, kind)(vector, read),
    )


def grouped(rows, columns, group, groups):
    """Sums of the rows of each group, each taken alone."""
    return np.concatenate(
        [
            rows(*(c[group == g] for c in columns), np.zeros(int((group == g).sum()), np.int64), 1)
            for g in range(groups)
        ]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_sums_add_up_in_any_pieces_and_order(kind, seed):
    """
    Merging is adding: associative and commutative, and the metrics are those of all rows at once.
    """
    rng = np.random.default_rng(seed)
    n, groups = 400, 7
    width, columns, rows, metrics = accumulator(kind, rng, n)
    group = rng.integers(0, groups, n)
    panes = rows(*columns, group, groups)
    assert panes.shape == (groups, width)
    assert panes == pytest.approx(grouped(rows, columns, group, groups), rel=1e-12, abs=1e-9)
    whole = rows(*columns, np.zeros(n, np.int64), 1)[0]
    order = rng.permutation(groups)
    assert metrics(panes[order].sum(axis=0)) == pytest.approx(metrics(whole), rel=1e-9)
    assert metrics(panes[:3].sum(axis=0) + panes[3:].sum(axis=0)) == pytest.approx(
        metrics(whole), rel=1e-9
    )
    shuffled = rng.permutation(n)
    again = rows(*(c[shuffled] for c in columns), np.zeros(n, np.int64), 1)[0]
    assert metrics(whole)
    assert metrics(again) == pytest.approx(metrics(whole), rel=1e-9)
    assert metrics(np.zeros(width)) == {}


def test_every_accumulator_is_held_to_the_law():
    from stream_monitor.stats import class_sums, regression_sums

    found = {
        name
        for module in (class_sums, regression_sums)
        for name, value in vars(module).items()
        if isinstance(value, type) and name.endswith("Sums")
    }
    assert found == {"ClassSums", "RegressionSums"}
