"""
The interface of a reader of files, whatever their format.

Rule of the file: a reader gives rows as mappings, or bytes for a row that cannot be used; these are
passed on unchanged and become dead letters. Only a problem that makes the whole file unusable is an
error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, Self

from stream_monitor.inputs.facts import Facts
from stream_monitor.inputs.files import InputFile


class Unusable(bytes):
    """The unchanged text of a row that cannot be used, and why."""

    why: str

    def __new__(cls, text: bytes, why: str) -> Self:
        found = super().__new__(cls, text)
        found.why = why
        return found


Row = dict[str, Any] | bytes


class Reader(Protocol):
    """
    One file.

    `columns` is called first and once, then `learn` is exhausted (unless stdin is live), then
    `rows`.
    """

    file: InputFile
    passes: int
    """How often the file is read in all."""

    def columns(self) -> tuple[str, ...] | None:
        """Column names, or `None` if each row may have its own."""

    def learn(self, time: str | None) -> Iterator[Any]:
        """
        Read the file once and learn about its columns; yields the value in column `time` of each
        row, `None` if there is none.
        """

    @property
    def infinite(self) -> bool:
        """Whether a value was infinite so far; then events need the literal `Infinity`."""

    def facts(self, column: str) -> Facts | None:
        """What was learnt about a column; None if nothing was."""

    def rows(self) -> Iterator[Row]:
        """
        All rows, in the order of the file.

        Their infinities are those of `float`; NaN is None.
        """

    def beyond(self) -> list[str]:
        """
        Columns with whole numbers beyond 2**53, if that is known without reading all of them again.
        """

    def notes(self) -> Iterator[str]:
        """Sentences about the file itself, if it is unusual."""
