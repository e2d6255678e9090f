"""
Does performance fall slowly? Straight lines through each metric of the newest blocks of labelled
rows.

Rule of the file: the log alone cuts the blocks, so the trend does not depend on how rows arrived. A
trend lasts until its metric is back at the level from which it fell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.alerts.wording import apart, number
from stream_monitor.arrays import Float
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.context import Context
from stream_monitor.settings import Anomalies
from stream_monitor.stats.block_metrics import (
    NUMBERS,
    class_metrics,
    jackknife_error,
    line_weights,
    r2,
    scatter_error,
)
from stream_monitor.stats.student import student_p
from stream_monitor.verdicts import Span, Verdict

GROUPS = 5
"""Groups of rows in a block; each is left out once for the standard error."""
LOOK_ALPHA = 1e-4
"""
Chance of a false trend at one look, of all metrics of a model version together (Bonferroni): by the
quantile of Student's t with the degrees of freedom of the jackknife, 40 for ten blocks.
"""
SCATTER_Z, SCATTER_Z_R2 = 3.0, 9.0
"""
It must also be beyond so many standard errors of the scatter of the blocks around the line, which
is larger if blocks differ by more than the rows in them do. Few rows may decide an R², and ten
blocks leave 8 degrees of freedom: beyond 9 is 1 of 100,000.
"""
SUPPORT_MIN = 20
"""
Rows of each block that the precision (predicted so), recall (labelled so) or F1 of a class is of.
"""
TREND_ENDS = 3
"""Blocks of which the mean is what a trend falls from, and whether it is back."""


class Blocks(msgspec.Struct):
    """The state of a trend."""

    found: int = 0
    """Number of falling trends so far."""
    group: Float = msgspec.field(default_factory=lambda: np.zeros(0))
    """
    Sums of the labelled rows since the last group: hits, answers and labels by class, (3, classes);
    or the sums of a regression, (4,).
    """
    groups: list[Float] = []
    """Sums of the newest whole groups, oldest first."""
    fell_from: dict[str, float] = {}
    """By metric that fell: the level from which it did, until it is back there."""


class Line(NamedTuple):
    """A metric of the newest blocks."""

    values: Float
    rise: float
    """Of a straight line, from the first block to the last."""
    error: float
    """Standard error of the rise."""
    steep: bool
    """The rise is beyond chance, and downwards."""


class Trend:
    """
    The trends of the performance of one model version.

    Parameters
    ----------
    anomalies : Anomalies
        `trend_windows` and `trend_slope` are used.

    Notes
    -----
    State is at most 5 groups a block, with three numbers a class. A look takes about a millisecond.
    """

    def __init__(self, anomalies: Anomalies) -> None:
        self.anomalies = anomalies
        self.state = Blocks()
        self.lines: dict[str, Line] = {}
        """By metric, at the last look; they follow from the state."""

    def begin_anew(self) -> None:
        """Forget the blocks, because they are of other metrics. The count of trends stays."""
        self.state, self.lines = Blocks(self.state.found), {}

    def add_classes(self, answers: Float, labels: Float) -> None:
        """Add codes of answers (negative: of no class) and of labels."""
        if not len(labels):
            return
        state, right = self.state, answers == labels
        classes = 1 + int(max(answers.max(), labels.max()))
        if state.group.ndim != 2 or state.group.shape[1] < classes:
            before, state.group = state.group.reshape(3, -1), np.zeros((3, classes))
            state.group[:, : before.shape[1]] = before
        classes = state.group.shape[1]
        for i, codes in enumerate((labels[right], answers[answers >= 0], labels)):
            state.group[i] += np.bincount(codes.astype(np.int64), minlength=classes)

    def add_numbers(self, errors: Float, labels: Float) -> None:
        """Add the absolute errors of a regression, and the labels that they are of."""
        if not len(self.state.group):
            self.state.group = np.zeros(NUMBERS)
        with np.errstate(over="ignore", invalid="ignore"):
            self.state.group += (
                len(labels),
                (errors**2).sum(),
                labels.sum(),
                (labels * labels).sum(),
            )

    def close_group(self) -> None:
        """A group of rows is complete."""
        state = self.state
        state.groups = [*state.groups, state.group][-GROUPS * self.anomalies.trend_windows :]
        state.group = np.zeros(0)

    def look(self, reading: Reading | None, *, macro: bool) -> None:
        """
        A block is complete: look at the lines of all metrics.

        Parameters
        ----------
        reading : Reading or None
            How classes are read now; None: a regression.
        macro : bool
            How several classes are averaged.
        """
        state, slope = self.state, self.anomalies.trend_slope
        metrics = self._metrics(reading, macro=macro)
        self.lines = {
            name: _line(*of, len(metrics), told=name in state.fell_from)
            for name, of in metrics.items()
        }
        for name, line in self.lines.items():
            first, last = line.values[:TREND_ENDS].mean(), line.values[-TREND_ENDS:].mean()
            before = state.fell_from.get(name)
            if line.rise < slope and line.steep:
                state.found += before is None
                state.fell_from[name] = float(first if before is None else max(first, before))
            elif before is not None and last >= before + min(slope, 0.0) / 2:
                del state.fell_from[name]

    def _metrics(self, reading: Reading | None, *, macro: bool) -> dict[str, tuple[Float, Float]]:
        """
        By metric that is known in all blocks: its values, and those without one group of the block,
        (blocks, groups). Empty while there are too few blocks.
        """
        n, groups = self.anomalies.trend_windows, self.state.groups
        if len(groups) < GROUPS * n or not all(map(len, groups)):
            return {}
        if reading is None:
            sums: Float = np.stack(groups).reshape(n, GROUPS, NUMBERS)
        else:
            classes = max(1 + reading.positive_code, *(g.shape[1] for g in groups))
            wide = np.zeros((len(groups), 3, classes))
            for at, group in zip(wide, groups, strict=True):
                at[:, : group.shape[1]] = group
            sums = wide.reshape(n, GROUPS, 3, classes)
        whole = sums.sum(axis=1)
        both = np.concatenate([whole[:, None], whole[:, None] - sums], axis=1)
        binary = reading is not None and reading.task == "binary"
        positive = reading.positive_code if reading is not None and binary else None
        metrics = (
            {"r2": r2(both)} if reading is None else class_metrics(both, positive, macro=macro)
        )
        found = {name: (of[:, 0], of[:, 1:]) for name, of in metrics.items()}
        if positive is not None and positive >= 0:
            _, answers, labels = whole[:, :, positive].min(axis=0)
            least = {"precision": answers, "recall": labels, "f1": min(answers, labels)}
            found = {k: v for k, v in found.items() if least.get(k, np.inf) >= SUPPORT_MIN}
        return {
            name: of
            for name, of in found.items()
            if np.isfinite(of[0]).all() and (np.isfinite(of[1]).sum(axis=1) > 1).all()
        }

    def verdicts(self, context: Context, span: Span) -> Iterator[Verdict]:
        """
        Whether each metric falls, by the last look.

        Parameters
        ----------
        context : Context
        span : Span
            The last block.
        """
        for name, line in self.lines.items():
            yield self._verdict(context, name, line, span)

    def _verdict(self, context: Context, name: str, line: Line, span: Span) -> Verdict:
        slope, fell_from = min(self.anomalies.trend_slope, 0.0), self.state.fell_from.get(name)
        key = context.key("anomaly", name, "trend")
        now, before = float(line.values[-1]), float(line.values[0])
        if fell_from is not None:
            before = fell_from
        said, was = apart(now, before, digits=3)
        text = f"over the last {span.count:,} labelled predictions is {said}"
        text += (
            "; it is not falling any more"
            if fell_from is None
            else f" and was {was} before it fell, by more than {number(-slope)} along "
            f"{len(line.values)} such blocks (anomalies.trend_slope)"
        )
        return Verdict(
            key=key,
            level="ok" if fell_from is None else "warning",
            clear=fell_from is None,
            value=now,
            threshold=before + slope / 2,
            direction="down",
            window=span,
            summary=f"{key.title}: {name} {text}",
            cooldown_ms=context.settings.cooldown_ms,
            evidence={
                "windows": [round(v, 6) for v in line.values.tolist()],
                "rise": round(line.rise, 6),
                "standard_error": round(line.error, 6),
                "guarantee": "none",
            },
        )


def _line(values: Float, without: Float, metrics: int, *, told: bool) -> Line:
    """
    The line of one of so many metrics; an R² is alone.

    Its error costs most, so it is left out (0) where nobody was `told` and nothing seems to fall.
    """
    rise, scatter = float(line_weights(len(values)) @ values), scatter_error(values)
    steep = rise < -(SCATTER_Z_R2 if metrics == 1 else SCATTER_Z) * scatter
    if not (steep or told):
        return Line(values, rise, 0.0, steep)
    groups = np.isfinite(without).sum(axis=1)
    error = jackknife_error(values, without, groups)
    if steep and error:
        degrees = int((groups - 1).sum())
        steep = student_p(rise / error, degrees) / 2 < LOOK_ALPHA / metrics
    return Line(values, rise, error, steep)
