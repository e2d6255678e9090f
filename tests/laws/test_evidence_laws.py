"""
Laws of the detectors on counts: neither how rows arrive together nor a restart shows; the e-values
of a chunk have mean 1 at most; clean rows stay quiet, and a drift is found and ends.
"""

from __future__ import annotations

from math import comb
from statistics import NormalDist

import numpy as np
import pytest

from stream_monitor.detectors.pool_tilt import LAG, POOL_MAX, WARM_ROWS, PoolTilt
from stream_monitor.detectors.recent import Recent
from stream_monitor.detectors.tilts import (
    UNIT,
    WEIGHT_MAX,
    exact_exponentials,
    level_tilts,
    number_tilts,
    share_tilts,
)
from stream_monitor.events.cells import ABSENT_CELL
from stream_monitor.monitors.baseline import Profile, numeric_profile
from stream_monitor.monitors.chunks import Chunks
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.errors import Errors
from stream_monitor.monitors.evidence_verdicts import drift_verdicts
from stream_monitor.monitors.input_drift import InputDriftForm
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import form_of, restore
from stream_monitor.monitors.newest import NO_BIN
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Baseline, Limits, ModelSettings
from stream_monitor.state import decode, encode

DAY_MS = 86_400_000
SETTINGS = ModelSettings(baseline=Baseline(rows=1_000))
NAMES = ("x", "flag", "rare")
OFFSET = 7_000
"""Of the first row, in its source."""


def made() -> Inputs:
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: 0.005)
    inputs.drift.days = 30.0
    return inputs


def cells(n: int = 8_000, seed: int = 1) -> np.ndarray:
    """Three features; the first is shifted for a while, the last one is missing for a while."""
    rng = np.random.default_rng(seed)
    x = np.array([rng.normal(size=n), rng.random(n) < 0.3, rng.random(n) < 0.01], np.float64)
    x[0, 4_000:5_000] += 1
    x[2, 6_000:6_500] = ABSENT_CELL
    return x


def feed(inputs: Inputs, x: np.ndarray, size: int, start: int = 0) -> None:
    n = x.shape[1]
    times = (np.arange(n) * 86).astype(np.int64)
    times[::7] -= 9_000  # late rows, which go back to an earlier pane
    for at in range(start, n, size):
        part = slice(at, min(at + size, n))
        inputs.add(Rows(NAMES, x[:, part].copy(), times[part], [], OFFSET + np.arange(n)[part]))


def told(inputs: Inputs) -> list[object]:
    evidence = inputs.drift.evidence
    assert evidence is not None
    found: list[object] = [
        (name, d.open, d.found_row, d.change_row, d.evidence, d.before.tolist(), d.after.tolist())
        for name, d in sorted(evidence.drifted.items())
    ]
    found += [(d.origin, d.rows) for _, d in sorted(evidence.drifted.items())]
    newest = inputs.drift.newest
    found += [newest.origin.tolist(), newest.bins.tolist(), newest.faults.tolist()]
    states = [evidence.detector.state(s) for s in range(len(evidence.watched))]
    return [*found, *((s.evidence.tolist(), s.pools.tolist(), s.live) for s in states)]


@pytest.mark.parametrize("size", [1, 37, 8_000])
def test_how_rows_arrive_together_does_not_show(size: int) -> None:
    one, other = made(), made()
    n = 2_600 if size == 1 else 8_000
    x = cells()[:, :n]
    feed(one, x, 500)
    feed(other, x, size)
    assert told(one) == told(other)


@pytest.mark.parametrize("stop", [700, 3_333, 4_401, 4_777, 6_120])
def test_a_restart_does_not_show(stop: int) -> None:
    whole, before = made(), made()
    x = cells()
    feed(whole, x, 100)
    feed(before, x[:, :stop], 100)
    after = made()
    form = decode(encode(form_of(before)), type(form_of(before)))
    if before.profile is not None:
        after.use(before.profile)
    restore(after, form, (), fences_anew=False)
    feed(after, x, 100, stop)
    assert told(whole) == told(after)


def test_a_drift_is_found_and_ends_with_its_cause() -> None:
    inputs = made()
    feed(inputs, cells(), 100)
    evidence = inputs.drift.evidence
    assert evidence is not None
    x, rare = evidence.drifted["x"], evidence.drifted["rare"]
    assert abs(x.change_row - 4_000) <= 50
    assert x.found_row - 4_000 <= 150
    assert not x.open
    assert abs(rare.change_row - 6_000) <= 50
    assert not rare.open
    assert "flag" not in evidence.drifted


