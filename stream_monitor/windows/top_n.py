"""
The N rows with the greatest event time.

Rule of the file: a top-N is a set, so the order in which rows come and how they are cut do not
matter; ties of time are broken by the id hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Int
from stream_monitor.state import Packed

TIME_BITS_MAX = 32
"""Bits of the time in a key of time and id; 32 bits are 49 days."""


class TopForm(msgspec.Struct):
    """The bytes of a top-N."""

    n: int
    columns: dict[str, NDArray[Any]]


class TopN(Packed[TopForm]):
    """
    Rows in columns, of which the N with the greatest (time, id) count.

    Parameters
    ----------
    n : int
    columns : mapping of name to dtype
        What a row carries besides `time` (int64) and `id` (uint64).

    Notes
    -----
    A buffer of 2 N rows takes rows as they come, and is cut to N when it is full: O(1) a row,
    amortised. A snapshot has only the rows that are in it.
    """

    Form = TopForm

    def __init__(self, n: int, columns: Mapping[str, str]) -> None:
        self.n = n
        self.dtypes: dict[str, str] = {"time": "<i8", "id": "<u8", **columns}
        self.column: dict[str, NDArray[Any]] = {
            name: np.zeros(2 * n, dtype) for name, dtype in self.dtypes.items()
        }
        self.used = 0
        self._orders: dict[int, slice | Int] = {}
        """By n: places of the greatest n rows; emptied when rows change."""

    def add_column(self, name: str, dtype: str, default: float) -> None:
        """Rows carry one more value; those that are there get the default."""
        self.dtypes[name] = dtype
        self.column[name] = np.full(2 * self.n, default, dtype)

    def add(self, time: Int, id: NDArray[np.uint64], **columns: NDArray[Any]) -> None:  # noqa: A002
        """Add (n,) rows; the other columns are named as they were declared."""
        self._orders.clear()
        for start in range(0, len(time), self.n):
            part = slice(start, start + self.n)
            n = len(time[part])
            if self.used + n > 2 * self.n:
                self._cut(self.n)
            here = slice(self.used, self.used + n)
            self.column["time"][here], self.column["id"][here] = time[part], id[part]
            for name, values in columns.items():
                self.column[name][here] = values[part]
            self.used += n

    def _cut(self, n: int) -> None:
        order = self._order(n)
        for column in self.column.values():
            kept = column[order]
            column[: len(kept)] = kept
        self.used = min(n, self.used)
        self._orders.clear()

    def _order(self, n: int) -> slice | Int:
        """
        Places of the greatest `n` rows.

        Rows that came in order of time need no sort, unless a tie lies on the cut.
        """
        time = self.column["time"][: self.used]
        first = max(self.used - n, 0)
        if (time[1:] >= time[:-1]).all() and (first == 0 or time[first] > time[first - 1]):
            return slice(first, self.used)
        return self._sorted()[-n:]

    def _sorted(self) -> Int:
        """
        Places by time, then id.

        One number of the time and the first bits of the id is sorted faster, and is used if it
        differs for all rows.
        """
        time, ids = self.column["time"][: self.used], self.column["id"][: self.used]
        low = time.min()
        bits = max((int(time.max()) - int(low)).bit_length(), 1)
        if bits <= TIME_BITS_MAX:
            key = (time - low).astype(np.uint64) << np.uint64(64 - bits) | ids >> np.uint64(bits)
            order = np.argsort(key)
            key = key[order]
            if (key[1:] != key[:-1]).all():
                return order
        return np.lexsort((ids, time))

    def rows(self, n: int | None = None) -> dict[str, NDArray[Any]]:
        """
        The greatest `n` rows (at most N), ascending by time; valid until rows are added or amended.
        """
        n = min(n or self.n, self.n)
        order = self._orders.get(n)
        if order is None:
            order = self._orders[n] = self._order(n)
        return {name: column[order] for name, column in self.column.items()}

    def amend(self, id: int, time: int, **values: float) -> bool:  # noqa: A002
        """Correct the row with this id and time; whether it is there."""
        at = np.flatnonzero(
            (self.column["id"][: self.used] == np.uint64(id))
            & (self.column["time"][: self.used] == time)
        )
        for name, value in values.items():
            self.column[name][at] = value
        return len(at) > 0

    def keep(self, n: int) -> None:
        """Count the greatest `n` of the rows from now on."""
        if n == self.n:
            return
        if n < self.n:
            self._cut(n)
        self._orders.clear()
        for name, column in self.column.items():
            self.column[name] = np.zeros(2 * n, column.dtype)
            self.column[name][: self.used] = column[: self.used]
        self.n = n

    def packed(self) -> TopForm:
        return TopForm(self.n, {name: c[: self.used] for name, c in self.column.items()})

    @classmethod
    def unpacked(cls, form: TopForm) -> Self:
        dtypes = {name: c.dtype.str for name, c in form.columns.items()}
        top = cls(form.n, {k: v for k, v in dtypes.items() if k not in ("time", "id")})
        top.used = len(form.columns["time"])
        for name, column in form.columns.items():
            top.column[name][: top.used] = column
        return top
