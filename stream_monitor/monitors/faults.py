"""
Which rules of data quality single rows break, so that an alert names some rows that do.

Rule of the file: it is asked of the few newest rows only; shares are counted in `sums.py` and
`value_rules.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, are_numbers
from stream_monitor.events.cells import (
    ABSENT,
    BOOL,
    NOT_FINITE,
    NULL,
    TEXT,
    TOO_BIG,
    WRONG_TYPE,
    Cells,
    tags,
)
from stream_monitor.monitors.layout import Layout
from stream_monitor.monitors.windowed import MISSING, OFFSET, RANGE, TYPE

BITS = {"missing": 1, "type": 2, "range": 4, "category": 8, "pattern": 16, "unique": 32}
"""By rule, as alerts name it."""
OF_TAGS = (
    ("missing", (NULL, ABSENT)),
    ("type", (TEXT, BOOL, WRONG_TYPE)),
    ("range", (NOT_FINITE, TOO_BIG)),
)


class Faults(NamedTuple):
    """Rows of a chunk, in the order of the log, and what is asked of them."""

    layout: Layout
    numeric: Cells
    """(numeric features, n)"""
    rules: list[tuple[str, str, str]]
    """Rules on single values: feature, rule, pattern."""
    broken: list[Bool]
    """By rule: the rows that break it."""

    def of(self, here: slice, bins: NDArray[np.int32]) -> NDArray[np.uint8]:
        """
        Bits of the rules that rows break.

        Parameters
        ----------
        here : slice
        bins : (features, rows) int32
            The column of each cell.
        """
        layout, cells = self.layout, self.numeric[:, here]
        out = np.zeros(bins.shape, np.uint8)
        numbers = out[: len(cells)]
        if not are_numbers(cells).all():
            tag = tags(cells)
            for rule, kinds in OF_TAGS:
                numbers[np.isin(tag, kinds)] |= BITS[rule]
        if layout.bounded:
            beyond = (cells < layout.minimum[:, None]) | (cells > layout.maximum[:, None])
            numbers[beyond] |= BITS["range"]
        for i, name in enumerate(layout.category, len(cells)):
            level = bins[i] - layout.start[name]
            for rule, column in zip(BITS, (MISSING, TYPE, RANGE), strict=False):
                out[i, level == column] |= BITS[rule]
            unknown = OFFSET + np.flatnonzero(layout.unknown_places(name))
            out[i, np.isin(level, unknown)] |= BITS["category"]
        names = layout.numeric + layout.category if self.rules else []
        for (name, rule, _), rows in zip(self.rules, self.broken, strict=True):
            if name in names:
                out[names.index(name), rows[here]] |= BITS[rule]
        return out
