"""
Metrics of classification on rows, as scikit-learn defines them.

Rule of the file: exact, on all given rows. An undefined metric is None, never 0 and never NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int

Bool = NDArray[np.bool_]
CLIP = 1e-15
CALIBRATION_BINS = 10


def precision_recall_f1(
    hits: Float, predicted: Float, actual: Float, *, macro: bool = False
) -> tuple[float | None, float | None, float | None]:
    """
    Precision, recall and F1 from counts by class; of several classes their averages.

    Parameters
    ----------
    hits, predicted, actual : (classes,) float64, events
        True positives, predictions and labels of each class; one class alone is the positive class
        of a binary model.
    macro : bool
        Plain averages over the classes that occur, instead of those weighted by support (labels).

    Returns
    -------
    tuple of float or None
        For one class None where undefined (nothing predicted, no positive label). Averaged over
        several, an undefined class counts as 0, as scikit-learn does with `zero_division=0`.

    Examples
    --------
    >>> precision_recall_f1(np.array([2.0]), np.array([4.0]), np.array([2.0]))
    (0.5, 1.0, 0.6666666666666666)
    >>> counts = np.array([3.0, 0.0]), np.array([4.0, 0.0]), np.array([3.0, 1.0])
    >>> precision_recall_f1(*counts)[:2], precision_recall_f1(*counts, macro=True)[:2]
    ((0.5625, 0.75), (0.375, 0.5))
    """
    total = float(actual.sum())
    if len(hits) == 1:
        precision = float(hits[0] / predicted[0]) if predicted[0] else None
        recall = float(hits[0] / actual[0]) if actual[0] else None
        either = float(predicted[0] + actual[0])
        return (
            precision,
            recall,
            float(2 * hits[0] / either)
            if either and precision is not None and recall is not None
            else None,
        )
    if not total:
        return None, None, None
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(predicted > 0, hits / predicted, 0.0)
        recalls = np.where(actual > 0, hits / actual, 0.0)
        f1s = np.where(predicted + actual > 0, 2 * hits / (predicted + actual), 0.0)
    there = predicted + actual > 0
    weights = there / there.sum() if macro else actual / total
    return float(precisions @ weights), float(recalls @ weights), float(f1s @ weights)


def roc_auc(score: Float, positive: Bool) -> float | None:
    """
    Area under the ROC curve: the chance that a positive scores above a negative, ties counting
    half.

    Parameters
    ----------
    score : (n,) float64
    positive : (n,) bool

    Returns
    -------
    float or None
        None when only one class is there. O(n log n).

    References
    ----------
    J. A. Hanley, B. J. McNeil, The meaning and use of the area under a ROC curve, Radiology 143
    (1982).

    Examples
    --------
    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    distinct, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return (
        float(
            (ranks[inverse][positive].sum() - positives * (positives + 1) / 2)
            / (positives * negatives)
        )
        if len(distinct)
        else None
    )


def roc_auc_macro(probabilities: Float, actual: Int) -> float | None:
    """
    Unweighted mean over classes of the one-vs-rest area under the ROC curve.

    Parameters
    ----------
    probabilities : (n, classes) float64
    actual : (n,) int64
        Column of the true class.

    Returns
    -------
    float or None
        None when a class has no label, or is the only one.

    Examples
    --------
    >>> roc_auc_macro(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1]))
    1.0
    """
    areas = [roc_auc(probabilities[:, c], actual == c) for c in range(probabilities.shape[1])]
    known = [a for a in areas if a is not None]
    return float(np.mean(known)) if len(areas) > 1 and len(known) == len(areas) else None


def log_losses(probability: Float) -> Float:
    """
    Log loss of each row from the probability given to what happened, clipped at 1e-15.

    Parameters
    ----------
    probability : (n,) float64

    Returns
    -------
    (n,) float64, nats

    Examples
    --------
    >>> log_losses(np.array([1.0, 0.5])).round(6).tolist()
    [0.0, 0.693147]
    """
    return -np.log(np.clip(probability, CLIP, 1 - CLIP))


def calibration_bins(score: Float) -> Int:
    """
    Bin of a score among 10 of equal width: [0, 0.1), [0.1, 0.2), …, [0.9, 1].

    >>> calibration_bins(np.array([0.0, 0.1, 1.0])).tolist()
    [0, 1, 9]
    """
    return np.minimum((score * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(counts: Float, scores: Float, outcomes: Float) -> float | None:
    """
    Expected calibration error: mean gap between score and outcome, weighted by bin.

    Parameters
    ----------
    counts, scores, outcomes : (bins,) float64
        Rows, sum of scores and number of positive outcomes of each bin.

    References
    ----------
    M. P. Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.

    Examples
    --------
    >>> calibration_error(np.array([2.0]), np.array([1.8]), np.array([1.0]))
    0.4
    """
    total = float(counts.sum())
    return float(np.abs(scores - outcomes).sum() / total) if total else None
