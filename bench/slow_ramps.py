"""
Slow ramps: is a fixed reference better than the pool that grows? Days until a mean that rises over
weeks is found, by the detector on counts and by the same one against a reference of so many rows.

Rule of the file: counts of chunks are drawn from the laws of bins, day by day; 20 features at the
default budget, each one trial. Against a reference nothing may be said within its own sampling
error, so its tolerance is greater: by the quantile of 1 - 1 % / (alternatives x features), over the
root of its rows. That is what a guarantee "for 99 % of references" takes. `docs/detection.md` has
what it printed.

    python bench/slow_ramps.py
"""

from __future__ import annotations

import argparse
from statistics import NormalDist

import numpy as np
from detection_feeds import BOUNDS, TOLERANCE
from detection_streams import FEATURES, Float
from detection_tables import head, line

from stream_monitor.detectors.pool_tilt import PoolTilt, Reference
from stream_monitor.detectors.tilts import number_tilts

NORMAL, BINS, SURE = NormalDist(), 20, 0.01
EDGES = np.array([NORMAL.inv_cdf(k / BINS) for k in range(1, BINS)])
BY = 0.5
"""Standard deviations from the beginning of a ramp to its end."""
CLEAN_DAYS = 7


def law(mean: float) -> Float:
    """Shares of the bins, and of a last one for missing values, of a normal law."""
    below = np.array([0.0, *(NORMAL.cdf(e - mean) for e in EDGES), 1.0])
    return np.append(np.diff(below), 0.0)


def detectors(counts: Float) -> tuple[PoolTilt, PoolTilt, Reference]:
    """Both detectors, and the (features, bins) reference of the second one as it takes it."""
    tilts = [number_tilts(c.astype(np.int64), (0, BINS - 1)) for c in counts]
    pool, fixed = (PoolTilt(tilts, [TOLERANCE] * FEATURES, warm) for warm in (2_000, 0))
    alternatives = len(tilts[0].prior)
    z = NORMAL.inv_cdf(1 - SURE / (alternatives * FEATURES))
    allowed = np.full(FEATURES, TOLERANCE + z / counts[0].sum() ** 0.5)
    known = Reference(np.ones(FEATURES, np.bool_), counts, fixed.penalties(allowed, counts))
    return pool, fixed, known


def found(days: int, a_day: int, reference: int, ramp: int, seed: int) -> list[list[float]]:
    """
    Days after its beginning at which a ramp over `ramp` days (0: none) was found, by feature, by
    the pool and against the reference; those before the ramp are negative.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(reference, law(0.0), FEATURES).astype(np.float64)
    pool, fixed, known = detectors(counts)
    size = min(max(a_day // 600, 50), 1_600)
    chunks = a_day // size
    rows, times = np.full(chunks, size), np.full(chunks, 1 / chunks)
    bounds = np.full(FEATURES, BOUNDS["features"])
    told: list[list[float]] = [[], []]
    for day in range(-CLEAN_DAYS, days):
        shares = law(BY * min(max(day, 0) / ramp, 1.0) if ramp else 0.0)
        drawn = rng.multinomial(size, shares, (chunks, FEATURES)).astype(np.float64)
        told[0] += [day + a.chunk / chunks for a in pool.update(drawn, rows, times, bounds)]
        at = 0
        while at < chunks:
            alarms, taken = fixed.step(drawn[at:], rows[at:], times[at:], bounds, known)
            told[1] += [day + (at + a.chunk) / chunks for a in alarms]
            at += taken
    return told


def cell(days: list[float], ramp: int) -> str:
    """Found share, median of the days, and how far the mean had risen then."""
    late = sorted(d for d in days if d >= 0)
    if len(late) <= FEATURES // 2:
        return f"{len(late)} of {FEATURES}"
    median = late[FEATURES // 2]
    return f"{len(late)} of {FEATURES}, {median:.3g} ({BY * median / ramp:.2g} sd)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one ramp, to see that it runs")
    given = parser.parse_args()
    cases = [
        (10_000, 14, 30),
        (10_000, 60, 80),
        (10_000, 365, 60),
        (1_000_000, 14, 7),
        (1_000_000, 60, 25),
        (1_000_000, 180, 40),
    ]
    head(
        "rows a day",
        "ramp of 0.5 sd, days",
        "pool: found, days, rise",
        "reference of 5,000",
        "of 100,000",
        "before it: pool / reference",
    )
    for a_day, ramp, days in cases[:1] if given.quick else cases:
        cells, false = [f"{a_day:,}", f"{ramp}"], [0, 0]
        for k, reference in enumerate((5_000, 100_000)):
            of = found(days, a_day, reference, ramp, given.seed)
            cells += [cell(of[0], ramp)] * (k == 0) + [cell(of[1], ramp)]
            false = [n + sum(d < 0 for d in each) for n, each in zip(false, of, strict=True)]
        line([*cells, f"{false[0]} / {false[1]}"])


if __name__ == "__main__":
    main()
