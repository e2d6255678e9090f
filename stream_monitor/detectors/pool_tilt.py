"""
Has the law of a signal changed? Evidence of many signals at once, from counts of chunks of rows,
against what was seen before.

Rule of the file: all signals get counts of the same chunks. Counts are whole numbers and weights
are multiples of a power of two, so sums are exact, and evidence is the same however chunks arrive
together.

Theory of operation
-------------------
Each chunk is compared with the union of itself and an older *pool* of rows. If rows are
exchangeable, the chunk is a sample of that union without replacement. The e-value of an alternative
G is E = exp(Σ c·G) / (Σ p·exp G)^n with the law p of the union; Hoeffding (1963, theorem 4) gives
it a mean of at most 1, whatever the law. So no reference is needed, and power grows with the pool.

The pool leaves out the newest rows, between `LAG` / 2 and `LAG` of all: otherwise a small change
has become half of the pool before there is enough evidence. Chunks that share a pool share its
sampling error, so their e-values are no longer independent; `bench/detection.py` measures that the
budget is kept nevertheless, hence the guarantee is called `measured`.

Evidence is R ← (R + Δt)·E (Shiryaev and Roberts), mixed over alternatives. Δt is time in days, so
that R reaches D by chance about t / D times in t days, at any rate of traffic.

Serial dependence makes location and scale vary more between chunks than chance does. The logarithm
of E is divided by that overdispersion, which is learnt from the chunks before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.tilts import Tilts, exact_exponentials

LAG = 0.3
LOG_MAX, EVIDENCE_MAX = 300.0, 1e250
FORGET, FIRST_CHUNKS = 0.01, 20.0
"""Weight of a chunk in the running overdispersion, and how many chunks its first value is worth."""
CONTRAST_MAX = 9.0
"""A chunk counts in the overdispersion as at most so many times what is there."""
DEPENDENT = 1.3
"""A lesser overdispersion is chance (three standard deviations), and is taken as 1."""
WARM_CHUNKS = 40
"""Chunks of a pool before evidence counts."""
POOL_MAX = float(1 << 22)
"""Rows of a pool; one that is full is halved."""


class Alarm(NamedTuple):
    """Evidence of one signal reached its bound."""

    chunk: int
    signal: int
    evidence: float
    """In days; the bound is days for each false alarm."""
    tilt: int
    """The alternative with most of it."""


class PoolState(msgspec.Struct):
    """The state of one signal in a snapshot."""

    pools: Float
    """(3, bins): the pool, and two parts that are still too new."""
    chunks: Int
    """(3,): chunks of each."""
    evidence: Float
    overdispersion: Float
    live: bool


class PoolTilt:
    """
    Detectors of a set of signals.

    Parameters
    ----------
    tilts : sequence of Tilts
        Of each signal.
    chunk_rows : int
    tolerances : sequence of float
        Of each signal the root of the χ² distance to the pool within which its law may wander.

    Notes
    -----
    O(signals · bins · alternatives) a chunk, about 20 ns a value. A signal that is not `live` gets
    no evidence, and its pool stays as it is.

    Examples
    --------
    The share of a class rises from a tenth to a half.

    >>> from stream_monitor.detectors.tilts import level_tilts
    >>> detector = PoolTilt([level_tilts(np.array([90, 10]))], 50, [0.01])
    >>> before, after = np.array([[[45.0, 5.0]]]), np.array([[[25.0, 25.0]]])
    >>> day, bound = np.full(100, 0.001), np.array([30.0])
    >>> detector.update(np.repeat(before, 100, axis=0), day, bound)
    []
    >>> [alarm.chunk for alarm in detector.update(np.repeat(after, 100, axis=0), day, bound)]
    [0]
    """

    def __init__(
        self, tilts: Sequence[Tilts], chunk_rows: int, tolerances: Sequence[float]
    ) -> None:
        bins = max((t.weights.shape[1] for t in tilts), default=1)
        size = max((len(t.prior) for t in tilts), default=1)
        self.widths = [(len(t.prior), t.weights.shape[1]) for t in tilts]
        weights = np.zeros((len(tilts), bins, size))
        contrasts = np.zeros((len(tilts), bins, 2))
        self.prior, spread = np.zeros((2, len(tilts), size))
        for i, (t, (m, k)) in enumerate(zip(tilts, self.widths, strict=True)):
            weights[i, :k, :m], contrasts[i, :k] = t.weights.T, t.contrasts.T
            self.prior[i, :m], spread[i, :m] = t.prior, t.spread
        self.weights: Float = weights
        self.exponentials = exact_exponentials(weights)
        self.contrasts: Float = contrasts
        self.chunk_rows = chunk_rows
        allowed = np.array(tolerances, np.float64).reshape(-1, 1)
        self.penalty: Float = chunk_rows * np.log1p(allowed * spread)[:, None, :]
        self.pools: Float = np.zeros((3, len(tilts), bins))
        self.chunks: Int = np.zeros((3, len(tilts)), np.int64)
        self.evidence: Float = np.zeros((len(tilts), size))
        self.overdispersion: Float = np.ones((len(tilts), 2))
        self.live: NDArray[np.bool_] = np.ones(len(tilts), np.bool_)

    def update(self, counts: Float, days: Float, bounds: Float) -> list[Alarm]:
        """
        Take in chunks; alarms in their order. A signal that alarms is no longer `live`.

        Parameters
        ----------
        counts : (chunks, signals, bins) float64, whole numbers
            Rows of each chunk; each signal has `chunk_rows` of them.
        days : (chunks,) float64
            Time since the chunk before; it must not depend on the values.
        bounds : (signals,) float64, days
            Days for each false alarm of a signal.
        """
        alarms: list[Alarm] = []
        start = 0
        while start < len(counts):
            found, taken = self.step(counts[start:], days[start:], bounds)
            alarms += [a._replace(chunk=start + a.chunk) for a in found]
            start += taken
        return alarms

    def step(self, counts: Float, days: Float, bounds: Float) -> tuple[list[Alarm], int]:
        """
        Take in some of the chunks, at least one: those up to the first with an alarm, or until a
        pool grows. Returns the alarms, all of the last chunk, and how many chunks were taken.
        """
        self._age()
        end = min(len(counts), self._steady())
        return self._take(counts[:end], days[:end], bounds)

    def leave(self, signal: int, before: Float, chunk_rows: int) -> None:
        """A signal has changed: its pool is the rows `before` the change."""
        self.pools[:, signal], self.chunks[:, signal] = 0.0, 0
        self.pools[0, signal], self.chunks[0, signal] = before, round(before.sum() / chunk_rows)

    def begin_anew(self, signal: int) -> None:
        """Forget what a signal has seen."""
        self.pools[:, signal], self.chunks[:, signal], self.evidence[signal] = 0.0, 0, 0.0
        self.overdispersion[signal], self.live[signal] = 1.0, True

    def state(self, signal: int) -> PoolState:
        """One signal in a snapshot."""
        size, bins = self.widths[signal]
        return PoolState(
            pools=self.pools[:, signal, :bins].copy(),
            chunks=self.chunks[:, signal].copy(),
            evidence=self.evidence[signal, :size].copy(),
            overdispersion=self.overdispersion[signal].copy(),
            live=bool(self.live[signal]),
        )

    def load(self, signal: int, state: PoolState) -> None:
        """Go on from a snapshot of a signal with the same alternatives."""
        size, bins = self.widths[signal]
        self.pools[:, signal, :bins], self.chunks[:, signal] = state.pools, state.chunks
        self.evidence[signal, :size], self.live[signal] = state.evidence, state.live
        self.overdispersion[signal] = state.overdispersion

    def _age(self) -> None:
        """What is old enough becomes part of the pool."""
        due = self.live & (self.chunks[2] > 0) & (self.chunks[2] >= self._new_max())
        if due.any():
            self.pools[0, due] += self.pools[1, due]
            self.chunks[0, due] += self.chunks[1, due]
            self.pools[1, due], self.chunks[1, due] = self.pools[2, due], self.chunks[2, due]
            self.pools[2, due], self.chunks[2, due] = 0.0, 0
            full = self.pools[0].sum(axis=1) > POOL_MAX
            self.pools[0, full] = np.floor(self.pools[0, full] / 2)
            self.chunks[0, full] //= 2

    def _new_max(self) -> Int:
        """Chunks of the newest part at which it counts as the older one."""
        found: Int = np.maximum(np.ceil(LAG / 2 * self.chunks.sum(axis=0)), 1).astype(np.int64)
        return found

    def _steady(self) -> int:
        """Chunks until the pool of a live signal grows next."""
        left = np.where(self.live, self._new_max() - self.chunks[2], 1 << 30)
        return max(int(left.min(initial=1 << 30)), 1)

    def _take(self, counts: Float, days: Float, bounds: Float) -> tuple[list[Alarm], int]:
        """Take in chunks with one pool, up to the first with an alarm."""
        c, n = counts.transpose(1, 0, 2), self.chunk_rows
        union = self.pools[0][:, None, :] + c
        total = self.pools[0].sum(axis=1)[:, None, None] + n
        gain = c @ self.weights - n * np.log((union @ self.exponentials) / total)
        gain -= self.penalty
        dispersion, after = self._dispersion(c, union / total, total)
        growth = np.exp(np.clip(gain / dispersion, -LOG_MAX, LOG_MAX))
        growth *= (self.live & (self.chunks[0] >= WARM_CHUNKS))[:, None, None]
        path = np.empty((len(days), *self.evidence.shape))
        evidence = self.evidence
        for i, elapsed in enumerate(days.tolist()):
            evidence = np.minimum((evidence + elapsed) * growth[:, i], EVIDENCE_MAX)
            path[i] = evidence
        mixed = (path * self.prior).sum(axis=2)
        hits = mixed >= bounds
        first = hits.any(axis=1)
        end = int(first.argmax()) if first.any() else len(days) - 1
        self.evidence = path[end].copy()
        self.overdispersion = np.where(self.live[:, None], after[:, end], self.overdispersion)
        self.pools[2] += counts[: end + 1].sum(axis=0) * self.live[:, None]
        self.chunks[2] += (end + 1) * self.live
        alarms = []
        for s in np.flatnonzero(hits[end]).tolist():
            best = int((self.evidence[s] * self.prior[s]).argmax())
            alarms.append(Alarm(end, s, float(mixed[end, s]), best))
            self.live[s], self.evidence[s] = False, 0.0
        return alarms, end + 1

    def _dispersion(self, c: Float, law: Float, total: Float) -> tuple[Float, Float]:
        """
        By how much the contrasts vary more between chunks than chance allows: for each chunk what
        is known before it, (signals, chunks, 1), and after it, (signals, chunks, 2).
        """
        n = self.chunk_rows
        mean = law @ self.contrasts
        variance = np.maximum(law @ self.contrasts**2 - mean * mean, 1e-9)
        squares = (c @ self.contrasts - n * mean) ** 2
        squares /= n * variance * np.maximum(1 - n / total, 1e-9)
        before, after = np.empty_like(squares), np.empty_like(squares)
        known, seen = self.overdispersion, self.chunks.sum(axis=0)[:, None]
        for i in range(squares.shape[1]):
            before[:, i] = known
            rate = np.maximum(FORGET, 1.0 / (seen + i + FIRST_CHUNKS))
            most = CONTRAST_MAX * np.maximum(known, 1.0)
            known = known + rate * (np.minimum(squares[:, i], most) - known)
            after[:, i] = known
        most = before.max(axis=2, keepdims=True)
        return np.where(most > DEPENDENT, most, 1.0), after
