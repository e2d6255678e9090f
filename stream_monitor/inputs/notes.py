"""
Sentences for the person who gave the files: how they were read.

Rule of the file: everything that was replaced, left out, or read in another way than it is written
has a sentence with its column, an example and a count. There is one sentence per kind, so that a
wide table does not hide the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from stream_monitor.inputs.columns import Column, Writing
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.likely_columns import likely_columns
from stream_monitor.inputs.missing_marks import CLEAR_MARKS, SHORT_MARKS
from stream_monitor.inputs.moments import parse_moment
from stream_monitor.inputs.options import FIELDS
from stream_monitor.inputs.shape import listed
from stream_monitor.inputs.sources import Source
from stream_monitor.inputs.times import DEFAULT_START_MS

TOLD = (
    "event_id",
    "model",
    "version",
    "timestamp",
    "prediction",
    "score",
    "label",
    "status",
    "latency_ms",
    "variant",
    "unit",
    "embedding",
)
COLUMNS_SHOWN = 5
ODD_SHOWN = 20
MOMENTS_LOOKED_AT = 50
BEYOND = (
    "whole numbers are beyond 2**53, where a number is no longer exact, and count as values of a "
    "wrong type; if they are ids: --ignore"
)


def notes_of(source: Source) -> list[str]:
    """All sentences about one file, after it was read."""
    found = [*_how_read(source), *source.reader.notes(), *_misfits(source)]
    if isinstance(source.reader, CsvReader):
        found += notes_of_cells(source.reader.learnt)
    elif beyond := [
        column
        for column in source.reader.beyond()
        if source.columns is None or column not in source.shaper.names(source.columns)
    ]:
        found.append(f"{_some(beyond)}: {BEYOND}")
    if source.times.missing + source.times.unreadable < source.rows or source.times.unreadable:
        found += source.times.notes(
            source.time_column or "timestamp", source.reading, source.options.timezone
        )
        if source.first_ms is not None and source.first_ms < DEFAULT_START_MS:
            begin = datetime.fromtimestamp(source.first_ms / 1_000, UTC).isoformat(
                timespec="seconds"
            )
            found.append(
                f"{source.time_column or 'timestamp'}: times begin at {begin}; rows before "
                "2000-01-01 are refused"
            )
        if source.ahead:
            found.append(_ahead(source.time_column or "timestamp", source.ahead))
    return [f"{source.file.name}: {note}" for note in found]


def _ahead(column: str, times_ms: list[int]) -> str:
    n, latest = len(times_ms), datetime.fromtimestamp(times_ms[-1] / 1e3, UTC).isoformat()
    rows, take = ("row is", "it takes") if n == 1 else ("rows are", "each takes")
    return (
        f"{column}: {n:,} {rows} dated after today or far after all others ({latest}), as by a "
        f"clock that is ahead; {take} the time of the row before"
    )


def _how_read(source: Source) -> Iterator[str]:
    """Which column became which field or feature."""
    if source.columns is not None:
        columns = source.columns
    elif isinstance(source.reader, JsonLinesReader) and source.role == "table":
        columns = tuple(source.reader.keys)
    else:
        return
    plan = source.shaper.plan(columns)
    fields = {field: column for field, column, _ in plan.top}
    fields |= {
        f"{parent}.{name}": column
        for parent, items in plan.nested
        if parent != "features"
        for name, column, _ in items
    }
    features = source.shaper.features(columns)
    told = [f"{field} = {fields[field]}" for field in sorted(fields, key=_rank)]
    if features or source.role == "table":
        told.append(f"features: {_some(list(features.values())) or 'none'}")
    yield f"{source.rows:,} row{'' if source.rows == 1 else 's'}; " + ", ".join(told)
    candidates = list(features) if source.role == "table" else list(plan.unused)
    for field, column in likely_columns(source.role, candidates, plan.fields):
        yield f"no {field}: did you mean --map {field}={column}?"
    if (
        not source.has_times
        and not source.times.unreadable
        and source.rows
        and source.role != "labels"
    ):
        yield (
            f"no timestamp: rows are taken {source.options.interval_ms / 1_000:g} s apart from "
            "2000-01-01 on (--interval)"
        )


def _rank(field: str) -> tuple[int, str]:
    parent = field.partition(".")[0]
    return (TOLD.index(parent) if parent in TOLD else len(TOLD), field)


def _some(names: list[str]) -> str:
    more = len(names) - COLUMNS_SHOWN
    return ", ".join(names[:COLUMNS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _misfits(source: Source) -> Iterator[str]:
    for field, why in source.misfits.items():
        yield (
            f"column `{field}` is read as a feature and not as the field of that name: {why} "
            f"(--map {field}={field} insists)"
        )
    if source.role == "table" and "" in source.unused:
        yield "a column without a name is taken for an index, and left out"
    if source.index:
        yield f"{_some(list(source.index))}: the index of a data frame, left out"
    if source.lacks_prediction and not source.options.fill_prediction:
        yield (
            "no column 'prediction' or 'score'; say which it is with --map prediction=COLUMN, "
            "else no row can be used"
        )
    unused = source.unused
    if isinstance(source.reader, JsonLinesReader) and not source.shaper.changes:
        unused = tuple(key for key in source.reader.keys if key not in FIELDS[source.role])
    named = tuple(column for column in unused if column)
    if named and source.role != "table":
        hint = (
            f"; features are called features.NAME (--map features.{named[0]}={named[0]})"
            if source.role == "predictions"
            else ""
        )
        yield f"not used, no field of {source.kind}: {listed(named)}{hint}"


def notes_of_cells(columns: list[Column]) -> Iterator[str]:
    """
    How cells of CSV were read: one sentence per kind, and one per column with cells that are not
    understood.
    """
    columns = [column for column in columns if column.name and not column.told.is_name]
    yield from _missing(columns)
    alike: dict[str, list[tuple[str, str]]] = {}
    odd = []
    for column in columns:
        found = _number_writings(column) if column.kind == "number" else _text_writings(column)
        for how, example in found:
            alike.setdefault(how, []).append((column.name, example))
        odd += list(_odd(column)) if column.kind == "number" else list(_mixed(column))
    for how, named in alike.items():
        yield f"{_some([name for name, _ in named])}: {how.format(named[0][1])}"
    yield from odd[:ODD_SHOWN]
    if len(odd) > ODD_SHOWN:
        yield f"and {len(odd) - ODD_SHOWN:,} sentences more on cells that are not understood"


def _missing(columns: list[Column]) -> Iterator[str]:
    """
    Cells that are read as missing, by mark; and those of text columns that might be meant as
    missing.
    """
    for is_read in (True, False):
        marks: dict[str, dict[str, int]] = {}
        for column in columns:
            if column.told.type in ("category", "text") and is_read:
                continue
            for cell, n in column.marks.items():
                bare = cell.strip()
                read = (
                    column.kind != "text"
                    or not bare
                    or bare in CLEAR_MARKS
                    or bare in column.told.missing
                )
                if read is is_read and (is_read or bare in SHORT_MARKS):
                    marks.setdefault(bare, {})[column.name] = (
                        marks.get(bare, {}).get(column.name, 0) + n
                    )
        if marks:
            told = ", ".join(
                f"{mark!r} ({sum(found.values()):,} in {_some(list(found))})"
                for mark, found in marks.items()
            )
            yield (
                f"read as missing: {told}"
                if is_read
                else f"values of text: {told}; --missing MARK reads one as missing"
            )


def _odd(column: Column) -> Iterator[str]:
    """Cells of a column of numbers that are not numbers, and stay unchanged."""
    for cell, n in column.odd_cells():
        where = next((row for example, row in column.examples.values() if example == cell), None)
        shown = f"{cell!r} (row {where:,})" if where is not None else "those with a decimal point"
        what = (
            f"{n:,} of {column.there:,} cells are no numbers and stay"
            if n > 1
            else f"1 of {column.there:,} cells is no number and stays"
        )
        yield f"{column.name}: {what} as written, such as {shown}; the column is one of numbers"


def _number_writings(column: Column) -> Iterator[tuple[str, str]]:
    """Cells that were read in another way than they are written, with an example."""
    if column.infinite:
        yield (
            "infinities such as {} count as values of a wrong type",
            repr(column.examples["infinite"][0]),
        )
    if column.codes:
        yield (
            "cells such as {} are read as numbers, without the zeros in front",
            repr(column.examples["code"][0]),
        )
    if column.huge:
        yield BEYOND + ", up to {}", f"{max(column.high, -column.low):g}"
    for kind, (cell, _) in column.examples.items():
        if (
            isinstance(kind, Writing)
            and kind.says in (None, column.decimal)
            and kind.percent is column.percent
            and (cell, _) != column.examples.get("code")
        ):
            yield (
                "numbers such as {} (--decimal)",
                f"{cell!r} are read as {column.convert([cell])[0]:.10g}",
            )
            break


def _text_writings(column: Column) -> Iterator[tuple[str, str]]:
    if column.is_code:
        yield (
            "kept as text, since numbers such as {} begin with 0 or +",
            repr(column.examples["code"][0]),
        )
    looked = list(column.texts)[:MOMENTS_LOOKED_AT]
    if (
        looked
        and column.odd == column.there
        and all(
            len(cell) >= len("1.1.2000") and cell[0].isdigit() and parse_moment(cell) is not None
            for cell in looked
        )
    ):
        yield (
            (
                "kept as text: times such as {}; as a feature only whether they are missing tells "
                "something"
            ),
            repr(looked[0]),
        )


def _mixed(column: Column) -> Iterator[str]:
    """A column that is text although most of its cells are numbers."""
    numbers = column.plain + column.writings.total()
    if (
        column.kind == "text"
        and column.told.type == "auto"
        and not column.is_code
        and numbers
        and numbers * 2 >= column.there
    ):
        cell = column.examples["odd"][0] if column.odd else ""
        yield (
            f"{column.name}: text, since {column.there - numbers:,} of {column.there:,} cells "
            f"are no numbers, such as {cell!r}; "
            f"`features: {{{column.name}: {{type: numeric}}}}` in the configuration reads it "
            "as numbers"
        )
