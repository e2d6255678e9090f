"""
Compares the clocks of workers and brokers.

Rule of the file: a comparison is a measurement, never a correction. Log time follows the broker. If
the clock of a worker is wrong, its log, its lag and its ticks have wrong times, so the difference
is reported.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from aiokafka.structs import RecordMetadata

from stream_monitor.findings import Finding, about
from stream_monitor.metrics.samples import Sample

log = logging.getLogger("stream_monitor")
OFF_MS = 5_000
"""Synchronised clocks differ by less than this, ms."""
BY_BROKER = 1
"""Timestamp type of a record if `message.timestamp.type` is `LogAppendTime`."""
ADVICE = (
    "keep the clocks of workers and brokers in step (NTP); windows and alerts go by the broker's"
)


def now_ms() -> int:
    """Time of the clock of this machine, ms since 1970."""
    return time.time_ns() // 1_000_000


class Clock:
    """
    Compares the clock of this worker with those of the brokers, by the records that it writes.
    """

    def __init__(self) -> None:
        self.offset_ms: int | None = None
        """How far our clock is ahead of the broker's, ms; None while unknown."""
        self._told: str | None = None

    def compare(self, sent_ms: int, metadata: RecordMetadata, answered_ms: int) -> None:
        """
        Compare the clocks by the answer to a record. If they agree, the broker appended the record
        between the two times.

        Examples
        --------
        >>> clock, by_broker = Clock(), lambda ms: RecordMetadata("t", 0, None, 0, ms, 1, 0)
        >>> for appended in (105, 60, 150):
        ...     clock.compare(100, by_broker(appended), 110)
        ...     print(clock.offset_ms)
        0
        40
        -40
        """
        if metadata.timestamp_type != BY_BROKER:
            self._tell(
                "observations has no broker timestamps, so log time follows the clocks of "
                "workers; run `stream-monitor topics apply`"
            )
            return
        self.offset_ms = max(sent_ms - metadata.timestamp, 0) or min(
            answered_ms - metadata.timestamp, 0
        )
        if abs(self.offset_ms) > OFF_MS:
            self._tell(
                "the clock of this machine is %s the broker's: %s", apart(self.offset_ms), ADVICE
            )
        else:
            self._told = None

    def _tell(self, message: str, *values: str) -> None:
        if self._told != message:
            self._told = message
            log.warning(message, *values)

    def samples(self) -> Iterator[Sample]:
        """Samples of the gauge, if the offset is known."""
        if self.offset_ms is not None:
            yield Sample("stream_monitor_clock_offset_seconds", (), self.offset_ms / 1e3)


def apart(ahead_ms: int) -> str:
    """
    The difference between two clocks, in words.

    >>> apart(7_300_000), apart(-45_000)
    ('2 h ahead of', '45 s behind')
    """
    return f"{about(abs(ahead_ms))} {'ahead of' if ahead_ms > 0 else 'behind'}"


def worker_clocks(name: str, flushed_ms: list[int], appended_ms: list[int]) -> Finding:
    """
    What the newest records of `observations` show about the clocks of the workers that wrote them.

    Parameters
    ----------
    name : str
        Of the topic.
    flushed_ms, appended_ms : list of int, ms
        Of each record, by its writer and by the broker.
    """
    furthest = max(
        (f - a for f, a in zip(flushed_ms, appended_ms, strict=True)), key=abs, default=0
    )
    if abs(furthest) > OFF_MS:
        return Finding(
            "clock",
            "warn",
            f"a worker that wrote to {name} has a clock that is {apart(furthest)} the broker's",
            ADVICE,
        )
    return Finding("clock", "ok", f"the workers that wrote to {name} have the time of the broker")
