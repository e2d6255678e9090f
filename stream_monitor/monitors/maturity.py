"""
When the labels of a cohort of predictions are complete enough to be judged.

Rule of the file: labels that come late are no reason to wait. Delays that depend on the class or on
whether the answer was right are, because the labelled rows of the last hours are then not a sample
of all rows. Only event times decide, so it does not show how rows were cut.

Theory of operation
-------------------
Delays (label time less prediction time) are counted by cohort of prediction time, half of
`labels.max_delay` wide, and by group of rows: class of the label, whether the answer was right, or
both. A cohort older than `labels.max_delay` is complete. If, within complete cohorts, the delays of
a group differ from those of the other rows (Kolmogorov-Smirnov, by more than 0.1), rows count as
mature when they are as old as 99 % of the labels of every group were. Otherwise all rows are.

While there is no complete cohort, nobody knows what is still to come. Then rows are mature at once
if delays do not depend on the group and at least half of the predictions have their label;
otherwise when `labels.max_delay` is over.

Groups are compared within cohorts, and before there is a complete one within slots of prediction
time, of which there are at most 32. Otherwise a model that became worse while the source of labels
was slow would look like one whose errors are labelled late.

Fraud comes after ten hours, everything else after one:

>>> hour, rows = 3_600_000, np.arange(40_000)
>>> fraud, times = rows % 20 == 0, rows * 10_000
>>> maturity = Maturity(24 * hour)
>>> bins = np.where(fraud, 31, 24)  # of delays around ten hours and around one
>>> places = 2 * fraud * BINS + bins
>>> maturity.add(Coded(times, places, times + 10 * hour))
>>> maturity.look(lambda: (40_000, 40_000))
>>> round(maturity.wait_ms / hour, 1), maturity.until_ms == maturity.now_ms - maturity.wait_ms
(12.9, True)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.join.rows import Pairs

BINS = 46
"""Of the delay: below a second, then two for each doubling, up to two months."""
CLASSES, GROUPS = 4, 8
"""Classes that are told apart, the first ones that came; each has right and wrong answers."""
PERIODS = 8
"""Cohorts that are kept: four times `labels.max_delay`."""
PERIOD_MIN_MS = 60_000
ROWS_MIN, GROUP_MIN = 100, 30
"""Rows of complete cohorts, and of a group, before they say by themselves how late labels come."""
ASKED_MIN, DIFFERENCE_MIN, KS = 10, 0.1, 2.5
"""
Rows of a group and of the others before they are compared; the greatest difference of two
distribution functions that does not matter; and how many times √(1/n + 1/m) it must be: by chance
once in 130,000 comparisons (Kolmogorov's limit, which of few rows is more than the truth).
"""
COVERAGE_MIN, COMPLETE = 0.5, 0.99
EARLY_LOOKS = 64
"""Looks in `labels.max_delay`, while nothing is known."""
SLOTS, SLOT_MS = 32, 1_000
"""Slots of prediction time, and the least width of one: it doubles when there are more."""


class Coded(NamedTuple):
    """Rows as numbers, with their place among the counts."""

    time: Int
    """Of the prediction, ms; -1: not a first label, which is not counted."""
    place: Int
    label_time: Int

    def at(self, index: slice) -> Coded:
        """A part of the rows."""
        return Coded(*(c[index] for c in self))


class Maturity(msgspec.Struct):
    """
    Delays of labels, and what is mature.

    Parameters
    ----------
    max_delay_ms : int, ms
    """

    max_delay_ms: int
    counts: dict[int, Float] = {}
    """By cohort: (GROUPS * BINS,) rows by group and delay."""
    slots: dict[int, NDArray[np.float32]] = {}
    """The same by slot, until there is a complete cohort."""
    slot_ms: int = SLOT_MS
    """Width of a slot; 0: there was a complete cohort."""
    now_ms: int = 0
    """The newest label time."""
    looked_ms: int = 0
    """The newest label time when it was last decided."""
    wait_ms: int | None = None
    """Age at which rows are mature; None if all of them are."""
    depends: bool = False
    """Whether delays depend on the class of the label, or on whether the answer was right."""

    @property
    def period_ms(self) -> int:
        """Width of a cohort, ms."""
        return max(self.max_delay_ms // 2, PERIOD_MIN_MS)

    @property
    def until_ms(self) -> int | None:
        """Event time up to which rows are mature; None if all of them are."""
        return None if self.wait_ms is None else self.now_ms - self.wait_ms

    @property
    def is_due(self) -> bool:
        """Whether it is time to look, because nothing is known yet and some labels came since."""
        return self.slot_ms > 0 and self.now_ms - self.looked_ms >= self.max_delay_ms // EARLY_LOOKS

    @property
    def is_known(self) -> bool:
        """Whether a cohort is complete, so that it is known how late labels come."""
        ended = (self.now_ms - self.max_delay_ms) // self.period_ms
        return min(self.counts, default=ended) < ended

    def coded(self, pairs: Pairs, group: Int) -> Coded:
        """
        Rows as they are counted, so that a slice of them is added fast.

        Parameters
        ----------
        pairs : Pairs
            Only first labels are counted.
        group : (n,) int64
            Twice the code of the class, and 1 more if the answer was wrong.
        """
        delay = np.maximum(pairs.label_time - pairs.time, 1)
        bins = np.clip(np.floor(2 * np.log2(delay / 1e3)) + 1, 0, BINS - 1).astype(np.int64)
        group = np.where(group < 0, 0, np.where(group < GROUPS, group, GROUPS - 2 + group % 2))
        time = np.where(pairs.corrected, -1, pairs.time)
        return Coded(time, group * BINS + bins, pairs.label_time)

    def add(self, rows: Coded) -> None:
        """Count rows, in the order in which their labels came."""
        if not len(rows.time):
            return
        self.now_ms = max(self.now_ms, int(rows.label_time.max()))
        if self.slot_ms:
            self._add_slots(rows)
        newest = max(self.counts, default=-1)
        cohorts = rows.time // self.period_ms
        low, high = int(cohorts.min()), int(cohorts.max())
        if low == high == newest >= 0:  # nearly always
            self.counts[newest] += np.bincount(rows.place, minlength=GROUPS * BINS)
            return
        seen = np.maximum(np.maximum.accumulate(cohorts), newest)
        kept = (cohorts >= 0) & (cohorts > seen - PERIODS)
        for cohort in np.unique(cohorts[kept]).tolist():
            found = np.bincount(rows.place[kept & (cohorts == cohort)], minlength=GROUPS * BINS)
            self.counts[cohort] = self.counts.get(cohort, np.zeros(GROUPS * BINS)) + found
        newest = max(self.counts, default=-1)
        self.counts = {k: c for k, c in sorted(self.counts.items()) if k > newest - PERIODS}

    def _add_slots(self, rows: Coded) -> None:
        size = GROUPS * BINS
        slots, places = rows.time // self.slot_ms, rows.place
        low, high = int(slots.min()), int(slots.max())
        if low == high and low in self.slots:  # nearly always
            self.slots[low] += np.bincount(places, minlength=size)
            return
        if low < 0:
            slots, places = slots[slots >= 0], places[slots >= 0]
        found, at = np.unique(slots, return_inverse=True)
        counts = np.bincount(at * size + places, minlength=len(found) * size).reshape(-1, size)
        for slot, more in zip(found.tolist(), counts.astype(np.float32), strict=True):
            self.slots[slot] = self.slots[slot] + more if slot in self.slots else more
        while len(self.slots) > SLOTS:
            self.slot_ms *= 2
            wider: dict[int, NDArray[np.float32]] = {}
            for slot, more in self.slots.items():
                wider[slot // 2] = wider.get(slot // 2, np.float32(0)) + more
            self.slots = wider

    def look(self, covered: Callable[[], tuple[float, float]]) -> None:
        """
        Decide what is mature.

        Parameters
        ----------
        covered : callable
            Gives labelled rows and predictions up to the newest labelled row. It is asked only
            while there is no complete cohort.
        """
        self.looked_ms = self.now_ms
        ended = (self.now_ms - self.max_delay_ms) // self.period_ms
        complete = [c for cohort, c in self.counts.items() if cohort < ended]
        if sum(c.sum() for c in complete) >= ROWS_MIN:
            self.slots, self.slot_ms = {}, 0
            counts = np.array(complete).reshape(-1, GROUPS, BINS)
            self.depends = self._depends(counts)
            self.wait_ms = self._usual(counts.sum(axis=0)) if self.depends else None
            return
        labels, predictions = covered()
        counts = np.array([*(self.slots or self.counts).values()], np.float64)
        self.depends = self._depends(counts.reshape(-1, GROUPS, BINS))
        early = labels < COVERAGE_MIN * predictions or self.depends
        self.wait_ms = self.max_delay_ms if early else None

    def _depends(self, counts: Float) -> bool:
        """
        Whether the delays of a group differ from those of the other rows of the same time.

        Parameters
        ----------
        counts : (times, GROUPS, BINS) float64
        """
        counts = counts[:, :, counts.any(axis=(0, 1))]
        if counts.shape[2] < 2:
            return False
        classes, wrong = counts[:, ::2] + counts[:, 1::2], counts[:, 1::2].sum(axis=1)
        all_rows = classes.sum(axis=1, keepdims=True)
        counts = np.concatenate([counts, classes, wrong[:, None]], axis=1)
        rows = counts.sum(axis=2)
        rest = all_rows.sum(axis=2) - rows
        # of the difference of two means: 1 / (1/n + 1/m)
        weight = np.divide(rows * rest, rows + rest, out=np.zeros_like(rows), where=rows > 0)
        seen = weight > 0
        asked = np.minimum((rows * seen).sum(axis=0), (rest * seen).sum(axis=0)) >= ASKED_MIN
        if not asked.any():
            return False
        rows, rest, weight = (x[:, asked] for x in (rows, rest, weight))
        total = np.cumsum(counts[:, asked], axis=2)
        others = np.cumsum(all_rows, axis=2) - total
        gaps = total / np.maximum(rows, 1.0)[..., None]
        gaps -= others / np.maximum(rest, 1.0)[..., None]
        gap = np.abs((gaps * weight[..., None]).sum(axis=0) / weight.sum(axis=0)[:, None])
        found = gap.max(axis=1)
        return bool(((found > DIFFERENCE_MIN) & (found * np.sqrt(weight.sum(axis=0)) > KS)).any())

    def _usual(self, counts: Float) -> int:
        """
        Age by which nearly all labels of every group have come, ms; groups of few rows are one.
        """
        small = counts.sum(axis=1) < GROUP_MIN
        counts = np.vstack([counts[~small], counts[small].sum(axis=0)])
        total = np.cumsum(counts[counts.sum(axis=1) >= ASKED_MIN], axis=1)
        at = int((total < COMPLETE * total[:, -1:]).sum(axis=1).max())
        return min(math.ceil(1_000 * 2 ** (at / 2)), self.max_delay_ms)
