"""
Has something changed? Detectors on the rows themselves.

Rule of the file: a detector gets finite, standardised values in the order of the log, and says
where it fired. A firing that is confirmed opens an episode, which lasts until the signal is back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stream_monitor.arrays import Float
from stream_monitor.detectors.base import METHODS, ValueDetector, make, restore
from stream_monitor.monitors.baseline import Profile
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.definitions import Changes
from stream_monitor.monitors.episodes import Episode
from stream_monitor.verdicts import AlertKey, Kind, Verdict

CLIP_SD = 3.0
"""
Detectors of the mean get values cut at so many standard deviations: on heavy tails (t3, lognormal)
ADWIN fires several times as often without it.
"""
CONFIRM_ROWS, CONFIRM_Z = (200, 400, 800, 1_600, 3_200), 4.0
CHANGE_MIN, CHANGE_MIN_ERRORS = 0.1, 0.02
"""
A firing is confirmed by the values that follow it, looked at whenever there are so many of them:
their mean must have moved by four standard errors, and by a tenth of the baseline's standard
deviation (an error rate by 0.02). Over long clean streams a detector also fires at nothing: this
leaves about one such firing in three thousand, and tells a great change after 200 values.
"""
CLASS_SCORE = "__score__:"
"""The score of one class, whose name follows."""
CLASS_SCORES_MAX = 10
"""
Classes whose scores have detectors: those with the greatest mean score in the baseline.

All have distances.
"""
KINDS: dict[str, Kind] = {
    "__error__": "concept_drift",
    "__score__": "prediction_drift",
    "__prediction__": "prediction_drift",
}
SIGNALS = {
    "__error__": "errors",
    "__score__": "score",
    "__prediction__": "prediction",
    "__calibration__": "calibration",
    "__latency__": "latency",
}


def signal_of(subject: str) -> str:
    """The key under `drift` that a subject's detectors stand under."""
    return "score" if subject.startswith(CLASS_SCORE) else SIGNALS.get(subject, "features")


def kind_of(subject: str) -> Kind:
    return (
        "prediction_drift" if subject.startswith(CLASS_SCORE) else KINDS.get(subject, "data_drift")
    )


def alert_of(context: Context, subject: str, method: str) -> AlertKey:
    """The alert of a drift method on a signal of a model version."""
    return context.key(kind_of(subject), subject, method)


def class_scores(profile: Profile | None) -> frozenset[str]:
    """Class scores that have detectors."""
    found = (
        [(-f.mean, name) for name, f in profile.features.items() if name.startswith(CLASS_SCORE)]
        if profile is not None
        else []
    )
    return frozenset(name for _, name in sorted(found)[:CLASS_SCORES_MAX])


class Candidate(Struct, array_like=True):
    """A firing that waits to be confirmed."""

    row: int
    time_ms: int
    before: float
    rows: int = 0
    total: float = 0.0
    """Statistics of the values as detectors get them."""
    raw_total: float = 0.0


class Usual(Struct):
    """The values outside episodes, up to what waits for its confirmation."""

    rows: int = 0
    total: float = 0.0


class SignalState(Struct):
    """The state of a signal; mappings are by detector."""

    home: float | None
    """The usual level in the units of the values; None: the mean of all values outside episodes."""
    episodes: dict[str, Episode]
    candidates: dict[str, Candidate | None]
    usual: dict[str, Usual]
    binary: bool = False
    """The values are 0 and 1 (errors of a classification)."""
    rows: int = 0
    firings: dict[str, int] = {}
    """How often each detector has fired, confirmed or not."""


class SignalForm(Struct):
    """A signal in a snapshot."""

    state: SignalState
    detectors: dict[str, dict[str, Any]]
    """State of each detector, in its own form."""


