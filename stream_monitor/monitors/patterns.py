"""
The pattern of a feature by hour of day: hours against the same hour of earlier days.

Rule of the file: an hour of event time is judged once, when it is over, so that the judgement does
not depend on how rows arrived.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np

from stream_monitor.alerts.wording import apart, signal
from stream_monitor.arrays import Float
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.windowed import Windowed
from stream_monitor.settings import Anomalies, ModelSettings
from stream_monitor.times import HOUR_MS
from stream_monitor.verdicts import Span, Verdict

HOURS = 24
DAYS_MAX, DAYS_MIN = 28, 7
"""Values of the same hour that a pattern is compared with."""
PATTERN_ROWS_MIN = 30
"""Rows of an hour that is judged."""
SD, SHARES = 1, 2
"""
Place of the standard deviation among the measures of an hour, and of the first share, of which only
a rise counts.
"""
IQR_SD = 1.349
"""Interquartile range of a normal distribution in its standard deviations."""


class Pattern(NamedTuple):
    """The measures of an hour of a feature, and the uncertainty of each from sampling alone."""

    values: tuple[float, float, float, float]
    """Mean, standard deviation, missing share, outlier share."""
    errors: tuple[float, float, float, float]
    """Standard errors of the four."""


def pattern(
    rows: float, present: float, mean: float, sd: float, missing: float, outliers: float
) -> Pattern:
    """
    The vector of one hour of a feature.

    Examples
    --------
    >>> pattern(100, 90, 5.0, 3.0, 10, 9).values
    (5.0, 3.0, 0.1, 0.1)
    """

    def share(part: float, whole: float) -> tuple[float, float]:
        p = part / whole
        smooth = (part + 1) / (whole + 2)
        return p, float(np.sqrt(smooth * (1 - smooth) / whole))

    m, o = share(missing, rows), share(outliers, present)
    return Pattern(
        (mean, sd, m[0], o[0]),
        (sd / float(np.sqrt(present)), sd / float(np.sqrt(2 * present)), m[1], o[1]),
    )


def usual(past: Float) -> tuple[Float, Float]:
    """
    The usual value at an hour of day, and how much it varies.

    The spread is the greater of two robust estimates of a standard deviation: from the quartiles,
    and from all values except the least and the greatest. Quartiles alone are often equal if an
    hour has few different outcomes, as a rare flag has; then any other value would be far away.

    Parameters
    ----------
    past : (days,) or (days, measures) float64

    Examples
    --------
    >>> median, spread = usual(np.array([2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 9.0]))
    >>> float(median), float(spread) > 0.5
    (1.0, True)
    """
    q1, median, q3 = np.quantile(past, (0.25, 0.5, 0.75), axis=0)
    ordered, n = np.sort(past, axis=0), len(past)
    width = 2 * NormalDist().inv_cdf((n - 1 - 0.375) / (n + 0.25))
    return median, np.maximum((q3 - q1) / IQR_SD, (ordered[-2] - ordered[1]) / width)


def _ratio_z(found: Pattern, past: Float) -> float:
    """
    Robust z of the logarithm of a standard deviation.

    If the hour itself has no spread, its value alone decides. If an earlier hour had none, there is
    no ratio, and 0 is returned: in hours of few rows the standard deviation of a rare flag is 0, or
    not, by chance.
    """
    sd = found.values[SD]
    if past.min() <= 0:
        return 0.0
    if sd <= 0:
        return float("inf")
    median, spread = usual(np.log(past))
    return float(abs(np.log(sd) - median) / max(float(spread), found.errors[SD] / sd))


class Patterns(msgspec.Struct):
    """
    Hours of one model version's features, each against the same hour of the days before.

    Notes
    -----
    Robust z: distance to the median of up to 28 earlier values of this hour of day, in IQR / 1.349
    of them or, where that is less, in standard errors of the value itself. A standard deviation is
    compared by its logarithm too, and the lesser z counts: on heavy tails one value makes it
    several times as great, which is little in ratio; and that of a rare flag is 0 by chance, which
    is little in value. Judged from 7 earlier values on. 21 kB a feature when full.
    """

    next_ms: int = 0
    """Start of the first hour that was not judged yet."""
    history: dict[str, list[list[tuple[float, ...]]]] = {}
    """By feature and hour of day: the measures of the hours of earlier days."""
    z: dict[str, float] = {}
    """The greatest z of the last judged hour."""
    running: dict[str, int] = {}
    """Hours in a row beyond the limit."""
    count: dict[str, int] = {}
    """Number of anomalous patterns so far."""

    def judge(self, feature: str, hour_ms: int, found: Pattern, settings: Anomalies) -> bool:
        """
        Compare an hour with the same hour of earlier days, and remember it; whether it was judged.
        """
        slots = self.history.setdefault(feature, [[] for _ in range(HOURS)])
        slot = slots[hour_ms // HOUR_MS % HOURS]
        judged = len(slot) >= DAYS_MIN
        if judged:
            past = np.array(slot)
            median, spread = usual(past)
            scale = np.maximum(np.maximum(spread, found.errors), 1e-300)
            z = (np.array(found.values) - median) / scale
            z[:SHARES] = np.abs(z[:SHARES])  # fewer missing values and outliers are no fault
            z[SD] = min(z[SD], _ratio_z(found, past[:, SD]))
            self.z[feature] = float(max(z.max(), 0.0))
            beyond = self.z[feature] > settings.pattern_z
            self.running[feature] = self.running.get(feature, 0) + 1 if beyond else 0
            if self.running[feature] == settings.pattern_windows:
                self.count[feature] = self.count.get(feature, 0) + 1
        slot.append(found.values)
        del slot[:-DAYS_MAX]
        return judged

    def begin_anew(self) -> None:
        """Forget the days before: their shares of outliers are of other fences."""
        self.history, self.z, self.running = {}, {}, {}


def hours_to_judge(next_ms: int, first_ms: int, watermark_ms: int) -> Iterator[int]:
    """
    Starts of the hours that ended since the last one that was judged; after a long gap, only those
        of the last day.
    """
    end = watermark_ms // HOUR_MS * HOUR_MS
    start = max(next_ms, first_ms // HOUR_MS * HOUR_MS, end - HOURS * HOUR_MS)
    return iter(range(start, end, HOUR_MS))


def hour_verdicts(
    context: Context, known: Patterns, inputs: Inputs, watermark_ms: int
) -> Iterator[Verdict]:
    """
    Verdicts on the hours of event time that are over, of every numeric feature.

    Parameters
    ----------
    context : Context
    known : Patterns
        Remembers the hours.
    inputs : Inputs
    watermark_ms : int
        The greatest event time.
    """
    if inputs.profile is None or not watermark_ms:
        return
    first_ms = int(inputs.panes.starts[0]) if inputs.panes.used else watermark_ms
    for hour in hours_to_judge(known.next_ms, first_ms, watermark_ms):
        known.next_ms = hour + HOUR_MS
        found, start, end = inputs.window(hour + HOUR_MS - 1, HOUR_MS)
        for name, now in found.items():
            if _is_judged(name, hour, now, known, context.settings):
                span = Span(start, end, int(now.rows))
                yield _verdict(context, name, known, now, span)


def _is_judged(
    name: str, hour_ms: int, now: Windowed, known: Patterns, settings: ModelSettings
) -> bool:
    """Judge an hour of a feature; False if there are too few rows, or too few earlier days."""
    present = now.rows - now.missing
    if now.mean is None or now.sd is None or present < PATTERN_ROWS_MIN:
        return False
    values = pattern(now.rows, present, now.mean, now.sd, now.missing, now.outliers)
    return known.judge(name, hour_ms, values, settings.anomalies)


def _verdict(context: Context, name: str, known: Patterns, now: Windowed, span: Span) -> Verdict:
    """On a feature's hour that was judged."""
    key, settings = context.key("anomaly", name, "profile"), context.settings
    z, beyond = known.z[name], known.running[name] >= settings.anomalies.pattern_windows
    said, limit = apart(z, settings.anomalies.pattern_z)
    text = (
        f"{signal(name)} {'differs from' if known.running[name] else 'is like'} the same hour "
        f"on earlier days (robust z-score {said}, limit {limit} by anomalies.pattern_z)"
    )
    text += f" for {known.running[name]} hours in a row" if beyond else ""
    return Verdict(
        key=key,
        level="warning" if beyond else "ok",
        clear=known.running[name] == 0,
        value=z,
        threshold=settings.anomalies.pattern_z,
        direction="up",
        window=span,
        summary=f"{key.title}: {text}",
        baseline_id=context.baseline_id,
        cooldown_ms=settings.cooldown_ms,
        evidence={
            "mean": now.mean,
            "sd": now.sd,
            "missing_ratio": now.missing / now.rows,
            "outliers_ratio": now.outliers / (now.rows - now.missing),
            "guarantee": "none",
        },
    )
