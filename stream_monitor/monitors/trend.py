"""
Does performance fall slowly? A straight line through its newest blocks of labelled rows.

Rule of the file: the log alone cuts the blocks, so the trend does not depend on how rows arrived. A
trend lasts until performance is back at the level from which it fell.
"""

from __future__ import annotations

import msgspec
import numpy as np

from stream_monitor.alerts.wording import apart, number
from stream_monitor.arrays import Float
from stream_monitor.settings import Anomalies
from stream_monitor.verdicts import AlertKey, Span, Verdict

TREND_Z, TREND_Z_R2 = 3.0, 9.0
"""
A falling trend is beyond so many of its standard errors, which come from the scatter of the windows
around the line. An accuracy must also fall by far more than chance does; an R² may scatter by as
much, and ten windows leave 8 degrees of freedom: beyond 9 in 1 of 100,000.
"""
TREND_ENDS = 3
"""Blocks of which the mean is what a trend falls from, and whether it is back."""


class Blocks(msgspec.Struct):
    """The state of a trend."""

    found: int = 0
    """Number of falling trends so far."""
    block: Float = msgspec.field(default_factory=lambda: np.zeros(4))
    """
    Sums of the labelled rows since the last block: rows and right ones, or rows, squared errors,
    labels and their squares.
    """
    blocks: list[float] = []
    fell_from: float | None = None
    """The level from which a trend fell, until it is back there."""


class Trend:
    """
    The trend of the performance of one model version.

    Parameters
    ----------
    anomalies : Anomalies
        `trend_windows` and `trend_slope` are used.
    """

    def __init__(self, anomalies: Anomalies) -> None:
        self.anomalies = anomalies
        self.state = Blocks()

    def begin_anew(self) -> None:
        """Forget the blocks, because they are of another metric. The count of trends stays."""
        self.state = Blocks(self.state.found)

    @property
    def is_full(self) -> bool:
        """There are as many blocks as the line goes through."""
        return len(self.state.blocks) == self.anomalies.trend_windows

    def add_errors(self, errors: Float) -> None:
        """Add errors of answers, 0 if they are right."""
        self.state.block[:2] += len(errors), int((errors == 0).sum())

    def add_numbers(self, errors: Float, labels: Float) -> None:
        """Count the absolute errors of a regression, and the labels that they are of."""
        with np.errstate(over="ignore", invalid="ignore"):
            self.state.block += (
                len(labels),
                (errors**2).sum(),
                labels.sum(),
                (labels * labels).sum(),
            )

    def close_block(self, *, regression: bool) -> None:
        """Add a block to the trend: its accuracy, or the R² of a regression."""
        state = self.state
        n, hits, y, y2 = state.block.tolist()
        state.block = np.zeros(4)
        spread = y2 - y * y / max(n, 1)
        if not regression and n:
            state.blocks.append(hits / n)
        elif n and spread > 0:
            state.blocks.append(1 - hits / spread)
        state.blocks = state.blocks[-self.anomalies.trend_windows :]
        if self.is_full:
            slope, (rise, error) = self.anomalies.trend_slope, trend(state.blocks)
            first, last = (
                sum(blocks) / TREND_ENDS
                for blocks in (state.blocks[:TREND_ENDS], state.blocks[-TREND_ENDS:])
            )
            if rise < min(slope, -(TREND_Z_R2 if regression else TREND_Z) * error):
                state.found += state.fell_from is None
                state.fell_from = max(first, first if state.fell_from is None else state.fell_from)
            elif state.fell_from is not None and last >= state.fell_from + min(slope, 0.0) / 2:
                state.fell_from = None

    def verdict(self, key: AlertKey, span: Span, cooldown_ms: int) -> Verdict:
        """
        Whether performance falls; there must be blocks.

        Parameters
        ----------
        key : AlertKey
            Its subject is the metric.
        span : Span
            The last block.
        cooldown_ms : int, ms
        """
        state, slope = self.state, min(self.anomalies.trend_slope, 0.0)
        falling = state.fell_from is not None
        now, before = state.blocks[-1], state.blocks[0]
        if state.fell_from is not None:
            before = state.fell_from
        said, was = apart(now, before, digits=3)
        text = f"over the last {span.count:,} labelled predictions is {said}"
        text += (
            (
                f" and was {was} before it fell, by more than {number(-slope)} along "
                f"{len(state.blocks)} such blocks (anomalies.trend_slope)"
            )
            if falling
            else "; it is not falling any more"
        )
        return Verdict(
            key=key,
            level="warning" if falling else "ok",
            clear=not falling,
            value=now,
            threshold=before + slope / 2,
            direction="down",
            window=span,
            summary=f"{key.title}: {key.subject} {text}",
            cooldown_ms=cooldown_ms,
            evidence={"windows": [round(b, 6) for b in state.blocks], "guarantee": "none"},
        )


def trend(values: list[float]) -> tuple[float, float]:
    """
    The rise of a straight line through at least three values, from the first to the last, and its
    standard error. It is the least-squares slope times their number less one.

    Examples
    --------
    >>> [round(v, 6) for v in trend([0.9, 0.88, 0.86, 0.84])]
    [-0.06, 0.0]
    """
    n = len(values)
    x, y = np.arange(n) - (n - 1) / 2, np.array(values)
    squares = float(x @ x)
    slope = float(x @ y) / squares
    rest = y - y.mean() - slope * x
    return slope * (n - 1), float(np.sqrt(rest @ rest / max(n - 2, 1) / squares)) * (n - 1)
