"""
Rows of CSV files from any program.

Rule of the file: a file is read once to learn (`learn`), and once for its rows (`rows`). A row that
is not CSV, or does not have the cells of the header, is passed on unchanged and becomes a dead
letter. Comments, notes and sums below the table are not rows, and are reported. A file that cannot
be one table is an error.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, Self

from stream_monitor.errors import InputError
from stream_monitor.inputs.columns import Column, Told
from stream_monitor.inputs.dialect import (
    SAMPLE_BYTES,
    SEPARATOR_NAMES,
    Dialect,
    dialect_of,
    mended,
    opened_text,
)
from stream_monitor.inputs.facts import Facts
from stream_monitor.inputs.files import PASSES, InputFile
from stream_monitor.inputs.readers import Row, Unusable
from stream_monitor.inputs.written_numbers import Decimal

CHUNK_ROWS = 1_024
TAIL_ROWS = 20
"""This many of the last rows are checked for notes and sums below the table."""
SUMS = frozenset(
    (
        "total",
        "totals",
        "grand total",
        "sum",
        "sums",
        "summe",
        "gesamt",
        "insgesamt",
        "somme",
        "suma",
        "totale",
        "average",
        "mean",
        "count",
    )
)


class Malformed(tuple[str, ...]):  # noqa: SLOT001 - a tuple with values has no slots
    """The unchanged lines of a row that is not CSV, and why."""

    why: str

    def __new__(cls, lines: Iterable[str], why: str) -> Self:
        found = super().__new__(cls, lines)
        found.why = why
        return found


class CsvReader:
    """A file of cells with a header."""

    passes = PASSES

    def __init__(self, file: InputFile, tell: Callable[[str], Told]) -> None:
        self.file = file
        self.comments = self.stray_bytes = self.empty_rows = 0
        self.below: list[str] = []
        """Rows below the table that do not belong to it."""
        self._tell = tell
        self._dialect: Dialect | None = None
        self.learnt: list[Column] = []
        self.line = 0
        """Line at which the newest row begins, from 1 on."""
        self._unclosed = ""
        """Why the first row of several lines cannot be used: its quotes count for the next ones."""

    @property
    def dialect(self) -> Dialect:
        """How the file is written; known after `columns`."""
        assert self._dialect is not None
        return self._dialect

    def columns(self) -> tuple[str, ...]:
        """Read the header."""
        with self.file.open() as stream:
            head = stream.read(SAMPLE_BYTES)
            while len(head) < SAMPLE_BYTES and (more := stream.read(SAMPLE_BYTES - len(head))):
                head += more
        self._dialect = dialect_of(self.file.name, head, whole=len(head) < SAMPLE_BYTES)
        return self._dialect.columns

    def learn(self, time: str | None) -> Iterator[Any]:
        """
        Read the file and learn about its columns; yields the cell in column `time` of each row,
        None if there is none.
        """
        names = self.dialect.columns
        commas = self.dialect.separator != ","
        self.learnt = [
            Column(name, self._tell(name)._replace(commas_in_cells=commas)) for name in names
        ]
        self.comments = self.stray_bytes = self.empty_rows = 0
        at = names.index(time) if time is not None else len(names)
        for chunk, good in self._chunks():
            for column, cells in (
                zip(self.learnt, zip(*good, strict=True), strict=True) if good else ()
            ):
                column.add(cells)
            for row in chunk:
                yield row[at] if at < len(row) == len(names) and type(row) is tuple else None
        usual = self._usual_decimal()
        for column in self.learnt:
            column.decide(usual)

    def _usual_decimal(self) -> Decimal | None:
        """The decimal mark of the columns that show one."""
        found: Counter[str] = Counter()
        for column in self.learnt:
            evidence = column.evidence()
            if evidence["comma"] != evidence["point"]:
                found["comma" if evidence["comma"] > evidence["point"] else "point"] += 1
        if found["comma"] == found["point"]:
            return None
        return "comma" if found["comma"] > found["point"] else "point"

    @property
    def infinite(self) -> bool:
        """Whether a column of numbers contains infinities."""
        return any(column.infinite and column.kind == "number" for column in self.learnt)

    def facts(self, column: str) -> Facts | None:
        """What was learnt about a column."""
        return next((Facts.of_cells(found) for found in self.learnt if found.name == column), None)

    def rows(self) -> Iterator[Row]:
        """Values of all rows, in the order of the file."""
        names = self.dialect.columns
        for chunk, good in self._chunks():
            columns = (
                [
                    column.convert(cells)
                    for column, cells in zip(self.learnt, zip(*good, strict=True), strict=True)
                ]
                if good
                else []
            )
            values = zip(*columns, strict=True)
            for row in chunk:
                if type(row) is Malformed:
                    yield Unusable("\n".join(row).encode(), row.why)
                else:
                    yield (
                        dict(zip(names, next(values), strict=True))
                        if len(row) == len(names)
                        else Unusable(self._joined(row), self._misfit(row))
                    )

    def line_of(self, row: int) -> int:
        """The line at which row `row` of `rows` begins. The first row is 0, the first line 1."""
        with self.file.open() as stream, closing(self._lines(stream)) as lines:
            for _ in islice(lines, row + 1):
                pass
            return self.line

    def beyond(self) -> list[str]:
        """None, because the columns themselves know it."""
        return []

    def notes(self) -> Iterator[str]:
        """Sentences about the file itself, if it is unusual."""
        dialect = self.dialect
        if dialect.encoding not in ("utf-8", "utf-8-sig"):
            yield f"read as {dialect.encoding.upper()}"
        if self.stray_bytes:
            yield (
                f"not UTF-8 throughout: {self.stray_bytes:,} bytes are read as Windows-1252 "
                "(Latin-1)"
            )
        if dialect.separator != ",":
            yield (
                "cells are separated by "
                f"{SEPARATOR_NAMES.get(dialect.separator, repr(dialect.separator))}"
            )
        if dialect.has_row_names:
            yield (
                "the first cell of each row has no name in the header: it is taken for the name "
                "of the row and left out"
            )
        if dialect.skipped > bool(dialect.told_separator):
            yield (
                f"{dialect.skipped - bool(dialect.told_separator)} "
                f"line{'s' if dialect.skipped > 1 + bool(dialect.told_separator) else ''} before "
                "the header left out"
            )
        if self.comments:
            yield f"{self.comments:,} comment line{'s' if self.comments > 1 else ''} (#) left out"
        if self.empty_rows:
            yield (
                f"{self.empty_rows:,} row{'s' if self.empty_rows > 1 else ''} without any cell "
                "filled left out"
            )
        if self.below:
            yield (
                f"{len(self.below)} line{'s' if len(self.below) > 1 else ''} below the table left "
                f"out: {self.below[0][:80]!r}"
            )

    # ---- lines

    def _chunks(self) -> Iterator[tuple[list[tuple[str, ...]], list[tuple[str, ...]]]]:
        """
        Chunks of rows, and those rows that have a cell for each column, without the rows below the
        table.
        """
        count = len(self.dialect.columns)
        with self.file.open() as stream, closing(self._lines(stream)) as lines:
            waiting: list[tuple[str, ...]] = []
            while chunk := list(islice(lines, CHUNK_ROWS)):
                waiting += chunk
                ready, waiting = waiting[:-TAIL_ROWS], waiting[-TAIL_ROWS:]
                if ready:
                    yield ready, [row for row in ready if len(row) == count and type(row) is tuple]
            below = self._below(waiting)
            self.below = [self._joined(row).decode() for row in waiting[len(waiting) - below :]]
            waiting = waiting[: len(waiting) - below]
            yield waiting, [row for row in waiting if len(row) == count and type(row) is tuple]

    def _below(self, rows: list[tuple[str, ...]]) -> int:
        """How many of the last rows are notes and sums below the table."""
        n = 0
        while n < len(rows) - 1 and self._is_note(rows[-1 - n]):
            n += 1
        if n < len(rows) - 1 and _is_sum(rows[-1 - n], rows[: len(rows) - 1 - n]):
            n += 1
        return n

    def _is_note(self, row: tuple[str, ...]) -> bool:
        """Whether a row is a single text."""
        filled = [cell for cell in row if cell.strip()]
        count = len(self.dialect.columns)
        return (
            type(row) is tuple
            and count > 1
            and len(row) <= count
            and (len(filled) == 1 < count - 1 or (len(filled) <= 1 and len(row) < count))
            and not _is_number(filled[:1])
        )

    def _lines(self, stream: BinaryIO) -> Generator[tuple[str, ...]]:
        text = opened_text(stream, self.dialect.encoding)
        source = _Lines(text, self)
        reader = self.dialect.reader(source)
        try:
            for _ in range(self.dialect.skipped):
                text.readline()
            header = True
            while True:
                source.begin()
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if header or "unexpected end" in str(error):
                        # a quote that is never closed: nothing after it can be used
                        at = reader.line_num + self.dialect.skipped
                        why = self._unclosed or f"line {at}: malformed CSV: {error}"
                        raise InputError(f"{self.file.name}: {why}") from None
                    why = f"line {self.line:,}: {self._why(source.read, error)}"
                    if len(source.read) > 1:
                        self._unclosed = self._unclosed or why
                    yield Malformed("".join(source.read).splitlines(), why)
                    continue
                if cells is None:
                    break
                if not header and any(cells):
                    yield tuple(cells)
                elif not header and len(cells) > 1:
                    self.empty_rows += 1
                header = header and not cells
        except UnicodeError as error:
            raise InputError(
                f"{self.file.name}: after line {reader.line_num}: not "
                f"{self.dialect.encoding.upper()} as its beginning: {error}"
            ) from None
        finally:
            text.detach()

    def _misfit(self, row: Sequence[str]) -> str:
        n = len(row)
        return f"{n:,} cell{'s' * (n != 1)}, where the header has {len(self.dialect.columns):,}"

    def _why(self, lines: Sequence[str], error: csv.Error) -> str:
        """Why lines are no row: a cell that is too long, or what the reader of CSV says."""
        most = csv.field_size_limit()
        text = "".join(lines)
        if len(text) <= most:
            return f"malformed CSV: {error}"
        try:
            csv.field_size_limit(len(text))
            row = next(csv.reader(lines, delimiter=self.dialect.separator), [])
        except csv.Error:
            row = []
        finally:
            csv.field_size_limit(most)
        at = next((i for i, cell in enumerate(row) if len(cell) > most), None)
        if at is None:
            return f"malformed CSV: {error}"
        name = self.dialect.columns[at] if at < len(self.dialect.columns) else str(at + 1)
        much, hint = f"{len(row[at]):,}", ""
        if len(lines) > 1:  # the rest was not read
            much, hint = f"more than {most:,}", f" in {len(lines):,} lines; is its quote closed?"
        return f"the cell of column `{name}` has {much} characters{hint} (at most {most:,})"

    def _joined(self, row: Sequence[str]) -> bytes:
        """Join the cells of a row again, for a dead letter."""
        text = io.StringIO()
        csv.writer(text, lineterminator="", delimiter=self.dialect.separator).writerow(row)
        return text.getvalue().encode()


class _Lines:
    """
    Lines for the reader of `csv`, each remembered as it is passed on. Comments at the beginning of
    a row are skipped.
    """

    def __init__(self, lines: Iterable[str], owner: CsvReader) -> None:
        self.read: list[str] = []
        self._number = owner.dialect.skipped
        self._lines, self._owner = iter(lines), owner
        self._marks = len(owner.dialect.columns) - 1 - owner.dialect.has_row_names

    def begin(self) -> None:
        """Mark the beginning of a row."""
        self.read.clear()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._lines:
            self._number += 1
            line, stray = mended(line)
            self._owner.stray_bytes += stray
            if (
                line[:1] == "#"
                and not self.read
                and line.count(self._owner.dialect.separator) < self._marks
            ):
                self._owner.comments += 1
                continue
            if not self.read:
                self._owner.line = self._number
            self.read.append(line)
            return line
        raise StopIteration


def _is_number(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _is_sum(row: tuple[str, ...], before: list[tuple[str, ...]]) -> bool:
    """
    Whether a row begins with a word for a sum that no earlier row has there, and contains only
    numbers besides.
    """
    at = next((i for i, cell in enumerate(row) if cell.strip()), None)
    if type(row) is not tuple or at is None or row[at].strip().rstrip(":").lower() not in SUMS:
        return False
    same = any(
        len(other) > at and other[at].strip().lower() == row[at].strip().lower() for other in before
    )
    rest = [cell for cell in row[at + 1 :] if cell.strip()]
    return not same and all(cell.strip()[-1] in "0123456789%.,€$" for cell in rest)