class Signal:
    """
    Detectors on one stream of values (a feature, the score, the errors) and the episode each of
    them is in.

    Parameters
    ----------
    subject : str
    methods : mapping
        Detectors by name, with their parameters.
    home : float or None
        The level of the baseline in the units of the values; None: the mean of all values outside
        episodes.
    """

    def __init__(
        self, subject: str, methods: Mapping[str, Mapping[str, float]], home: float | None = None
    ) -> None:
        self.subject, self.methods = subject, methods
        self.detectors: dict[str, ValueDetector] = {
            m: make(m, params) for m, params in methods.items()
        }
        self.state = SignalState(
            home=home,
            episodes={m: Episode() for m in methods},
            candidates=dict.fromkeys(methods),
            usual={m: Usual() for m in methods},
            firings=dict.fromkeys(methods, 0),
        )

    def update(self, values: Float, times_ms: NDArray[np.int64]) -> bool:
        """
        Feed standardised values; returns whether an episode began, went on or ended.

        Detectors get values that are cut, and alerts have the values as they are.
        """
        moved = False
        cut = values if self.state.binary else np.clip(values, -CLIP_SD, CLIP_SD)
        for method, detector in self.detectors.items():
            hits = dict(zip(detector.update(cut).tolist(), detector.befores, strict=True))
            self.state.firings[method] += len(hits)
            if (
                hits
                or self.state.candidates[method] is not None
                or self.state.episodes[method].open
            ):
                moved |= self._confirm(method, hits, cut, values, times_ms)
            else:
                self._count(method, cut)
        self.state.rows += len(values)
        return moved

    def _count(self, method: str, cut: Float) -> None:
        """Values at the usual level, if the baseline does not say what that is."""
        if self.state.home is None and len(cut):
            self.state.usual[method].rows += len(cut)
            self.state.usual[method].total += float(cut.sum())

    def _confirm(
        self,
        method: str,
        hits: Mapping[int, float],
        cut: Float,
        values: Float,
        times_ms: NDArray[np.int64],
    ) -> bool:
        """
        A firing is a change when the values after it lie away from the mean before it, by more than
        chance and by enough to matter.

        One that comes while an earlier one, past the first look, still waits takes its place.
        """
        at, moved, episode = 0, False, self.state.episodes[method]
        while True:
            candidate = self.state.candidates[method]
            if candidate is None:
                hit = next((h for h in hits if h >= at), None)
                end = len(cut) if hit is None else hit + 1
                moved |= self._follow(method, cut[at:end], values[at:end])
                if hit is None:
                    return moved
                candidate = self.state.candidates[method] = Candidate(
                    self.state.rows + hit, int(times_ms[hit]), hits[hit]
                )
                at = end
            look = next(n for n in CONFIRM_ROWS if n > candidate.rows)
            again = next((h for h in hits if h >= at and candidate.rows >= CONFIRM_ROWS[0]), None)
            end = (
                at + look - candidate.rows
                if again is None
                else min(again + 1, at + look - candidate.rows)
            )
            if episode.open:
                episode.follow(cut[at:end], values[at:end], binary=self.state.binary)
                moved |= not episode.open
            candidate.total += float(cut[at:end].sum())
            candidate.raw_total += float(values[at:end].sum())
            candidate.rows += len(cut[at:end])
            at += len(cut[at:end])
            if candidate.rows == look and self._changed(method, candidate):
                moved, self.state.candidates[method] = True, None
            elif again is not None and at == again + 1:
                self.state.candidates[method] = Candidate(
                    self.state.rows + again, int(times_ms[again]), hits[again]
                )
            elif candidate.rows == CONFIRM_ROWS[-1]:
                self.state.candidates[method] = None
            elif candidate.rows < look:
                return moved

    def _follow(self, method: str, cut: Float, values: Float) -> bool:
        """Values without a candidate: those of an episode may end it."""
        episode, taken = self.state.episodes[method], 0
        was_open = episode.open
        if was_open:
            taken = episode.follow(cut, values, binary=self.state.binary)
        if not episode.open:
            self._count(method, cut[taken:])
        return was_open and not episode.open

    def _changed(self, method: str, candidate: Candidate) -> bool:
        """
        Whether a candidate leads away from the usual level; it may be nothing yet, or lead back to
        it.
        """
        episode, rows = self.state.episodes[method], candidate.rows
        after = candidate.total / rows
        if abs(after - candidate.before) < self._least(candidate.before, rows):
            return False
        usual = self.state.usual[method]
        home = (
            episode.before
            if episode.open
            else self.state.home
            if self.state.home is not None
            else usual.total / usual.rows
            if usual.rows
            else candidate.before
        )
        if abs(after - home) < self._least(home, rows):
            return False
        shown = candidate.raw_total / rows
        if episode.open:
            episode.go_on(candidate.row, candidate.time_ms, after=after, shown=shown)
        else:
            episode.begin(candidate.row, candidate.time_ms, before=home, after=after, shown=shown)
        return True

    def _least(self, before: float, rows: int) -> float:
        """How far the mean of so many values must have moved."""
        if self.state.binary:
            share = min(max(before, 1 / rows), 1 - 1 / rows)
            return max(CHANGE_MIN_ERRORS, CONFIRM_Z * float(np.sqrt(share * (1 - share) / rows)))
        return max(CHANGE_MIN, CONFIRM_Z / float(np.sqrt(rows)))

    def threshold(self, method: str) -> float | None:
        """
        The setting that the score of a method is compared with; None if its score is not such a
        statistic.
        """
        return self.methods[method].get("threshold", METHODS[method].parameters.get("threshold"))

    def verdicts(self, context: Context, scale: tuple[float, float]) -> Iterator[Verdict]:
        """
        The verdict of each detector's episode; `scale` is (mean, sd) that undoes the
        standardisation.
        """
        for method, episode in self.state.episodes.items():
            key = alert_of(context, self.subject, method)
            better = self.subject == "__error__" and episode.after < episode.before
            verdict = episode.verdict(
                key,
                self.state.rows,
                scale=scale,
                severity="info" if better else context.settings.drift.severity,
                cooldown_ms=context.settings.cooldown_ms,
                baseline_id=context.baseline_id,
                rule=f"drift.{signal_of(self.subject)}.{method}",
                binary=self.state.binary,
                guarantee=METHODS[method].guarantee,
            )
            if verdict is not None:
                yield verdict

    def form(self) -> SignalForm:
        """The signal in a snapshot."""
        return SignalForm(self.state, {m: d.state() for m, d in self.detectors.items()})

    def load(self, saved: SignalForm, changes: Changes) -> dict[str, list[str]]:
        """
        Go on from a snapshot; returns the detectors that begin again, with the parameters that
        differ.

        An episode that such a detector has found goes on, because the values end it.
        """
        state, before = self.state, saved.state
        state.rows, state.binary, state.home = before.rows, before.binary, before.home
        anew: dict[str, list[str]] = {}
        for method, detector in saved.detectors.items():
            if method not in self.detectors:
                continue
            state.episodes[method] = before.episodes[method]
            state.usual[method] = before.usual[method]
            name = f"{signal_of(self.subject)}.{method}"
            if keys := changes.keys("detector", name):
                anew[name] = keys
                continue
            self.detectors[method] = restore(method, self.methods[method], detector)
            state.candidates[method] = before.candidates[method]
            if method in before.firings:
                state.firings[method] = before.firings[method]
        return anew
