"""
Performance of a classifier as sums, so that panes of time can be added. The metrics are the same as
on the rows, except for ROC AUC, which needs 256 bins of the logit (`auc_bins.py`).

Rule of the file: one float64 vector for each pane, with a fixed layout. Vectors of the same rows
add up to the same numbers, however the rows are cut. Each class has its own sums, so the positive
class can be decided, and changed, afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int, are_numbers
from stream_monitor.stats.auc_bins import AUC_BINS, auc_of_bins, logit_bins
from stream_monitor.stats.classification import (
    CALIBRATION_BINS,
    CLIP,
    calibration_bins,
    calibration_error,
    precision_recall_f1,
)

NO_CLASS, BY_SCORE = -1, -2
"""Codes of an answer that is missing, and of one that is to be read off the score."""
HEAD, PER_CLASS = 5, 7
SLOTS_MAX = 4
FEW_CLASSES = 16
"""Classes of which every pair of label and answer is counted."""
SCORED = 3 + 2 * CALIBRATION_BINS
"""
Log loss if the class of the row is the positive one, and if it is not; squares of scores; then bins
of calibration: rows, scores.
"""


class Positive(NamedTuple):
    """
    How classes are read: the codes of the positive class and of the other one (-1: not known), the
    scores that are of the positive class, and how several classes are averaged.
    """

    positive: int
    negative: int
    candidates: tuple[int, ...] = (0,)
    macro: bool = False


class Outcomes(NamedTuple):
    """
    How rows ended: right ones, and of the positive class (`binary`; otherwise 0) hits, answers and
    labels. All are 0 while it is not known which answers scores give.
    """

    rows: float
    right: float
    hits: float
    answered: float
    labelled: float
    binary: bool


class ClassSums:
    """
    Layout: rows, right ones, then of class scores rows, log loss, Brier; by class hits, answers,
    labels, and without an answer scores below and from 0.5, and answers with a `score` and the sum
    of these; by candidate and class of the label the sums of a score (`SCORED`, then bins of its
    logit).

    Parameters
    ----------
    classes : int
        Classes that have a place.
    candidates : int
        Scores that may be those of the positive class: `score`, and the columns of class scores.
    bins : int
        Of the logit; 0 for none.
    """

    def __init__(self, classes: int = 2, candidates: int = 0, bins: int = AUC_BINS) -> None:
        self.classes, self.candidates, self.bins = classes, candidates, bins
        self.slots = min(classes, SLOTS_MAX)
        self.block = SCORED + bins
        self.counts = HEAD + PER_CLASS * classes
        self.width = self.counts + candidates * self.slots * self.block

    def converted(self, sums: Float, old: ClassSums) -> Float:
        """(n, width) sums of another layout with no more classes and candidates."""
        n = len(sums)
        out = np.zeros((n, self.width))
        out[:, :HEAD] = sums[:, :HEAD]
        out[:, HEAD : self.counts].reshape(n, PER_CLASS, self.classes)[:, :, : old.classes] = sums[
            :, HEAD : old.counts
        ].reshape(n, PER_CLASS, old.classes)
        if old.candidates and self.candidates:
            scored = sums[:, old.counts :].reshape(n, old.candidates, old.slots, old.block)
            out[:, self.counts :].reshape(n, self.candidates, self.slots, self.block)[
                :, : old.candidates, : old.slots
            ] = scored
        return out

    def rows(
        self,
        predicted: Int,
        actual: Int,
        scores: Sequence[Float],
        class_scored: tuple[Float, Float] | None,
        group: Int,
        groups: int,
    ) -> Float:
        """
        Sums by group of rows.

        Parameters
        ----------
        predicted, actual : (n,) int64
            Codes of classes; a code of -1 is of no class: the row is wrong.
        scores : sequence of (n,) float64
            Of each candidate, NaN where there is none.
        class_scored : None or two (n,) float64
            Log loss and Brier score of class scores, NaN where a row has none.
        group : (n,) int64
            Pane of each row, from 0 to `groups` - 1.
        groups : int

        Returns
        -------
        (groups, width) float64
        """
        out = np.zeros((groups, self.width))
        self._answered(out, predicted, actual, scores, group)
        if class_scored is not None:
            scored = class_scored[0] == class_scored[0]
            for i, column in enumerate((scored, *(np.where(scored, c, 0.0) for c in class_scored))):
                out[:, 2 + i] = np.bincount(group, column, groups)
        for j, score in enumerate(scores[: self.candidates]):
            self._scored(out, j, score, actual, group)
        return out

    def _answered(
        self, out: Float, predicted: Int, actual: Int, scores: Sequence[Float], group: Int
    ) -> None:
        """Rows, right ones, and the counts by class."""
        groups, k = len(out), self.classes
        if k <= FEW_CLASSES and len(group) and min(predicted.min(), actual.min()) >= 0:
            # nearly always
            table = np.bincount(
                (group * k + actual) * k + predicted, minlength=groups * k * k
            ).reshape(groups, k, k)
            found = out[:, HEAD : HEAD + 3 * k].reshape(groups, 3, k)
            found[:, 0], found[:, 1], found[:, 2] = (
                table.diagonal(axis1=1, axis2=2),
                table.sum(axis=1),
                table.sum(axis=2),
            )
            self._scores_of_answers(out, predicted, scores, group, found[:, 1])
            out[:, 0], out[:, 1] = found[:, 2].sum(axis=1), found[:, 0].sum(axis=1)
            return
        right = predicted == actual
        if (actual < 0).any():
            right &= actual >= 0
        out[:, 0] = np.bincount(group, minlength=groups)
        out[:, 1] = np.bincount(group, right, groups)
        counted = [(actual, right), (predicted, predicted >= 0), (actual, actual >= 0)]
        by_score = predicted == BY_SCORE
        if by_score.any() and scores:
            high = scores[0] >= 0.5
            counted += [
                (actual, by_score & ~high & (actual >= 0)),
                (actual, by_score & high & (actual >= 0)),
            ]
        place = group * k
        for i, (code, which) in enumerate(counted):
            at = place + code if which.all() else (place + code)[which]
            out[:, HEAD + i * k : HEAD + (i + 1) * k] = np.bincount(
                at, minlength=groups * k
            ).reshape(groups, k)
        self._scores_of_answers(out, predicted, scores, group, None)

    def _scores_of_answers(
        self, out: Float, predicted: Int, scores: Sequence[Float], group: Int, answers: Float | None
    ) -> None:
        """
        Of each class the answers that have a `score`, and the sum of these; `answers` are all of
        them, where every row has one.
        """
        if not (self.candidates and len(scores)):
            return
        groups, k = len(out), self.classes
        found = out[:, HEAD + 5 * k : HEAD + 7 * k].reshape(groups, 2, k)
        score = scores[0]
        known = are_numbers(score) & (predicted >= 0)
        every = bool(known.all())
        if not every:
            if not known.any():
                return
            predicted, score, group = predicted[known], score[known], group[known]
        at = group * k + predicted
        found[:, 0] = (
            answers
            if every and answers is not None
            else np.bincount(at, minlength=groups * k).reshape(groups, k)
        )
        found[:, 1] = np.bincount(at, score, groups * k).reshape(groups, k)

    def _scored(self, out: Float, candidate: int, score: Float, actual: Int, group: Int) -> None:
        known = are_numbers(score) & (actual >= 0)
        if not known.any():
            return
        if not known.all():
            score, actual, group = score[known], actual[known], group[known]
        groups, slots = len(out), self.slots
        slot = group * slots + np.minimum(actual, slots - 1)
        start = self.counts + candidate * slots * self.block
        block = out[:, start : start + slots * self.block].reshape(groups, slots, self.block)
        kept = np.clip(score, CLIP, 1 - CLIP)
        for i, column in enumerate((-np.log(kept), -np.log(1 - kept), score * score)):
            block[:, :, i] = np.bincount(slot, column, groups * slots).reshape(groups, slots)
        at = slot * CALIBRATION_BINS + calibration_bins(score)
        shape = groups, slots, CALIBRATION_BINS
        block[:, :, 3 : 3 + CALIBRATION_BINS] = np.bincount(
            at, minlength=groups * slots * CALIBRATION_BINS
        ).reshape(shape)
        block[:, :, 3 + CALIBRATION_BINS : SCORED] = np.bincount(
            at, score, groups * slots * CALIBRATION_BINS
        ).reshape(shape)
        if self.bins:
            at = slot * self.bins + logit_bins(score)
            block[:, :, SCORED:] = np.bincount(at, minlength=groups * slots * self.bins).reshape(
                groups, slots, self.bins
            )

    def by_class(self, sums: Float) -> Float:
        """
        Of each class labels, answers, right ones, labels with a `score` and the sum of these,
        answers with one and the sum of these: (7, classes). In the last place of the scores of
        labels are those of all classes that share it.
        """
        out = np.zeros((7, self.classes))
        hits, predicted, actual = sums[HEAD : HEAD + 3 * self.classes].reshape(3, self.classes)
        out[:3] = actual, predicted, hits
        if self.candidates:
            block = sums[self.counts : self.counts + self.slots * self.block].reshape(
                self.slots, self.block
            )
            scored = block[:, 3:SCORED].reshape(self.slots, 2, CALIBRATION_BINS).sum(axis=2).T
            out[3:5, : self.slots], out[3:5, self.slots :] = scored, scored[:, -1:]
        out[5:] = sums[HEAD + 5 * self.classes : self.counts].reshape(2, self.classes)
        return out

    # ---- metrics

    def answers(self, sums: Float, read: Positive) -> tuple[float | None, Float, Float, Float]:
        """
        Of (width,) sums: right rows (None: not known), and hits, answers and labels by class, each
        (classes,), with the answers that scores give.
        """
        hits, predicted, actual, low, high = sums[HEAD : self.counts].reshape(
            PER_CLASS, self.classes
        )[:5]
        if not (low.any() or high.any()):
            return float(sums[1]), hits, predicted, actual
        if min(read.positive, read.negative) < 0:
            return None, hits, predicted, actual
        hits, predicted = hits.copy(), predicted.copy()
        for code, taken in ((read.positive, high), (read.negative, low)):
            hits[code] += taken[code]
            predicted[code] += taken.sum()
        return float(sums[1] + high[read.positive] + low[read.negative]), hits, predicted, actual

    def outcomes(self, sums: Float, read: Positive, *, binary: bool) -> Outcomes:
        """Counts of (width,) sums: what the shares of the metrics are made of."""
        right, hits, predicted, actual = self.answers(sums, read)
        if right is None:
            return Outcomes(0.0, 0.0, 0.0, 0.0, 0.0, binary)
        p = read.positive
        if not binary or p < 0:
            return Outcomes(float(sums[0]), right, 0.0, 0.0, 0.0, False)
        of_positive = float(hits[p]), float(predicted[p]), float(actual[p])
        return Outcomes(float(sums[0]), right, *of_positive, True)

    def binary(self, sums: Float, read: Positive) -> dict[str, float]:
        """
        Metrics of (width,) sums of a binary model; undefined ones are absent.

        A label of a third class counts as not positive.
        """
        n = float(sums[0])
        if not n:
            return {}
        right, hits, predicted, actual = self.answers(sums, read)
        found: dict[str, float | None] = {"accuracy": None if right is None else right / n}
        p = read.positive
        if p >= 0 and right is not None:
            found |= zip(
                ("precision", "recall", "f1"),
                precision_recall_f1(hits[[p]], predicted[[p]], actual[[p]]),
                strict=True,
            )
        if p >= 0 and self.candidates and (p < self.slots - 1 or self.classes <= self.slots):
            found |= self.of_scores(sums, read)
        return {k: float(v) for k, v in found.items() if v is not None}

    def of_positive(self, sums: Float, read: Positive) -> Float:
        """(slots, block) sums of the scores of the positive class."""
        blocks = sums[self.counts :].reshape(self.candidates, self.slots, self.block)
        block: Float = blocks[[c for c in read.candidates if c < self.candidates]].sum(axis=0)
        return block

    def of_scores(self, sums: Float, read: Positive) -> dict[str, float | None]:
        """Metrics of the scores of the positive class in (width,) sums; empty if there are none."""
        block = self.of_positive(sums, read)
        bins = block[:, 3 : 3 + CALIBRATION_BINS]
        total = float(bins.sum())
        if not total:
            return {}
        is_positive = np.arange(self.slots) == read.positive
        scores = block[:, 3 + CALIBRATION_BINS : SCORED]
        positives, score_of_positives = (
            float(bins[read.positive].sum()),
            float(scores[read.positive].sum()),
        )
        loss = float(block[is_positive, 0].sum() + block[~is_positive, 1].sum())
        found: dict[str, float | None] = {
            "log_loss": loss / total,
            "brier_score": max(float(block[:, 2].sum()) - 2 * score_of_positives + positives, 0.0)
            / total,
            "calibration_error": calibration_error(
                bins.sum(axis=0), scores.sum(axis=0), bins[read.positive]
            ),
        }
        if self.bins:
            found["roc_auc"] = auc_of_bins(
                block[~is_positive, SCORED:].sum(axis=0), block[read.positive, SCORED:]
            )
        return found

    def multiclass(self, sums: Float, read: Positive) -> dict[str, float]:
        """Metrics of (width,) sums, averages over classes; undefined ones are absent."""
        n, _, scored, loss, brier = sums[:HEAD].tolist()
        if not n:
            return {}
        right, hits, predicted, actual = self.answers(sums, read)
        found: dict[str, float | None] = {"accuracy": None if right is None else right / n}
        if right is not None:
            used = (predicted + actual) > 0
            hits, predicted, actual = hits[used], predicted[used], actual[used]
            if len(hits) == 1:  # one class only: scikit-learn weighs it alone
                hits, predicted, actual = (np.append(c, 0.0) for c in (hits, predicted, actual))
            found |= zip(
                ("precision", "recall", "f1"),
                precision_recall_f1(hits, predicted, actual, macro=read.macro),
                strict=True,
            )
        if scored:
            found |= {"log_loss": loss / scored, "brier_score": brier / scored}
        return {k: float(v) for k, v in found.items() if v is not None}

    def chance(self, sums: Float, read: Positive) -> tuple[float, float] | None:
        """
        Accuracies that need no model; None when they are not known.

        Parameters
        ----------
        sums : (width,) float64
        read : Positive

        Returns
        -------
        tuple of float
            Of guesses as frequent as the answers are, and of equal guesses among the classes that
            occurred.
        """
        right, _, predicted, actual = self.answers(sums, read)
        n, classes = float(sums[0]), int(((predicted + actual) > 0).sum())
        return (
            None
            if right is None or not n or classes < 2
            else (float(predicted @ actual) / (n * n), 1 / classes)
        )
