"""
The newest chunks of rows in buckets that are wider the older they are, to find when a law changed.

Rule of the file: buckets depend on the number of chunks alone. Two of each width are kept, or
three; then the older two become one of twice the width (exponential histogram, Datar et al. 2002).
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int

OF_EACH, WIDTH_MAX = 2, 1 << 10
"""Buckets of each width, and the greatest width in chunks; what is older is forgotten."""


class Split(NamedTuple):
    """Where a signal most likely changed, and its rows since."""

    chunks: int
    """Chunks since the change."""
    start_ms: int
    after: Float
    """Sums since the change."""
    origin: int
    """Where the first row since then came from."""


class Recent(msgspec.Struct):
    """
    Sums of the newest chunks, oldest first.

    Examples
    --------
    >>> recent = Recent()
    >>> for i in range(20):
    ...     recent.add(np.array([1.0, i >= 16]), i * 1_000, 50 * i)
    >>> recent.widths
    [8, 4, 4, 2, 1, 1]
    >>> split = recent.split(np.array([0, 1]), np.array([100.0, 4.0]), 99)
    >>> split.chunks, split.start_ms, split.after.tolist(), split.origin
    (4, 16000, [4.0, 4.0], 800)
    """

    sums: list[NDArray[np.float32]] = []
    widths: list[int] = []
    starts_ms: list[int] = []
    origins: list[int] = []

    def add(self, sums: Float, start_ms: int, origin: int = -1) -> None:
        """One chunk more: its (columns,) float64 sums, and its first row (-1: origin unknown)."""
        self.sums.append(sums.astype(np.float32))
        self.widths.append(1)
        self.starts_ms.append(start_ms)
        self.origins.append(origin)
        width, end = 1, len(self.widths)
        while self.widths[:end].count(width) > OF_EACH:
            at = self.widths.index(width)
            self.sums[at : at + 2] = [self.sums[at] + self.sums[at + 1]]
            self.widths[at : at + 2] = [2 * width]
            del self.starts_ms[at + 1], self.origins[at + 1]
            width *= 2
        if self.widths[0] > WIDTH_MAX:
            del self.sums[0], self.widths[0], self.starts_ms[0], self.origins[0]

    def split(self, columns: Int, seen: Float, most: int) -> Split:
        """
        The most likely change of the law of one signal: at the edge between buckets where two laws
        instead of one gain most likelihood.

        Parameters
        ----------
        columns : (bins,) int64
            Places of the signal's bins in the sums.
        seen : (bins,) float64
            All its rows, these included.
        most : int
            Chunks that are looked at, at least one.
        """
        widths = np.cumsum(self.widths[::-1])
        looked = max(int((widths <= most).sum()), 1)
        newest = np.array([s[columns] for s in self.sums[-looked:]], np.float64)[::-1]
        after = np.cumsum(newest, axis=0)
        before = np.maximum(seen - after, 0.0)
        best = int(np.argmax(_likelihood(after) + _likelihood(before)))
        return self.last(best + 1)

    def last(self, buckets: int) -> Split:
        """The newest buckets as the rows after a change."""
        first = len(self.sums) - buckets
        newer = np.array(self.sums[first:], np.float64)
        after, start_ms = newer.sum(axis=0), self.starts_ms[first]
        return Split(sum(self.widths[first:]), start_ms, after, self.origins[first])


def _likelihood(counts: Float) -> Float:
    """Logarithm of the likelihood of counts under their own law, each of the last axis."""
    total = counts.sum(axis=-1, keepdims=True)
    share = np.maximum(counts, 1e-9) / np.maximum(total, 1e-9)
    found: Float = (counts * np.log(share)).sum(axis=-1)
    return found
