"""
Predictions meet their labels.

Rule of the file: the result is that of taking rows one by one in log order. Ids that occur more than once in a record are taken in waves, so that within a wave
every id is there once and all of it is vectorised. The label with the greatest (timestamp, source partition, offset) wins, whatever the order of arrival.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.ring import Int, Ring

Float = NDArray[np.float64]
ANY = -1
"""No model, or no version: the label is for all of them."""
PREDICTION_COLUMNS = {"time": "<i8", "arrival": "<i8", "version": "<i4", "outcome": "<f8", "score": "<f8", "segment": "<i4", "label": "<i8"}
LABEL_COLUMNS = {"model": "<i4", "version": "<i4", "label": "<f8", "time": "<i8", "partition": "<i4", "offset": "<i8", "arrival": "<i8", "used": "u1"}


class Predictions(NamedTuple):
    """Rows of predictions; `row` is the place in the record, `version` the code of (model, version), `extra` their row in the caller's matrix of class scores."""

    row: Int
    id: NDArray[np.uint64]
    time: Int
    version: Int
    outcome: Float
    score: Float
    segment: Int
    probabilities: Float
    """(n, classes), NaN where unknown; (n, 0) when nobody scores classes."""

    def take(self, at: Any) -> Predictions:
        return Predictions(*(c[at] for c in self))


class LabelRows(NamedTuple):
    """Rows of labels; `model` and `version` are codes or ANY."""

    row: Int
    id: NDArray[np.uint64]
    model: Int
    version: Int
    label: Float
    time: Int
    partition: Int
    offset: Int

    def take(self, at: Any) -> LabelRows:
        return LabelRows(*(c[at] for c in self))


class Pairs(NamedTuple):
    """Predictions that got their label, or another one. `previous` is NaN for a first label, else the cell of the label it had."""

    row: Int
    version: Int
    id: NDArray[np.uint64]
    time: Int
    outcome: Float
    score: Float
    segment: Int
    probabilities: Float
    label: Float
    label_time: Int
    previous: Float
    corrected: NDArray[np.bool_]

    def take(self, at: Any) -> Pairs:
        return Pairs(*(c[at] for c in self))


class Joined(NamedTuple):
    duplicate: NDArray[np.bool_]
    """For each prediction row given: it was there before."""
    pairs: list[Pairs]
    outcomes: dict[str, int]
    """Labels: matched, corrected, superseded, duplicate."""


