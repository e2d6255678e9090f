"""
The archive's own port: `/metrics`, `/live` and `/ready`, as a worker has them.

Rule of the file: it reads the state of an archiver and changes nothing. Holes are read from the
folder at each scrape, so they are told again after a restart, and by every archiver that shares the
folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

from stream_monitor.kafka.clocks import now_ms
from stream_monitor.metrics.samples import Sample
from stream_monitor.runtime.own_port import serving_at
from stream_monitor.training.archive import Archiver


def serving(archiver: Archiver) -> AbstractAsyncContextManager[int]:
    """Serve while the block runs; gives the port. It raises as `serving_at` does."""
    return serving_at(
        archiver.settings, "archive", lambda: samples(archiver, now_ms()), lambda: ready(archiver)
    )


def ready(archiver: Archiver) -> tuple[bool, str]:
    """Whether an archiver does its work, and a line that says so."""
    if archiver.is_reading:
        return True, f"archiving {len(list(archiver.behind()))} partition(s) of {archiver.topic}"
    return False, f"not reading {archiver.topic} yet"


def samples(archiver: Archiver, now_ms: int) -> Iterator[Sample]:
    """
    What a scrape shows.

    Parameters
    ----------
    archiver : Archiver
    now_ms : int
        Wall clock.
    """
    written = archiver.written
    yield Sample("stream_monitor_archive_rows_total", (), written.rows)
    yield Sample("stream_monitor_archive_files_total", (), written.files)
    if written.last_file_ms is not None:
        name = "stream_monitor_archive_last_file_timestamp_seconds"
        yield Sample(name, (), written.last_file_ms / 1e3)
    behind = list(archiver.behind())
    yield Sample("stream_monitor_archive_lag_records", (), sum(n for n, _ in behind))
    late_ms = max((now_ms - since for _, since in behind if since is not None), default=0)
    yield Sample("stream_monitor_archive_lag_seconds", (), max(late_ms, 0) / 1e3)
    yield Sample("stream_monitor_archive_unreadable_total", (), written.unreadable)
    holes = [hole for hole in archiver.folder.holes() if hole.is_a_loss]
    yield Sample("stream_monitor_archive_holes", (), len(holes))
    missing = sum(hole.end - hole.first for hole in holes)
    yield Sample("stream_monitor_archive_missing_records", (), missing)
    found_ms = max((hole.found_ms for hole in holes if hole.found_ms is not None), default=None)
    if found_ms is not None:
        yield Sample("stream_monitor_archive_last_hole_timestamp_seconds", (), found_ms / 1e3)
