"""
Makes few files of the many of a past day.

Rule of the file: at every moment each row is in some file; what is in two for a while is dropped
when it is read, by its place in its topic. `forget` and merging exclude each other, so that no row
comes back.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stream_monitor.training.columns import expanded, together
from stream_monitor.training.folder import Folder, day_of, save, told_by

FILE_ROWS, MERGED_ROWS = 100_000, 500_000
"""Files with fewer rows are merged, up to so many rows together."""


@contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """Wait until nobody else rewrites files of this folder."""
    handle = os.open(folder.path / ".rewriting", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def merge(folder: Folder, now_ms: int, stopped: Callable[[], bool] = lambda: False) -> int:
    """
    Merge small files of days that are over for a day; returns how many files went.

    Parameters
    ----------
    folder : Folder
    now_ms : int, ms
        Log time; rows of a day come no later than the day after.
    stopped : callable
        Asked between files; whether to leave the rest for another time.

    Notes
    -----
    At most `MERGED_ROWS` rows are in memory.
    """
    newest = day_of(now_ms - 86_400_000)
    gone = 0
    for day in sorted(folder.path.glob("kind=*/model=*/day=*")):
        if day.name.removeprefix("day=") >= newest or len(list(day.glob("*.parquet"))) < 2:
            continue
        with alone(folder):
            for run in _runs(day):
                if stopped():
                    return gone
                _merge(run)
                gone += len(run) - 1
    return gone


def _runs(day: Path) -> Iterator[list[tuple[Path, dict[str, Any]]]]:
    """Small files of one partition and one life of the topic that follow each other."""
    import pyarrow.parquet as pq

    of_partition: dict[str, list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for path in day.glob("*.parquet"):
        told = told_by(path)
        if told:
            of_partition[path.name.partition("-")[0]].append((path, told))
    for files in of_partition.values():
        run: list[tuple[Path, dict[str, Any]]] = []
        rows = 0
        for path, told in sorted(files, key=lambda f: (f[1]["began"], f[1]["first"])):
            n = pq.read_metadata(path).num_rows
            begins = run and (rows + n > MERGED_ROWS or told["first"] < run[-1][1]["first"])
            if n >= FILE_ROWS or begins:
                if len(run) > 1:
                    yield run
                run, rows = [], 0
            if n < FILE_ROWS:
                run.append((path, told))
                rows += n
        if len(run) > 1:
            yield run


def _merge(run: list[tuple[Path, dict[str, Any]]]) -> None:
    """Put the rows of all into the first, then remove the others."""
    import pyarrow.parquet as pq

    (first, told), *others = run
    table = together([expanded(pq.ParquetFile(path).read()) for path, _ in run])
    table = table.sort_by([("log_offset", "ascending"), ("log_row", "ascending")])
    part = first.with_name(f".{first.name}.{os.getpid()}.tmp")
    save(part, table, {**told, "end": max(t["end"] for _, t in run)})
    part.replace(first)
    for path, _ in others:
        path.unlink(missing_ok=True)
