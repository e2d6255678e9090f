"""
The alerts of a cluster, read from its topics.

Rule of the file: the state is the last record of each fingerprint on `alerts`, with the marks on
`lifecycle`. Nothing is stored anywhere else.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from stream_monitor.cli.terminal import readable
from stream_monitor.errors import UNREADABLE, StreamMonitorError

if TYPE_CHECKING:
    from stream_monitor.alerts.event import Alert
    from stream_monitor.alerts.marks import Mark, Marks
    from stream_monitor.kafka.records import Record, TopicReader

FINGERPRINT_SHOWN = 12
PREFIX_MIN = 4
"""Least length of a shortened fingerprint; a shorter one is unique only by chance."""


class Filter(NamedTuple):
    """Which alerts are shown."""

    model: str | None
    severity: str | None
    resolved: bool

    def wants(self, alert: Alert) -> bool:
        """Whether an alert is shown, apart from its status."""
        return self.model in {None, alert.model} and self.severity in {None, alert.severity}


class Board:
    """The last record of each fingerprint, and the marks."""

    def __init__(self) -> None:
        from stream_monitor.alerts.marks import Marks

        self.alerts: dict[str, Alert] = {}
        self.marks: Marks = Marks()
        self.unreadable = 0

    def take(self, record: Record) -> Alert | Mark | None:
        """Process a record of either topic; returns what changed."""
        import msgspec

        from stream_monitor.alerts.event import Alert
        from stream_monitor.alerts.marks import time_of

        if record.topic == "lifecycle":
            return self.marks.take(record.value) if record.value is not None else None
        if record.value is None:
            self.alerts.pop(record.key, None)
            return None
        try:
            alert = msgspec.json.decode(record.value, type=Alert)
            time_of(alert.starts_at)
        except UNREADABLE:
            self.unreadable += 1
            return None
        self.alerts[alert.fingerprint] = alert
        return alert

    def listed(self, wanted: Filter) -> list[list[Alert]]:
        """
        Alerts by incident: those with a firing alert before the others, each group the newest
        first. Of an incident the alerts that fire come first, then what speaks for it, then the
        oldest.
        """
        from stream_monitor.alerts.marks import time_of

        incidents: dict[str, list[Alert]] = {}
        for a in self.alerts.values():
            if wanted.wants(a) and (wanted.resolved or a.status != "resolved"):
                incidents.setdefault(a.incident, []).append(a)
        found = [
            sorted(
                alerts,
                key=lambda a: (a.status == "resolved", not a.primary, time_of(a.starts_at)),
            )
            for alerts in incidents.values()
        ]

        def newest(alerts: list[Alert]) -> tuple[bool, float]:
            first = min(time_of(a.ends_at or a.starts_at).timestamp() for a in alerts)
            return alerts[0].status == "resolved", -first

        return sorted(found, key=newest)

    def marks_of(self, alert: Alert) -> list[Mark]:
        """Marks in force for an alert."""
        return list(self.marks.of(alert.fingerprint, alert.starts_at, datetime.now(UTC)))


async def read(records: TopicReader, board: Board, stop: asyncio.Event) -> None:
    """Read every record that the topics have now; `stop` ends it early."""
    if "alerts" in records.missing:
        raise StreamMonitorError(
            f"the topic {records.settings.kafka.topic_prefix}alerts does not exist yet; a "
            "worker creates it when it starts"
        )
    bar = None
    if sys.stderr.isatty():
        from rich.console import Console

        bar = Console(stderr=True).status("reading alerts")
        bar.start()
    read, began_s = 0, time.monotonic()
    try:
        async for record in records.whole():
            board.take(record)
            read += 1
            if bar is not None and time.monotonic() - began_s > 0.2:
                began_s = time.monotonic()
                bar.update(f"reading alerts: {read:,} records")
            if stop.is_set():
                return
    finally:
        if bar is not None:
            bar.stop()


def found_by(board: Board, prefix: str) -> Alert:
    """
    The alert whose fingerprint begins with this text.

    Raises
    ------
    StreamMonitorError
        No alert matches, or more than one.
    """
    found = [
        a
        for f, a in board.alerts.items()
        if f.startswith(prefix.lower()) and len(prefix) >= PREFIX_MIN
    ]
    if len(found) == 1:
        return found[0]
    if len(prefix) < PREFIX_MIN:
        what, some = (
            f"{prefix!r} is too short; give at least {PREFIX_MIN} characters of the fingerprint",
            [],
        )
    elif found:
        what, some = f"{prefix} matches {len(found)} fingerprints; give more characters", found
    else:
        short = {f[: len(prefix)]: a for f, a in board.alerts.items()}
        some = [short[f] for f in difflib.get_close_matches(prefix.lower(), short, n=3, cutoff=0.5)]
        what = f"no alert has a fingerprint starting with {prefix}" + (
            "; did you mean" if some else "; `stream-monitor alerts --all` shows them"
        )
    lines = [
        f"  {a.fingerprint[:FINGERPRINT_SHOWN]}  {a.status:<8}  {readable(a.summary)}"
        for a in some[:10]
    ]
    raise StreamMonitorError("\n".join([f"{what}:" if lines else what, *lines]))
