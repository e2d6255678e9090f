"""
Are calls as fast as they were, and do they fail no more often? Recent calls against the first ones.

Rule of the file: shares of calls are judged. A call is slow if it took longer than a multiple of
what 95 % of the first calls took, so at first at most 5 % of calls are slow. A call has failed if
the model server says so. An alert needs a share that matters and is beyond its limit by `LOOK_Z`
standard errors, because it is looked at every second. It lasts until the share of the newest calls
is within the limit, and not by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.wording import apart, duration, number, percent
from stream_monitor.arrays import Float
from stream_monitor.monitors.context import Context
from stream_monitor.stats.inference import is_back, wilson_interval
from stream_monitor.stats.quantiles import LATENCY_EDGES, latency_quantile
from stream_monitor.times import DAY_MS
from stream_monitor.verdicts import AlertKey, Span, Verdict
from stream_monitor.windows.panes import Panes

FIRST_CALLS = 2_000
"""Calls that are the baseline of the later ones."""
CALLS_MIN, NEWEST, STEADY, MANY = 50, 200, 1_000, 5_000
"""Calls of the windows of which one may raise an alert; the second and the third end it."""
LOOK_Z, FIRST_Z = 5.0, 5.0
SLOW_SHARE = 0.05
FASTEST_MS = 1.0
"""Latencies below it are fast, whatever the first ones were."""
BINS = len(LATENCY_EDGES) + 1


def no_latencies() -> Float:
    return np.zeros(BINS)


class FirstCalls(msgspec.Struct):
    """The first calls of a model version, as a baseline."""

    latency: Float = msgspec.field(default_factory=no_latencies)
    """Histogram of the first latencies, on the bins of `stats.quantiles`."""
    served: int = 0
    failed: int = 0

    def add_latency(self, bins: NDArray[np.int64]) -> None:
        """Take the bins of latencies, as long as they are among the first."""
        wanted = FIRST_CALLS - int(self.latency.sum())
        if wanted > 0:
            self.latency += np.bincount(bins[:wanted], minlength=BINS)

    def add_calls(self, served: int, failed: int) -> None:
        """All calls so far; once there are enough, they are the baseline."""
        if self.served + self.failed < FIRST_CALLS:
            self.served, self.failed = served, failed

    def slow_ms(self, factor: float) -> float | None:
        """From which latency on a call is slow; None while it is learnt."""
        n = float(self.latency.sum())
        if n < FIRST_CALLS:
            return None
        # the quantile is known that well
        q = 1 - SLOW_SHARE + FIRST_Z * math.sqrt(SLOW_SHARE * (1 - SLOW_SHARE) / n)
        return max(factor * latency_quantile(self.latency, q), FASTEST_MS)


class Found(NamedTuple):
    """
    Calls of a window, those among them that are slow or failed, all sums of the window, and what
    they amount to.
    """

    part: float
    calls: float
    sums: Float
    span: Span
    bad: bool
    clear: bool


def verdicts(
    context: Context, first: FirstCalls, latency: Panes, calls: Panes, end_ms: int
) -> Iterator[Verdict]:
    """
    Verdicts on latency and on failed calls of a model version.

    Parameters
    ----------
    context : Context
    first : FirstCalls
    latency : Panes
        Of the histogram of latencies.
    calls : Panes
        Of served and failed calls.
    end_ms : int, ms
        Event time at which the windows end.
    """
    rules = context.settings.calls
    slow = None if rules.latency_factor is None else first.slow_ms(rules.latency_factor)
    if slow is not None:
        found = _judged(
            latency, end_ms, slice(int(np.searchsorted(LATENCY_EDGES, slow)) + 1, None), SLOW_SHARE
        )
        if found is not None:
            yield _slow(context, first, slow, found)
    total = first.served + first.failed
    if rules.error_share is not None and total >= FIRST_CALLS:
        limit = 1.5 * wilson_interval(first.failed, total, FIRST_Z)[1] + rules.error_share
        found = _judged(calls, end_ms, slice(1, None), limit) if limit < 1 else None
        if found is not None:
            yield _failing(context, first, limit, found)


def _judged(panes: Panes, end_ms: int, part: slice, limit: float) -> Found | None:
    """
    The window that is clearest about the share of calls in the columns `part`; None if there are
    too few calls.

    The share is too great if it is so, and not by chance, in the newest calls or in more of them,
    and is not over. It is over if it is over in the newest calls.
    """
    windows = [panes.newest(least, end_ms, DAY_MS) for least in (CALLS_MIN, NEWEST, STEADY, MANY)]
    counts = [(float(sums[part].sum()), float(sums.sum())) for sums, _, _ in windows]
    if counts[0][1] < CALLS_MIN:
        return None
    clear = is_back(counts[1], counts[2], limit)
    beyond = [
        i for i, c in enumerate(counts) if not clear and wilson_interval(*c, LOOK_Z)[0] > limit
    ]
    more = [i for i in (1, 2) if not clear and counts[i][0] > limit * counts[i][1]]
    i = (beyond or more or [1])[0]
    sums, start, end = windows[i]
    return Found(*counts[i], sums, Span(start, end, int(counts[i][1])), bool(beyond), clear)


def _slow(context: Context, first: FirstCalls, slow_ms: float, now: Found) -> Verdict:
    share = now.part / now.calls
    value, usual = (
        latency_quantile(counts, 1 - SLOW_SHARE) / 1e3 for counts in (now.sums, first.latency)
    )
    said, before, slow = apart(value, usual, slow_ms / 1e3, form=duration, digits=3)
    part, most = apart(share, SLOW_SHARE, form=percent, digits=3)
    what = "calls are slow" if share > SLOW_SHARE else "calls are as fast as they were"
    key = context.key("latency", "latency_seconds", "profile")
    text = (
        f"{key.title}: {what}: 95% take up to {said} ({now.span.count:,} "
        f"calls), and took {before} in the first {FIRST_CALLS:,}; "
        f"{part} take longer than {slow}, the limit is {most} (calls.latency_factor: "
        f"{number(context.settings.calls.latency_factor or 0)})"
    )
    evidence = {
        "slow_share": share,
        "slow_seconds": slow_ms / 1e3,
        "reference_p95_seconds": usual,
        "guarantee": "none",
    }
    return _verdict(context, key, value, slow_ms / 1e3, now, text, evidence)


def _failing(context: Context, first: FirstCalls, limit: float, now: Found) -> Verdict:
    share = now.part / now.calls
    usual = first.failed / (first.served + first.failed)
    now_text, limit_text = apart(share, limit, form=percent, digits=3)
    key = context.key("volume", "prediction_errors", "profile")
    text = (
        f"{key.title}: {now_text} of calls failed ({int(now.part):,} of "
        f"{now.span.count:,}), {'above' if share > limit else 'within'} the limit of "
        f"{limit_text} (calls.error_share); "
        f"of the first {FIRST_CALLS:,} it was {percent(usual)}"
        + ("; see the log of the model server" if share > limit else "")
    )
    evidence = {
        "failed": int(now.part),
        "calls": now.span.count,
        "reference_ratio": usual,
        "guarantee": "none",
    }
    return _verdict(context, key, share, limit, now, text, evidence)


def _verdict(
    context: Context,
    key: AlertKey,
    value: float,
    limit: float,
    now: Found,
    text: str,
    evidence: dict[str, object],
) -> Verdict:
    return Verdict(
        key=key,
        level="warning" if now.bad else "ok",
        clear=now.clear,
        value=value,
        threshold=limit,
        direction="up",
        window=now.span,
        summary=text,
        cooldown_ms=context.settings.cooldown_ms,
        evidence=evidence,
    )
