"""
Rows as outcomes: values of calls, or of their labels, for the arm that served them.

Rule of the file: pure functions of columns; NaN if there is no outcome. Values are rounded, so sums
do not depend on the order of rows until they are very great.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int, are_numbers
from stream_monitor.events.cells import (
    ABSENT_CELL,
    BOOL,
    TEXT,
    Cells,
    class_text,
    tags,
)
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.grouping import different
from stream_monitor.experiments.measures import OF_CALLS, Outcome
from stream_monitor.experiments.violations import breaks_a_rule
from stream_monitor.join.rows import Pairs
from stream_monitor.monitors.performance_kind import is_number
from stream_monitor.monitors.rows import Rows, category_of
from stream_monitor.monitors.version import Version
from stream_monitor.settings import Feature

QUANTUM, LOG_QUANTUM = 2.0**-20, 2.0**-10
"""A logarithm is rounded to a thousandth, so that sums of squares of 75,000 units are exact."""
NUMBERS = frozenset(("latency_ms", "score", "prediction"))
"""Metrics that are a column of every event."""
LEAST_MS = 1e-3
"""A logarithm needs a value above 0: faster calls count as this."""


def of_calls(outcome: Outcome, rows: Rows, failed: Bool, rules: Mapping[str, Feature]) -> Float:
    """
    Values of an outcome that is known when a call is answered.

    `error` is 1 for a failed call and 0 for an answered one, `violations` 1 for input that breaks
    one of the rules of the model. Any other name is a number of the event: `latency_ms`, `score`,
    `prediction` or a feature. Failed calls have neither of these.
    """
    if outcome.metric == "error":
        return failed.astype(np.float64)
    if outcome.metric == "violations":
        return np.where(failed, np.nan, breaks_a_rule(rows, rules))
    name = outcome.field or (
        outcome.metric if outcome.metric in OF_CALLS else feature_column(outcome.metric)
    )
    if name not in rows.columns:
        return np.full(len(failed), np.nan)
    found = _numbers(rows.cells[rows.columns.index(name)], rows.texts)
    return _ready(outcome, np.where(failed, np.nan, found))


def feature_column(metric: str) -> str:
    """
    The column of a metric that is a feature, with the prefix or without it.

    >>> feature_column("spent"), feature_column("features.spent")
    ('features.spent', 'features.spent')
    """
    return metric if metric.startswith("features.") else f"features.{metric}"


def of_labels(outcome: Outcome, pairs: Pairs, texts: list[str]) -> Float:
    """
    Values of an outcome that needs the label.

    `accuracy` and `error_rate` compare the class that was answered (without an answer: a score of
    0.5 or more is class 1) with that of the label; `label` is its number, for what a call earned;
    `absolute_error` and `squared_error` are those of a regression, `brier` of a score.
    """
    if outcome.is_share:
        right = _is_right(pairs, texts)
        return right if outcome.metric == "accuracy" else 1 - right
    label = _numbers(pairs.label, texts)
    if outcome.metric == "label":
        return _ready(outcome, label)
    if outcome.metric == "brier":
        return _ready(outcome, (pairs.score - label) ** 2)
    away = np.abs(_numbers(pairs.outcome, texts) - label)
    return _ready(outcome, away if outcome.metric == "absolute_error" else away**2)


def fails(outcome: Outcome, values: Float) -> Bool:
    """Which values are failures in the race of an outcome; a call without a value is none."""
    if outcome.above is not None:
        return np.asarray(values > outcome.above)
    return np.asarray(values == 1 if outcome.below is None else values < outcome.below)


def _numbers(cells: Cells, texts: list[str]) -> Float:
    """
    Cells as numbers: also numbers in texts, and booleans as 0 and 1; NaN if there is none.

    >>> from stream_monitor.events.cells import TEXT, TRUE_CELL, boxed
    >>> texts = ["1", "0.5", "False", "no"]
    >>> _numbers(np.array([2.0, TRUE_CELL, *(boxed(TEXT, i) for i in range(4))]), texts).tolist()
    [2.0, 1.0, 1.0, 0.5, 0.0, nan]
    """
    known = are_numbers(cells)
    if known.all():
        return cells
    out: Float = np.where(known, cells, np.nan)
    tag = tags(cells)
    named = np.flatnonzero((tag == TEXT) | (tag == BOOL))
    once, place = different(cells[named].view(np.uint64))
    names = [class_text(c, texts) or "" for c in once.view(np.float64).tolist()]
    out[named] = np.array([float(n) if is_number(n) else np.nan for n in names])[place]
    return out


def _ready(outcome: Outcome, values: Float) -> Float:
    """
    Values that are capped, turned into logarithms if the scale is `log`, and rounded. Those of a
    race are not added up, and stay as they are.
    """
    out = np.where(np.isfinite(values), values, np.nan)
    if outcome.is_race:
        return out
    if outcome.cap is not None:
        out = np.minimum(out, outcome.cap)
    quantum = QUANTUM
    if outcome.is_log:
        out, quantum = np.log(np.maximum(out, LEAST_MS)), LOG_QUANTUM
    found: Float = np.rint(out / quantum) * quantum
    return found


def _is_right(pairs: Pairs, texts: list[str]) -> Float:
    answered = pairs.outcome.copy()
    by_score = (answered.view(np.uint64) == np.array([ABSENT_CELL]).view(np.uint64)[0]) & (
        pairs.score == pairs.score
    )
    answered[by_score] = pairs.score[by_score] >= 0.5
    answers, labels = _class_codes(answered, pairs.label, texts)
    known = (answers >= 0) & (labels >= 0)
    return np.where(known, (answers == labels).astype(np.float64), np.nan)


def _class_codes(first: Float, other: Float, texts: list[str]) -> tuple[Int, Int]:
    """Both as codes of classes, however they are spelled; -1 for a value that is not a class."""
    cells, place = different(np.concatenate([first, other]).view(np.uint64))
    codes: dict[str, int] = {}
    found = np.array(
        [
            -1 if (name := class_text(cell, texts)) is None else codes.setdefault(name, len(codes))
            for cell in cells.view(np.float64).tolist()
        ],
        np.int64,
    )[place]
    return found[: len(first)], found[len(first) :]


def columns_of(definition: Definition) -> set[str] | None:
    """What `arms_of`, `of_calls` and the unit of a call read; None: every column."""
    found = {"unit", "variant"}
    for outcome in (*definition.outcomes, *definition.races):
        if outcome.field is not None:
            found.add(outcome.field)
        elif outcome.metric in NUMBERS or outcome.metric.startswith("features."):
            found.add(outcome.metric)
        elif outcome.metric != "error" and not outcome.needs_label:
            return None
    return found


def arms_of(definition: Definition, rows: Rows, version: Int, versions: Sequence[Version]) -> Int:
    """
    The arm of each row, -1 if it has none.

    A `variant` names the arm. A row without one belongs to the arm of its version, if the
    experiment names versions.

    Parameters
    ----------
    definition : Definition
    rows : Rows
    version : (n,) int64
        Code of the version of each row.
    versions : sequence of Version
        Versions of the shard, by code.
    """
    by_version = {a.version: i for i, a in enumerate(definition.arms) if a.version is not None}
    by_name = {a.name: i for i, a in enumerate(definition.arms)}
    out: Int = np.full(len(version), -1)
    if by_version:
        codes, place = np.unique(version, return_inverse=True)
        out = np.array([by_version.get(versions[c].name, -1) for c in codes.tolist()])[place]
    if "variant" in rows.columns:
        cells: NDArray[np.uint64] = rows.cells[rows.columns.index("variant")].view(np.uint64)
        once, place = different(cells)
        variants = [category_of(c, rows.texts) for c in once.view(np.float64).tolist()]
        arms = np.array([-1 if v is None else by_name.get(v, -1) for v in variants])[place]
        named = np.array([v is not None for v in variants])
        out = arms if named.all() else np.where(named[place], arms, out)
    return out
