"""
Alternatives that a detector on counts looks for: directions in which the law of a signal may move.

Rule of the file: pure functions of a reference law. Weights are whole multiples of `UNIT`, so that
sums of weights of counts are exact in float64, in whatever order a library adds them.

An alternative tilts a law p to p·exp(G) / Σ p·exp(G). Numbers have four smooth directions on normal
scores (location, scale, skew, shape: orthonormal polynomials under p), and each special bin has one
of its own: values that are missing, values beyond the reference, and values with much weight.
Categories have a direction for each level.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int

UNIT = 2.0**-16
WEIGHT_MAX = 4.0
"""Greatest weight: exp of it, times the rows of a pool, must stay exact (less than 2^53 units)."""
SMOOTH_SIZES = (0.1, 0.2, 0.4, 0.8)
SMOOTH_PRIORS = (0.4, 0.3, 0.15, 0.15)
"""Of location, scale, skew and shape."""
SMOOTH_SHARE = 0.7
"""Prior of the smooth directions of a number together, if it has special bins."""
BIN_SIZES = (-0.8, -0.3, 0.2, 0.5, 1.0, 2.0, 4.0)
"""Changes of the logarithm of a bin's share."""
TAIL_SIZES, TAIL_MAX = (0.5, 1.0, 2.0), 0.12
"""The same for all bins from one on, if they have at most so great a share."""
SHARE_SIZES = (-1.2, -0.7, -0.35, 0.2, 0.4, 0.7, 1.1, 1.8, 3.0)
"""Changes of the logarithm of the odds of values that are 0 or 1."""
RARE_SIZES = (0.5, 1.0, 2.0, 4.0)
"""The same for a bin that is nearly empty in the reference: it can only grow."""
RARE = 0.005
SCORE_MAX = 3.0
"""Normal scores are cut here, because few rows know the far tails."""


class Tilts(NamedTuple):
    """Alternatives of one signal with `bins` bins."""

    weights: Float
    """(alternatives, bins), multiples of `UNIT`."""
    prior: Float
    """(alternatives,), sums to 1."""
    contrasts: Float
    """(2, bins): the directions whose variance between chunks tells of serial dependence."""


def number_tilts(counts: Int, special: Iterable[int] = ()) -> Tilts:
    """
    Alternatives of a number.

    Parameters
    ----------
    counts : (bins,) int64
        Rows of the reference on bins that ascend; the last bin is that of missing values.
    special : iterable of int
        Bins with a direction of their own, beside that of missing values.

    Examples
    --------
    >>> found = number_tilts(np.array([0, 50, 50, 0, 0]))
    >>> found.weights.shape[1], round(float(found.prior.sum()), 12)
    (5, 1.0)
    """
    law = _law(counts)
    ordered = law[:-1] / law[:-1].sum()
    scores = np.append(_scores(ordered), 0.0)
    weights, priors = [], []
    directions = _polynomials(scores, law)
    for direction, prior in zip(directions, SMOOTH_PRIORS, strict=False):
        for size in SMOOTH_SIZES:
            weights += [size * direction, -size * direction]
            priors += [prior * _weight(size)] * 2
    own = sorted({*special, len(counts) - 1})
    # nearly all rows may be without a number: then nothing smooth is known
    contrasts = directions or [np.eye(len(counts))[-1]]
    return _tilts(law, weights, priors, own, (contrasts + contrasts)[:2])


def share_tilts() -> Tilts:
    """
    Alternatives of values that are 0 or 1: the share of 1 falls or rises.

    >>> share_tilts().weights.shape
    (9, 2)
    """
    weights = np.array([[0.0, size] for size in SHARE_SIZES])
    return tilts_of(weights, np.ones(len(weights)), np.eye(2)[[1, 1]])


