"""
Alternatives of a label given a score: are scores still as likely to be right as they were?

Rule of the file: a bin is a cell of (part of the scores, label). All weights are logarithms of
ratios of chances within a part of the scores, so that scores which become higher or lower, with
chances as they were, are no evidence.

The chances of each part are learnt from the first labels. An alternative changes their log-odds: it
adds to all of them (too high, too low), to those of the lower or the upper half of the scores, or
stretches them around their middle (too extreme, too cautious). If Q are the changed chances, then
weights are G = log Q(label | part) / P(label | part), and Σ p·exp G = 1 whatever the law of the
scores.
These are the recalibrations of Platt (1999), and the terms of the test of Cox (1958).
"""

from __future__ import annotations

import msgspec
import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.detectors.tilts import Tilts, tilts_of

EDGES_AT = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
"""Quantiles of the first scores at which they are parted; a score that is too sharp is at ends."""
PRIOR_ROWS = 20.0
"""Rows that the mean score of a part is worth as its chance."""
CHANCE_MIN = 1e-3
SHIFTS, SHIFTS_OF_HALVES = (0.25, 0.5, 1.0, 2.0), (0.5, 1.0)
STRETCHES = (0.4, 0.6, 0.8, 1.25, 1.6, 2.2)
PRIORS = (0.4, 0.2, 0.4)
"""Of shifts, of those of halves, and of stretches, together."""


class Chances(msgspec.Struct):
    """
    Parts of the scores, and the chance of a label in each.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> score = rng.random(500)
    >>> chances = learnt_chances(score, (rng.random(500) < score).astype(float))
    >>> chances.cells(np.array([0.001, 0.001, 0.999]), np.array([0.0, 1.0, 1.0])).tolist()
    [0, 12, 23]
    >>> chances_tilts(chances).weights.shape
    (22, 24)
    """

    edges: Float
    """(parts - 1,): of the scores."""
    chances: Float
    """(parts,): that the label is 1."""
    scores: Float
    """(parts,): mean score."""
    rows: Float
    """(parts,): of the first labels."""

    @property
    def parts(self) -> int:
        """How many parts the scores have."""
        return len(self.chances)

    def cells(self, score: Float, label: Float) -> Int:
        """
        The cell of each row: its part, plus the number of parts if the label is 1.

        Parameters
        ----------
        score, label : (n,) float64

        Returns
        -------
        (n,) int64
        """
        part = np.searchsorted(self.edges, score, side="right")
        found: Int = part + self.parts * label.astype(np.int64)
        return found


def learnt_chances(score: Float, label: Float) -> Chances:
    """
    Chances from first labels.

    Parameters
    ----------
    score : (n,) float64, 0 to 1
    label : (n,) float64, 0 or 1
    """
    edges = np.unique(np.quantile(score, EDGES_AT))
    part, parts = np.searchsorted(edges, score, side="right"), len(edges) + 1
    rows, total, right = (
        np.bincount(part, weights, minlength=parts) for weights in (None, score, label)
    )
    mean = total / np.maximum(rows, 1)
    # many models are off by a factor from the start (undersampled classes); it is not news
    usual = mean * (label.sum() + 0.5) / (score.sum() + 0.5)
    usual = np.clip(usual, CHANCE_MIN, 1 - CHANCE_MIN)
    chances = (right + PRIOR_ROWS * usual) / (rows + PRIOR_ROWS)
    return Chances(edges, chances, mean, rows.astype(np.float64))


def chances_tilts(known: Chances) -> Tilts:
    """Alternatives of cells of (part of the scores, label)."""
    chance, log_odds = known.chances, _log_odds(known.chances)
    share = (known.rows + 0.5) / (known.rows + 0.5).sum()
    middle = float(_log_odds((chance * share).sum()[None])[0])
    upper = np.cumsum(share) - share / 2 > 0.5
    everywhere: Bool = np.ones(known.parts, bool)
    changed, priors = list[Float](), list[float]()
    parts = ((SHIFTS, (everywhere,)), (SHIFTS_OF_HALVES, (upper, ~upper)))
    for prior, (sizes, of) in zip(PRIORS, parts, strict=False):
        found = [log_odds + by * size * where for where in of for size in sizes for by in (1, -1)]
        changed, priors = changed + found, priors + [prior / len(found)] * len(found)
    changed += [middle + by * (log_odds - middle) for by in STRETCHES]
    priors += [PRIORS[-1] / len(STRETCHES)] * len(STRETCHES)
    weights = [
        _by_label(np.log((1 - q) / (1 - chance)), np.log(q / chance)) for q in map(_chance, changed)
    ]
    residual = _by_label(-chance, 1 - chance)
    return tilts_of(
        np.array(weights),
        np.array(priors),
        np.array([residual, residual * np.tile(log_odds - middle, 2)]),
    )


def _by_label(without: Float, having: Float) -> Float:
    return np.concatenate([without, having])


def _log_odds(chance: Float) -> Float:
    found: Float = np.log(chance / (1 - chance))
    return found


def _chance(log_odds: Float) -> Float:
    found: Float = 1 / (1 + np.exp(-log_odds))
    return found
