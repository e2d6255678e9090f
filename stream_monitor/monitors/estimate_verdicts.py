"""
What is told of metrics that are estimated without labels: that labels contradict them, and their
limits.

Rule of the file: an estimate that is not valid is no number to judge. It says so once, and limits
on it wait until it is valid again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stream_monitor.alerts.wording import number, percent
from stream_monitor.metrics.samples import Sample
from stream_monitor.monitors.checked import TOLERANCE, Contradicted
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.estimate import Estimate
from stream_monitor.monitors.thresholds import ESTIMATED, Look, newest_rows, of_threshold
from stream_monitor.settings import Threshold
from stream_monitor.verdicts import Span, Verdict
from stream_monitor.windows.names import last_n


def estimate_verdicts(context: Context, estimate: Estimate, end_ms: int) -> Iterator[Verdict]:
    """Whether labels contradict the estimate, and the thresholds on it; `end_ms` is event time."""
    if estimate.performance.kind != "classes" or not estimate.performance.pairs:
        return
    known = estimate.performance.maturity.is_known
    yield _validity(context, estimate.checked.state.contradicted, known=known)
    for metric, rule in context.settings.thresholds.items():
        if metric.startswith(ESTIMATED):
            yield from _limit(context, estimate, end_ms, metric, rule)


def _validity(context: Context, found: Contradicted | None, *, known: bool) -> Verdict:
    """
    While it is not `known` how late labels come, late ones may be the reason. That labels fell has
    alerts of its own, so this is a warning only where a limit on an estimate is off meanwhile.
    """
    key = context.key("calibration", "estimated_accuracy", "estimate")
    difference = 0.0 if found is None else found.found - found.expected
    limited = difference < 0 and any(m.startswith(ESTIMATED) for m in context.settings.thresholds)
    text = (
        "the estimate of accuracy without labels agrees with the labels"
        if found is None
        else f"the estimate of accuracy without labels is not valid: scores promised "
        f"{percent(found.expected)} for {found.rows:,} predictions, and {percent(found.found)} "
        "were right by their labels; it is not shown until it is learnt again"
    )
    if found is not None and not known:
        text += "; labels may still be missing, because `labels.max_delay` is not over"
    return Verdict(
        key=key,
        level="ok" if found is None else "warning" if known and limited else "info",
        clear=found is None,
        value=difference,
        threshold=TOLERANCE,
        direction=None if found is None else "down" if difference < 0 else "up",
        window=Span(0, 0, 0) if found is None else Span(found.start_ms, found.end_ms, found.rows),
        summary=f"{key.title}: {text}",
        cooldown_ms=context.settings.cooldown_ms,
        evidence={"labels": 0 if found is None else found.rows, "guarantee": "measured"},
    )


def _limit(
    context: Context, estimate: Estimate, end_ms: int, metric: str, rule: Threshold
) -> Iterator[Verdict]:
    """A limit on one estimate, judged by the end of its interval that favours the model."""
    window = rule.window or newest_rows(context.settings)
    key = context.key("performance", metric, "threshold")
    word, why = estimate.why_not(window, end_ms)
    if word == "contradicted":
        yield Verdict.end(key, end_ms, f"{key.title}: {metric} is not judged: {why}")
    found = None if word else estimate.expected(window, end_ms)
    name = metric.removeprefix(ESTIMATED)
    if found is None or name not in found.metrics or found.span.count < rule.min_labels:
        return
    value, interval = found.metrics[name]
    below = rule.min is not None and value < rule.min
    above = rule.max is not None and value > rule.max
    certain = below or above
    if certain and rule.judge == "bound":
        certain = (below and interval[1] < (rule.min or 0.0)) or (
            above and interval[0] > (rule.max or 0.0)
        )
    look = Look(window, found.span, value, below, above, interval, certain)
    yield of_threshold(context.settings, key, metric, rule, look, predicted)


def predicted(window: str, rows: int) -> str:
    """
    A window of predictions.

    >>> predicted("last_1000", 1_010), predicted("24h", 12_000)
    ('the last 1,010 predictions with a score', '24h (12,000 predictions with a score)')
    """
    if last_n(window) is not None:
        return f"the last {rows:,} predictions with a score"
    return f"{window} ({rows:,} predictions with a score)"


# ---- what is shown


def estimate_samples(context: Context, estimate: Estimate, end_ms: int) -> Iterator[Sample]:
    """Gauges of the estimates that are valid, and whether they are."""
    if not _is_shown(estimate):
        return
    names, settings = (context.model, context.version), context.settings
    word, _ = estimate.why_not(newest_rows(settings), end_ms)
    yield Sample("model_estimate_valid", (*names, word), float(not word))
    if (found := estimate.checked.difference(estimate.reading)) is not None:
        yield Sample("model_estimate_difference", names, found[0])
    for window, metric, value, ends in _valid(context, estimate, end_ms):
        yield Sample(f"model_{ESTIMATED}{metric}", (*names, window), value)
        for end, bound in zip(("lower", "upper"), ends, strict=True):
            yield Sample(f"model_metric_{end}", (*names, ESTIMATED + metric, window), bound)


def _is_shown(estimate: Estimate) -> bool:
    """Whether the model may have an estimate: it is not a regression, and has answers."""
    return estimate.performance.kind == "classes" and bool(estimate.state.served.used)


def _valid(
    context: Context, estimate: Estimate, end_ms: int
) -> Iterator[tuple[str, str, float, tuple[float, float]]]:
    for window in context.settings.windows:
        word, _ = estimate.why_not(window, end_ms)
        found = None if word else estimate.expected(window, end_ms)
        for metric, (value, ends) in {} if found is None else found.metrics.items():
            yield window, metric, value, ends


def estimate_summary(context: Context, estimate: Estimate, end_ms: int) -> dict[str, Any]:
    """Of `summary.json`: estimates by window, or why there is none."""
    kind = estimate.performance.kind
    if kind == "numbers":
        return {"not_estimated": "estimates need scores of classes, and this is a regression"}
    if kind is None or not _is_shown(estimate):
        return {"not_estimated": "it is not known yet what the labels are"}
    out: dict[str, Any] = {}
    if (difference := estimate.checked.difference(estimate.reading)) is not None:
        out["difference"], out["checked_labels"] = difference
    word, why = estimate.why_not(newest_rows(context.settings), end_ms)
    if word:
        return {"not_estimated": why, **out}
    windows: dict[str, Any] = {}
    for window, metric, value, (low, high) in _valid(context, estimate, end_ms):
        windows.setdefault(window, {})[metric] = {"value": value, "lower": low, "upper": high}
    return {"windows": windows, **out}


def told(of: dict[str, Any]) -> str:
    """
    A line about the part `estimate` of a summary.

    >>> told({"not_estimated": "900 of 900 predictions have no score"})
    'no estimate of accuracy without labels: 900 of 900 predictions have no score'
    >>> ends = {"value": 0.8123, "lower": 0.79, "upper": 0.83}
    >>> told({"windows": {"1h": {"accuracy": ends}}, "difference": 0.004, "checked_labels": 2000})
    'accuracy estimated without labels over 1h: 0.8123 (0.79 to 0.83); 2,000 labels differ by 0.004'
    """
    if "not_estimated" in of:
        return f"no estimate of accuracy without labels: {of['not_estimated']}"
    window, found = next(iter(of["windows"].items()))
    value, low, high = (number(found["accuracy"][k]) for k in ("value", "lower", "upper"))
    checked = f"; {of['checked_labels']:,} labels differ by {number(of['difference'], 2)}"
    return f"accuracy estimated without labels over {window}: {value} ({low} to {high}){checked}"
