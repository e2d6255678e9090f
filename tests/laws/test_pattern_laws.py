"""Hours against the same hour of earlier days: quiet on clean data of any law, loud on a change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stream_monitor.monitors.patterns import Patterns, pattern
from stream_monitor.settings import Anomalies
from stream_monitor.times import HOUR_MS

Law = Callable[[np.random.Generator, int], np.ndarray]
LAWS: dict[str, Law] = {
    "flag of 1 %": lambda r, n: (r.random(n) < 0.01) * 1.0,
    "flag of 3 %": lambda r, n: (r.random(n) < 0.03) * 1.0,
    "flag of 10 %": lambda r, n: (r.random(n) < 0.1) * 1.0,
    "flag of a half": lambda r, n: (r.random(n) < 0.5) * 1.0,
    "counts": lambda r, n: r.poisson(0.2, n) * 1.0,
    "amounts that are mostly 0": lambda r, n: np.where(r.random(n) < 0.9, 0, r.lognormal(3, 1, n)),
    "normal": lambda r, n: r.normal(size=n),
}
DAYS = 20


def fired(law: Law, rows: int, seed: int, broken_from: int | None = None, features: int = 4) -> int:
    """Patterns told over days; from a day on values are ten times as great, and 10 more."""
    rng, patterns = np.random.default_rng(seed), Patterns()
    for feature in range(features):
        for hour in range(24 * DAYS):
            values = law(rng, rows)
            if broken_from is not None and hour >= 24 * broken_from:
                values = 10 * values + 10
            found = pattern(rows, rows, values.mean(), values.std(), 0, 0)
            patterns.judge(f"x{feature}", hour * HOUR_MS, found, Anomalies())
    return sum(patterns.count.values())


@pytest.mark.parametrize("rows", [30, 60, 400])
@pytest.mark.parametrize("name", LAWS)
def test_clean_hours_are_quiet_however_rare_what_happens_in_them(name: str, rows: int) -> None:
    assert fired(LAWS[name], rows, seed=rows) == 0


@pytest.mark.parametrize("name", LAWS)
def test_hours_that_changed_are_told(name: str) -> None:
    assert fired(LAWS[name], 400, seed=1, broken_from=10, features=2) >= 2
