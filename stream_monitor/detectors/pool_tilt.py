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

Serial dependence makes location and scale vary more between chunks than the rows within a chunk
explain. The logarithm of E is divided by that ratio, which is learnt from the chunks before. The
variance within is that of the same chunks, not of the pool: the errors of a model that became three
times as frequent vary three times as much, and that is no dependence.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.detectors.tilts import UNIT, Tilts, exact_exponentials

LAG = 0.3
LOG_MAX, EVIDENCE_MAX = 230.0, 1e200
"""Their product is a float: evidence that overflowed would never alarm again."""
FORGET, FIRST_CHUNKS = 0.003, 20.0
"""
Weight of a chunk in the running overdispersion, and how many chunks its first value is worth. A
change inflates it too: with a weight of 0.01 that delayed the alarm by up to a tenth.
"""
CONTRAST_MAX = 9.0
"""
A chunk counts in the overdispersion as at most so many times what is there, or what the pool has.
"""
DEPENDENT = 1.3
"""A lesser overdispersion is chance (three standard deviations), and is taken as 1."""
WARM_ROWS = 2_000
"""Rows that are known before evidence counts."""
POOL_MAX = float(1 << 25)
"""
Rows of a pool; one that is full is halved, and then what is slower becomes part of it. With more
rows sums of weights would not be exact.
"""


class Alarm(NamedTuple):
    """Evidence of one signal reached its bound."""

    chunk: int
    signal: int
    evidence: float
    """In days; the bound is days for each false alarm."""
    tilt: int
    """The alternative with most of it."""
    kept: Float
    """(alternatives,): the evidence, set back to the bound; for `wait`."""


class Reference(NamedTuple):
    """What some signals are compared with instead of their lagged pool."""

    mask: NDArray[np.bool_]
    """(signals,): which ones."""
    pool: Float
    """(signals, bins)."""
    penalty: Float
    """(signals, 1, alternatives), of all signals."""


class PoolState(msgspec.Struct):
    """The state of one signal in a snapshot."""

    pools: Float
    """(3, bins): the pool, and two parts that are still too new."""
    chunks: int
    """Chunks that were seen."""
    evidence: Float
    variances: Float
    live: bool
    last: Float
    """Contrasts of the chunk before, in standard errors."""


