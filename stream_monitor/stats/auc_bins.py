"""
ROC AUC from counts of binned scores, so that panes of time can be added.

Rule of the file: bins have equal width of the logit, because the scores of a good model crowd at 0
and 1. If the bins leave the result open, it is None.
"""

from __future__ import annotations

import numpy as np

from stream_monitor.arrays import Float, Int

AUC_BINS = 256
AUC_BOUND_MAX = 0.02
LOGIT_MAX = 12.0


def logit_bins(score: Float) -> Int:
    """
    Bin of a score among 256 of equal width of its logit, from -12 to 12.

    >>> logit_bins(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    return np.clip((logit + LOGIT_MAX) * (AUC_BINS / (2 * LOGIT_MAX)), 0, AUC_BINS - 1).astype(
        np.int64
    )


def auc_of_bins(negatives: Float, positives: Float) -> float | None:
    """
    ROC AUC of binned scores.

    Parameters
    ----------
    negatives, positives : (bins,) float64, events

    Returns
    -------
    float or None
        None when only one class is there, or when pairs that share a bin (whose order is unknown)
        could move it by more than 0.02.

    Examples
    --------
    >>> auc_of_bins(np.array([2.0, 0.0]), np.array([0.0, 2.0]))
    1.0
    """
    pairs = float(negatives.sum() * positives.sum())
    if not pairs:
        return None
    tied = float(negatives @ positives) / 2
    below = np.cumsum(negatives) - negatives
    return (float(below @ positives) + tied) / pairs if tied / pairs <= AUC_BOUND_MAX else None
