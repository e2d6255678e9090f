"""
EVALUATE: the log of one partition of `observations` in, verdicts and effects out.

Rule of the file: the state is a fold of the log and nothing else. The same records give the same state, alerts and ids, whenever and wherever they are folded;
no clock but log time (the greatest flush time on the log), no I/O. Read `Shard.fold` as the table of contents of the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.alerts.event import encode
from stream_monitor.alerts.lifecycle import Alerts
from stream_monitor.errors import StateError
from stream_monitor.events.cells import ABSENT_CELL, Cells, Texts, remap, text_indices
from stream_monitor.events.join import ANY, Join, LabelRows, Pairs, Predictions
from stream_monitor.events.observations import FAILURE, LABEL, Observations, unpack
from stream_monitor.events.ring import Ring
from stream_monitor.metrics.samples import AnySample, Sample
from stream_monitor.monitors.exposition import version_samples, version_summary
from stream_monitor.monitors.inputs import Rows
from stream_monitor.monitors.version import Version
from stream_monitor.settings import CoreSettings
from stream_monitor.verdicts import Out, Verdict

Int = NDArray[np.int64]
TICK_MS = 1_000
"""Log time between two rounds of expiry, freshness and judgement of what is due."""
FRESH_MS, FRESH_MANY_MS, MANY = 100, 1_000, 20
"""Rows wait at most so long (log time) before they are reduced; longer when more than MANY versions are active, since a reduction has a fixed cost."""
OTHER = "__other__"
OUTCOME_TEXTS_MAX = 65_536
SNAPSHOT_SCHEMA = 1


class Part(NamedTuple):
    """Rows of predictions of one layout."""

    columns: tuple[str, ...]
    times_ms: Int
    version: Int
    cells: Cells


class Shard:
    """
    The state of one partition of `observations`.

    Parameters
    ----------
    partition : int
    settings : CoreSettings
    baselines : mapping of "model/version" to bytes
        Published reference profiles (JSON).

    Notes
    -----
    About 1 µs a row and 2 to 3 µs of statistics a prediction of 10 features when rows arrive by the thousand.
    """

    def __init__(self, partition: int, settings: CoreSettings, baselines: Mapping[str, bytes] | None = None) -> None:
        self.partition, self.settings, self.baselines = partition, settings, dict(baselines or {})
        self.log_time_ms = 0
        self.seen: dict[str, int] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.labels: Counter[str] = Counter()
        self.join = Join(settings.limits.pending)
        self.alerts = Alerts()
        self.outbox: list[Out] = []
        self.models: dict[str, int] = {}
        self.versions: list[Version] = []
        self._version_codes: dict[tuple[int, str], int] = {}
        self._model_names: list[str] = []
        self._outcome_texts = Texts()
        self._dirty: dict[int, int] = {}

    # ---- the pipeline

    def fold(self, record: bytes) -> None:
        """
        Take one record of `observations`.

        Raises
        ------
        StateError
            The record is of another version of the format.
        """
        observations = unpack(record)
        self._advance(observations.head.flushed_ms)
        fresh = self._unseen(observations)
        predictions, failures, labels, parts = self._rows(observations, fresh)
        joined = self.join.apply(predictions, labels, self.log_time_ms)
        self.counts["predictions", "duplicate"] += int(joined.duplicate.sum())
        self.counts["predictions", "accepted"] += len(joined.duplicate) - int(joined.duplicate.sum()) + failures
        self.counts["labels", "accepted"] += len(labels.row)
        self.labels.update({k: n for k, n in joined.outcomes.items() if n})
        self._deliver(parts, joined.duplicate, observations.head.texts)
        self._deliver_pairs(joined.pairs)
        self._reduce_due()

    def _advance(self, flushed_ms: int) -> None:
        """Log time moves on; whatever waits for it is done before the record's rows are taken."""
        before, self.log_time_ms = self.log_time_ms, max(self.log_time_ms, flushed_ms)
        self._reduce_due()
        if self.log_time_ms // TICK_MS > before // TICK_MS:
            self._tick()

    def _unseen(self, observations: Observations) -> NDArray[np.bool_]:
        """Rows that lie at or after the next expected offset of their source; what lies before was there already."""
        rows, sources = observations.rows, observations.head.sources
        source, offset = rows["source"], rows["offset"]
        expected = np.array([self.seen.get(s, 0) for s in sources], np.int64)
        fresh: NDArray[np.bool_] = offset >= expected[source] if len(sources) else np.ones(0, bool)
        np.maximum.at(expected, source, offset + 1)
        self.seen.update(zip(sources, expected.tolist(), strict=True))
        seen = len(rows) - int(fresh.sum())
        if seen:
            kinds = np.array([g.kind for g in observations.head.groups])[rows["group"][~fresh]]
            labels = int((kinds == LABEL).sum())
            self.counts["labels", "seen"] += labels
            self.counts["predictions", "seen"] += seen - labels
        return fresh

    # ---- rows

    def _rows(self, obs: Observations, fresh: NDArray[np.bool_]) -> tuple[Predictions, int, LabelRows, list[Part]]:
        """The rows by kind. `parts` has for each block of predictions: the block, its kept rows, their versions, their cells."""
        kinds, codes, models = self._codes(obs)
        predictions: list[Predictions] = []
        labels: list[LabelRows] = []
        parts: list[Part] = []
        failures = 0
        everything = bool(fresh.all())
        for block in obs.blocks:
            kept = np.arange(len(block.rows)) if everything else np.flatnonzero(fresh[block.rows])
            if not len(kept):
                continue
            cells = block.cells if len(kept) == len(block.rows) else block.cells[:, kept]
            at = block.rows[kept]
            rows = obs.rows[at]
            kind = kinds[rows["group"]]
            for k in np.unique(kind).tolist():
                mine = slice(None) if bool((kind == k).all()) else np.flatnonzero(kind == k)
                if k == LABEL:
                    labels.append(self._label_rows(obs, block.columns, cells[:, mine], at[mine], rows[mine], models, codes))
                elif k == FAILURE:
                    failures += self._failures(rows[mine], codes)
                else:
                    version = codes[rows["group"][mine]]
                    predictions.append(self._prediction_rows(obs, block.columns, cells[:, mine], at[mine], rows[mine], version))
                    parts.append(Part(block.columns, rows["time"][mine].copy(), version, cells[:, mine]))
        return _joined_predictions(predictions), failures, _joined_labels(labels), parts

    def _codes(self, obs: Observations) -> tuple[Int, Int, Int]:
        """Kind, version code and model code of each group of the record."""
        kinds, codes, models = [], [], []
        for group in obs.head.groups:
            model = self._model(group.model) if group.model else ANY
            version = ANY if group.version is None or model == ANY else self._version(model, group.version)
            kinds.append(group.kind)
            models.append(model)
            codes.append(version)
        return np.array(kinds, np.int64), np.array(codes, np.int64), np.array(models, np.int64)

    def _model(self, name: str) -> int:
        code = self.models.get(name)
        if code is None:
            unconfigured = sum(n not in self.settings.models for n in self._model_names)
            if name not in self.settings.models and name != OTHER and unconfigured >= self.settings.limits.models:
                return self._model(OTHER)
            code = self.models[name] = len(self._model_names)
            self._model_names.append(name)
        return code

    def _version(self, model: int, name: str) -> int:
        code = self._version_codes.get((model, name))
        if code is None:
            mine = sum(m == model for m, _ in self._version_codes)
            if name != OTHER and mine >= self.settings.limits.versions:
                return self._version(model, OTHER)
            code = self._version_codes[model, name] = len(self.versions)
            model_name = self._model_names[model]
            settings = self.settings.of(model_name)
            self.versions.append(Version(model_name, name, settings, self.settings.limits, self.baselines, self._siblings(model)))
            self.join.register(code, model, settings.labels.max_delay_ms)
        return code

    def _siblings(self, model: int) -> list[Version]:
        return [self.versions[code] for (m, _), code in self._version_codes.items() if m == model and code < len(self.versions)]

    def _outcomes(self, cells: Cells, texts: list[str]) -> Cells:
        """Cells of predictions or labels, with texts in the dictionary of this shard."""
        if not texts:
            return cells
        used = text_indices(cells)
        if not len(used):
            return cells
        table = np.zeros(len(texts), np.int64)
        for i in used.tolist():
            text = texts[i] if texts[i] in self._outcome_texts or len(self._outcome_texts.names) < OUTCOME_TEXTS_MAX else OTHER
            self._outcome_texts[text]  # made when it is missing
            table[i] = self._text_index(text)
        return remap(cells, table)

    def _text_index(self, text: str) -> int:
        return int(np.array([self._outcome_texts[text]]).view(np.uint64)[0] & np.uint64(0xFFFFFFFF))

    def _prediction_rows(self, obs: Observations, columns: tuple[str, ...], cells: Cells, at: Int, rows: NDArray[np.void], version: Int) -> Predictions:
        n = len(at)
        outcome = self._outcomes(_column(columns, cells, "prediction"), obs.head.texts)
        classes = [c for c in columns if c.startswith("score.")]
        probabilities = self._probabilities(columns, cells, classes, version) if classes else np.empty((n, 0))
        return Predictions(at, rows["id"].copy(), rows["time"].copy(), version, outcome, _column(columns, cells, "score"), np.zeros(n, np.int64), probabilities)

    def _probabilities(self, columns: tuple[str, ...], cells: Cells, classes: list[str], version: Int) -> Cells:
        """Class scores in the order of the classes of each version."""
        out = np.full((cells.shape[1], self.join.classes), np.nan)
        for code in np.unique(version).tolist():
            rows = np.flatnonzero(version == code)
            places = [self.versions[code].class_column(c.removeprefix("score.")) for c in classes]
            if max(places, default=-1) >= self.join.classes:
                self.join.widen(max(places) + 1)
                out = np.concatenate([out, np.full((len(out), self.join.classes - out.shape[1]), np.nan)], axis=1)
            for place, name in zip(places, classes, strict=True):
                out[rows, place] = cells[columns.index(name)][rows]
        return out

    def _label_rows(self, obs: Observations, columns: tuple[str, ...], cells: Cells, at: Int, rows: NDArray[np.void], models: Int, codes: Int) -> LabelRows:
        partition = np.array([int(s.rpartition("/")[2]) for s in obs.head.sources], np.int64)
        label = self._outcomes(_column(columns, cells, "label"), obs.head.texts)
        group = rows["group"]
        return LabelRows(at, rows["id"].copy(), models[group], codes[group], label, rows["time"].copy(), partition[rows["source"]], rows["offset"].copy())

    def _failures(self, rows: NDArray[np.void], codes: Int) -> int:
        version = codes[rows["group"]]
        for code, index in _by_code(version):
            self.versions[code].failed(len(rows["id"][index]), self.log_time_ms)
        return len(rows)

    # ---- what the versions get

    def _deliver(self, parts: list[Part], duplicate: NDArray[np.bool_], texts: list[str]) -> None:
        start = 0
        for columns, times, version, cells in parts:
            repeated = duplicate[start : start + len(times)]
            start += len(times)
            if repeated.any():
                times, version, cells = times[~repeated], version[~repeated], cells[:, ~repeated]
            for code, index in _by_code(version):
                self.versions[code].take(Rows(columns, cells[:, index], times[index], texts), self.log_time_ms)
                self._dirty.setdefault(code, self.log_time_ms)

    def _deliver_pairs(self, pairs: list[Pairs]) -> None:
        for part in pairs:
            order = np.argsort(part.row, kind="stable")
            for code, index in _by_code(part.version[order]):
                at = order[index]
                self.versions[code].take_pairs(part.take(at), self._outcome_texts.names, self.log_time_ms)
                self._dirty.setdefault(code, self.log_time_ms)

    def _reduce_due(self) -> None:
        wait = FRESH_MS if len(self._dirty) <= MANY else FRESH_MANY_MS
        due = [code for code, since in self._dirty.items() if self.log_time_ms - since >= wait or self.versions[code].is_full]
        for code in due:
            del self._dirty[code]
            self.versions[code].reduce(self._judge, self.log_time_ms)
            self.outbox += self.versions[code].drain()

    def _judge(self, verdict: Verdict) -> None:
        for alert in self.alerts.observe(verdict, self.log_time_ms):
            self.outbox.append(Out("alerts", alert.fingerprint.encode(), encode(alert)))

    def _tick(self) -> None:
        self.join.expire(self.log_time_ms)
        self.labels["orphan"] = self.join.orphans
        for version in self.versions:
            version.tick(self.log_time_ms, self._judge)
            self.outbox += version.drain()

    # ---- what is told

    def samples(self) -> Iterator[AnySample]:
        """Gauges and counters of every model version, and of this shard."""
        for version in self.versions:
            yield from version_samples(version)
        firing = Counter((key.model, key.version, episode.severity) for key, episode in self.alerts.firing())
        for (model, name, severity), n in firing.items():
            yield Sample("model_alerts_firing", (model, name, severity), n)
        for (topic, outcome), n in self.counts.items():
            yield Sample("stream_monitor_records_total", (topic, outcome), n)
        for outcome, n in self.labels.items():
            yield Sample("stream_monitor_labels_total", (outcome,), n)

    def summary(self) -> dict[str, Any]:
        """The part of `summary.json` that this shard knows."""
        models: dict[str, Any] = {}
        for code, version in enumerate(self.versions):
            versions = models.setdefault(version.model, {"versions": {}})["versions"]
            waiting = {"pending": int(self.join.pending[code]), "expired": int(self.join.expired[code]), "evicted": int(self.join.evicted[code])}
            versions[version.name] = version_summary(version, waiting)
        records = {kind: {o: self.counts[kind, o] for o in ("accepted", "duplicate", "seen")} for kind in ("predictions", "labels")}
        return {"models": models, "records": records, "alerts": {"firing": sum(1 for _ in self.alerts.firing()), "resolved": self.alerts.counts["resolved"]}}

    def close(self) -> None:
        """Reduce and judge whatever still waits: the end of a replay."""
        for code in list(self._dirty):
            self.versions[code].reduce(self._judge, self.log_time_ms)
        self._dirty.clear()
        self._tick()

    # ---- snapshot

    def snapshot(self, known: Container[str] = ()) -> dict[str, bytes | None]:
        """
        The state in parts.

        Parameters
        ----------
        known : container of str
            Names of immutable parts that are stored already; their value is None.

        Returns
        -------
        dict of part name to bytes
            `state`, and `segment-…` parts that never change once they are full.
        """
        parts: dict[str, bytes | None] = {}
        for ring_name in ("predictions", "labels"):
            ring: Ring = getattr(self.join, ring_name)
            for k, (start, end) in ring.segments().items():
                name = f"segment-{ring_name}-{k:09}"
                parts[name] = None if name in known else msgspec.msgpack.encode(ring.segment(start, end))
        versions = [(v.model, v.name, v.state()) for v in self.versions]
        state = {
            "schema": SNAPSHOT_SCHEMA,
            "log_time_ms": self.log_time_ms,
            "seen": self.seen,
            "counts": [[*k, n] for k, n in self.counts.items()],
            "labels": dict(self.labels),
            "join": self.join.state(),
            "alerts": self.alerts.state(),
            "models": self._model_names,
            "version_codes": [[m, n] for m, n in self._version_codes],
            "texts": self._outcome_texts.names,
            "dirty": self._dirty,
            "versions": versions,
            "outbox": [tuple(o) for o in self.outbox],
        }
        parts["state"] = msgspec.msgpack.encode(state)
        return parts

    @classmethod
    def restore(cls, partition: int, settings: CoreSettings, parts: Mapping[str, bytes], baselines: Mapping[str, bytes] | None = None) -> Shard:
        """
        The state of a snapshot.

        Raises
        ------
        StateError
            The snapshot is of another schema, or a part is missing.
        """
        state = msgspec.msgpack.decode(parts["state"], strict=False)
        if state["schema"] != SNAPSHOT_SCHEMA:
            message = f"the snapshot has schema {state['schema']}, this version reads {SNAPSHOT_SCHEMA}: reset the group's offsets of observations to fold it again"
            raise StateError(message)
        shard = cls(partition, settings, baselines)
        shard.log_time_ms, shard.seen = state["log_time_ms"], dict(state["seen"])
        shard.counts = Counter({(k, o): n for k, o, n in state["counts"]})
        shard.labels, shard.alerts = Counter(state["labels"]), Alerts.from_state(state["alerts"])
        for text in state["texts"]:
            shard._outcome_texts[text]
        for name in state["models"]:
            shard._model(name)
        for (model, name), (_, _, saved) in zip(state["version_codes"], state["versions"], strict=True):
            shard.versions[shard._version(model, name)].load(saved, shard._outcome_texts.names)
        segments: dict[str, dict[int, dict[str, bytes]]] = {"predictions": {}, "labels": {}}
        for part, data in parts.items():
            if part.startswith("segment-"):
                _, ring_name, k = part.split("-")
                segments[ring_name][int(k)] = msgspec.msgpack.decode(data)
        shard.join = Join.from_state(settings.limits.pending, state["join"], segments)
        shard._dirty = {int(k): v for k, v in state["dirty"].items()}
        shard.outbox = [Out(*o) for o in state["outbox"]]
        return shard


