"""
The interface of a detector, and the list of all methods.

Rule of the file: a detector returns the rows at which it fired and never latches. The result does
not depend on how rows are cut into arrays. Its values are finite and standardised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from stream_monitor.arrays import Float, Int


class ValueDetector(Protocol):
    """A change detector on one stream of values."""

    befores: list[float]
    """For each alarm of the last update, the mean of the values before the change."""
    restarted: bool
    """Whether the detector restarted because a saved state could not be used."""

    @property
    def score(self) -> float:
        """The statistic, as a gauge."""

    def update(self, values: Float) -> Int:
        """Feed (n,) float64, finite; returns the indices at which a change was detected."""

    def state(self) -> dict[str, Any]:
        """
        Plain values (numbers, strings, bytes, lists), from which `load` of the same class continues
        exactly.
        """

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state, or restart if the state cannot be used."""


class Method(NamedTuple):
    """
    A detector by name: its parameters with their defaults on standardised values, and whether it
    takes only 0 and 1.
    """

    parameters: Mapping[str, float]
    binary: bool = False
    guarantee: str = "none"
    """What is known of its rate of false firings."""
    limits: tuple[str, ...] = ()
    """
    Parameters with which the statistic is only compared; a change takes effect with the next value.
    """


EVIDENCE = "evidence"
"""
The detector on counts (`pool_tilt.py`), which takes all signals of a group at once. It is no
`ValueDetector`.
"""
METHODS: dict[str, Method] = {
    EVIDENCE: Method({"tolerance": 0.005}, limits=("tolerance",)),
    "adwin": Method(
        {"delta": 0.002, "clock": 32, "max_buckets": 5, "min_window_length": 5, "grace_period": 10}
    ),
    "page_hinkley": Method(
        {"min_instances": 1_000, "delta": 0.25, "threshold": 50.0, "alpha": 1.0},
        limits=("min_instances", "threshold"),
    ),
    "ddm": Method(
        {"warm_start": 30, "warning_threshold": 2.0, "drift_threshold": 3.0}, binary=True
    ),
    "hddm_a": Method(
        {"drift_confidence": 0.001, "warning_confidence": 0.005, "two_sided_test": 0}, binary=True
    ),
    "hddm_w": Method(
        {
            "drift_confidence": 0.001,
            "warning_confidence": 0.005,
            "lambda_val": 0.05,
            "two_sided_test": 0,
        },
        binary=True,
    ),
    "conformal": Method(
        {"threshold": 1_000_000.0, "chunk": 25, "warm_start": 500, "seed": 1},
        binary=True,
        guarantee="proved",
        limits=("threshold",),
    ),
    "kswin": Method({"alpha": 0.0001, "window_size": 100, "stat_size": 30, "seed": 1}),
}
"""
River's names and defaults, except for `conformal`, which is ours, and Page-Hinkley: River's
defaults (0.005, 50, alpha 0.9999) fire 60 times in 100,000 clean values.
"""


def make(method: str, parameters: Mapping[str, float]) -> ValueDetector:
    """
    A detector by name.

    Parameters
    ----------
    method : str
        A key of `METHODS`.
    parameters : mapping
        Values that differ from the defaults.

    Raises
    ------
    ValueError
        The name or a parameter is not known.
    """
    known = METHODS.get(method)
    if known is None:
        raise ValueError(f"unknown detector {method!r}; known are {', '.join(METHODS)}")
    unknown = set(parameters) - set(known.parameters)
    if unknown:
        raise ValueError(
            f"detector {method!r} has no parameter {min(unknown)!r}; it has "
            f"{', '.join(known.parameters)}"
        )
    values = {**known.parameters, **parameters}
    if method == "page_hinkley":
        from stream_monitor.detectors.page_hinkley import PageHinkley

        return PageHinkley(**values)
    if method == "conformal":
        from stream_monitor.detectors.conformal import Conformal

        return Conformal(**values)
    from stream_monitor.detectors import river_adapters

    return river_adapters.adapter(method, values)


def restore(
    method: str, parameters: Mapping[str, float], state: Mapping[str, Any]
) -> ValueDetector:
    """
    The detector of a snapshot; a new one that learns again if its state cannot be used (another
    version of River).
    """
    detector = make(method, parameters)
    detector.load(state)
    return detector
