"""
The statistics of features in a snapshot.

Rule of the file: sums are in one matrix, and are found again by the name of their feature. What was
counted in another way is not restored. So the stored form (`InputsForm`) and the object (`Inputs`)
are two classes.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import numpy as np

from stream_monitor.arrays import Float
from stream_monitor.monitors.baseline import encode_profile
from stream_monitor.monitors.fences import Trailing
from stream_monitor.monitors.input_drift import InputDriftForm
from stream_monitor.monitors.inputs import Inputs
from stream_monitor.monitors.late import Late
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.value_rules import ValueRulesForm
from stream_monitor.windows.panes import Panes


class InputsForm(msgspec.Struct):
    """Statistics of features in a snapshot."""

    rows: int
    unknown: dict[str, int]
    unknown_at: dict[str, int]
    value_rules: ValueRulesForm
    extends: bool
    left_out: list[str]
    late: Late
    waiting: list[Rows]
    """Rows that wait for a baseline."""
    profile: bytes | None
    columns: dict[str, tuple[int, int]]
    """By feature: its first column in the sums, and the number of its columns."""
    panes: Panes | None
    totals: Float | None
    fences: Trailing | None
    drift: InputDriftForm


def form_of(inputs: Inputs) -> InputsForm:
    """Features in a snapshot."""
    known = inputs.profile is not None
    return InputsForm(
        rows=inputs.rows,
        unknown=inputs.unknown,
        unknown_at=inputs.unknown_at,
        value_rules=inputs.value_rules.form(),
        extends=inputs.extends,
        left_out=inputs.left_out,
        late=inputs.late,
        waiting=inputs.waiting,
        profile=None if inputs.profile is None else encode_profile(inputs.profile),
        columns=inputs.layout.columns() if known else {},
        panes=inputs.panes if known else None,
        totals=inputs.totals if known else None,
        fences=inputs.fences.state if known else None,
        drift=inputs.drift.form(),
    )


def restore(
    inputs: Inputs, form: InputsForm, changed: Collection[str], *, fences_anew: bool
) -> None:
    """
    Restore an object that has the baseline of the snapshot, or none if the snapshot has none.

    Parameters
    ----------
    inputs : Inputs
    form : InputsForm
    changed : set of str
        Features that are counted in another way now, and begin again.
    fences_anew : bool
        Whether the fences that follow the rows begin again too.
    """
    inputs.rows, inputs.unknown, inputs.unknown_at = form.rows, form.unknown, form.unknown_at
    inputs.extends, inputs.left_out = form.extends, form.left_out
    inputs.value_rules.load(form.value_rules)
    if form.panes is None or form.totals is None:
        inputs.waiting = form.waiting
        inputs.waiting_rows = sum(len(r.times_ms) for r in inputs.waiting)
        return
    before, now = form.columns, inputs.layout.columns()
    kept = [
        name for name in now if name not in changed and before.get(name, (0, 0))[1] == now[name][1]
    ]
    take, put = (
        np.concatenate([np.arange(of[n][0], sum(of[n])) for n in kept] + [[-1]]).astype(np.int64)
        for of in (before, now)
    )
    inputs.panes = form.panes
    inputs.panes.lay_out(take, put, inputs.layout.width)
    inputs.totals[put] = form.totals[take]
    same = len(kept) == len(now) == len(before)

    def lay_out(partial: Float) -> Float | None:
        found = np.zeros(inputs.layout.width)
        found[put] = partial[take]
        return found if same else None

    inputs.drift.load(form.drift, changed, lay_out)
    form.late.rows = inputs.late.rows  # a setting, which counts from now on
    inputs.late = form.late
    if form.fences is not None and not fences_anew:
        inputs.fences.load(form.fences)
