"""
Has something changed? Detectors on the rows themselves, and distances of a window to the reference.

Rule of the file: a detector gets finite, standardised values in log order and says where it fired; a firing opens an episode. Distances are severities for
people: they are gauges, and raise alerts only where the configuration gives a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stream_monitor.alerts.episodes import Episodes
from stream_monitor.detectors.base import ValueDetector, make, restore
from stream_monitor.monitors.inputs import Inputs, Windowed
from stream_monitor.monitors.reference import FeatureProfile
from stream_monitor.settings import ModelSettings
from stream_monitor.stats import divergence
from stream_monitor.verdicts import AlertKey, Kind, Span, Verdict

Float = NDArray[np.float64]
CLIP_SD = 3.0
"""Detectors of the mean get values cut at so many standard deviations: on heavy tails (t3, lognormal) ADWIN fires several times as often without it."""
CONFIRM_ROWS, CONFIRM_Z = 200, 2.0
CHANGE_MIN, CHANGE_MIN_ERRORS = 0.1, 0.02
"""A firing is confirmed by the values that follow it: their mean must have moved by two standard errors, and by a tenth of the reference's standard deviation (an error
rate by 0.02). Over long clean streams a detector also fires at nothing: this leaves one such firing in twenty."""
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


class Candidate(Struct, array_like=True):
    """A firing that waits to be confirmed."""

    row: int
    time_ms: int
    before: float
    rows: int = 0
    total: float = 0.0
    """Of the values as the detectors get them."""
    raw_total: float = 0.0


class Signal:
    """Detectors on one stream of values (a feature, the score, the errors) and the episode each of them is in."""

    def __init__(self, subject: str, methods: Mapping[str, Mapping[str, float]]) -> None:
        self.subject, self.methods = subject, methods
        self.detectors: dict[str, ValueDetector] = {m: make(m, params) for m, params in methods.items()}
        self.episodes = {m: Episodes() for m in self.detectors}
        self.candidates: dict[str, Candidate | None] = dict.fromkeys(self.detectors)
        self.binary = False
        """The values are 0 and 1 (errors of a classification)."""
        self.rows = 0

    def update(self, values: Float, times_ms: NDArray[np.int64]) -> bool:
        """Feed standardised values; whether a change was confirmed. Detectors get them cut, people are told what they are."""
        confirmed = False
        cut = values if self.binary else np.clip(values, -CLIP_SD, CLIP_SD)
        for method, detector in self.detectors.items():
            hits = dict(zip(detector.update(cut).tolist(), detector.befores, strict=True))
            if hits or self.candidates[method] is not None:
                confirmed |= self._confirm(method, hits, cut, values, times_ms)
        self.rows += len(values)
        return confirmed

    def _confirm(self, method: str, hits: Mapping[int, float], cut: Float, values: Float, times_ms: NDArray[np.int64]) -> bool:
        """A firing becomes an episode when the `CONFIRM_ROWS` values after it lie away from the mean before it, by more than chance and by enough to matter."""
        at, confirmed = 0, False
        while True:
            candidate = self.candidates[method]
            if candidate is None:
                hit = next((h for h in hits if h >= at), None)
                if hit is None:
                    return confirmed
                candidate = self.candidates[method] = Candidate(self.rows + hit, int(times_ms[hit]), hits[hit])
                at = hit + 1
            end = at + CONFIRM_ROWS - candidate.rows
            candidate.total += float(cut[at:end].sum())
            candidate.raw_total += float(values[at:end].sum())
            candidate.rows += len(cut[at:end])
            at += len(cut[at:end])
            if candidate.rows < CONFIRM_ROWS:
                return confirmed
            self.candidates[method] = None
            after, episode = candidate.total / CONFIRM_ROWS, self.episodes[method]
            if abs(after - candidate.before) >= self._least(candidate.before):
                confirmed = True
                if episode.open and abs(after - episode.before) < self._least(episode.before):
                    episode.over(after=candidate.raw_total / CONFIRM_ROWS)
                else:
                    episode.detected(candidate.row, candidate.time_ms, before=candidate.before, after=candidate.raw_total / CONFIRM_ROWS)

    def _least(self, before: float) -> float:
        if self.binary:
            return max(CHANGE_MIN_ERRORS, CONFIRM_Z * float(np.sqrt(before * (1 - before) / CONFIRM_ROWS)))
        return max(CHANGE_MIN, CONFIRM_Z / float(np.sqrt(CONFIRM_ROWS)))

    def verdicts(self, model: str, version: str, settings: ModelSettings, scale: tuple[float, float], reference: str) -> Iterator[Verdict]:
        """The verdict of each detector's episode; `scale` is (mean, sd) that undoes the standardisation."""
        for method, episodes in self.episodes.items():
            key = AlertKey(model, version, "", kind_of(self.subject), self.subject, method)
            better = self.subject == "__error__" and episodes.after < episodes.before
            verdict = episodes.verdict(key, self.rows, scale=scale, severity="info" if better else settings.drift.severity, cooldown_ms=settings.cooldown_ms, reference=reference)
            if verdict is not None:
                yield verdict

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "rows": self.rows,
            "binary": self.binary,
            "detectors": {m: d.state() for m, d in self.detectors.items()},
            "episodes": {m: e.state() for m, e in self.episodes.items()},
            "candidates": {m: msgspec.to_builtins(c) for m, c in self.candidates.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a snapshot."""
        self.rows, self.binary = state["rows"], state["binary"]
        for method, saved in state["detectors"].items():
            if method in self.detectors:
                self.detectors[method] = restore(method, self.methods[method], saved)
                self.episodes[method] = Episodes.from_state(state["episodes"][method])
                saved = state["candidates"][method]
                self.candidates[method] = None if saved is None else msgspec.convert(saved, Candidate)


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
