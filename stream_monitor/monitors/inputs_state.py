"""
The statistics of features in a snapshot.

Rule of the file: sums lie in one matrix, and are found again by the name of their feature. What was
counted in another way is not taken over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from stream_monitor.monitors.baseline import encode_profile
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.rows import packed_rows, unpacked_rows
from stream_monitor.monitors.unique import Unique
from stream_monitor.state import typed
from stream_monitor.windows.panes import Panes


def state_of(inputs: Inputs) -> dict[str, Any]:
    """Plain values for the snapshot."""
    return {
        "profile": None if inputs.profile is None else encode_profile(inputs.profile),
        "rows": inputs.rows,
        "waiting": [packed_rows(r) for r in inputs.waiting],
        "unknown": inputs.unknown,
        "unknown_at": inputs.unknown_at,
        "uniques": {name: u.state() for name, u in inputs.uniques.items()},
        "columns": inputs.layout.columns() if inputs.profile else {},
        "panes": inputs.panes if inputs.profile else None,
        "totals": inputs.totals.tobytes() if inputs.profile else b"",
        "fences": inputs.fences.state() if inputs.profile else None,
        "extends": inputs.extends,
        "late": inputs.late.state(),
    }


def restore(
    inputs: Inputs, state: Mapping[str, Any], changed: Collection[str], *, fences_anew: bool
) -> None:
    """
    Fill an object that has its baseline, or none, as the snapshot has.

    Parameters
    ----------
    inputs : Inputs
    state : mapping
        Of `state_of`.
    changed : set of str
        Features that are counted in another way now, and begin anew.
    fences_anew : bool
        The fences that follow the rows do too.
    """
    inputs.rows, inputs.unknown, inputs.unknown_at = (
        state["rows"],
        dict(state["unknown"]),
        dict(state["unknown_at"]),
    )
    inputs.uniques |= {
        name: Unique.from_state(u) for name, u in state["uniques"].items() if name in inputs.uniques
    }
    if state["panes"] is None:
        inputs.waiting = [unpacked_rows(r) for r in state["waiting"]]
        inputs.waiting_rows = sum(len(r.times_ms) for r in inputs.waiting)
        return
    before, now = dict(state["columns"]), inputs.layout.columns()
    kept = [
        name for name in now if name not in changed and before.get(name, [0, 0])[1] == now[name][1]
    ]
    take, put = (
        np.concatenate([np.arange(of[n][0], sum(of[n])) for n in kept] + [[-1]]).astype(np.int64)
        for of in (before, now)
    )
    inputs.panes = typed(state["panes"], Panes)
    inputs.panes.lay_out(take, put, inputs.layout.width)
    inputs.totals[put] = np.frombuffer(state["totals"], np.float64)[take]
    inputs.extends = state["extends"]
    inputs.late.load(state["late"])
    if state["fences"] is not None and not fences_anew:
        inputs.fences.load(state["fences"])
