"""
The query that makes training data of predictions and labels.

Rule of the file: text of SQL only. Names of columns come from events, so each is quoted; values and
paths are parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stream_monitor.errors import InputError
from stream_monitor.training.columns import BOOLS, PLACES, TEXTS

KINDS = {"number": "DOUBLE", "bool": "BOOLEAN", "text": "VARCHAR"}
"""Kinds of values, and their types."""
OF_ARROW = {"double": "number", "bool": "bool", "string": "text"}
JOIN = """
WITH predictions AS ({predictions}),
labels AS ({labels}),
called AS (
  SELECT * FROM predictions
  WHERE time >= $since AND time < $until AND log_time < $as_of
  QUALIFY row_number() OVER (
    PARTITION BY id, version ORDER BY log_offset, log_row, "partition", "offset", source) = 1
),
newest AS (
  SELECT * FROM labels
  WHERE log_time < $as_of AND id IN (SELECT id FROM called)
  QUALIFY row_number() OVER (
    PARTITION BY id, version ORDER BY time DESC, "partition" DESC, "offset" DESC, source DESC) = 1
)
SELECT format('{{:016x}}', called.id) AS event_id, called.version AS version,
  called.time AS timestamp, {columns}
FROM called
LEFT JOIN newest own ON own.id = called.id AND own.version = called.version
LEFT JOIN newest other ON other.id = called.id AND other.version IS NULL
"""
"""
The first of the predictions with one id and version, and the newest of the labels that are for it:
those of its version, and those that name none.
"""


NEWER = """CASE WHEN own.id IS NULL THEN other.{label} WHEN other.id IS NULL THEN own.{label}
  WHEN (own.time, own."partition", own."offset") > (other.time, other."partition", other."offset")
  THEN own.{label} ELSE other.{label} END AS {label}"""
"""Of the newest label that names the version, and of those that name none, the newer one."""


class Rows(NamedTuple):
    """A relation of the rows of some files. `KIND:NAME` is a column of one kind of values."""

    sql: str
    parameters: dict[str, list[str]]
    columns: dict[str, tuple[str, ...]]
    """Columns with values, and the kinds of values that they have."""


def quoted(name: str) -> str:
    """
    A name as an identifier of SQL.

    >>> quoted('features.a"b')
    '"features.a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def plain_path(path: Path) -> str:
    """
    A path that DuckDB does not take for a pattern.

    >>> plain_path(Path("kept[1]/*.parquet"))
    'kept[[]1]/[*].parquet'
    """
    return re.sub(r"([*?[])", r"[\1]", str(path))


def rows_of(name: str, files: Sequence[Path], only: Collection[str] = ()) -> Rows:
    """
    The rows of all files, with every column that one of them has.

    Parameters
    ----------
    name : str
        Begins the names of the parameters.
    files : sequence of Path
    only : collection of str
        Only these columns; they are there even if no file has them.

    Raises
    ------
    InputError
        Two columns differ only in case, which DuckDB cannot tell apart.
    """
    import pyarrow.parquet as pq

    held = {path: _held(pq.read_schema(path)) for path in files}
    kinds: dict[str, set[str]] = {column: set() for column in only}
    for columns in held.values():
        for column, of_kind in columns.items():
            if not only or column in only:
                kinds.setdefault(column, set()).update(of_kind)
    _check_case(kinds)
    several = {c for c, found in kinds.items() if len(found) > 1}
    groups: dict[tuple[Any, ...], list[Path]] = {}
    for path, columns in held.items():
        # files with the same kinds of values in such columns are read together
        key = tuple((c, tuple(columns[c].items())) for c in sorted(several) if c in columns)
        groups.setdefault(key, []).append(path)
    parameters = {
        f"{name}{i}": [plain_path(p) for p in paths] for i, paths in enumerate(groups.values())
    }
    selects = []
    for parameter, paths in zip(parameters, groups.values(), strict=True):
        there: dict[str, dict[str, str]] = {}
        for path in paths:
            for column, of_kind in held[path].items():
                there.setdefault(column, {}).update(of_kind)
        values = [
            f"{quoted(there[c][k]) if k in there.get(c, ()) else 'NULL'}::{KINDS[k]}"
            f" AS {quoted(f'{k}:{c}')}"
            for c, found in kinds.items()
            for k in sorted(found)
        ]
        selects.append(
            f"SELECT {', '.join([*map(quoted, PLACES), *values])} "  # noqa: S608, names are quoted
            f"FROM read_parquet(${parameter}, union_by_name=true, hive_partitioning=false)"
        )
    if not selects:
        nothing = ", ".join(f"NULL::{kind} AS {quoted(c)}" for c, kind in PLACES.items())
        selects = [f"SELECT {nothing} WHERE false"]
    return Rows(
        " UNION ALL ".join(selects), parameters, {c: tuple(sorted(k)) for c, k in kinds.items()}
    )


def _held(schema: Any) -> dict[str, dict[str, str]]:
    """Of each column with values: which physical column has which kind of them."""
    out: dict[str, dict[str, str]] = {}
    for one in schema:
        if one.name in PLACES:
            continue
        prefix = next((p for p in (BOOLS, TEXTS) if one.name.startswith(p)), "")
        of_kind = out.setdefault(one.name.removeprefix(prefix), {})
        if str(one.type) in OF_ARROW:
            of_kind[OF_ARROW[str(one.type)]] = one.name
    return out


def _check_case(names: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"the columns {other!r} and {name!r} differ only in case, and cannot be told "
                "apart; name one of them in archive.drop, or rename it in the events"
            )


def joined(predictions: Rows, labels: Rows) -> str:
    """Predictions with their labels, in no order; each column by kinds of its values."""
    columns = [
        f"called.{quoted(f'{k}:{c}')}" for c, kinds in predictions.columns.items() for k in kinds
    ]
    columns += [NEWER.format(label=quoted(f"{k}:label")) for k in labels.columns["label"]]
    return JOIN.format(predictions=predictions.sql, labels=labels.sql, columns=", ".join(columns))


def as_one(column: str, kinds: Sequence[str]) -> str:
    """
    The expression of a column whose values are of these kinds: of several it is text, as JSON
    writes them, a whole number without a fraction.

    >>> as_one("x", ["bool"])
    '"bool:x" AS "x"'
    """
    name = quoted(column)
    if not kinds:
        return f"NULL::DOUBLE AS {name}"
    if column == "unit":  # a hash of at most 53 bits
        return f"{quoted('number:unit')}::BIGINT::VARCHAR AS unit"
    if len(kinds) == 1:
        return f"{quoted(f'{kinds[0]}:{column}')} AS {name}"
    number, switch = quoted(f"number:{column}"), quoted(f"bool:{column}")
    whole = f"{number} = trunc({number}) AND abs({number}) < 9.2e18"
    texts = {
        "text": quoted(f"text:{column}"),
        "bool": f"CASE WHEN {switch} THEN 'true' WHEN NOT {switch} THEN 'false' END",
        "number": f"CASE WHEN {whole} THEN {number}::BIGINT::VARCHAR ELSE {number}::VARCHAR END",
    }
    return f"coalesce({', '.join(texts[k] for k in kinds)}) AS {name}"
