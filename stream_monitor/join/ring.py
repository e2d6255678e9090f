"""
Rows in the order of the log, with an index of their ids.

Rule of the file: a `Ring` appends at its head, forgets at its tail, and may close up the rows
before a given one. A row is immutable, except for the columns named `mutable`. The index is a
function of the rows and is made again on restore. Its layout depends on a secret of this process,
and so must never show in a result.

Theory of operation
-------------------
Every row has a sequence number (seq), and lies at the place `seq % capacity` of each column. So a
place is used again when the ring has gone round. The rows from `tail` to `head` are alive.

The index (`_slots`) is a hash table with open addressing. An entry is 0, or one more than the place
of the newest row of an id. `_older` leads from a row to the one before it with the same id: it has
the distance, 0 if there is none. It exists only after an id has come twice, which is rare.

All rows of a call move through the table together. In each round all of them look at their slots;
those that are done leave, and the others go on to the next slot. Few slots are busy, so a few
rounds are enough for any number of rows. A loop over rows in Python would be many times slower,
except for the last few that are on their way.

Nothing is deleted from the table. An entry of a forgotten row stays until the table is made again,
and so may point at a place that a newer row has. Two checks make that harmless: the id in the
column must be the one that is asked for, and the row must be alive.

Five rows, three of them of id 7:

>>> ring = Ring({"value": "<f8"})
>>> ring.append(np.array([7, 8, 7, 9, 7], np.uint64), value=np.arange(5.0)).tolist()
[0, 1, 2, 3, 4]
>>> def found() -> list[tuple[int, int]]:
...     of, seq = ring.find(np.array([9, 7], np.uint64))
...     return sorted(zip(of.tolist(), seq.tolist(), strict=True))
>>> found()  # the index leads to row 4, from there 2 back to row 2, and 2 back to row 0
[(0, 3), (1, 0), (1, 2), (1, 4)]
>>> ring.close_up(kept=np.array([2]), end=4)  # of the rows before 4 only row 2 stays: it moves to 3
>>> ring.rows("value", ring.tail, ring.head).tolist(), found()
([2.0, 4.0], [(1, 3), (1, 4)])
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int

SLAB_ROWS = 65_536
"""Rows of a slab: neighbours that a snapshot stores once, because they do not change any more."""
CAPACITY_MIN = 4_096
SLOTS_A_ROW, LOAD_MAX = 3, 0.6
"""
Size of the index when it is made, and the share of it that may be used until it is made again.
"""
FEW = 32
"""So many rows are followed in a loop, one by one; more of them all at once."""


class Ring:
    """
    A queue of rows in columns, found by a 64-bit id in about 0.2 µs each when asked in bulk.

    Parameters
    ----------
    columns : mapping of name to dtype
        Besides `id` (uint64), which is always there.
    mutable : tuple of str
        Columns that change after the row was appended. The others are stored in slabs.
    rows_max : int or None
        Greatest number of rows, if it is known; the ring then never makes room for many more.

    Notes
    -----
    Memory: the bytes of the columns and 7 to 12 bytes of index a row, up to an eighth more while
    the ring grows, and four bytes a row more after an id has come twice. The index has only the
    newest row of an id. Otherwise a flood of one id would make every append walk past all of its
    rows. The hash multiplies by a secret odd number, so that nobody can choose ids that meet in the
    index.
    """

    def __init__(
        self, columns: Mapping[str, str], mutable: tuple[str, ...] = (), rows_max: int | None = None
    ) -> None:
        self.dtypes = {"id": "<u8", **columns}
        self.mutable, self.rows_max = mutable, rows_max
        self.tail = self.head = 0
        self.editions: dict[int, int] = {}
        """By number of the slab: how often its rows have moved (`close_up`)."""
        self.column: dict[str, NDArray[Any]] = {
            name: np.zeros(CAPACITY_MIN, dtype) for name, dtype in self.dtypes.items()
        }
        self._older: NDArray[np.uint32] | None = None
        """By place: distance to the row before it with the same id; None while ids came once."""
        self._secret = np.uint64(secrets.randbits(64) | 1)
        self.reindex()

    def __len__(self) -> int:
        return self.head - self.tail

    @property
    def memory_bytes(self) -> int:
        arrays = [*self.column.values(), self._slots]
        return sum(a.nbytes for a in (arrays if self._older is None else [*arrays, self._older]))

    def append(self, ids: NDArray[np.uint64], **columns: Any) -> Int:
        """
        Append rows and return their sequence numbers; a column may be one value for all. O(n).
        """
        n = len(ids)
        if len(self) + n > len(self.column["id"]):
            self._grow(len(self) + n)
        seqs = np.arange(self.head, self.head + n)
        self.head += n
        at = self._at(seqs)
        self.column["id"][at] = ids
        for name, values in columns.items():
            self.column[name][at] = values
        if self._older is not None:
            self._older[at] = 0
        if self._used + n > LOAD_MAX * len(self._slots):
            self.reindex()
        else:
            self._put(ids, at)
        return seqs

    def find(self, ids: NDArray[np.uint64]) -> tuple[Int, Int]:
        """
        All living rows with these ids, as (index into `ids`, seq) and in no particular order.
        A row is returned once for each of `ids` that is its id.
        """
        if self.head == self.tail or not len(ids):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        key, size = self.column["id"], len(self._slots)
        asked, slot = np.arange(len(ids)), self._slot_of(ids)
        hits_of, hits_at = [], []
        while len(asked):  # a round: every id that is still asked looks at its slot
            if len(asked) <= FEW and self._older is None:
                walked = zip(asked.tolist(), self._walk(ids[asked], slot), strict=True)
                few = [(one, entry - 1) for one, (_, entry) in walked if entry]
                hits_of.append(np.array([one for one, _ in few], np.int64))
                hits_at.append(np.array([place for _, place in few], np.int64))
                break
            entry = self._slots[slot]
            busy = entry != 0
            if not busy.all():
                # a free slot ends the search: nothing is deleted, so the id is not behind it
                asked, slot, entry = asked[busy], slot[busy], entry[busy]
            at = entry.astype(np.int64) - 1
            hit = key[at] == ids[asked]
            if hit.any():
                hits_of.append(asked[hit])
                hits_at.append(at[hit])
                if self._older is None:  # every id came once, so there is no other row to find
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
            # an entry of a forgotten row may point at the place of a row that has its own entry
            both = np.unique(np.stack([of, seq]), axis=1)
            of, seq = both[0], both[1]
        return of, seq

    def _with_older(self, of: Int, seq: Int) -> tuple[Int, Int]:
        """These rows, and all living rows before them with the same ids."""
        if self._older is None:
            return of, seq
        all_of, all_seq = [of], [seq]
        while len(of) > FEW:
            back = self._older[self._at(seq)]
            of, seq = of[back > 0], (seq - back)[back > 0]
            alive = seq >= self.tail
            of, seq = of[alive], seq[alive]
            all_of.append(of)
            all_seq.append(seq)
        older: Any = memoryview(self._older)  # type: ignore[arg-type]  # as fast as a list, without making one
        capacity = len(self._older)
        for one, at in zip(of.tolist(), seq.tolist(), strict=True):
            # a flood of one id is one long chain: arrays of one row would cost more than a loop
            chain = []
            while (back := older[at % capacity]) and (at := at - back) >= self.tail:
                chain.append(at)
            all_of.append(np.full(len(chain), one))
            all_seq.append(np.array(chain, np.int64))
        return np.concatenate(all_of), np.concatenate(all_seq)

    def get(self, name: str, seqs: Int) -> NDArray[Any]:
        """Values of a column at sequence numbers."""
        values: NDArray[Any] = self.column[name][self._at(seqs)]
        return values

    def greater(self, names: tuple[str, ...], new: Int, old: Int) -> NDArray[np.bool_]:
        """Whether each row of `new` comes after that of `old`; the first column decides first."""
        later = np.zeros(len(new), bool)
        undecided = np.ones(len(new), bool)
        for name in names:
            a, b = self.get(name, new), self.get(name, old)
            later |= undecided & (a > b)
            undecided &= a == b
        return later

    def _at(self, seqs: Int) -> Int:
        """Places of rows (by seq) in the columns."""
        capacity = len(self.column["id"])
        return seqs if self.head <= capacity else seqs % capacity

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
        Keep only these of the rows before `end`, in their order.

        They move up to `end`. So their sequence numbers change, and those of the rows from `end` on
        do not. O(rows before `end`).
        """
        # Eviction drops rows that have their label, and keeps older ones that wait. Moving the few
        # that stay is cheap; holes would have to be skipped by everything that reads a range.
        kept = np.sort(kept)
        start = end - len(kept)
        to, at = self._at(np.arange(start, end)), self._at(kept)
        # the entries are looked up before rows move, because they are found by the places of now;
        # distances between rows of one id would all change, so with them the index is made again
        slots = self._slots_of(self.column["id"][at], at) if self._older is None else None
        for column in self.column.values():
            column[to] = column[at]
        # a slab that was stored before has other rows now, so its name must change
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
        """Slots at which the search for ids begins: the upper half of a product, times the size."""
        return (
            (ids * self._secret >> np.uint64(32)) * np.uint64(len(self._slots)) >> np.uint64(32)
        ).astype(np.int64)

    def _slots_of(self, ids: NDArray[np.uint64], at: Int) -> Int:
        """
        Slots of the index that lead to the rows at these places, while every id came once.
        """
        slots, asked, slot = np.empty(len(ids), np.int64), np.arange(len(ids)), self._slot_of(ids)
        while len(asked):
            hit = self._slots[slot] == at[asked] + 1
            slots[asked[hit]] = slot[hit]
            asked, slot = asked[~hit], slot[~hit] + 1
            slot[slot == len(self._slots)] = 0
        return slots

    def _put(self, ids: NDArray[np.uint64], at: Int) -> None:
        """Enter rows into the index, by their places."""
        slots, slot, key = self._slots, self._slot_of(ids), self.column["id"]
        entry = (at + 1).astype(np.uint32)
        again_slot, again_at = [], []
        while len(slot):  # a round: every row that has no slot yet tries one
            if len(slot) <= FEW:
                for new, (end, met) in zip(entry.tolist(), self._walk(ids, slot), strict=True):
                    if met:
                        again_slot.append(np.array([end]))
                        again_at.append(np.array([new - 1]))
                    else:
                        slots[end] = new
                break
            free = slots[slot] == 0
            # Several rows may write to one slot at once: numpy keeps the last. Reading the slot
            # again shows each row whether it is the one, so no lock or sort is needed.
            slots[slot[free]] = entry[free]
            there = slots[slot]
            lost = there != entry
            slot, entry, ids, there = slot[lost], entry[lost], ids[lost], there[lost]
            # an entry of the same id: this row gets no slot of its own, or a flood of one id would
            # make a run of entries that everybody has to walk past
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

    def _walk(self, ids: NDArray[np.uint64], slot: Int) -> Iterator[tuple[int, int]]:
        """Of few ids, one by one: the slot where the search ends, and its entry; 0: it is free."""
        size = len(self._slots)
        slots: Any = memoryview(self._slots)  # type: ignore[arg-type]
        key: Any = memoryview(self.column["id"])  # type: ignore[arg-type]
        for id_, at in zip(ids.tolist(), slot.tolist(), strict=True):
            while (entry := slots[at]) and key[entry - 1] != id_:
                at = at + 1 if at + 1 < size else 0
            yield at, entry

    def _link(self, slot: Int, at: Int) -> None:
        """
        Link rows that met an entry of their own id: the newest takes the slot, and each leads to
        the one before it.
        """
        if self._older is None:
            self._older = np.zeros(len(self.column["id"]), np.uint32)
        met = np.unique(slot)  # the row that has the slot now is one of the chain
        place = self._slots[met].astype(np.int64) - 1
        other = ~np.isin(place, at)  # it may be forgotten, and its place be that of a new row
        slot, at = np.append(met[other], slot), np.append(place[other], at)
        seq = self._seq_at(at)
        order = np.lexsort((seq, slot))
        slot, at, seq = slot[order], at[order], seq[order]
        newest = np.append(slot[1:] != slot[:-1], True)
        older = np.flatnonzero(~newest)
        self._older[at[older + 1]] = seq[older + 1] - seq[older]
        self._slots[slot[newest]] = at[newest] + 1

    def reindex(self) -> None:
        """
        Make the index again from the living rows. O(n).

        Entries of forgotten rows disappear, and `_older` too if no id is there twice any more.
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
        if self.head <= before:
            # it has not gone round yet: every row keeps its place, and so the index stays valid
            for name in list(self.column):
                column = self.column.pop(name)
                try:
                    column.resize(capacity)  # the pages of a large one are moved, not copied
                except ValueError:  # a snapshot holds it
                    column = np.append(column, np.zeros(capacity - before, column.dtype))
                self.column[name] = column
            if self._older is not None:
                self._older = np.append(self._older, np.zeros(capacity - before, np.uint32))
            return
        seqs = np.arange(self.tail, self.head)
        old, new = self._at(seqs), seqs % capacity
        for name, column in self.column.items():
            grown = np.zeros(capacity, column.dtype)
            grown[new] = column[old]
            self.column[name] = grown
        self.reindex()

    def rows(self, name: str, start: int, end: int) -> NDArray[Any]:
        """Values of a column from seq `start` to `end`, in order."""
        return self.get(name, np.arange(start, end))
