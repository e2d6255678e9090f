"""
The worst segment: how much worse a segment is than the other segments of its name together.

Rule of the file: the bound of the interval counts, not the estimate. The worst of many small
segments is far off by chance; its bound is not, because the interval grows with the number of
segments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from stream_monitor.alerts.wording import apart, number, percent
from stream_monitor.arrays import Int
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.segment_counts import Counts, Share, total_loss
from stream_monitor.stats.differences import many_z, newcombe_difference
from stream_monitor.verdicts import Span, Verdict

SHARES = ("accuracy", "precision", "recall")
METRICS = (*SHARES, "mae")


class Gap(NamedTuple):
    """How much worse a segment is than the others of its name, with its interval."""

    segment: int
    metric: str
    gap: float
    low: float
    high: float
    value: float
    rest: float
    rows: float


def gaps(groups: list[Int], counts: Mapping[int, Counts], least: float) -> list[Gap]:
    """
    The gap of every segment and metric with enough rows on both sides.

    Parameters
    ----------
    groups : list of (k,) int64
        Numbers of the segments that share a name.
    counts : mapping of number to Counts
    least : float
        Rows that a share or a mean needs on both sides.

    Examples
    --------
    >>> import numpy as np
    >>> counts = {n: Counts({"accuracy": Share(r, 1_000)}) for n, r in enumerate((900, 910, 700))}
    >>> found = gaps([np.arange(3)], counts, 100)
    >>> worst = max(found, key=lambda g: g.low)
    >>> worst.segment, round(worst.gap, 3), round(worst.low, 3), round(worst.high, 3)
    (2, 0.205, 0.129, 0.286)
    """
    found = []
    for group in groups:
        here = [n for n in group.tolist() if n in counts]
        z = many_z(len(here))
        for metric in SHARES:
            shares = {n: counts[n].shares.get(metric, Share()) for n in here}
            whole = Share(*(sum(s[i] for s in shares.values()) for i in range(2)))
            for n, share in shares.items():
                rest = whole.less(share)
                if min(share.total, rest.total) >= least:
                    interval = newcombe_difference(*rest, *share, z)
                    value, other = share.part / share.total, rest.part / rest.total
                    found.append(Gap(n, metric, *interval, value, other, share.total))
        losses = {n: loss for n in here if (loss := counts[n].loss) is not None}
        for n, loss in losses.items():
            others = total_loss([each for m, each in losses.items() if m != n])
            if others is not None and min(loss.rows, others.rows) >= least:
                gap = loss.mean - others.mean
                half = z * math.sqrt(loss.variance / loss.rows + others.variance / others.rows)
                bounds = gap, gap - half, gap + half
                found.append(Gap(n, "mae", *bounds, loss.mean, others.mean, loss.rows))
    return found


def gap_verdicts(
    context: Context, found: list[Gap], name_of: Callable[[int], str]
) -> Iterator[Verdict]:
    """Verdicts on gaps that have a limit: the lower end of the interval must not be beyond it."""
    rules = context.settings.segment_alerts
    for each in found:
        limit = getattr(rules.max_gap, each.metric)
        if limit is None:
            continue
        name, bad = name_of(each.segment), each.low > limit
        key = context.key("performance", each.metric, "gap", name)
        form = number if each.metric == "mae" else percent
        said, other = apart(each.value, each.rest, form=form)
        yield Verdict(
            key=key,
            level=rules.severity if bad else "ok",
            clear=each.gap <= limit,
            value=each.gap,
            threshold=limit,
            direction="up",
            window=Span(0, 0, int(each.rows)),
            summary=f"{key.title}: {each.metric} of {name} is {said} and that of the others "
            f"{other} ({int(each.rows):,} rows); the gap is {form(each.gap)}, at least "
            f"{form(max(each.low, 0.0))}, {'beyond' if bad else 'within'} the limit of "
            f"{form(limit)} (segment_alerts.max_gap.{each.metric})",
            cooldown_ms=context.settings.cooldown_ms,
            evidence={
                "rows": int(each.rows),
                "rest": each.rest,
                "low": each.low,
                "high": each.high,
                "guarantee": "none",
            },
        )
