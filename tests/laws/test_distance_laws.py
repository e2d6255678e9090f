"""
Laws of distances, quantiles and shares of features: within their stated error of what scipy and
numpy say of the raw values, or absent.

The values go through the monitor as rows, in pieces, so that layout, panes and bins are part of
what is held.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from stream_monitor.events.cells import (
    ABSENT_CELL,
    NULL_CELL,
    TOO_BIG_CELL,
    TRUE_CELL,
    WRONG_TYPE_CELL,
    Texts,
)
from stream_monitor.monitors.baseline import (
    Profile,
    category_profile,
    decode_profile,
    encode_profile,
    numeric_profile,
)
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.distances import SUPPORT_MIN, distances
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.quality import breaches, judge
from stream_monitor.monitors.readings import points
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Anomalies, Baseline, Feature, Limits, ModelSettings
from stream_monitor.stats.quantiles import quantile_of_bins

DRAWS = {
    "normal": lambda r, n: r.normal(5, 2, n),
    "lognormal": lambda r, n: r.lognormal(0, 1.5, n),
    "heavy": lambda r, n: r.standard_t(2, n),
    "uniform": lambda r, n: r.random(n),
    "two modes": lambda r, n: np.where(r.random(n) < 0.5, -10.0, 10.0) + r.normal(0, 0.1, n),
    "flag": lambda r, n: (r.random(n) < 0.03).astype(float),
    "half": lambda r, n: (r.random(n) < 0.5).astype(float),
    "zeros": lambda r, n: np.where(r.random(n) < 0.97, 0.0, r.lognormal(3, 1, n)),
    "a mode in the middle": lambda r, n: np.where(r.random(n) < 0.3, 0.25, r.normal(0, 1, n)),
    "a mode at the end": lambda r, n: np.minimum(r.normal(0, 1, n), 0.8),
    "counts": lambda r, n: r.poisson(3, n).astype(float),
    "many counts": lambda r, n: r.poisson(60, n).astype(float),
    "constant": lambda _, n: np.full(n, 7.0),
    "0": lambda _, n: np.zeros(n),
}
MOVES = {
    "not at all": lambda v, _: v,
    "a little": lambda v, _: v + 0.3 * (v.std() or 1.0),
    "far": lambda v, _: v + 40 * (v.std() or 1.0),
    "far down": lambda v, _: v - 1e6,
    "wider": lambda v, _: 3 * v - 2 * v.mean(),
    "to one value within": lambda v, _: np.full(len(v), np.median(v) + 1e-3),
    "half to the greatest": lambda v, r: np.where(r.random(len(v)) < 0.5, v.max(), v),
    "half to 0": lambda v, r: np.where(r.random(len(v)) < 0.5, 0.0, v),
}


def inputs_of(profile, **settings):
    return Inputs(
        lambda c: c, ModelSettings(**settings), Limits(), Profile(features={"x": profile})
    )


def fed(inputs, cells, texts=()):
    for part in np.array_split(np.asarray(cells, float), 3):
        if len(part):
            inputs.add(
                Rows(("x",), part[None], np.arange(len(part), dtype=np.int64) * 10, list(texts))
            )
    found, _, _ = inputs.window(0, 3_600_000)
    return found["x"]


def known_widths(profile):
    """
    Widths of the bins between the first and the last that are no single value's, and the greatest
    share of one.
    """
    edges, counts = np.array(profile.edges), np.array(profile.counts[1:-1])
    widths = np.diff(edges)
    many = np.nextafter(edges[:-1], np.inf) < edges[1:]
    share = counts[many].max() / profile.count if many.any() else 0.0
    inner = many.copy()
    inner[[0, -1]] = False
    return edges, widths, inner, share


def psi_of(p, q):
    """As docs/monitors.md has it: an empty bin counts half a row, less what chance alone gives."""
    a, b = np.where(p == 0, 0.5, p) / p.sum(), np.where(q == 0, 0.5, q) / q.sum()
    return max(
        float(((b - a) * np.log(b / a)).sum() - (len(p) - 1) * (1 / p.sum() + 1 / q.sum())), 0.0
    )


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("law", [stats.norm(), stats.t(3), stats.lognorm(0.8)])
def test_the_distance_of_continuous_laws_is_that_of_their_densities(law, shift):
    """
    The Jensen-Shannon distance on bins is at most 0.05 from that of the densities themselves, for
    20,000 rows.
    """
    rng = np.random.default_rng(9)
    before, now = law.rvs(20_000, random_state=rng), law.rvs(20_000, random_state=rng) + shift
    profile = numeric_profile(before, 0)
    found = distances(profile, fed(inputs_of(profile), now))
    x = np.linspace(-30, 30, 60_001)
    p, q = law.pdf(x), law.pdf(x - shift)
    assert found["js"] == pytest.approx(jensenshannon(p, q, base=2) if shift else 0.0, abs=0.05)
    assert found["ks"] == pytest.approx(np.abs(law.cdf(x) - law.cdf(x - shift)).max(), abs=0.05)


@pytest.mark.parametrize(("name", "move"), list(itertools.product(DRAWS, MOVES)))
@pytest.mark.parametrize("seed", [1, 2])
def test_distances_of_numbers_are_those_of_scipy(name, move, seed):
    rng = np.random.default_rng(seed)
    before, now = DRAWS[name](rng, 4_000), MOVES[move](DRAWS[name](rng, 1_500), rng)
    profile = decode_profile(
        encode_profile(Profile(features={"x": numeric_profile(before, 0)}))
    ).features["x"]
    found = distances(profile, fed(inputs_of(profile), now))
    edges, widths, inner, share = known_widths(profile)
    assert share <= 0.05 + 1e-3
    right_ks = stats.ks_2samp(before, now, method="asymp").statistic
    assert found["ks"] == pytest.approx(right_ks, abs=share + 1e-9)
    p = np.bincount(np.searchsorted(edges, before, side="right"), minlength=len(edges) + 1)
    q = np.bincount(np.searchsorted(edges, now, side="right"), minlength=len(edges) + 1)
    assert found["js"] == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    assert found["psi"] == pytest.approx(psi_of(p[p + q > 0], q[p + q > 0]), abs=1e-9)
    if np.ptp(before) == 0:
        assert "wasserstein" not in found
    else:
        right = stats.wasserstein_distance(before, now)
        p, q = p / p.sum(), q / q.sum()
        bound = (widths * inner * (p + q)[1:-1]).sum() / 2
        tails = sum(widths[i] * min(p[i + 1], q[i + 1]) for i in (0, -1))
        assert found["wasserstein"] * before.std() == pytest.approx(
            right, abs=bound + tails + 1e-9 * abs(right) + 1e-9
        )
        if move in {"far", "far down"}:
            assert found["wasserstein"] * before.std() == pytest.approx(right, rel=0.02)
    if right_ks > 0.2:
        assert min(found.values()) > 0.02, "0 is never said where much moved"


@pytest.mark.parametrize("name", DRAWS)
def test_a_baseline_is_at_no_distance_from_itself(name):
    values = DRAWS[name](np.random.default_rng(3), 3_000)
    profile = numeric_profile(values, 0)
    found = distances(profile, fed(inputs_of(profile), values))
    for method, value in found.items():
        assert value == pytest.approx(0, abs=1e-9 if method != "wasserstein" else 1e-6), method


@pytest.mark.parametrize(("name", "move"), list(itertools.product(DRAWS, MOVES)))
def test_quantiles_are_those_of_numpy_or_absent(name, move):
    rng = np.random.default_rng(4)
    before = DRAWS[name](rng, 4_000)
    now = np.sort(MOVES[move](DRAWS[name](rng, 1_501), rng))
    profile = numeric_profile(before, 0)
    counts = fed(inputs_of(profile), now).counts
    edges = np.array(profile.edges)
    for q in (0.01, 0.25, 0.5, 0.75, 0.99):
        value = quantile_of_bins(counts, edges, q, whole=profile.whole)
        right = float(np.quantile(now, q, method="inverted_cdf"))
        k = int(np.searchsorted(edges, right, side="right"))
        if value is None:
            unbound = k <= 1 or k >= len(edges) - 1
            assert unbound or (profile.whole and right != int(right)), (
                "only where bins have no bound, or no value of the baseline's kind"
            )
            continue
        assert edges[k - 1] <= value <= edges[k], "in the bin of its rank"
        if np.nextafter(edges[k - 1], np.inf) == edges[k]:
            assert value == right
        else:
            core = np.ptp(np.quantile(before, [0.01, 0.99]))
            assert abs(value - right) <= edges[k] - edges[k - 1] <= max(core, 1e-9), (
                "a bin is narrow"
            )
        if profile.whole and move == "not at all":
            assert value == int(value)


def test_bins_are_no_wider_than_a_tenth_of_the_way_between_the_tails():
    for name in ("normal", "lognormal", "heavy", "uniform", "two modes"):
        values = DRAWS[name](np.random.default_rng(5), 5_000)
        edges = np.array(numeric_profile(values, 0).edges)
        low, high = np.quantile(values, [0.01, 0.99])
        inner = edges[(edges >= low - 1e-9) & (edges <= high + 1e-9)]
        assert np.diff(inner).max() <= (high - low) / 10 * 1.0001
        assert len(edges) <= 60


# ---- categories


def texts_of(values):
    texts = Texts()
    return [texts[v] for v in values], texts.names


@pytest.mark.parametrize(
    "listed", [None, ["EUR", "USD"], ["USD", "EUR"], ["GBP", "USD", "CHF", "EUR"], ["EUR"], ["XXX"]]
)
@pytest.mark.parametrize("seed", range(3))
def test_distances_of_categories_do_not_depend_on_the_list(listed, seed):
    rng = np.random.default_rng(seed)
    names = np.array(["USD", "EUR", "GBP"])
    before, now = (
        rng.choice(names, 2_000, p=[0.8, 0.15, 0.05]),
        rng.choice(names, 700, p=[0.2, 0.3, 0.5]),
    )
    counts = {n: int((before == n).sum()) for n in names}
    rules = {} if listed is None else {"x": Feature(categories=tuple(listed))}
    profile = category_profile(counts, 0)
    for values, right in ((before, before), (now, now)):
        cells, texts = texts_of(values)
        inputs = inputs_of(profile, features=rules)
        window = fed(inputs, cells, texts)
        found = distances(profile, window)
        shares = [[(v == n).mean() for n in names] for v in (before, right)]
        assert found["js"] == pytest.approx(jensenshannon(*shares, base=2), abs=1e-7)
        table = np.array([[(v == n).sum() for n in names] for v in (before, right)])
        assert found["chi2"] == pytest.approx(
            np.sqrt(stats.chi2_contingency(table, correction=False).statistic / table.sum()),
            abs=1e-9,
        )
        plain = sum((b - a) * np.log(b / a) for a, b in zip(*shares, strict=True))
        assert found["psi"] == pytest.approx(
            max(plain - 2 * (1 / len(before) + 1 / len(right)), 0), abs=1e-9
        )
        allowed = names if listed is None else listed
        assert window.unknown == sum(~np.isin(values, allowed))


def test_text_that_is_not_told_apart_has_no_distance():
    profile = category_profile({"__other__": 500}, 0)
    cells, texts = texts_of([f"id {i}" for i in range(300)])
    window = fed(inputs_of(profile), cells, texts)
    assert distances(profile, window) == {}
    assert window.unknown == 0


def test_a_class_is_one_category_however_it_is_written():
    profile = category_profile({"1": 60, "0": 40}, 0)
    texts = Texts()
    window = fed(
        inputs_of(profile),
        [1.0, TRUE_CELL, texts["True"], texts["1.0"], texts["false"], 0.0],
        texts.names,
    )
    assert window.counts.tolist() == [4, 2, 0]


# ---- few rows, and baselines of nearly nothing


@pytest.mark.parametrize("n", [1, SUPPORT_MIN - 1, SUPPORT_MIN])
def test_a_window_of_few_rows_has_no_distance(n):
    profile = numeric_profile(np.arange(100.0), 0)
    assert bool(distances(profile, fed(inputs_of(profile), np.arange(n) + 1e6))) == (
        n >= SUPPORT_MIN
    )


def test_a_baseline_of_one_row():
    profile = numeric_profile(np.array([3.0]), 0)
    assert distances(profile, fed(inputs_of(profile), np.full(50, 3.0))) == {
        "psi": 0,
        "js": 0,
        "ks": 0,
    }
    moved = distances(profile, fed(inputs_of(profile), np.full(50, 3.5)))
    assert (moved["js"], moved["ks"]) == (1, 1)
    assert moved["psi"] > 1


@pytest.mark.parametrize("baseline", [category_profile({}, 100), numeric_profile(np.empty(0), 100)])
def test_a_baseline_without_values_has_no_distance(baseline):
    assert distances(baseline, fed(inputs_of(baseline), np.arange(50.0))) == {}


@pytest.mark.parametrize(
    "values",
    [
        [1e300, -1e300] * 50,
        [1.7e308, -1.7e308, 0.0] * 40,
        [5e-324, 0.0, -0.0] * 40,
        [-0.0] * 60,
        [1e18, 1e18 + 128] * 30,
    ],
)
def test_numbers_at_the_ends_of_doubles_make_a_profile_that_survives(values):
    profile = decode_profile(
        encode_profile(Profile(features={"x": numeric_profile(np.array(values), 0)}))
    ).features["x"]
    assert profile == numeric_profile(np.array(values), 0)
    found = distances(profile, fed(inputs_of(profile), values))
    assert {m: pytest.approx(v, abs=1e-6) for m, v in found.items()} == dict.fromkeys(found, 0.0)


# ---- what the baseline itself contains


def learnt(cells, texts=(), **settings):
    inputs = Inputs(
        lambda c: c, ModelSettings(baseline=Baseline(rows=len(cells)), **settings), Limits()
    )
    inputs.add(
        Rows(("x",), np.array(cells)[None], np.arange(len(cells), dtype=np.int64), list(texts))
    )
    return inputs


def alarmed(inputs, cells, texts=()):
    inputs.add(
        Rows(
            ("x",),
            np.array(cells)[None],
            np.arange(len(cells), dtype=np.int64) + 100_000_000,
            list(texts),
        )
    )
    return {
        v.key.detector
        for v in judge(Context("m", "1", inputs.settings), inputs, 100_000_000 + len(cells))
        if v.level != "ok"
    }


def mixed(rng, n, share, odd):
    return [odd if rng.random() < share else float(v) for v in rng.normal(0, 1, n)]


@pytest.mark.parametrize(
    "odd", ["text", TRUE_CELL, TOO_BIG_CELL, WRONG_TYPE_CELL, NULL_CELL, ABSENT_CELL]
)
def test_what_the_baseline_has_is_no_violation_and_more_of_it_is(odd):
    texts = Texts()
    odd = texts["N/A"] if odd == "text" else odd
    for seed in range(3):
        rng = np.random.default_rng(seed)
        inputs = learnt(mixed(rng, 3_000, 0.12, odd), texts.names)
        assert not alarmed(inputs, mixed(rng, 1_000, 0.12, odd), texts.names)
        assert alarmed(inputs, mixed(rng, 3_000, 0.35, odd), texts.names)


@pytest.mark.parametrize(
    ("rule", "odd"),
    [
        (Feature(min=-50.0), -100.0),
        (Feature(max=50.0), 100.0),
        (Feature(required=True), NULL_CELL),
        (Feature(required=True), ABSENT_CELL),
    ],
)
def test_a_rule_that_somebody_wrote_down_holds_whatever_the_baseline_has(rule, odd):
    rng = np.random.default_rng(1)
    inputs = learnt(mixed(rng, 3_000, 0.12, odd), features={"x": rule})
    assert alarmed(inputs, mixed(rng, 1_000, 0.12, odd))
    assert len(breaches(inputs.profile, inputs.settings)) == 1
    assert not alarmed(
        learnt(mixed(rng, 3_000, 0, odd), features={"x": rule}), mixed(rng, 1_000, 0, odd)
    )


def test_configured_categories_hold_whatever_the_baseline_has():
    texts, rng = Texts(), np.random.default_rng(1)
    inputs = learnt(
        np.array([texts[c] for c in rng.choice(["a", "b", "c"], 900)]),
        texts.names,
        features={"x": Feature(categories=("a", "b"))},
    )
    assert [
        s for s in breaches(inputs.profile, inputs.settings) if "`x`" in s and "categories" in s
    ]
    assert alarmed(inputs, [texts[c] for c in rng.choice(["a", "b", "c"], 900)], texts.names)
    assert not alarmed(inputs, [texts[c] for c in rng.choice(["a", "b"], 9_000)], texts.names)


@pytest.mark.parametrize("odd", [TOO_BIG_CELL, WRONG_TYPE_CELL])
def test_a_feature_of_identifiers_or_lists_alone_is_quiet(odd):
    assert not alarmed(learnt([odd] * 500), [odd] * 500)


def test_one_rule_does_not_hide_another():
    """12 % text in the baseline; now none, and 12 % of numbers out of range."""
    texts, rng = Texts(), np.random.default_rng(1)
    inputs = learnt(
        mixed(rng, 3_000, 0.12, texts["N/A"]), texts.names, features={"x": Feature(min=-50.0)}
    )
    assert "range" in alarmed(inputs, mixed(rng, 2_000, 0.12, -100.0))


# ---- fences


def test_fences_of_one_value_are_the_ends_of_the_baseline():
    rng = np.random.default_rng(2)
    zeros = DRAWS["zeros"]
    inputs = learnt(zeros(rng, 4_000))
    assert not alarmed(inputs, zeros(rng, 2_000))
    assert dict(points(inputs))["x"] <= 3
    assert "iqr" in alarmed(learnt([7.0] * 500), [9.0] * 500), "a constant that moves"
    assert not alarmed(learnt([7.0] * 500), [7.0] * 500)


@pytest.mark.parametrize("fence", [0.3, 0.8, 3.0])
def test_fences_of_any_width_are_quiet_where_nothing_changed(fence):
    rng = np.random.default_rng(3)
    for name in ("normal", "lognormal", "heavy", "counts"):
        inputs = learnt(DRAWS[name](rng, 4_000), anomalies=Anomalies(fence=fence))
        assert not alarmed(inputs, DRAWS[name](rng, 4_000)), name
