"""
Which classes a model has, which of them is the positive one, and whether there are two or more.

Rule of the file: only the counts of each class decide. So the same labelled rows give the same
decision, in whatever order they came, and it is revised as more rows come.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.settings import OTHER
from stream_monitor.stats.class_sums import ClassSums
from stream_monitor.stats.inference import wilson_interval

ClassTask = Literal["binary", "multiclass"]
Source = Literal["configured", "name", "score", "rarer", ""]
CLASSES_MAX = 256
POSITIVE_NAMES = ("true", "yes", "y", "positive", "pos")
"""
Names of a positive class, in any case of letters; `1` (which `true` is too) is one beside `0` or
`-1`, or alone.
"""
NEGATIVE_NUMBERS = ("0", "-1")
ESTABLISHED_SHARE, ESTABLISHED_ROWS, ESTABLISHED_RIGHT = 0.01, 3, 10
LABELS, ANSWERS, RIGHT, SCORED, SCORES, SCORED_ANSWERS, SCORES_OF_ANSWERS = range(7)
MEAN_DIGITS = 9
"""
Digits of mean scores that are compared, so that the order in which they were added does not matter.
"""


class Classes(dict[str, int]):
    """Class texts of one model version to codes, in order of appearance, bounded."""

    def __missing__(self, text: str) -> int:
        if len(self) >= CLASSES_MAX - 1 and text != OTHER:
            return self[OTHER]
        code = self[text] = len(self)
        return code


class Reading(NamedTuple):
    """
    How the classes of a model are read.

    A code is -1, and a name empty, if it is not known.
    """

    task: ClassTask
    positive: str
    negative: str
    source: Source
    positive_code: int
    negative_code: int
    unexpected: tuple[str, ...] = ()
    """Classes beyond the two of a binary model."""
    named: tuple[str, ...] = ()
    """All classes that occurred, the most frequent first."""
    many_further: bool = False
    """Classes beyond the first two are, all together, no longer rare."""


def named_positive(one: str, other: str) -> bool:
    """
    Whether the first of two classes is the positive one by its name.

    >>> (
    ...     named_positive("Yes", "no"),
    ...     named_positive("1", "0"),
    ...     named_positive("1", "2"),
    ...     named_positive("1", ""),
    ... )
    (True, True, False, True)
    """
    if one == "1":
        return other in {"", *NEGATIVE_NUMBERS}
    return one.lower() in POSITIVE_NAMES and other.lower() not in POSITIVE_NAMES


class Counted:
    """
    What is counted of each class of one model version.

    Parameters
    ----------
    classes, score_classes : Classes
        Codes of classes, and the classes of class scores.
    task : {"auto", "binary", "multiclass"}
    positive_class : str
        The configured one; empty if there is none.
    macro : bool
        Averages over classes are plain ones, not weighted by support.
    """

    def __init__(
        self,
        classes: Classes,
        score_classes: Classes,
        task: str,
        positive_class: str,
        *,
        macro: bool = False,
    ) -> None:
        self.classes, self.score_classes, self.task, self.positive_class = (
            classes,
            score_classes,
            task,
            positive_class,
        )
        self.macro = macro
        self.rows = 0
        self._sums, self._total = ClassSums(), np.zeros(ClassSums().width)
        self._reading: Reading | None = None

    def look_at(self, sums: ClassSums, total: Float) -> None:
        """
        The sums of all labelled rows, and their layout: what is counted of each class is read off
        them.
        """
        self._sums, self._total, self._reading = sums, total, None

    def reading(self) -> Reading:
        """How the classes are read now; O(classes) after new rows."""
        if self._reading is None:
            self._reading = self._read()
        return self._reading

    def _read(self) -> Reading:
        counts = self._sums.by_class(self._total)
        self.rows, weight = int(self._total[0]), counts[LABELS] + counts[ANSWERS] - counts[RIGHT]
        there = sorted(
            (n for n, i in self.classes.items() if i < len(weight) and weight[i]),
            key=lambda n: (-int(weight[self.classes[n]]), n),
        )
        main = self._main(there)
        further = [n for n in there if n not in main]
        task: ClassTask = "binary"
        if self.task == "multiclass" or (
            self.task == "auto"
            and not self.positive_class
            and any(self._established(n, counts) for n in (*further, *self._scored_only(main)))
        ):
            task = "multiclass"
        positive, source = self._positive(main, there, counts)
        negative = next((n for n in main if n != positive), "") if positive else ""
        code = {n: self.classes[n] for n in (positive, negative) if n in self.classes}
        return Reading(
            task,
            positive,
            negative,
            source,
            code.get(positive, -1),
            code.get(negative, -1),
            tuple(further) if task == "binary" else (),
            tuple(there),
            self._not_rare(sum(int(weight[self.classes[n]]) for n in further)),
        )

    def _main(self, there: list[str]) -> list[str]:
        """
        The two classes of a binary model: the configured one, one of a positive name, those of
        class scores, then the most frequent.
        """
        scored = (
            [n for n in there if n in self.score_classes] if len(self.score_classes) == 2 else []
        )
        first = [n for n in there if n == self.positive_class]
        named = (
            []
            if self.positive_class
            else [
                n
                for n in there
                if n.lower() in POSITIVE_NAMES
                or (n == "1" and any(z in there for z in NEGATIVE_NUMBERS))
            ]
        )
        zero = [
            n
            for n in NEGATIVE_NUMBERS
            if n in there and (named or first) and (named or first)[0] == "1"
        ]
        return list(dict.fromkeys([*first, *named[:1], *scored, *zero[:1], *there]))[:2]

    def _scored_only(self, main: list[str]) -> list[str]:
        """Classes that have class scores, if there are more than two."""
        return (
            [n for n in self.score_classes if n not in main] if len(self.score_classes) > 2 else []
        )

    def _established(self, name: str, counts: Float) -> bool:
        """
        Whether a third class makes the model multiclass: the model scores it, has answered it
        rightly, or it is not rare any more.
        """
        if name in self.score_classes and len(self.score_classes) > 2:
            return True
        labels, answers, right = counts[:SCORED, self.classes[name]].tolist()
        if right >= ESTABLISHED_RIGHT:
            return True
        return self._not_rare(labels + answers - right)

    def _not_rare(self, rows: float) -> bool:
        return (
            rows >= ESTABLISHED_ROWS
            and wilson_interval(min(rows, self.rows), self.rows)[0] > ESTABLISHED_SHARE
        )

    def _positive(self, main: list[str], there: list[str], counts: Float) -> tuple[str, Source]:
        """
        The positive class: the configured one, or by name, by score, or the rarer one.

        Answers show which class a score belongs to. Labels show it only if there are no answers,
        because a model may be wrong.
        """
        if self.positive_class:
            return (
                (self.positive_class, "configured")
                if self.positive_class in there
                else ("", "configured")
            )
        pair = [*main, "", ""][:2]
        for one, other in (pair, pair[::-1]):
            if one and named_positive(one, other):
                return one, "name"
        if len(main) < 2:
            return "", ""
        a, b = (counts[:, self.classes[n]].tolist() for n in main)
        for rows, scores in ((SCORED_ANSWERS, SCORES_OF_ANSWERS), (SCORED, SCORES)):
            if a[rows] and b[rows]:
                means = [round(c[scores] / c[rows], MEAN_DIGITS) for c in (a, b)]
                if means[0] != means[1]:
                    return main[means[1] > means[0]], "score"
        return (
            (main[b[LABELS] < a[LABELS]], "rarer")
            if a[LABELS] != b[LABELS] and a[LABELS] and b[LABELS]
            else ("", "")
        )
