"""
Hours of the day against plain counting: pools, variances between days, the F statistic.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stream_monitor.detectors import seasons
from stream_monitor.detectors.pool_tilt import PoolTilt
from stream_monitor.detectors.seasons import DAYS_LEAST, DAYS_MAX, HOURS, RATIO_MIN, Seasons
from stream_monitor.detectors.tilts import level_tilts

ROWS = 200


def made() -> Seasons:
    """One signal with two levels, so that its contrasts are 0 and 1."""
    detector = PoolTilt([level_tilts(np.array([70, 30]))], [0.01])
    return Seasons(detector, np.arange(2), np.arange(2), np.zeros(2, np.int64))


def fill(days: int, share: np.ndarray, seed: int = 1) -> tuple[Seasons, np.ndarray]:
    """Hours of some days, `share` (24,) by hour; also the counts, (days, 24)."""
    rng = np.random.default_rng(seed)
    found, ones = made(), rng.binomial(ROWS, np.tile(share, (days, 1)))
    for hour, n in enumerate(ones.ravel().tolist()):
        found.turn(hour)
        found.add(np.array([ROWS - n, n], np.float64), np.zeros(1, np.bool_))
    found.turn(days * HOURS)
    return found, ones


def test_pools_and_variances_are_those_of_plain_counting() -> None:
    found, ones = fill(DAYS_LEAST, np.full(HOURS, 0.3))
    assert found.slots is not None
    assert found.slots[:, 1].tolist() == ones.sum(axis=0).tolist()
    plain = (ones / ROWS).var(axis=0, ddof=1)
    assert found._day_to_day()[:, 0, 0] == pytest.approx(plain, rel=1e-4)
    assert found.learnt.all()
    assert not found.seasonal.any()


def test_the_bound_of_the_ratio_is_rare_by_chance() -> None:
    assert stats.f.sf(RATIO_MIN, HOURS - 1, HOURS * (DAYS_LEAST - 1)) < 1e-5


def test_hours_that_differ_are_a_season_after_two_weeks() -> None:
    share = 0.3 + 0.1 * np.sin(np.arange(HOURS) / HOURS * 2 * np.pi)
    assert not fill(DAYS_LEAST - 1, share)[0].seasonal.any()
    found, ones = fill(DAYS_LEAST, share)
    assert found.seasonal.all()
    assert found.known is not None
    assert found.known.pool[0, 1] == ones[:, 0].sum()


def test_features_without_season_are_hardly_ever_taken_for_one() -> None:
    assert (
        sum(fill(DAYS_LEAST, np.full(HOURS, 0.3), seed)[0].seasonal[0] for seed in range(2, 14))
        == 0
    )


def test_what_an_hour_varies_from_day_to_day_is_tolerated() -> None:
    rng = np.random.default_rng(5)
    found, share = made(), 0.3 + 0.1 * np.sin(np.arange(HOURS) / HOURS * 2 * np.pi)
    for hour in range(50 * HOURS):
        p = np.clip(share[hour % HOURS] + 0.05 * rng.normal(), 0.01, 0.99)
        found.turn(hour)
        n = rng.binomial(5_000, p)
        found.add(np.array([5_000.0 - n, n]), np.zeros(1, np.bool_))
    found.turn(50 * HOURS)
    assert found.slots is not None
    allowed = [found._wander(h, found._table(found.slots[h]))[0] for h in range(HOURS)]
    sd = np.sqrt(share * (1 - share))
    assert np.mean(allowed * sd) == pytest.approx(seasons.WANDER * 0.05, rel=0.15)


def test_hours_stay_bounded_and_changes_stay_out() -> None:
    found, _ = fill(DAYS_MAX, np.full(HOURS, 0.3))
    assert found.slots is not None
    rows = found.slots.sum()
    assert rows <= DAYS_MAX * HOURS * ROWS / 2
    found.add(np.array([0.0, 1_000.0]), np.ones(1, np.bool_))
    found.turn(DAYS_MAX * HOURS + 1)
    assert found.slots.sum() == rows
