"""
Has something changed? Detectors on the rows themselves, and distances of a window to the reference.

Rule of the file: a detector gets finite, standardised values in log order and says where it fired; a firing opens an episode. Distances are severities for
people: they are gauges, and raise alerts only where the configuration gives a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.episodes import Episodes
from stream_monitor.detectors.base import ValueDetector, make, restore
from stream_monitor.monitors.inputs import Inputs, Windowed
from stream_monitor.monitors.reference import FeatureProfile
from stream_monitor.settings import ModelSettings
from stream_monitor.stats import divergence
from stream_monitor.verdicts import AlertKey, Kind, Span, Verdict

Float = NDArray[np.float64]
SCORES = ("psi", "js", "ks", "wasserstein", "chi2")
KINDS: dict[str, Kind] = {"__error__": "concept_drift", "__score__": "prediction_drift", "__prediction__": "prediction_drift"}


def kind_of(subject: str) -> Kind:
    return KINDS.get(subject, "data_drift")


def distances(profile: FeatureProfile, now: Windowed) -> dict[str, float]:
    """Distances of one feature's window to its reference, by method; empty without rows."""
    if not now.counts.sum():
        return {}
    if profile.type == "numeric":
        expected, actual = np.asarray(profile.counts, np.float64)[None], now.counts[None]
        middles = _middles(profile)
        found = {
            "psi": divergence.psi(expected, actual, unbiased=True),
            "js": divergence.jensen_shannon(expected, actual),
            "ks": divergence.ks(expected, actual),
            "wasserstein": divergence.wasserstein(expected, actual, middles[None], np.array([profile.sd or 1.0])),
        }
    else:
        known = np.array([*(profile.categories or {}).values(), 0], np.float64)
        if len(known) != len(now.counts):
            return {}
        expected, actual = known[None], now.counts[None]
        found = {"psi": divergence.psi(expected, actual, unbiased=True), "js": divergence.jensen_shannon(expected, actual), "chi2": divergence.chi2(expected, actual)}
    return {method: float(v[0]) for method, v in found.items() if np.isfinite(v[0])}


def _middles(profile: FeatureProfile) -> Float:
    """A value that stands for each bin: the middle of its edges, with minimum and maximum at the ends."""
    edges = np.array([profile.min, *profile.quantiles, profile.max], np.float64)
    return (edges[1:] + edges[:-1]) / 2


class Signal:
    """Detectors on one stream of values (a feature, the score, the errors) and the episode each of them is in."""

    def __init__(self, subject: str, methods: Mapping[str, Mapping[str, float]]) -> None:
        self.subject, self.methods = subject, methods
        self.detectors: dict[str, ValueDetector] = {m: make(m, params) for m, params in methods.items()}
        self.episodes = {m: Episodes() for m in self.detectors}
        self.rows = 0

    def update(self, values: Float, times_ms: NDArray[np.int64]) -> bool:
        """Feed values; whether any detector fired."""
        fired = False
        for method, detector in self.detectors.items():
            hits = detector.update(values)
            if len(hits):
                fired = True
                for hit in hits.tolist():
                    self.episodes[method].detected(self.rows + hit, int(times_ms[hit]), before=detector.before, after=detector.after)
        self.rows += len(values)
        return fired

    def verdicts(self, model: str, version: str, settings: ModelSettings, scale: tuple[float, float], reference: str) -> Iterator[Verdict]:
        """The verdict of each detector's episode; `scale` is (mean, sd) that undoes the standardisation."""
        for method, episodes in self.episodes.items():
            key = AlertKey(model, version, "", kind_of(self.subject), self.subject, method)
            verdict = episodes.verdict(key, self.rows, scale=scale, severity=settings.drift.severity, cooldown_ms=settings.cooldown_ms, reference=reference)
            if verdict is not None:
                yield verdict

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {"rows": self.rows, "detectors": {m: d.state() for m, d in self.detectors.items()}, "episodes": {m: e.state() for m, e in self.episodes.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a snapshot."""
        self.rows = state["rows"]
        for method, saved in state["detectors"].items():
            if method in self.detectors:
                self.detectors[method] = restore(method, self.methods[method], saved)
                self.episodes[method] = Episodes.from_state(state["episodes"][method])


def score_verdicts(model: str, version: str, inputs: Inputs, found: Mapping[str, Windowed], span: Span, settings: ModelSettings, reference: str) -> Iterator[Verdict]:
    """Verdicts of the thresholds on distances, where the configuration has any."""
    if inputs.profile is None or not settings.drift.thresholds:
        return
    for name, now in found.items():
        scores = distances(inputs.profile.features[name], now)
        for method, threshold in settings.drift.thresholds.items():
            if method in scores:
                value = scores[method]
                yield Verdict(
                    key=AlertKey(model, version, "", kind_of(name), name, method),
                    level=settings.drift.severity if value > threshold else "ok",
                    clear=value <= threshold,
                    value=value,
                    threshold=threshold,
                    direction=None,
                    window=span,
                    summary=f"{model}: `{name}` is {method} {value:.3f} away from its reference (limit {threshold:g}, {span.count:,} rows)",
                    reference=reference,
                    cooldown_ms=settings.cooldown_ms,
                    evidence={"guarantee": "none"},
                )
