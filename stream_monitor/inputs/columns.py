"""
Reads a column of text cells as the author of the file meant it.

Rule of the file: all cells of a column decide its type, never a single one. Cells of another kind,
up to a tenth, stay unchanged and are named. Cells that are read in another way than they are
written (marks of missing values, thousands, decimal commas, percent) are counted, so that `notes`
can report them. Cells of text columns stay as written.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from stream_monitor.inputs.missing_marks import CLEAR_MARKS, VAGUE_MARKS
from stream_monitor.inputs.written_numbers import GROUPS, Decimal, Written, value_of, written

ODD_SHARE = 0.1
"""A column is one of numbers if at most this share of its cells are not numbers."""
CODE_SHARE = 0.01
"""A column of whole numbers is one of codes, and stays text, if this share is written as 01067."""
FEW_ROWS = 5
"""From this many cells on, a single odd one does not make a column text."""
DISTINCT_MAX = 10_000
INTEGER_MAX = 1 << 63
"""Greater whole numbers are written as floats, because not every reader of JSON accepts them."""
INFINITE = ("inf", "infinity")
SWITCHES = {"true": True, "false": False}
EXACT_MAX = 1 << 53
"""A double cannot tell greater whole numbers apart."""

Kind = Literal["number", "switch", "text"]

_PLAIN = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_CODE = re.compile(r"0\d+|\+\d{6,}")
_CODE_IN_LINES = re.compile(r"\n\s*(?:[+-]?0\d|\+\d{6})")
_GROUPED_IN_LINES = re.compile(r"\n[+-]?[1-9]\d{0,2}\.\d{3}(?=\n|$)")
_UNKNOWN = object()


class Writing(NamedTuple):
    """A way to write numbers."""

    says: Decimal | None
    percent: bool


class Told(NamedTuple):
    """What the person, the configuration and the file say about a column."""

    type: Literal["auto", "numeric", "category", "text"] = "auto"
    decimal: Decimal | None = None
    missing: frozenset[str] = frozenset()
    """Additional marks of missing values."""
    is_name: bool = False
    """Whether the column has ids, names or times, which are always text."""
    commas_in_cells: bool = False
    """Whether cells may contain commas, because the file does not separate its cells by commas."""
    watch: bool = False
    """Whether the bounds of all numbers are needed."""


class Column:
    """
    Learns from the cells of a column, a chunk at a time (`add`); then `decide`, then `convert`.

    Examples
    --------
    >>> column = Column("x", Told())
    >>> column.add(["1.5", "NA", "2", "", "3", "4", "5", "5O.1"])
    >>> column.decide()
    >>> column.kind, column.convert(["1.5", "NA", "5O.1"])
    ('number', [1.5, None, '5O.1'])
    """

    def __init__(self, name: str, told: Told) -> None:
        self.name, self.told = name, told
        self.kind: Kind = "text"
        self.decimal: Decimal = "point"
        self.percent = self.is_code = False
        self.rows = self.empty = self.switches = 0
        self.plain = self.with_point = 0
        """
        Cells that every program reads as numbers, and how many of them can only have a decimal
        point.
        """
        self.whole = True
        """Whether no plain number has a point or an exponent."""
        self.huge = self.outside = 0
        """Number of whole numbers beyond 2**53, and of numbers outside [0, 1]."""
        self.low, self.high = math.inf, -math.inf
        self.marks: Counter[str] = Counter()
        self.writings: Counter[Writing] = Counter()
        """Number of cells in each other way to write numbers."""
        self.codes = self.infinite = self.odd = 0
        """Number of cells such as 01067, of infinities, and of cells that are none of these."""
        self.texts: Counter[str] = Counter()
        """The odd cells as written, up to a limit."""
        self.examples: dict[Any, tuple[str, int]] = {}
        """First cell and its row: of each way of writing, of `code`, `infinite`, `odd`."""
        self._written: dict[str, Any] = {}
        self._cells = _Cells(self._value)

    # ---- learning

    def add(self, cells: Sequence[str]) -> None:
        """Learn from the cells of further rows."""
        there = [cell for cell in cells if cell]
        self.empty += len(cells) - len(there)
        if self.told.is_name:
            self.odd += len(there)
        elif there and not self._add_numbers(there):
            self._add_one_by_one(cells)
        self.rows += len(cells)

    def _add_numbers(self, cells: list[str]) -> bool:
        """Learn from cells that are all plain numbers; the fast way."""
        joined = "\n" + "\n".join(cells)
        points = joined.count(".")
        if "_" in joined or (
            ("\n0" in joined or "+" in joined or "-0" in joined or " " in joined)
            and _CODE_IN_LINES.search(joined)
        ):
            return False
        try:
            whole = not points and "e" not in joined and "E" not in joined
            values: list[Any] = list(map(int if whole else float, cells))
        except ValueError:
            return False
        low, high = min(values), max(values)
        if not (-math.inf < low <= high < math.inf and math.isfinite(sum(values))):
            return False  # nan, an infinity, or numbers so great that they must be read one by one
        self.plain += len(cells)
        self.whole = self.whole and whole
        self.with_point += points - (
            len(_GROUPED_IN_LINES.findall(joined)) if self.told.commas_in_cells else 0
        )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.outside += sum(map(_is_outside, values)) if low < 0 or high > 1 else 0
        self.huge += (
            sum(abs(v) > EXACT_MAX for v in values) if whole and max(-low, high) > EXACT_MAX else 0
        )
        return True

    def _add_one_by_one(self, cells: Sequence[str]) -> None:
        for row, cell in enumerate(cells, self.rows + 1):
            bare = cell.strip()
            if not cell:
                continue
            if not bare or bare in CLEAR_MARKS or bare in VAGUE_MARKS or bare in self.told.missing:
                self.marks[cell] += 1
            elif bare.lower() in SWITCHES:
                self.switches += 1
            elif (
                _PLAIN.fullmatch(bare) and not _CODE.fullmatch(bare) and math.isfinite(float(bare))
            ):
                self._add_plain(bare)
            else:
                self._add_other(cell, bare, row)

    def _add_other(self, cell: str, bare: str, row: int) -> None:
        found: Any = self._written.get(bare, _UNKNOWN)
        if found is _UNKNOWN:
            found = written(bare) if bare[-1:].isdigit() or bare[-1:] in "%$€£¥.," else None
            if len(self._written) < DISTINCT_MAX:
                self._written[bare] = found
        kind: Any = "odd"
        if isinstance(found, Written) and math.isfinite(
            value_of(found, found.says or "point") or 0.0
        ):
            kind = Writing(found.says, found.percent)
            self.writings[kind] += 1
            if _CODE.fullmatch(bare):
                self.codes += 1
                self.examples.setdefault("code", (cell, row))
            if self.told.watch:
                self._bound(
                    value_of(
                        found, found.says or ("comma" if self.told.commas_in_cells else "point")
                    )
                    or 0.0
                )
        elif bare.lower().lstrip("+-") in INFINITE or _PLAIN.fullmatch(bare):
            kind = "infinite"
            self.infinite += 1
        else:
            self.odd += 1
            if cell in self.texts or len(self.texts) < DISTINCT_MAX:
                self.texts[cell] += 1
        self.examples.setdefault(kind, (cell, row))

    def _add_plain(self, cell: str) -> None:
        value = float(cell)
        whole = cell.lstrip("+-").isdigit()
        self.plain += 1
        self.whole = self.whole and whole
        self.with_point += "." in cell and not (
            self.told.commas_in_cells and GROUPS["."].fullmatch(cell)
        )
        self.huge += whole and abs(value) > EXACT_MAX
        self._bound(value)

    def _bound(self, value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.outside += _is_outside(value)

    # ---- deciding

    def evidence(self) -> Counter[str]:
        """How many cells can only have a decimal point, and how many only a decimal comma."""
        found = Counter(point=self.with_point)
        for writing, n in self.writings.items():
            if writing.says is not None:
                found[writing.says] += n
        return found

    def decide(self, of_file: Decimal | None = None) -> None:
        """Decide how the cells are read; `of_file` is the decimal mark of the other columns."""
        evidence = self.evidence()
        if self.told.decimal is not None:
            self.decimal = self.told.decimal
        elif evidence["comma"] != evidence["point"]:
            self.decimal = "comma" if evidence["comma"] > evidence["point"] else "point"
        else:
            self.decimal = of_file or (
                "comma"
                if self.told.commas_in_cells
                and self.writings[Writing(None, percent=False)] > self.codes
                else "point"
            )
        with_percent = sum(n for writing, n in self.writings.items() if writing.percent)
        self.percent = with_percent * 2 > self.plain + self.writings.total()
        self.is_code = (
            bool(self.codes)
            and self.whole
            and self.codes >= CODE_SHARE * self.there
            and self.told.type == "auto"
        )
        self.kind = self._kind(
            self.there, self.there - self.switches - sum(n for _, n in self.odd_cells())
        )
        self._written.clear()
        self._cells.clear()

    def odd_cells(self) -> list[tuple[str, int]]:
        """
        Cells that are not numbers in the decided way: an example of each kind, and their number.
        """
        found = [(self.examples["odd"][0], self.odd)] if self.odd and not self.told.is_name else []
        for writing, n in self.writings.items():
            if writing.percent is not self.percent or writing.says not in (None, self.decimal):
                found.append((self.examples[writing][0], n))
        if self.decimal == "comma" and self.with_point:
            found.append((".", self.with_point))
        return found

    def _kind(self, there: int, numbers: int) -> Kind:
        if self.told.is_name:
            return "text"
        if there and self.switches >= (1 - ODD_SHARE) * there and self.told.type != "numeric":
            return "switch"
        if self.told.type != "auto":
            return "number" if self.told.type == "numeric" else "text"
        odd = there - numbers - self.switches
        few = odd <= ODD_SHARE * there or (odd == 1 and there >= FEW_ROWS)
        return "number" if few and not self.is_code and (numbers or not there) else "text"

    @property
    def there(self) -> int:
        """Number of cells that are not missing."""
        return self.plain + self.switches + self.writings.total() + self.infinite + self.odd

    # ---- values

    def convert(self, cells: Sequence[str]) -> list[Any]:
        """Values of a chunk, in the form of JSON."""
        if (
            self.kind == "number"
            and (self.decimal == "point" or self.whole)
            and not (self.odd or self.infinite or self.writings or self.marks or self.switches)
        ):
            if self.whole:
                return [_whole(cell) if cell else None for cell in cells]
            return [float(cell) if cell else None for cell in cells]
        if self.kind == "text" and not self.marks and not self.told.is_name:
            return [cell or None for cell in cells]
        return list(map(self._cells.__getitem__, cells))

    def _value(self, cell: str) -> Any:
        bare = cell.strip()
        if (
            not bare
            or bare in self.told.missing
            or (
                self.told.type in ("auto", "numeric")
                and not self.told.is_name
                and bare in CLEAR_MARKS
            )
        ):
            return None
        if self.kind == "text":
            return bare if self.told.is_name else cell
        if bare in VAGUE_MARKS:
            return None
        if bare.lower() in SWITCHES:
            return SWITCHES[bare.lower()]
        if self.infinite and bare.lower().lstrip("+-") in INFINITE:
            return float(bare)
        number = written(bare)
        value = (
            value_of(number, self.decimal)
            if number is not None and number.percent is self.percent
            else None
        )
        if value is None or not math.isfinite(value):
            return cell
        return _whole(bare) if self.whole and bare.lstrip("+-").isdigit() else value


class _Cells(dict[str, Any]):
    """Values of the cells that were seen, bounded."""

    def __init__(self, value: Callable[[str], Any]) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, cell: str) -> Any:
        if len(self) >= DISTINCT_MAX:
            self.clear()
        value = self[cell] = self._value(cell)
        return value


def _whole(cell: str) -> int | float:
    value = int(cell)
    return value if -INTEGER_MAX <= value < INTEGER_MAX else float(value)


def _is_outside(value: float) -> bool:
    return not -1e-6 <= value <= 1 + 1e-6
