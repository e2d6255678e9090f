"""
Laws of the signals with one alert each, calibration and latency: a change is found, its causes are
told apart, clean rows stay quiet, and neither how rows arrive together nor a restart shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import xlogy

from stream_monitor.config import parse
from stream_monitor.detectors.chances import chances_tilts, learnt_chances
from stream_monitor.detectors.tilts import upward_tilts
from stream_monitor.errors import ConfigError
from stream_monitor.monitors.calibration import (
    CONFIDENCE,
    RESIDUALS,
    Calibration,
    Scored,
    residuals,
    scores,
)
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.errors import Errors
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.one_signal import OneSignal
from stream_monitor.monitors.slowness import Slowness
from stream_monitor.monitors.version import SHARES
from stream_monitor.settings import ModelSettings
from stream_monitor.state import decode, encode
from stream_monitor.stats.class_sums import BY_SCORE
from stream_monitor.stats.recalibration import PRIOR_SD, recalibration
from stream_monitor.verdicts import Verdict

ROW_MS, T0 = 86, 4_000
SCORE = "score of 1"
Float = np.ndarray
READING = Reading("binary", "1", "0", "name", 1, 0)


def chance(log_odds: Float) -> Float:
    return 1 / (1 + np.exp(-log_odds))


def scored(
    seed: int, n: int, said: Callable[[Float], Float], moved: float = 0.0, base: float = 0.0
) -> Scored:
    """A calibrated score; from `T0` on the score is another one, or rows have other log-odds."""
    rng, after = np.random.default_rng(seed), np.arange(n) >= T0
    log_odds = base + 1.5 * rng.normal(size=n) + moved * after
    label = (rng.random(n) < chance(log_odds)).astype(float)
    score = chance(np.where(after, said(log_odds), log_odds))
    return Scored(SCORE, np.array([score, label]), np.arange(n) * ROW_MS)


def calibration(days: float = 300.0) -> Calibration:
    found = Calibration(lambda _: 0.005)
    found.days = days
    return found


def slowness(days: float = 600.0) -> Slowness:
    found = Slowness(lambda _: 0.02)
    found.days = days
    return found


def delay(of: OneSignal) -> float:
    """Rows from `T0` until the drift was found."""
    assert of.evidence is not None
    drifted = of.evidence.drifted.get(of.name)
    return float("inf") if drifted is None else drifted.found_row - T0


def told(*groups: OneSignal | None) -> list[Verdict]:
    """The verdicts of errors, calibration and latency."""
    evidence = [None if of is None else of.evidence for of in (None, None, *groups)]
    return list(drift_verdicts(Context("m", "", ModelSettings()), evidence, []))


def test_the_shares_are_one_budget() -> None:
    assert sum(SHARES) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_ratios_of_chances_so_the_law_of_scores_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.beta(0.4, 2.0, size=500)
    known = learnt_chances(score, (rng.random(500) < score**2).astype(float))
    growth = np.exp(chances_tilts(known).weights)
    without, having = growth[:, : known.parts], growth[:, known.parts :]
    mean = (1 - known.chances) * without + known.chances * having
    clipped = np.abs(np.log(growth)).max(axis=1) > 3.99
    assert mean[~clipped] == pytest.approx(1, abs=1e-4)
    assert (np.diff(chances_tilts(known).prior) <= 1).all()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (lambda x: 2 * x, "scores became too extreme"),
        (lambda x: 0.5 * x, "scores became too cautious"),
        (lambda x: x + 0.7, "scores became too high"),
        (lambda x: x - 0.7, "scores became too low"),
    ],
)
def test_each_way_of_being_wrong_is_found_and_named(
    said: Callable[[Float], Float], words: str
) -> None:
    delays = []
    for seed in range(4):
        of = calibration()
        of.add([scored(seed, 6_000, said)])
        delays.append(delay(of))
        (verdict,) = told(None, of)
        assert verdict.key.kind == "calibration"
        assert verdict.level == "warning"
        assert words in verdict.summary
    assert min(delays) > 0
    assert max(delays) <= 1_500


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (lambda x: 2 * x, "too low and too extreme"),
        (lambda x: x / 2, "too high and too cautious"),
        (lambda x: -2.2 + 2 * (x + 2.2), "scores became too extreme"),
        (lambda x: x + 0.7, "scores became too high,"),
    ],
)
def test_a_stretch_is_named_as_one_where_few_rows_have_the_class(
    said: Callable[[Float], Float], words: str
) -> None:
    """At a share of a tenth a stretch around even odds moves the mean too: both are true."""
    of = calibration()
    of.add([scored(1, 12_000, said, base=-2.2)])
    (verdict,) = told(None, of)
    assert words in verdict.summary


@pytest.mark.parametrize("seed", range(3))
def test_the_recalibration_is_that_of_an_optimiser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, rows = rng.uniform(0.01, 0.6, 12), rng.integers(0, 200, 12).astype(float)
    ones = rng.binomial(rows.astype(int), p**1.5).astype(float)
    found, log_odds = recalibration(p, rows, ones), np.log(p / (1 - p))
    middle = (rows * log_odds).sum() / rows.sum()

    def loss(a: float, b: float) -> float:
        q = chance(middle + a + b * (log_odds - middle))
        fit = xlogy(ones, q).sum() + xlogy(rows - ones, 1 - q).sum()
        return float(-fit + (a**2 + (b - 1) ** 2) / 2 / PRIOR_SD**2)

    both = minimize(lambda x: loss(*x), [0, 1])
    slope, shift = minimize(lambda x: loss(0, *x), [1]), minimize(lambda x: loss(x[0], 1), [0])
    expected = [*both.x, slope.fun - both.fun, shift.fun - both.fun]
    assert list(found) == pytest.approx(expected, abs=1e-3)
    none = recalibration(p, rows, 0 * rows)
    assert np.isfinite(none).all()
    assert none.intercept < -3


def test_clean_labels_and_scores_of_other_rows_are_no_evidence() -> None:
    """At 50 times the budget: rows that become easier are another law of scores, not of labels."""
    for seed, moved in ((1, 0.0), (2, 0.0), (3, 1.0), (4, -1.0)):
        of = calibration(days=6.0)
        of.add([scored(seed, 12_000, lambda x: x, moved)])
        assert of.evidence is not None
        assert not of.evidence.drifted, (seed, moved)


def test_a_score_that_was_always_wrong_is_no_news() -> None:
    """As those of a model that learnt from as many positive rows as others."""
    rng, n = np.random.default_rng(5), 20_000
    log_odds = rng.normal(size=n) - 3
    label = (rng.random(n) < chance(log_odds)).astype(float)
    of = calibration(days=6.0)
    of.add([Scored(SCORE, np.array([chance(log_odds + 3), label]), np.arange(n) * ROW_MS)])
    assert of.evidence is not None
    assert not of.evidence.drifted


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda r: r + 0.5, "mean residual"),
        (lambda r: r * 1.5, "standard deviation of residuals"),
    ],
)
def test_residuals_of_a_regression_that_move_or_spread_are_found(
    change: Callable[[Float], Float], what: str
) -> None:
    rng = np.random.default_rng(6)
    error = rng.normal(size=6_000)
    error[T0:] = change(error[T0:])
    of = calibration()
    of.add([Scored(RESIDUALS, 10 * error[None], np.arange(6_000) * ROW_MS)])
    assert 0 < delay(of) <= 500
    assert what in told(None, of)[0].summary
    back = calibration()
    back.add([Scored(RESIDUALS, 10 * np.append(error[T0:], error[:T0])[None], np.arange(6_000))])
    assert [v.level for v in told(None, back)] in ([], ["info"])


@pytest.mark.parametrize("sd", [0.5, 1.0])
def test_rows_since_a_bias_began_are_the_rows_since_then(sd: float) -> None:
    """Whole chunks are told apart, so the oldest of them may have rows of before in it."""
    after, rows = list[float](), list[int]()
    for seed in range(8):
        error = np.random.default_rng(seed).normal(size=6_000)
        start = T0 + 37 * seed
        error[start:] += sd
        of = calibration()
        of.add([Scored(RESIDUALS, error[None], np.arange(6_000) * ROW_MS)])
        assert of.evidence is not None
        drifted = of.evidence.drifted[of.name]
        rows.append(start - drifted.change_row)
        after.append(told(None, of)[0].evidence["contributors"][0]["after"])  # type: ignore[index]
    assert abs(float(np.median(rows))) <= 25
    assert max(rows) <= 100
    assert 0.85 * sd < float(np.mean(after)) < 1.15 * sd


def latencies(seed: int, factor: float = 1.0, tail: float = 0.0, n: int = 10_000) -> Float:
    rng, after = np.random.default_rng(seed), np.arange(n) >= T0
    ms = 20 * rng.lognormal(sigma=0.5, size=n)
    slow = after & (rng.random(n) < tail)
    return np.where(slow, 64 * (1 + rng.random(n)), np.where(after, factor * ms, ms))


@pytest.mark.parametrize(("factor", "tail", "rows"), [(1.5, 0.0, 300), (1.0, 0.03, 1_500)])
def test_slower_calls_and_a_longer_tail_are_found(factor: float, tail: float, rows: int) -> None:
    for seed in range(3):
        of = slowness()
        of.add(latencies(seed, factor, tail), np.arange(10_000) * ROW_MS)
        assert 0 < delay(of) <= rows
        (verdict,) = told(None, None, of)
        assert verdict.level == "info", "hours are not known yet"
        assert verdict.key[3:] == ("latency", "latency_seconds", "evidence")
        assert "share of calls that take longer than" in verdict.summary


def of_days(
    seed: int, days: int, swing: float, weekend: float, slow_from: float = np.inf
) -> tuple[Float, Float]:
    """
    Two calls a minute whose latency has a season, wanders by a tenth from day to day and from hour
    to hour, is less on the first two days of a week, and has bursts; × 1.8 from some hour on.
    """
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.random(days * 24 * 120)) * days * 24
    at = hours.astype(int)
    season = swing ** (0.5 + 0.5 * np.sin((hours - 9) / 24 * 2 * np.pi))
    wander = np.exp(0.1 * rng.normal(size=days)[at // 24] + 0.1 * rng.normal(size=24 * days)[at])
    ms = 20 * rng.lognormal(sigma=0.5, size=len(hours)) * season * wander
    ms *= np.where(at // 24 % 7 < 2, weekend, 1.0) * np.where(hours >= slow_from, 1.8, 1.0)
    for burst in rng.random(days // 2) * days * 24:
        ms[(hours >= burst) & (hours < burst + 0.5)] *= 3
    return ms, (hours * 3_600_000).astype(np.int64)


def warned(ms: Float, times: Float) -> list[int]:
    """Hours at whose end latency is a warning."""
    of, found = slowness(), list[int]()
    ends = np.searchsorted(times, np.arange(1, times[-1] // 3_600_000 + 2) * 3_600_000)
    for hour, (a, b) in enumerate(zip([0, *ends], ends, strict=False)):
        of.add(ms[a:b], times[a:b])
        if any(v.level == "warning" for v in told(None, None, of)):
            found.append(hour)
    return found


@pytest.mark.parametrize(("swing", "weekend"), [(1.0, 1.0), (3.0, 0.5)])
def test_latency_that_doubles_is_a_warning_before_hours_are_known(
    swing: float, weekend: float
) -> None:
    """Three hours beyond all days before are none of the season; four days must be known."""
    for seed in range(4):
        assert warned(*of_days(seed, 8, swing, weekend)) == []
    slow = [warned(*of_days(seed, 6, swing, weekend, slow_from=100)) for seed in range(4)]
    first = [hours[0] for hours in slow if hours]
    assert len(first) >= 3
    assert 102 <= min(first) <= 108
    assert not warned(*of_days(1, 3, swing, weekend, slow_from=30)), "a day is not enough"


def test_faster_calls_and_clean_ones_are_no_evidence() -> None:
    for seed, factor in ((1, 0.5), (2, 1.0), (3, 1.0), (4, 0.9)):
        of = slowness(days=6.0)
        of.add(latencies(seed, factor, n=20_000), np.arange(20_000) * ROW_MS)
        assert of.evidence is not None
        assert not of.evidence.drifted


def test_latencies_as_servers_write_them() -> None:
    """Whole milliseconds, all the same, none, and some that are missing."""
    rng = np.random.default_rng(7)
    whole = np.round(latencies(7))
    whole[rng.random(len(whole)) < 0.3] = np.nan
    for ms in (whole, np.full(10_000, 5.0), np.zeros(10_000), np.full(10_000, np.nan)):
        of = slowness()
        of.add(ms, np.arange(10_000) * ROW_MS)
        assert of.evidence is None or not of.evidence.drifted
    counts = np.array([2_000, 0])
    assert np.isfinite(upward_tilts(counts).weights).all()


def feeds() -> Iterator[tuple[Callable[[], OneSignal], Callable[[OneSignal, int, int], None]]]:
    rows, ms = scored(1, 6_000, lambda x: 2 * x), latencies(1, 1.5, n=6_000)

    def labels(of: OneSignal, a: int, b: int) -> None:
        assert isinstance(of, Calibration)
        of.add([Scored(SCORE, rows.values[:, a:b], rows.times_ms[a:b])])

    def calls(of: OneSignal, a: int, b: int) -> None:
        assert isinstance(of, Slowness)
        of.add(ms[a:b], rows.times_ms[a:b])

    yield calibration, labels
    yield slowness, calls


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [61, 777])
def test_neither_cuts_nor_restarts_show(which: int, size: int) -> None:
    make, feed = list(feeds())[which]
    whole, parts = make(), make()
    feed(whole, 0, 6_000)
    for a in range(0, 6_000, size):
        feed(parts, a, min(a + size, 6_000))
        if a % (7 * size) == 0:
            form = decode(encode(parts.state()), type(parts.state()))
            parts = make()
            parts.load(form)
    one, other = whole.state(), parts.state()
    assert encode([one.scheme, one.evidence]) == encode([other.scheme, other.evidence])
    assert encode([one.chunks.rows, one.chunks.partial]) == encode(
        [other.chunks.rows, other.chunks.partial]
    )
    assert delay(whole) < 6_000


def judged(label: Float, score: Float, probabilities: Float) -> Judged:
    n = len(label)
    whole = np.arange(n)
    return Judged(
        whole,
        whole.astype(np.uint64),
        np.zeros(n, bool),
        np.full(n, float(BY_SCORE)),
        label,
        score,
        np.full(n, -1.0),
        probabilities,
        np.zeros(n, np.int64),
        whole,
    )


def test_what_a_score_is_compared_with() -> None:
    """Of one number the positive class, of class scores whether the greatest one was right."""
    label, none = np.array([1.0, 0.0, 1.0, 2.0]), np.empty((4, 0))
    score = np.array([0.9, 0.2, np.nan, 0.5])
    first = np.ones(4, bool)
    (one,) = scores(judged(label, score, none), first, READING, {})
    assert one.kind == SCORE
    assert one.values.tolist() == [[0.9, 0.2], [1.0, 0.0]]
    assert scores(judged(label, 100 * score, none), first, READING, {}) == []
    assert scores(judged(label, score, none), first, None, {}) == []
    assert scores(judged(label, score, none), ~first, READING, {}) == []
    of = np.array([[0.2, 0.8], [0.3, 0.7], [np.nan, np.nan], [0.6, np.nan]])
    both = scores(judged(label, score, of), first, READING, {0: 0, 1: 1})
    assert [p.kind for p in both] == [CONFIDENCE]
    assert both[0].values.tolist() == [[0.8, 0.7, 0.6], [1.0, 0.0, 0.0]]
    rows = judged(np.array([3.0, np.nan, 1e308, 5.0]), score, none)
    rows = rows._replace(predicted=np.array([1.0, 1.0, -1e308, 6.0]))
    assert residuals(rows, first)[0].values.tolist() == [[2.0, -1.0]]


def test_another_positive_class_and_class_scores_begin_anew() -> None:
    of, rows = calibration(), scored(1, 2_000, lambda x: x)
    other = Scored("score of 0", rows.values, rows.times_ms)
    confident = Scored(CONFIDENCE, rows.values[:, :700], rows.times_ms[:700])
    of.add([rows, other])
    assert of.evidence is not None
    assert of.evidence.rows == 2_000
    of.add([confident, rows])
    assert of.kind == CONFIDENCE
    assert of.evidence.rows == 700


def test_one_cause_is_one_alert() -> None:
    """Errors that rise change the calibration too, and that is told with them."""
    rng, n = np.random.default_rng(8), 8_000
    rows = scored(8, n, lambda x: x)
    score, label = rows.values
    flipped = rng.random(n) < np.where(np.arange(n) >= T0, 0.3, 0.0)
    label = np.where(flipped, 1 - label, label)
    of, errors = calibration(), Errors(lambda _: 0.005)
    errors.days = 1.5  # so that they are found first
    wrong = ((score >= 0.5) != label).astype(float)
    errors.add(wrong, rows.times_ms, binary=True)
    of.add([Scored(SCORE, np.array([score, label]), rows.times_ms)])
    assert delay(errors) <= delay(of) < np.inf
    found = told(errors, of)
    assert [(v.key.kind, v.clear) for v in found] == [
        ("concept_drift", False),
        ("calibration", True),
    ]
    assert "also the calibration" in found[0].summary
    subjects = [c["subject"] for c in found[0].evidence["contributors"]]  # type: ignore[attr-defined]
    assert subjects == ["__error__", "__calibration__"]
    assert told(None, of)[0].level == "warning"


def test_only_the_detector_on_counts_reads_them() -> None:
    parse("defaults: {drift: {calibration: off, latency: {evidence: {tolerance: 0.1}}}}")
    for signal in ("calibration", "latency"):
        with pytest.raises(ConfigError, match=f"{signal} has the detector evidence only"):
            parse(f"defaults: {{drift: {{{signal}: {{adwin: {{}}}}}}}}")
