"""
The core on a stream of events, without a broker: the same INGEST, the same log format, the same EVALUATE.

Rule of the file: events are cut every `CHUNK_EVENTS`, and log time is the greatest event time so far, so that a replay gives the same result every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.settings import Settings
from stream_monitor.verdicts import Out

CHUNK_EVENTS = 500


class DeadLetter(NamedTuple):
    kind: str
    offset: int
    reason: str
    message: str
    value: bytes


class Replay:
    """
    Folds events in chunks.

    Parameters
    ----------
    settings : Settings
    baselines : mapping of "model/version" to bytes
        Reference profiles.
    partitions : int
        Of the log that is folded; results do not depend on it.
    """

    def __init__(self, settings: Settings, baselines: Mapping[str, bytes] | None = None, partitions: int = 1) -> None:
        self.ingest = Ingest(partitions, max_record_bytes=settings.worker.max_record_bytes)
        self.shards = [Shard(p, settings.core, baselines) for p in range(partitions)]
        self.offsets = Counter({"predictions": 0, "labels": 0})
        self.dead_letters: list[DeadLetter] = []
        self.out: list[Out] = []
        self.log_time_ms = 0
        self._waiting: dict[str, list[tuple[bytes, int]]] = {"predictions": [], "labels": []}
        self._events = 0

    def feed(self, events: Iterable[tuple[str, bytes, Any, int]]) -> None:
        """Take events `(kind, value, key, time in ms)` in the order of their time."""
        for kind, value, _, time_ms in events:
            self._waiting[kind].append((value, time_ms))
            self._events += 1
            self.log_time_ms = max(self.log_time_ms, time_ms)
            if self._events >= CHUNK_EVENTS:
                self._fold()

    def _fold(self) -> None:
        for kind, rows in self._waiting.items():
            if not rows:
                continue
            values: list[bytes | None] = [value for value, _ in rows]
            offsets = np.arange(self.offsets[kind], self.offsets[kind] + len(rows))
            times = np.array([t for _, t in rows], np.int64)
            self.offsets[kind] += len(rows)
            for reject in self.ingest.take(f"{kind}@replay/0", kind, values, offsets, times):
                self.dead_letters.append(DeadLetter(kind, int(offsets[reject.index]), reject.reason, reject.message, rows[reject.index][0]))
            rows.clear()
        self._events = 0
        for target, records in self.ingest.flush(self.log_time_ms).items():
            for record in records:
                self.shards[target].fold(record)
        self._collect()

    def _collect(self) -> None:
        for shard in self.shards:
            self.out += shard.outbox
            shard.outbox = []

    def close(self) -> None:
        """Fold what waits, and judge once more."""
        self._fold()
        for shard in self.shards:
            shard.close()
        self._collect()

    def alerts(self) -> list[bytes]:
        """Alert events so far, in order."""
        return [o.value for o in self.out if o.topic == "alerts"]

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        models: dict[str, Any] = {}
        alerts: Counter[str] = Counter()
        records: dict[str, Any] = {}
        for kind in ("predictions", "labels"):
            received = self.offsets[kind]
            rejected = self.ingest.counts[kind, "rejected"]
            duplicate = sum(s.summary()["records"][kind]["duplicate"] for s in self.shards)
            if kind == "labels":
                duplicate = sum(s.labels["duplicate"] for s in self.shards)
            records[kind] = {"received": received, "accepted": received - rejected - duplicate, "duplicate": duplicate, "rejected": rejected}
        for shard in self.shards:
            part = shard.summary()
            alerts.update(part["alerts"])
            for name, found in part["models"].items():
                models.setdefault(name, {"versions": {}})["versions"].update(found["versions"])
        return {"schema": 1, "records": records, "models": models, "alerts": {"firing": alerts["firing"], "resolved": alerts["resolved"]}}
