"""
Features that first come after the baseline was learnt: they are learnt from their own first rows.

Rule of the file: a feature begins with the first row that has a value of it, and is complete
`baseline.rows` rows later, whether these have a value or not. So it does not matter how rows were
cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec
import numpy as np

from stream_monitor.events.cells import (
    ABSENT_CELL,
    BOOL,
    TEXT,
    Cells,
    Texts,
    arguments,
    remap,
    tags,
    text_indices,
)
from stream_monitor.state import Packed


class LateForm(msgspec.Struct):
    """Late features in a snapshot."""

    rows: int
    cells: dict[str, Cells]
    texts: list[str]


class Late(Packed[LateForm]):
    """
    The rows of late features.

    Parameters
    ----------
    rows : int
        Rows that each feature is learnt from. A row takes 8 bytes, and its text.

    Notes
    -----
    Rows come in pieces; in a snapshot they are one.
    """

    Form = LateForm

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.cells: dict[str, list[Cells]] = {}
        self.texts = Texts()

    def add(
        self,
        cells: Cells,
        texts: list[str],
        place: Mapping[str, int],
        numeric: frozenset[str],
        room: int,
    ) -> tuple[int, list[str]]:
        """
        Add rows, up to the one that makes a feature complete.

        Parameters
        ----------
        cells : (columns, n) cells
        texts : list of str
        place : mapping of name to int
            Features that may wait, and their columns.
        numeric : set of str
            Features that begin with a number, not with a text.
        room : int
            Number of features that may still begin.

        Returns
        -------
        rows : int
            Number of rows that were added.
        complete : list of str
        """
        n = cells.shape[1]
        begins = sorted(
            (at, name)
            for name, i in place.items()
            if name not in self.cells and room > 0 and (at := _first(cells[i], name in numeric)) < n
        )[: max(room, 0)]
        since = dict.fromkeys(self.cells, 0) | {name: at for at, name in begins}
        ends = {name: at + max(self.rows - self._count(name), 1) for name, at in since.items()}
        end = min([n, *ends.values()])
        for name, at in since.items():
            if at < end:
                column = (
                    cells[place[name]][at:end] if name in place else np.full(end - at, ABSENT_CELL)
                )
                self.cells.setdefault(name, []).append(self._own(column, texts))
        return end, [name for name, last in ends.items() if last == end]

    def _count(self, name: str) -> int:
        return sum(len(c) for c in self.cells.get(name, ()))

    def _own(self, cells: Cells, texts: list[str]) -> Cells:
        """Cells that outlive the dictionary of their chunk."""
        at = text_indices(cells)
        table = np.zeros(int(at.max(initial=-1)) + 1, np.int64)
        table[at] = [int(arguments(np.array([self.texts[texts[i]]]))[0]) for i in at.tolist()]
        return remap(cells, table)

    def pop(self, name: str) -> tuple[Cells, list[str]]:
        """The rows of a feature that is complete, with the dictionary of their texts."""
        found, texts = np.concatenate(self.cells.pop(name)), self.texts.names
        if not self.cells:
            self.texts = Texts()
        return found, texts

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cells."""
        return sum(c.nbytes for column in self.cells.values() for c in column)

    def packed(self) -> LateForm:
        cells = {name: np.concatenate(column) for name, column in self.cells.items()}
        return LateForm(self.rows, cells, self.texts.names)

    @classmethod
    def unpacked(cls, form: LateForm) -> Self:
        late = cls(form.rows)
        late.cells = {name: [column] for name, column in form.cells.items()}
        late.texts = Texts.of(form.texts)
        return late


def _first(cells: Cells, numeric: bool) -> int:
    """The first row with a value; the number of rows if there is none."""
    tag = tags(cells)
    value = tag == -1 if numeric else (tag == -1) | (tag == TEXT) | (tag == BOOL)
    return int(value.argmax()) if value.any() else len(cells)
