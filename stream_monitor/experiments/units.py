"""
The units of an experiment (users, sessions): in which arm each is, and the sums of its outcomes.

Rule of the file: the unit is what was randomised, so variances are taken between units. Six sums of
(n, x) of the units are kept by arm and outcome. When a unit changes, its old terms are subtracted
and its new ones added, so the sums depend only on the outcomes that count. If there are too many
units, half are kept, by their hash; these are a random sample. With a window a unit enters
the sums once, when it is complete.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.experiments.grouping import rank
from stream_monitor.join.ring import Ring
from stream_monitor.state import Packed
from stream_monitor.stats.unit_sums import SUMS, shares_of_variance, terms_by_sum

Key = NDArray[np.uint64]
KEY_BITS = 53
"""A unit is the upper bits of a 64-bit hash: a whole number that a cell holds."""
OUTCOMES_OF_UNIT_MAX = 50
"""
Outcomes of a unit that count in a phase. A few units with very many outcomes would otherwise
decide everything, and no burn-in would help.
"""
NO_ARM = -1


class UnitsForm(msgspec.Struct):
    """Units in a snapshot."""

    arms: int
    outcomes: int
    units_max: int
    keep: int
    phase: int
    columns: dict[str, NDArray[Any]]
    """Columns of the table."""
    sums: NDArray[np.float64]
    window_ms: int = 0
    lag_ms: int = 0
    over_ms: int = 0


class Units(Packed[UnitsForm]):
    """
    Units by hash.

    Parameters
    ----------
    arms, outcomes : int
    units_max : int
    window_ms, lag_ms : int, ms
        Outcomes of a unit count that are of calls within the window after its first one in a phase
        (log time). All of them together enter the sums when the window has been over for the lag,
        in which their labels come. Without a window outcomes enter as they come.

    Notes
    -----
    It is `Packed` because the index of the table is not state.

    A unit takes 16 + 12 bytes an outcome, and 7 to 12 of index. With a window it takes
    8 more, and 23 to 28 until it is complete. About 0.3 µs a row and outcome.
    """

    Form = UnitsForm

    def __init__(
        self, arms: int, outcomes: int, units_max: int, window_ms: int = 0, lag_ms: int = 0
    ) -> None:
        self.arms, self.outcomes, self.units_max = arms, outcomes, units_max
        self.window_ms, self.lag_ms = window_ms, lag_ms
        self.over_ms = 0
        """Units of this phase that were seen first before it are complete."""
        self.complete = np.zeros(arms, np.int64)
        """With a window: complete units of this phase, by arm."""
        self.keep = np.uint64((1 << KEY_BITS) - 1)
        """Greatest key that is kept."""
        self.phase = 0
        self.table = self._empty()
        self.sums = np.zeros((arms, outcomes, SUMS))
        """By arm and outcome: units, n, x, n², n·x, x², where a unit has n outcomes of sum x."""
        self._open = Ring({"since": "<i8"})
        """With a window: units of this phase that are not complete, in the order of the log."""
        self._largest: dict[tuple[int, int], NDArray[np.uint64]] = {}
        """By outcome and arm: the unit that `share_of_one` found last. It is no state."""
        self._last = np.empty(0, np.int32)
        """By place in the table: where `groups` counts."""

    def _empty(self) -> Ring:
        columns = {"arm": "i1", "phase": "<u2", "fallen": "u1"}
        columns |= {"since": "<i8"} if self.window_ms else {}
        for o in range(self.outcomes):
            columns |= {f"n{o}": "<i4", f"x{o}": "<f8"}
        return Ring(columns, tuple(columns))

    @property
    def memory_bytes(self) -> int:
        """Bytes of columns and indexes."""
        return self.table.memory_bytes + self._open.memory_bytes + self._last.nbytes

    def begin_phase(self) -> None:
        """A new split: all units may be in other arms, and their sums begin again."""
        self.phase += 1
        self.sums[:] = 0
        self.complete[:] = 0
        self._open, self._largest = Ring({"since": "<i8"}), {}

    def expose(self, unit: Key, arm: Int, now_ms: Int) -> tuple[Int, Int, Bool, Int]:
        """
        Units that were served, in the order and at the log time of that.

        A unit stays in the arm in which this phase saw it first.

        Returns
        -------
        row : (k,) int64
            Places in the table of the units of the rows that count.
        kept : (k,) int64
            Indices of these rows among the given ones.
        moved : (n,) bool
            Rows of a unit that another arm had first.
        new : (arms,) int64
            Units that were never seen before, by arm.
        """
        sampled = np.flatnonzero(unit <= self.keep)
        key, arms = unit[sampled], arm[sampled]
        row = self.find(key)
        fresh, new = np.flatnonzero(row < 0), np.zeros(self.arms, np.int64)
        if len(fresh):
            once, first, back = np.unique(key[fresh], return_index=True, return_inverse=True)
            order = np.argsort(first)  # the order of the log
            place = np.empty(len(once), np.int64)
            place[order] = self.table.append(once[order], phase=0, fallen=0)
            row[fresh] = place[back]
            new += np.bincount(arms[fresh[first]], minlength=self.arms)
        outside = np.flatnonzero(self.table.get("phase", row) != self.phase)
        if len(outside):
            first = np.sort(np.unique(row[outside], return_index=True)[1])
            entering = outside[first]
            self._enter(row[entering], arms[entering])
            if self.window_ms:
                since = now_ms[sampled[entering]]
                self.table.put("since", row[entering], since)
                self._open.append(key[entering], since=since)
        same = self.table.get("arm", row) == arms
        moved = np.zeros(len(unit), bool)
        if same.all():
            return row, sampled, moved, new
        moved[sampled[~same]] = True
        return row[same], sampled[same], moved, new

    def _enter(self, rows: Int, arms: Int) -> None:
        """Units that this phase sees first."""
        self.table.put("phase", rows, self.phase)
        self.table.put("arm", rows, arms)
        for o in range(self.outcomes):
            self.table.put(f"n{o}", rows, 0)
            self.table.put(f"x{o}", rows, 0.0)

    def find(self, unit: Key) -> Int:
        """Places of units in the table, -1 for those that are not kept."""
        place = np.full(len(unit), -1, np.int64)
        of, seq = self.table.find(unit)
        place[of] = seq
        return place

    def is_open(self, row: Int, call_ms: Int, now_ms: Int) -> Bool:
        """
        Whether calls were within the window of their unit, which is not complete yet.

        Parameters
        ----------
        row : (n,) int64
            From `expose` or `find`; -1 is open.
        call_ms, now_ms : (n,) int64, ms
            Log time of the call, and now.
        """
        if not self.window_ms:
            return np.ones(len(row), np.bool_)
        end = self.table.get("since", np.maximum(row, self.table.tail)) + self.window_ms
        found: Bool = (row < 0) | ((call_ms < end) & (now_ms <= end + self.lag_ms))
        return found

    def close(self, now_ms: int) -> bool:
        """Count the units that became complete, each once; whether there were any."""
        if not self.window_ms:
            return False
        self.over_ms = now_ms - self.window_ms - self.lag_ms
        end = self._open.before("since", self.over_ms)
        row = self.find(self._open.get("id", np.arange(self._open.tail, end)))
        self._open.forget(end)
        self._count(row[row >= 0])
        return bool(len(row))

    def _count(self, row: Int) -> None:
        """Add units to the sums."""
        arm = self.table.get("arm", row)
        self.complete += np.bincount(arm, minlength=self.arms)
        for o in range(self.outcomes):
            n, x = self.table.get(f"n{o}", row).astype(np.float64), self.table.get(f"x{o}", row)
            self.sums[:, o] += self._by_arm(arm, np.array(terms_by_sum(n, x)))

    def groups(self, row: Int) -> tuple[Int, Int]:
        """
        The units of rows, each once, and the number of the unit of each row among them.

        Notes
        -----
        Each row writes its number to the place of its unit, and the last one stays: that takes a
        third of the time of a sort.
        """
        if len(self._last) < self.table.head:
            self._last = np.empty(len(self.table.column["id"]), np.int32)
        number = np.arange(len(row), dtype=np.int32)
        self._last[row] = number
        last = self._last[row]
        is_last = last == number
        return row[is_last], (np.cumsum(is_last) - 1)[last]

    def add(self, outcome: int, row: Int, x: Float, groups: tuple[Int, Int] | None = None) -> Bool:
        """
        Outcomes of units, in the order of the log; which of them count.

        Parameters
        ----------
        outcome : int
        row : (n,) int64
            From `expose` or `find`; all of units of this phase.
        x : (n,) float64
            Finite.
        groups : optional
            What `groups` says of `row`, if it is known.
        """
        touched, back = groups or self.groups(row)
        had = self.table.get(f"n{outcome}", touched)
        counts, dn = np.ones(len(row), bool), np.bincount(back, minlength=len(had))
        if (had + dn).max(initial=0) > OUTCOMES_OF_UNIT_MAX:
            counts = had[back] + rank(back) < OUTCOMES_OF_UNIT_MAX
            back, x = back[counts], x[counts]
            dn = np.bincount(back, minlength=len(had))
        self._change(outcome, touched, dn, np.bincount(back, x, len(had)))
        return counts

    def correct(self, outcome: int, row: Int, dn: Float, dx: Float) -> None:
        """Change outcomes that count by `dx`, or take them out (`dn` is -1)."""
        touched, back = self.groups(row)
        n = len(touched)
        self._change(outcome, touched, np.bincount(back, dn, n), np.bincount(back, dx, n))

    def _change(self, outcome: int, touched: Int, dn: NDArray[Any], dx: NDArray[Any]) -> None:
        """Change what units have."""
        n0 = self.table.get(f"n{outcome}", touched).astype(np.float64)
        x0 = self.table.get(f"x{outcome}", touched)
        n1: Float = n0 + dn
        x1: Float = x0 + dx
        self.table.put(f"n{outcome}", touched, n1)
        self.table.put(f"x{outcome}", touched, x1)
        if self.window_ms:  # units that are complete do not change any more
            return
        arm = self.table.get("arm", touched)
        after, before = terms_by_sum(n1, x1), terms_by_sum(n0, x0)
        self.sums[:, outcome] += self._by_arm(arm, np.subtract(after, before))

    def _by_arm(self, arm: NDArray[Any], terms: Float) -> Float:
        """Sums of (6, n) terms by arm, (arms, 6)."""
        at = arm + self.arms * np.arange(SUMS)[:, None]
        added = np.bincount(at.ravel(), terms.ravel(), self.arms * SUMS).astype(np.float64)
        return added.reshape(SUMS, self.arms).T

    def share_of_one(self, outcome: int, arm: int, enough: float = 1.0) -> float:
        """
        The greatest share that a unit has in the variance of the mean of its arm.

        Parameters
        ----------
        outcome, arm : int
        enough : float, ratio
            If the unit that was the largest before has more than that, its share is the answer;
            another one may have more.

        Notes
        -----
        About 12 ns for each unit of the experiment; 30 µs if the unit before has enough.
        """
        at, sums = (outcome, arm), self.sums[arm, outcome]
        if enough < 1 and at in self._largest:
            row = self.find(self._largest[at])
            if row[0] >= 0 and (share := self._shares(outcome, row, sums)[0]) > enough:
                return float(share)
        row = self._of_arm(arm)
        if not len(row):
            return 1.0
        shares = self._shares(outcome, row, sums)
        largest = int(np.argmax(shares))
        self._largest[at] = self.table.get("id", row[largest : largest + 1])
        return float(shares[largest])

    def shares(self, outcome: int, arm: int) -> Float:
        """The share of each unit of an arm in the variance of the mean there."""
        return self._shares(outcome, self._of_arm(arm), self.sums[arm, outcome])

    def _of_arm(self, arm: int) -> Int:
        """Units of an arm that are in the sums."""
        row = self._of_phase(complete=True)
        found: Int = row[self.table.get("arm", row) == arm]
        return found

    def _shares(self, outcome: int, row: Int, sums: Float) -> Float:
        n, x = (self.table.get(f"{name}{outcome}", row) for name in "nx")
        return shares_of_variance(sums, n.astype(np.float64), x)

    def fall(self, race: int, row: Int) -> Int:
        """
        Which rows are the first failure of their unit, of one kind of failure.

        Parameters
        ----------
        race : int
            The kind of failure: a race between two arms counts these rows.
        row : (n,) int64
            Where the units of failed rows stand.
        """
        if not len(row):
            return np.empty(0, np.int64)
        first = np.sort(np.unique(row, return_index=True)[1])
        bit = np.uint8(1 << race)
        fallen = self.table.get("fallen", row[first])
        self.table.put("fallen", row[first], fallen | bit)
        found: Int = first[(fallen & bit) == 0]
        return found

    def thin(self) -> bool:
        """Keep half of the units, by hash, as long as there are too many; whether it was done."""
        if len(self.table) <= self.units_max:
            return False
        rows = np.arange(self.table.tail, self.table.head)
        while len(rows) > self.units_max:
            self.keep >>= np.uint64(1)
            rows = rows[self.table.get("id", rows) <= self.keep]
        before, self.table = self.table, self._empty()
        columns = {name: before.get(name, rows) for name in before.dtypes if name != "id"}
        self.table.append(before.get("id", rows), **columns)
        self._sum_again()
        return True

    def _sum_again(self) -> None:
        self.sums[:], self.complete[:] = 0, 0
        self._count(self._of_phase(complete=True))

    def _of_phase(self, *, complete: bool) -> Int:
        """Units of this phase: those that are in the sums, or those that are not yet."""
        rows = np.arange(self.table.tail, self.table.head)
        wanted: Bool = self.table.get("phase", rows) == self.phase
        if self.window_ms:
            wanted &= (self.table.get("since", rows) < self.over_ms) == complete
        found: Int = rows[wanted] if self.window_ms or complete else rows[:0]
        return found

    def packed(self) -> UnitsForm:
        table = self.table
        return UnitsForm(
            arms=self.arms,
            outcomes=self.outcomes,
            units_max=self.units_max,
            keep=int(self.keep),
            phase=self.phase,
            columns={n: table.rows(n, table.tail, table.head) for n in table.dtypes},
            sums=self.sums,
            window_ms=self.window_ms,
            lag_ms=self.lag_ms,
            over_ms=self.over_ms,
        )

    @classmethod
    def unpacked(cls, form: UnitsForm) -> Self:
        found = cls(form.arms, form.outcomes, form.units_max, form.window_ms, form.lag_ms)
        found.over_ms = form.over_ms
        found.keep, found.phase = np.uint64(form.keep), form.phase
        columns = dict(form.columns)
        found.table.append(columns.pop("id"), **columns)
        # adding up the units again would give other last digits
        found.sums = form.sums
        if form.window_ms:
            arm = found.table.get("arm", found._of_phase(complete=True))
            found.complete = np.bincount(arm, minlength=form.arms)
            rows = found._of_phase(complete=False)
            rows = rows[np.argsort(found.table.get("since", rows), kind="stable")]
            found._open.append(found.table.get("id", rows), since=found.table.get("since", rows))
        return found
