"""
Drifts that are open: is the signal back at the law before the change?

Rule of the file: a drift ends by evidence in the rows alone, never by time. The evidence is a sum
of log-likelihood ratios between the law before and the law half-way to the one after. It is set to
0 whenever it would be negative (CUSUM, Page 1954), and must reach `BACK`.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.pool_tilt import Reference

BACK = 10.0
"""A signal that stays half-way shows so much evidence by chance once in 20,000 rows."""
AFTER_CHUNKS_MAX = 64
"""Chunks after the change from which its law is learnt; it is read again at each doubling."""


class OpenState(msgspec.Struct):
    """An open drift in a snapshot."""

    before: Float
    after: Float
    learnt: Float
    """What of `after` the law is learnt from: it is read again at each doubling only."""
    chunks: int
    evidence: float
    dispersion: float


class Openings:
    """
    The open drifts among a set of signals.

    Parameters
    ----------
    signals, bins : int
    """

    def __init__(self, signals: int, bins: int) -> None:
        self.open: NDArray[np.bool_] = np.zeros(signals, np.bool_)
        self._shape = signals, bins
        self.before: Float = np.empty((0, bins))
        self.after: Float = np.empty((0, bins))
        self.chunks: Int = np.zeros(signals, np.int64)
        self.evidence: Float = np.zeros(signals)
        self.dispersion: Float = np.ones(signals)
        self._learnt: Float = np.empty((0, bins))
        self._table: Float = np.empty((0, bins))
        self.known: Reference | None = None
        """What the present hour is compared with; None: hours do not matter."""

    def _room(self) -> None:
        """Laws take memory only if there ever was a drift."""
        if len(self.before) != self._shape[0]:
            found = np.zeros((4, *self._shape))
            self.before, self.after, self._learnt, self._table = found

    def begin(self, signal: int, before: Float, after: Float, dispersion: float) -> None:
        """
        A signal left a law.

        Parameters
        ----------
        signal : int
        before, after : (bins,) float64, rows
            Before the change, and since.
        dispersion : float
            By how much evidence of this signal is divided.
        """
        self._room()
        self.open[signal], self.chunks[signal], self.evidence[signal] = True, 0, 0.0
        self.before[signal], self.after[signal] = before, after
        self.dispersion[signal] = dispersion
        self._learn(signal)

    def turn(self, known: Reference | None, seasonal: NDArray[np.bool_]) -> None:
        """
        Another hour begins: a `seasonal` signal that changed has other rows now. What is learnt of
        the law after the change stays as it is, and is weighed by the new hour.

        `seasonal` (signals,) bool says which signals those are.
        """
        self.known = known
        for signal in np.flatnonzero(self.open & seasonal).tolist():
            self.chunks[signal] = AFTER_CHUNKS_MAX
            self._weigh(signal)

    def end(self, signal: int) -> None:
        """The drift is over."""
        self.open[signal], self._table[signal] = False, 0.0

    def steady(self) -> int:
        """Chunks until the law after some change is read again."""
        learning = self.open & (self.chunks < AFTER_CHUNKS_MAX)
        if not learning.any():
            return 1 << 30
        chunks = self.chunks[learning]
        following = 2 ** np.floor(np.log2(np.maximum(chunks, 0.5)) + 1).astype(np.int64)
        return int((following - chunks).min())

    def path(self, counts: Float) -> Float:
        """
        The evidence after each chunk, (chunks, signals) float64, of (chunks, signals, bins) float64
        counts.
        """
        if not self.open.any():
            return np.zeros((len(counts), len(self.open)))
        gains = (counts * self._table).sum(axis=2) / self.dispersion
        found: Float = np.empty_like(gains)
        evidence = self.evidence
        for i, gain in enumerate(gains):
            found[i] = evidence = np.maximum(evidence + gain, 0.0)
        return found

    def take(self, counts: Float, path: Float) -> list[int]:
        """
        Go on by (chunks, signals, bins) float64 counts whose `path`, (chunks, signals) float64, is
        known; the signals that are back.
        """
        self.evidence = path[-1]
        learning = self.open & (self.chunks < AFTER_CHUNKS_MAX)
        if learning.any():
            self.after[learning] += counts.sum(axis=0)[learning]
            self.chunks[learning] += len(counts)
            chunks = self.chunks[learning]
            for signal in np.flatnonzero(learning)[(chunks & (chunks - 1)) == 0].tolist():
                self._learn(signal)
        return np.flatnonzero(self.open & (self.evidence >= BACK)).tolist()

    def state(self, signal: int, bins: int) -> OpenState | None:
        """An open drift in a snapshot."""
        if not self.open[signal]:
            return None
        return OpenState(
            before=self.before[signal, :bins].copy(),
            after=self.after[signal, :bins].copy(),
            learnt=self._learnt[signal, :bins].copy(),
            chunks=int(self.chunks[signal]),
            evidence=float(self.evidence[signal]),
            dispersion=float(self.dispersion[signal]),
        )

    def load(self, signal: int, state: OpenState) -> None:
        """Go on from a snapshot."""
        self._room()
        bins = len(state.before)
        self.open[signal] = True
        self.before[signal, :bins], self.after[signal, :bins] = state.before, state.after
        self.chunks[signal], self.evidence[signal] = state.chunks, state.evidence
        self.dispersion[signal] = state.dispersion
        self._learnt[signal, :bins] = state.learnt
        self._weigh(signal)

    def _learn(self, signal: int) -> None:
        self._learnt[signal] = self.after[signal]
        self._weigh(signal)

    def _weigh(self, signal: int) -> None:
        """
        Weights of a row by its bin. If the hour matters, the change is taken as factors of the
        bins, which apply to the law of the hour too.
        """
        before, after = self.before[signal], self._learnt[signal]
        used = before + after > 0
        p = (before + 0.5 * used) / (before + 0.5 * used).sum()
        q = (after + p) / (after.sum() + 1)
        ratio = q / np.where(used, p, 1.0)
        if self.known is not None and self.known.mask[signal]:
            law = np.where(used, self.known.pool[signal] + 0.5, 0.0)
            ratio /= (law * ratio).sum() / law.sum()
        self._table[signal] = np.where(used, np.log(2 / (1 + ratio)), 0.0)
