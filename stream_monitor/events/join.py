"""
Predictions meet their labels.

Rule of the file: the result is that of taking rows one by one in log order. Ids that occur more than once in a record are taken in waves, so that within a wave
every id is there once and all of it is vectorised. The label with the greatest (timestamp, source partition, offset) wins, whatever the order of arrival.
A served prediction and a failed call of one id are two things; a label that brings its own prediction stands in for a prediction that is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.events.join_rows import Joined, LabelRows, Pairs, Predictions
from stream_monitor.events.ring import Int, Ring
from stream_monitor.events.waves import repeated, waves

Float = NDArray[np.float64]
ANY = -1
"""No model, or no version: the label is for all of them."""
PREDICTION_COLUMNS = {"time": "<i8", "arrival": "<u4", "version": "<u2", "outcome": "<f8", "score": "<f8", "segment": "<u2", "label": "<u4", "kind": "u1"}
LABEL_COLUMNS = {"model": "<i4", "version": "<i4", "label": "<f8", "time": "<i8", "partition": "<i4", "offset": "<i8", "arrival": "<u4", "used": "u1"}
MUTABLE = ("label", "kind"), ("used",)
SERVED, FAILED, STOOD_IN, EXPIRED = 0, 1, 2, 3
"""Kinds of rows of predictions: answered, a failed call, what a label brought along, and one that takes no label any more though it may wait longer now."""
WAITING = 0
"""In the column `label`: none yet. Else one more than the low 32 bits of the label's sequence number."""
ARRIVAL_SHIFT = 4
"""Arrival is kept in units of 16 ms of log time, so that it fits into four bytes: ages are exact to that."""
VERSIONS_MAX = 65_535


