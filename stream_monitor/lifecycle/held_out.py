"""
Matched rows as numbers: classes as codes, and what each model said in the form a metric needs.

Rule of the file: a metric needs an answer, a number or a probability from each model for each
labelled row. One that is missing is an error, because a model could leave out what it does badly.
The positive class is told, or known by its name, and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.errors import InputError
from stream_monitor.lifecycle.matched_metrics import METRICS, Said, Truth
from stream_monitor.lifecycle.prediction_files import Answers, Matched, class_of, number_of
from stream_monitor.monitors.classes import named_positive

CLASSES_MAX = 256
NEGATIVE_NAMES = ("0", "-1", "no", "n", "negative", "neg")
HALF = 0.5
"""A model without answers says the positive class from this score on."""


def answered(
    metric: str, rows: Matched, positive_class: str | None = None
) -> tuple[Truth, tuple[Said, ...]]:
    """
    Labels and what each model said about them.

    Parameters
    ----------
    metric : str
        A name in `METRICS`.
    rows : Matched
    positive_class : str or None
        None: known by its name.

    Raises
    ------
    InputError
        A column or a value that the metric needs is missing or of the wrong kind, or the positive
        class is not known.

    Examples
    --------
    >>> model = Answers(["no", "yes"], None, None, "a.csv")
    >>> truth, (said,) = answered("f1", Matched(["yes", "yes"], (model,), None, {}, 0))
    >>> truth.code.tolist(), truth.positive, said.code.tolist()
    ([1, 1], 1, [0, 1])
    """
    codes: dict[str, int] = {}
    if METRICS[metric].needs == "number":
        number = _numbers("label", rows.label, "labels", metric)
        truth = Truth(np.zeros(len(number), np.int64), number, -1, 0)
    else:
        truth, codes = _classes(metric, rows, positive_class)
    return truth, tuple(_said(metric, model, truth, codes) for model in rows.models)


def _classes(
    metric: str, rows: Matched, positive_class: str | None
) -> tuple[Truth, dict[str, int]]:
    """The classes of the labels, with a code for each class of labels or answers."""
    needs = METRICS[metric].needs
    labels = [str(class_of(v)) for v in rows.label]
    found = set(labels)
    if needs == "class":
        said = (class_of(v) for model in rows.models for v in model.prediction or ())
        found |= {c for c in said if c is not None}
    if len(found) > CLASSES_MAX:
        raise InputError(
            f"{metric}: {len(found):,} classes; expected up to {CLASSES_MAX}, or a metric of "
            "numbers such as absolute_error"
        )
    codes = {name: code for code, name in enumerate(sorted(found))}
    by_score = needs != "class" or any(model.prediction is None for model in rows.models)
    positive = _positive(metric, list(codes), class_of(positive_class), by_score=by_score)
    code = np.array([codes[v] for v in labels], np.int64)
    return Truth(code, np.full(len(code), np.nan), positive, len(codes)), codes


def _positive(metric: str, classes: list[str], told: str | None, *, by_score: bool) -> int:
    """Code of the positive class, one more than all codes if it does not occur; -1: none is."""
    if told is not None:
        if told not in classes and len(classes) > 1:
            raise InputError(
                f"positive class {told!r} does not occur; classes are {', '.join(classes[:5])}"
            )
        return classes.index(told) if told in classes else len(classes)
    if len(classes) < 2:
        if not classes or named_positive(classes[0], ""):
            return 0
        if classes[0].lower() in NEGATIVE_NAMES or not by_score:
            return len(classes)
    if len(classes) == 2:
        for code, name in enumerate(classes):
            if named_positive(name, classes[1 - code]):
                return code
    if by_score or (len(classes) == 2 and metric in ("precision", "recall", "f1")):
        raise InputError(
            f"{metric}: which class is positive is not known; classes are "
            f"{', '.join(classes[:5])}: set `positive_class`, or give --positive"
        )
    return -1


def _said(metric: str, model: Answers, truth: Truth, codes: Mapping[str, int]) -> Said:
    n, needs = len(truth.code), METRICS[metric].needs
    code, number, score = np.full(n, -1, np.int64), np.full(n, np.nan), np.full(n, np.nan)
    if needs == "number":
        number = _numbers(model.name, model.prediction, "prediction", metric)
    elif needs == "class" and model.prediction is not None:
        found = [class_of(v) for v in model.prediction]
        _check_all(model.name, "prediction", found)
        code = np.array([codes[str(v)] for v in found], np.int64)
    else:
        score = _numbers(model.name, model.score, "score", metric)
        if needs != "score" and n and not 0 <= score.min() <= score.max() <= 1:
            raise InputError(
                f"{model.name}: scores go from {score.min():g} to {score.max():g}; {metric} needs "
                "probabilities"
            )
        others = [c for c in codes.values() if c != truth.positive]
        code = np.where(score >= HALF, truth.positive, others[0] if len(others) == 1 else -1)
    return Said(code, number, score)


def _numbers(name: str, values: list[Any] | None, field: str, metric: str) -> Float:
    if values is None:
        raise InputError(f"{name}: no column `{field}`; {metric} needs it")
    _check_all(name, field, values)
    found = np.array([number_of(v) for v in values], np.float64)
    if not np.isfinite(found).all():
        bad = values[int((~np.isfinite(found)).argmax())]
        raise InputError(f"{name}: {field} {bad!r} is not a number; {metric} needs numbers")
    return found


def _check_all(name: str, field: str, values: list[Any]) -> None:
    missing = values.count(None)
    if missing:
        raise InputError(
            f"{name}: {missing:,} labelled rows have no {field}: write one for each row, or leave "
            "these rows out of all files"
        )
