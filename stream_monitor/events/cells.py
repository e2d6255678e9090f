"""
A cell is one float64: a finite number, or a NaN whose payload says what the value is.

Rule of the file: every value of an event fits into eight bytes of a numeric matrix and keeps its
kind. So columns of numbers, categories, missing and broken values travel and are folded together.
Bits 32 to 47 of the NaN carry the tag, bits 0 to 31 its argument. IEEE 754 keeps payloads of quiet
NaNs when they are copied; no arithmetic is done on a cell before `finite` or the tag was asked.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from stream_monitor.arrays import are_numbers

NULL, ABSENT, NOT_FINITE, TOO_BIG, WRONG_TYPE, BOOL, TEXT = range(7)
"""
Tags: JSON null; no such key; beyond the range of a double (1e999); an integer beyond 2**53; an
array or object; a boolean; a string (its index in a dictionary).
"""

QUIET_NAN_BITS = 0x7FF8 << 48
TEXT_MAX_CHARS = 256
INTEGER_MAX = 2.0**53

_RESERVED = re.compile(r"(features\.)*__")

Cells = NDArray[np.float64]


def boxed(tag: int, argument: int = 0) -> float:
    """
    The cell of a tag.

    >>> import math
    >>> math.isnan(boxed(TEXT, 7))
    True
    """
    value: float = struct.unpack("<d", struct.pack("<Q", QUIET_NAN_BITS | tag << 32 | argument))[0]
    return value


ABSENT_CELL = boxed(ABSENT)
NULL_CELL = boxed(NULL)
FALSE_CELL, TRUE_CELL = boxed(BOOL, 0), boxed(BOOL, 1)
NOT_FINITE_CELL, TOO_BIG_CELL, WRONG_TYPE_CELL = (
    boxed(NOT_FINITE),
    boxed(TOO_BIG),
    boxed(WRONG_TYPE),
)


def tags(cells: Cells) -> NDArray[np.int64]:
    """
    The tag of every cell, -1 for a number. O(cells).

    Examples
    --------
    >>> tags(np.array([1.5, NULL_CELL, ABSENT_CELL, TRUE_CELL])).tolist()
    [-1, 0, 1, 5]
    """
    bits = np.ascontiguousarray(cells).view(np.uint64)
    tag = (bits >> np.uint64(32) & np.uint64(0xFFFF)).astype(np.int64)
    return np.where(are_numbers(cells), -1, tag)


def arguments(cells: Cells) -> NDArray[np.int64]:
    """
    The argument of every tagged cell (index of the text, 0 or 1 of a boolean); meaningless for
    numbers.
    """
    return (np.ascontiguousarray(cells).view(np.uint64) & np.uint64(0xFFFFFFFF)).astype(np.int64)


class Texts(dict[str, float]):
    """The dictionary of one flush: text to its cell. `names` lists the texts by index."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @classmethod
    def of(cls, names: Iterable[str]) -> Texts:
        """The dictionary of these texts, in this order."""
        texts = cls()
        for name in names:
            texts[name]
        return texts

    def __missing__(self, text: str) -> float:
        short = text[:TEXT_MAX_CHARS]
        cell = self[short] if short != text else boxed(TEXT, len(self.names))
        if short == text:
            self.names.append(text)
        self[text] = cell
        return cell


def box(value: Any, texts: Texts) -> float:
    """
    The cell of one decoded JSON value.

    Examples
    --------
    >>> box(2, Texts())
    2.0
    >>> tags(np.array([box("a", Texts()), box([1], Texts()), box(2**60, Texts())])).tolist()
    [6, 4, 3]
    """
    kind = type(value)
    if kind is float:
        if -1.8e308 < value < 1.8e308:
            return float(value)
        return NULL_CELL if value != value else NOT_FINITE_CELL  # noqa: PLR0124, NaN is what data frames write for null
    if kind is int:
        return float(value) if -INTEGER_MAX <= value <= INTEGER_MAX else TOO_BIG_CELL
    if kind is str:
        return texts[value]
    if kind is bool:
        return TRUE_CELL if value else FALSE_CELL
    return NULL_CELL if value is None else WRONG_TYPE_CELL


WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
SWITCHES = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}


@lru_cache(maxsize=16_384)
def class_name(text: str) -> str:
    """
    The one name of a class that tools spell in several ways.

    `true True TRUE 1.0 1.00` are `1`, and `false` likewise `0`; whole numbers lose a fraction of
    zeros. Everything else stays as it is written: a code such as `01` or `1.10` is not a number.

    Examples
    --------
    >>> [class_name(t) for t in ("True", "1.0", "-0", "FALSE", "01", "1.10", "fraud")]
    ['1', '1', '0', '0', '01', '1.10', 'fraud']
    """
    if text in SWITCHES:
        return SWITCHES[text]
    number = WHOLE_NUMBER.fullmatch(text)
    if number is None:
        return text
    return "0" if number[1] == "-0" else number[1]


def class_text(cell: float, texts: list[str]) -> str | None:
    """
    The name of the class of a label, an answer or a prediction; None for a missing value.

    1, 1.0, true, `"1"`, `"1.0"` and `"True"` are one class (see `class_name`).

    Examples
    --------
    >>> class_text(1.0, []), class_text(0.5, []), class_text(boxed(TEXT, 0), ["True"])
    ('1', '0.5', '1')
    """
    if not math.isnan(cell):
        return repr(int(cell)) if cell == int(cell) else repr(float(cell))
    one = np.array([cell])
    tag, argument = int(tags(one)[0]), int(arguments(one)[0])
    return class_name(texts[argument]) if tag == TEXT else "01"[argument] if tag == BOOL else None


def unit_cell(text: str) -> float:
    """
    The cell of a unit (a user, a session): the upper 53 bits of xxh3-64 of its name, so that no
    name of a person is in the log, and no dictionary grows with their number.

    >>> unit_cell("user-17") == unit_cell("user-17") != unit_cell("user-18")
    True
    """
    return float(xxh3_64_intdigest(text.encode()) >> 11)


def feature_named(name: str) -> str:
    """
    The name by which a feature is known: its own, unless that begins like those of stream-monitor
    (`__score__`, `__other__`).

    Different names stay different.

    Examples
    --------
    >>> [feature_named(name) for name in ("age", "__score__", "features.__score__", "features.age")]
    ['age', 'features.__score__', 'features.features.__score__', 'features.age']
    """
    return f"features.{name}" if _RESERVED.match(name) else name


def remap(matrix: Cells, table: NDArray[np.int64]) -> Cells:
    """
    A copy of the matrix in which the text cell of index i became the text cell of index table[i].

    O(cells).
    """
    bits = np.array(matrix, order="C").view(np.uint64)
    text = bits >> np.uint64(32) == np.uint64(QUIET_NAN_BITS >> 32 | TEXT)
    bits[text] = np.uint64(QUIET_NAN_BITS | TEXT << 32) | table[
        (bits[text] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    ].astype(np.uint64)
    return bits.view(np.float64)


def text_indices(matrix: Cells) -> NDArray[np.int64]:
    """Distinct indices of texts in a matrix, ascending."""
    bits = np.ascontiguousarray(matrix).view(np.uint64)
    text = bits >> np.uint64(32) == np.uint64(QUIET_NAN_BITS >> 32 | TEXT)
    return np.unique((bits[text] & np.uint64(0xFFFFFFFF)).astype(np.int64))
