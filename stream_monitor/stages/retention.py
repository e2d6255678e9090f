"""
Records that retention deleted before a stage read them.

Rule of the file: they are never skipped silently. They are logged and counted. With
`worker.on_lost: fail` the partition is not opened and nothing is committed, so the next start finds
the same gap.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from aiokafka import TopicPartition

from stream_monitor.errors import StateError
from stream_monitor.metrics.samples import Sample
from stream_monitor.settings import WorkerSettings

log = logging.getLogger("stream_monitor")


class Lost:
    """
    The lost records of one stage, by partition.

    Parameters
    ----------
    worker : WorkerSettings
    taken : str
        What the stage does with records: `read` or `folded`.
    moving : str
        What happens if somebody moves the group's offset past the gap.

    Examples
    --------
    >>> lost = Lost(WorkerSettings(on_lost="fail"), "read", "goes on there")
    >>> lost.count(TopicPartition("labels", 2), 10, 15)
    Traceback (most recent call last):
    stream_monitor.errors.StateError: labels/2: records 10 to 14 were deleted by retention before ...
    """  # noqa: E501

    def __init__(self, worker: WorkerSettings, taken: str, moving: str) -> None:
        self._worker, self._taken, self._moving = worker, taken, moving
        self.records: Counter[TopicPartition] = Counter()

    def count(self, tp: TopicPartition, at: int, first: int) -> None:
        """
        Count the records from `at`, which is wanted, to `first`, which is the first that exists.

        Raises
        ------
        StateError
            With `worker.on_lost: fail`; the message names the ways out.
        """
        what = (
            f"{tp.topic}/{tp.partition}: records {at} to {first - 1} were deleted by retention "
            f"before they were {self._taken}"
        )
        if self._worker.on_lost == "fail":
            way_out = (
                "worker.on_lost: continue goes on behind them and counts them; moving the offset "
                f"of group {self._worker.group} on this partition to {first} {self._moving}"
            )
            raise StateError(f"{what}, and worker.on_lost is fail; {way_out}")
        log.error("%s; it goes on at %d", what, first)
        self.records[tp] += first - at

    def samples(self) -> Iterator[Sample]:
        """Samples of the gauge of lost records."""
        for tp, n in self.records.items():
            yield Sample("stream_monitor_lost_records", (tp.topic, str(tp.partition)), n)
