"""
What ends the process again and again: how often it did, which record it is, and the dead letter of it.

Rule of the file: the count of tries travels in the metadata of the group's commit, behind what a stage keeps there, as ` failed=OFFSET:TRIES,…`. So it survives the process,
and goes to whoever owns the partition next.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from aiokafka import TopicPartition

from stream_monitor.runtime.fetching import Broken

TRIES = 3
"""What has ended the process so often at the same position is set aside."""
REASON = "unknown_format"
MESSAGE_MAX_CHARS = 1_000
FAILED_MAX = 100
"""Entries in the metadata of a commit, of which a broker takes 4 KiB."""
_MARK = " failed="

Headers = list[tuple[str, bytes]]


def with_failures(metadata: str, failed: Mapping[int, int]) -> str:
    """
    Metadata of a commit that says what failed.

    >>> with_failures("17", {40: 1, 52: 3}), with_failures("17", {})
    ('17 failed=40:1,52:3', '17')
    """
    return metadata + (_MARK + ",".join(f"{offset}:{n}" for offset, n in sorted(failed.items())[:FAILED_MAX]) if failed else "")


def parted(metadata: str) -> tuple[str, dict[int, int]]:
    """
    What `with_failures` was given.

    >>> parted("17 failed=40:1,52:3"), parted("")
    (('17', {40: 1, 52: 3}), ('', {}))
    """
    kept, _, failed = metadata.partition(_MARK)
    return kept, {int(offset): int(n) for offset, n in (entry.split(":") for entry in failed.split(",") if entry)}


def culprits(attempt: Callable[[int, int], object], start: int, end: int) -> list[tuple[int, Exception]]:
    """
    Which of the records `start` to `end` raise, found by halving: each alone, or all of the smallest run that raises only together.

    >>> culprits(lambda start, end: 1 // (3 not in range(start, end)), 0, 10)
    [(3, ZeroDivisionError('integer division or modulo by zero'))]
    """
    try:
        attempt(start, end)
    except Exception as e:
        if end - start == 1:
            return [(start, e)]
        middle = (start + end) // 2
        return culprits(attempt, start, middle) + culprits(attempt, middle, end) or [(i, e) for i in range(start, end)]
    return []


def summary(error: BaseException) -> str:
    """An exception and where it was raised, in a line."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error}" + (f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else "")


def letter_headers(tp: TopicPartition, offset: int, reason: str, message: str) -> Headers:
    """Headers of a dead letter."""
    return [
        ("__connect.errors.topic", tp.topic.encode()),
        ("__connect.errors.partition", str(tp.partition).encode()),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.exception.message", message[:MESSAGE_MAX_CHARS].encode("utf-8", "replace")),
        ("stream-monitor.reason", reason.encode()),
    ]


def place(tp: TopicPartition, broken: Broken) -> str:
    """Where a broken batch is, and what is wrong with it, in a line."""
    until = "of which nothing tells the end" if broken.end < 0 else f"to {broken.end - 1}"
    return f"{tp.topic}/{tp.partition}: the batch of records {broken.start} {until} cannot be read: {broken.message}"
