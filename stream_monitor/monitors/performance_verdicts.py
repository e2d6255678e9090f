"""
Verdicts on windows of labelled rows: the level of accuracy, and labels, answers and scores that
contradict each other. `thresholds.py` has those of configured limits.

Rule of the file: it reads windows and never changes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from stream_monitor.alerts.wording import apart, labelled, number, percent
from stream_monitor.monitors.classes import Reading
from stream_monitor.monitors.level import Level, Loss, Z
from stream_monitor.monitors.performance_windows import PerformanceWindows
from stream_monitor.monitors.thresholds import MIN_LABELS, newest_rows
from stream_monitor.settings import ModelSettings, Severity, Threshold
from stream_monitor.stats.inference import wilson_interval
from stream_monitor.stats.metric_intervals import share_interval
from stream_monitor.verdicts import AlertKey, Span, Verdict

ACCURACY_USUAL = 0.8
"""An accuracy certainly below this is told, as `info`, until the model has a level of its own."""
CONTRADICTED_ROWS, CONTRADICTED_SHARE = 30, 0.9
NAMES_SHOWN = 5
NEED_POSITIVE = (
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "log_loss",
    "brier_score",
    "calibration_error",
)
"""Metrics whose meaning changes with the positive class, or with the task."""


def level_verdict(
    settings: ModelSettings,
    windows: PerformanceWindows,
    key: AlertKey,
    level: Level,
    until_ms: int | None = None,
) -> Iterator[Verdict]:
    """
    Without thresholds: accuracy against its level, and against guessing. Rows after `until_ms` are
    not mature (`maturity.py`).
    """
    window = newest_rows(settings)
    found, span = windows.window(window, "accuracy", until_ms)
    if "accuracy" not in found or span.count < MIN_LABELS:
        return
    value, limit, why = found["accuracy"], 0.0, ""
    now = Loss.of_metrics({"accuracy": value}, span.count)
    if level.loss is not None and now is not None:
        limit = 1 - level.limit(now, "classes")
        why = (
            f"its level was {percent(1 - level.loss.mean)} {_of_level(level)}"
            if value < limit
            else ""
        )
    unknown = level.loss is None and share_interval(value, span.count)[1] < ACCURACY_USUAL
    chance = windows.chance(window) if not why and value < 0.5 and until_ms is None else None
    if (
        chance is not None
        and (high := wilson_interval(value * span.count, span.count, Z)[1]) < chance[1]
        and (high < chance[0] or value == 0)
    ):
        limit, why = (
            chance[1],
            (
                "equal guesses among its classes would be right more often: are labels, answers "
                "or classes mixed up?"
            ),
        )
    severity: Severity = "warning"
    if unknown and not why:
        severity, limit, why = "info", ACCURACY_USUAL, "the level of this model is not known yet"
    said, bound = apart(value, limit, form=percent, digits=3)
    if why:
        sign = f"below the limit of {bound} ({why}; `thresholds.accuracy` sets another)"
    elif limit:
        sign = f"within the limit of {bound}"
    else:
        sign = "not certainly below any limit; the level of this model is not known yet"
    if level.loss is not None and not why:
        sign += f" (its level is {percent(1 - level.loss.mean)})"
    text = f"accuracy over {labelled(window, span.count)} is {said}, {sign}"
    back = limit if level.loss is None else (1 - level.loss.mean + limit) / 2
    yield _of_level_verdict(
        settings,
        key._replace(subject="accuracy"),
        value,
        limit,
        "down" if why else None,
        span,
        window,
        text,
        severity=severity,
        clear=not why and value >= back,
    )


def error_verdict(
    settings: ModelSettings,
    windows: PerformanceWindows,
    key: AlertKey,
    level: Level,
    _until_ms: int | None = None,
) -> Iterator[Verdict]:
    """Without thresholds: the mean absolute error of a regression against its level."""
    window = newest_rows(settings)
    if level.loss is None:
        return
    found, span = windows.window(window, "mae")
    now = Loss.of_metrics(found, span.count)
    if now is None or span.count < MIN_LABELS:
        return
    limit = level.limit(now, "numbers")
    worse = now.mean > limit
    said, bound = apart(now.mean, limit)
    level_was = f"its level was {number(level.loss.mean)} {_of_level(level)}"
    sign = (
        f"above the limit of {bound} ({level_was}; `thresholds.mae` sets another)"
        if worse
        else f"within the limit of {bound}"
    )
    text = f"mae over {labelled(window, span.count)} is {said}, {sign}"
    back = (level.loss.mean + limit) / 2
    yield _of_level_verdict(
        settings,
        key._replace(subject="mae"),
        now.mean,
        limit,
        "up" if worse else None,
        span,
        window,
        text,
        clear=now.mean <= back,
    )


def _of_level(level: Level) -> str:
    assert level.loss is not None
    return f"over {level.loss.rows:,.0f} rows{' of the baseline' if level.built else ''}"


def _of_level_verdict(
    settings: ModelSettings,
    key: AlertKey,
    value: float,
    limit: float,
    direction: Literal["up", "down"] | None,
    span: Span,
    window: str,
    text: str,
    *,
    clear: bool,
    severity: Severity = "warning",
) -> Verdict:
    """
    An alert ends half-way between limit and level, so that a value near the limit is one episode.
    """
    return Verdict(
        key=key,
        level=severity if direction else "ok",
        clear=clear,
        value=value,
        threshold=limit,
        direction=direction,
        window=span,
        summary=f"{key.title}: {text}",
        cooldown_ms=settings.cooldown_ms,
        evidence={"window": window, "labels": span.count, "guarantee": "none"},
    )


def contradiction_verdict(
    settings: ModelSettings, windows: PerformanceWindows, key: AlertKey
) -> Iterator[Verdict]:
    """Nearly every score of at least 0.5 has the answer of the other class."""
    window, reading = newest_rows(settings), windows.reading
    if reading is None:
        return
    found = windows.contradicted(window)
    rows, other = found or (0, 0)
    bad = rows >= CONTRADICTED_ROWS and other >= CONTRADICTED_SHARE * rows
    text = (
        f"{other:,} of {rows:,} answers with a score of 0.5 or more over {window} are not the "
        f"positive class `{reading.positive}` (found by: {reading.source})"
    )
    fine = "scores and answers go the same way"
    advice = "send the probability of that class as `score`, or set `positive_class`"
    yield Verdict(
        key=key._replace(kind="data_quality", subject="score_contradicts_prediction"),
        level="warning" if bad else "ok",
        clear=not bad,
        value=other / rows if rows else 0.0,
        threshold=CONTRADICTED_SHARE,
        direction="up",
        window=Span(0, 0, rows),
        summary=f"{key.title}: {f'{text}; {advice}' if bad else fine}",
        cooldown_ms=settings.cooldown_ms,
        evidence={"positive_class": reading.positive, "guarantee": "none"},
    )


def unexpected_verdict(
    settings: ModelSettings, windows: PerformanceWindows, key: AlertKey
) -> Iterator[Verdict]:
    """
    Verdict on classes beyond the two of a binary model, and on labels or answers of a regression
    that are not numbers.
    """
    window = newest_rows(settings)
    found, rows, span = windows.unexpected(window)
    shown = ", ".join(
        f"`{name}` ({n:,})"
        for name, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:NAMES_SHOWN]
    )
    if windows.reading is None:
        text = (
            f"{rows:,} of {span.count:,} labelled rows have a label or an answer that is no "
            "number; they are in no metric"
        )
    else:
        text = (
            f"unexpected class in {rows:,} of {span.count:,} labelled rows: {shown}; to a binary "
            "model it is neither class, and such rows count as wrong unless answer and label "
            "agree"
        )
    yield Verdict(
        key=key._replace(kind="data_quality", subject="unexpected_class"),
        level="info" if rows else "ok",
        clear=not rows,
        value=float(rows),
        threshold=0.0,
        direction="up",
        window=span,
        summary=f"{key.title}: {text if rows else 'no unexpected class'}",
        cooldown_ms=settings.cooldown_ms,
        evidence={"classes": found, "guarantee": "none"},
    )


class Change(msgspec.Struct):
    """A statement that is not true any more."""

    pairs: int
    """Labelled rows when it changed."""
    text: str
    concerned: bool
    """A configured threshold depends on it."""


class Told(msgspec.Struct):
    """
    The task and the positive class as they were reported, so that people are told of a change.
    """

    task: str = ""
    positive: str = ""
    changes: dict[str, Change] = {}
    """By subject."""

    def look(
        self,
        task: str | None,
        reading: Reading | None,
        pairs: int,
        thresholds: Mapping[str, Threshold],
    ) -> None:
        """Compare with what was reported; the first MIN_LABELS rows are only reported."""
        positive = reading.positive if reading is not None and reading.task == "binary" else ""
        concerned = any(metric in NEED_POSITIVE for metric in thresholds)
        if pairs >= MIN_LABELS and task and self.task and task != self.task:
            self.changes["task"] = Change(
                pairs,
                f"the task is {task} now, and was {self.task}: set `task` if this is wrong",
                concerned=bool(thresholds),
            )
        if (
            pairs >= MIN_LABELS
            and positive
            and self.positive
            and positive != self.positive
            and concerned
        ):
            source = reading.source if reading is not None else ""
            self.changes["positive_class"] = Change(
                pairs,
                f"the positive class is `{positive}` now (found by: {source}), and was "
                f"`{self.positive}`: set `positive_class`",
                concerned=True,
            )
        self.task, self.positive = task or self.task, positive or self.positive

    def verdicts(self, key: AlertKey, pairs: int, kept: int) -> Iterator[Verdict]:
        """An alert for each change, until as many rows came as are kept."""
        for subject, change in list(self.changes.items()):
            over = pairs - change.pairs >= kept
            if over:
                del self.changes[subject]
            also = "; thresholds mean the new one from here on" if change.concerned else ""
            yield Verdict(
                key=key._replace(subject=subject),
                level="ok" if over else "warning" if change.concerned else "info",
                clear=over,
                value=1.0 - over,
                threshold=0.0,
                direction="up",
                window=Span(0, 0, pairs),
                summary=f"{key.title}: {change.text}{also}",
                evidence={"labels": change.pairs, "guarantee": "none"},
            )
