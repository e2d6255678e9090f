"""
Laws of the statistics of experiments: sums of units are those of a plain loop, textbook numbers are
those of scipy, mixtures are integrals, cuts of a race do not matter, and what is looked at at every
flush is wrong no more often than it says. The same harness sees that an analysis by event is.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from stream_monitor.stats.confidence_sequences import half_width, log_evidence_above
from stream_monitor.stats.failure_race import HAZARDS, advance, log_evidence, start
from stream_monitor.stats.fixed_horizon import (
    cohens_d,
    cohens_h,
    two_proportions,
    welch,
)
from stream_monitor.stats.sample_ratio import log_evidence_of_mismatch
from stream_monitor.stats.sample_size import (
    design_effect,
    information_needed,
    plan,
    variances_of_shares,
)
from stream_monitor.stats.student import student_p
from stream_monitor.stats.unit_sums import (
    N,
    difference,
    effective_units,
    log_ratio,
    mean_and_variance,
    rarer_answers,
    unit_terms,
)

ordinary = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(ordinary, min_size=2, max_size=40)


def sums_of(values):
    """Six sums of a sample in which each unit has one outcome."""
    x = np.asarray(values, float)
    return unit_terms(np.ones(len(x)), x).sum(axis=0)


# ---- sums by unit


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(-50, 50), st.integers(-50, 50)), max_size=60)
)
def test_corrected_outcomes_leave_the_sums_of_the_last_ones(outcomes):
    """Outcome k of a unit comes with one value and is corrected to another; order is free."""
    n, x, sums = np.zeros(7), np.zeros(7), np.zeros(6)
    for unit, first, corrected in outcomes:
        for dn, dx in ((1, first), (0, corrected - first)):
            before = unit_terms(n[unit], x[unit])
            n[unit], x[unit] = n[unit] + dn, x[unit] + dx
            sums += unit_terms(n[unit], x[unit]) - before
    by_unit = [[c for u, _, c in outcomes if u == unit] for unit in range(7)]
    told = [(len(v), sum(v)) for v in by_unit if v]
    assert sums.tolist() == [
        sum(f(a, b) for a, b in told)
        for f in (
            lambda _a, _b: 1,
            lambda a, _b: a,
            lambda _a, b: b,
            lambda a, _b: a * a,
            lambda a, b: a * b,
            lambda _a, b: b * b,
        )
    ]


def test_the_variance_is_that_of_a_regression_with_clustered_errors():
    """The sandwich of a regression on a constant, with the factor U / (U - 1)."""
    rng = np.random.default_rng(3)
    unit = rng.integers(0, 50, 400)
    y = rng.normal(rng.normal(0, 1, 50)[unit], 1)
    n, x = np.bincount(unit, minlength=50), np.bincount(unit, y, 50)
    mean, variance = mean_and_variance(unit_terms(n, x).sum(axis=0))
    residual = y - y.mean()
    score = np.bincount(unit, residual, 50)
    units = (n > 0).sum()
    assert mean == pytest.approx(y.mean())
    assert variance == pytest.approx((score @ score) / len(y) ** 2 * units / (units - 1))


@given(samples)
def test_with_one_outcome_a_unit_the_variance_is_the_textbook_one(x):
    mean, variance = mean_and_variance(sums_of(x))
    assert mean == pytest.approx(np.mean(x), rel=1e-12, abs=1e-9)
    scale = np.square(x).sum()
    assert variance == pytest.approx(
        np.var(x, ddof=1) / len(x), rel=1e-9, abs=1e-13 * scale + 1e-300
    )


def test_what_does_not_vary_has_no_variance_and_few_units_have_no_end():
    for constant in (0.1, 1e-9, 123456.789, 1e15):
        assert mean_and_variance(sums_of([constant] * 100_000))[1] == 0
    assert mean_and_variance(sums_of([1e6, 1e6 + 100] * 100_000))[1] == pytest.approx(
        2_500 / 199_999, rel=1e-3
    )
    assert math.isinf(mean_and_variance(sums_of([3.0]))[1])
    mean, variance = mean_and_variance(np.zeros(6))
    assert np.isnan(mean)
    assert np.isinf(variance)
    assert half_width(0.0, 0.1, 0.05) == math.inf == half_width(math.inf, 0.1, 0.05)
    assert log_evidence_above(1.0, 0.0, 0.1) == 0 == log_evidence_above(math.nan, math.inf, 0.1)


def test_burn_in_is_counted_in_effective_units_and_rarer_answers():
    assert effective_units(sums_of([3.0] * 100)) == 100
    bot = unit_terms([1] * 99 + [1_000], np.zeros(100)).sum(axis=0)
    assert effective_units(bot) == pytest.approx(1_099**2 / 1_000_099)
    assert effective_units(np.zeros(6)) == 0
    assert rarer_answers(sums_of([1, 0, 0, 0])) == rarer_answers(sums_of([1, 1, 0])) == 1


def test_the_variance_of_a_log_ratio_is_that_of_its_simulation():
    rng = np.random.default_rng(8)
    x, y = rng.gamma(2, 1, (2_000, 400)), rng.gamma(2, 1.5, (2_000, 100))
    a, b = (unit_terms(np.ones_like(z), z).sum(axis=1) for z in (x, y))
    estimate, variance = np.array([log_ratio(*arms) for arms in zip(a, b, strict=True)]).T
    assert estimate.mean() == pytest.approx(math.log(1.5), abs=0.01)
    assert variance.mean() == pytest.approx(estimate.var(), rel=0.1)
    assert math.isnan(log_ratio(sums_of([1, 2]), sums_of([-1, -2]))[0])
    assert log_ratio(sums_of([1, 2]), sums_of([-1, -2]))[1] == math.inf


# ---- mixtures


def mixture(d, w, effect, low):
    """Log of the integral of likelihood ratios over effects, by quadrature around its peak."""
    precision = 1 / w + 1 / effect**2
    top, width = d / w / precision, precision**-0.5
    start_at, end = max(low, top - 12 * width), max(low, top) + 12 * width

    def log_term(delta):
        return delta * d / w - delta**2 / (2 * w) + scipy_stats.norm.logpdf(delta, 0, effect)

    peak = log_term(max(low, top))
    area, _ = integrate.quad(lambda v: math.exp(log_term(v) - peak), start_at, end, epsrel=1e-11)
    return peak + math.log(area * (2 if low == 0 else 1))


@settings(max_examples=40, deadline=None)
@given(st.floats(-6, 12), st.floats(-4, 4), st.floats(1e-3, 10))
def test_evidence_is_the_integral_over_effects(z, log_information, effect):
    w = effect**2 * math.exp(-log_information)
    d = z * math.sqrt(w)
    found = log_evidence_above(d, w, effect)
    assert found == pytest.approx(mixture(d, w, effect, 0.0), abs=1e-7, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(-4, 6), st.floats(1e-3, 10), st.floats(1e-6, 0.5))
def test_an_interval_ends_where_the_two_sided_mixture_has_evidence(log_information, effect, alpha):
    w = effect**2 * math.exp(-log_information)
    half = half_width(w, effect, alpha)
    assert mixture(half, w, effect, -math.inf) == pytest.approx(-math.log(alpha), abs=1e-6)


@pytest.mark.parametrize("z", [-1e6, -1e5, -300.5, -37.6, -5.0001, -4.9999, 0, 4, 38, 1e6])
def test_evidence_is_right_far_out(z):
    """With information ρ: z = d·√I/√2. SciPy's `log_ndtr` cancels below; its `erfcx` does not."""
    from scipy.special import erfcx, log_ndtr

    found = log_evidence_above(z * math.sqrt(2), 1.0, 1.0)
    joint = math.log(erfcx(-z / math.sqrt(2)) / 2) if z < 0 else z * z / 2 + log_ndtr(z)
    assert found == pytest.approx(math.log(2) - math.log(2) / 2 + joint, rel=1e-13)


