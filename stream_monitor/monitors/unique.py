"""
Values that should occur once.

Rule of the file: a value is repeated when it is among the last `MEMORY_ROWS` values of its feature;
what lies further back is forgotten, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import ABSENT, NULL, TEXT, Cells, arguments, tags
from stream_monitor.join.ring import Ring

MEMORY_ROWS = 50_000


class Unique:
    """
    The last values of one feature, as 64-bit hashes.

    Notes
    -----
    About 1 MB; 0.3 µs a value.
    """

    def __init__(self) -> None:
        self.ring = Ring({}, rows_max=MEMORY_ROWS)
        self.repeated = 0
        """Values that were there before, since the beginning."""

    def add(self, cells: Cells, texts: list[str]) -> None:
        """Take values in log order; missing ones are no values."""
        tag = tags(cells)
        known = np.flatnonzero((tag != NULL) & (tag != ABSENT))
        if not len(known):
            return
        ids = np.ascontiguousarray(cells[known]).view(np.uint64).copy()
        named = tag[known] == TEXT
        if named.any():
            ids[named] = [
                xxh3_64_intdigest(texts[i].encode())
                for i in arguments(cells[known][named]).tolist()
            ]
        self.repeated += self._repeated(ids)

    def _repeated(self, ids: NDArray[np.uint64]) -> int:
        n = len(ids)
        last = np.full(n, -1, np.int64)
        of, seq = self.ring.find(ids)
        np.maximum.at(last, of, seq)
        order = np.argsort(ids, kind="stable")
        same = ids[order][1:] == ids[order][:-1]
        seqs = self.ring.append(ids)
        last[order[1:][same]] = seqs[order[:-1][same]]
        self.ring.forget(self.ring.head - MEMORY_ROWS)
        return int(((last >= 0) & (last >= seqs - MEMORY_ROWS)).sum())

    def state(self) -> dict[str, Any]:
        """Plain values for the snapshot."""
        return {
            "repeated": self.repeated,
            "head": self.ring.head,
            "ids": self.ring.rows("id", self.ring.tail, self.ring.head).tobytes(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Unique:
        """The values of a snapshot."""
        unique, ids = cls(), np.frombuffer(state["ids"], np.uint64)
        unique.repeated = state["repeated"]
        unique.ring.tail = unique.ring.head = state["head"] - len(ids)
        unique.ring.append(ids)
        return unique
