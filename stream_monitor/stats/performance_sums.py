"""
Performance as sums, so that panes of time can be added: the same metrics as on the rows, but for ROC AUC, which takes 256 bins of the logit.

Rule of the file: one float64 vector a pane with a fixed layout; vectors of the same rows add up to the same numbers however the rows are cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_monitor.stats.classification import CALIBRATION_BINS, calibration_bins, calibration_error, log_losses, precision_recall_f1

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
AUC_BINS = 256
AUC_BOUND_MAX = 0.02
LOGIT_MAX = 12.0


class BinarySums:
    """Layout: rows, correct, hits, predicted, actual, scored, log loss, Brier, calibration (count, score, outcome), logit bins of negatives and of positives."""

    width = 8 + 3 * CALIBRATION_BINS + 2 * AUC_BINS

    @staticmethod
    def rows(predicted: Bool, actual: Bool, score: Float, group: Int, groups: int) -> Float:
        """
        Sums by group of rows.

        Parameters
        ----------
        predicted, actual : (n,) bool
            Whether the positive class was predicted, and happened.
        score : (n,) float64
            Probability of the positive class; NaN where there is none.
        group : (n,) int64
            Pane of each row, from 0 to `groups` - 1.
        groups : int

        Returns
        -------
        (groups, width) float64
        """
        out = np.zeros((groups, BinarySums.width))
        scored = score == score  # noqa: PLR0124
        s = np.where(scored, score, 0.5)
        loss = np.where(scored, log_losses(np.where(actual, s, 1 - s)), 0.0)
        columns = (np.ones(len(actual)), predicted == actual, predicted & actual, predicted, actual, scored, loss, np.where(scored, (s - actual) ** 2, 0.0))
        for i, column in enumerate(columns):
            out[:, i] = np.bincount(group, column, groups)
        if scored.any():
            g, s, y = group[scored], score[scored], actual[scored]
            at = g * CALIBRATION_BINS + calibration_bins(s)
            for i, weights in enumerate((None, s, y)):
                counts = np.bincount(at, weights, groups * CALIBRATION_BINS)
                out[:, 8 + i * CALIBRATION_BINS : 8 + (i + 1) * CALIBRATION_BINS] = counts.reshape(groups, CALIBRATION_BINS)
            at = (g * 2 + y) * AUC_BINS + logit_bins(s)
            out[:, 8 + 3 * CALIBRATION_BINS :] = np.bincount(at, minlength=groups * 2 * AUC_BINS).reshape(groups, 2 * AUC_BINS)
        return out

    @staticmethod
    def metrics(sums: Float) -> dict[str, float]:
        """Metrics of (width,) sums; what is undefined is absent."""
        n, correct, hits, predicted, actual, scored, loss, brier = sums[:8].tolist()
        if not n:
            return {}
        precision, recall, f1 = precision_recall_f1(np.array([hits]), np.array([predicted]), np.array([actual]))
        found: dict[str, float | None] = {"accuracy": correct / n, "precision": precision, "recall": recall, "f1": f1}
        if scored:
            bins = sums[8 : 8 + 3 * CALIBRATION_BINS].reshape(3, CALIBRATION_BINS)
            found |= {"log_loss": loss / scored, "brier_score": brier / scored, "calibration_error": calibration_error(*bins)}
            found["roc_auc"] = auc_of_bins(*sums[8 + 3 * CALIBRATION_BINS :].reshape(2, AUC_BINS))
        return {k: float(v) for k, v in found.items() if v is not None}


class MulticlassSums:
    """Layout: rows, correct, scored, log loss, Brier, then for each class hits, predicted, actual."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.width = 5 + 3 * classes

    def rows(self, predicted: Int, actual: Int, loss: Float, brier: Float, group: Int, groups: int) -> Float:
        """Sums by group of (n,) rows, (groups, width); `loss` and `brier` of each row, NaN where it has no scores. A code of -1 is of no class: the row is wrong, and counts for none."""
        out = np.zeros((groups, self.width))
        scored = loss == loss  # noqa: PLR0124
        for i, column in enumerate((np.ones(len(actual)), predicted == actual, scored, np.where(scored, loss, 0.0), np.where(scored, brier, 0.0))):
            out[:, i] = np.bincount(group, column, groups)
        for i, (code, counted) in enumerate(((actual, predicted == actual), (predicted, predicted >= 0), (actual, actual >= 0))):
            counts = np.bincount((group * self.classes + code)[counted], minlength=groups * self.classes)
            out[:, 5 + i * self.classes : 5 + (i + 1) * self.classes] = counts.reshape(groups, self.classes)
        return out

    def metrics(self, sums: Float) -> dict[str, float]:
        """Metrics of (width,) sums; what is undefined is absent."""
        n, correct, scored, loss, brier = sums[:5].tolist()
        if not n:
            return {}
        hits, predicted, actual = sums[5:].reshape(3, self.classes)
        used = (predicted + actual) > 0
        hits, predicted, actual = hits[used], predicted[used], actual[used]
        if len(hits) == 1:  # one class only: scikit-learn weighs it alone
            hits, predicted, actual = (np.append(c, 0.0) for c in (hits, predicted, actual))
        precision, recall, f1 = precision_recall_f1(hits, predicted, actual)
        found: dict[str, float | None] = {"accuracy": correct / n, "precision": precision, "recall": recall, "f1": f1}
        if scored:
            found |= {"log_loss": loss / scored, "brier_score": brier / scored}
        return {k: float(v) for k, v in found.items() if v is not None}


class RegressionSums:
    """Layout: rows, sum of errors, of absolute errors, of squares, then of the label less `shift`, and of its square. An error is prediction less label."""

    width = 6

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def rows(self, predicted: Float, actual: Float, group: Int, groups: int) -> Float:
        """Sums by group of rows, (groups, width)."""
        error, y = predicted - actual, actual - self.shift
        columns = (np.ones(len(error)), error, np.abs(error), error * error, y, y * y)
        return np.stack([np.bincount(group, c, groups) for c in columns], axis=1)

    @staticmethod
    def metrics(sums: Float) -> dict[str, float]:
        """Metrics of (width,) sums; R² is absent when the label does not vary."""
        n, error, absolute, squares, y, y2 = sums.tolist()
        if not n:
            return {}
        found = {"mae": absolute / n, "rmse": float(np.sqrt(squares / n)), "bias": error / n}
        spread = y2 - y * y / n
        if n > 1 and spread > 1e-12 * max(y2, 1e-300):
            found["r2"] = 1 - squares / spread
        return found


def logit_bins(score: Float) -> Int:
    """
    Bin of a score among 256 of equal width of its logit, from -12 to 12.

    >>> logit_bins(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    with np.errstate(divide="ignore"):
        logit = np.log(score) - np.log1p(-score)
    return np.clip((logit + LOGIT_MAX) * (AUC_BINS / (2 * LOGIT_MAX)), 0, AUC_BINS - 1).astype(np.int64)


def auc_of_bins(negatives: Float, positives: Float) -> float | None:
    """
    ROC AUC of binned scores.

    Parameters
    ----------
    negatives, positives : (bins,) float64, events

    Returns
    -------
    float or None
        None when only one class is there, or when pairs that share a bin (whose order is unknown) could move it by more than 0.02.

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
