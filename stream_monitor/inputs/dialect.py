"""
How a CSV file is written: its encoding, its separator, and the place of its header.

Rule of the file: the first bytes of the file decide, and an unusual result is reported. A file that
cannot be one table is an error that says what to do.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from stream_monitor.errors import InputError

SAMPLE_BYTES = 1 << 16
SAMPLE_ROWS = 100
SEPARATORS = ",;\t|"
SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEP = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_STRAY = re.compile("[\udc80-\udcff]")
_WINDOWS = {
    0xDC00 + byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte)
    for byte in range(0x80, 0x100)
}


class Dialect(NamedTuple):
    """What must be known before the first row is read."""

    encoding: str
    separator: str
    skipped: int
    """Number of lines before the header: `sep=;`, comments, empty lines."""
    header: tuple[str, ...]
    has_row_names: bool
    """
    Whether rows have one cell more than the header: the first is a name of the row, as R writes it.
    """
    told_separator: bool
    """Whether the first line is `sep=;`."""
    skip_blanks: bool
    """Whether there is a blank after each separator."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns; a column without a name is that of row names or an index."""
        return ("", *self.header) if self.has_row_names else self.header

    def reader(self, lines: Any) -> Any:
        """A reader of `csv` for this dialect."""
        return csv.reader(
            lines,
            strict=True,
            delimiter=self.separator,
            skipinitialspace=self.skip_blanks or self.separator == " ",
        )


def encoding_of(head: bytes) -> str:
    r"""
    The encoding that the first bytes of a file show.

    Examples
    --------
    >>> encoding_of("a,b".encode("utf-16")), encoding_of(b"a\0,\0b\0"), encoding_of(b"a,b")
    ('utf-16', 'utf-16-le', 'utf-8')
    """
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    pairs = len(head) // 2
    if pairs and head[1 : 2 * pairs : 2].count(0) > pairs * 0.4:
        return "utf-16-le"
    return "utf-16-be" if pairs and head[0 : 2 * pairs : 2].count(0) > pairs * 0.4 else "utf-8"


def opened_text(stream: BinaryIO, encoding: str) -> io.TextIOWrapper:
    """Text of a file. Bytes that are not UTF-8 become surrogates, which `mended` reads."""
    return io.TextIOWrapper(
        stream,
        encoding=encoding,
        newline="",
        errors="surrogateescape" if encoding.startswith("utf-8") else "strict",
    )


def mended(line: str) -> tuple[str, int]:
    r"""
    A line whose bytes that are not UTF-8 are read as Windows-1252 (Latin-1), and the number of
    these bytes.

    Examples
    --------
    >>> mended(b"M\xfcnchen".decode(errors="surrogateescape"))
    ('München', 1)
    """
    if line.isascii():
        return line, 0
    stray = len(_STRAY.findall(line))
    return (line.translate(_WINDOWS), stray) if stray else (line, 0)


def dialect_of(name: str, head: bytes, *, whole: bool) -> Dialect:
    """
    Find out how a file is written.

    Parameters
    ----------
    name : str
        Name of the file, for messages.
    head : bytes
        The beginning of the file, up to `SAMPLE_BYTES`.
    whole : bool
        Whether `head` is the whole file.

    Raises
    ------
    InputError
        The file has no header, or two columns with the same name.
    """
    encoding = encoding_of(head)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    text = codecs.getincrementaldecoder(encoding)(errors).decode(head, final=whole)
    lines = list(io.StringIO(text, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()  # the last line may be cut
    lines = [mended(line)[0] for line in lines]
    skipped, told = 0, None
    if lines and (found := _SEP.fullmatch(lines[0].strip("\ufeff"))):
        skipped, told = 1, found[1]
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].startswith("#")):
        skipped += 1
    if skipped and lines[skipped - 1].startswith("#") and _is_header(lines, skipped, told):
        skipped -= 1
    rest = lines[skipped:]
    if not rest:
        raise InputError(f"{name}: empty; a CSV file begins with a line of column names")
    separator = told or _separator(rest)
    rows = _rows(rest, separator)
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    header = (header[0].removeprefix("#").strip(), *header[1:]) if header else header
    widths = {len(row) for row in rows[1:]}
    has_row_names = widths == {len(header) + 1} and any(row[-1] for row in rows[1:])
    after = [cell for row in rows[:SAMPLE_ROWS] for cell in row[1:]]
    skip_blanks = bool(after) and all(cell[:1] == " " for cell in after)
    repeated = sorted(column for column, n in Counter(header).items() if n > 1 and column)
    if repeated:
        raise InputError(
            f"{name}: line {skipped + 1}: two columns are called {repeated[0]!r}; rename one"
        )
    return Dialect(
        encoding, separator, skipped, header, has_row_names, told is not None, skip_blanks
    )


def _rows(lines: list[str], separator: str) -> list[list[str]]:
    """The first rows, as far as they are CSV."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(
            filter(
                None,
                islice(
                    csv.reader(lines, delimiter=separator, skipinitialspace=separator == " "),
                    SAMPLE_ROWS,
                ),
            )
        )
    return rows


def _separator(lines: list[str]) -> str:
    """The separator that gives most rows as many cells as the header, and at least two."""
    best, chosen = (0.0, 0), ","
    for separator in SEPARATORS if any(mark in lines[0] for mark in SEPARATORS) else " ":
        rows = _rows(lines, separator)
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        found = sum(len(row) == width for row in rows[1:]), width
        share = found[0] / max(len(rows) - 1, 1)
        if separator == " " and share < 1 and {len(row) for row in rows[1:]} != {width + 1}:
            continue  # words of one column
        if (share, width) > best:
            best, chosen = (share, width), separator
    return chosen


def _is_header(lines: list[str], at: int, told: str | None) -> bool:
    """
    Whether the comment before line `at` names the columns of the following rows, which are numbers.
    """
    if at >= len(lines):
        return False
    separator = told or _separator(lines[at:])
    names, first = (
        next(iter(_rows([line], separator)), []) for line in (lines[at - 1].lstrip("# "), lines[at])
    )
    return (
        len(names) == len(first) > 1
        and all(_is_number(cell) for cell in first)
        and not any(_is_number(cell) for cell in names)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
