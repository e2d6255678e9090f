"""
The rows of a record as an experiment sees them.

Rule of the file: pure selection. Rows are in the order of the log, whatever layouts they came in;
a retry of a call is not there, because the join knows its identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from stream_monitor.arrays import Bool, Int
from stream_monitor.experiments.definition import Definition
from stream_monitor.experiments.experiment import Calls
from stream_monitor.experiments.outcomes import arms_of, of_calls
from stream_monitor.experiments.units import KEY_BITS
from stream_monitor.join.rows import Joined, Pairs, Predictions
from stream_monitor.monitors.rows import Rows
from stream_monitor.monitors.version import Version

END = np.iinfo(np.int64).max


class Part(Protocol):
    """Rows of predictions of one layout, in the order of `Record.predictions`."""

    @property
    def rows(self) -> Rows: ...
    @property
    def version(self) -> Int: ...
    @property
    def failed(self) -> Bool | None: ...


class Record(NamedTuple):
    """The rows of a record, after the join."""

    parts: Sequence[Part]
    predictions: Predictions
    joined: Joined
    now_ms: Int
    """Log time of each row."""
    versions: Sequence[Version]
    """Versions of the shard, by code."""
    texts: list[str]
    """Dictionary of outcomes."""


def stretches(events: list[tuple[int, str]]) -> Iterator[tuple[int, int, str | None]]:
    """
    Rows between events: (first, end, the event at `end`).

    >>> list(stretches([(3, "{}")])) == [(0, 3, "{}"), (3, END, None)]
    True
    """
    start = 0
    for row, event in events:
        yield start, row, event
        start = row
    yield start, END, None


def models_of(record: Record) -> list[str]:
    """Models of the rows, in the order of their codes."""
    codes = [part.version for part in record.parts] + [p.version for p in record.joined.pairs]
    if not codes:
        return []
    known = [record.versions[c].model for c in np.unique(np.concatenate(codes)).tolist() if c >= 0]
    return list(dict.fromkeys(known))


def calls_of(definition: Definition, record: Record, start: int, end: int) -> Calls | None:
    """Calls of the experiment's model with start <= place < end; None if there are none."""
    found = []
    at = 0
    for part in record.parts:
        n = len(part.version)
        here = slice(at, at + n)
        at += n
        row = record.predictions.row[here]
        of_model = _is_of(definition.model, part.version, record.versions)
        wanted = of_model & (row >= start) & (row < end) & ~record.joined.duplicate[here]
        if wanted.any():
            found.append(_calls(definition, record, part, here, np.flatnonzero(wanted)))
    if not found:
        return None
    calls = Calls.joined(found)
    return calls.at(np.argsort(calls.row, kind="stable"))


def _calls(definition: Definition, record: Record, part: Part, here: slice, at: Int) -> Calls:
    rows, version = part.rows.at(at), part.version[at]
    predictions = record.predictions
    row, id_ = predictions.row[here][at], predictions.id[here][at]
    failed = np.zeros(len(at), bool) if part.failed is None else part.failed[at]
    by_id = id_ >> np.uint64(64 - KEY_BITS)
    unit, has_unit = by_id, np.zeros(len(at), bool)
    if definition.unit != "event" and "unit" in rows.columns:
        cells = rows.cells[rows.columns.index("unit")]
        has_unit = ~np.isnan(cells)
        unit = np.where(has_unit, np.where(has_unit, cells, 0.0).astype(np.uint64), by_id)
    names = {code: record.versions[code].name for code in np.unique(version).tolist()}
    immediate = [o for o in definition.outcomes if not o.needs_label]
    return Calls(
        row=row,
        id=id_,
        version=version,
        time_ms=rows.times_ms,
        now_ms=record.now_ms[row],
        unit=unit,
        has_unit=has_unit,
        arm=arms_of(definition, rows, version, names),
        failed=failed,
        values=np.array([of_calls(o, rows, failed) for o in immediate]).reshape(-1, len(at)),
    )


def pairs_of(definition: Definition, record: Record, start: int, end: int) -> Iterator[Pairs]:
    """Labelled calls of the experiment's model, in the order in which they were completed."""
    for pairs in record.joined.pairs:
        wanted = _is_of(definition.model, pairs.version, record.versions)
        wanted &= (pairs.row >= start) & (pairs.row < end)
        if wanted.any():
            at = np.flatnonzero(wanted)
            found = pairs.at(at[np.argsort(pairs.row[at], kind="stable")])
            yield found._replace(probabilities=np.empty((len(at), 0)))  # no outcome asks for them


def _is_of(model: str, version: Int, versions: Sequence[Version]) -> Bool:
    different, place = np.unique(version, return_inverse=True)
    known = [code >= 0 and versions[code].model == model for code in different.tolist()]
    found: Bool = np.array(known, bool)[place]
    return found
