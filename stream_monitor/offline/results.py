"""
Results of two arms out of a file: one column an arm, or a column of variants and one of values.

Rule of the file: every cell of a result is a number, a truth value or missing. Anything else ends
the reading with its line, its column and what it says; nothing is guessed. What was left out is
counted and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.arrays import Float, Int
from stream_monitor.errors import InputError
from stream_monitor.inputs.columns import Told, Writing
from stream_monitor.inputs.csv_files import CsvReader
from stream_monitor.inputs.files import InputFile, Meter
from stream_monitor.inputs.json_lines import JsonLinesReader
from stream_monitor.inputs.notes import notes_of_cells
from stream_monitor.inputs.options import did_you_mean, parse_path
from stream_monitor.inputs.readers import Reader
from stream_monitor.inputs.written_numbers import value_of, written
from stream_monitor.offline.result_columns import (
    Choice,
    Roles,
    is_index,
    roles_of,
    two_columns,
    two_variants,
    value_column,
)

GREATEST = 1e100
"""Of an outcome: its square, and sums of squares, are numbers too."""
LOOKED_AT = 1_000
"""So many first rows tell which columns hold numbers."""


class Arm(NamedTuple):
    """Outcomes of an arm."""

    name: str
    n: Float
    """(units,) outcomes of each unit."""
    x: Float
    """(units,) what they add up to, less `n` times the origin of `Results`."""


class Results(NamedTuple):
    """Outcomes of two arms."""

    control: Arm
    arm: Arm
    origin: float
    """What was taken off every outcome, so that a spread far below the mean keeps its digits."""
    yes_no: bool
    """Every outcome is 0 or 1."""
    by_unit: bool
    """A column says which outcomes are of one unit."""
    moved: int
    """Rows left out because their unit was in the other arm before."""
    notes: list[str]


def read_results(path: str, choice: Choice) -> Results:
    """
    Read a file of results.

    Parameters
    ----------
    path : str
        .csv, .jsonl or .parquet, .gz too; `-` is JSON Lines on stdin.
    choice : Choice

    Returns
    -------
    Results

    Raises
    ------
    InputError
        A cell is no number; a column or an arm is not there or not the only one that it can be.
    """
    _, kind, gzipped = parse_path(path)
    file = InputFile(path, Meter(), gzipped=gzipped)
    try:
        return _Reading(file, kind, choice).results()
    finally:
        file.close()


class _Reading:
    def __init__(self, file: InputFile, kind: str, choice: Choice) -> None:
        self.file, self.choice = file, choice
        self.names: tuple[str, ...] = ()
        self.roles = Roles()
        self.used: tuple[str, ...] = ()
        """Columns of results."""
        self.left_out: dict[str, int] = {}
        self.notes: list[str] = []
        self.kinds: dict[str, tuple[str, int, bool | float]] = {}
        """By column its first truth value, or number other than 0 and 1: kind, row, value."""
        self.reader = self._reader(kind)
        self._name(self.reader.columns() or ())
        for _ in self.reader.learn(None):
            pass
        if isinstance(self.reader, JsonLinesReader):
            self._name(tuple(self.reader.keys))

    def _reader(self, kind: str) -> Reader:
        if kind == "csv":
            return CsvReader(self.file, self._tell)
        if kind == "jsonl":
            return JsonLinesReader(self.file, is_table=True)
        from stream_monitor.inputs.parquet import ParquetReader

        return ParquetReader(self.file, frozenset())

    def _tell(self, column: str) -> Told:
        return Told(
            "numeric" if column in self.roles.numbers else "auto",
            self.choice.decimal,
            frozenset(self.choice.missing),
            column in self.roles.texts,
        )

    def _name(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.roles = roles_of(self.file.name, names, self.choice)

    def results(self) -> Results:
        """Outcomes of both arms."""
        variant = self.roles.variant
        outcomes = self._by_column() if variant is None else self._by_variant(variant)
        if isinstance(self.reader, CsvReader):
            self._refuse_two_readings(self.reader)
            used = [c for c in self.reader.learnt if c.name in self.used]
            self.notes += notes_of_cells(used)
        self.notes += self.reader.notes()
        self.notes += [f"{n:,} row{'s' * (n > 1)} {why}" for why, n in self.left_out.items()]
        return outcomes

    # ---- rows

    def _rows(self, used: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows with their number; one that is none is an error."""
        for number, row in enumerate(self.reader.rows()):
            if isinstance(row, bytes):
                is_csv = isinstance(self.reader, CsvReader)
                what = f"a row of {len(self.names)} cells" if is_csv else "a JSON object"
                raise InputError(
                    f"{self._place(number)}: not {what}: {row[:80].decode('utf-8', 'replace')!r}"
                )
            if number == 0:
                self._check(used, row)
            yield number, row

    def _check(self, used: list[str], row: dict[str, Any]) -> None:
        names = self.names or tuple(row)
        for name in used:
            if name not in names:
                raise InputError(
                    f"{self.file.name}: there is no column {name!r}."
                    f"{did_you_mean(name, list(names))} The columns: {', '.join(names)}"
                )

    def _place(self, number: int) -> str:
        if isinstance(self.reader, CsvReader):
            return f"{self.file.name}:{self.reader.line_of(number)}"
        return f"{self.file.name}: row {number + 1:,}"

    def _number(self, number: int, column: str, value: Any) -> float | None:
        """A cell as a number; None where it is missing."""
        if value is None:
            return None
        if isinstance(value, bool | int | float) and abs(value) <= GREATEST:
            self._agree(number, column, value)
            return float(value)
        hint = "write 1 and 0, or true and false"
        if isinstance(value, str) and ("%" in value or self._is_percent(column)):
            hint = "write all cells of the column with % or none"
        elif isinstance(value, str) and value[:1].isdigit():
            hint = "say --decimal point or --decimal comma if it is one in that writing"
        elif not isinstance(value, str):
            hint = f"one of at most {GREATEST:g}"
        raise InputError(
            f"{self._place(number)}: {column}: expected a number, got {value!r}; {hint}, "
            "or leave the cell empty where there is no result"
        )

    def _is_percent(self, column: str) -> bool:
        learnt = self.reader.learnt if isinstance(self.reader, CsvReader) else []
        return any(c.percent for c in learnt if c.name == column)

    def _refuse_two_readings(self, reader: CsvReader) -> None:
        """A column of cells such as 1,234 alone may mean 1.234 or 1234; a note is not enough."""
        if self.choice.decimal or any(c.evidence().total() for c in reader.learnt):
            return
        for column in reader.learnt:
            for kind, (cell, row) in column.examples.items():
                if column.name not in self.used or not isinstance(kind, Writing):
                    continue
                found = written(cell)
                if found and value_of(found, "point") != value_of(found, "comma"):
                    raise InputError(
                        f"{self._place(row - 1)}: {column.name}: {cell!r} may mean two numbers, "
                        "and no cell of the file tells which; say it with --decimal point or "
                        "--decimal comma"
                    )

    def _agree(self, number: int, column: str, value: bool | float) -> None:
        """Truth values and numbers other than 0 and 1 in one column are an error."""
        if not isinstance(value, bool) and value in (0, 1):
            return
        kind = "truth value" if isinstance(value, bool) else "number"
        seen = self.kinds.setdefault(column, (kind, number, value))
        if seen[0] != kind:
            raise InputError(
                f"{self._place(number)}: {column}: {value!r} is a {kind}, but {seen[2]!r} of "
                f"{self._place(seen[1])} is a {seen[0]}; a column is of one kind"
            )

    # ---- one column an arm

    def _by_column(self) -> Results:
        found = self._columns_of_numbers()
        control, arm = two_columns(self.file.name, found, self.choice, self.notes)
        self.used = (control, arm)
        values: tuple[list[float], list[float]] = ([], [])
        missing = [0, 0]
        for number, row in self._rows([control, arm]):
            for i, name in enumerate((control, arm)):
                value = self._number(number, name, row.get(name))
                if value is None:
                    missing[i] += 1
                else:
                    values[i].append(value)
        for name, n in zip((control, arm), missing, strict=True):
            if n:
                self.notes.append(f"{name}: {n:,} cell{'s' * (n > 1)} without a result left out")
        x = [np.array(v, float) for v in values]
        return self._made((control, arm), [np.ones(len(v), np.int64) for v in x], x)

    def _columns_of_numbers(self) -> list[str]:
        seen: dict[str, list[bool]] = {n: [] for n in self.names if not is_index(n)}
        for row in islice(self.reader.rows(), LOOKED_AT):
            for name, value in row.items() if isinstance(row, dict) else ():
                if value is not None and not is_index(name):
                    seen.setdefault(name, []).append(not isinstance(value, str | list | dict))
        return [
            name
            for name, are in seen.items()
            if name in self.roles.numbers or sum(are) * 2 > len(are)
        ]

    # ---- a column of variants

    def _by_variant(self, variant: str) -> Results:
        file, unit = self.file.name, self.roles.unit
        value = self.roles.value or value_column(
            file, [n for n in self._columns_of_numbers() if n not in self.roles.texts]
        )
        self.used = (value,)
        rows = self._long_rows(variant, unit, value)
        seen = [name for name, _, _ in rows]
        names = two_variants(f"{file}: {variant}", seen, self.choice, self.notes)
        if others := sum(name not in names for name in seen):
            self.left_out["of other variants left out"] = others
        if unit is None:
            outcomes = [np.array([v for name, _, v in rows if name == one]) for one in names]
            return self._made(names, [np.ones(len(x), np.int64) for x in outcomes], outcomes)
        arms: dict[str, str] = {}
        sums: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
        moved = 0
        for name, of, outcome in rows:
            if name not in names:
                continue
            if arms.setdefault(of, name) != name:
                moved += 1
                continue
            sums[names.index(name)].setdefault(of, []).append(outcome)
        if moved:
            self.left_out["whose unit was in the other arm before left out"] = moved
        flat = [np.array([v for xs in by.values() for v in xs]) for by in sums]
        sizes = [np.array([len(xs) for xs in by.values()], np.int64) for by in sums]
        return self._made(names, sizes, flat)._replace(moved=moved)

    def _long_rows(
        self, variant: str, unit: str | None, value: str
    ) -> list[tuple[str, str, float]]:
        """Variant, unit and result of each row that has all of them."""
        rows = []
        for number, row in self._rows([variant, value, *([unit] if unit else [])]):
            outcome = self._number(number, value, row.get(value))
            of = "" if unit is None else _text(row.get(unit))
            name = _text(row.get(variant))
            for there, why in (
                (name, f"without {variant} left out"),
                (outcome is not None, f"without {value} left out"),
                (unit is None or of, f"without {unit} left out"),
            ):
                if not there:
                    self.left_out[why] = self.left_out.get(why, 0) + 1
                    break
            else:
                rows.append((name, of, float(outcome or 0.0)))
        return rows

    # ---- both

    def _made(self, names: tuple[str, str], sizes: list[Int], outcomes: list[Float]) -> Results:
        """Sums by unit, of outcomes that are sorted by unit; `sizes` are outcomes of each unit."""
        if names[0] == names[1]:
            raise InputError(f"--control and --arm are both {names[0]!r}")
        for name, x in zip(names, outcomes, strict=True):
            if not len(x):
                raise InputError(f"{self.file.name}: {name}: no result")
        both = np.concatenate(outcomes)
        yes_no = bool(np.isin(both, (0.0, 1.0)).all())
        origin = 0.0 if yes_no else float(both[0])
        arms = []
        for name, n, x in zip(names, sizes, outcomes, strict=True):
            sums = np.add.reduceat(x - origin, np.cumsum(n) - n)
            arms.append(Arm(name, n.astype(np.float64), sums))
        by_unit = self.roles.unit is not None
        return Results(arms[0], arms[1], origin, yes_no, by_unit, 0, self.notes)


def _text(value: Any) -> str:
    """A name; numbers of data frames that are whole lose their .0."""
    if isinstance(value, float) and value.is_integer():
        with suppress(OverflowError, ValueError):
            value = int(value)
    return "" if value is None else str(value).strip()
