"""
Has something changed? Detectors on the rows themselves.

Rule of the file: a detector gets finite, standardised values in log order and says where it fired;
a firing that is confirmed opens an episode, which lasts until the signal is back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
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


SIGNALS = {"__error__": "errors", "__score__": "score", "__prediction__": "prediction"}


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
    """Of the values as the detectors get them."""
    raw_total: float = 0.0


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
        self.subject, self.methods, self.home = subject, methods, home
        self.detectors: dict[str, ValueDetector] = {
            m: make(m, params) for m, params in methods.items()
        }
        self.episodes = {m: Episode() for m in self.detectors}
        self.candidates: dict[str, Candidate | None] = dict.fromkeys(self.detectors)
        self.usual = {m: [0.0, 0.0] for m in self.detectors}
        """Number and sum of the values outside episodes, up to what waits for its confirmation."""
        self.binary = False
        """The values are 0 and 1 (errors of a classification)."""
        self.rows = 0

    def update(self, values: Float, times_ms: NDArray[np.int64]) -> bool:
        """
        Feed standardised values; whether an episode began, went on or ended.

        Detectors get them cut, people are told what they are.
        """
        moved = False
        cut = values if self.binary else np.clip(values, -CLIP_SD, CLIP_SD)
        for method, detector in self.detectors.items():
            hits = dict(zip(detector.update(cut).tolist(), detector.befores, strict=True))
            if hits or self.candidates[method] is not None or self.episodes[method].open:
                moved |= self._confirm(method, hits, cut, values, times_ms)
            else:
                self._count(method, cut)
        self.rows += len(values)
        return moved

    def _count(self, method: str, cut: Float) -> None:
        """Values at the usual level, where the baseline does not say what that is."""
        if self.home is None and len(cut):
            self.usual[method][0] += len(cut)
            self.usual[method][1] += float(cut.sum())

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
        at, moved, episode = 0, False, self.episodes[method]
        while True:
            candidate = self.candidates[method]
            if candidate is None:
                hit = next((h for h in hits if h >= at), None)
                end = len(cut) if hit is None else hit + 1
                moved |= self._follow(method, cut[at:end], values[at:end])
                if hit is None:
                    return moved
                candidate = self.candidates[method] = Candidate(
                    self.rows + hit, int(times_ms[hit]), hits[hit]
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
                episode.follow(cut[at:end], values[at:end], binary=self.binary)
                moved |= not episode.open
            candidate.total += float(cut[at:end].sum())
            candidate.raw_total += float(values[at:end].sum())
            candidate.rows += len(cut[at:end])
            at += len(cut[at:end])
            if candidate.rows == look and self._changed(method, candidate):
                moved, self.candidates[method] = True, None
            elif again is not None and at == again + 1:
                self.candidates[method] = Candidate(
                    self.rows + again, int(times_ms[again]), hits[again]
                )
            elif candidate.rows == CONFIRM_ROWS[-1]:
                self.candidates[method] = None
            elif candidate.rows < look:
                return moved

    def _follow(self, method: str, cut: Float, values: Float) -> bool:
        """Values without a candidate: those of an episode may end it."""
        episode, taken = self.episodes[method], 0
        was_open = episode.open
        if was_open:
            taken = episode.follow(cut, values, binary=self.binary)
        if not episode.open:
            self._count(method, cut[taken:])
        return was_open and not episode.open

    def _changed(self, method: str, candidate: Candidate) -> bool:
        """
        Whether a candidate leads away from the usual level; it may be nothing yet, or lead back to
        it.
        """
        episode, rows = self.episodes[method], candidate.rows
        after = candidate.total / rows
        if abs(after - candidate.before) < self._least(candidate.before, rows):
            return False
        number, total = self.usual[method]
        home = (
            episode.before
            if episode.open
            else self.home
            if self.home is not None
            else total / number
            if number
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
        """What the mean of so many values must have moved."""
        if self.binary:
            share = min(max(before, 1 / rows), 1 - 1 / rows)
            return max(CHANGE_MIN_ERRORS, CONFIRM_Z * float(np.sqrt(share * (1 - share) / rows)))
        return max(CHANGE_MIN, CONFIRM_Z / float(np.sqrt(rows)))

    def threshold(self, method: str) -> float | None:
        """
        What the score of a method is held against: its setting; None for a method whose score is no
        such statistic.
        """
        return self.methods[method].get("threshold", METHODS[method].parameters.get("threshold"))

    def verdicts(self, context: Context, scale: tuple[float, float]) -> Iterator[Verdict]:
        """
        The verdict of each detector's episode; `scale` is (mean, sd) that undoes the
        standardisation.
        """
        for method, episode in self.episodes.items():
            key = alert_of(context, self.subject, method)
            better = self.subject == "__error__" and episode.after < episode.before
            verdict = episode.verdict(
                key,
                self.rows,
                scale=scale,
                severity="info" if better else context.settings.drift.severity,
                cooldown_ms=context.settings.cooldown_ms,
                baseline_id=context.baseline_id,
                rule=f"drift.{signal_of(self.subject)}.{method}",
                binary=self.binary,
            )
            if verdict is not None:
                yield verdict

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "rows": self.rows,
            "binary": self.binary,
            "home": self.home,
            "detectors": {m: d.state() for m, d in self.detectors.items()},
            "episodes": {m: msgspec.to_builtins(e) for m, e in self.episodes.items()},
            "candidates": {m: msgspec.to_builtins(c) for m, c in self.candidates.items()},
            "usual": self.usual,
        }

    def load(self, state: Mapping[str, Any], changes: Changes) -> dict[str, list[str]]:
        """
        Go on from the state of a snapshot; the detectors that begin anew, with the parameters that
        differ.

        The episode that such a one has found goes on, since it is the values that end it.
        """
        self.rows, self.binary, self.home = state["rows"], state["binary"], state["home"]
        anew: dict[str, list[str]] = {}
        for method, saved in state["detectors"].items():
            if method not in self.detectors:
                continue
            self.episodes[method] = msgspec.convert(state["episodes"][method], Episode)
            self.usual[method] = list(state["usual"][method])
            name = f"{signal_of(self.subject)}.{method}"
            if keys := changes.keys("detector", name):
                anew[name] = keys
                continue
            self.detectors[method] = restore(method, self.methods[method], saved)
            saved = state["candidates"][method]
            self.candidates[method] = None if saved is None else msgspec.convert(saved, Candidate)
        return anew
