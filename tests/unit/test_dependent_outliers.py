"""
The share of values outside the fences where values depend on those before: outliers come together,
and that is no fault. Real ones are still found.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from stream_monitor.monitors.context import Context
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.quality import judge
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Baseline, Limits, ModelSettings

SETTINGS = ModelSettings(baseline=Baseline(rows=2_000))
CONTEXT = Context("pump", "1", SETTINGS)
ROWS, AT, COLUMNS, STEP = 12_000, 9_000, 3, 200


def alarms(x: np.ndarray) -> list[int]:
    """Rows after which a share of outliers begins to be beyond its limit."""
    inputs = Inputs(lambda c: c, SETTINGS, Limits(), tolerance=lambda _: 0.005)
    inputs.drift.days = 30.0
    names, found, was = tuple(f"s{i}" for i in range(len(x))), [], set[str]()
    for at in range(0, x.shape[1], STEP):
        times = np.arange(at, at + STEP, dtype=np.int64) * 1_000
        inputs.add(Rows(names, x[:, at : at + STEP].copy(), times, []))
        verdicts = [v for v in judge(CONTEXT, inputs, int(times[-1])) if v.key.detector == "iqr"]
        bad = {v.key.subject for v in verdicts if v.level != "ok"}
        found += [at + STEP] * len(bad - was)
        was = (was | bad) - {v.key.subject for v in verdicts if v.clear}
    return found


def dependent() -> np.ndarray:
    """Skewed values as scores of such rows are: a tenth is outside the fences."""
    rho, noise = 0.9, np.random.default_rng(14).normal(size=(COLUMNS, ROWS))
    z = lfilter([np.sqrt(1 - rho**2)], [1, -rho], noise)
    return np.asarray(1 / (1 + np.exp(3 - 2 * z)))


def test_outliers_of_dependent_values_that_come_together_are_no_alarm() -> None:
    assert alarms(dependent()) == []


def test_outliers_of_dependent_values_are_found() -> None:
    x = dependent()
    x[0, AT:] += 1.0
    (found,) = alarms(x)
    assert AT < found <= AT + 1_000
