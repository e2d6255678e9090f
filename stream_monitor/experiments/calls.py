"""
The rows of an experiment: calls with their units, arms and outcomes.

Rule of the file: pure selection. Rows are in the order of the log, whatever layouts they came in;
a retry of a call is not there, because the join knows its identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import Bool, Float, Int
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.inbox import Waiting
from stream_monitor.experiments.outcomes import arms_of, of_calls
from stream_monitor.experiments.units import KEY_BITS, Key
from stream_monitor.monitors.version import Version


class Calls(NamedTuple):
    """
    Calls of one model in the order of the log; `values` is (outcomes known at once, then races
    known at once; n).
    """

    row: Int
    """Place in the record."""
    id: NDArray[np.uint64]
    version: Int
    time_ms: Int
    now_ms: Int
    unit: Key
    has_unit: Bool
    arm: Int
    """-1: of no arm."""
    failed: Bool
    values: Float

    def at(self, index: Any) -> Calls:
        """The calls at an index of numpy: a slice, a mask, or places."""
        return Calls(*(c[..., index] for c in self))  # type: ignore[arg-type]  # columns of any type

    def those(self, wanted: Bool) -> Calls:
        """The calls of a mask; no copy if it has all of them."""
        return self if wanted.all() else self.at(np.flatnonzero(wanted))

    @classmethod
    def joined(cls, parts: list[Calls]) -> Calls:
        """The calls of several records, one after the other."""
        return cls(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


def calls_of(
    definition: Definition, waiting: Sequence[Waiting], versions: Sequence[Version]
) -> Calls:
    """
    Calls of an experiment.

    Parameters
    ----------
    definition : Definition
    waiting : sequence of Waiting
        Rows of its model, by layout; at least one.
    versions : sequence of Version
        Versions of the shard, by code.
    """
    found = [_calls(definition, part, versions) for part in waiting]
    if len(found) == 1:
        return found[0]
    calls = Calls.joined(found)
    return calls.at(np.argsort(calls.row, kind="stable"))


def _calls(definition: Definition, part: Waiting, versions: Sequence[Version]) -> Calls:
    rows, failed = part.rows, part.failed
    by_id = part.id >> np.uint64(64 - KEY_BITS)
    unit, has_unit = by_id, np.zeros(len(by_id), bool)
    if definition.unit != "event" and "unit" in rows.columns:
        cells = rows.cells[rows.columns.index("unit")]
        has_unit = ~np.isnan(cells)
        unit = np.where(has_unit, np.where(has_unit, cells, 0.0).astype(np.uint64), by_id)
    immediate = [o for o in (*definition.outcomes, *definition.races) if not o.needs_label]
    rules = versions[int(part.version[0])].settings.features  # those of the model
    return Calls(
        row=part.row,
        id=part.id,
        version=part.version,
        time_ms=rows.times_ms,
        now_ms=part.now_ms,
        unit=unit,
        has_unit=has_unit,
        arm=arms_of(definition, rows, part.version, versions),
        failed=failed,
        values=np.array([of_calls(o, rows, failed, rules) for o in immediate]).reshape(
            -1, len(by_id)
        ),
    )
