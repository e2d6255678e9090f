"""
What is allowed in a configuration and yet does not do what it says.

Rule of the file: sentences for people, each with its key, the numbers and the way out. Errors are
in `relations.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from stream_monitor.settings import LOOKED_AT, STEADY, CoreSettings, ModelSettings
from stream_monitor.stats.chance import BINS, chance_of


def remarks(settings: CoreSettings) -> list[str]:
    """
    Everything of that kind.

    Examples
    --------
    >>> from stream_monitor.settings import Drift
    >>> few = ModelSettings(drift=Drift(thresholds={"psi": 0.02, "ks": 0.3}))
    >>> remarks(CoreSettings(defaults=few))
    ['defaults.drift.thresholds.psi: 0.02 is within chance: two samples of one law are up to 0.044 \
apart in 1,000 rows (5 x quality.min_rows) against 5,000 rows of the baseline, on 20 bins. Smaller \
distances raise no alert; give 0.044 or more, or a greater quality.min_rows']
    """
    found = [f"defaults.{text}" for text in _distances(settings.defaults)]
    for name, model in settings.models.items():
        found += [
            f"models.{name}.{text}" for text in _distances(model) if f"defaults.{text}" not in found
        ]
    return found


def _distances(model: ModelSettings) -> Iterator[str]:
    """Thresholds of distances that chance exceeds in so few rows."""
    times, learnt = LOOKED_AT[STEADY], model.baseline.source == "learn"
    now = times * model.quality.min_rows
    before = model.baseline.rows if learnt else math.inf
    baseline = f"{before:,} rows of the baseline" if learnt else "the baseline"
    for method, limit in model.drift.thresholds.items():
        chance = chance_of(method, before, now)
        if limit < chance:
            yield (
                f"drift.thresholds.{method}: {limit:g} is within chance: two samples of one law "
                f"are up to {chance:.2g} apart in {now:,} rows ({times} x quality.min_rows) "
                f"against {baseline}, on {BINS} bins. Smaller distances raise no "
                f"alert; give {chance:.2g} or more, or a greater quality.min_rows"
            )
