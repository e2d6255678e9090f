"""
What goes into the join, and what comes out: rows in columns.

Rule of the file: values only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int


class Predictions(NamedTuple):
    """
    Rows of predictions; `row` is the place in the record, `version` the code of (model, version),
    `segment` that of the combination of segments.
    """

    row: Int
    id: NDArray[np.uint64]
    time: Int
    version: Int
    outcome: Float
    score: Float
    segment: Int
    probabilities: Float
    """(n, classes), NaN if unknown; (n, 0) if no event has class scores."""
    failed: NDArray[np.bool_]

    def at(self, index: Any) -> Predictions:
        """The rows at an index of numpy: a slice, a mask, or places."""
        return Predictions(*(c[index] for c in self))

    @classmethod
    def empty(cls) -> Predictions:
        """No rows."""
        whole, real = np.empty(0, np.int64), np.empty(0)
        return cls(
            row=whole,
            id=np.empty(0, np.uint64),
            time=whole,
            version=whole,
            outcome=real,
            score=real,
            segment=whole,
            probabilities=np.empty((0, 0)),
            failed=np.empty(0, bool),
        )


class LabelRows(NamedTuple):
    """
    Rows of labels; `model` and `version` are codes or ANY. `own` is the version of the prediction
    that the label brings along, -1 without one.
    """

    row: Int
    id: NDArray[np.uint64]
    model: Int
    version: Int
    label: Float
    time: Int
    partition: Int
    offset: Int
    own: Int
    outcome: Float
    score: Float
    probabilities: Float

    def at(self, index: Any) -> LabelRows:
        """The rows at an index of numpy: a slice, a mask, or places."""
        return LabelRows(*(c[index] for c in self))

    @classmethod
    def empty(cls) -> LabelRows:
        """No rows."""
        whole, real = np.empty(0, np.int64), np.empty(0)
        return cls(
            row=whole,
            id=np.empty(0, np.uint64),
            model=whole,
            version=whole,
            label=real,
            time=whole,
            partition=whole,
            offset=whole,
            own=whole,
            outcome=real,
            score=real,
            probabilities=np.empty((0, 0)),
        )


class Pairs(NamedTuple):
    """
    Predictions that got their label, or another one.

    `previous` is NaN for a first label, otherwise the cell of the label before.
    """

    row: Int
    version: Int
    id: NDArray[np.uint64]
    time: Int
    outcome: Float
    score: Float
    segment: Int
    probabilities: Float
    label: Float
    label_time: Int
    previous: Float
    corrected: NDArray[np.bool_]
    origin: Int
    """Where the label came from: its partition and offset, as one number (`origins.py`)."""

    def at(self, index: Any) -> Pairs:
        """The rows at an index of numpy: a slice, a mask, or places."""
        return Pairs(*(c[index] for c in self))


class Joined(NamedTuple):
    duplicate: NDArray[np.bool_]
    """For each row of predictions: whether it was there before."""
    pairs: list[Pairs]
    outcomes: dict[str, int]
    """Labels by outcome: matched, corrected, superseded, duplicate, evicted."""
