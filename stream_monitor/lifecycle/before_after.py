"""
How a model does after a promotion, beside the version before.

Rule of the file: `history` tells whole minutes, so a comparison waits for one, also longer than
`watch`. It is said once for each promotion, and only if there is something to compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from stream_monitor.lifecycle.actions import Action, Facts, Say
from stream_monitor.lifecycle.events import Compared
from stream_monitor.lifecycle.model import Model, ms_of
from stream_monitor.lifecycle_settings import ModelLoop
from stream_monitor.times import DAY_MS, MINUTE_MS, rfc3339

WHOLE_MS = 3 * MINUTE_MS
"""After it there was a whole minute, and it was told; so few labels as there are then must do."""
PATIENCE_MS = DAY_MS
"""Labels may be late; after it nothing is compared."""


def compared(name: str, m: Model, loop: ModelLoop, facts: Facts, now_ms: int) -> Action | None:
    """The comparison of the newest promotion, if it is due and can be made."""
    p = m.promoted
    if p is None or p.against is None or not is_wanted(m, loop, now_ms):
        return None
    since_ms = ms_of(p.since)
    if now_ms < since_ms + loop.deploy.watch_ms:
        return None
    least = loop.deploy.min_labels if now_ms < since_ms + WHOLE_MS else 1
    if facts.labels(name, p.version, since_ms) < max(least, 1):
        return None
    began_ms = ms_of(m.trials[p.experiment].at) if p.experiment in m.trials else since_ms
    before_ms = began_ms - max(loop.deploy.watch_ms, now_ms - since_ms)
    before = facts.metrics(name, p.against, before_ms, began_ms)
    after = facts.metrics(name, p.version, since_ms, now_ms)
    if not in_both(before, after):
        return None
    event = Compared(
        model=name,
        at=rfc3339(now_ms),
        version=p.version,
        against=p.against,
        experiment=p.experiment,
        before=before,
        after=after,
    )
    return Say(event.named())


def is_wanted(m: Model, loop: ModelLoop, now_ms: int) -> bool:
    """Whether the newest promotion is still to be compared."""
    p, known = m.promoted, m.compared
    return (
        p is not None
        and p.against is not None
        and m.champion == p.version
        and (known is None or known.experiment != p.experiment)
        and now_ms <= ms_of(p.since) + loop.deploy.watch_ms + PATIENCE_MS
    )


def waits_for(m: Model, loop: ModelLoop, now_ms: int) -> str:
    """What a comparison waits for, in words."""
    left_ms = ms_of(m.promoted.since if m.promoted else None) + loop.deploy.watch_ms - now_ms
    if left_ms > 0:
        return f"it is due when `watch` is over, in {-(-left_ms // 1_000)} s"
    return "`history` has no whole minute yet in which both had labels"


def in_both(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """
    Metrics that can be compared.

    >>> in_both({"accuracy": 0.5, "labels": 7.0}, {"labels": 9.0, "accuracy": 0.75, "f1": 1.0})
    ['accuracy']
    """
    return [n for n in before if n in after and n != "labels"]
