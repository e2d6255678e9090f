"""
How late labels may be.

Rule of the file: computed from a measured rate and the limit of the configuration; it promises
nothing.
"""

from __future__ import annotations

from stream_monitor.alerts.wording import duration
from stream_monitor.findings import Finding
from stream_monitor.kafka.cluster import NewestRecords
from stream_monitor.settings import CoreSettings


def reach(batches: list[NewestRecords], core: CoreSettings) -> list[Finding]:
    """
    How late labels may be, at the rate of the newest predictions, if all of them belong to models
    of one partition of `observations`.
    """
    a_second = 0.0
    for part in batches:
        over_ms = max(part.times_ms) - min(part.times_ms) if part.times_ms else 0
        a_second += (len(part.times_ms) - 1) * 1_000 / over_ms if over_ms else 0
    if not a_second:
        return []
    limit = core.limits.pending
    late = duration(limit / a_second)
    return [
        Finding(
            "pending",
            "ok",
            f"limits.pending = {limit:,}: at the {a_second:,.0f} predictions a second of the "
            f"newest ones, labels may be {late} late in a partition that gets all",
        )
    ]
