"""
Where training data comes from: the archive, or the topics themselves.

Rule of the file: whatever the source, what comes out are files of the form of the archive, and what
is missing from them. So one query makes training data of all of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from stream_monitor.errors import BrokerError, InputError
from stream_monitor.events.observations import unpack
from stream_monitor.ingest import Ingest
from stream_monitor.kafka.records import Record, TopicReader
from stream_monitor.settings import Settings
from stream_monitor.training.columns import Part, Place, parts, together
from stream_monitor.training.folder import Folder, Hole, save

TOPICS = ("predictions", "labels")
BATCH_RECORDS = 2_000
FILE_ROWS = 100_000


class Found(NamedTuple):
    """Files of a source with the rows of one model."""

    predictions: Sequence[Path]
    labels: Sequence[Path]
    """Of the model, and of labels that name no model."""
    holes: Sequence[Hole]
    reached_ms: int | None
    """Log time up to which everything is there; None if nothing tells."""


class Source(Protocol):
    """A place that has predictions and labels."""

    name: str

    def find(self, model: str, work: Path) -> Found:
        """The files with rows of this model; `work` is an empty folder for temporary ones."""


class ArchiveSource:
    """
    The folder of an archive.

    Raises
    ------
    InputError
        There is no such folder, or nothing of the model in it.
    """

    name = "archive"

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        if not path.is_dir():
            raise InputError(
                f"{path}: there is no archive; `stream-monitor archive` makes one, or take the "
                "rows that Kafka still has with --from kafka"
            )

    def find(self, model: str, work: Path) -> Found:  # noqa: ARG002
        """The files of the model."""
        predictions = self.folder.files("prediction", model)
        if not predictions:
            there = ", ".join(self.folder.models()[:20]) or "nothing yet"
            raise InputError(
                f"{self.folder.path}: no predictions of model {model!r}; it has {there}"
            )
        labels = [*self.folder.files("label", model), *self.folder.files("label", "")]
        reached = [r.time_ms for r in self.folder.reached()]
        return Found(predictions, labels, self.folder.holes(), min(reached, default=None))


class KafkaSource:
    """
    The topics `predictions` and `labels`, as long as Kafka keeps them.

    `find` runs an event loop of its own, so call it in a thread if one runs already.

    Raises
    ------
    BrokerError
        The broker cannot be reached, or a topic does not exist.
    InputError
        Kafka has no predictions of the model.
    """

    name = "kafka"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def find(self, model: str, work: Path) -> Found:
        """Files in `work` with all rows of the model that Kafka has."""
        return asyncio.run(_Copy(self.settings, model, work).run())


class _Copy:
    """Copies the rows of one model from Kafka into files."""

    def __init__(self, settings: Settings, model: str, work: Path) -> None:
        self.settings, self.model, self.work = settings, model, work
        self.files: dict[str, list[Path]] = {"prediction": [], "label": []}
        self.holes: list[Hole] = []
        self._ingest = Ingest(1, max_record_bytes=settings.worker.max_record_bytes)
        self._batches: dict[tuple[str, int], list[tuple[int, bytes | None, int, int]]] = (
            defaultdict(list)
        )
        self._came_ms: dict[tuple[str, int], int] = {}
        self._models: set[str] = set()
        self._tables: dict[str, list[Any]] = defaultdict(list)

    async def run(self) -> Found:
        async with TopicReader(self.settings, TOPICS) as records:
            if records.missing:
                prefix = self.settings.kafka.topic_prefix
                names = ", ".join(prefix + name for name in records.missing)
                raise BrokerError(f"the topics {names} do not exist; a worker creates them")
            async for record in records.whole():
                self._take(record)
        for key in list(self._batches):
            self._decode(*key)
        for kind in list(self._tables):
            self._write(kind)
        if not self.files["prediction"]:
            there = ", ".join(map(repr, sorted(self._models)[:20])) or "none"
            raise InputError(f"Kafka has no predictions of model {self.model!r}; it has {there}")
        return Found(self.files["prediction"], self.files["label"], self.holes, None)

    def _take(self, record: Record) -> None:
        key = record.topic, record.partition
        if key not in self._came_ms and record.offset:
            topic = self.settings.kafka.topic_prefix + record.topic
            self.holes.append(
                Hole(topic, record.partition, 0, record.offset, before_ms=record.time_ms)
            )
        # a later record of a partition came later, whatever its producer says
        came_ms = self._came_ms[key] = max(record.time_ms, self._came_ms.get(key, 0))
        self._batches[key].append((record.offset, record.value, record.time_ms, came_ms))
        if len(self._batches[key]) >= BATCH_RECORDS:
            self._decode(*key)

    def _decode(self, topic: str, partition: int) -> None:
        records = self._batches.pop((topic, partition), [])
        if not records:
            return
        offsets, values, times_ms, came_ms = zip(*records, strict=True)
        source = f"{self.settings.kafka.topic_prefix}{topic}@/{partition}"
        self._ingest.take(
            source, topic, values, np.array(offsets, np.int64), np.array(times_ms, np.int64)
        )
        self._ingest.newest_ms.clear()
        for packed in self._ingest.flush(0).values():
            for observations in map(unpack, packed):
                self._models |= {g.model for g in observations.head.groups if g.model}
                at = np.searchsorted(np.array(offsets), observations.rows["offset"])
                came = np.array(came_ms, np.int64)[at]
                for part in parts(observations, Place(0, 0, 0), model=self.model, arrivals_ms=came):
                    self._keep(part)

    def _keep(self, part: Part) -> None:
        tables = self._tables[part.kind]
        tables.append(part.table)
        if sum(map(len, tables)) >= FILE_ROWS:
            self._write(part.kind)

    def _write(self, kind: str) -> None:
        path = self.work / f"{kind}-{len(self.files[kind])}.parquet"
        save(path, together(self._tables.pop(kind)), {})
        self.files[kind].append(path)