def _column(columns: tuple[str, ...], cells: Cells, name: str) -> Cells:
    return cells[columns.index(name)] if name in columns else np.full(cells.shape[1], ABSENT_CELL)


def _by_code(codes: Int) -> Iterator[tuple[int, Any]]:
    """Each code with the index of its rows, in order; a slice when there is one code only."""
    if not len(codes):
        return
    if (codes == codes[0]).all():
        yield int(codes[0]), slice(None)
        return
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)], strict=True):
        yield int(ordered[start]), order[start:end]


def _joined_predictions(parts: list[Predictions]) -> Predictions:
    if len(parts) == 1:
        return parts[0]
    empty = np.empty(0, np.int64)
    if not parts:
        return Predictions(empty, empty.astype(np.uint64), empty, empty, np.empty(0), np.empty(0), empty, np.empty((0, 0)))
    width = max(p.probabilities.shape[1] for p in parts)
    wide = [np.concatenate([p.probabilities, np.full((len(p.row), width - p.probabilities.shape[1]), np.nan)], axis=1) for p in parts]
    columns: list[Any] = [np.concatenate(c) for c in zip(*(p[:7] for p in parts), strict=True)]
    columns.append(np.concatenate(wide))
    return Predictions(*columns)


def _joined_labels(parts: list[LabelRows]) -> LabelRows:
    if len(parts) == 1:
        return parts[0]
    empty = np.empty(0, np.int64)
    if not parts:
        return LabelRows(empty, empty.astype(np.uint64), empty, empty, np.empty(0), empty, empty, empty)
    return LabelRows(*(np.concatenate(c) for c in zip(*parts, strict=True)))
