"""
Predictions meet their labels.

Rule of the file: the result is that of taking rows one by one in the order of the log; why it is
vectorised as it is, with an example of five rows, is at the head of the package (`__init__.py`).
The label with the greatest (event time, source partition, offset) wins, in whatever order labels
arrive. A served prediction and a failed call with the same id are two things. If a label brings its
own prediction and meets none, its own takes the place of the prediction ("stands in").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Float, Int
from stream_monitor.events.origins import origins
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
        Apply the rows of one record.

        `now_ms` is the log time: one for all rows, or an ascending one for each row of the record,
        whose last rows may be events of experiments.
        """
        outcomes = {"matched": 0, "corrected": 0, "superseded": 0, "duplicate": 0, "evicted": 0}
        joined = Joined(np.zeros(len(predictions.row), bool), [], outcomes)
        place: Any = slice(None)
        if not isinstance(now_ms, int):
            # rows come grouped by layout, and log times must ascend in the rings
            place, by_row = np.argsort(predictions.row), np.argsort(labels.row)
            predictions, labels = predictions.at(place), labels.at(by_row)
        rows = 1 + max(int(predictions.row.max(initial=-1)), int(labels.row.max(initial=-1)))
        now: Int = np.full(rows, now_ms) if isinstance(now_ms, int) else now_ms
        duplicate = np.zeros(len(predictions.row), bool)
        for p, l in self._stretches(predictions.row, labels.row):
            duplicate[p] = self._apply_part(predictions.at(p), labels.at(l), now, joined)
            self.state.rows += len(predictions.row[p]) + len(labels.row[l])
            if self.state.rows % self._stride == 0:
                self._evict()
                self._evict_labels()
        joined.duplicate[place] = duplicate
        return joined

    def _stretches(self, predictions: Int, labels: Int) -> Iterator[tuple[Any, Any]]:
        """
        Masks of the rows of a record, in parts that end where the log has a place of eviction.

        Eviction happens at places of the log, because how it was cut into records must not matter.
        """
        n, all_rows = len(predictions) + len(labels), slice(None)
        first = self._stride - self.state.rows % self._stride
        if (
            first >= n
            or max(len(self.predictions) + n, len(self.labels) + len(labels)) <= self.limit
        ):
            yield all_rows, all_rows  # nearly always: nothing to evict inside
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

    def _apply_part(
        self, predictions: Predictions, labels: LabelRows, now: Int, joined: Joined
    ) -> NDArray[np.bool_]:
        """Apply rows between two places of eviction; returns which predictions are duplicates."""
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
                duplicate[first[p]] = self._add_predictions(predictions.at(first[p]), now, joined)
            if len(l):
                self._add_labels(labels.at(l), now, joined)
        return duplicate

    def _quiet(self, predictions: Predictions, labels: LabelRows) -> NDArray[np.bool_]:
        """
        Which labels meet no prediction now.

        They only wait, so their order does not matter, and a flood of one id is one wave.
        """
        quiet = ~np.isin(labels.id, np.concatenate([predictions.id, labels.id[labels.own >= 0]]))
        of, _ = self.predictions.find(labels.id)
        quiet[of] = False
        return quiet

    def _add_predictions(self, new: Predictions, now: Int, joined: Joined) -> NDArray[np.bool_]:
        """Append predictions of distinct ids, and pair them; returns which are duplicates."""
        # 1 Who is there already? An id may have rows of other versions, or a failed call: these are
        # other calls. Nor is it a duplicate if the row that is there is too old to wait.
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
            # What a label brought along is confirmed by the prediction itself, and is counted now:
            # a second one is a duplicate. Its values stay: the label was judged by them.
            self.predictions.put("kind", seq[kind == STOOD_IN], SERVED)
            stood_in[of[kind == STOOD_IN]] = True
            duplicate[of] = True
            duplicate &= ~stood_in
        # 2 The others are new rows. Failed calls are kept only to find their duplicates: they wait
        # for no label, so they leave here.
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
        # 3 Labels that came before their prediction. Several may fit (corrections, or one for every
        # version): the greatest is paired, as if the others had come later and been superseded.
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
            self._pair(seqs[of], label, fresh.row[of], joined)
        if len(self.evicted_labels):
            self._miss_labels(fresh.at(np.delete(np.arange(len(fresh.row)), of)), now, joined)
        return duplicate

    def _miss_labels(self, unlabelled: Predictions, now: Int, joined: Joined) -> None:
        """
        Count evicted labels that would have met these predictions; they are not orphans then.

        Each is counted once, although a label without a version may fit several predictions.
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
        joined.outcomes["evicted"] += len(lost)
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

    def _add_labels(self, new: LabelRows, now: Int, joined: Joined) -> None:
        """Append labels of distinct ids, and pair them with all predictions that they fit."""
        # appended even if they meet: a later label must be compared with them
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
        self._stand_in(new, seqs, of, now, joined)
        if len(self.evicted_predictions):
            self._miss_predictions(new, seqs, of, now, joined)
        if not len(of):
            return
        had = self._label_of(seq)
        first = had < 0
        self._pair(seq[first], seqs[of[first]], new.row[of[first]], joined)
        if not first.all():
            self._amend(seq[~first], seqs[of[~first]], had[~first], new.row[of[~first]], joined)

    def _miss_predictions(
        self, new: LabelRows, seqs: Int, matched: Int, now: Int, joined: Joined
    ) -> None:
        """Count labels whose prediction was evicted; they are not orphans."""
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
        joined.outcomes["evicted"] += len(lost)
        self.state.lost += len(lost)

    def _stand_in(self, new: LabelRows, seqs: Int, matched: Int, now: Int, joined: Joined) -> None:
        """Labels that bring their own prediction and met none: their own takes its place."""
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
        self._pair(rows, seqs[at], new.row[at], joined)

    def _label_of(self, seq: Int) -> Int:
        """Sequence numbers of the labels of predictions, -1 for those without one."""
        # 4 bytes a row instead of 8: the column has the low 32 bits, and the label is the newest
        # row with these bits
        low = self.predictions.get("label", seq).astype(np.int64)
        head = self.labels.head - 1
        return np.where(low == WAITING, -1, head - ((head - low + 1) & 0xFFFFFFFF))

    def _put_label(self, seq: Int, label: Int) -> None:
        self.predictions.put("label", seq, ((label + 1) & 0xFFFFFFFF).astype(np.uint32))

    def _pair(self, seq: Int, label: Int, row: Int, joined: Joined) -> None:
        """Predictions get their first label; `row` is the place in the record that completes it."""
        if not len(seq):
            return
        self._put_label(seq, label)
        self.labels.put("used", label, 1)
        version = self.predictions.get("version", seq)
        self.state.pending -= np.bincount(version, minlength=len(self.state.pending))
        joined.outcomes["matched"] += len(seq)
        joined.pairs.append(
            self._pairs(seq, label, row, np.full(len(seq), np.nan), corrected=False)
        )

    def _amend(self, seq: Int, label: Int, had: Int, row: Int, joined: Joined) -> None:
        """Predictions that have a label get another: the greater one wins."""
        self.labels.put("used", label, 1)
        # what the forgotten label said is not known any more, so it cannot be corrected: it stays
        known = had >= self.labels.tail
        seq, label, had, row = seq[known], label[known], had[known], row[known]
        joined.outcomes["superseded"] += int((~known).sum())
        later = self.labels.greater(("time", "partition", "offset"), label, had)
        old, new = self.labels.get("label", had), self.labels.get("label", label)
        # compared by their bits, because texts and switches are NaNs, which never equal themselves
        equal = old.view(np.uint64) == new.view(np.uint64)
        # also if the value is the same: the next one must beat the greatest that has come
        self._put_label(seq[later], label[later])
        joined.outcomes["duplicate"] += int(equal.sum())
        joined.outcomes["superseded"] += int((~equal & ~later).sum())
        changed = later & ~equal
        if changed.any():
            joined.outcomes["corrected"] += int(changed.sum())
            joined.pairs.append(
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
            origin=origins(
                self.labels.get("partition", label).astype(np.int64),
                self.labels.get("offset", label),
            ),
        )


def _ascending(ring: Ring, now: Int) -> Int:
    """
    Log times of rows to append, none before that of the last row in the ring.

    Waves take rows of one record out of order, and everything that ages is found by bisection.
    """
    if not len(now) or not len(ring):
        return now
    last = int(ring.get("arrival", np.array([ring.head - 1]))[0])
    return now if now[0] >= last or now[-1] < last else np.maximum(now, last)