class Join:
    """
    The store of one partition of `observations`.

    Parameters
    ----------
    limit : int
        Rows kept of predictions, and of labels; the oldest go first.
    delay_ms : int, ms
        How long labels are kept at least; longer where predictions of a version wait longer.

    Notes
    -----
    A prediction takes 46 bytes and 12 to 16 of index; class scores take 8 bytes a class on top. 0.6 to 0.9 µs a row.
    """

    def __init__(self, limit: int, delay_ms: int = 0) -> None:
        self.limit, self.delay_ms = limit, delay_ms
        self.predictions = Ring(PREDICTION_COLUMNS, MUTABLE[0], limit)
        self.labels = Ring(LABEL_COLUMNS, MUTABLE[1], limit)
        self._origin = -1
        self.classes = 0
        self.model_of = np.empty(0, np.int64)
        self.delay_of = np.empty(0, np.int64)
        self._delay_units = self.delay_of
        self.pending = np.zeros(0, np.int64)
        self.expired = np.zeros(0, np.int64)
        self.evicted = np.zeros(0, np.int64)
        self.orphans: dict[int, int] = {}
        """Labels that no prediction took, by the code of the model they named."""
        self.labels_gone: dict[int, int] = {}
        """Labels that left the store, likewise."""
        self._expired_to: dict[int, int] = {}

    def register(self, version: int, model: int, delay_ms: int) -> None:
        """Make the code of a version known, with its model and how long its predictions wait."""
        assert version == len(self.model_of)
        self.model_of = np.append(self.model_of, model)
        self.delay_of = np.append(self.delay_of, delay_ms)
        self._delay_units = _units(self.delay_of)
        self.pending, self.expired, self.evicted = (np.append(c, 0) for c in (self.pending, self.expired, self.evicted))
        self._expired_to.setdefault(delay_ms, self.predictions.tail)

    def wait(self, delays_ms: list[int]) -> None:
        """
        How long predictions of each version wait from now on, those that are there included.

        What waited too long under the delays before stays expired, however long they are now.
        """
        delays = np.array(delays_ms, np.int64)
        ring = self.predictions
        if not np.array_equal(delays, self.delay_of):
            seqs = np.arange(ring.tail, ring.head)
            version = ring.get("version", seqs).astype(np.int64)
            to = np.array([self._expired_to[d] for d in self.delay_of.tolist()], np.int64)
            over = (ring.get("label", seqs) == WAITING) & (ring.get("kind", seqs) != FAILED) & (seqs < to[version])
            ring.put("kind", seqs[over], EXPIRED)
            self.delay_of, self._delay_units = delays, _units(delays)
            self._expired_to = dict.fromkeys(delays_ms, ring.tail)
        self._evict()
        self._evict_labels()

    @property
    def memory_bytes(self) -> int:
        """Bytes of columns and index."""
        return self.predictions.memory_bytes + self.labels.memory_bytes

    def widen(self, classes: int) -> None:
        """Class scores of so many classes will come."""
        for i in range(self.classes, classes):
            self.predictions.add_column(f"p{i}", "<f8", np.nan)
        self.classes = max(self.classes, classes)

    def apply(self, predictions: Predictions, labels: LabelRows, now_ms: int) -> Joined:
        """Take the rows of one record, at log time `now_ms`."""
        duplicate = np.zeros(len(predictions.row), bool)
        found = Joined(duplicate, [], {"matched": 0, "corrected": 0, "superseded": 0, "duplicate": 0})
        now = self._now(now_ms)
        ids = np.sort(np.concatenate([predictions.id, labels.id]))
        once = not (ids[1:] == ids[:-1]).any()  # nearly always
        if not once:
            duplicate[:] = repeated(predictions.row, predictions.id, predictions.version, predictions.failed)
        first = np.flatnonzero(~duplicate)
        all_at_once = [(first, np.arange(len(labels.row)))]
        for p, l in all_at_once if once else waves(predictions.id[first], predictions.row[first], labels.id, labels.row, self._quiet(predictions, labels)):
            if len(p):
                duplicate[first[p]] = self._add_predictions(predictions.take(first[p]), now, found)
            if len(l):
                self._add_labels(labels.take(l), now, found)
        return found

    def _quiet(self, predictions: Predictions, labels: LabelRows) -> NDArray[np.bool_]:
        """Labels that meet no prediction now: their order does not matter, so that a flood of one id is taken at once."""
        quiet = ~np.isin(labels.id, np.concatenate([predictions.id, labels.id[labels.own >= 0]]))
        of, _ = self.predictions.find(labels.id)
        quiet[of] = False
        return quiet

    def _now(self, now_ms: int) -> int:
        """Log time in the unit and from the origin of the column `arrival`."""
        now = now_ms >> ARRIVAL_SHIFT
        if self._origin < 0:
            self._origin = now
        elif now - self._origin >= 1 << 31:  # a year of log time went by
            for ring in (self.predictions, self.labels):
                moved = ring.column["arrival"].astype(np.int64) + self._origin - (now - (1 << 30))
                ring.column["arrival"] = np.maximum(moved, 0).astype(np.uint32)
            self._origin = now - (1 << 30)
        return max(now - self._origin, 0)

    def _alive(self, ring: Ring, seq: Int, version: Int, now: int) -> NDArray[np.bool_]:
        """Which rows are not older than their version lets them wait."""
        alive: NDArray[np.bool_] = ring.get("arrival", seq) + self._delay_units[version] >= now
        return alive

    def _add_predictions(self, new: Predictions, now: int, found: Joined) -> NDArray[np.bool_]:
        of, seq = self.predictions.find(new.id)
        duplicate = np.zeros(len(new.row), bool)
        stood_in = np.zeros(len(new.row), bool)
        if len(of):
            version, kind = self.predictions.get("version", seq), self.predictions.get("kind", seq)
            same = (version == new.version[of]) & ((kind == FAILED) == new.failed[of]) & self._alive(self.predictions, seq, version, now)
            of, seq, kind = of[same], seq[same], kind[same]
            self.predictions.put("kind", seq[kind == STOOD_IN], SERVED)
            stood_in[of[kind == STOOD_IN]] = True
            duplicate[of] = True
            duplicate &= ~stood_in
        there = duplicate | stood_in
        fresh = new.take(~there) if there.any() else new
        seqs = self._append(
            fresh.id, fresh.time, fresh.version, fresh.outcome, fresh.score, fresh.probabilities, now, segment=fresh.segment, kind=np.where(fresh.failed, FAILED, SERVED)
        )
        if fresh.failed.any():
            fresh, seqs = fresh.take(~fresh.failed), seqs[~fresh.failed]
        self.pending += np.bincount(fresh.version, minlength=len(self.pending))
        of, label = self.labels.find(fresh.id)
        if len(of):
            fits = self._fits(label, fresh.version[of], now)
            of, label = of[fits], label[fits]
            order = np.lexsort((self.labels.get("offset", label), self.labels.get("partition", label), self.labels.get("time", label), of))
            last = np.append(of[order][1:] != of[order][:-1], True)[: len(order)]
            of, label = of[order][last], label[order][last]
            self._pair(seqs[of], label, fresh.row[of], found)
        self._evict()
        return duplicate

    def _append(self, id: NDArray[np.uint64], time: Int, version: Int, outcome: Float, score: Float, probabilities: Float, now: int, *, segment: Any, kind: Any) -> Int:  # noqa: A002
        columns = {f"p{i}": probabilities[:, i] for i in range(probabilities.shape[1])}
        columns |= {f"p{i}": np.full(len(id), np.nan) for i in range(probabilities.shape[1], self.classes)}
        return self.predictions.append(id, time=time, arrival=now, version=version, outcome=outcome, score=score, segment=segment, label=WAITING, kind=kind, **columns)

    def _fits(self, label: Int, version: Int, now: int) -> NDArray[np.bool_]:
        """Which labels (by seq) are for these versions and have not expired."""
        of_model, of_version = self.labels.get("model", label), self.labels.get("version", label)
        known = (of_model == ANY) | (of_model == self.model_of[version])
        fits: NDArray[np.bool_] = known & ((of_version == ANY) | (of_version == version)) & self._alive(self.labels, label, version, now)
        return fits

    def _add_labels(self, new: LabelRows, now: int, found: Joined) -> None:
        seqs = self.labels.append(
            new.id, model=new.model, version=new.version, label=new.label, time=new.time, partition=new.partition, offset=new.offset, arrival=now, used=np.uint8(0)
        )
        of, seq = self.predictions.find(new.id)
        version = self.predictions.get("version", seq).astype(np.int64)
        kind = self.predictions.get("kind", seq)
        alive = (kind != FAILED) & (kind != EXPIRED) & self._alive(self.predictions, seq, version, now) & self._fits(seqs[of], version, now)
        of, seq = of[alive], seq[alive]
        self._stand_in(new, seqs, of, now, found)
        if not len(of):
            return self._evict_labels()
        had = self._label_of(seq)
        first = had < 0
        self._pair(seq[first], seqs[of[first]], new.row[of[first]], found)
        if not first.all():
            self._amend(seq[~first], seqs[of[~first]], had[~first], new.row[of[~first]], found)
        return self._evict_labels()

    def _stand_in(self, new: LabelRows, seqs: Int, matched: Int, now: int, found: Joined) -> None:
        """Labels that bring their own prediction and met none: theirs takes its place."""
        alone = new.own >= 0
        if not alone.any():
            return
        alone[matched] = False
        at = np.flatnonzero(alone)
        version = new.own[at]
        rows = self._append(new.id[at], new.time[at], version, new.outcome[at], new.score[at], new.probabilities[at], now, segment=0, kind=STOOD_IN)
        self.pending += np.bincount(version, minlength=len(self.pending))
        self._pair(rows, seqs[at], new.row[at], found)
        self._evict()

    def _label_of(self, seq: Int) -> Int:
        """Sequence numbers of the labels of predictions, -1 where there is none."""
        low = self.predictions.get("label", seq).astype(np.int64)
        head = self.labels.head - 1
        return np.where(low == WAITING, -1, head - ((head - low + 1) & 0xFFFFFFFF))

    def _put_label(self, seq: Int, label: Int) -> None:
        self.predictions.put("label", seq, ((label + 1) & 0xFFFFFFFF).astype(np.uint32))

    def _pair(self, seq: Int, label: Int, row: Int, found: Joined) -> None:
        if not len(seq):
            return
        self._put_label(seq, label)
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
        later = self.labels.greater(("time", "partition", "offset"), label, had)
        old, new = self.labels.get("label", had), self.labels.get("label", label)
        equal = old.view(np.uint64) == new.view(np.uint64)
        self._put_label(seq[later], label[later])
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
        ring, now = self.predictions, self._now(now_ms)
        for delay, start in self._expired_to.items():
            end = max(ring.before("arrival", now - _units(delay)), ring.tail)
            begin = max(start, ring.tail)
            if end > begin:
                self._gone(self.expired, np.arange(begin, end), delay)
            self._expired_to[delay] = max(end, start)
        if self._expired_to:
            ring.forget(min(self._expired_to.values()))
        self._forget_labels(self.labels.before("arrival", now - max(int(self._delay_units.max(initial=0)), _units(self.delay_ms))))

    def matured(self, since: int, now_ms: int, age_ms: int) -> tuple[int, list[tuple[int, int, int, int]]]:
        """
        Labels that came of age: they had time to meet their prediction.

        Parameters
        ----------
        since : int
            Sequence number up to which they were looked at before.
        now_ms, age_ms : int, ms

        Returns
        -------
        end : int
            For the next call. O(labels since the last).
        found : list of (model, partition, labels, unmet)
            By model code (or ANY) and source partition.
        """
        ring = self.labels
        start, end = max(since, ring.tail), ring.before("arrival", self._now(now_ms) - _units(age_ms))
        if end <= start:
            return max(since, start), []
        keys = np.stack([ring.rows("model", start, end), ring.rows("partition", start, end)])
        unmet = ring.rows("used", start, end) == 0
        distinct, inverse = np.unique(keys, axis=1, return_inverse=True)
        n = np.bincount(inverse.ravel())
        bad = np.bincount(inverse.ravel(), weights=unmet)
        return end, [(int(m), int(p), int(a), int(b)) for (m, p), a, b in zip(distinct.T.tolist(), n, bad, strict=True)]

    def _gone(self, counter: Int, seqs: Int, delay: int | None = None) -> None:
        """Count predictions that leave without a label; of versions with this delay, or of all whose time is not over yet."""
        version = self.predictions.get("version", seqs).astype(np.int64)
        kind = self.predictions.get("kind", seqs)
        waiting = (self.predictions.get("label", seqs) == WAITING) & (kind != FAILED) & (kind != EXPIRED)
        if delay is not None:
            waiting &= self.delay_of[version] == delay
        else:
            starts = np.zeros(len(self.delay_of), np.int64)
            for known, start in self._expired_to.items():
                starts[self.delay_of == known] = start
            waiting &= seqs >= starts[version]
        gone = np.bincount(version[waiting], minlength=len(self.pending))
        counter += gone
        self.pending -= gone

    def _evict(self) -> None:
        ring = self.predictions
        end = ring.head - self.limit
        if end > ring.tail:
            self._gone(self.evicted, np.arange(ring.tail, end))
            ring.forget(end)

    def _evict_labels(self) -> None:
        if len(self.labels) > self.limit:
            self._forget_labels(self.labels.head - self.limit)

    def _forget_labels(self, tail: int) -> None:
        """Labels leave; those that named their model and met no prediction are orphans (of one without a model this partition cannot tell)."""
        ring = self.labels
        if tail > ring.tail:
            model, used = ring.rows("model", ring.tail, tail), ring.rows("used", ring.tail, tail)
            for counts, left in ((self.labels_gone, model != ANY), (self.orphans, (model != ANY) & (used == 0))):
                for code, n in zip(*(c.tolist() for c in np.unique(model[left], return_counts=True)), strict=True):
                    counts[code] = counts.get(code, 0) + n
            ring.forget(tail)

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot, without the full segments of the rings."""
        counts = {name: getattr(self, name).tolist() for name in ("model_of", "delay_of", "pending", "expired", "evicted")}
        kept = {"orphans": self.orphans, "labels_gone": self.labels_gone, "classes": self.classes, "expired_to": self._expired_to, "origin": self._origin}
        return {**counts, **kept, "predictions": self.predictions.state(), "labels": self.labels.state()}

    @classmethod
    def from_state(cls, limit: int, delay_ms: int, state: dict[str, Any], segments: dict[str, dict[int, dict[str, bytes]]]) -> Join:
        """The store of a snapshot; `segments` has those of `predictions` and `labels` by number."""
        join = cls(limit, delay_ms)
        join.predictions = Ring.from_state(state["predictions"], segments["predictions"], MUTABLE[0], limit)
        join.labels = Ring.from_state(state["labels"], segments["labels"], MUTABLE[1], limit)
        for name in ("model_of", "delay_of", "pending", "expired", "evicted"):
            setattr(join, name, np.array(state[name], np.int64))
        join._delay_units = _units(join.delay_of)
        join.classes, join._origin = state["classes"], state["origin"]
        join.orphans, join.labels_gone, join._expired_to = ({int(k): v for k, v in state[name].items()} for name in ("orphans", "labels_gone", "expired_to"))
        return join


def _units(delay_ms: Any) -> Any:
    """A delay in the unit of `arrival`, rounded up: nobody waits less than was promised."""
    return -(-delay_ms >> ARRIVAL_SHIFT)
