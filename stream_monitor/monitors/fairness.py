"""
Do the groups of a segment get the same answers, and the same errors? Differences and ratios between
groups, with their intervals.

Rule of the file: the definitions are those of Fairlearn (`MetricFrame`, `demographic_parity_…`,
`equalized_odds_…`), group by group. Answers are counted with a label or without one; rates of true
and false positives need labels. The bound of the interval counts, not the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from stream_monitor.alerts.wording import apart, number
from stream_monitor.arrays import Int
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.segment_counts import Counts, Share
from stream_monitor.settings import Fairness
from stream_monitor.stats.differences import katz_ratio, many_z, newcombe_difference
from stream_monitor.verdicts import Span, Verdict

PARITY, IMPACT = "statistical_parity_difference", "disparate_impact_ratio"
OPPORTUNITY, FALSE_POSITIVES = "equal_opportunity_difference", "false_positive_rate_difference"
ODDS = "equalized_odds_difference"
METRICS = (PARITY, IMPACT, OPPORTUNITY, FALSE_POSITIVES, ODDS)
RATES = {
    "selection": "selection",
    "true_positive": "recall",
    "false_positive": "false_positive_rate",
}
"""Names of the rates of a group, and of their counts."""
DIFFERENCES = {PARITY: "selection", OPPORTUNITY: "recall", FALSE_POSITIVES: "false_positive_rate"}


class Compared(NamedTuple):
    """One metric of one group against the reference, with its interval."""

    segment: int
    metric: str
    value: float
    low: float
    high: float
    rows: float
    """Of the group, in the smallest of the rates that were compared."""


def compared(
    rule: Fairness, group: Int, counts: Mapping[int, Counts], name_of: Callable[[int], str]
) -> list[Compared]:
    """
    Every metric of every group that has enough rows.

    Parameters
    ----------
    rule : Fairness
    group : (k,) int64
        Numbers of the segments that share a name.
    counts : mapping of number to Counts
    name_of : callable
        The name of a segment by its number, `name=value`.
    """
    here = [n for n in group.tolist() if n in counts]
    reference = next((n for n in here if name_of(n).partition("=")[2] == rule.reference), None)
    if rule.reference is not None and reference is None:
        return []
    z = many_z(max(len(here) - 1, 1) * len(METRICS))
    found: list[Compared] = []
    for n in here:
        if n != reference:
            rates = {
                rate: (
                    counts[n].shares.get(rate, Share()),
                    _of_others(rate, counts, [reference] if reference is not None else here, n),
                )
                for rate in RATES.values()
            }
            enough = {
                rate: pair
                for rate, pair in rates.items()
                if min(side.total for side in pair) >= rule.min_rows
            }
            found += _of_group(n, enough, z)
    return found


def _of_others(rate: str, counts: Mapping[int, Counts], others: list[int], n: int) -> Share:
    total = Share()
    for other in others:
        if other != n:
            total = total.plus(counts[other].shares.get(rate, Share()))
    return total


def _of_group(n: int, rates: dict[str, tuple[Share, Share]], z: float) -> Iterator[Compared]:
    odds = []
    for metric, rate in DIFFERENCES.items():
        if rate in rates:
            mine, others = rates[rate]
            value, low, high = newcombe_difference(*mine, *others, z)
            yield Compared(n, metric, value, low, high, mine.total)
            if metric != PARITY:
                odds.append((abs(value), *magnitude(low, high), mine.total))
    if "selection" in rates:
        mine, others = rates["selection"]
        ratio = katz_ratio(*mine, *others, z)
        if ratio is not None:
            yield Compared(n, IMPACT, *ratio, mine.total)
    if len(odds) == 2:
        value, low, high = (max(each[i] for each in odds) for i in range(3))
        yield Compared(n, ODDS, value, low, high, min(each[3] for each in odds))


def magnitude(low: float, high: float) -> tuple[float, float]:
    """
    The interval of an absolute value.

    >>> magnitude(-0.2, -0.1), magnitude(-0.1, 0.3)
    ((0.1, 0.2), (0.0, 0.3))
    """
    return max(low, -high, 0.0), max(abs(low), abs(high))


def fairness_verdicts(
    context: Context, rule: Fairness, found: list[Compared], name_of: Callable[[int], str]
) -> Iterator[Verdict]:
    """Verdicts on the comparisons that have a limit."""
    for each in found:
        limit = getattr(rule.limits, each.metric)
        if limit is None:
            continue
        name = name_of(each.segment)
        key = context.key("fairness", each.metric, "threshold", name)
        if each.metric == IMPACT:
            bad = each.high < limit or each.low > 1 / limit
            clear = limit <= each.value <= 1 / limit
            shown = limit if each.value < 1 else 1 / limit
        else:
            bad = magnitude(each.low, each.high)[0] > limit
            clear, shown = abs(each.value) <= limit, limit
        against = (
            f"{name.partition('=')[0]}={rule.reference}" if rule.reference else "the other groups"
        )
        said, bound = apart(each.value, shown, form=number, digits=3)
        where = f"fairness.{name.partition('=')[0]}.limits.{each.metric}"
        yield Verdict(
            key=key,
            level=rule.severity if bad else "ok",
            clear=clear and not bad,
            value=each.value,
            threshold=shown,
            direction="down" if each.value < (1 if each.metric == IMPACT else 0) else "up",
            window=Span(0, 0, int(each.rows)),
            summary=f"{key.title}: {each.metric} of {name} against {against} is {said} (interval "
            f"{number(each.low, 3)} to {number(each.high, 3)}, {int(each.rows):,} rows), "
            f"{'beyond' if bad else 'not certainly beyond'} the limit of {bound} ({where})",
            cooldown_ms=context.settings.cooldown_ms,
            evidence={
                "rows": int(each.rows),
                "low": each.low,
                "high": each.high,
                "against": against,
                "guarantee": "none",
            },
        )
