"""
Turns a row with columns into an event with fields.

Rule of the file: a row is a mapping from column to value, whatever its file. The names alone decide
which column goes to which field, and this is computed once per set of columns; then a row costs a
few dictionary look-ups. Nulls are left out of the event, except under `features`, where a null is
something to monitor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from stream_monitor.errors import UNREADABLE, InputError
from stream_monitor.inputs.options import PARENTS, Mapping, Role, did_you_mean, is_field

NAME_FIELDS = frozenset(("event_id", "model", "version", "variant", "unit", "timestamp"))
TEXT_FIELDS = frozenset(("event_id", "model", "version", "status", "variant", "unit"))
JSON_FIELDS = frozenset((*PARENTS, "embedding"))
_WHOLE = re.compile(r"([+-]?\d+)\.0+")
LABEL_COPIES = ("event_id", "model", "version")
PLANS_MAX = 1_000
COLUMNS_SHOWN = 20

Convert = Callable[[Any], Any]


def as_text(value: Any) -> Any:
    """
    Text of a name or an id: 7 and 7.0 become `7`, true becomes `true`; a value without a text
    stays.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else value


def as_id(value: Any) -> Any:
    """
    The one form of an id: without surrounding blanks, and a whole number without `.0`.

    Examples
    --------
    >>> as_id(7), as_id(7.0), as_id("7.0"), as_id(" 7 "), as_id("007"), as_id("7.50")
    ('7', '7', '7', '7', '007', '7.50')
    """
    if isinstance(value, str):
        text = value.strip()
        return _WHOLE.sub(r"\1", text) if text[-1:] == "0" and "." in text else text
    return as_text(value)


def as_outcome(value: Any) -> Any:
    """
    A label or a prediction, without the surrounding blanks of columns with a fixed width.

    >>> as_outcome("Yes  "), as_outcome(1.0)
    ('Yes', 1.0)
    """
    return value.strip() or value if isinstance(value, str) else value


def as_segments(value: Any) -> Any:
    """Texts by name; nulls are left out."""
    value = as_json(value)
    return (
        {name: as_text(inner) for name, inner in value.items() if inner is not None}
        if isinstance(value, dict)
        else value
    )