class PoolTilt:
    """
    Detectors of a set of signals.

    Parameters
    ----------
    tilts : sequence of Tilts
        Of each signal.
    tolerances : sequence of float
        Of each signal the root of the χ² distance to the pool within which its law may wander.
    warm_rows : int
        Rows that are known before evidence counts.

    Notes
    -----
    O(signals · bins · alternatives) a chunk, about 20 ns a value. A signal that is not `live` gets
    no evidence, and its pool stays as it is.

    Examples
    --------
    The share of a class rises from a tenth to a half.

    >>> from stream_monitor.detectors.tilts import level_tilts
    >>> detector = PoolTilt([level_tilts(np.array([90, 10]))], [0.01])
    >>> counts = np.repeat([[[45.0, 5.0]], [[25.0, 25.0]]], 100, axis=0)
    >>> rows, days, bounds = np.full(200, 50), np.full(200, 0.001), np.array([30.0])
    >>> [alarm.chunk for alarm in detector.update(counts, rows, days, bounds)]
    [100]
    """

    def __init__(
        self, tilts: Sequence[Tilts], tolerances: Sequence[float], warm_rows: int = WARM_ROWS
    ) -> None:
        self.warm_rows = warm_rows
        bins = max((t.weights.shape[1] for t in tilts), default=1)
        size = max((len(t.prior) for t in tilts), default=1)
        self.widths = [(len(t.prior), t.weights.shape[1]) for t in tilts]
        weights = np.zeros((len(tilts), bins, size))
        contrasts = np.zeros((len(tilts), bins, 2))
        self.prior = np.zeros((len(tilts), size))
        for i, (t, (m, k)) in enumerate(zip(tilts, self.widths, strict=True)):
            weights[i, :k, :m], contrasts[i, :k] = t.weights.T, t.contrasts.T
            self.prior[i, :m] = t.prior
        # Both are exact in half the memory; a worker may have thousands of such tables.
        self._weights = weights.astype(np.float32)
        self._exponentials = exact_exponentials(weights).astype(np.float32)
        self.contrasts: Float = contrasts
        self.squares: Float = np.round(contrasts**2 / UNIT) * UNIT
        self.tolerances: Float = np.array(tolerances, np.float64)
        self._begin()

    def _begin(self) -> None:
        """Nothing was seen yet."""
        signals, bins, size = self._weights.shape
        self.penalty: Float = np.zeros((signals, 1, size))
        """(signals, 1, alternatives): what a row of the tolerance takes from the evidence."""
        self.pools: Float = np.zeros((3, signals, bins))
        self.chunks: Int = np.zeros(signals, np.int64)
        self.evidence: Float = np.zeros((signals, size))
        self.variances: Float = np.ones((signals, 2, 2))
        """Of the two contrasts, between chunks and within them."""
        self.last: Float = np.zeros((signals, 2))
        self.live: NDArray[np.bool_] = np.ones(signals, np.bool_)

    def another(self, warm_rows: int) -> PoolTilt:
        """Detectors of the same signals that have seen nothing; they share the tables."""
        found = copy.copy(self)
        found.warm_rows = warm_rows
        found._begin()
        return found

    def update(self, counts: Float, rows: Int, days: Float, bounds: Float) -> list[Alarm]:
        """
        Take in chunks; alarms in their order. A signal that alarms is no longer `live`.

        Parameters
        ----------
        counts : (chunks, signals, bins) float64, whole numbers
            By chunk.
        rows : (chunks,) int64
            Rows of each chunk; each signal has as many.
        days : (chunks,) float64
            Time since the chunk before; it must not depend on the values.
        bounds : (signals,) float64, days
            Days for each false alarm of a signal.
        """
        alarms: list[Alarm] = []
        start = 0
        while start < len(counts):
            found, taken = self.step(counts[start:], rows[start:], days[start:], bounds)
            alarms += [a._replace(chunk=start + a.chunk) for a in found]
            start += taken
        return alarms

    def step(
        self,
        counts: Float,
        rows: Int,
        days: Float,
        bounds: Float,
        reference: Reference | None = None,
    ) -> tuple[list[Alarm], int]:
        """
        Take in some of the chunks, at least one: those up to the first with an alarm, or until a
        pool grows. Returns the alarms, all of the last chunk, and how many chunks were taken.

        Parameters are those of `update`: (chunks, signals, bins) float64 and so on.
        """
        self._age()
        left = np.where(self.live, self._new_max() - self.pools[2].sum(axis=1), np.inf)
        end = int(np.searchsorted(np.cumsum(rows), left.min(initial=np.inf))) + 1
        return self._take(counts[:end], rows[:end], days[:end], bounds, reference)

    def penalties(self, tolerances: Float, pools: Float) -> Float:
        """
        What a row takes from the evidence of each alternative, (signals, 1, alternatives), so that
        a law within `tolerances` (signals,) of that of `pools` (signals, bins) gives none.

        It is log(1 + r·sd) with the standard deviation of exp G / Σ p·exp G under the law p of the
        pool (Cauchy and Schwarz).
        """
        return self._penalties(tolerances, pools, np.arange(len(pools)))

    def _penalties(self, tolerances: Float, pools: Float, signals: Int) -> Float:
        weights, pool = self._weights[signals].astype(np.float64), pools[:, None, :]
        first, second = pool @ exact_exponentials(weights), pool @ exact_exponentials(2 * weights)
        ratio = second * pool.sum(axis=2, keepdims=True) / np.maximum(first, UNIT) ** 2
        sd = np.sqrt(np.maximum(ratio - 1, 0.0))
        found: Float = np.log1p(tolerances[:, None, None] * sd)
        return found

    def weights_of(self, signal: int, tilt: int) -> Float:
        """(bins,): the weights of an alternative."""
        return self._weights[signal, : self.widths[signal][1], tilt].astype(np.float64)

    @property
    def overdispersion(self) -> Float:
        """By signal how much more it varies between chunks than chance allows, at least 1."""
        found: Float = np.maximum((self.variances[:, 0] / self.variances[:, 1]).max(axis=1), 1.0)
        return found

    def wait(self, alarm: Alarm) -> None:
        """An alarm comes too soon: it comes again if the evidence does not become less."""
        self.live[alarm.signal], self.evidence[alarm.signal] = True, alarm.kept

    def leave(self, signal: int, before: Float) -> None:
        """A signal has changed: its pool is the (bins,) float64 rows `before` the change."""
        self.pools[:, signal] = 0.0
        self.pools[0, signal] = before
        self._allow(np.array([signal]))

    def begin_anew(self, signal: int) -> None:
        """Forget what a signal has seen."""
        self.pools[:, signal] = 0.0
        self.begin_evidence(signal)

    def state(self, signal: int) -> PoolState:
        """One signal in a snapshot."""
        size, bins = self.widths[signal]
        return PoolState(
            pools=self.pools[:, signal, :bins].copy(),
            chunks=int(self.chunks[signal]),
            evidence=self.evidence[signal, :size].copy(),
            variances=self.variances[signal].copy(),
            live=bool(self.live[signal]),
            last=self.last[signal].copy(),
        )

    def load(self, signal: int, state: PoolState) -> None:
        """Go on from a snapshot of a signal with the same alternatives."""
        size, bins = self.widths[signal]
        self.pools[:, signal, :bins], self.chunks[signal] = state.pools, state.chunks
        self.evidence[signal, :size], self.live[signal] = state.evidence, state.live
        self.variances[signal], self.last[signal] = state.variances, state.last
        self._allow(np.array([signal]))

    def _age(self) -> None:
        """What is old enough becomes part of the pool."""
        rows = self.pools[2].sum(axis=1)
        due = self.live & (rows > 0) & (rows >= self._new_max())
        if due.any():
            self.pools[0, due] += self.pools[1, due]
            self.pools[1, due], self.pools[2, due] = self.pools[2, due], 0.0
            full = self.pools[0].sum(axis=1) > POOL_MAX
            self.pools[0, full] = np.floor(self.pools[0, full] / 2)
            self._allow(np.flatnonzero(due | full))

    def _allow(self, signals: Int) -> None:
        """The pools of these signals are others now."""
        self.penalty[signals] = self._penalties(
            self.tolerances[signals], self.pools[0, signals], signals
        )

    def _new_max(self) -> Float:
        """Rows of the newest part at which it counts as the older one."""
        found: Float = np.maximum(LAG / 2 * self.pools.sum(axis=(0, 2)), 1.0)
        return found

    def begin_evidence(self, signal: int) -> None:
        """A signal is compared with something else from here on."""
        self.chunks[signal], self.evidence[signal], self.live[signal] = 0, 0.0, True
        self.variances[signal], self.last[signal] = 1.0, 0.0

    def _take(
        self, counts: Float, rows: Int, days: Float, bounds: Float, reference: Reference | None
    ) -> tuple[list[Alarm], int]:
        """Take in chunks with one pool, up to the first with an alarm."""
        c, n = counts.transpose(1, 0, 2), rows[None, :, None].astype(np.float64)
        pool, penalty = self.pools[0], self.penalty
        warm = pool.sum(axis=1) >= self.warm_rows
        if reference is not None:
            pool = np.where(reference.mask[:, None], reference.pool, pool)
            penalty = np.where(reference.mask[:, None, None], reference.penalty, penalty)
        known = pool.sum(axis=1)
        total = known[:, None, None] + n
        exponentials = self._exponentials.astype(np.float64)
        law = (c @ exponentials + pool[:, None, :] @ exponentials) / total
        gain = c @ self._weights.astype(np.float64) - n * (np.log(law) + penalty)
        dispersion, after, contrasts = self._dispersion(c, n, total, pool, reference)
        gain /= dispersion
        growth = np.exp(np.clip(gain, -LOG_MAX, LOG_MAX, out=gain), out=gain)
        growth *= (self.live & warm)[:, None, None]
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
        self.variances = np.where(self.live[:, None, None], after[:, end], self.variances)
        self.last = contrasts[:, end]
        self.pools[2] += counts[: end + 1].sum(axis=0) * self.live[:, None]
        self.chunks += (end + 1) * self.live
        alarms = []
        for s in np.flatnonzero(hits[end]).tolist():
            best = int((self.evidence[s] * self.prior[s]).argmax())
            kept = self.evidence[s] * (bounds[s] / mixed[end, s])
            alarms.append(Alarm(end, s, float(mixed[end, s]), best, kept))
            self.live[s], self.evidence[s] = False, 0.0
        return alarms, end + 1

    def _dispersion(
        self, c: Float, n: Float, total: Float, pool: Float, reference: Reference | None
    ) -> tuple[Float, Float, Float]:
        """
        By how much the contrasts vary more between chunks than within them: for each chunk what is
        known before it, (signals, chunks, 1); the variances after it, (signals, chunks, 2, 2); and
        the contrasts in standard errors. What is compared with its hour may be off for long, within
        its tolerance: there chunks are compared with the chunk before (von Neumann 1941).
        """
        of_chunk, pool = c @ self.contrasts, pool[:, None, :]
        mean = (of_chunk + pool @ self.contrasts) / total
        variance = (c + pool) @ self.squares / total - mean * mean
        variance = np.maximum(variance, 1e-9)
        contrasts = of_chunk - n * mean
        contrasts /= np.sqrt(n * variance * np.maximum(1 - n / total, 1e-9))
        squares = contrasts**2
        if reference is not None:
            beside = np.concatenate([self.last[:, None], contrasts[:, :-1]], axis=1)
            steps = (contrasts - beside) ** 2 / 2
            squares = np.where(reference.mask[:, None, None], steps, squares)
        within = (c @ self.squares - of_chunk * of_chunk / n) / np.maximum(n - 1, 1.0)
        between = squares * variance
        # rows that depend on each other vary less within a chunk than they do in all
        both = np.stack([between, np.maximum(within, 0.0) + between / n], axis=2)
        seen = self.chunks[:, None, None]
        known = np.where(seen == 0, variance[:, :1], self.variances)
        rates = np.maximum(FORGET, 1.0 / (seen + np.arange(both.shape[1]) + FIRST_CHUNKS))
        path = np.empty((both.shape[1] + 1, *known.shape))
        path[0] = known
        usual = variance.transpose(1, 0, 2)[:, :, None]
        for i, (chunk, rate) in enumerate(
            zip(both.transpose(1, 0, 2, 3), rates.transpose(2, 0, 1)[..., None], strict=True)
        ):
            # of rare events the first chunks may have none
            most = CONTRAST_MAX * np.maximum(known.max(axis=1, keepdims=True), usual[i])
            known = known + rate * (np.minimum(chunk, most) - known)
            path[i + 1] = known
        before, after = path[:-1, :, 0] / path[:-1, :, 1], path[1:].transpose(1, 0, 2, 3)
        most = before.max(axis=2).T[..., None]
        return np.where(most > DEPENDENT, most, 1.0), after, contrasts
