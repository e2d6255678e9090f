"""
What detectors get of labelled rows: errors, and scores with their labels.

Rule of the file: rows go to the detectors on counts a record at a time, because what these cost is
mostly per call. Thresholds are looked at where a stride is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.monitors.calibration import Scored, residuals, scores
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.containment import Judge
from stream_monitor.monitors.due import of_estimate
from stream_monitor.monitors.judged import Judged
from stream_monitor.monitors.late_errors import Told, joined
from stream_monitor.monitors.performance import Performance, Stride
from stream_monitor.monitors.signals import ERRORS

if TYPE_CHECKING:
    from stream_monitor.monitors.version import Version


ScoredPart = tuple[Judged, Bool, Reading | None]
"""Judged rows, which of them are first labels, and how classes are read."""


def take_in(version: Version, strides: Iterable[Stride], judge: Judge) -> None:
    """The errors of `Performance.add`, stride by stride, and what was scored along with them."""
    told: list[tuple[Told, bool]] = []
    by_segment: list[Bool] = []  # segments pause while rows wait
    for errors, times, origin, due in strides:
        rows = Told(errors, times, origin)
        if version.performance.task == "regression":
            told.append((rows, False))
        else:
            version.contained.run("drift", _in_turn, version, rows, told, by_segment, due=due)
        by_segment.append(np.full(len(errors), not version.errors.late.waits))
        _watch_errors(version, errors, times)
        if due:
            for verdict in version.performance.verdicts(version.context, due=True):
                judge(verdict)
            if version.estimate.checked.state.turned:
                version.contained.judge("estimate", of_estimate(version), judge)
    _tell(version, told)
    sliced, version.sliced_errors = version.sliced_errors, []
    told_rows: Bool = np.concatenate([*by_segment, np.empty(0, np.bool_)])
    for judged, each, kind in sliced:
        if kind == "classes":
            known = np.flatnonzero(~np.isnan(each))
            here, told_rows = told_rows[: len(known)], told_rows[len(known) :]
            each[known[~here]] = np.nan
        version.contained.run("drift", version.errors.add_by_segment, judged, each, kind)
    scored, version.scored = version.scored, []
    if scored:
        of = version.performance
        found = [each for part in _joined(scored) for each in scored_rows(of, *part)]
        version.contained.run("drift", version.calibration.add, found)


def _in_turn(
    version: Version,
    rows: Told,
    told: list[tuple[Told, bool]],
    by_segment: list[Bool],
    *,
    due: bool,
) -> None:
    """Append rows to those that are `told`, now or when they are mature."""
    maturity = version.performance.maturity
    if version.errors.late.waits != maturity.depends:
        _tell(version, told)
        waited, anew = version.errors.turn(maturity)
        told[:] = [] if waited is None else [(waited, True)]
        by_segment[:] = [each & (not anew) for each in by_segment]
    if (ready := version.errors.ready(rows, maturity, due=due)) is not None:
        told.append((ready, True))


def _tell(version: Version, told: list[tuple[Told, bool]]) -> None:
    """Errors go to the detector on counts, neighbours of one kind together."""
    for binary, alike in groupby(told, key=itemgetter(1)):
        rows = joined([rows for rows, _ in alike])
        version.contained.run("drift", version.errors.add, *rows, binary=binary)


def _joined(parts: list[ScoredPart]) -> Iterator[ScoredPart]:
    """Neighbours whose classes are read alike as one part; only what scores need is joined."""
    for (live, _), group in groupby(parts, key=lambda p: (p[2], p[0].probabilities.shape[1])):
        of = list(group)
        joined = {
            name: np.concatenate([getattr(rows, name) for rows, _, _ in of])
            for name in ("time", "predicted", "actual", "score", "probabilities", "origin")
        }
        yield of[0][0]._replace(**joined), np.concatenate([first for _, first, _ in of]), live


def scored_rows(of: Performance, rows: Judged, first: Bool, live: Reading | None) -> list[Scored]:
    """The first labels among judged rows, with their scores."""
    if of.kind == "numbers":
        return residuals(rows, first)
    columns = {column: of.classes[name] for name, column in of.score_classes.items()}
    return scores(rows, first, live, columns)


def _watch_errors(version: Version, errors: Float, times_ms: Int) -> None:
    signals, regression = version.signals, version.performance.task == "regression"
    if not signals.has_detectors(ERRORS, None):
        return
    values = signals.standardised(errors) if regression else errors
    if len(values):  # the first errors of a regression only make its scale
        times_ms = times_ms[len(times_ms) - len(values) :]
        binary = not regression
        version.contained.run("drift", signals.feed, ERRORS, values, times_ms, binary=binary)