class Join:
    """
    The store of one partition of `observations`.

    Parameters
    ----------
    limit : int
        Rows kept of predictions, and of labels; the oldest go first.

    Notes
    -----
    A prediction takes 52 bytes and 8 to 16 of index; class scores take 8 bytes a class on top. 0.6 to 0.9 µs a row.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.predictions = Ring(PREDICTION_COLUMNS, ("label",))
        self.labels = Ring(LABEL_COLUMNS, ("used",))
        self.classes = 0
        self.model_of = np.empty(0, np.int64)
        self.delay_of = np.empty(0, np.int64)
        self.pending = np.zeros(0, np.int64)
        self.expired = np.zeros(0, np.int64)
        self.evicted = np.zeros(0, np.int64)
        self.orphans = 0
        self._expired_to: dict[int, int] = {}

    def register(self, version: int, model: int, delay_ms: int) -> None:
        """Make the code of a version known, with its model and how long its predictions wait."""
        assert version == len(self.model_of)
        self.model_of = np.append(self.model_of, model)
        self.delay_of = np.append(self.delay_of, delay_ms)
        self.pending, self.expired, self.evicted = (np.append(c, 0) for c in (self.pending, self.expired, self.evicted))
        self._expired_to.setdefault(delay_ms, self.predictions.tail)

    def widen(self, classes: int) -> None:
        """Class scores of so many classes will come."""
        for i in range(self.classes, classes):
            self.predictions.add_column(f"p{i}", "<f8", np.nan)
        self.classes = max(self.classes, classes)

    def apply(self, predictions: Predictions, labels: LabelRows, now_ms: int) -> Joined:
        """Take the rows of one record, at log time `now_ms`."""
        duplicate = np.zeros(len(predictions.row), bool)
        found = Joined(duplicate, [], {"matched": 0, "corrected": 0, "superseded": 0, "duplicate": 0})
        for p, l in _waves(predictions, labels):
            if len(p):
                duplicate[p] = self._add_predictions(predictions.take(p), now_ms, found)
            if len(l):
                self._add_labels(labels.take(l), now_ms, found)
        return found

    def _add_predictions(self, new: Predictions, now_ms: int, found: Joined) -> NDArray[np.bool_]:
        of, seq = self.predictions.find(new.id)
        version = self.predictions.get("version", seq)
        same = (version == new.version[of]) & (self.predictions.get("arrival", seq) + self.delay_of[version] >= now_ms)
        duplicate = np.zeros(len(new.row), bool)
        duplicate[of[same]] = True
        fresh = new.take(~duplicate) if same.any() else new
        n = len(fresh.row)
        columns = {f"p{i}": fresh.probabilities[:, i] for i in range(fresh.probabilities.shape[1])}
        columns |= {f"p{i}": np.full(n, np.nan) for i in range(fresh.probabilities.shape[1], self.classes)}
        seqs = self.predictions.append(
            fresh.id,
            time=fresh.time,
            arrival=np.full(n, now_ms),
            version=fresh.version,
            outcome=fresh.outcome,
            score=fresh.score,
            segment=fresh.segment,
            label=np.full(n, -1),
            **columns,
        )
        self.pending += np.bincount(fresh.version, minlength=len(self.pending))
        of, label = self.labels.find(fresh.id)
        if len(of):
            fits = self._fits(label, fresh.version[of], now_ms)
            of, label = of[fits], label[fits]
            order = np.lexsort((self.labels.get("offset", label), self.labels.get("partition", label), self.labels.get("time", label), of))
            last = np.append(of[order][1:] != of[order][:-1], True)[: len(order)]
            of, label = of[order][last], label[order][last]
            self._pair(seqs[of], label, fresh.row[of], found)
        self._evict()
        return duplicate

    def _fits(self, label: Int, version: Int, now_ms: int) -> NDArray[np.bool_]:
        """Which labels (by seq) are for these versions and have not expired."""
        of_model, of_version = self.labels.get("model", label), self.labels.get("version", label)
        known = (of_model == ANY) | (of_model == self.model_of[version])
        fits: NDArray[np.bool_] = known & ((of_version == ANY) | (of_version == version)) & (self.labels.get("arrival", label) + self.delay_of[version] >= now_ms)
        return fits

    def _add_labels(self, new: LabelRows, now_ms: int, found: Joined) -> None:
        n = len(new.row)
        seqs = self.labels.append(
            new.id,
            model=new.model,
            version=new.version,
            label=new.label,
            time=new.time,
            partition=new.partition,
            offset=new.offset,
            arrival=np.full(n, now_ms),
            used=np.zeros(n, np.uint8),
        )
        of, seq = self.predictions.find(new.id)
        if not len(of):
            return self._evict_labels()
        version = self.predictions.get("version", seq)
        alive = (self.predictions.get("arrival", seq) + self.delay_of[version] >= now_ms) & self._fits(seqs[of], version, now_ms)
        of, seq = of[alive], seq[alive]
        had = self.predictions.get("label", seq)
        first = had < 0
        self._pair(seq[first], seqs[of[first]], new.row[of[first]], found)
        if not first.all():
            self._amend(seq[~first], seqs[of[~first]], had[~first], new.row[of[~first]], found)
        return self._evict_labels()

    def _pair(self, seq: Int, label: Int, row: Int, found: Joined) -> None:
        if not len(seq):
            return
        self.predictions.put("label", seq, label)
        self.labels.put("used", label, 1)
        version = self.predictions.get("version", seq)
        self.pending -= np.bincount(version, minlength=len(self.pending))
        found.outcomes["matched"] += len(seq)
        found.pairs.append(self._pairs(seq, label, row, np.full(len(seq), np.nan), corrected=False))

    def _amend(self, seq: Int, label: Int, had: Int, row: Int, found: Joined) -> None:
        """A prediction that has a label gets another: the later one wins."""
        self.labels.put("used", label, 1)
        known = had >= self.labels.tail  # the label it had is forgotten: then it stays
        seq, label, had, row = seq[known], label[known], had[known], row[known]
        found.outcomes["superseded"] += int((~known).sum())
        later = _after(self.labels, label, had)
        old, new = self.labels.get("label", had), self.labels.get("label", label)
        equal = old.view(np.uint64) == new.view(np.uint64)
        self.predictions.put("label", seq[later], label[later])
        found.outcomes["duplicate"] += int(equal.sum())
        found.outcomes["superseded"] += int((~equal & ~later).sum())
        changed = later & ~equal
        if changed.any():
            found.outcomes["corrected"] += int(changed.sum())
            found.pairs.append(self._pairs(seq[changed], label[changed], row[changed], old[changed], corrected=True))

    def _pairs(self, seq: Int, label: Int, row: Int, previous: Float, *, corrected: bool) -> Pairs:
        get = self.predictions.get
        probabilities = np.stack([get(f"p{i}", seq) for i in range(self.classes)], axis=1) if self.classes else np.empty((len(seq), 0))
        return Pairs(
            row,
            get("version", seq).astype(np.int64),
            get("id", seq),
            get("time", seq),
            get("outcome", seq),
            get("score", seq),
            get("segment", seq).astype(np.int64),
            probabilities,
            self.labels.get("label", label),
            self.labels.get("time", label),
            previous,
            np.full(len(seq), corrected),
        )

    def expire(self, now_ms: int) -> None:
        """Count what waited too long, and forget what nobody can ask for any more."""
        ring = self.predictions
        for delay, start in self._expired_to.items():
            end = max(ring.before("arrival", now_ms - delay), ring.tail)
            begin = max(start, ring.tail)
            if end > begin:
                version = ring.rows("version", begin, end)
                waiting = version[(ring.rows("label", begin, end) < 0) & (self.delay_of[version] == delay)]
                gone = np.bincount(waiting, minlength=len(self.pending))
                self.expired += gone
                self.pending -= gone
            self._expired_to[delay] = max(end, start)
        if self._expired_to:
            ring.forget(min(self._expired_to.values()))
        if len(self.delay_of):
            self._forget_labels(self.labels.before("arrival", now_ms - int(self.delay_of.max())))

    def _evict(self) -> None:
        ring = self.predictions
        end = ring.head - self.limit
        if end <= ring.tail:
            return
        seqs = np.arange(ring.tail, end)
        version = ring.get("version", seqs)
        starts = np.zeros(len(self.delay_of), np.int64)
        for delay, start in self._expired_to.items():
            starts[self.delay_of == delay] = start
        waiting = version[(ring.get("label", seqs) < 0) & (seqs >= starts[version])]
        gone = np.bincount(waiting, minlength=len(self.pending))
        self.evicted += gone
        self.pending -= gone
        ring.forget(end)

    def _evict_labels(self) -> None:
        if len(self.labels) > self.limit:
            self._forget_labels(self.labels.head - self.limit)

    def _forget_labels(self, tail: int) -> None:
        if tail > self.labels.tail:
            self.orphans += int(((self.labels.rows("used", self.labels.tail, tail) == 0) & (self.labels.rows("model", self.labels.tail, tail) != ANY)).sum())
            self.labels.forget(tail)

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot, without the full segments of the rings."""
        counts = {name: getattr(self, name).tolist() for name in ("model_of", "delay_of", "pending", "expired", "evicted")}
        return {**counts, "orphans": self.orphans, "classes": self.classes, "expired_to": self._expired_to, "predictions": self.predictions.state(), "labels": self.labels.state()}

    @classmethod
    def from_state(cls, limit: int, state: dict[str, Any], segments: dict[str, dict[int, dict[str, bytes]]]) -> Join:
        """The store of a snapshot; `segments` has those of `predictions` and `labels` by number."""
        join = cls(limit)
        join.predictions = Ring.from_state(state["predictions"], segments["predictions"], ("label",))
        join.labels = Ring.from_state(state["labels"], segments["labels"], ("used",))
        for name in ("model_of", "delay_of", "pending", "expired", "evicted"):
            setattr(join, name, np.array(state[name], np.int64))
        join.orphans, join.classes, join._expired_to = state["orphans"], state["classes"], {int(k): v for k, v in state["expired_to"].items()}
        return join


