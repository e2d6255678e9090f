"""
The folder of the archive: `kind=prediction|label/model=M/day=D/PARTITION-FIRSTOFFSET.parquet`.

Rule of the file: a file appears whole, under its name, and never changes (but for `forget`, which
takes rows out). So a writer that was taken for dead and wakes up cannot take anything away. What
is written twice is dropped when it is read, by its place in its topic.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.times import HOUR_MS

NAME_BYTES_MAX = 200
TEMPORARY_S = HOUR_MS // 1_000
"""A temporary file as old as this belongs to a process that was killed."""
_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


class Hole(msgspec.Struct, frozen=True):
    """
    Records that are not in the archive, because Kafka no longer had them.

    Times are log times in ms of the records around it; None if there is none. `found_ms` is the
    wall clock when it was found.
    """

    topic: str
    partition: int
    first: int
    end: int
    after_ms: int | None = None
    before_ms: int | None = None
    found_ms: int | None = None

    @property
    def is_a_loss(self) -> bool:
        """Whether the archive had begun; what Kafka deleted before is no fault of an archiver."""
        return self.after_ms is not None


class Reached(msgspec.Struct, frozen=True):
    """How far a partition of `observations` is archived."""

    partition: int
    offset: int
    time_ms: int


def encoded(name: str) -> str:
    """
    A name of a model as part of a path: percent-encoded, and a long one cut, with a hash.

    >>> encoded("fraud"), encoded("a/b c~"), encoded("")
    ('fraud', 'a%2Fb%20c%7E', '')
    """
    text = quote(name, safe="").replace("~", "%7E")
    if len(text) <= NAME_BYTES_MAX:
        return text
    return f"{text[:150]}~{blake2b(name.encode(), digest_size=16).hexdigest()}"


def day_of(time_ms: int) -> str:
    """
    The day of a time, in UTC.

    >>> day_of(1_760_000_000_123)
    '2025-10-09'
    """
    return datetime.fromtimestamp(time_ms // 1_000, UTC).strftime("%Y-%m-%d")


class Folder:
    """
    The files of an archive.

    Raises
    ------
    InputError
        The folder cannot be made, or others can read it and that cannot be changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the folder, readable by its owner alone."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as e:
            raise InputError(
                f"archive.path: {self.path} cannot be made a folder that only its owner reads "
                f"({e.strerror or e}); name a folder below it, which is then made"
            ) from None

    def write(self, kind: str, model: str, day: str, partition: int, end: int, table: Any) -> int:
        """
        Write rows of records of a partition up to `end`; returns how many were not there yet.

        Parameters
        ----------
        kind, model, day : str
        partition, end : int
            Partition of `observations`, and the offset after the last record that was read.
        table : pyarrow.Table
            Rows in the order of `log_offset`.
        """
        import pyarrow.compute as pc

        folder = self.path / f"kind={kind}" / f"model={encoded(model)}" / f"day={day}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while len(table):
            first, began = table["log_offset"][0].as_py(), table["log_time"][0].as_py()
            told = {"first": first, "began": began, "end": end, "model": model}
            for name in (f"{partition}-{first}.parquet", f"{partition}-{first}-{began}.parquet"):
                if _placed(folder, name, table, told):
                    return len(table)
                there = told_by(folder / name)
                if there.get("began") == began:  # otherwise it is of a topic of the same name
                    table = table.filter(pc.greater_equal(table["log_offset"], there["end"]))
                    break
        return 0

    def files(self, kind: str, model: str) -> list[Path]:
        """Files of a kind and model, in order of their names."""
        return sorted((self.path / f"kind={kind}" / f"model={encoded(model)}").glob("*/*.parquet"))

    def models(self) -> list[str]:
        """Models that have predictions, as their folders are called."""
        return sorted(p.name[len("model=") :] for p in self.path.glob("kind=prediction/model=*"))

    def note(self, hole: Hole) -> None:
        """Keep a hole, so that whoever reads the rows knows of it."""
        self._put("holes", f"{hole.topic}-{hole.partition}-{hole.first}", msgspec.to_builtins(hole))

    def holes(self) -> list[Hole]:
        """All holes."""
        return [msgspec.convert(told, Hole) for told in self._told("holes")]

    def reach(self, reached: Reached) -> None:
        """Keep how far a partition is archived."""
        self._put("reached", str(reached.partition), msgspec.to_builtins(reached))

    def reached(self) -> list[Reached]:
        """How far each partition is archived."""
        return [msgspec.convert(told, Reached) for told in self._told("reached")]

    def sweep(self, keep_ms: int | None, now_ms: int) -> int:
        """
        Remove days older than `keep_ms`, and what killed processes left; returns how many days.
        """
        for part in self.path.rglob(".*.tmp"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > TEMPORARY_S:
                    part.unlink()
        if keep_ms is None:
            return 0
        oldest = day_of(max(now_ms - keep_ms, 0))
        old = [
            day
            for day in self.path.glob("kind=*/model=*/day=*")
            if (found := _DAY.fullmatch(day.name)) and found[1] < oldest
        ]
        for day in old:
            shutil.rmtree(day, ignore_errors=True)
        return len(old)

    def _put(self, kind: str, name: str, told: Mapping[str, Any]) -> None:
        folder = self.path / kind
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(folder / f"{name}.json", json.dumps(told).encode())

    def _told(self, kind: str) -> Iterator[Any]:
        for path in sorted((self.path / kind).glob("*.json")):
            with suppress(OSError, ValueError):
                yield json.loads(path.read_bytes())


def _placed(folder: Path, name: str, table: Any, told: Mapping[str, Any]) -> bool:
    """Write a file under a name that nothing has yet; whether nothing had it."""
    target = folder / name
    if target.exists() and told_by(target):
        return False
    part = folder / f".{name}.{os.getpid()}.tmp"
    try:
        save(part, table, told)
        try:
            os.link(part, target)
        except FileExistsError:
            if told_by(target):
                return False
            part.replace(target)  # what has the name is no file of ours that can be read
        except OSError:  # a file system without hard links
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    _settle(folder)
    return True


def save(path: Path, table: Any, told: Mapping[str, Any]) -> None:
    """Write a table, with what is told of it, to the disk."""
    import pyarrow.parquet as pq

    meta = {**(table.schema.metadata or {}), b"stream-monitor": json.dumps(told).encode()}
    with _private(path) as file:
        pq.write_table(table.replace_schema_metadata(meta), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def told_by(path: Path) -> dict[str, Any]:
    """What a file tells of itself; nothing if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(path).metadata or {}
        told: dict[str, Any] = json.loads(found.get(b"stream-monitor", b"{}"))
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return told


def replace(path: Path, data: bytes) -> None:
    """Put a small file in its place, whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _private(part) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _private(path: Path) -> BinaryIO:
    """A new file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _settle(folder: Path) -> None:
    """The name of a file is on the disk as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
