"""
The signals of a model version that have detectors: features, score and prediction, and errors.

Rule of the file: a signal gets its detectors with its first values. All values are standardised:
inputs by their baseline, the errors of a regression by the first errors.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.base import EVIDENCE, METHODS
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.drift import CLASS_SCORE, Signal, class_scores, signal_of
from stream_monitor.monitors.windowed import unit_of
from stream_monitor.settings import Drift

ERRORS = "__error__"
"""The signal of how wrong the model is."""
FIRST_ERRORS = 500
"""First absolute errors of a regression, which make the scale and the bins of the later ones."""


class Signals(dict[str, Signal]):
    """
    Signals of one model version, by subject.

    Parameters
    ----------
    settings : Drift
        The detectors of each kind of signal.
    """

    def __init__(self, settings: Drift) -> None:
        super().__init__()
        self.settings = settings
        self.fired: set[str] = set()
        """Signals with an episode that began, went on or ended and was not judged yet."""
        self.first_errors: Float = np.empty(0)
        """Errors of a regression, until there are FIRST_ERRORS."""
        self.error_scale: tuple[float, float] | None = None
        """Mean and standard deviation of the first errors of a regression."""
        self._ranked: tuple[Profile | None, frozenset[str]] = None, frozenset()
        """Class scores that have detectors, by the baseline."""

    def __missing__(self, subject: str) -> Signal:
        home = None if subject == ERRORS else 0.0
        methods = {
            method: parameters
            for method, parameters in getattr(self.settings, signal_of(subject)).items()
            if method != EVIDENCE
        }
        signal = self[subject] = Signal(subject, methods, home)
        return signal

    def feed(self, subject: str, values: Float, times_ms: Int, *, binary: bool = False) -> None:
        """
        Feed the detectors of one signal.

        Parameters
        ----------
        subject : str
        values : (n,) float64
            Finite and standardised, in log order.
        times_ms : (n,) int64, ms
        binary : bool
            The values are 0 and 1; this counts when the signal gets its detectors.
        """
        if subject not in self:
            self[subject].state.binary = binary
        if self[subject].update(values, times_ms):
            self.fired.add(subject)

    def has_methods(self, *signals: str) -> bool:
        """Whether one of these kinds of signals has a detector that reads values."""
        return any(m != EVIDENCE for kind in signals for m in getattr(self.settings, kind))

    def has_detectors(self, subject: str, outputs: Profile | None) -> bool:
        """Whether a signal is watched: of class scores only those with the greatest mean are."""
        if not self.has_methods(signal_of(subject)):
            return False
        if not subject.startswith(CLASS_SCORE):
            return True
        if self._ranked[0] is not outputs:
            self._ranked = outputs, class_scores(outputs)
        return subject in self._ranked[1]

    def tolerance(self, subject: str) -> float | None:
        """The tolerance of the detector on counts of a signal; None: it has none."""
        methods = getattr(self.settings, signal_of(subject))
        if EVIDENCE not in methods:
            return None
        return float({**METHODS[EVIDENCE].parameters, **methods[EVIDENCE]}["tolerance"])

    def standardised(self, errors: Float) -> Float:
        """
        Errors of a regression by the mean and deviation of the first ones, because detectors expect
        a unit scale. The first ones make that scale and are not returned.
        """
        if self.error_scale is None:
            self.first_errors = np.append(self.first_errors, errors)
            if len(self.first_errors) < FIRST_ERRORS:
                return np.empty(0)
            errors, first = self.first_errors[FIRST_ERRORS:], self.first_errors[:FIRST_ERRORS]
            self.first_errors = first
            self.error_scale = float(first.mean()), float(first.std()) or 1.0
        mean, sd = self.error_scale
        return (errors - mean) / sd

    def scale_of(self, subject: str, profiles: Iterable[Profile | None]) -> tuple[float, float]:
        """Mean and standard deviation by which the values of a signal were standardised."""
        for profile in profiles:
            if profile is not None and subject in profile.features:
                feature = profile.features[subject]
                return feature.mean, unit_of(feature)
        return (subject == ERRORS and self.error_scale) or (0.0, 1.0)

    def begin_errors_anew(self) -> None:
        """Errors are in other units from here on."""
        self.pop(ERRORS, None)
        self.fired.discard(ERRORS)