def _after(labels: Ring, new: Int, old: Int) -> NDArray[np.bool_]:
    """Whether the label `new` wins over `old`: by (time, partition, offset)."""
    later = np.zeros(len(new), bool)
    undecided = np.ones(len(new), bool)
    for name in ("time", "partition", "offset"):
        a, b = labels.get(name, new), labels.get(name, old)
        later |= undecided & (a > b)
        undecided &= a == b
    return later


def _waves(predictions: Predictions, labels: LabelRows) -> list[tuple[Int, Int]]:
    """Indices of predictions and labels by wave: in the k-th wave is the k-th row of every id."""
    n = len(predictions.row)
    ids = np.concatenate([predictions.id, labels.id])
    order = np.lexsort((np.concatenate([predictions.row, labels.row]), ids))
    ordered = ids[order]
    again = np.append(False, ordered[1:] == ordered[:-1]) if len(ordered) else np.empty(0, bool)
    if not again.any():
        return [(np.arange(n), np.arange(len(labels.row)))]
    places = np.arange(len(ids))
    rank = np.empty(len(ids), np.int64)
    rank[order] = places - np.maximum.accumulate(np.where(again, 0, places))
    waves = []
    for k in range(int(rank.max()) + 1):
        at = np.flatnonzero(rank == k)
        waves.append((at[at < n], at[at >= n] - n))
    return waves
