"""
The rows of a join: how long they stay, and what is lost when there are too many of them.

Rule of the file: a row leaves because it is too old, by log time, or because there are more rows
than the limit, at fixed places of the log. Neither depends on how the log was cut into records,
with one exception: rows whose id occurs twice in a record, and predictions that labels bring along,
count as younger than the other rows of that record. A row that leaves while it waits is counted,
and so is the row that comes for it later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int
from stream_monitor.join.ring import Ring
from stream_monitor.join.ring_snapshot import Columns, RingForm, form_of, restored

ANY = -1
"""No model, or no version: the label is for all of them."""
PREDICTION_COLUMNS = {
    "time": "<i8",
    "arrival": "<i8",
    "version": "<u2",
    "outcome": "<f8",
    "score": "<f8",
    "segment": "<u2",
    "label": "<u4",
    "kind": "u1",
}
LABEL_COLUMNS = {
    "model": "<i4",
    "version": "<i4",
    "label": "<f8",
    "time": "<i8",
    "partition": "<i4",
    "offset": "<i8",
    "arrival": "<i8",
    "used": "u1",
}
MUTABLE = ("label", "kind"), ("used",)
RINGS = ("predictions", "labels", "evicted_predictions", "evicted_labels")
"""Names of the rings of a join."""
OVERHANG = 4
"""
Rows may be above the limit by one part of so many. After that many rows of the log, the rows beyond
the limit are evicted together, so it costs little for each row.
"""
LOST = 2
"""In the column `used`: the prediction of the label had been evicted."""
REACH_ROWS, REACH_MS = 1_000, 1_000
"""Rows, and time they cover, from which their rate is known well enough."""
SERVED, FAILED, STOOD_IN, EXPIRED = 0, 1, 2, 3
"""
Kinds of rows of predictions: answered; a failed call; brought along by a label; and expired under a
shorter delay than the present one.
"""
WAITING = 0
"""
In the column `label`: no label yet.

