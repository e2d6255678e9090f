"""
Calls of an experiment until they are old enough to be judged, and for corrections afterwards.

Rule of the file: a call is judged when it is `maturity` old, with whatever label it then has.
Otherwise the arm whose hard cases are labelled later would look better. A label that comes later,
or another one, changes what was counted by the difference.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.experiments.units import Key
from stream_monitor.join.ring import Ring
from stream_monitor.state import Packed

FIXED = {"arrival": "<i8", "version": "<u2", "unit": "<u8", "arm": "i1", "phase": "<u2"}


class Mature(NamedTuple):
    """Calls that came of age, in the order of the log; `values` is (outcomes, n), NaN: no label."""

    seq: Int
    arrival: Int
    unit: Key
    arm: Int
    phase: Int
    values: Float


class WaitingForm(msgspec.Struct):
    """Calls that wait, in a snapshot."""

    outcomes: int
    rows_max: int
    next: int
    """How many of the calls are judged."""
    evicted: int
    columns: dict[str, NDArray[Any]]


class Waiting(Packed[WaitingForm]):
    """
    Answered calls by id, with the values of outcomes that labels gave them.

    Parameters
    ----------
    outcomes : int
        Number of outcomes that need labels.
    rows_max : int
        If there are more, the oldest are forgotten, and counted in `evicted` if they were not
        judged yet.

    Notes
    -----
    It is `Packed` because its index is not state, and sequence numbers begin again at a restore.

    A call takes 30 bytes and 9 an outcome, besides 7 to 12 of index.
    """

    Form = WaitingForm

    def __init__(self, outcomes: int, rows_max: int) -> None:
        self.outcomes, self.rows_max = outcomes, rows_max
        self.next = 0
        """Sequence number of the first call that is not judged yet."""
        self.evicted = 0
        self.calls = self._empty()

    def _empty(self) -> Ring:
        mutable: dict[str, str] = {}
        for o in range(self.outcomes):
            mutable |= {f"x{o}": "<f8", f"counts{o}": "u1"}
        return Ring(FIXED | mutable, tuple(mutable), self.rows_max)

    @property
    def memory_bytes(self) -> int:
        """Bytes of columns and index."""
        return self.calls.memory_bytes

    def add(
        self, id_: NDArray[np.uint64], version: Int, unit: Key, arm: Int, phase: int, now_ms: Int
    ) -> None:
        """Answered calls, in the order of the log."""
        empty: dict[str, Any] = {}
        for o in range(self.outcomes):
            empty |= {f"x{o}": np.nan, f"counts{o}": 0}
        self.calls.append(
            id_, arrival=now_ms, version=version, unit=unit, arm=arm, phase=phase, **empty
        )
        end = self.calls.head - self.rows_max
        if end > self.calls.tail:
            self.evicted += max(end - max(self.next, self.calls.tail), 0)
            self.calls.forget(end)

    def find(self, id_: NDArray[np.uint64], version: Int) -> tuple[Int, Int]:
        """Calls that got a label: (index, seq)."""
        of, seq = self.calls.find(id_)
        same = self.calls.get("version", seq) == version[of]
        of, seq = of[same], seq[same]
        order = np.argsort(of, kind="stable")
        return of[order], seq[order]

    def mature(self, now_ms: int, maturity_ms: int, keep_ms: int) -> Mature:
        """
        Calls that became mature since the last time. Calls older than `keep_ms` are forgotten.
        """
        start = max(self.next, self.calls.tail)
        self.next = max(start, self.calls.before("arrival", now_ms - maturity_ms))
        seq = np.arange(start, self.next)
        found = Mature(
            seq,
            self.calls.get("arrival", seq),
            self.calls.get("unit", seq),
            self.calls.get("arm", seq).astype(np.int64),
            self.calls.get("phase", seq).astype(np.int64),
            np.array([self.calls.get(f"x{o}", seq) for o in range(self.outcomes)]),
        )
        self.calls.forget(min(self.next, self.calls.before("arrival", now_ms - keep_ms)))
        return found

    def is_mature(self, seq: Int) -> Bool:
        """Which calls were judged already."""
        found: Bool = seq < self.next
        return found

    def packed(self) -> WaitingForm:
        calls = self.calls
        return WaitingForm(
            outcomes=self.outcomes,
            rows_max=self.rows_max,
            next=self.next - calls.tail,
            evicted=self.evicted,
            columns={n: calls.rows(n, calls.tail, calls.head) for n in calls.dtypes},
        )

    @classmethod
    def unpacked(cls, form: WaitingForm) -> Self:
        found = cls(form.outcomes, form.rows_max)
        columns = dict(form.columns)
        found.calls.append(columns.pop("id"), **columns)
        found.next, found.evicted = form.next, form.evicted
        return found