def test_the_effect_and_alpha_are_checked():
    for effect in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="effect: expected a positive number"):
            half_width(1.0, effect, 0.05)
    with pytest.raises(ValueError, match="alpha: expected a number between 0 and 1"):
        half_width(1.0, 1.0, 5)


# ---- sample ratio


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=2, max_size=5),
    st.floats(1, 300),
)
def test_the_sample_ratio_is_a_product_of_predictions(arms, concentration):
    """Each unit is predicted from those before it; the order does not matter."""
    counts, weights = zip(*arms, strict=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(np.repeat(np.arange(len(arms)), counts))
    seen, expected = np.array(weights) / sum(weights) * concentration, 0.0
    for arm in order:
        expected += math.log(seen[arm] / seen.sum() / (weights[arm] / sum(weights)))
        seen[arm] += 1
    found = log_evidence_of_mismatch(counts, weights, concentration)
    assert found == pytest.approx(expected, abs=1e-9)


def test_arms_without_weight_or_units():
    assert log_evidence_of_mismatch([0, 0], [1, 1]) == 0
    assert log_evidence_of_mismatch([7, 5, 0], [1, 1, 0]) == pytest.approx(
        log_evidence_of_mismatch([7, 5], [50, 50])
    )
    assert log_evidence_of_mismatch([7, 5, 1], [1, 1, 0]) == math.inf
    assert log_evidence_of_mismatch([700, 0], [1, 1]) > 100
    assert log_evidence_of_mismatch([700, 0], [1, 0]) == pytest.approx(0, abs=1e-9)
    for counts, weights in (([1], [1, 1]), ([-1, 1], [1, 1]), ([1, 1], [0, 0])):
        with pytest.raises(ValueError, match=r"counts|weights"):
            log_evidence_of_mismatch(counts, weights)


# ---- the race


trials = st.lists(st.tuples(st.booleans(), st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9])))


