"""
Verdicts of configured thresholds.

Rule of the file: a limit is judged by what is certain. An alert fires when the end of the interval
that favours the model is beyond the limit (`judge: bound`), so a model at its limit does not page.
Once it fires, it ends when the metric itself is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from stream_monitor.alerts.wording import apart, labelled, number
from stream_monitor.monitors.performance_windows import PerformanceWindows
from stream_monitor.settings import ModelSettings, Threshold
from stream_monitor.stats.metric_intervals import Interval
from stream_monitor.verdicts import AlertKey, Span, Verdict
from stream_monitor.windows.names import last_n

MIN_LABELS = 100
ESTIMATED = "estimated_"
"""Metrics of predictions without labels begin with it."""


class Look(NamedTuple):
    """A metric in a window, beside its limit."""

    window: str
    span: Span
    value: float
    below: bool
    """The metric is below `min`."""
    above: bool
    interval: Interval | None
    certain: bool
    """It is beyond its limit by the end that favours the model."""


def newest_rows(settings: ModelSettings) -> str:
    """The first configured window of rows, otherwise the first window."""
    return next((w for w in settings.windows if last_n(w) is not None), settings.windows[0])


def threshold_verdicts(
    settings: ModelSettings,
    windows: PerformanceWindows,
    key: AlertKey,
    until_ms: int | None = None,
    *,
    longer: bool = True,
) -> Iterator[Verdict]:
    """
    Verdicts of the configured thresholds on a population.

    A rule without a window is judged on the newest rows. If these are beyond the limit and too few
    to be sure, the other windows are asked (`longer`): more rows show a smaller difference. Rows
    after `until_ms` are not mature (`maturity.py`).
    """
    for metric, rule in measured(settings).items():
        window = rule.window or newest_rows(settings)
        look = _looked(windows, metric, rule, window, until_ms)
        if look is None:
            continue
        if longer and rule.window is None and (look.below or look.above) and not look.certain:
            others = (
                _looked(windows, metric, rule, w, until_ms) for w in settings.windows if w != window
            )
            agree = (o for o in others if o and (o.below, o.above) == (look.below, look.above))
            look = next((o for o in agree if o.certain), look)
        yield of_threshold(settings, key, metric, rule, look)


def judged_metrics(settings: ModelSettings, window: str) -> tuple[str, ...]:
    """Metrics whose threshold is judged on a window, beside the newest rows."""
    return tuple(m for m, rule in measured(settings).items() if rule.window in (None, window))


def measured(settings: ModelSettings) -> dict[str, Threshold]:
    """Thresholds on metrics of labelled rows, without those on estimates."""
    return {m: rule for m, rule in settings.thresholds.items() if not m.startswith(ESTIMATED)}


def _looked(
    windows: PerformanceWindows, metric: str, rule: Threshold, window: str, until_ms: int | None
) -> Look | None:
    found, span = windows.window(window, metric, until_ms)
    if metric not in found or span.count < rule.min_labels:
        return None
    value, interval = found[metric], None
    judged = abs(value) if metric == "bias" else value
    below = rule.min is not None and judged < rule.min
    above = rule.max is not None and judged > rule.max
    certain = below or above
    if certain and rule.judge == "bound":
        interval = windows.intervals(window, until_ms).get(metric)
        if interval is not None:
            low, high = _of_size(interval) if metric == "bias" else interval
            certain = (below and high < (rule.min or 0.0)) or (above and low > (rule.max or 0.0))
    return Look(window, span, value, below, above, interval, certain)


def _of_size(interval: Interval) -> Interval:
    """
    The interval of an absolute value.

    >>> _of_size((-2.0, 1.0)), _of_size((-3.0, -1.0))
    ((0.0, 2.0), (1.0, 3.0))
    """
    low, high = interval
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def of_threshold(
    settings: ModelSettings,
    key: AlertKey,
    metric: str,
    rule: Threshold,
    look: Look,
    told: Callable[[str, int], str] = labelled,
) -> Verdict:
    """The verdict of one threshold; `told` names a window of so many rows."""
    value, below, above, span = look.value, look.below, look.above, look.span
    judged = abs(value) if metric == "bias" else value
    limit = rule.min if below or rule.max is None else rule.max
    assert limit is not None
    clear = rule.clear
    settled = (
        not below
        and not above
        and (clear is None or (judged >= clear if rule.min is not None else judged <= clear))
    )
    sign = (
        "above the limit of" if above else "below the limit of" if below else "within the limit of"
    )
    where = f" of {key.segment}" if key.segment else ""
    said, bound = apart(value, limit)
    if look.certain and look.interval is not None:
        said += f" ({number(look.interval[0])} to {number(look.interval[1])})"
    name = f"thresholds.{metric}.{'max' if above or rule.min is None else 'min'}"
    ends = (
        {} if look.interval is None else dict(zip(("lower", "upper"), look.interval, strict=True))
    )
    return Verdict(
        key=key._replace(
            kind="calibration" if metric == "calibration_error" else "performance", subject=metric
        ),
        level=rule.severity if look.certain else "ok",
        clear=settled,
        value=value,
        threshold=limit,
        direction="down" if below else "up" if above else None,
        window=span,
        summary=f"{key.title}: {metric}{where} over "
        f"{told(look.window, span.count)} is {said}, {sign} {bound} ({name})",
        for_ms=rule.for_ms,
        cooldown_ms=settings.cooldown_ms,
        evidence={
            "window": look.window,
            "labels": span.count,
            **ends,
            "guarantee": "measured" if ends else "none",
        },
    )
