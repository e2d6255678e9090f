"""
The core on a stream of events, without a broker: the same INGEST, the same log format, the same
EVALUATE.

Rule of the file: log time is event time, and every row has its own. So a replay gives the same
result every time, and a label that comes exactly `labels.max_delay` after its prediction is in
time, however many rows are folded at once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.evaluate import TICK_MS, Shard
from stream_monitor.experiments.experiment import Experiment
from stream_monitor.experiments.judgement import hours, standing
from stream_monitor.experiments.telling import VERDICT
from stream_monitor.ingest import Ingest, tick
from stream_monitor.inputs.readers import Unusable
from stream_monitor.offline.named import Ids
from stream_monitor.offline.outcome import Refused, reasons, refused_by_model
from stream_monitor.offline.pace import Pace, of_files
from stream_monitor.offline.witness import Witness
from stream_monitor.settings import Settings
from stream_monitor.verdicts import Out

CHUNK_EVENTS = 2_000


class Point(NamedTuple):
    """The metrics of a model version at a log time, in the first of its windows."""

    model: str
    version: str
    time_ms: int
    labels: int
    metrics: dict[str, float]


class Course(NamedTuple):
    """An arm of an experiment at a log time, by its primary outcome."""

    model: str
    experiment: str
    arm: str
    time_ms: int
    phase: int
    verdict: str
    ready: bool
    estimate: float
    low: float
    """An end that is not known is infinite."""
    high: float
    hours: float
    percent: bool
    """Whether differences are shares."""


def courses(experiment: Experiment, now_ms: int) -> list[Course]:
    """A point of each arm of which there is an interval."""
    d, out = experiment.definition, []
    for found in standing(experiment, now_ms):
        contrast = found.evidence[d.outcomes[0].metric]
        if "interval" in contrast:
            low, high = contrast["interval"]
            out.append(
                Course(
                    d.model,
                    d.name,
                    found.arm,
                    now_ms,
                    experiment.phase,
                    found.verdict,
                    contrast["ready"],
                    contrast["estimate"],
                    -inf if low is None else low,
                    inf if high is None else high,
                    hours(experiment, now_ms),
                    d.outcomes[0].is_share or d.outcomes[0].is_log,
                )
            )
    return out


class Replay:
    """
    Folds events in chunks.

    Parameters
    ----------
    settings : Settings
    baselines : mapping of "model/version" to bytes
        Baseline profiles.
    partitions : int
        Number of partitions of the log; results do not depend on it.
    span_ms : int, ms
        From the first event to the last; a longer input is folded in longer steps (see `Pace`).
    points : int
        About how many times the metrics of every model version are added to `history`, and those
        of every experiment to `courses`; more than 0 also keeps what a report shows (`witness`).
    """

    def __init__(
        self,
        settings: Settings,
        baselines: Mapping[str, bytes] | None = None,
        partitions: int = 1,
        *,
        span_ms: int = 0,
        points: int = 0,
    ) -> None:
        core = of_files(settings.core)
        self.ingest = Ingest(
            partitions, max_record_bytes=settings.worker.max_record_bytes, of_log=False
        )
        self.shards = [
            Shard(p, core, baselines, partitions=partitions, confirm_ms=0)
            for p in range(partitions)
        ]
        for shard in self.shards:
            shard.tells_history = False
        self.span_ms, self.pace = span_ms, Pace.of(core, span_ms)
        self.history: list[Point] = []
        self.courses: list[Course] = []
        self.witness = Witness() if points else None
        """Remembers what the report shows."""
        self.offsets = Counter({"lifecycle": 0, "predictions": 0, "labels": 0})
        self.dead_letters: list[Refused] = []
        self.out: list[Out] = []
        self.log_time_ms = 0
        self._waiting: dict[str, list[tuple[bytes, int, Any]]] = {kind: [] for kind in self.offsets}
        self._ids = Ids()
        self._events = 0
        self._began_ms, self._longest_ms = 0, inf
        self._recent: deque[int] = deque(maxlen=self.pace.least_rows)
        self._point_ms, self._pointed_ms = span_ms // points if points else 0, 0

    def feed(self, events: Iterable[tuple[str, bytes, Any, int]]) -> None:
        """Process events `(kind, value, key, time in ms)` in the order of their time."""
        recent, rows, least_ms = self._recent, self.pace.rows, self.pace.span_ms
        for kind, value, key, time_ms in events:
            if self._events and time_ms > self.log_time_ms:
                span_ms = time_ms - self._began_ms
                full = span_ms >= least_ms and max(map(len, self._waiting.values())) >= rows
                if (
                    full
                    or self._events >= CHUNK_EVENTS
                    or span_ms > self._longest_ms
                    or time_ms - self.log_time_ms > self.pace.retire_ms
                ):
                    self._fold(time_ms)
            elif self._events >= CHUNK_EVENTS:
                self._fold(time_ms)
            if not self._events:
                self._begin(max(time_ms, self.log_time_ms))
            self.log_time_ms = max(self.log_time_ms, time_ms)
            recent.append(time_ms)
            self._waiting[kind].append((value, self.log_time_ms, key))
            self._events += 1

    def _begin(self, time_ms: int) -> None:
        """Begin a step."""
        self._began_ms = time_ms
        crowd_ms = time_ms - self._recent[0] if len(self._recent) == self._recent.maxlen else inf
        self._longest_ms = self.pace.longest_ms(
            crowd_ms, several=sum(len(shard.registry.state.active) for shard in self.shards) > 1
        )

    def _fold(self, next_ms: float = inf) -> None:
        """
        Fold the waiting events, and judge a tick later if the next event does not come before.
        """
        if not self._events:
            return
        arrivals: dict[str, tuple[int, NDArray[np.int64]]] = {}
        for kind, rows in self._waiting.items():
            if not rows:
                continue
            values: list[bytes | None] = [value for value, _, _ in rows]
            offsets = np.arange(self.offsets[kind], self.offsets[kind] + len(rows))
            times = np.array([t for _, t, _ in rows], np.int64)
            self._ids.add(kind, (key for _, _, key in rows))
            arrivals[f"{kind}@replay/0"] = self.offsets[kind], times
            self.offsets[kind] += len(rows)
            for reject in self.ingest.take(f"{kind}@replay/0", kind, values, offsets, times):
                value = rows[reject.index][0]
                why = value.why if isinstance(value, Unusable) else reject.message
                self.dead_letters.append(
                    Refused(kind, int(offsets[reject.index]), reject.reason, why, value)
                )
            rows.clear()
        self._events = 0
        for target, records in self.ingest.flush(self.log_time_ms, arrivals).items():
            for record in records:
                self.shards[target].fold(record, arrivals=arrivals)
            if next_ms - self.log_time_ms >= TICK_MS:
                self.shards[target].fold(tick(self.log_time_ms + TICK_MS))
        self._collect()
        if self._point_ms and self.log_time_ms - self._pointed_ms >= self._point_ms:
            self._note()

    def _note(self) -> None:
        """Add the present metrics of every model version to `history`."""
        self._pointed_ms = self.log_time_ms
        for shard in self.shards:
            for version in shard.versions:
                metrics, span = version.performance.window(version.settings.windows[0])
                if span.count:
                    self.history.append(
                        Point(version.model, version.name, self.log_time_ms, span.count, metrics)
                    )
            for experiment in shard.experiments:
                if not experiment.stopped:
                    self.courses += courses(experiment, self.log_time_ms)

    def _collect(self) -> None:
        for shard in self.shards:
            if self.witness is not None:
                self.witness.look(shard)
            self.out += map(self._ids.named, shard.outbox)
            shard.outbox = []

    def rest(self) -> None:
        """Fold the waiting events; more may come."""
        self._fold()

    def close(self) -> None:
        """Fold the waiting events, and judge once more."""
        self._fold()
        for shard in self.shards:
            shard.close()
        self._collect()
        if self._point_ms:
            self._note()
        if self.witness is not None:
            self.witness.close(self.shards)

    def alerts(self) -> list[bytes]:
        """Alert events so far, in order."""
        return [o.value for o in self.out if o.topic == "alerts"]

    def verdicts(self) -> list[bytes]:
        """Verdicts on experiments so far, in order (`experiment_verdict` events)."""
        return self.told(VERDICT)

    def told(self, *kinds: str) -> list[bytes]:
        """Events of these types that the worker would write to `lifecycle`, in order."""
        values = [o.value for o in self.out if o.topic == "lifecycle"]
        return [v for v in values if msgspec.json.decode(v)["type"] in kinds]

    def summary(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        models: dict[str, Any] = {}
        alerts: Counter[str] = Counter()
        records: dict[str, Any] = {}
        experiments: dict[str, Any] = {}
        for kind in ("predictions", "labels"):
            received = self.offsets[kind]
            rejected = self.ingest.counts[kind, "rejected"]
            duplicate = sum(s.summary()["records"][kind]["duplicate"] for s in self.shards)
            if kind == "labels":
                duplicate = sum(s.outcomes.labels["duplicate"] for s in self.shards)
            records[kind] = {
                "received": received,
                "accepted": received - rejected - duplicate,
                "duplicate": duplicate,
                "rejected": rejected,
            }
        for shard in self.shards:
            part = shard.summary()
            alerts.update(part["alerts"])
            for name, of_name in part.get("experiments", {}).items():
                experiments.setdefault(name, {}).update(of_name)
            for name, found in part["models"].items():
                models.setdefault(name, {"versions": {}})["versions"].update(found["versions"])
        for name, n in refused_by_model(self.dead_letters).items():
            if name in models:
                models[name]["rejected"] = n
        refused = {"refused": reasons(self.dead_letters)} if self.dead_letters else {}
        return {
            "schema": 1,
            "records": records,
            **refused,
            "models": models,
            "alerts": {name: alerts[name] for name in ("firing", "resolved", "notifications")},
            **({"experiments": experiments} if experiments else {}),
        }

    @property
    def unmet_labels(self) -> int:
        """Accepted labels that matched no prediction."""
        records = self.summary()["records"]["labels"]
        met = ("matched", "corrected", "superseded")
        return int(records["accepted"]) - sum(
            s.outcomes.labels[o] for s in self.shards for o in met
        )
