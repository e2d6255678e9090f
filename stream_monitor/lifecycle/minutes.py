"""
Labels and metrics of a version by minute, as `history` tells them.

Rule of the file: it keeps so many days, whatever comes in, and a question about a range costs what
the range has (metrics) or a search in a list (labels): a controller asks five times a second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict


class Minutes:
    """
    Minutes in the order of their starts; several may begin at once, one for each partition.

    Examples
    --------
    >>> minutes = Minutes()
    >>> for start_ms, labels in ((0, 3), (120_000, 5), (60_000, 2)):
    ...     minutes.add(start_ms, labels, {"accuracy": 1.0})
    >>> minutes.labels(60_000), minutes.metrics(0, 120_000)
    (7, {'accuracy': 1.0, 'labels': 5.0})
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._sums: list[int] = []
        """Labels of all minutes up to this one, since the first that was ever taken."""
        self._metrics: list[tuple[int, dict[str, float]]] = []
        self._gone = 0
        """Labels of minutes that were forgotten."""

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start_ms: int, labels: int, metrics: dict[str, float]) -> None:
        """A minute; O(1) if it is the newest, otherwise O(minutes after it)."""
        at = bisect_right(self._starts, start_ms)
        before = self._sums[at - 1] if at else self._gone
        self._starts.insert(at, start_ms)
        self._metrics.insert(at, (labels, metrics))
        self._sums.insert(at, before + labels)
        for later in range(at + 1, len(self._sums)):
            self._sums[later] += labels

    def forget(self, before_ms: int) -> None:
        """Drop what began earlier."""
        at = bisect_left(self._starts, before_ms)
        if at:
            self._gone = self._sums[at - 1]
            del self._starts[:at], self._sums[:at], self._metrics[:at]

    def labels(self, since_ms: int) -> int:
        """Labels of minutes that began since a time."""
        at = bisect_left(self._starts, since_ms)
        return self._sums[-1] - (self._sums[at - 1] if at else self._gone) if self._sums else 0

    def metrics(self, since_ms: int, until_ms: int) -> dict[str, float]:
        """Means of metrics weighted by labels, and `labels`."""
        sums: defaultdict[str, float] = defaultdict(float)
        weights: defaultdict[str, int] = defaultdict(int)
        all_labels = 0
        for at in range(bisect_left(self._starts, since_ms), bisect_left(self._starts, until_ms)):
            labels, found = self._metrics[at]
            all_labels += labels
            for name, value in found.items():
                sums[name] += value * labels
                weights[name] += labels
        means = {name: sums[name] / weights[name] for name in sorted(sums) if weights[name]}
        return {**means, "labels": float(all_labels)}