Other values are the low 32 bits of the label's sequence number, plus one.
"""
VERSIONS_MAX = 65_535


def none() -> Int:
    """The counts of no versions."""
    return np.zeros(0, np.int64)


class StoreState(msgspec.Struct):
    """Counts of the rows; arrays have a place for each version code."""

    lost: int = 0
    """Labels that met nothing because they or their prediction had been evicted."""
    rows: int = 0
    """Rows of the log so far."""
    classes: int = 0
    """Class scores that a row of predictions has."""
    model_of: Int = msgspec.field(default_factory=none)
    delay_of: Int = msgspec.field(default_factory=none)
    """By version: how long its predictions wait for their label, ms."""
    pending: Int = msgspec.field(default_factory=none)
    expired: Int = msgspec.field(default_factory=none)
    evicted: Int = msgspec.field(default_factory=none)
    orphans: dict[int, int] = {}
    """Labels that no prediction took, by the code of the model they named."""
    expired_to: dict[int, int] = {}
    """By delay: the sequence number up to which predictions were checked for expiry."""


class StoreForm(msgspec.Struct):
    """A store in a snapshot, without the full slabs of its rings."""

    state: StoreState
    rings: dict[str, RingForm]


class Store:
    """
    The rows of one partition of `observations`.

    Parameters
    ----------
    limit : int
        Greatest number of predictions, and of labels. Predictions that have their label are evicted
        first, then the oldest; of labels, the oldest. This happens after every `limit / OVERHANG`
        rows of the log, wherever records are cut.
    delay_ms : int, ms
        How long labels are kept at least; longer if predictions of some version wait longer.

    Notes
    -----
    A prediction takes 50 bytes and 7 to 16 of index; class scores take 8 bytes a class on top. 0.6
    to 0.9 µs a row.
    """

    def __init__(self, limit: int, delay_ms: int = 0) -> None:
        self.limit, self.delay_ms = limit, delay_ms
        self.predictions = Ring(PREDICTION_COLUMNS, MUTABLE[0], limit + self._stride)
        self.labels = Ring(LABEL_COLUMNS, MUTABLE[1], limit + self._stride)
        self.evicted_predictions = Ring({"arrival": "<i8", "version": "<u2"}, rows_max=limit)
        self.evicted_labels = Ring(
            {"arrival": "<i8", "model": "<i4", "version": "<i4", "counted": "u1"},
            ("counted",),
            limit,
        )
        """
        Ids of rows that were evicted while they waited. A row that comes for one meets nothing, and
        is counted.
        """
        self.state = StoreState()

    def register(self, version: int, model: int, delay_ms: int) -> None:
        """Add a version code, with its model and how long its predictions wait."""
        assert version == len(self.state.model_of)
        self.state.model_of = np.append(self.state.model_of, model)
        self.state.delay_of = np.append(self.state.delay_of, delay_ms)
        self.state.pending, self.state.expired, self.state.evicted = (
            np.append(c, 0) for c in (self.state.pending, self.state.expired, self.state.evicted)
        )
        self.state.expired_to.setdefault(delay_ms, self.predictions.tail)

    def wait(self, delays_ms: list[int]) -> None:
        """
        Set how long predictions of each version wait from now on, also those that are here already.

        A prediction that waited too long under the delays before stays expired.
        """
        delays = np.array(delays_ms, np.int64)
        ring = self.predictions
        if not np.array_equal(delays, self.state.delay_of):
            seqs = np.arange(ring.tail, ring.head)
            version = ring.get("version", seqs).astype(np.int64)
            to = np.array(
                [self.state.expired_to[d] for d in self.state.delay_of.tolist()], np.int64
            )
            over = (
                (ring.get("label", seqs) == WAITING)
                & (ring.get("kind", seqs) != FAILED)
                & (seqs < to[version])
            )
            ring.put("kind", seqs[over], EXPIRED)
            self.state.delay_of = delays
            self.state.expired_to = dict.fromkeys(delays_ms, ring.tail)

    def evict(self) -> None:
        """
        Evict down to the limit at once, because another limit takes effect.

        Otherwise eviction happens at places of the log, and a restart is not one of them.
        """
        self._evict()
        self._evict_labels()

    @property
    def memory_bytes(self) -> int:
        """Bytes of columns and index."""
        return sum(getattr(self, name).memory_bytes for name in RINGS)

    def widen(self, classes: int) -> None:
        """Make room for the scores of so many classes."""
        for i in range(self.state.classes, classes):
            self.predictions.add_column(f"p{i}", "<f8", np.nan)
        self.state.classes = max(self.state.classes, classes)

    @property
    def _stride(self) -> int:
        return max(self.limit // OVERHANG, 1)

    def _alive(self, ring: Ring, seq: Int, version: Int, now: Int) -> NDArray[np.bool_]:
        """Which rows have not waited longer, at these log times, than their version allows."""
        alive: NDArray[np.bool_] = ring.get("arrival", seq) + self.state.delay_of[version] >= now
        return alive

    def _fits(
        self, label: Int, version: Int, now: Int, ring: Ring | None = None
    ) -> NDArray[np.bool_]:
        """Which labels (by seq) are for these versions and have not expired."""
        ring = self.labels if ring is None else ring
        of_model, of_version = ring.get("model", label), ring.get("version", label)
        same_model = (of_model == ANY) | (of_model == self.state.model_of[version])
        fits: NDArray[np.bool_] = (
            same_model
            & ((of_version == ANY) | (of_version == version))
            & self._alive(ring, label, version, now)
        )
        return fits

    def expire(self, now_ms: int) -> None:
        """
        Count predictions that waited too long, and forget rows that nothing can meet any more.
        """
        ring = self.predictions
        for delay, start in self.state.expired_to.items():
            end = max(ring.before("arrival", now_ms - delay), ring.tail)
            begin = max(start, ring.tail)
            if end > begin:
                waits = self._waits(begin, end)
                waits &= self.state.delay_of[ring.rows("version", begin, end)] == delay
                self._gone(self.state.expired, begin + np.flatnonzero(waits))
            self.state.expired_to[delay] = max(end, start)
        if self.state.expired_to:
            ring.forget(min(self.state.expired_to.values()))
        oldest = now_ms - max(int(self.state.delay_of.max(initial=0)), self.delay_ms)
        self._forget_labels(self.labels.before("arrival", oldest))
        for gone in (self.evicted_predictions, self.evicted_labels):
            gone.forget(gone.before("arrival", oldest))

    def matured(
        self, since: int, now_ms: int, age_ms: int
    ) -> tuple[int, list[tuple[int, int, int, int]]]:
        """
        Labels that had time to meet their prediction, and how many of them did not.

        Parameters
        ----------
        since : int
            The `end` of the last call.
        now_ms, age_ms : int, ms

        Returns
        -------
        end : int
            Sequence number for the next call. O(labels between the two calls).
        counts : list of (model, partition, labels, unmet)
            By model code (or ANY) and source partition.
        """
        ring = self.labels
        start, end = max(since, ring.tail), ring.before("arrival", now_ms - age_ms)
        if end <= start:
            return max(since, start), []
        keys = np.stack([ring.rows("model", start, end), ring.rows("partition", start, end)])
        unmet = ring.rows("used", start, end) == 0
        distinct, inverse = np.unique(keys, axis=1, return_inverse=True)
        n = np.bincount(inverse.ravel())
        bad = np.bincount(inverse.ravel(), weights=unmet)
        return end, [
            (int(m), int(p), int(a), int(b))
            for (m, p), a, b in zip(distinct.T.tolist(), n, bad, strict=True)
        ]

    def _waits(self, start: int, end: int) -> NDArray[np.bool_]:
        """Which of these predictions still wait for a label."""
        ring, seqs = self.predictions, np.arange(start, end)
        version, kind = ring.get("version", seqs).astype(np.int64), ring.get("kind", seqs)
        starts = np.array(
            [self.state.expired_to[d] for d in self.state.delay_of.tolist()], np.int64
        )
        waits: NDArray[np.bool_] = (
            (ring.get("label", seqs) == WAITING)
            & (kind != FAILED)
            & (kind != EXPIRED)
            & (seqs >= starts[version])
        )
        return waits

    def _gone(self, counter: Int, seqs: Int) -> None:
        """Count predictions that leave without a label."""
        gone = np.bincount(self.predictions.get("version", seqs), minlength=len(self.state.pending))
        counter += gone
        self.state.pending -= gone

    def _evict(self) -> None:
        """
        Evict predictions down to the limit: first the oldest that wait for nothing, then the
        oldest.
        """
        ring = self.predictions
        excess, tail = len(ring) - self.limit, ring.tail
        if excess <= 0:
            return
        if not self._waits(tail, tail + excess).any():  # nearly always
            ring.forget(tail + excess)
            return
        waits = self._waits(tail, ring.head)
        done, waiting = tail + np.flatnonzero(~waits)[:excess], tail + np.flatnonzero(waits)
        evicted, end = waiting[: excess - len(done)], int(done[-1]) + 1 if len(done) else tail
        if len(evicted):
            self._gone(self.state.evicted, evicted)
            columns = {name: ring.get(name, evicted) for name in ("arrival", "version")}
            self.evicted_predictions.append(ring.get("id", evicted), **columns)
            self.evicted_predictions.forget(self.evicted_predictions.head - self.limit)
            end = max(end, int(evicted[-1]) + 1)
        kept = waiting[len(evicted) :]
        ring.close_up(kept[kept < end], end)

    def _evict_labels(self) -> None:
        """Evict labels down to the limit, the oldest first."""
        ring = self.labels
        end = ring.head - self.limit
        if end > ring.tail:
            unused = ring.tail + np.flatnonzero(ring.rows("used", ring.tail, end) == 0)
            columns = {name: ring.get(name, unused) for name in ("model", "version", "arrival")}
            self.evicted_labels.append(ring.get("id", unused), counted=0, **columns)
            self.evicted_labels.forget(self.evicted_labels.head - self.limit)
            self._forget_labels(end)

    def reach_ms(self, now_ms: int) -> float | None:
        """
        How late labels may be before `limit` evicts their prediction, at the present rate; None
        while there are too few predictions to know it.
        """
        ring = self.predictions
        if len(ring) < REACH_ROWS:
            return None
        over_ms = now_ms - int(ring.get("arrival", np.array([ring.tail]))[0])
        return over_ms * self.limit / len(ring) if over_ms >= REACH_MS else None

    def _forget_labels(self, tail: int) -> None:
        """
        Forget labels. Those that named their model and met no prediction are orphans.

        A label without a model is in every partition, so one partition cannot know about it.
        """
        ring = self.labels
        if tail > ring.tail:
            model, used = ring.rows("model", ring.tail, tail), ring.rows("used", ring.tail, tail)
            for code, n in zip(
                *(
                    c.tolist()
                    for c in np.unique(model[(model != ANY) & (used == 0)], return_counts=True)
                ),
                strict=True,
            ):
                self.state.orphans[code] = self.state.orphans.get(code, 0) + n
            ring.forget(tail)

    def form(self) -> StoreForm:
        """The store in a snapshot, without the full slabs of the rings."""
        return StoreForm(self.state, {name: form_of(getattr(self, name)) for name in RINGS})

    @classmethod
    def restored(
        cls,
        limit: int,
        delay_ms: int,
        form: StoreForm,
        slabs: Mapping[str, Mapping[int, Columns]],
    ) -> Self:
        """The store of a snapshot; `slabs` has the slabs of each ring, by number."""
        join = cls(limit, delay_ms)
        join.state = form.state
        for name in RINGS:
            new: Ring = getattr(join, name)
            ring = restored(form.rings[name], slabs.get(name, {}), new.mutable, new.rows_max)
            setattr(join, name, ring)
        return join