def upward_tilts(counts: Int) -> Tilts:
    """
    Alternatives of a number that only gets worse by getting greater: all of its values, or its
    upper tail from one of the last bins on.

    Parameters
    ----------
    counts : (bins,) int64
        Rows of the reference on bins that ascend.

    Examples
    --------
    >>> tilts = upward_tilts(np.array([40, 40, 10, 9, 1]))
    >>> tilts.weights.shape, bool((np.diff(tilts.weights, axis=1) >= 0).all())
    ((10, 5), True)
    """
    law = _law(counts)
    direction = _polynomials(_scores(law), law)[:1]
    beyond = np.cumsum(law[::-1])[::-1]
    weights = [size * d for d in direction for size in SMOOTH_SIZES]
    tails = [
        np.where(np.arange(len(law)) >= k, 1.0, 0.0) for k in np.flatnonzero(beyond <= TAIL_MAX)
    ]
    weights += [size * tail for tail in tails for size in TAIL_SIZES]
    sizes = len(direction) * len(SMOOTH_SIZES), len(tails) * len(TAIL_SIZES)
    prior = np.repeat([1 / max(n, 1) for n in sizes], sizes)
    contrasts = [*direction, *tails[:1]]
    return tilts_of(np.array(weights), prior, np.array([contrasts[0], contrasts[-1]]))


def level_tilts(counts: Int) -> Tilts:
    """
    Alternatives of a category: each level may become rarer or more frequent.

    Parameters
    ----------
    counts : (levels,) int64
        Rows of the reference by level; a level without rows can only grow.

    Examples
    --------
    >>> level_tilts(np.array([90, 10, 0])).weights.shape
    (18, 3)
    """
    frequent = np.argsort(-counts, kind="stable")[:2]
    contrasts = [np.eye(len(counts))[k] for k in (*frequent.tolist(), frequent[0])]
    return _tilts(_law(counts), [], [], range(len(counts)), contrasts[:2])


def _tilts(
    law: Float,
    smooth: list[Float],
    priors: list[float],
    own: Iterable[int],
    contrasts: list[Float],
) -> Tilts:
    """Smooth directions, and those of single bins with an equal share of the rest each."""
    weights, bins = list(smooth), list(own)
    share = SMOOTH_SHARE if smooth else 0.0
    prior = [p * share / sum(priors) for p in priors]
    for k in bins:
        rare = law[k] < RARE
        sizes = RARE_SIZES if rare else BIN_SIZES
        weighed = np.ones(len(sizes)) if rare else np.array([_weight(s) for s in sizes])
        for size, part in zip(sizes, (weighed / weighed.sum()).tolist(), strict=True):
            weight = np.zeros(len(law))
            weight[k] = size
            weights.append(weight)
            prior.append((1 - share) / len(bins) * part)
    return tilts_of(np.array(weights), np.array(prior), np.array(contrasts))


def _weight(size: float) -> float:
    """
    Prior of a size. A smaller share of the prior costs a small change many rows, and a great one
    next to none.
    """
    return float(abs(size) ** -0.5)


def tilts_of(weights: Float, prior: Float, contrasts: Float) -> Tilts:
    """
    Alternatives of (alternatives, bins) weights, (alternatives,) prior and (2, bins) contrasts, as
    multiples of `UNIT`.
    """
    table = np.round(np.clip(weights, -WEIGHT_MAX, WEIGHT_MAX) / UNIT) * UNIT
    return Tilts(table, prior / prior.sum(), np.round(contrasts / UNIT) * UNIT)


def _law(counts: Int) -> Float:
    """Shares, with half a row more in each bin."""
    found: Float = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return found


def _scores(law: Float) -> Float:
    """Normal scores of the middles of bins."""
    normal = NormalDist()
    edge = normal.cdf(-SCORE_MAX)
    middle = np.clip(np.cumsum(law) - law / 2, edge, 1 - edge)
    return np.clip([normal.inv_cdf(m) for m in middle.tolist()], -SCORE_MAX, SCORE_MAX)


def _polynomials(scores: Float, law: Float) -> list[Float]:
    """Orthonormal polynomials of degrees 1 to 4 under a law; fewer, if it has few values."""
    found = [np.ones(len(law))]
    kept = []
    for degree in range(1, len(SMOOTH_PRIORS) + 1):
        vector = scores**degree
        for other in found:
            vector = vector - (law * vector * other).sum() * other
        norm = float(np.sqrt((law * vector * vector).sum()))
        if norm < 1e-3:
            break
        found.append(vector / norm)
        kept.append(vector / norm)
    return kept


def exact_exponentials(weights: Float) -> Float:
    """
    Exponentials of weights, (signals, bins, alternatives) float64, rounded to multiples of `UNIT`,
    so that their sums are exact.
    """
    found: Float = np.maximum(np.round(np.exp(weights) / UNIT), 1.0) * UNIT
    return found