def plain_race(rows):
    """The race as a loop over products."""
    products, peak, newest = [1.0] * len(HAZARDS), 1.0, 1.0
    for in_arm, share in rows:
        products = [
            p * (h if in_arm else 1.0) / (1 + share * (h - 1))
            for p, h in zip(products, HAZARDS, strict=True)
        ]
        newest = sum(products) / len(products)
        peak = max(peak, newest)
    return math.log(newest), math.log(peak)


@given(trials, st.lists(st.integers(0, 60), max_size=5))
def test_cuts_of_a_race_do_not_matter_to_the_last_bit(rows, cuts):
    in_arm = np.array([a for a, _ in rows], bool)
    share = np.array([s for _, s in rows])
    whole = advance(start(), in_arm, share)
    pieces = singles = start()
    for piece in np.split(np.arange(len(rows)), sorted(min(c, len(rows)) for c in cuts)):
        pieces = advance(pieces, in_arm[piece], share[piece])
    for i in range(len(rows)):
        singles = advance(singles, in_arm[i : i + 1], float(share[i]))
    assert whole == pieces == singles
    newest, peak = plain_race(rows)
    assert log_evidence(whole) == pytest.approx(newest, abs=1e-9)
    assert whole.peak == pytest.approx(peak, abs=1e-9)
    assert (whole.in_control, whole.in_arm) == (int((~in_arm).sum()), int(in_arm.sum()))


def test_a_share_that_is_none_is_refused():
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="share: expected numbers from 0 to 1"):
            advance(start(), np.array([True]), share)


# ---- textbook numbers


@given(samples, samples)
def test_welch_is_that_of_scipy(a, b):
    found = welch(sums_of(a), sums_of(b))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = scipy_stats.ttest_ind(b, a, equal_var=False)
    spread = min(np.std(a) / (np.abs(a).max() or 1), np.std(b) / (np.abs(b).max() or 1))
    if spread > 1e-3:  # raw sums lose the digits of the square of mean / sd
        assert found.t == pytest.approx(expected.statistic, rel=1e-8, abs=1e-8)
        assert found.df == pytest.approx(expected.df, rel=1e-8)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)
    elif max(a) == min(a) and max(b) == min(b):
        assert math.isnan(found.t)


