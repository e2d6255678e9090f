"""
Rows of CSV and JSON Lines files.

Rule of the file: a reader hands out rows as mappings (the same keys in the same order for all rows of a CSV file), or bytes for a row that cannot be used; those travel on
as they are and become dead letters. Only what makes the whole file unusable is an error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.inputs.files import PASSES, InputFile

Row = dict[str, Any] | bytes
CHUNK_ROWS = 1_024
INTEGER_MAX = 1 << 63
OTHER_SEPARATORS = ";\t|"


class Reader(Protocol):
    """One file. `columns` is called first and once, then `scan` is exhausted (not where stdin is live), then `rows`."""

    file: InputFile
    passes: int
    """How often the file is read in all."""

    def columns(self) -> tuple[str, ...] | None:
        """Column names, or `None` where each row may have its own."""

    def scan(self, text: frozenset[str], time: str | None) -> Iterator[Any]:
        """
        Read the file once and learn the types of its columns.

        Yields the value in column `time` for each row, `None` where there is none; `text` are columns that are text whatever they look like.
        """

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of the file."""


class Numbers(NamedTuple):
    """What a numeric column holds."""

    integer: bool
    plain: bool
    """No NaN and no infinity."""


class Malformed(tuple[str, ...]):
    """The lines of a row that is no CSV, as they are."""

    __slots__ = ()


class CsvReader:
    """
    A comma-separated file with a header, UTF-8.

    A column is numeric if all its non-empty cells are, as Python reads numbers (underscores excepted). `nan` counts as a number and becomes null, since JSON has no word for it;
    an infinity stays text and so shows up as a value of a wrong type. A row with too many or too few cells, or with a quote in the wrong place, cannot be used.
    """

    passes = PASSES

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self._columns: tuple[str, ...] = ()
        self._numbers: list[Numbers | None] = []

    def columns(self) -> tuple[str, ...]:
        """Read the header."""
        with self.file.open() as stream:
            self._columns = next(self._lines(stream), ())
        name = self.file.name
        if not self._columns:
            raise InputError(f"{name}: empty; a CSV file begins with a line of column names")
        repeated = sorted({column for column in self._columns if self._columns.count(column) > 1})
        if repeated:
            raise InputError(f"{name}: line 1: two columns are called {repeated[0]!r}; rename one")
        if len(self._columns) == 1 and any(mark in self._columns[0] for mark in OTHER_SEPARATORS):
            raise InputError(f"{name}: line 1: {self._columns[0]!r} is one column; columns are separated by commas")
        return self._columns

    def scan(self, text: frozenset[str], time: str | None) -> Iterator[Any]:
        """Find the numeric columns."""
        numbers: list[Numbers | None] = [None if column in text else Numbers(integer=True, plain=True) for column in self._columns]
        count = len(self._columns)
        time_index = self._columns.index(time) if time is not None else count
        for chunk, good in self._chunks():
            for index, cells in enumerate(zip(*good, strict=True)):
                known = numbers[index]
                if known is not None:
                    numbers[index] = narrow(known, [cell for cell in cells if cell])
            for row in chunk:
                yield row[time_index] if time_index < len(row) == count and type(row) is tuple else None
        self._numbers = numbers

    def rows(self) -> Iterator[Row]:
        """Cells become numbers in numeric columns, null where they are empty."""
        for chunk, good in self._chunks():
            columns = [convert(cells, numbers) for cells, numbers in zip(zip(*good, strict=True), self._numbers, strict=True)] if good else []
            values = zip(*columns, strict=True)
            for row in chunk:
                if type(row) is Malformed:
                    yield "\n".join(row).encode()
                else:
                    yield dict(zip(self._columns, next(values), strict=True)) if len(row) == len(self._columns) else ragged(row)

    def _chunks(self) -> Iterator[tuple[list[tuple[str, ...]], list[tuple[str, ...]]]]:
        """Chunks of rows, and those of them that have a cell for each column."""
        count = len(self._columns)
        with self.file.open() as stream, closing(self._lines(stream)) as lines:
            next(lines, None)
            while chunk := list(islice(lines, CHUNK_ROWS)):
                yield chunk, [row for row in chunk if len(row) == count and type(row) is tuple]

    def _lines(self, stream: BinaryIO) -> Generator[tuple[str, ...]]:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        read: list[str] = []
        reader = csv.reader(_noted(text, read), strict=True)
        try:
            while True:
                read.clear()
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    if reader.line_num == 1 or "unexpected end" in str(error):  # a quote that is never closed: nothing after it can be trusted
                        raise InputError(f"{self.file.name}: line {reader.line_num}: malformed CSV: {error}") from None
                    yield Malformed("".join(read).splitlines())
                    continue
                if cells is None:
                    break
                if cells:
                    yield tuple(cells)
        except UnicodeDecodeError as error:
            found = error.object[error.start : error.start + 1].hex()
            raise InputError(f"{self.file.name}: after line {reader.line_num}: byte 0x{found} is not UTF-8; convert the file to UTF-8") from None
        finally:
            text.detach()


