"""
Rows of `observations` as tables of Arrow, one of each kind and model.

Rule of the file: a value is written as it came, or it is missing. Where a column of a file has
values of several kinds, `NAME` has its numbers, `bool:NAME` its booleans and `text:NAME` its texts;
otherwise all are in `NAME`. So nothing depends on how rows are cut into files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_monitor.arrays import are_numbers
from stream_monitor.events.cells import BOOL, TEXT, Cells, arguments, tags
from stream_monitor.events.observations import LABEL, PREDICTION, Observations

KINDS = {PREDICTION: "prediction", LABEL: "label"}
PLACES = {
    "id": "UBIGINT",
    "version": "VARCHAR",
    "time": "BIGINT",
    "log_time": "BIGINT",
    "log_offset": "BIGINT",
    "log_row": "INTEGER",
    "source": "VARCHAR",
    "partition": "INTEGER",
    "offset": "BIGINT",
}
"""
What each row has before its values: hash of the event id, version, event time and log time in ms,
its place in `observations`, and its place in its own topic.
"""
BOOLS, TEXTS = "bool:", "text:"


class Place(NamedTuple):
    """Where a record of `observations` stands."""

    partition: int
    offset: int
    time_ms: int
    """Its log time."""


class Part(NamedTuple):
    """Rows of one kind and model."""

    kind: str
    model: str
    table: Any
    """A `pyarrow.Table`."""


def columns_of(name: str, cells: Cells, texts: Sequence[str]) -> dict[str, Any]:
    """
    The Arrow arrays of a column of cells, by name. A value that no cell holds is null.

    Parameters
    ----------
    name : str
    cells : (n,) float64, cells
    texts : sequence of str
        The dictionary of the record.

    Examples
    --------
    >>> from stream_monitor.events.cells import NULL_CELL, TRUE_CELL, boxed
    >>> found = columns_of("x", np.array([1.5, NULL_CELL, TRUE_CELL, boxed(TEXT, 0)]), ["a"])
    >>> {name: array.to_pylist() for name, array in found.items()}
    {'x': [1.5, None, None, None], 'bool:x': [None, None, True, None], 'text:x': [None, None, None, 'a']}
    """  # noqa: E501
    import pyarrow as pa

    numbers = are_numbers(cells)
    if numbers.all():
        return {name: pa.array(cells, pa.float64())}
    tag, argument = tags(cells), arguments(cells)
    found: dict[str, Any] = {name: pa.nulls(len(cells))}
    if numbers.any():
        found[name] = pa.array(cells, pa.float64(), mask=~numbers)
    if (is_bool := tag == BOOL).any():
        found[BOOLS + name] = pa.array(argument == 1, pa.bool_(), mask=~is_bool)
    if (is_text := tag == TEXT).any():
        index = pa.array(np.where(is_text, argument, 0), pa.int64(), mask=~is_text)
        found[TEXTS + name] = pa.array(list(texts), pa.string()).take(index)
    return found


def parts(
    observations: Observations,
    place: Place,
    *,
    drop: Collection[str] = (),
    model: str | None = None,
    arrivals_ms: NDArray[np.int64] | None = None,
) -> Iterator[Part]:
    """
    The predictions and labels of a record.

    A label that names no model is in every partition of `observations`; it is taken from partition
    0. It names no version either, whatever it says, as in the join of the monitor.

    Parameters
    ----------
    observations : Observations
    place : Place
    drop : collection of str
        Features that are left out.
    model : str, optional
        Only its rows, and labels that name no model.
    arrivals_ms : (rows,) int64, ms, optional
        Log time of each row, where it is not that of the record; it orders the rows.
    """
    import pyarrow as pa

    head = observations.head
    left_out = {f"features.{name}" for name in drop}
    for block in observations.blocks:
        group_of = observations.rows["group"][block.rows]
        for kind, name in dict.fromkeys((g.kind, g.model) for g in head.groups):
            wanted = model is None or name in (model, "")
            if kind not in KINDS or not wanted or _is_copy(name, place.partition):
                continue
            mine = [i for i, g in enumerate(head.groups) if (g.kind, g.model) == (kind, name)]
            at = np.flatnonzero(np.isin(group_of, mine))
            if not len(at):
                continue
            versions = pa.array([g.version if g.model else None for g in head.groups], pa.string())
            columns = {
                **_places(observations, block.rows[at], place, arrivals_ms),
                "version": versions.take(pa.array(group_of[at])),
            }
            for column, cells in zip(block.columns, block.cells, strict=True):
                if column not in left_out:
                    columns |= columns_of(column, cells[at], head.texts)
            yield Part(KINDS[kind], name, pa.table(columns))


def _is_copy(model: str, partition: int) -> bool:
    """Whether a row stands in partition 0 as well."""
    return not model and partition != 0


def _places(
    observations: Observations,
    index: NDArray[np.int64],
    place: Place,
    arrivals_ms: NDArray[np.int64] | None,
) -> dict[str, Any]:
    import pyarrow as pa

    rows, n = observations.rows[index], len(index)
    named = [source.rpartition("/") for source in observations.head.sources]
    of = pa.array(rows["source"])
    log = np.full(n, place.time_ms) if arrivals_ms is None else arrivals_ms[index]
    order = np.full(n, place.offset) if arrivals_ms is None else log
    return {
        "id": pa.array(rows["id"].copy(), pa.uint64()),
        "version": None,
        "time": pa.array(rows["time"].copy(), pa.int64()),
        "log_time": pa.array(log, pa.int64()),
        "log_offset": pa.array(order, pa.int64()),
        "log_row": pa.array(index if arrivals_ms is None else np.zeros(n), pa.int32()),
        "source": pa.array([name for name, _, _ in named], pa.string()).take(of),
        "partition": pa.array([int(p) for _, _, p in named], pa.int32()).take(of),
        "offset": pa.array(rows["offset"].copy(), pa.int64()),
    }


def together(tables: Sequence[Any]) -> Any:
    """
    One table of several, with all their columns.

    Examples
    --------
    >>> import pyarrow as pa
    >>> a, b = pa.table({"x": [1.0]}), pa.table({"x": pa.nulls(1), "bool:y": [True]})
    >>> together([a, b]).to_pylist()
    [{'x': 1.0, 'y': None}, {'x': None, 'y': True}]
    """
    import pyarrow as pa

    table = pa.concat_tables(tables, promote_options="default")
    names = table.column_names
    alone = {
        prefix + name: name
        for prefix, other in ((BOOLS, TEXTS), (TEXTS, BOOLS))
        for name in [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        if other + name not in names
        and (name not in names or table.schema.field(name).type == pa.null())
    }
    table = table.drop_columns([name for name in alone.values() if name in names])
    return table.rename_columns([alone.get(n, n) for n in table.column_names])


def expanded(table: Any) -> Any:
    """
    A table of a file in the form that `together` takes: booleans and texts under their own names.

    >>> import pyarrow as pa
    >>> expanded(pa.table({"version": ["v1"], "x": [True], "y": ["a"]})).column_names
    ['version', 'bool:x', 'text:y']
    """
    prefixes = {"bool": BOOLS, "string": TEXTS}
    names = [
        one.name
        if one.name in PLACES or one.name.startswith((BOOLS, TEXTS))
        else prefixes.get(str(one.type), "") + one.name
        for one in table.schema
    ]
    return table.replace_schema_metadata(None).rename_columns(names)