def test_a_drift_names_its_first_row_and_some_that_show_it() -> None:
    x, inputs = cells(), made()
    feed(inputs, x, 300)
    assert inputs.drift.evidence is not None
    of = inputs.drift.evidence.drifted
    for name in ("x", "rare"):
        assert of[name].origin == OFFSET + of[name].change_row
    # that of a shift are in the bin that grew most, the newest ones
    since = np.arange(of["x"].change_row, of["x"].found_row)
    edges = [-np.inf, *inputs.profile.features["x"].edges, np.inf]  # type: ignore[union-attr]
    bins = np.searchsorted(edges, x[0], side="right")
    usual = np.bincount(bins[: since[0]], minlength=len(edges) + 1) / since[0]
    now = np.bincount(bins[since], minlength=len(edges) + 1) / len(since)
    shown = np.array(of["x"].rows) - OFFSET
    assert len(set(bins[shown])) == 1
    assert now[bins[shown[0]]] > 2 * usual[bins[shown[0]]]
    assert shown.tolist() == since[bins[since] == bins[shown[0]]][-5:].tolist()
    # and those of missing values are rows without one
    last = of["rare"].found_row
    assert of["rare"].rows == (OFFSET + np.arange(last - 5, last)).tolist()


def test_rows_are_shown_by_the_bins_and_rules_of_now_only() -> None:
    x, inputs = cells(2_020), made()
    feed(inputs, x[:, :2_000], 500)
    form = decode(encode(inputs.drift.form()), InputDriftForm)
    inputs.drift.load(form, {"flag"}, lambda _: None)
    newest = inputs.drift.newest
    assert (newest.bins[newest.at["flag"]] == NO_BIN).all(), "its rules are others"
    assert (newest.bins[newest.at["x"]] != NO_BIN).all()
    wide = [numeric_profile(4 * np.arange(1.0, 500.0), 0)] * 3
    inputs.drift.forget()
    inputs.use(Profile(features=dict(zip(NAMES, wide, strict=True))))
    feed(inputs, x, 500, start=2_000)
    newest = inputs.drift.newest
    shown = x[:, newest.origin - OFFSET]
    assert shown.shape[1] >= 20
    assert (newest.bins == inputs.layout.bins.bins_of(shown)).all(), "the baseline is another"


LEARNT = 15 * 2_400
SEASON_ROWS = LEARNT + 4 * 2_400


