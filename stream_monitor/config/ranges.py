"""
What the configuration can name (metrics, distances, signals, parameters of detectors), and the
range of each.

Rule of the file: these are facts of mathematics and of the detectors. `rules` has the values that a
key of `monitor.yaml` may have.
"""

from __future__ import annotations

import math

from stream_monitor.detectors.base import METHODS

ESTIMATED = tuple(f"estimated_{name}" for name in ("accuracy", "precision", "recall", "f1"))
"""Metrics of predictions without labels."""
SHARES = frozenset(
    {"accuracy", "precision", "recall", "f1", "roc_auc", "calibration_error", *ESTIMATED}
)
"""Metrics between 0 and 1."""
CLASSIFICATION = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "log_loss",
    "brier_score",
    "calibration_error",
    *ESTIMATED,
)
REGRESSION = ("mae", "rmse", "r2", "bias")
METRICS = CLASSIFICATION + REGRESSION
LESS_IS_BETTER = frozenset({"log_loss", "brier_score", "calibration_error", "mae", "rmse", "bias"})
"""
Metrics for which less is better. A bare number is their maximum; for other metrics it is the
minimum.

`bias` is judged by its absolute value.
"""
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(SHARES, (0.0, 1.0)),
    **dict.fromkeys(("log_loss", "brier_score", "mae", "rmse", "bias"), (0.0, math.inf)),
    "r2": (-math.inf, 1.0),
}
"""
Range of each metric (for `bias` of its absolute value). It shows which rules could never fire or
never end.
"""
DISTANCES = ("psi", "js", "ks", "wasserstein", "chi2")
SIGNALS = ("errors", "score", "prediction", "features", "calibration", "latency")

DETECTOR_BOUNDS: dict[str, tuple[float, float]] = {
    "tolerance": (0, 1),
    "clock": (1, 1_000_000),
    "max_buckets": (1, 1_000),
    "min_window_length": (1, 1_000_000),
    "grace_period": (0, 1_000_000),
    "min_instances": (1, 10_000_000),
    "threshold": (1e-9, 1e9),
    "warm_start": (1, 10_000_000),
    "chunk": (5, 10_000),
    "warning_threshold": (0, 100),
    "drift_threshold": (0, 100),
    "drift_confidence": (1e-300, 1),
    "warning_confidence": (1e-300, 1),
    "lambda_val": (1e-9, 1),
    "two_sided_test": (0, 1),
    "window_size": (2, 1_000_000),
    "stat_size": (1, 1_000_000),
    "seed": (0, 2**31 - 1),
    "alpha": (1e-300, 1),
}
DELTA_BOUNDS = {"adwin": (1e-300, 1.0), "page_hinkley": (0.0, 1e9)}


def bounds(method: str, parameter: str) -> tuple[float, float]:
    """Smallest and greatest value of a parameter of a detector."""
    return DELTA_BOUNDS[method] if parameter == "delta" else DETECTOR_BOUNDS[parameter]


def whole(method: str, parameter: str) -> bool:
    """Whether a parameter of a detector is a whole number."""
    return isinstance(METHODS[method].parameters[parameter], int)
