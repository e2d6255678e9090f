"""
Errors of a classification: a detector whose rate of false alarms is a theorem.

Rule of the file: it needs no reference and no law, only that labels without a change are
exchangeable. Its random numbers are hashes of the number of the chunk, so the same log gives the
same alarms.

Theory of operation
-------------------
Labels are cut in chunks. Given all errors so far, those of the newest chunk are a sample without
replacement: their number has a hypergeometric law. The chance of so many or more, ties split by a
random number, is uniform, and independent of that of all chunks before it (Vovk, Nouretdinov,
Gammerman 2003). As a normal score Z it gives e-values exp(θZ - θ²/2), of both signs and several
sizes. Their mixture by Shiryaev and Roberts, R ← (R + 1)·E, less the number of chunks, is a
martingale. So the mean time until R reaches A is at least A chunks, whatever the rate of errors is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float

SIZES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
THETAS = (*SIZES, *(-size for size in SIZES))
RARE = 1e-15
"""A chance is taken as at least so small."""
EVIDENCE_MAX = 1e200
NORMAL = NormalDist()
MASK = (1 << 64) - 1


class State(msgspec.Struct):
    """What was seen since the last alarm."""

    rows: int = 0
    errors: int = 0
    part_rows: int = 0
    """Of the chunk that is not complete."""
    part_errors: int = 0
    chunk: int = 0
    """Chunks since the detector was made: each has a random number of its own."""
    evidence: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(THETAS))
    score: float = 0.0


class Conformal:
    """
    Evidence of more or fewer errors than before.

    Parameters
    ----------
    threshold : float, labels
        At most one false firing in so many labels, as a mean.
    chunk : int, labels
    warm_start : int, labels
        Known before evidence counts, also after a firing.
    seed : int
        Of the random numbers that split ties.

    Notes
    -----
    About 1 µs a label.

    Examples
    --------
    >>> random = np.random.default_rng(1)
    >>> wrong = random.random(3_000) < np.repeat([0.1, 0.3], [2_000, 1_000])
    >>> Conformal(1e6, 25, 500, 1).update(wrong.astype(float)).tolist()
    [2074]
    """

    def __init__(self, threshold: float, chunk: float, warm_start: float, seed: float) -> None:
        self.threshold, self.chunk = threshold, int(chunk)
        self.warm_start, self.seed = int(warm_start), int(seed)
        self.seen = State()
        self.befores: list[float] = []
        self.restarted = False

    @property
    def score(self) -> float:
        """The evidence, in labels."""
        return self.seen.score

    def update(self, values: Float) -> NDArray[np.int64]:
        """Indices of those of (n,) labels, 0 or 1, that complete a chunk with enough evidence."""
        alarms, start, total = list[int](), 0, np.append(0, np.cumsum(values > 0.5))
        self.befores = []
        while start + self.chunk - self.seen.part_rows <= len(values):
            end = start + self.chunk - self.seen.part_rows
            errors = self.seen.part_errors + int(total[end] - total[start])
            start, self.seen.part_rows, self.seen.part_errors = end, 0, 0
            if self._fires(errors):
                alarms.append(end - 1)
        self.seen.part_rows += len(values) - start
        self.seen.part_errors += int(total[-1] - total[start])
        return np.array(alarms, np.int64)

    def _fires(self, errors: int) -> bool:
        """Take in a chunk; after a firing everything but the number of chunks begins anew."""
        seen, n = self.seen, self.chunk
        seen.chunk += 1
        rows, before = seen.rows, seen.errors
        seen.rows, seen.errors = rows + n, before + errors
        if rows < self.warm_start:
            return False
        more, same = tail(errors, n, seen.errors, seen.rows)
        chance = more + unit(self.seed, seen.chunk) * same
        z = -NORMAL.inv_cdf(min(max(chance, RARE), 1 - RARE))
        seen.evidence = [
            min((r + 1) * math.exp(theta * z - theta * theta / 2), EVIDENCE_MAX)
            for r, theta in zip(seen.evidence, THETAS, strict=True)
        ]
        seen.score = n * math.fsum(seen.evidence) / len(THETAS)
        if seen.score < self.threshold:
            return False
        self.befores.append(before / rows)
        self.seen = State(chunk=seen.chunk, score=seen.score)
        return True

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return dict(msgspec.to_builtins(self.seen))

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.seen = msgspec.convert(state, State)


def tail(k: int, n: int, errors: int, rows: int) -> tuple[float, float]:
    """
    The chances of more than k and of exactly k errors among n rows that are drawn without
    replacement from `rows` with `errors` of them.

    >>> [round(p, 6) for p in tail(1, 2, 2, 4)]
    [0.166667, 0.666667]
    """
    least, most = max(0, n - (rows - errors)), min(n, errors)
    log = _choose(errors, k) + _choose(rows - errors, n - k) - _choose(rows, n)
    same = math.exp(log)
    up = k < errors * n / rows
    total, term = 0.0, same
    # the shorter sum is that away from the mean, so that small chances are exact
    if up:
        for j in range(k, least, -1):
            term *= j * (rows - errors - n + j) / ((errors - j + 1) * (n - j + 1))
            total += term
        return max(1.0 - total - same, 0.0), same
    for j in range(k, most):
        term *= (errors - j) * (n - j) / ((j + 1) * (rows - errors - n + j + 1))
        total += term
    return total, same


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def unit(seed: int, number: int) -> float:
    """
    A number in (0, 1) for each pair, by SplitMix64 (Steele, Lea, Flood 2014).

    >>> round(unit(1, 1), 6) == round(unit(1, 1), 6) != round(unit(1, 2), 6)
    True
    """
    x = (seed * 0xD1B54A32D192ED03 + number * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return ((x ^ (x >> 31)) + 0.5) / 2.0**64
