"""
Laws of the days of the week: a weekend that differs is learnt in four weeks, is quiet then, and a
drift on top of it is found; neither cuts nor restarts show.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stream_monitor.detectors.pool_tilt import PoolTilt
from stream_monitor.detectors.seasons import HOURS, Seasons
from stream_monitor.detectors.tilts import level_tilts
from stream_monitor.detectors.weeks import DAYS, RATIO_MIN, WEEKS_LEAST, WEEKS_MAX, day_of_week
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.inputs_state import InputsForm, form_of, restore
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Baseline, Limits, ModelSettings
from stream_monitor.state import decode, encode

DAY_MS = 86_400_000
MONDAY = 20_458
ROWS_A_DAY, LEARNT, SHIFTED, END = 600, 28, 44, 47
NAMES = ("both", "weekend", "steady")
SETTINGS = ModelSettings(baseline=Baseline(rows=1_000))


def made() -> Inputs:
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: 0.005)
    inputs.drift.days = 60.0
    return inputs


def rows(shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Two features are half a standard deviation lower at weekends; one has a daily sine too."""
    rng, n = np.random.default_rng(4), END * ROWS_A_DAY
    times = MONDAY * DAY_MS + (np.arange(n) * (DAY_MS // ROWS_A_DAY)).astype(np.int64)
    x = rng.normal(size=(3, n))
    x[0] += 0.7 * np.sin(2 * np.pi * times / DAY_MS)
    x[:2] -= 0.5 * ((times // DAY_MS + 3) % 7 >= 5)
    x[:, SHIFTED * ROWS_A_DAY :] += shift
    return x, times


def feed(inputs: Inputs, shift: float, size: int = 900, start: int = 0, end: int = 10**6) -> Inputs:
    x, times = rows(shift)
    for at in range(start, min(end, len(times)), size):
        part = slice(at, min(at + size, end, len(times)))
        inputs.add(Rows(NAMES, x[:, part].copy(), times[part], []))
    return inputs


def told(inputs: Inputs) -> bytes:
    evidence = inputs.drift.evidence
    assert evidence is not None
    states = [evidence.seasons.state(s) for s in range(len(evidence.watched))]
    found = {
        n: (d.found_row, d.change_row, d.before.tolist())
        for n, d in sorted(evidence.drifted.items())
    }
    return encode([states, found, evidence.detector.evidence.tolist()])


@pytest.fixture(scope="module")
def shifted() -> Inputs:
    return feed(made(), 0.5)


def test_a_weekend_that_is_known_is_no_drift_and_a_shift_is() -> None:
    clean, shifted = feed(made(), 0.0), feed(made(), 0.5)
    for inputs in (clean, shifted):
        evidence = inputs.drift.evidence
        assert evidence is not None
        assert [evidence.hours(name) for name in NAMES] == ["weekly", "weekly", "alike"]
        assert {evidence.days(name) for name in NAMES} == {"known"}
    assert clean.drift.evidence is not None
    assert shifted.drift.evidence is not None
    late = [d.found_row for d in clean.drift.evidence.drifted.values()]
    assert "weekend" in clean.drift.evidence.drifted, "each weekend is a drift until it is known"
    assert max(late) < (LEARNT + 1) * ROWS_A_DAY, "weeks 5 to 7 are quiet"
    for name in NAMES:
        drifted = shifted.drift.evidence.drifted[name]
        delay = drifted.found_row - SHIFTED * ROWS_A_DAY
        assert drifted.open
        assert 0 < delay <= 1_400, name
        mean = [x[-2] / x[:-2].sum() for x in (drifted.before, drifted.after)]
        assert mean[1] - mean[0] == pytest.approx(0.5, abs=0.4)


@pytest.mark.parametrize("stop", [LEARNT * ROWS_A_DAY - 77, SHIFTED * ROWS_A_DAY + 33])
def test_neither_cuts_nor_restarts_show(shifted: Inputs, stop: int) -> None:
    before, after = feed(made(), 0.5, 1_234, end=stop), made()
    assert before.profile is not None
    after.use(before.profile)
    restore(after, decode(encode(form_of(before)), InputsForm), (), fences_anew=False)
    assert told(feed(after, 0.5, 2_000, stop)) == told(shifted)


def fill(weeks: int, share: np.ndarray, rows: int = 200) -> tuple[Seasons, np.ndarray]:
    """Hours of some weeks from a Monday on, `share` (7, 24); also the counts, (weeks, 7, 24)."""
    rng, detector = np.random.default_rng(5), PoolTilt([level_tilts(np.array([70, 30]))], [0.01])
    found = Seasons(detector, np.arange(2), np.arange(2), np.zeros(2, np.int64))
    ones = rng.binomial(rows, np.tile(share, (weeks, 1, 1)))
    for hour, n in enumerate(ones.ravel().tolist(), MONDAY * HOURS):
        found.turn(hour)
        found.add(np.array([rows - n, n], np.float64), np.zeros(1, np.bool_))
    found.turn((MONDAY + weeks * DAYS) * HOURS)
    return found, ones


def test_days_are_counted_plainly_and_judged_by_the_f_statistic() -> None:
    found, ones = fill(WEEKS_LEAST, np.full((7, 24), 0.3))
    assert day_of_week(MONDAY * HOURS) == 0
    assert found.week.sums is not None
    assert found.week.sums[:, 1].tolist() == ones.sum(axis=(0, 2)).tolist()
    assert not found.week.weekly.any()
    plain = (ones.sum(axis=2) / 4_800).var(axis=0, ddof=1)
    assert found.week._week_to_week()[:, 0, 0] == pytest.approx(plain, rel=1e-3)
    assert stats.f.sf(RATIO_MIN, DAYS - 1, DAYS * (WEEKS_LEAST - 1)) < 1 / 30_000


def test_an_hour_of_a_day_is_what_hour_and_day_do_together() -> None:
    """Odds multiply: the reference is near the true law of each of the 168 hours."""
    hour, day = np.sin(np.arange(24) / 24 * 2 * np.pi), np.arange(7) >= 5
    share = 1 / (1 + np.exp(1 - 0.8 * hour - 0.7 * day[:, None]))
    assert not fill(WEEKS_LEAST - 1, share)[0].week.weekly.any()
    found, _ = fill(WEEKS_LEAST, share, 1_000)
    assert found.week.weekly.all()
    assert found.seasonal.all()
    for d in range(DAYS):
        for h in range(0, HOURS, 5):
            found.hour = (MONDAY + 700 + d) * HOURS + h
            found.refer()
            assert found.known is not None
            pool = found.known.pool[0]
            assert pool[1] / pool.sum() == pytest.approx(share[d, h], abs=0.03)
            assert (pool == np.round(pool)).all()
            usual = found.usual(np.arange(2), [found.hour * 3_600_000], np.array([100.0]))
            assert usual[0, 1] == pytest.approx(100 * share[d, h], abs=3)


def test_memory_of_weeks_is_bounded() -> None:
    found, _ = fill(3 * WEEKS_MAX, np.full((7, 24), 0.3))
    assert found.week.sums is not None
    assert found.week._days.max() < WEEKS_MAX
    assert found.week.sums.sum(axis=1).max() <= WEEKS_MAX * 4_800


def test_five_working_days_are_enough() -> None:
    """A model that nobody asks at weekends: Mondays differ."""
    rng, detector = np.random.default_rng(6), PoolTilt([level_tilts(np.array([70, 30]))], [0.01])
    found = Seasons(detector, np.arange(2), np.arange(2), np.zeros(2, np.int64))
    for day in (d for d in range(35) if d % 7 < 5):
        for hour in range(8, 18):
            found.turn((MONDAY + day) * HOURS + hour)
            n = rng.binomial(100, 0.5 if day % 7 == 0 else 0.3)
            found.add(np.array([100 - n, n], np.float64), np.zeros(1, np.bool_))
    assert found.week.weekly.all()


def test_before_each_day_of_the_week_is_known_an_alert_says_so() -> None:
    """Also after four weeks, if some days have too few rows."""
    inputs = made()
    days = np.arange(30)
    times = np.concatenate(
        [d * DAY_MS + np.arange(150 if (d + 3) % 7 < 5 else 40) * 500_000 for d in days]
    )
    rows = np.random.default_rng(3).normal(size=(len(NAMES), len(times)))
    inputs.add(Rows(tuple(NAMES), rows, times, []))
    evidence = inputs.drift.evidence
    assert evidence is not None
    assert {evidence.hours(name) for name in NAMES} <= {"alike", "learning"}
    assert {evidence.days(name) for name in NAMES} == {"learning"}
