"""
Files of predictions of two or three models on the same rows, matched.

Rule of the file: a row that one file has and another has not is an error, and so is a label that
differs: such files are not of the same hold-out. The order of rows does not matter if they have
ids; without ids it is what matches them. Rows without a label are counted and left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.errors import InputError
from stream_monitor.events.cells import class_name
from stream_monitor.inputs.columns import Told
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.options import did_you_mean, parse_path
from stream_monitor.inputs.readers import Reader

COLUMNS = {
    "id": ("event_id", "id"),
    "label": ("label",),
    "prediction": ("prediction",),
    "score": ("score", "probability"),
    "unit": ("unit",),
    "latency_ms": ("latency_ms",),
}
"""Fields, and the names of their columns; the first that is there counts."""
SHOWN = 3
SAME = 1e-6
"""Relative difference of floats that two formats of files may make."""


class Answers(NamedTuple):
    """What a model said about the rows."""

    prediction: list[Any] | None
    """None: the file has no such column."""
    score: list[Any] | None
    latency_ms: Float | None
    name: str
    """The file, for messages."""


class Matched(NamedTuple):
    """Labelled rows that all files have."""

    label: list[Any]
    models: tuple[Answers, ...]
    """In the order of the files."""
    units: Int | None
    """(n,) codes from 0 on; None: each row is a unit."""
    segments: dict[str, list[str]]
    """By column: the value of each row; empty for a missing one."""
    unlabelled: int


class _Table(NamedTuple):
    name: str
    columns: dict[str, list[Any]]
    """By field, or by name of a segment."""
    rows: int


def matched(
    paths: Sequence[str],
    *,
    unit: str | None = None,
    segments: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
) -> Matched:
    """
    Read the files and match their rows.

    Parameters
    ----------
    paths : sequence of str
        CSV, JSON Lines or Parquet.
    unit : str or None
        Column whose rows belong together; None: `unit`, if a file has it.
    segments : sequence of str
        Columns; `features.NAME` and `segments.NAME` are found by NAME too.
    columns : mapping of str to str
        Other names of columns, by field (`COLUMNS`).
    strict : bool
        Each file must have ids and labels, because nobody says that the rows are the same.

    Returns
    -------
    Matched
        In an order that does not depend on that of the files. All rows are in memory.

    Raises
    ------
    InputError
        A file cannot be read, lacks a column, or has other rows or labels than the first one.
    """
    names = {field: ((columns or {})[field],) for field in columns or ()}
    if unit is not None:
        names["unit"] = (unit,)
    tables = [_table(path, names, segments) for path in paths]
    for field, (name, *_) in names.items():
        if all(field not in t.columns for t in tables):
            raise InputError(f"{tables[0].name}: no column {name!r} for {field}")
    for field, name in (("id", "event_id"), ("label", "label")) if strict else ():
        for t in tables:
            if field not in t.columns:
                raise InputError(f"{t.name}: no column `{name}` that says which rows these are")
    orders = _orders(tables)
    label = _agreed("label", tables, orders)
    if label is None:
        raise InputError(f"{tables[0].name}: no column `label`; --map label=COLUMN names another")
    shared = {name: _agreed(name, tables, orders) for name in ("unit", *segments)}
    for name in segments:
        if shared[name] is None:
            raise InputError(f"{tables[0].name}: no column {name!r} for segments")
    kept = [i for i, value in enumerate(label) if value is not None]
    if "id" not in tables[0].columns:
        kept.sort(key=lambda i: _content(i, label, shared, tables, orders))

    def taken(values: list[Any]) -> list[Any]:
        return [values[i] for i in kept]

    models = tuple(_answers(t, taken(order)) for t, order in zip(tables, orders, strict=True))
    units = shared.pop("unit")
    return Matched(
        taken(label),
        models,
        None if units is None else _codes(taken(units)),
        {k: [class_of(v) or "" for v in taken(shared[k] or [])] for k in segments},
        len(label) - len(kept),
    )


def class_of(value: Any) -> str | None:
    """
    The name of a class, however it is written; None for a missing value.

    >>> class_of(True), class_of(1.0), class_of("False"), class_of("no"), class_of(float("nan"))
    ('1', '1', '0', 'no', None)
    """
    if value is None or value == "":
        return None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return class_name(str(value))


def number_of(value: Any) -> float:
    """
    A value as a number; NaN if it is none.

    >>> number_of(True), number_of("2.5"), number_of("many"), number_of(None)
    (1.0, 2.5, nan, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _table(path: str, names: Mapping[str, Sequence[str]], segments: Sequence[str]) -> _Table:
    fields = {**COLUMNS, **names}
    found: dict[str, list[Any]] = {}
    rows = 0
    for row in _rows(path, {*fields["id"], *fields["unit"]}):
        for field, candidates in fields.items():
            for candidate in candidates:
                if candidate in row:
                    _put(found.setdefault(field, []), rows, row[candidate])
                    break
        for name in segments:
            there, value = _inner(row, name)
            if there:
                _put(found.setdefault(name, []), rows, value)
        rows += 1
    for values in found.values():
        values.extend([None] * (rows - len(values)))
    if not rows:
        raise InputError(f"{path}: no rows")
    if "prediction" not in found and "score" not in found:
        likely = did_you_mean("prediction", sorted(row))
        raise InputError(
            f"{path}: no column `prediction` or `score`.{likely} --map prediction=COLUMN names "
            "another"
        )
    return _Table(path, found, rows)


def _put(values: list[Any], row: int, value: Any) -> None:
    values.extend([None] * (row - len(values)))
    values.append(None if value == "" or value != value else value)  # noqa: PLR0124, NaN


def _inner(row: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """A segment: a column, or a key of the objects `segments` and `features` of an event."""
    for key in (name, f"segments.{name}", f"features.{name}"):
        if key in row:
            return True, row[key]
    for parent in ("segments", "features"):
        inside = row.get(parent)
        if isinstance(inside, dict) and name in inside:
            return True, inside[name]
    return False, None


def _rows(path: str, texts: set[str]) -> Iterator[dict[str, Any]]:
    _, kind, gzipped = parse_path(path)
    file = InputFile(path, Meter(), gzipped=gzipped)
    try:
        reader: Reader
        if kind == "csv":
            reader = CsvReader(file, lambda name: Told(is_name=name in texts))
        elif kind == "jsonl":
            reader = JsonLinesReader(file, is_table=True)
        else:
            from stream_monitor.inputs.parquet import ParquetReader

            reader = ParquetReader(file, frozenset())
        reader.columns()
        for _ in reader.learn(None):
            pass
        for number, row in enumerate(reader.rows(), 1):
            if isinstance(row, bytes):
                raise InputError(f"{path}: row {number} cannot be read: {row[:80]!r}")
            yield row
    finally:
        file.close()


def _orders(tables: list[_Table]) -> list[list[int]]:
    """For each file: the row that belongs to each row of the result."""
    first = tables[0]
    with_ids = ["id" in t.columns for t in tables]
    if not any(with_ids):
        for t in tables[1:]:
            if t.rows != first.rows:
                raise InputError(
                    f"{t.name} has {t.rows:,} rows and {first.name} {first.rows:,}: without a "
                    "column `event_id` both must have the same rows in the same order"
                )
        return [list(range(first.rows))] * len(tables)
    if not all(with_ids):
        without = tables[with_ids.index(False)].name
        raise InputError(
            f"{without}: no column `event_id`, and {tables[with_ids.index(True)].name}"
            " has one: write it to both, or to none"
        )
    places = [_places(t) for t in tables]
    for t, at in zip(tables[1:], places[1:], strict=True):
        for lacks, has, missing in (
            (t.name, first.name, places[0].keys() - at.keys()),
            (first.name, t.name, at.keys() - places[0].keys()),
        ):
            if missing:
                shown = ", ".join(repr(i) for i in sorted(missing)[:SHOWN])
                raise InputError(
                    f"{lacks} lacks {len(missing):,} rows of {has}, such as {shown}: both must be "
                    "predictions of the same held-out rows"
                )
    return [[at[i] for i in sorted(places[0])] for at in places]


def _places(table: _Table) -> dict[str, int]:
    ids = [class_of(i) for i in table.columns["id"]]
    if None in ids:
        raise InputError(f"{table.name}: row {ids.index(None) + 1} has no id")
    twice = next(((i, n) for i, n in Counter(ids).most_common(1) if n > 1), None)
    if twice is not None:
        raise InputError(
            f"{table.name}: id {twice[0]!r} is in {twice[1]} rows; each row needs its own"
        )
    return {str(i): place for place, i in enumerate(ids)}


def _agreed(name: str, tables: list[_Table], orders: list[list[int]]) -> list[Any] | None:
    """A column that all files with it must have alike; None if none has it."""
    having = [(t, order) for t, order in zip(tables, orders, strict=True) if name in t.columns]
    if not having:
        return None
    columns = [[t.columns[name][i] for i in order] for t, order in having]
    first = columns[0]
    for (t, _), column in zip(having[1:], columns[1:], strict=True):
        for value, other in zip(first, column, strict=True):
            if not _is_same(value, other):
                raise InputError(
                    f"{t.name}: a row has {name} {other!r}, and in {having[0][0].name} the same "
                    f"row has {value!r}: both must be of the same held-out rows"
                )
    return first


def _is_same(value: Any, other: Any) -> bool:
    """Whether two files mean the same; a float may have gone through text or 32 bits."""
    if class_of(value) == class_of(other):
        return True
    return isinstance(value, float) and math.isclose(value, number_of(other), rel_tol=SAME)


def _content(
    i: int,
    label: list[Any],
    shared: Mapping[str, list[Any] | None],
    tables: list[_Table],
    orders: list[list[int]],
) -> tuple[str, ...]:
    """What orders rows without ids, so that their order in the files does not matter."""
    return (
        repr(label[i]),
        *(repr(values[i]) for values in shared.values() if values is not None),
        *(
            repr(t.columns[name][order[i]])
            for t, order in zip(tables, orders, strict=True)
            for name in ("prediction", "score")
            if name in t.columns
        ),
    )


def _answers(table: _Table, order: list[int]) -> Answers:
    def column(name: str) -> list[Any] | None:
        values = table.columns.get(name)
        return None if values is None else [values[i] for i in order]

    latency = column("latency_ms")
    return Answers(
        column("prediction"),
        column("score"),
        None if latency is None else np.array([number_of(v) for v in latency]),
        table.name,
    )


def _codes(units: list[Any]) -> Int:
    """Codes of units by their names; a row without a unit is one of its own."""
    names = [(0, u) if (u := class_of(v)) is not None else (1, i) for i, v in enumerate(units)]
    codes = {name: code for code, name in enumerate(sorted(set(names)))}
    return np.array([codes[name] for name in names], np.int64)
