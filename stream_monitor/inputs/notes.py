"""
How files were read, in sentences for the person who gave them.

Rule of the file: everything that was replaced, left out, or read in another way than it is written has a sentence
with its column, an example and a count. One sentence a kind, so that a wide table does not drown them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from stream_monitor.inputs.columns import CLEAR_MARKS, Column, Writing
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.shape import listed
from stream_monitor.inputs.sources import Source
from stream_monitor.inputs.times import parse_moment

LIKELY = {
    "prediction": ("yhat", "ypred", "pred", "preds", "predicted", "predictions", "predictedlabel", "predictedclass", "predclass", "predlabel", "modeloutput", "forecast"),
    "label": ("y", "ytrue", "target", "actual", "actuals", "truth", "groundtruth", "outcome", "observed", "labels", "truelabel", "class"),
    "score": (
        "probability",
        "proba",
        "prob",
        "probs",
        "yscore",
        "yprob",
        "yproba",
        "ypredproba",
        "predproba",
        "p",
        "p1",
        "prob1",
        "proba1",
        "probability1",
        "confidence",
        "scores",
    ),
    "timestamp": ("ts", "time", "datetime", "date", "createdat", "eventtime", "eventtimestamp", "when", "servedat"),
    "event_id": ("id", "eventid", "requestid", "uuid", "predictionid", "rowid", "transactionid", "caseid"),
    "latency_ms": ("latency", "latencyms", "durationms", "responsetimems"),
}
"""What columns are often called that are these fields."""
TOLD = ("event_id", "model", "version", "timestamp", "prediction", "score", "label", "status", "latency_ms", "variant", "unit", "embedding")
SHORT_MARKS = frozenset(("None", "none", "NONE", "nil", "-", "--", "---", "–", "—", ".", "..", "?", "na", "Na", "n.a.", "N.A."))
COLUMNS_SHOWN = 5
MOMENTS_LOOKED_AT = 50


def notes_of(source: Source) -> list[str]:
    """All that is to be said of one file once it was read."""
    found = [*_how_read(source), *source.reader.notes(), *_misfits(source)]
    if isinstance(source.reader, CsvReader):
        found += _cells(source.reader.learnt)
    if source.times.missing + source.times.unreadable < source.rows or source.times.unreadable:
        found += source.times.notes(source.time_column or "timestamp", source.reading, source.options.timezone)
    return [f"{source.file.name}: {note}" for note in found]


def _how_read(source: Source) -> Iterator[str]:
    """Which column became what."""
    if source.columns is not None:
        columns = source.columns
    elif isinstance(source.reader, JsonLinesReader) and source.role == "table":
        columns = tuple(source.reader.keys)
    else:
        return
    plan = source.shaper.plan(columns)
    fields = {field: column for field, column, _ in plan.top}
    fields |= {f"{parent}.{name}": column for parent, items in plan.nested if parent != "features" for name, column, _ in items}
    features = source.shaper.features(columns)
    told = [f"{field} = {fields[field]}" for field in sorted(fields, key=_rank)]
    if features or source.role == "table":
        told.append(f"features: {_some(list(features.values())) or 'none'}")
    yield f"{source.rows:,} row{'' if source.rows == 1 else 's'}; " + ", ".join(told)
    yield from _likely(source, list(features) if source.role == "table" else list(plan.unused), plan.fields)
    if not source.has_times and source.rows and source.role != "labels":
        yield f"no timestamp: rows are taken {source.options.interval_ms / 1_000:g} s apart from 2000-01-01 on (--interval)"


def _likely(source: Source, candidates: list[str], fields: frozenset[str]) -> Iterator[str]:
    """Fields that are missing, beside columns that may be meant."""
    taken = {field.partition(".")[0] for field in fields}
    wanted = {"table": set(LIKELY), "predictions": set(LIKELY) - {"label"}, "labels": {"event_id", "label", "timestamp"}}[source.role]
    for field, names in LIKELY.items():
        if field in wanted - taken:
            close = next((column for column in candidates if re.sub("[^a-z0-9]", "", column.lower()) in (*names, field.replace("_", ""))), None)
            if close is not None:
                yield f"no {field}: did you mean --map {field}={close}?"


def _rank(field: str) -> tuple[int, str]:
    parent = field.partition(".")[0]
    return (TOLD.index(parent) if parent in TOLD else len(TOLD), field)


def _some(names: list[str]) -> str:
    more = len(names) - COLUMNS_SHOWN
    return ", ".join(names[:COLUMNS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _misfits(source: Source) -> Iterator[str]:
    for field, why in source.misfits.items():
        yield f"column `{field}` is read as a feature and not as the field of that name: {why} (--map {field}={field} insists)"
    if source.index:
        yield f"{_some(list(source.index))}: the index of a data frame, left out"
    if source.lacks_prediction and not source.options.fill_prediction:
        yield "no column 'prediction' or 'score'; say which it is with --map prediction=COLUMN, else no row can be used"
    named = tuple(column for column in source.unused if column)
    if named and source.role != "table":
        hint = f"; features are called features.NAME (--map features.{named[0]}={named[0]})" if source.role == "predictions" else ""
        yield f"not used, no field of {source.kind}: {listed(named)}{hint}"


def _cells(columns: list[Column]) -> Iterator[str]:
    """How cells of CSV were read."""
    columns = [column for column in columns if column.name and not column.told.is_name]
    yield from _missing(columns)
    for column in columns:
        if column.kind == "number":
            yield from _numbers(column)
        elif column.is_code:
            cell, _ = column.examples["code"]
            yield f"{column.name}: stays text, since numbers such as {cell!r} begin with 0 or +"
        elif column.kind == "text" and column.told.type == "auto":
            yield from _texts(column)


def _missing(columns: list[Column]) -> Iterator[str]:
    """Cells that are read as missing, by mark; and those of text columns that might have been."""
    for is_read in (True, False):
        marks: dict[str, dict[str, int]] = {}
        for column in columns:
            if column.told.type in ("category", "text") and is_read:
                continue
            for cell, n in column.marks.items():
                bare = cell.strip()
                read = column.kind != "text" or not bare or bare in CLEAR_MARKS or bare in column.told.missing
                if read is is_read and (is_read or bare in SHORT_MARKS):
                    marks.setdefault(bare, {})[column.name] = marks.get(bare, {}).get(column.name, 0) + n
        if marks:
            told = ", ".join(f"{mark!r} ({sum(found.values()):,} in {_some(list(found))})" for mark, found in marks.items())
            yield f"read as missing: {told}" if is_read else f"values of text: {told}; --missing MARK reads one as missing"


def _numbers(column: Column) -> Iterator[str]:
    name = column.name
    for cell, n in column.odd_cells():
        where = next((row for example, row in column.examples.values() if example == cell), None)
        shown = f"{cell!r} (row {where:,})" if where is not None else "those with a decimal point"
        count = f"{n:,} of {column.there:,} cells are" if n > 1 else f"1 of {column.there:,} cells is"
        yield f"{name}: {count} no number and stay{'' if n > 1 else 's'} as written, such as {shown}; the column is one of numbers"
    if column.infinite:
        yield f"{name}: {column.infinite:,} infinite, such as {column.examples['infinite'][0]!r}; no number of a feature can be"
    if column.codes:
        yield f"{name}: {column.codes:,} cells such as {column.examples['code'][0]!r} are read as numbers, without the zeros in front"
    if column.huge:
        yield f"{name}: {column.huge:,} whole numbers are beyond 2**53, where a number is no longer exact; if they are ids: --ignore {name}"
    for writing, meaning in (
        (Writing("comma", percent=False), "a decimal comma"),
        (Writing("point", percent=False), "commas between thousands"),
        (Writing(None, percent=False), ""),
    ):
        if writing in column.examples and writing.says in (None, column.decimal) and not column.percent and column.examples[writing] != column.examples.get("code"):
            cell = column.examples[writing][0]
            how = meaning or ("a decimal comma" if column.decimal == "comma" else "commas or blanks between thousands")
            yield f"{name}: numbers such as {cell!r} are read with {how if any(mark in cell for mark in ',.') else 'signs and blanks left out'} (--decimal)"
            break
    if column.percent:
        cell = next(example for kind, (example, _) in column.examples.items() if isinstance(kind, Writing) and kind.percent)
        yield f"{name}: {cell!r} is read as {column.convert([cell])[0]}"


def _texts(column: Column) -> Iterator[str]:
    numbers = column.plain + column.writings.total()
    if numbers and numbers * 2 >= column.there:
        cell = column.examples["odd"][0] if column.odd else ""
        yield (
            f"{column.name}: text, since {column.there - numbers:,} of {column.there:,} cells are no numbers, such as {cell!r}; "
            f"`features: {{{column.name}: {{type: numeric}}}}` in the configuration reads it as numbers"
        )
        return
    looked = list(column.texts)[:MOMENTS_LOOKED_AT]
    if looked and column.odd == column.there and all(len(cell) >= len("1.1.2000") and cell[0].isdigit() and parse_moment(cell) is not None for cell in looked):
        yield f"{column.name}: times such as {looked[0]!r} stay text; as a feature only whether they are missing tells something"
