"""
Counts of the columns of a table, as the quality gate needs them.

Rule of the file: the rows are read once, and memory does not grow with them, but for the hashes of
a column that must be unique. Nothing is judged here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_intdigest

from stream_monitor.events.cells import TEXT_MAX_CHARS, class_name
from stream_monitor.events.pattern import Pattern
from stream_monitor.inputs.columns import Column, Told
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.options import parse_path
from stream_monitor.inputs.readers import Reader
from stream_monitor.inputs.sources import INDEX
from stream_monitor.inputs.written_numbers import written
from stream_monitor.training.quality_rules import ColumnRule

CHUNK_ROWS = 4_096
VALUES_MAX = 1_000
"""Distinct values of a column that are counted."""
NUMBER, SWITCH, TEXT, OTHER = "number", "boolean", "text", "list or object"
KINDS = {int: NUMBER, float: NUMBER, bool: SWITCH, str: TEXT}
NUMBERS, NONE = {int, float}, type(None)


def kind_of(value: Any) -> str:
    """
    The kind of a value that is there.

    >>> [kind_of(v) for v in (1, 2.5, True, "a", [])]
    ['number', 'number', 'boolean', 'text', 'list or object']
    """
    return KINDS.get(type(value), OTHER)


def text_of(value: Any) -> str:
    """
    A value as a category: `1`, `1.0`, `true` and `"1"` are one.

    >>> [text_of(v) for v in (1.0, True, "1", "DE", 0.5)]
    ['1', '1', '1', 'DE', '0.5']
    """
    return class_name(str(value))


def in_event(value: Any) -> str:
    """
    A value as an event has it, which is what a pattern is matched with.

    >>> [in_event(v) for v in (1.0, True, "01", 0.5)]
    ['1', 'true', '01', '0.5']
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


class Tally:
    """Counts of one column."""

    def __init__(self, rule: ColumnRule) -> None:
        self.rule = rule
        self.odd = 0
        """Texts in a column of CSV that is one of numbers for the most part."""
        self.there = self.infinite = self.outside = self.unknown = self.repeated = 0
        self.mismatched = 0
        """Values that are not of their pattern."""
        self.total = 0.0
        """Sum of the numbers."""
        self.kinds: Counter[str] = Counter()
        self.fractions = 0
        """Numbers that are not whole."""
        self.values: Counter[str] = Counter()
        self.examples: dict[str, Any] = {}
        """The first value of each fault, and of each kind."""
        self._known = None if rule.categories is None else set(map(text_of, rule.categories))
        self._pattern = None if rule.pattern is None else Pattern(rule.pattern)
        self._seen: set[int] = set()

    def add(self, values: Sequence[Any]) -> None:
        """Count the values of some rows; None is missing."""
        types = Counter(map(type, values))
        there = [v for v in values if v is not None] if types.pop(NONE, 0) else values
        self.there += len(there)
        for kind, n in types.items():
            name = KINDS.get(kind, OTHER)
            self.kinds[name] += n
            if name not in self.examples:
                self.examples[name] = next(v for v in there if type(v) is kind)
        if types.keys() & NUMBERS:
            self._add_numbers(
                there if types.keys() <= NUMBERS else [v for v in there if type(v) in NUMBERS]
            )
        # a column of very many different numbers is none of categories
        if self._known is not None or len(self.values) < VALUES_MAX or str in types:
            self._add_categories(there)
        if self._pattern is not None:
            for raw, n in Counter(map(in_event, there)).items():
                if not self._pattern.matches(raw[:TEXT_MAX_CHARS]):
                    self.mismatched += n
                    self.examples.setdefault("mismatched", raw)
        if self.rule.unique:
            for value in there:
                hashed = xxh3_64_intdigest(f"{kind_of(value)}:{value}".encode())
                if hashed in self._seen:
                    self._count("repeated", [value])
                self._seen.add(hashed)

    def _add_numbers(self, numbers: Sequence[float]) -> None:
        if not math.isfinite(sum(numbers)):
            self._count("infinite", [v for v in numbers if not math.isfinite(v)])
        low, high = self.rule.min, self.rule.max
        if low is not None or high is not None:
            low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
            self._count("outside", [v for v in numbers if not low <= v <= high])
        if self.infinite:
            numbers = [v for v in numbers if math.isfinite(v)]
        self.total += math.fsum(numbers)
        if self.rule.type == "category":
            self.fractions += sum(v != int(v) for v in numbers)

    def _add_categories(self, there: Sequence[Any]) -> None:
        for raw, n in Counter(map(str, there)).items():
            value = class_name(raw)
            if value in self.values or len(self.values) < VALUES_MAX:
                self.values[value] += n
            if self._known is not None and value not in self._known:
                self.unknown += n
                self.examples.setdefault("unknown", raw)

    def _count(self, fault: str, values: list[Any]) -> None:
        if values:
            setattr(self, fault, getattr(self, fault) + len(values))
            self.examples.setdefault(fault, values[0])