def as_json(value: Any) -> Any:
    """Text that is a JSON object or array becomes one; other values stay."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return msgspec.json.decode(value)
        except UNREADABLE:
            return value
    return value


def as_number(text: str) -> Any:
    """Read a constant: a number if it is one, otherwise its text."""
    for parse in (int, float):
        try:
            number = parse(text)
        except ValueError:
            continue
        return number if "_" not in text and math.isfinite(number) else text
    return text


def _same(value: Any) -> Any:
    return value


def converter(field: str) -> Convert:
    """The conversion of the values of a field into the form of the event."""
    if field == "event_id":
        return as_id
    if field in TEXT_FIELDS or field.startswith("segments."):
        return as_text
    if field in {"label", "prediction"}:
        return as_outcome
    if field == "segments":
        return as_segments
    return as_json if field in JSON_FIELDS else _same


class Plan(NamedTuple):
    """Where the columns of a file go."""

    top: tuple[tuple[str, str, Convert], ...]
    """(field, column, conversion)."""
    nested: tuple[tuple[str, tuple[tuple[str, str, Convert], ...]], ...]
    """(parent, (name, column, conversion) …)."""
    fields: frozenset[str]
    unused: tuple[str, ...]
    """Columns that are not fields of the event."""


class Shaper:
    """
    Makes events from the rows of one file.

    Parameters
    ----------
    role : "table", "predictions" or "labels"
        In a plain table every column that is not a field is a feature; elsewhere it is left out
        and listed in `Plan.unused`.
    maps : iterable of Mapping
        Fields that come from a column with another name, or are constant.
    ignore : iterable of str
        Columns that are left out.
    """

    def __init__(self, role: Role, maps: Iterable[Mapping], ignore: Iterable[str]) -> None:
        self.role = role
        self._maps = [mapping for mapping in maps if is_field(mapping.field, role)]
        self._ignored = frozenset(ignore)
        self._not_fields: frozenset[str] = frozenset()
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._constants: list[tuple[str, str, Any]] = []
        for mapping in self._maps:
            if mapping.value is not None:
                parent, _, name = mapping.field.partition(".")
                convert = converter(mapping.field)
                self._constants.append(
                    (
                        parent,
                        name,
                        convert(
                            mapping.value
                            if convert in {as_text, as_id}
                            else as_number(mapping.value)
                        ),
                    )
                )

    def take_from_fields(self, columns: Iterable[str]) -> None:
        """Treat these columns as features, although they have the names of fields."""
        self._not_fields = frozenset(columns)
        self._plans.clear()

    def leave_out(self, columns: Iterable[str]) -> None:
        """Ignore further columns."""
        self._ignored |= frozenset(columns)
        self._plans.clear()

    @property
    def changes(self) -> bool:
        """Whether events of this file differ from their rows at all."""
        return self.role == "table" or bool(self._maps) or bool(self._ignored)

    @property
    def mapped_columns(self) -> frozenset[str]:
        """Columns that a `--map` names."""
        return frozenset(mapping.column for mapping in self._maps if mapping.column is not None)

    def fill(self, field: str, value: Any) -> None:
        """Give every row this value of a field."""
        self._constants.append((field, "", value))
        self._plans.clear()

    @property
    def mapped_fields(self) -> frozenset[str]:
        """Fields that a `--map` names."""
        return frozenset(mapping.field for mapping in self._maps)

    def plan(self, columns: tuple[str, ...]) -> Plan:
        """Where these columns go."""
        plan = self._plans.get(columns)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            plan = self._plans[columns] = self._make_plan(columns)
        return plan

    def check(self, columns: tuple[str, ...], name: str) -> Plan:
        """
        Check the header of a file.

        Raises
        ------
        InputError
            A required column is missing.
        """
        plan = self.plan(columns)
        needed = {
            "table": (),
            "predictions": ("event_id", "model"),
            "labels": ("event_id", "label"),
        }[self.role]
        for field in needed:
            if field not in plan.fields:
                constant = f" (or --map {field}=:VALUE for all rows)" if field == "model" else ""
                raise InputError(
                    f"{name}: no column {field!r}; say which it is with --map "
                    f"{field}=COLUMN{constant}. It has: {listed(columns)}"
                )
        return plan

    def time_column(self, columns: tuple[str, ...] | None) -> str | None:
        """
        The column from which the timestamp is read; if each row has its own columns, the intended
        one.
        """
        if columns is None:
            return next(
                (mapping.column for mapping in self._maps if mapping.field == "timestamp"),
                "timestamp",
            )
        return next(
            (column for field, column, _ in self.plan(columns).top if field == "timestamp"), None
        )

    def constant(self, field: str) -> Any:
        """Value of a field that is the same in all rows, otherwise `None`."""
        return next(
            (value for parent, name, value in self._constants if parent == field and not name), None
        )

    def names(self, columns: tuple[str, ...]) -> frozenset[str]:
        """Columns whose values are always text: ids, names, times."""
        plan = self.plan(columns)
        fields: dict[str, list[str]] = {}
        for field, column, _ in plan.top:
            fields.setdefault(column, []).append(field)
        for parent, items in plan.nested:
            for name, column, _ in items:
                fields.setdefault(column, []).append(f"{parent}.{name}")
        return frozenset(
            column
            for column, used in fields.items()
            if all(field in NAME_FIELDS or field.startswith("segments.") for field in used)
        )

    def features(self, columns: tuple[str, ...]) -> dict[str, str]:
        """Columns that are features, and their names."""
        return {
            column: name
            for parent, items in self.plan(columns).nested
            if parent == "features"
            for name, column, _ in items
        }

    def event(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the event of a row, without defaults."""
        plan = self.plan(tuple(row))
        event: dict[str, Any] = {}
        for field, column, convert in plan.top:
            value = row[column]
            if value is not None:
                event[field] = convert(value)
        for parent, items in plan.nested:
            inner = event.get(parent)
            inner = event[parent] = inner if isinstance(inner, dict) else {}
            for name, column, convert in items:
                value = row[column]
                if value is not None:
                    inner[name] = convert(value)
                elif parent == "features":
                    inner[name] = None
            if not inner and parent != "features":
                del event[parent]
        for parent, name, value in self._constants:
            if name:
                inner = event.setdefault(parent, {})
                if isinstance(inner, dict):
                    inner[name] = value
            else:
                event[parent] = value
        return event

    @staticmethod
    def mend(row: dict[str, Any]) -> dict[str, Any]:
        """An event of JSON whose ids and names are numbers or padded, with the right texts."""
        return {
            field: converter(field)(value)
            if value is not None and (field in NAME_FIELDS or field == "segments")
            else value
            for field, value in row.items()
        }

    def _make_plan(self, columns: tuple[str, ...]) -> Plan:
        # A map whose column is not here does not count: it may be meant for the other file, or for
        # other lines.
        maps = [
            mapping for mapping in self._maps if mapping.column is None or mapping.column in columns
        ]
        mapped_columns = {mapping.column for mapping in maps}
        mapped_fields = {mapping.field for mapping in maps}
        pairs: list[tuple[str, str]] = []
        unused: list[str] = []
        for column in columns:
            if column in self._ignored or column in mapped_columns:
                continue
            field = (
                column
                if is_field(column, self.role) and column not in self._not_fields
                else f"features.{column}"
                if self.role == "table" and column
                else None
            )
            if field is None:
                unused.append(column)
            elif field not in mapped_fields:
                pairs.append((field, column))
        pairs += [(mapping.field, mapping.column) for mapping in maps if mapping.column is not None]
        nested: dict[str, list[tuple[str, str, Convert]]] = {}
        top: list[tuple[str, str, Convert]] = []
        for field, column in pairs:
            parent, dot, name = field.partition(".")
            if dot:
                nested.setdefault(parent, []).append((name, column, converter(field)))
            else:
                top.append((field, column, converter(field)))
        constants = [f"{parent}.{name}" if name else parent for parent, name, _ in self._constants]
        return Plan(
            tuple(top),
            tuple((parent, tuple(items)) for parent, items in nested.items()),
            frozenset([field for field, _ in pairs] + constants),
            tuple(unused),
        )


def check_ignored(ignore: Iterable[str], columns: Iterable[str]) -> None:
    """
    Refuse to ignore a column that no file has.

    Raises
    ------
    InputError
        A column does not exist; most likely it was misspelt.
    """
    known = sorted(set(columns))
    for column in ignore:
        if column not in known:
            raise InputError(
                f"--ignore {column}: no input has this column.{did_you_mean(column, known)}"
            )


def listed(columns: tuple[str, ...]) -> str:
    """The first columns, for a message."""
    more = f" and {len(columns) - COLUMNS_SHOWN} more" if len(columns) > COLUMNS_SHOWN else ""
    return ", ".join(columns[:COLUMNS_SHOWN]) + more