def _noted(lines: Iterable[str], read: list[str]) -> Iterator[str]:
    """Lines, each noted as it is handed on."""
    for line in lines:
        read.append(line)
        yield line


def narrow(known: Numbers, cells: Sequence[str]) -> Numbers | None:
    """What is left of a numeric column after more non-empty cells; `None`: it is text."""
    if not cells:
        return known
    if "_" in "".join(cells):
        return None
    if known.integer:
        try:
            integers = list(map(int, cells))
        except ValueError:
            pass
        else:
            return known._replace(integer=max(map(abs, integers)) < INTEGER_MAX)
    try:
        total = sum(value * 0.0 for value in map(float, cells))
    except ValueError:
        return None
    return Numbers(integer=False, plain=known.plain and total == 0.0)


def convert(cells: Sequence[str], numbers: Numbers | None) -> list[Any]:
    """Values of a chunk of one column."""
    if numbers is None:
        return [cell or None for cell in cells]
    if numbers.integer:
        return [int(cell) if cell else None for cell in cells]
    if numbers.plain:
        return [float(cell) if cell else None for cell in cells]
    return [special(cell) for cell in cells]


def special(cell: str) -> Any:
    """A cell of a numeric column that has NaN or infinities somewhere."""
    value = float(cell) if cell else None
    if value is None or value != value:  # noqa: PLR0124, NaN is the number that is not itself
        return None
    return cell if value in {float("inf"), float("-inf")} else value


def ragged(row: Sequence[str]) -> bytes:
    """Put a row that has not the cells of the header back together, for the dead letter."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue().encode()


class _Time(msgspec.Struct):
    timestamp: Any = None


class JsonLinesReader:
    """One JSON object a line; blank lines are skipped. Lines are handed out as bytes by `lines`, or decoded by `rows`."""

    passes = PASSES

    def __init__(self, file: InputFile) -> None:
        self.file = file

    def columns(self) -> None:
        """Each line has its own."""

    def scan(self, text: frozenset[str], time: str | None) -> Iterator[Any]:  # noqa: ARG002
        """Types are in the lines; only the times are looked at."""
        decode = msgspec.json.Decoder(_Time).decode
        for line in self.lines():
            try:
                yield decode(line).timestamp
            except msgspec.DecodeError:
                yield None

    def lines(self) -> Iterator[bytes]:
        """Lines without their line ends."""
        with self.file.open() as stream:
            # readline and not iteration: iterating a live pipe would wait for a full buffer
            for line in iter(stream.readline, b""):
                stripped = line.strip()
                if stripped:
                    yield stripped

    def rows(self) -> Iterator[Row]:
        """Decode lines; one that is no object stays bytes."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for line in self.lines():
            try:
                yield decode(line)
            except msgspec.DecodeError:
                yield line
