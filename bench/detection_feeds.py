"""
How the streams of `detection.py` go through the product's own monitors, and through other
detectors.

Rule of the file: the product gets rows as the worker folds them (`Inputs`, `Errors`), with its own
defaults; nothing of it is written a second time here. Each detector gives the rows at which it
alarmed, by feature.
"""

from __future__ import annotations

import numpy as np
from detection_streams import FEATURES, ROW_MS, TEXTS, Float

from stream_monitor.detectors.base import EVIDENCE, METHODS, make
from stream_monitor.monitors.calibration import RESIDUALS, Calibration, Scored
from stream_monitor.monitors.errors import Errors
from stream_monitor.monitors.evidence import Evidence
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.one_signal import OneSignal
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.slowness import Slowness
from stream_monitor.monitors.version import SHARES
from stream_monitor.settings import Baseline, Limits, ModelSettings

TOLERANCE = METHODS[EVIDENCE].parameters["tolerance"]
DAYS = ModelSettings().days_per_alarm
PIECE = 1_000
ALWAYS_EVERY = 100
GROUPS = {
    "errors": Errors,
    "calibration": Calibration,
    "residuals": Calibration,
    "latency": Slowness,
}
SIGNALS = {"calibration": "calibration", "residuals": "calibration", "latency": "latency"}
Alarms = list[list[int]]
"""Rows with an alarm, by feature."""

BOUNDS = {
    "features": DAYS / SHARES[0] * FEATURES,
    "outputs": DAYS / SHARES[1] * 2,
    "errors": DAYS / SHARES[2],
    "calibration": DAYS / SHARES[3],
    "residuals": DAYS / SHARES[3],
    "latency": DAYS / SHARES[4],
}
"""Days for each false alarm of one signal: 20 features, score and prediction, or one alone."""


def times(rows: int, row_ms: float = ROW_MS) -> np.ndarray:
    return np.round(np.arange(rows) * row_ms).astype(np.int64)


def names(features: int) -> tuple[str, ...]:
    return tuple(f"f{i}" for i in range(features))


def inputs(
    baseline: int, bound: float, features: int, tolerance: float | None = TOLERANCE
) -> Inputs:
    """The monitor of input, with `bound` days for each false alarm of a signal."""
    made = Inputs(
        lambda column: column,
        ModelSettings(baseline=Baseline(rows=baseline)),
        Limits(),
        tolerance=lambda _: tolerance,
    )
    made.drift.days = bound / features
    return made


def openings(of: Inputs, x: Float, when: np.ndarray) -> Alarms:
    """Feed rows; where each feature drifted."""
    columns, found = names(len(x)), [list[int]() for _ in x]
    for at in range(0, x.shape[1], PIECE):
        part = slice(at, at + PIECE)
        of.add(Rows(columns, x[:, part].copy(), when[part], TEXTS))
        if of.drift.evidence is not None:
            _note(of.drift.evidence, columns, found)
    return found


def _note(evidence: Evidence, columns: tuple[str, ...], found: Alarms) -> None:
    for i, name in enumerate(columns):
        drifted = evidence.drifted.get(name)
        if drifted is not None and (not found[i] or found[i][-1] != drifted.found_row):
            found[i].append(drifted.found_row)


def alone(
    kind: str, x: Float, when: np.ndarray, bound: float, tolerance: float | None = None
) -> Alarms:
    """
    Where the errors, the calibration or the latency of each of several models drifted; `tolerance`
    is the default if it is None. Of the calibration a model has scores and labels.
    """
    found: Alarms = [[] for _ in x]
    methods = getattr(ModelSettings().drift, "errors" if kind == "errors" else SIGNALS[kind])
    allowed = {"tolerance": TOLERANCE, **methods[EVIDENCE]}["tolerance"]
    for i, values in enumerate(x):
        of = GROUPS[kind](lambda _: allowed if tolerance is None else tolerance)
        of.days = bound
        for at in range(0, len(when), PIECE):
            _feed(of, kind, values[..., at : at + PIECE], when[at : at + PIECE])
            if of.evidence is not None:
                _note(of.evidence, (of.name,), found[i : i + 1])
    return found


def _feed(of: OneSignal, kind: str, values: Float, when: np.ndarray) -> None:
    if isinstance(of, Errors):
        of.add(values, when, binary=True)
    elif isinstance(of, Calibration):
        named = RESIDUALS if kind == "residuals" else "score of 1"
        of.add([Scored(named, np.atleast_2d(values), when)])
    elif isinstance(of, Slowness):
        of.add(values, when)


def firings(method: str, x: Float, baseline: int) -> Alarms:
    """
    Where a detector by name fires; it reads numbers only. Values are standardised by the first
    `baseline` rows; with 0 rows, as it is for errors, they stay as they are.
    """
    found: Alarms = []
    for row in x:
        there = np.flatnonzero(np.isfinite(row))
        values = row[there]
        if len(values) and baseline:
            first = values[:baseline]
            values = (values - first.mean()) / (first.std() or 1.0)
        found.append(there[make(method, {}).update(values)].tolist() if len(values) else [])
    return found


def always(x: Float) -> Alarms:
    """A detector that alarms every 100 rows: what a found share is worth without false alarms."""
    return [list(range(ALWAYS_EVERY - 1, x.shape[-1], ALWAYS_EVERY)) for _ in x]