def test_textbook_numbers_are_those_of_scipy():
    rng = np.random.default_rng(2)
    for n, m, shift in ((2, 2, 0.3), (3, 50, 0), (400, 90, 0.2), (20_000, 30_000, 0.5)):
        a, b = rng.normal(1, 1, n), rng.normal(1 + shift, 2, m)
        found, expected = (
            welch(sums_of(a), sums_of(b)),
            scipy_stats.ttest_ind(b, a, equal_var=False),
        )
        assert found.t == pytest.approx(expected.statistic, rel=1e-10)
        assert found.df == pytest.approx(expected.df, rel=1e-10)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-10)
        squares = (n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)
        d = (b.mean() - a.mean()) / math.sqrt(squares / (n + m - 2))
        assert cohens_d(sums_of(a), sums_of(b)).estimate == pytest.approx(d, rel=1e-10)


def test_two_proportions_are_a_table_of_two_by_two():
    for (x, n), (y, m) in (((50, 100), (65, 100)), ((1, 4), (900, 1_000)), ((0, 30), (3, 9))):
        a, b = sums_of([1] * x + [0] * (n - x)), sums_of([1] * y + [0] * (m - y))
        z, p = two_proportions(a, b)
        table = scipy_stats.chi2_contingency([[x, n - x], [y, m - y]], correction=False)
        assert z * z == pytest.approx(table.statistic)
        assert p == pytest.approx(table.pvalue)
        h = cohens_h(a, b)
        assert h.estimate == pytest.approx(
            2 * (math.asin(math.sqrt(y / m)) - math.asin(math.sqrt(x / n)))
        )
        se = math.sqrt(1 / (n - (0 < x < n)) + 1 / (m - (0 < y < m)))
        assert h.high - h.estimate == pytest.approx(scipy_stats.norm.ppf(0.975) * se)


def test_the_intervals_of_effect_sizes_hold_at_one_look():
    rng = np.random.default_rng(11)
    inside = np.zeros(2)
    for _ in range(400):
        a, b = rng.normal(0, 1, 80), rng.normal(0.5, 1, 120)
        d = cohens_d(sums_of(a), sums_of(b))
        h = cohens_h(sums_of(rng.random(80) < 0.3), sums_of(rng.random(120) < 0.5))
        truth = 2 * (math.asin(0.5**0.5) - math.asin(0.3**0.5))
        inside += d.low <= 0.5 <= d.high, h.low <= truth <= h.high
    assert (np.abs(inside / 400 - 0.95) < 0.035).all()


def test_what_is_not_defined_is_nan():
    one, constant, varied = sums_of([1.0]), sums_of([0.1] * 9), sums_of([0.0, 1, 0, 1])
    assert all(math.isnan(v) for v in welch(one, varied)[1:])
    assert all(math.isnan(v) for v in welch(constant, sums_of([0.3] * 5))[1:])
    assert all(math.isnan(v) for v in cohens_d(constant, constant))
    assert all(math.isnan(v) for v in two_proportions(sums_of([1, 1]), sums_of([1])))
    assert all(math.isnan(v) for v in cohens_h(one, varied))
    found = welch(sums_of([1.0, 1, 1]), varied)  # one constant arm: a test of one sample
    expected = scipy_stats.ttest_1samp([0, 1, 0, 1], 1)
    assert found.t == pytest.approx(expected.statistic)
    assert found.df == pytest.approx(expected.df)


@pytest.mark.parametrize("df", [0.5, 1, 1.5, 2, 3, 10, 37.3, 500, 4_999, 5_001, 1e5, 1e8])
def test_p_is_that_of_scipy_down_to_the_smallest(df):
    for t in (0.01, 0.5, 1, 1.5, 2, 4, 10, 20, 36, 100, 1e3, 1e20, 1e100):
        expected = 2 * scipy_stats.t.sf(t, df)
        assert student_p(t, df) == pytest.approx(expected, rel=1e-10, abs=1e-307)
        assert student_p(-t, df) == student_p(t, df)


def test_p_of_one_degree_of_freedom_is_an_arctangent():
    for t in (1e-300, 1e-6, 1.0, 1e160, 1e300):
        assert student_p(t, 1) == pytest.approx(2 / math.pi * math.atan2(1, t), rel=1e-12)
    assert student_p(math.inf, 3) == 0
    assert math.isnan(student_p(1.0, 0))
    assert math.isnan(student_p(math.nan, 3))


# ---- looked at at every flush


