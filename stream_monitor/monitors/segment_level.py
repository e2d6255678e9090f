"""
Is a segment worse than it was? Its error against its own first labelled rows, while the other
segments are not worse.

Rule of the file: judged by the bound of an interval that is as wide as the number of segments
needs. What makes every segment worse is an alert over all traffic, and none of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stream_monitor.alerts.wording import apart, number, percent
from stream_monitor.arrays import Int
from stream_monitor.monitors.context import Context
from stream_monitor.monitors.level import MARGIN, MARGIN_ERROR, Loss
from stream_monitor.monitors.segment_blocks import KEPT
from stream_monitor.monitors.segment_errors import SegmentErrors
from stream_monitor.stats.differences import many_z, newcombe_difference
from stream_monitor.verdicts import Span, Verdict


class Rise(NamedTuple):
    """How much greater a loss is, and the lower end of its interval."""

    by: float
    low: float


def rise(now: Loss, usual: Loss, z: float, kind: str) -> Rise:
    """
    The increase of a loss: of shares by Newcombe's interval, of means by the variance of both.

    >>> [round(v, 3) for v in rise(Loss(0.2, 0.16, 1_000), Loss(0.1, 0.09, 1_000), 4.0, "classes")]
    [0.1, 0.036]
    """
    if kind == "classes":
        by, low, _ = newcombe_difference(
            now.mean * now.rows, now.rows, usual.mean * usual.rows, usual.rows, z
        )
        return Rise(by, low)
    by = now.mean - usual.mean
    return Rise(by, by - z * math.sqrt(now.variance / now.rows + usual.variance / usual.rows))


def level_verdicts(
    context: Context, errors: SegmentErrors, name_of: Callable[[int], str], groups: list[Int]
) -> Iterator[Verdict]:
    """
    Verdicts on segments that have a full block of first labels since the last call.

    Parameters
    ----------
    context : Context
    errors : SegmentErrors
    name_of : callable
        The name of a segment by its number.
    groups : list of (k,) int64
        Numbers of the segments that share a name.
    """
    fresh = set(errors.take_fresh())
    blocks = errors.blocks
    for whole in groups:
        group = whole[whole < len(blocks.rows)]
        z = many_z(len(group))
        for segment in group.tolist():
            usual = errors.usual(segment) if segment in fresh else None
            rest = errors.loss(blocks.first_rest[segment], int(blocks.first_rest_rows[segment]))
            if usual is not None and rest is not None and blocks.closed[segment] > 2:
                yield _verdict(context, errors, segment, name_of(segment), (usual, rest), z)


def _verdict(
    context: Context,
    errors: SegmentErrors,
    segment: int,
    name: str,
    before: tuple[Loss, Loss],
    z: float,
) -> Verdict:
    """`before` is the usual loss of the segment, and that of the others at that time."""
    usual, others = before
    classes = errors.kind == "classes"
    margin = MARGIN if classes else MARGIN_ERROR * usual.mean
    found = []
    for size in (1, KEPT):
        now, rest = (
            errors.loss(sums[segment], int(rows[segment]))
            for sums, rows in (errors.blocks.newest(size), errors.blocks.rest(size))
        )
        assert now is not None
        own = rise(now, usual, z, errors.kind)
        of_others = rise(rest or others, others, z, errors.kind)
        more = own.by - max(of_others.by, 0.0)
        beyond = math.hypot(own.by - own.low, of_others.by - of_others.low)
        bad = own.low > 0 and rest is not None and more > max(margin, beyond)
        found.append((now, own, bad, rest or others))
    now, own, bad, rest_now = next((each for each in found if each[2]), found[0])
    back = all(each[1].by <= margin / 2 for each in found)
    metric = "accuracy" if classes else "mae"
    key = context.key("performance", metric, "level", name)
    value, was = (1 - now.mean, 1 - usual.mean) if classes else (now.mean, usual.mean)
    limit = was - margin if classes else was + margin
    form = percent if classes else number
    said, was_said = apart(value, was, form=form)
    then, since = (form(1 - loss.mean if classes else loss.mean) for loss in (others, rest_now))
    return Verdict(
        key=key,
        level="warning" if bad else "ok",
        clear=back and not bad,
        value=value,
        threshold=limit,
        direction="down" if classes else "up",
        window=Span(0, 0, int(now.rows)),
        summary=f"{key.title}: {metric} of {name} over the last {int(now.rows):,} labelled "
        f"predictions is {said}, {'worse than' if bad else 'as good as'} the {was_said} of its "
        f"first {int(usual.rows):,} (the other segments: {then} before, {since} now; "
        "`segment_alerts.level: off` switches this off)",
        cooldown_ms=context.settings.cooldown_ms,
        evidence={
            "labels": int(now.rows),
            "usual": was,
            "usual_labels": int(usual.rows),
            "worse_by": own.by,
            "worse_by_at_least": own.low,
            "z": round(z, 3),
            "guarantee": "none",
        },
    )
