"""
The core on a stream of events, without a broker: the same INGEST, the same log format, the same EVALUATE.

Rule of the file: log time is event time, rounded up to a step, and no record of the log reaches over the end of a step. So a replay gives the same result every time, and
a label that comes exactly `labels.max_delay` after its prediction is in time, however many events are folded at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import gcd
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest
from stream_monitor.outcome import Refused, reasons, refused_by_model
from stream_monitor.settings import CoreSettings, Freshness, ModelSettings, Settings
from stream_monitor.verdicts import Out

CHUNK_EVENTS = 2_000
STEPS_MS = (1, 10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 3 * 3_600_000, 6 * 3_600_000, 12 * 3_600_000)
STEPS_MAX = 2_000
"""A step costs a millisecond or two, however few events it has: a longer input gets longer steps."""
STEP_SHARE = 8
"""A step is at most this part of the shortest time that the configuration speaks of."""


class Point(NamedTuple):
    """How a model version stood at a log time, in the first of its windows."""

    model: str
    version: str
    time_ms: int
    labels: int
    metrics: dict[str, float]


def step_ms(core: CoreSettings, span_ms: int) -> int:
    """
    The step of log time for an input whose events lie `span_ms` apart from first to last.

    It divides every `labels.max_delay`, so that rounding never makes a label late; one that is late by less than a step may still be in time.

    Examples
    --------
    >>> core = of_files(CoreSettings())
    >>> step_ms(core, 60_000), step_ms(core, 1_000_000_000), step_ms(core, 365 * 86_400_000)
    (100, 600000, 10800000)
    """
    models = [core.defaults, *core.models.values()]
    delays_ms = [m.labels.max_delay_ms for m in models]
    times_ms = [*delays_ms, *(t for m in models for t in (m.freshness.predictions_ms, m.freshness.labels_ms, *(rule.for_ms for rule in m.thresholds.values())) if t)]
    fitting = [s for s in STEPS_MS if s <= min(times_ms) // STEP_SHARE and gcd(s, *delays_ms) == s]
    return next((s for s in fitting if span_ms <= s * STEPS_MAX), max(fitting, default=1))


def of_files(core: CoreSettings) -> CoreSettings:
    """
    Settings for events out of files: a gap between two rows is no silence of a server, unless the configuration has a limit of its own.

    Examples
    --------
    >>> of_files(CoreSettings()).defaults.freshness.predictions_ms is None
    True
    """

    def quiet(model: ModelSettings) -> ModelSettings:
        return msgspec.structs.replace(model, freshness=Freshness(predictions_ms=None)) if model.freshness == Freshness() else model

    return msgspec.structs.replace(core, defaults=quiet(core.defaults), models={name: quiet(model) for name, model in core.models.items()})


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
    span_ms : int, ms
        From the first event to the last; a longer input is folded in longer steps (see `step_ms`).
    points : int
        About so many times on the way, how every model version stands is noted in `history`.
    """

    def __init__(self, settings: Settings, baselines: Mapping[str, bytes] | None = None, partitions: int = 1, *, span_ms: int = 0, points: int = 0) -> None:
        core = of_files(settings.core)
        self.ingest = Ingest(partitions, max_record_bytes=settings.worker.max_record_bytes)
        self.shards = [Shard(p, core, baselines, partitions=partitions, confirm_ms=0) for p in range(partitions)]
        self.step_ms = step_ms(core, span_ms)
        self.history: list[Point] = []
        self.offsets = Counter({"predictions": 0, "labels": 0})
        self.dead_letters: list[Refused] = []
        self.out: list[Out] = []
        self.log_time_ms = 0
        self._waiting: dict[str, list[tuple[bytes, int]]] = {"predictions": [], "labels": []}
        self._events = 0
        self._point_ms, self._pointed_ms = span_ms // points if points else 0, 0

    def feed(self, events: Iterable[tuple[str, bytes, Any, int]]) -> None:
        """Take events `(kind, value, key, time in ms)` in the order of their time."""
        step = self.step_ms
        for kind, value, _, time_ms in events:
            if time_ms > self.log_time_ms or self._events >= CHUNK_EVENTS:
                self._fold()
                self.log_time_ms = max(self.log_time_ms, -(-time_ms // step) * step)
            self._waiting[kind].append((value, time_ms))
            self._events += 1

    def _fold(self) -> None:
        if not self._events:
            return
        for kind, rows in self._waiting.items():
            if not rows:
                continue
            values: list[bytes | None] = [value for value, _ in rows]
            offsets = np.arange(self.offsets[kind], self.offsets[kind] + len(rows))
            times = np.array([t for _, t in rows], np.int64)
            self.offsets[kind] += len(rows)
            for reject in self.ingest.take(f"{kind}@replay/0", kind, values, offsets, times):
                self.dead_letters.append(Refused(kind, int(offsets[reject.index]), reject.reason, reject.message, rows[reject.index][0]))
            rows.clear()
        self._events = 0
        for target, records in self.ingest.flush(self.log_time_ms).items():
            for record in records:
                self.shards[target].fold(record)
        self._collect()
        if self._point_ms and self.log_time_ms - self._pointed_ms >= self._point_ms:
            self._note()

    def _note(self) -> None:
        """How every model version stands now."""
        self._pointed_ms = self.log_time_ms
        for shard in self.shards:
            for version in shard.versions:
                metrics, span = version.performance.window(version.settings.windows[0])
                if span.count:
                    self.history.append(Point(version.model, version.name, self.log_time_ms, span.count, metrics))

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
        if self._point_ms:
            self._note()

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
        for name, n in refused_by_model(self.dead_letters).items():
            if name in models:
                models[name]["rejected"] = n
        refused = {"refused": reasons(self.dead_letters)} if self.dead_letters else {}
        return {"schema": 1, "records": records, **refused, "models": models, "alerts": {"firing": alerts["firing"], "resolved": alerts["resolved"]}}

    @property
    def unmet_labels(self) -> int:
        """Labels that were accepted and met no prediction."""
        records = self.summary()["records"]["labels"]
        return records["accepted"] - sum(s.labels[outcome] for s in self.shards for outcome in ("matched", "corrected", "superseded"))  # type: ignore[no-any-return]