def seasonal_rows() -> tuple[np.ndarray, np.ndarray]:
    """The first feature has a daily sine; it is shifted for 30 hours after its hours are known."""
    rng = np.random.default_rng(3)
    times = (np.arange(SEASON_ROWS) * (DAY_MS // 2_400)).astype(np.int64)
    x = np.array([rng.normal(size=SEASON_ROWS), rng.random(SEASON_ROWS) < 0.3], np.float64)
    x[0] += 0.7 * np.sin(2 * np.pi * times / DAY_MS)
    x[0, LEARNT + 1_000 : LEARNT + 4_000] += 1
    return x, times


def feed_season(inputs: Inputs, size: int, start: int = 0, end: int = SEASON_ROWS) -> Inputs:
    x, times = seasonal_rows()
    for at in range(start, end, size):
        part = slice(at, min(at + size, end))
        inputs.add(Rows(NAMES[:2], x[:, part].copy(), times[part], []))
    return inputs


@pytest.fixture(scope="module")
def season() -> Inputs:
    return feed_season(made(), 1_000)


def hours_of(inputs: Inputs) -> list[object]:
    evidence = inputs.drift.evidence
    assert evidence is not None
    states = [evidence.seasons.state(s) for s in range(len(evidence.watched))]
    openings = [evidence.openings.state(s, len(w.places)) for s, w in enumerate(evidence.watched)]
    return [encode(states), encode(openings), evidence.seasons.hour, told(inputs)]


def test_hours_do_not_depend_on_how_rows_arrive_together(season: Inputs) -> None:
    assert hours_of(feed_season(made(), 333)) == hours_of(season)


@pytest.mark.parametrize("stop", [20_037, LEARNT + 1_900, SEASON_ROWS - 77])
def test_a_restart_does_not_show_in_the_hours(season: Inputs, stop: int) -> None:
    before, after = feed_season(made(), 2_000, end=stop), made()
    assert before.profile is not None
    after.use(before.profile)
    form = decode(encode(form_of(before)), type(form_of(before)))
    restore(after, form, (), fences_anew=False)
    assert hours_of(feed_season(after, 1_000, stop)) == hours_of(season)


def test_a_season_is_known_and_a_drift_in_it_is_found_and_ends(season: Inputs) -> None:
    evidence = season.drift.evidence
    assert evidence is not None
    assert [evidence.hours(name) for name in NAMES[:2]] == ["seasonal", "alike"]
    assert set(evidence.drifted) == {"x"}
    drifted = evidence.drifted["x"]
    assert not drifted.open
    assert abs(drifted.change_row - LEARNT - 1_000) <= 100
    assert drifted.found_row - LEARNT - 1_000 <= 400
    before, after = drifted.before, drifted.after
    shift = after[-2] / after[:-2].sum() - before[-2] / before[:-2].sum()
    assert shift == pytest.approx(1, abs=0.35)


def test_before_hours_are_known_an_alert_says_so() -> None:
    inputs = made()
    feed_season(inputs, 1_000, end=6_000)
    verdicts = list(
        drift_verdicts(
            Context("m", "", SETTINGS), [inputs.drift.evidence, None, None], [inputs.profile]
        )
    )
    assert "the hours of the day are not known yet" in verdicts[0].summary
    assert verdicts[0].evidence["contributors"][0]["hours"] == "learning"  # type: ignore[index]


def test_a_drift_that_stays_is_open_for_ever() -> None:
    inputs, x = made(), cells(40_000)
    x[0, 4_000:5_000] -= 1
    x[0, 5_000:] += 0.5
    feed(inputs, x, 1_000)
    verdicts = list(
        drift_verdicts(
            Context("m", "", SETTINGS), [inputs.drift.evidence, None, None], [inputs.profile]
        )
    )
    assert [v.level for v in verdicts] == ["warning"]
    first = verdicts[0].evidence["contributors"][0]  # type: ignore[index]
    assert first["subject"] == "x"
    assert first["what"] == "mean"
    assert first["after"] - first["before"] == pytest.approx(0.5, abs=0.2)


def test_a_value_is_never_lost_to_nan() -> None:
    """Shares of 0, levels that never occurred, all missing, a constant: evidence stays a number."""
    rng = np.random.default_rng(2)
    x = np.array([rng.normal(size=6_000), np.zeros(6_000), np.zeros(6_000)])
    x[1, 4_000:] = 7.0
    x[2, 5_000:] = ABSENT_CELL
    inputs = made()
    feed(inputs, x, 250)
    evidence = inputs.drift.evidence
    assert evidence is not None
    assert np.isfinite(evidence.detector.evidence).all()
    assert set(evidence.drifted) == {"flag", "rare"}


def test_what_detectors_hold_is_part_of_the_memory_that_is_told() -> None:
    inputs = made()
    inputs.add(Rows(NAMES, cells(8_000), np.arange(8_000) * 3_600_000, []))
    evidence = inputs.drift.evidence
    assert evidence is not None
    pools, slots = evidence.detector.pools.nbytes, evidence.seasons.slots
    assert slots is not None
    assert pools + slots.nbytes < inputs.drift.memory_bytes < 1_000_000


def test_times_that_stand_still_do_not_silence_a_detector() -> None:
    inputs, x = made(), cells(30_000)
    x[0, 15_000:] += 1
    inputs.add(Rows(NAMES, x, np.full(30_000, 1_000), []))
    evidence = inputs.drift.evidence
    assert evidence is not None
    assert evidence.drifted["x"].open


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
def test_the_mean_of_an_e_value_is_at_most_1(share: float) -> None:
    """Exactly, by the hypergeometric law of a chunk given the union of pool and chunk."""
    detector = PoolTilt([share_tilts()], [0.0])
    pool, rows = 2_000, 25
    ones = round(share * (pool + rows))
    means = np.zeros(detector.evidence.shape[1])
    for k in range(min(rows, ones) + 1):
        weight = comb(ones, k) * comb(pool + rows - ones, rows - k) / comb(pool + rows, rows)
        detector.pools[0, 0] = pool - (ones - k), ones - k
        detector.pools[1:] = 0
        detector.evidence[:] = 0
        counts = np.array([[[rows - k, k]]], np.float64)
        detector.update(counts, np.array([rows]), np.ones(1), np.array([np.inf]))
        means += weight * detector.evidence[0]
        detector.begin_anew(0)
    assert (means <= 1 + 1e-9).all()
    assert means.max() > 0.5


@pytest.mark.parametrize("rows", [1_000, 5_000])
def test_clean_rows_keep_the_budget(rows: int) -> None:
    """At 100 false alarms a day, 20 signals; Poisson's upper end of 1 % at what is allowed."""
    rng = np.random.default_rng(rows)
    found, n, days = 0, 30_000, 0.01
    for _ in range(8):
        x = np.array(
            [rng.normal(size=n), rng.lognormal(size=n), rng.random(n) < 0.02, rng.poisson(3, n)]
        )
        inputs = Inputs(
            lambda c: c,
            ModelSettings(baseline=Baseline(rows=rows)),
            Limits(),
            tolerance=lambda _: 0.005,
        )
        inputs.drift.days = days
        names = tuple(f"f{i}" for i in range(len(x)))
        times = (np.arange(n) * 86).astype(np.int64)
        for at in range(0, n, 1_000):
            part = slice(at, at + 1_000)
            inputs.add(Rows(names, x[:, part], times[part], []))
        assert inputs.drift.evidence is not None
        found += len(inputs.drift.evidence.drifted)
    allowed = 8 * n * 86 / DAY_MS / days
    assert found <= allowed + 2.4 * allowed**0.5


def default_value(seed: int, after: float, n: int = 22_000) -> np.ndarray:
    """A price that is 9.99 in 2 % of the rows, and from row 12,000 on in another share."""
    rng = np.random.default_rng(seed)
    share = np.where(np.arange(n) < 12_000, 0.02, after)
    prices = np.where(rng.random(n) < share, 9.99, np.round(rng.lognormal(3, 0.7, n), 2))
    found: np.ndarray = prices
    return found


@pytest.mark.parametrize(("after", "days"), [(0.04, 600.0), (0.005, 600.0), (0.02, 1.0)])
def test_a_default_that_becomes_more_frequent_is_found(after: float, days: float) -> None:
    """It is in the middle of the law and moves neither mean nor spread."""
    delays = []
    for seed in range(4):
        x = default_value(seed, after)
        inputs = made()
        inputs.drift.days = days
        for at in range(0, len(x), 1_000):
            times = (np.arange(at, at + 1_000) * 86).astype(np.int64)
            inputs.add(Rows(("price",), x[None, at : at + 1_000].copy(), times, []))
        assert inputs.drift.evidence is not None
        drifted = inputs.drift.evidence.drifted.get("price")
        delays.append(np.inf if drifted is None else drifted.found_row - 12_000)
    if after == 0.02:
        assert delays == [np.inf] * 4, "clean rows, at 600 times the budget"
    else:
        assert min(delays) > 0
        assert np.median(delays) <= 5_000


def test_errors_that_rise_and_errors_of_a_regression_are_found() -> None:
    rng = np.random.default_rng(5)
    rate = np.where(np.arange(8_000) < 5_000, 0.05, 0.10)
    times = (np.arange(8_000) * 86).astype(np.int64)
    for values, binary in (
        ((rng.random(8_000) < rate).astype(np.float64), True),
        (np.abs(rng.normal(size=8_000)) * np.where(rate > 0.06, 1.5, 1.0), False),
    ):
        errors = Errors(lambda _: 0.005)
        errors.days = 120.0
        for at in range(0, 8_000, 400):
            errors.add(values[at : at + 400], times[at : at + 400], binary=binary)
        assert errors.evidence is not None
        drifted = errors.evidence.drifted["__error__"]
        assert drifted.open
        assert 5_000 < drifted.found_row < 6_500
        assert abs(drifted.change_row - 5_000) < 600


@pytest.mark.parametrize("start", [5_000, 5_010])
def test_a_burst_of_errors_that_is_over_is_no_drift_and_one_that_stays_is(start: int) -> None:
    rng = np.random.default_rng(6)
    clean = (rng.random(9_000) < 0.05).astype(np.float64)
    found = {}
    for rows in (60, 150):
        errors, values = Errors(lambda _: 0.005), clean.copy()
        errors.days = 120.0
        values[start : start + rows] = 1.0
        errors.add(values, (np.arange(9_000) * 1_800_000).astype(np.int64), binary=True)
        assert errors.evidence is not None
        found[rows] = errors.evidence.drifted
    assert not found[60]
    assert 75 < found[150]["__error__"].found_row - start <= 125


def test_one_odd_chunk_of_features_is_no_drift() -> None:
    for rows, told in ((50, False), (150, True)):
        inputs, x = made(), cells(12_000)
        x[0] = np.random.default_rng(7).normal(size=12_000)
        x[0, 6_000 : 6_000 + rows] = 40.0
        inputs.add(Rows(NAMES, x, np.arange(12_000) * 86, []))
        evidence = inputs.drift.evidence
        assert evidence is not None
        assert ("x" in evidence.drifted) == told


def test_a_ramp_over_months_is_found_at_a_million_rows_a_day() -> None:
    """0.5 standard deviations in 60 days; with a pool of 4 million rows it never was."""
    rng, normal, day = np.random.default_rng(7), NormalDist(), 25
    edges = np.array([normal.inv_cdf(k / 20) for k in range(1, 20)])

    def law(mean: float) -> np.ndarray:
        return np.diff([0.0, *(normal.cdf(e - mean) for e in edges), 1.0, 1.0])

    detector = PoolTilt([number_tilts(np.append(np.full(20, 250), 0))], [0.005])
    rows, days, bounds = np.full(day, 40_000), np.full(day, 1 / day), np.array([1_200.0])
    found = [
        at
        for at in range(30)
        if detector.update(
            rng.multinomial(40_000, law(0.5 * max(at - 8, 0) / 60), (day, 1)).astype(np.float64),
            rows,
            days,
            bounds,
        )
    ]
    assert len(found) == 1
    assert 8 < found[0] <= 20


def test_chunks_are_longer_where_traffic_is_dense_and_cut_by_rows_alone() -> None:
    times = np.concatenate([np.arange(5_000), 5_000 + np.arange(2_000) * 100]).astype(np.int64)
    whole, parts = Chunks(50), Chunks(50)
    rows = whole.cut(times).rows
    assert rows.max() == 200
    assert rows[-1] == 50
    found = [parts.cut(times[at : at + 77]) for at in range(0, 7_000, 77)]
    assert np.concatenate([cut.rows for cut in found]).tolist() == rows.tolist()
    assert sum(cut.days.sum() for cut in found) == pytest.approx(204_900 / DAY_MS, rel=0.01)


def test_the_change_is_where_likelihood_says() -> None:
    rng = np.random.default_rng(1)
    recent, total = Recent(), np.zeros(4)
    for i in range(300):
        sums = rng.multinomial(50, [0.25] * 4 if i < 260 else [0.1, 0.2, 0.3, 0.4]).astype(float)
        recent.add(sums, i)
        total += sums
    split = recent.split(np.arange(4), total, 300)
    assert abs(split.chunks - 40) <= 8


def test_tables_are_exact_and_priors_whole() -> None:
    for tilts in (
        number_tilts(np.array([0, 10, 80, 10, 0])),
        level_tilts(np.array([90, 10, 0])),
        share_tilts(),
    ):
        assert (tilts.weights * 2**16 == np.round(tilts.weights * 2**16)).all()
        assert tilts.prior.sum() == pytest.approx(1)
    most = float(exact_exponentials(np.array(2 * WEIGHT_MAX))) / UNIT * POOL_MAX
    assert most < 2**53  # a sum of so many weights is a whole number that float64 has
    assert 0 < LAG < 1
    assert WARM_ROWS > 0


def test_rare_events_that_are_independent_are_not_taken_for_dependent_ones():
    """The first chunks of a rare event have none, and so no variance to compare others with."""
    found = []
    for seed in range(30):
        rows = (np.random.default_rng(seed).random(5_000) < 0.005).astype(float)
        errors = Errors(lambda _: 0.005)
        errors.days = 150.0
        errors.add(rows, np.arange(5_000) * 1_000, binary=True)
        assert errors.evidence is not None
        found.append(errors.evidence.detector.overdispersion[0])
    assert np.quantile(found, 0.9) < 1.2
