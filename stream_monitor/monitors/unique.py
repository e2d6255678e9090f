"""
Values that should occur once.

Rule of the file: a value is repeated if it is among the last `MEMORY_ROWS` values of its feature.
Older values are forgotten, so memory is bounded.
"""

from __future__ import annotations

from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import ABSENT, NULL, TEXT, Cells, arguments, tags
from stream_monitor.join.ring import Ring
from stream_monitor.state import Packed

MEMORY_ROWS = 50_000


class UniqueForm(msgspec.Struct):
    """The bytes of the last values of a feature."""

    repeated: int
    head: int
    """Of the ring, in which they are the newest rows."""
    ids: NDArray[np.uint64]


class Unique(Packed[UniqueForm]):
    """
    The last values of one feature, as 64-bit hashes.

    Notes
    -----
    About 1 MB; 0.3 µs a value. A snapshot has the hashes alone, because the index is made from
    them.
    """

    Form = UniqueForm

    def __init__(self) -> None:
        self.ring = Ring({}, rows_max=MEMORY_ROWS)
        self.repeated = 0
        """Number of repeated values so far."""

    def add(self, cells: Cells, texts: list[str]) -> NDArray[np.bool_]:
        """
        Add values in the order of the log; which of them are repeated. Missing ones do not count.
        """
        tag, found = tags(cells), np.zeros(len(cells), bool)
        known = np.flatnonzero((tag != NULL) & (tag != ABSENT))
        if not len(known):
            return found
        ids = np.ascontiguousarray(cells[known]).view(np.uint64).copy()
        named = tag[known] == TEXT
        if named.any():
            ids[named] = [
                xxh3_64_intdigest(texts[i].encode())
                for i in arguments(cells[known][named]).tolist()
            ]
        found[known] = self._repeated(ids)
        self.repeated += int(found.sum())
        return found

    def _repeated(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        n = len(ids)
        last = np.full(n, -1, np.int64)
        of, seq = self.ring.find(ids)
        np.maximum.at(last, of, seq)
        order = np.argsort(ids, kind="stable")
        same = ids[order][1:] == ids[order][:-1]
        seqs = self.ring.append(ids)
        last[order[1:][same]] = seqs[order[:-1][same]]
        self.ring.forget(self.ring.head - MEMORY_ROWS)
        repeated: NDArray[np.bool_] = (last >= 0) & (last >= seqs - MEMORY_ROWS)
        return repeated

    def packed(self) -> UniqueForm:
        ring = self.ring
        return UniqueForm(self.repeated, ring.head, ring.rows("id", ring.tail, ring.head))

    @classmethod
    def unpacked(cls, form: UniqueForm) -> Self:
        unique = cls()
        unique.repeated = form.repeated
        unique.ring.tail = unique.ring.head = form.head - len(form.ids)
        unique.ring.append(form.ids)
        return unique
