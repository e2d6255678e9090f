"""
Predictions meet their labels.

Rule of the file: the result is that of taking rows one by one in log order. Ids that occur more
than once in a record are taken in waves, so that within a wave every id is there once and all of it
is vectorised. The label with the greatest (timestamp, source partition, offset) wins, whatever the
order of arrival. A served prediction and a failed call of one id are two things; a label that
brings its own prediction stands in for a prediction that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.join.ring import Ring
from stream_monitor.join.rows import Joined, LabelRows, Pairs, Predictions
from stream_monitor.join.store import EXPIRED, FAILED, LOST, SERVED, STOOD_IN, WAITING, Store
from stream_monitor.join.waves import repeated, waves


class Join(Store):
    """
    The store of one partition of `observations`, and what happens in it.

    Notes
    -----
    0.6 to 0.9 µs a row.
    """

    def apply(self, predictions: Predictions, labels: LabelRows, now_ms: int | Int) -> Joined:
        """
        Take the rows of one record, at log time `now_ms`: one for all, or that of each row of the
        record, ascending. The last rows may be events of experiments.
        """
        outcomes = {"matched": 0, "corrected": 0, "superseded": 0, "duplicate": 0, "evicted": 0}
        found = Joined(np.zeros(len(predictions.row), bool), [], outcomes)
        place: Any = slice(None)
        if not isinstance(now_ms, int):
            place, by_row = np.argsort(predictions.row), np.argsort(labels.row)
            predictions, labels = predictions.at(place), labels.at(by_row)
        rows = 1 + max(int(predictions.row.max(initial=-1)), int(labels.row.max(initial=-1)))
        now: Int = np.full(rows, now_ms) if isinstance(now_ms, int) else now_ms
        duplicate = np.zeros(len(predictions.row), bool)
        for p, l in self._stretches(predictions.row, labels.row):
            duplicate[p] = self._take(predictions.at(p), labels.at(l), now, found)
            self.state.rows += len(predictions.row[p]) + len(labels.row[l])
            if self.state.rows % self._stride == 0:
                self._evict()
                self._evict_labels()
        found.duplicate[place] = duplicate
        return found

    def _stretches(self, predictions: Int, labels: Int) -> Iterator[tuple[Any, Any]]:
        """
        Which rows of a record are taken before what is beyond the limit is evicted, and which after
        it: it happens at places of the log, not of records.
        """
        n, all_rows = len(predictions) + len(labels), slice(None)
        first = self._stride - self.state.rows % self._stride
        if (
            first >= n
            or max(len(self.predictions) + n, len(self.labels) + len(labels)) <= self.limit
        ):
            yield all_rows, all_rows
            return
        rows = np.sort(np.concatenate([predictions, labels]))
        before = -1
        for last in [*rows[first - 1 :: self._stride].tolist(), int(rows[-1])]:
            if last > before:
                yield (
                    (predictions > before) & (predictions <= last),
                    (labels > before) & (labels <= last),
                )
            before = last

    def _take(
        self, predictions: Predictions, labels: LabelRows, now: Int, found: Joined
    ) -> NDArray[np.bool_]:
        """Which predictions are duplicates."""
        duplicate = np.zeros(len(predictions.row), bool)
        ids = np.sort(np.concatenate([predictions.id, labels.id]))
        once = not (ids[1:] == ids[:-1]).any()  # nearly always
        if not once:
            duplicate[:] = repeated(
                predictions.row, predictions.id, predictions.version, predictions.failed
            )
        first = np.flatnonzero(~duplicate)
        all_at_once = [(first, np.arange(len(labels.row)))]
        for p, l in (
            all_at_once
            if once
            else waves(
                predictions.id[first],
                predictions.row[first],
                labels.id,
                labels.row,
                self._quiet(predictions, labels),
            )
        ):
            if len(p):
                duplicate[first[p]] = self._add_predictions(predictions.at(first[p]), now, found)
            if len(l):
                self._add_labels(labels.at(l), now, found)
        return duplicate

    def _quiet(self, predictions: Predictions, labels: LabelRows) -> NDArray[np.bool_]:
        """
        Labels that meet no prediction now: their order does not matter, so that a flood of one id
        is taken at once.
        """
        quiet = ~np.isin(labels.id, np.concatenate([predictions.id, labels.id[labels.own >= 0]]))
        of, _ = self.predictions.find(labels.id)
        quiet[of] = False
        return quiet

    def _add_predictions(self, new: Predictions, now: Int, found: Joined) -> NDArray[np.bool_]:
        of, seq = self.predictions.find(new.id)
        duplicate = np.zeros(len(new.row), bool)
        stood_in = np.zeros(len(new.row), bool)
        if len(of):
            version, kind = self.predictions.get("version", seq), self.predictions.get("kind", seq)
            same = (
                (version == new.version[of])
                & ((kind == FAILED) == new.failed[of])
                & self._alive(self.predictions, seq, version, now[new.row[of]])
            )
            of, seq, kind = of[same], seq[same], kind[same]
            self.predictions.put("kind", seq[kind == STOOD_IN], SERVED)
            stood_in[of[kind == STOOD_IN]] = True
            duplicate[of] = True
            duplicate &= ~stood_in
        there = duplicate | stood_in
        fresh = new.at(~there) if there.any() else new
        seqs = self._append(
            fresh.id,
            fresh.time,
            fresh.version,
            fresh.outcome,
            fresh.score,
            fresh.probabilities,
            now[fresh.row],
            segment=fresh.segment,
            kind=np.where(fresh.failed, FAILED, SERVED),
        )
        if fresh.failed.any():
            fresh, seqs = fresh.at(~fresh.failed), seqs[~fresh.failed]
        self.state.pending += np.bincount(fresh.version, minlength=len(self.state.pending))
        of, label = self.labels.find(fresh.id)
        if len(of):
            fits = self._fits(label, fresh.version[of], now[fresh.row[of]])
            of, label = of[fits], label[fits]
            order = np.lexsort(
                (
                    self.labels.get("offset", label),
                    self.labels.get("partition", label),
                    self.labels.get("time", label),
                    of,
                )
            )
            last = np.append(of[order][1:] != of[order][:-1], True)[: len(order)]
            of, label = of[order][last], label[order][last]
            self._pair(seqs[of], label, fresh.row[of], found)
        if len(self.evicted_labels):
            self._miss_labels(fresh.at(np.delete(np.arange(len(fresh.row)), of)), now, found)
        return duplicate

    def _miss_labels(self, unlabelled: Predictions, now: Int, found: Joined) -> None:
        """
        Count labels that would have met these, had they not been evicted; they are no orphans then.
        """
        ring = self.evicted_labels
        of, seq = ring.find(unlabelled.id)
        lost = np.unique(
            seq[
                self._fits(seq, unlabelled.version[of], now[unlabelled.row[of]], ring)
                & (ring.get("counted", seq) == 0)
            ]
        )
        ring.put("counted", lost, 1)
        found.outcomes["evicted"] += len(lost)
        self.state.lost += len(lost)
        for code in ring.get("model", lost).tolist():
            if code in self.state.orphans:
                self.state.orphans[code] -= 1

    def _append(
        self,
        id: NDArray[np.uint64],  # noqa: A002
        time: Int,
        version: Int,
        outcome: Float,
        score: Float,
        probabilities: Float,
        now: Int,
        *,
        segment: Any,
        kind: Any,
    ) -> Int:
        columns = {f"p{i}": probabilities[:, i] for i in range(probabilities.shape[1])}
        columns |= {
            f"p{i}": np.full(len(id), np.nan)
            for i in range(probabilities.shape[1], self.state.classes)
        }
        return self.predictions.append(
            id,
            time=time,
            arrival=_ascending(self.predictions, now),
            version=version,
            outcome=outcome,
            score=score,
            segment=segment,
            label=WAITING,
            kind=kind,
            **columns,
        )

    def _add_labels(self, new: LabelRows, now: Int, found: Joined) -> None:
        seqs = self.labels.append(
            new.id,
            model=new.model,
            version=new.version,
            label=new.label,
            time=new.time,
            partition=new.partition,
            offset=new.offset,
            arrival=_ascending(self.labels, now[new.row]),
            used=np.uint8(0),
        )
        of, seq = self.predictions.find(new.id)
        version = self.predictions.get("version", seq).astype(np.int64)
        kind = self.predictions.get("kind", seq)
        alive = (
            (kind != FAILED)
            & (kind != EXPIRED)
            & self._alive(self.predictions, seq, version, now[new.row[of]])
            & self._fits(seqs[of], version, now[new.row[of]])
        )
        of, seq = of[alive], seq[alive]
        self._stand_in(new, seqs, of, now, found)
        if len(self.evicted_predictions):
            self._miss_predictions(new, seqs, of, now, found)
        if not len(of):
            return
        had = self._label_of(seq)
        first = had < 0
        self._pair(seq[first], seqs[of[first]], new.row[of[first]], found)
        if not first.all():
            self._amend(seq[~first], seqs[of[~first]], had[~first], new.row[of[~first]], found)

    def _miss_predictions(
        self, new: LabelRows, seqs: Int, matched: Int, now: Int, found: Joined
    ) -> None:
        """Count labels whose prediction was evicted; they are no orphans."""
        alone = new.own < 0
        alone[matched] = False
        at = np.flatnonzero(alone)
        of, seq = self.evicted_predictions.find(new.id[at])
        version = self.evicted_predictions.get("version", seq).astype(np.int64)
        then = now[new.row[at[of]]]
        lost = np.unique(
            of[
                self._alive(self.evicted_predictions, seq, version, then)
                & self._fits(seqs[at[of]], version, then)
            ]
        )
        self.labels.put("used", seqs[at[lost]], LOST)
        found.outcomes["evicted"] += len(lost)
        self.state.lost += len(lost)

    def _stand_in(self, new: LabelRows, seqs: Int, matched: Int, now: Int, found: Joined) -> None:
        """Labels that bring their own prediction and met none: theirs takes its place."""
        alone = new.own >= 0
        if not alone.any():
            return
        alone[matched] = False
        at = np.flatnonzero(alone)
        version = new.own[at]
        rows = self._append(
            new.id[at],
            new.time[at],
            version,
            new.outcome[at],
            new.score[at],
            new.probabilities[at],
            now[new.row[at]],
            segment=0,
            kind=STOOD_IN,
        )
        self.state.pending += np.bincount(version, minlength=len(self.state.pending))
        self._pair(rows, seqs[at], new.row[at], found)

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
        self.state.pending -= np.bincount(version, minlength=len(self.state.pending))
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
            found.pairs.append(
                self._pairs(
                    seq[changed], label[changed], row[changed], old[changed], corrected=True
                )
            )

    def _pairs(self, seq: Int, label: Int, row: Int, previous: Float, *, corrected: bool) -> Pairs:
        get = self.predictions.get
        probabilities = (
            np.stack([get(f"p{i}", seq) for i in range(self.state.classes)], axis=1)
            if self.state.classes
            else np.empty((len(seq), 0))
        )
        return Pairs(
            row=row,
            version=get("version", seq).astype(np.int64),
            id=get("id", seq),
            time=get("time", seq),
            outcome=get("outcome", seq),
            score=get("score", seq),
            segment=get("segment", seq).astype(np.int64),
            probabilities=probabilities,
            label=self.labels.get("label", label),
            label_time=self.labels.get("time", label),
            previous=previous,
            corrected=np.full(len(seq), corrected),
        )


def _ascending(ring: Ring, now: Int) -> Int:
    """
    Log times of rows to append, none before that of a row that was appended earlier: a record whose
    rows have times of their own is taken in waves.
    """
    if not len(now) or not len(ring):
        return now
    last = int(ring.get("arrival", np.array([ring.head - 1]))[0])
    return now if now[0] >= last or now[-1] < last else np.maximum(now, last)