def ever_different(rng, *, units, events, spread, by_event, share=0.5, effect=0.1, alpha=0.05):
    """
    Whether an A/A test is declared different at any of its looks.

    Users come and stay: each has its own mean and `events` outcomes, half of them at once.
    """
    arm = rng.random(units) < share
    mean = rng.normal(0, spread, units)
    first = rng.normal(mean[:, None], 1, (units, events // 2)).sum(axis=1)
    whole = first + rng.normal(mean[:, None], 1, (units, events - events // 2)).sum(axis=1)
    n, x, sums = np.zeros(units), np.zeros(units), np.zeros((2, 6))
    for flush in np.array_split(np.arange(units + 40), 100):
        new, old = flush[flush < units], flush[flush >= 40] - 40
        before = unit_terms(n, x)
        n[new], x[new] = events // 2, first[new]
        n[old], x[old] = events, whole[old]
        touched = np.union1d(new, old)
        change = (unit_terms(n, x) - before)[touched]
        for a in (0, 1):
            sums[a] += change[arm[touched] == a].sum(axis=0)
        if min(map(effective_units, sums)) < 200:
            continue
        estimate, variance = difference(sums[0], sums[1])
        if by_event:  # every event its own unit, of variance 1 + spread²
            variance = (1 + spread**2) * (1 / sums[:, N]).sum()
        if abs(estimate) > half_width(variance, effect, alpha):
            return True
    return False


def test_a_sequence_looked_at_at_every_flush_is_wrong_no_more_often_than_alpha():
    rng = np.random.default_rng(17)
    wrong = sum(
        ever_different(rng, units=2_000, events=20, spread=0.7, by_event=False) for _ in range(120)
    )
    assert wrong <= 120 * 0.05 + 2 * math.sqrt(120 * 0.05 * 0.95)


def test_the_same_harness_sees_that_an_analysis_by_event_is_wrong():
    rng = np.random.default_rng(17)
    wrong = sum(
        ever_different(rng, units=2_000, events=20, spread=0.7, by_event=True) for _ in range(100)
    )
    assert wrong > 30


def test_a_race_of_equal_arms_is_seldom_lost_while_the_weights_ramp():
    rng = np.random.default_rng(23)
    share = np.repeat([0.01, 0.05, 0.25, 0.5], 150)
    peaks = [advance(start(), rng.random(600) < share, share).peak for _ in range(400)]
    assert np.mean(np.array(peaks) > math.log(20)) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    bad = advance(start(), rng.random(60) < 10 * 0.05 / (10 * 0.05 + 0.95), 0.05)
    assert bad.peak > math.log(400)
    pooled = share.mean()  # a fixed share while the weights ramp: the harness sees it
    peaks = [advance(start(), rng.random(600) < share[::-1], pooled).peak for _ in range(200)]
    assert np.mean(np.array(peaks) > math.log(20)) > 0.5


def test_the_sample_ratio_of_units_that_follow_the_weights_is_seldom_a_mismatch():
    rng = np.random.default_rng(29)
    found = []
    for weights in ((50, 50), (99, 1), (60, 30, 10)):
        steps = rng.multinomial(50, np.array(weights) / 100, (120, 40)).cumsum(axis=1)
        peaks = [max(log_evidence_of_mismatch(c, weights) for c in run.tolist()) for run in steps]
        found += [peak > math.log(20) for peak in peaks]
    assert np.mean(found) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(found))
    broken = [log_evidence_of_mismatch(c, (1, 1)) for c in ([4_500, 5_500], [10, 60])]
    assert min(broken) > math.log(1_000)


def test_evidence_that_an_equal_arm_is_above_is_seldom_found():
    """One side, looks at 5 % more information each, equal arms and one that is below."""
    rng = np.random.default_rng(37)
    clock = np.unique((200 * 1.05 ** np.arange(100)).astype(int))
    steps = np.diff(clock, prepend=0)
    for below, most in ((0.0, 0.05), (-0.05, 0.01)):
        walks = np.cumsum(below * steps + np.sqrt(steps) * rng.normal(size=(300, 100)), axis=1)
        wrong = [
            any(
                log_evidence_above(x / n, 1 / n, 0.1) > math.log(20)
                for x, n in zip(w, c, strict=True)
            )
            for w, c in zip(walks.tolist(), [clock.tolist()] * 300, strict=True)
        ]
        assert np.mean(wrong) <= most + 2 * math.sqrt(0.05 * 0.95 / 300)


# ---- how many units are needed


def test_the_plan_of_a_t_test_has_its_power():
    rng = np.random.default_rng(31)
    weights, variances, effect = (3, 1), (0.04, 0.09), 0.05
    found = plan(effect, variances, weights=weights, power=0.8).t_test
    n, m = (round(found.units * w / 4) for w in weights)
    a, b = rng.normal(0, 0.2, (2_000, n)), rng.normal(effect, 0.3, (2_000, m))
    p = scipy_stats.ttest_ind(b, a, axis=1, equal_var=False).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("ratio", [1.0, 2.5])
def test_the_plan_of_a_sequence_is_that_of_watched_experiments(ratio):
    """Looks at 2 % more units each, at normal outcomes whose variance is known."""
    rng = np.random.default_rng(41)
    found = plan(0.1, (1.0, 1.0), true_effect=0.1 * ratio, power=0.8)
    looks = np.unique((400 * 1.02 ** np.arange(260)).astype(int))
    looks = looks[looks < 8 * found.sequence.units]
    steps = np.diff(looks, prepend=0)
    sums = np.cumsum(
        0.1 * ratio * steps + 2 * np.sqrt(steps) * rng.standard_normal((2_000, len(looks))), axis=1
    )
    over = np.abs(sums / looks) > [half_width(4 / n, 0.1, 0.05) for n in looks.tolist()]
    assert over[:, -1].any()
    stopped = np.where(over.any(axis=1), looks[over.argmax(axis=1)], np.inf)
    assert np.quantile(stopped, 0.5) == pytest.approx(found.sequence_median.units, rel=0.08)
    assert np.quantile(stopped, 0.8) == pytest.approx(found.sequence.units, rel=0.08)


def test_correlated_events_are_worth_less():
    """The variance of a mean of clustered events is that of the plan."""
    rng = np.random.default_rng(6)
    units, events, icc = 400, 10, 0.3
    x = math.sqrt(icc) * rng.standard_normal((300, units, 1)) + math.sqrt(
        1 - icc
    ) * rng.standard_normal((300, units, events))
    deff = design_effect(events, icc)
    assert x.mean(axis=(1, 2)).var() == pytest.approx(deff / (units * events), rel=0.2)
    found = plan(0.1, (1, 1), events_a_unit=events, deff=deff, units_a_day=50)
    alone = plan(0.1, (1, 1))
    assert found.t_test.units == pytest.approx(alone.t_test.units * deff / events)
    assert found.t_test.days == pytest.approx(found.t_test.units / 50)
    assert math.isnan(alone.t_test.days)
    sizes = rng.geometric(0.1, 200_000)
    cv = sizes.std() / sizes.mean()
    exact = 1 + (np.square(sizes).sum() / sizes.sum() - 1) * icc
    assert design_effect(sizes.mean(), icc, cv) == pytest.approx(exact)


def test_a_plan_needs_its_burn_in_and_refuses_what_cannot_be():
    rare = plan(0.01, variances_of_shares(0.001, 0.01), rarer_share=0.001)
    assert rare.sequence_median.units == pytest.approx(2 * 20 / 0.001, rel=0.05)
    assert plan(5.0, (1, 1), weights=(99, 1)).sequence.units == pytest.approx(200 * 100)
    for wrong in (
        {"effect": 0},
        {"effect": -0.1},
        {"alpha": 1.0},
        {"weights": (1, 0)},
        {"power": 0.0},
        {"events_a_unit": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plan(**{"effect": 0.1, "variances": (1, 1), **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"base \+ effect: expected a share between 0 and 1"):
        variances_of_shares(0.99, 0.02)


def test_more_power_a_smaller_alpha_and_smaller_effects_need_more():
    median, most, nearly = information_needed(0.05, (0.5, 0.8, 0.95))
    assert median < most < nearly < math.inf
    assert information_needed(0.01, (0.5,))[0] > median
    assert information_needed(0.05, (0.5,), 0.5)[0] > 3 * median
    assert information_needed(0.05, (0.5,), 4.0)[0] < median / 4
