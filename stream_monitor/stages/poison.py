"""
Records that end the process again and again: how often they did, which record it is, and its dead
letter.

Rule of the file: the counts are in the metadata of the group's commit, after the note of the stage.
` failed=OFFSET:TRIES,…` counts exceptions. ` opened=N` counts the tenures that began at this offset
and ended uncleanly (a crash in native code, an endless loop, a kill). So the counts survive the
process and reach the next owner of the partition. An unclean end is only a suspicion, because a
healthy worker may be killed too. The records are then tried in a fork of the process
(`stages/forks.py`), and only a record that ends the fork alone, as often as the process may be
ended, is set aside.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path

from aiokafka import TopicPartition

from stream_monitor.kafka.deliveries import Broken
from stream_monitor.schema import Reason

TRIES = 3
"""A record that has ended the process this often is set aside."""
CAREFUL_RECORDS = 10_000
"""
After a record that ended the process, this many records are tried in a fork before they are
processed, because a bad record often comes again.
"""
MARK_S = 2
"""Time limit for the commit that a tenure begins, s. Opening does not wait any longer."""
REASON: Reason = "ended_worker"
MESSAGE_MAX_CHARS = 1_000
FAILED_MAX = 100
"""Greatest number of entries in the metadata of a commit; a broker accepts 4 KiB."""
_MARKS = re.compile(r"(?: failed=([0-9:,]+))?(?: opened=([0-9]+))?$")

Headers = list[tuple[str, bytes]]


def with_failures(metadata: str, failed: Mapping[int, int], opened: int = 0) -> str:
    """
    Metadata of a commit, with what failed.

    >>> with_failures("17", {40: 1, 52: 3}), with_failures("17", {}, opened=2)
    ('17 failed=40:1,52:3', '17 opened=2')
    """
    entries = ",".join(f"{offset}:{n}" for offset, n in sorted(failed.items())[:FAILED_MAX])
    return (
        metadata
        + (f" failed={entries}" if failed else "")
        + (f" opened={opened}" if opened else "")
    )


def parted(metadata: str) -> tuple[str, dict[int, int], int]:
    """
    The arguments that `with_failures` was called with.

    >>> parted("17 failed=40:1,52:3 opened=2"), parted("")
    (('17', {40: 1, 52: 3}, 2), ('', {}, 0))
    """
    marks = _MARKS.search(metadata)
    assert marks is not None  # the pattern also matches the empty text, so there is always a match
    failed = (entry.split(":") for entry in (marks[1] or "").split(",") if entry)
    return (
        metadata[: marks.start()],
        {int(offset): int(n) for offset, n in failed},
        int(marks[2] or 0),
    )


def suspicion(tp: TopicPartition, offset: int, begun: int, on_poison: str) -> str:
    """The line in the log after unclean ends."""
    then = (
        "its records are tried in a fork of the process first"
        if on_poison == "skip"
        else "worker.on_poison: skip looks for the record that causes it"
    )
    return (
        f"{tp.topic}/{tp.partition}: {begun} times a worker started at {offset} and ended without "
        f"an error, or was killed; {then}"
    )


def summary(error: BaseException) -> str:
    """An exception and where it was raised, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error}" + (
        f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})"
        if frames
        else ""
    )


def letter_headers(tp: TopicPartition, offset: int, reason: Reason, message: str) -> Headers:
    """Headers of a dead letter."""
    return [
        ("__connect.errors.topic", tp.topic.encode()),
        ("__connect.errors.partition", str(tp.partition).encode()),
        ("__connect.errors.offset", str(offset).encode()),
        (
            "__connect.errors.exception.message",
            message[:MESSAGE_MAX_CHARS].encode("utf-8", "replace"),
        ),
        ("stream-monitor.reason", reason.encode()),
    ]


def place(tp: TopicPartition, broken: Broken) -> str:
    """Where a broken batch is and what is wrong with it, in a line."""
    until = "(end unknown)" if broken.end < 0 else f"to {broken.end - 1}"
    return (
        f"{tp.topic}/{tp.partition}: the batch of records {broken.start} {until} cannot be read: "
        f"{broken.message}"
    )
