"""
Rows in the order of the log, with an index of their ids.

Rule of the file: a `Ring` appends at its head and forgets at its tail, and may close up what lies
before a row; a row is immutable but for the columns named `mutable`. The index is a function of the
rows (it is made again on restore), so its layout, which depends on a secret of this process, never
shows in a result.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int

SLAB_ROWS = 65_536
"""Rows of an immutable part of a snapshot."""
CAPACITY_MIN = 4_096
SLOTS_A_ROW, LOAD_MAX = 3, 0.6
"""
Of the index: its size when it is made, and how full it gets before it is made again (entries of
forgotten rows stay in it until then).
"""
FEW = 16
"""Rows whose older ones are followed one by one; more, all at once."""


class Ring:
    """
    A queue of rows in columns, found by a 64-bit id in about 0.2 µs each when asked in bulk.

    Parameters
    ----------
    columns : mapping of name to dtype
        Besides `id` (uint64), which is always there.
    mutable : tuple of str
        Columns that change after the row was appended; the others go to immutable slabs of the
        snapshot.
    rows_max : int or None
        Rows that are kept at most, if that is known: room for many more is not made.

    Notes
    -----
    Positions are sequence numbers (`seq`, int64, never reused). Memory: the columns' bytes and 7 to
    12 bytes of index a row, and up to an eighth more while it grows; four more once an id has come
    twice. The index holds the newest row of an id, which leads to the older ones: otherwise a flood
    of one id would make every append walk past all of its rows. The hash multiplies by a secret odd
    number, so that nobody can choose ids that meet in the index.
    """

    def __init__(
        self, columns: Mapping[str, str], mutable: tuple[str, ...] = (), rows_max: int | None = None
    ) -> None:
        self.dtypes = {"id": "<u8", **columns}
        self.mutable, self.rows_max = mutable, rows_max
        self.tail = self.head = 0
        self.editions: dict[int, int] = {}
        """How often rows of a slab have moved."""
        self.column: dict[str, NDArray[Any]] = {
            name: np.zeros(CAPACITY_MIN, dtype) for name, dtype in self.dtypes.items()
        }
        self._older: NDArray[np.uint32] | None = None
        """
        By place: how far back the row before it with the same id lies; 0: none. Not there as long
        as every id came once.
        """
        self._secret = np.uint64(secrets.randbits(64) | 1)
        self.reindex()

    def __len__(self) -> int:
        return self.head - self.tail

    @property
    def memory_bytes(self) -> int:
        return (
            sum(c.nbytes for c in self.column.values())
            + self._slots.nbytes
            + (0 if self._older is None else self._older.nbytes)
        )

    def append(self, ids: NDArray[np.uint64], **columns: Any) -> Int:
        """Append rows (a column may be one value for all); their sequence numbers. O(n)."""
        n = len(ids)
        if len(self) + n > len(self.column["id"]):
            self._grow(len(self) + n)
        seqs = np.arange(self.head, self.head + n)
        at = self._at(seqs)
        self.column["id"][at] = ids
        for name, values in columns.items():
            self.column[name][at] = values
        self.head += n
        if self._older is not None:
            self._older[at] = 0
        if self._used + n > LOAD_MAX * len(self._slots):
            self.reindex()
        else:
            self._put(ids, at)
        return seqs

    def find(self, ids: NDArray[np.uint64]) -> tuple[Int, Int]:
        """
        All living rows with these ids: (index into `ids`, seq), in no particular order; a row comes
        once for each place it is asked from.
        """
        if self.head == self.tail or not len(ids):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        key, size = self.column["id"], len(self._slots)
        asked, slot = np.arange(len(ids)), self._slot_of(ids)
        hits_of, hits_at = [], []
        while len(asked):
            entry = self._slots[slot]
            busy = entry != 0
            if not busy.all():
                asked, slot, entry = asked[busy], slot[busy], entry[busy]
            at = entry.astype(np.int64) - 1
            hit = key[at] == ids[asked]
            if hit.any():
                hits_of.append(asked[hit])
                hits_at.append(at[hit])
                if self._older is None:  # every id came once: what is found is all there is
                    asked, slot = asked[~hit], slot[~hit]
            slot += 1
            slot[slot == size] = 0
        if not hits_of:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        of, at = np.concatenate(hits_of), np.concatenate(hits_at)
        of, seq = self._with_older(of, self._seq_at(at))
        alive = seq >= self.tail
        if not alive.all():
            of, seq = of[alive], seq[alive]
        if self._older is not None and (len(of) > len(ids) or len(np.unique(of)) < len(of)):
            # an id with several rows; an old entry may point at the same row twice
            both = np.unique(np.stack([of, seq]), axis=1)
            of, seq = both[0], both[1]
        return of, seq

    def _with_older(self, of: Int, seq: Int) -> tuple[Int, Int]:
        """And all living rows that these lead to."""
        if self._older is None:
            return of, seq
        found_of, found_seq = [of], [seq]
        while len(of) > FEW:
            back = self._older[self._at(seq)]
            of, seq = of[back > 0], (seq - back)[back > 0]
            alive = seq >= self.tail
            of, seq = of[alive], seq[alive]
            found_of.append(of)
            found_seq.append(seq)
        older: Any = memoryview(self._older)  # type: ignore[arg-type]  # as fast as a list, without making one
        capacity = len(self._older)
        for one, at in zip(of.tolist(), seq.tolist(), strict=True):
            # few, perhaps with many rows each
            chain = []
            while (back := older[at % capacity]) and (at := at - back) >= self.tail:
                chain.append(at)
            found_of.append(np.full(len(chain), one))
            found_seq.append(np.array(chain, np.int64))
        return np.concatenate(found_of), np.concatenate(found_seq)

    def get(self, name: str, seqs: Int) -> NDArray[Any]:
        """Values of a column at sequence numbers."""
        found: NDArray[Any] = self.column[name][self._at(seqs)]
        return found

    def greater(self, names: tuple[str, ...], new: Int, old: Int) -> NDArray[np.bool_]:
        """Whether rows come after others in the order of these columns."""
        later = np.zeros(len(new), bool)
        undecided = np.ones(len(new), bool)
        for name in names:
            a, b = self.get(name, new), self.get(name, old)
            later |= undecided & (a > b)
            undecided &= a == b
        return later

    def _at(self, seqs: Int) -> Int:
        """Places of rows in the columns."""
        return seqs % len(self.column["id"])

    def _seq_at(self, places: Int) -> Int:
        """The newest row at each place."""
        return self.head - 1 - (self.head - 1 - places) % len(self.column["id"])

    def put(self, name: str, seqs: Int, values: Any) -> None:
        """Change a mutable column."""
        self.column[name][self._at(seqs)] = values

    def forget(self, tail: int) -> None:
        """Drop every row before this sequence number. O(1)."""
        self.tail = max(self.tail, min(tail, self.head))

    def close_up(self, kept: Int, end: int) -> None:
        """
        Of the rows before `end` keep these, in their order, and drop the others.

        They move up to `end`, so that their sequence numbers change and those of the rows from
        `end` on do not. O(rows before `end`).
        """
        kept = np.sort(kept)
        start = end - len(kept)
        to, at = self._at(np.arange(start, end)), self._at(kept)
        slots = self._slots_of(self.column["id"][at], at) if self._older is None else None
        for column in self.column.values():
            column[to] = column[at]
        changed = range(start // SLAB_ROWS, -(-end // SLAB_ROWS))
        self.editions = {k: n for k, n in self.editions.items() if (k + 1) * SLAB_ROWS > start} | {
            k: self.editions.get(k, 0) + 1 for k in changed if len(kept)
        }
        self.tail = start
        if slots is None:
            self.reindex()
        else:
            self._slots[slots] = to + 1

    def before(self, name: str, value: int) -> int:
        """
        The first sequence number whose value of an ascending column is not below `value`.

        O(log n).
        """
        low, high, column = self.tail, self.head, self.column[name]
        while low < high:
            middle = (low + high) // 2
            if column[middle % len(column)] < value:
                low = middle + 1
            else:
                high = middle
        return low

    def add_column(self, name: str, dtype: str, default: float) -> None:
        """Give every row another column."""
        if name not in self.column:
            self.dtypes[name] = dtype
            self.column[name] = np.full(len(self.column["id"]), default, dtype)

    def _slot_of(self, ids: NDArray[np.uint64]) -> Int:
        return (
            (ids * self._secret >> np.uint64(32)) * np.uint64(len(self._slots)) >> np.uint64(32)
        ).astype(np.int64)

    def _slots_of(self, ids: NDArray[np.uint64], at: Int) -> Int:
        """
        Slots of the index that lead to the rows at these places; each has its own, as long as every
        id came once.
        """
        found, asked, slot = np.empty(len(ids), np.int64), np.arange(len(ids)), self._slot_of(ids)
        while len(asked):
            hit = self._slots[slot] == at[asked] + 1
            found[asked[hit]] = slot[hit]
            asked, slot = asked[~hit], slot[~hit] + 1
            slot[slot == len(self._slots)] = 0
        return found

    def _put(self, ids: NDArray[np.uint64], at: Int) -> None:
        slots, slot, entry, key = (
            self._slots,
            self._slot_of(ids),
            (at + 1).astype(np.uint32),
            self.column["id"],
        )
        again_slot, again_at = [], []
        while len(slot):
            free = slots[slot] == 0
            slots[slot[free]] = entry[
                free
            ]  # two rows on one place: the last wins, the other sees it and goes on
            there = slots[slot]
            lost = there != entry
            slot, entry, ids, there = slot[lost], entry[lost], ids[lost], there[lost]
            same = key[there.astype(np.int64) - 1] == ids
            if same.any():
                again_slot.append(slot[same])
                again_at.append(entry[same].astype(np.int64) - 1)
                slot, entry, ids = slot[~same], entry[~same], ids[~same]
            slot = slot + 1
            slot[slot == len(slots)] = 0
        self._used += len(at)
        if again_slot:
            self._used -= sum(map(len, again_slot))
            self._link(np.concatenate(again_slot), np.concatenate(again_at))

    def _link(self, slot: Int, at: Int) -> None:
        """
        Rows that met an entry of their own id: the newest takes its place, and each leads to the
        one before it.
        """
        if self._older is None:
            self._older = np.zeros(len(self.column["id"]), np.uint32)
        met = np.unique(slot)
        slot, at = (
            np.concatenate([met, slot]),
            np.concatenate([self._slots[met].astype(np.int64) - 1, at]),
        )
        seq = self._seq_at(at)
        order = np.lexsort((seq, slot))
        slot, at, seq = slot[order], at[order], seq[order]
        newest = np.append(slot[1:] != slot[:-1], True)
        older = np.flatnonzero(~newest)
        self._older[at[older + 1]] = seq[older + 1] - seq[older]
        self._slots[slot[newest]] = at[newest] + 1

    def reindex(self) -> None:
        """
        Make the index again from the rows. O(n).

        Entries of forgotten rows go, and so does the memory of ids that came twice.
        """
        self._older = None
        self._slots = np.zeros(SLOTS_A_ROW * max(len(self), CAPACITY_MIN), np.uint32)
        self._used = 0
        at = self._at(np.arange(self.tail, self.head))
        self._put(self.column["id"][at], at)

    def _grow(self, rows: int) -> None:
        before, capacity = len(self.column["id"]), rows + rows // 8
        if self.rows_max is not None and rows <= self.rows_max + CAPACITY_MIN:
            capacity = min(capacity, self.rows_max + CAPACITY_MIN)
        seqs = np.arange(self.tail, self.head)
        old, new = self._at(seqs), seqs % capacity
        stay = (
            self.head <= before
            # nothing was ever written over: every row has the place that it had, and so has its
            # entry in the index
        )
        for name, column in self.column.items():
            self.column[name] = _grown(
                column, capacity, *((slice(before),) * 2 if stay else (new, old))
            )
        if not stay:
            self.reindex()
        elif self._older is not None:
            self._older = _grown(self._older, capacity, slice(before), slice(before))

    def rows(self, name: str, start: int, end: int) -> NDArray[Any]:
        """A column from `start` to `end`, in order."""
        found: NDArray[Any] = self.column[name][self._at(np.arange(start, end))]
        return found


def _grown(column: NDArray[Any], capacity: int, to: Any, at: Any) -> NDArray[Any]:
    """A longer column, with what was at some places of this one."""
    grown = np.zeros(capacity, column.dtype)
    grown[to] = column[at]
    return grown