class Table:
    """The tallies of a file."""

    def __init__(self) -> None:
        self.rows = 0
        self.malformed = 0
        """Rows that are not CSV or JSON, or have not as many cells as the header."""
        self.columns: dict[str, Tally] = {}
        self.index: list[str] = []
        """Columns that are the index of a data frame; nothing is asked of them."""
        self.notes: list[str] = []


def tallied(
    path: Path, rule_of: Callable[[str], ColumnRule], ignore: Collection[str] = ()
) -> Table:
    """
    Read a file and count.

    Parameters
    ----------
    path : Path
        CSV, JSON Lines or Parquet, by its name.
    rule_of : callable
        The rule of a column.
    ignore : collection of str
        Columns of which nothing is asked.

    Raises
    ------
    InputError
        The file cannot be read, or is not a table.
    """
    table = Table()
    with _opened(path, rule_of) as reader:
        names = reader.columns()
        for _ in reader.learn(None):
            pass
        index: frozenset[str] = getattr(reader, "index", frozenset())
        table.index = [n for n in names or () if n in index or not n or INDEX.fullmatch(n)]
        left_out = {*table.index, *ignore, *(f"features.{name}" for name in ignore)}
        for name in names or ():
            if name not in left_out:
                table.columns[name] = Tally(rule_of(name))
        rows = iter(reader.rows())
        while chunk := list(islice(rows, CHUNK_ROWS)):
            good = [row for row in chunk if isinstance(row, Mapping)]
            table.malformed += len(chunk) - len(good)
            table.rows += len(chunk)
            if names is None:
                good = list(map(_flat, good))
                for name in dict.fromkeys(name for row in good for name in row):
                    if name not in table.columns and name not in left_out:
                        table.columns[name] = Tally(rule_of(name))
            for name, tally in table.columns.items():
                tally.add([row.get(name) for row in good])
        table.notes = list(reader.notes())
        for column in getattr(reader, "learnt", ()):
            if column.name in table.columns:
                _note_odd(table.columns[column.name], column)
                table.notes += _written_otherwise(column)
        table.notes += _no_header(names or ())
    return table


def _note_odd(tally: Tally, column: Column) -> None:
    """
    A column of CSV with many odd cells is one of texts. If most of its cells are numbers, that is
    not what was meant.
    """
    odd = column.odd + column.switches
    is_plain = column.kind == "text" and not column.is_code and column.told.type == "auto"
    if is_plain and 0 < odd < column.there / 2:
        tally.odd = odd
        tally.examples["odd"] = column.examples.get("odd", ("true", 0))[0]


def _written_otherwise(column: Column) -> Iterator[str]:
    """Numbers that a training may read as texts."""
    others = column.writings.total()
    if column.kind == "number" and others:
        first = next(column.examples[w][0] for w in column.writings if w in column.examples)
        yield (
            f"{column.name}: {others:,} cells such as {first!r} are read as numbers; "
            "see that the training reads them so too"
        )


def _no_header(names: Iterable[str]) -> Iterator[str]:
    """A header whose names are values is a row. Those of an array are 0, 1, 2 …; years follow."""
    numbers = [name for name in names if written(name) is not None]
    whole = [int(name) for name in numbers if name.isdecimal()]
    if len(whole) < len(numbers) or whole[1:] != [n + 1 for n in whole[:-1]]:
        shown = ", ".join(numbers[:3])
        yield f"names of columns are numbers, such as {shown}: does the file lack its header?"


@contextmanager
def _opened(path: Path, rule_of: Callable[[str], ColumnRule]) -> Iterator[Reader]:
    _, form, gzipped = parse_path(str(path))
    file = InputFile(str(path), Meter(), gzipped=gzipped)
    try:
        if form == "csv":
            yield CsvReader(file, lambda column: Told(rule_of(column).type))
        elif form == "jsonl":
            yield JsonLinesReader(file, is_table=True)
        else:
            from stream_monitor.inputs.parquet import ParquetReader

            yield ParquetReader(file, frozenset())
    finally:
        file.close()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose objects, such as `features`, are columns with a dot."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            out |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            out[name] = value
    return out
