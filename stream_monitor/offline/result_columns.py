"""
Which columns of a file of results are which, and which arm is the control.

Rule of the file: functions of names alone. What the person said wins; otherwise a name that can
only mean one thing is taken, and that is said; otherwise it is an error that lists what there is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stream_monitor.errors import InputError
from stream_monitor.inputs.options import did_you_mean
from stream_monitor.inputs.written_numbers import Decimal, written

VARIANTS = ("variant", "arm", "group")
VALUES = ("value", "outcome", "result")
UNITS = ("unit", "unit_id", "user", "user_id")
CONTROLS = ("control", "baseline", "a")
"""Names that are taken where nothing is said, the first one first; case does not matter."""
_INDEX = re.compile(r"|__index_level_\d+__|Unnamed: \d+|index", re.IGNORECASE)


class Choice(NamedTuple):
    """What the person said of the file; None is found out."""

    control: str | None = None
    """Column of the control, or its name in the column of variants."""
    arm: str | None = None
    variant: str | None = None
    value: str | None = None
    unit: str | None = None
    decimal: Decimal | None = None
    missing: tuple[str, ...] = ()


class Roles(NamedTuple):
    """What columns are, as far as their names tell."""

    variant: str | None = None
    """None: one column an arm."""
    unit: str | None = None
    value: str | None = None
    numbers: frozenset[str] = frozenset()
    """Columns that must hold numbers."""

    @property
    def texts(self) -> frozenset[str]:
        """Columns that are text whatever they look like."""
        return frozenset(name for name in (self.variant, self.unit) if name is not None)


def is_index(column: str) -> bool:
    """Whether a column is the index of a data frame by its name."""
    return _INDEX.fullmatch(column) is not None


def roles_of(file: str, names: tuple[str, ...], choice: Choice) -> Roles:
    """
    What the columns of a file are.

    Raises
    ------
    InputError
        The names are numbers; or `value` or `unit` is given, but no column of variants is found.

    Examples
    --------
    >>> roles_of("r.csv", ("user", "Variant", "score"), Choice())
    Roles(variant='Variant', unit='user', value='score', numbers=frozenset({'score'}))
    >>> sorted(roles_of("r.csv", ("", "a", "b"), Choice()).numbers)
    ['a', 'b']
    """
    if names and all(map(_is_number, names)):
        raise InputError(
            f"{file}: the first line has numbers, {', '.join(names[:4])}; write the names of the "
            "columns there"
        )
    is_wide = {choice.control, choice.arm} & set(names)
    variant = choice.variant or (None if is_wide else _called(names, VARIANTS))
    if variant is None:
        if (choice.value or choice.unit) and names:
            raise InputError(
                f"{file}: no column says which arm a row is of; name it with --variant. "
                f"The columns: {', '.join(names)}"
            )
        others = frozenset(n for n in names if not is_index(n))
        named = frozenset(n for n in (choice.control, choice.arm) if n is not None)
        return Roles(numbers=named or (others if len(others) == 2 else frozenset()))
    unit = choice.unit or _called(names, UNITS)
    rest = [n for n in names if n not in (variant, unit) and not is_index(n)]
    value = choice.value or _called(names, VALUES) or (rest[0] if len(rest) == 1 else None)
    return Roles(variant, unit, value, frozenset([value] if value else []))


def _is_number(name: str) -> bool:
    return written(name) is not None


def _called(names: tuple[str, ...], known: tuple[str, ...]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def two_columns(file: str, found: list[str], choice: Choice, notes: list[str]) -> tuple[str, str]:
    """
    The columns of control and arm, out of the columns of numbers that were found.

    Raises
    ------
    InputError
        Nothing says which two.
    """
    if choice.control and choice.arm:
        return choice.control, choice.arm
    named = choice.control or choice.arm
    others = [n for n in found if n != named]
    if named is None and len(found) == 2:
        return _control_first(found, notes, "the first of the columns")
    if named is not None and len(others) == 1:
        return (named, others[0]) if choice.control else (others[0], named)
    raise InputError(
        f"{file}: expected two columns of results, found {len(found)} columns of numbers: "
        f"{', '.join(found) or 'none'}. Name two with --control COLUMN --arm COLUMN, or a long "
        "form with --variant COLUMN --value COLUMN"
    )


def value_column(file: str, found: list[str]) -> str:
    """
    The column of results, out of the columns of numbers that were found.

    Raises
    ------
    InputError
        There is not exactly one.
    """
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{file}: which column holds the results? Name it with --value. "
        f"Columns of numbers: {', '.join(found) or 'none'}"
    )


def two_variants(where: str, seen: list[str], choice: Choice, notes: list[str]) -> tuple[str, str]:
    """
    The names of control and arm, out of the variants of the rows.

    Raises
    ------
    InputError
        A given one is not there, or there are more than two and nothing says which.
    """
    found = sorted(set(seen))
    for name in (choice.control, choice.arm):
        if name is not None and name not in found:
            raise InputError(
                f"{where}: no row of {name!r}.{did_you_mean(name, found)} "
                f"The variants: {', '.join(found)}"
            )
    if choice.control and choice.arm:
        return choice.control, choice.arm
    if len(found) != 2:
        raise InputError(
            f"{where}: expected two variants, found {len(found)}: "
            f"{', '.join(found[:20]) or 'none'}. Name two with --control NAME --arm NAME"
        )
    rest = next(n for n in found if n not in (choice.control, choice.arm))
    if choice.control or choice.arm:
        return choice.control or rest, choice.arm or rest
    return _control_first(found, notes, "the first by the alphabet")


def _control_first(found: list[str], notes: list[str], otherwise: str) -> tuple[str, str]:
    """The control and the other one."""
    known = [n for n in found if n.lower() in CONTROLS]
    control = min(known, key=lambda n: CONTROLS.index(n.lower())) if known else found[0]
    why = "by its name" if known else otherwise
    notes.append(f"{control!r} is taken for the control, {why} (--control)")
    return control, next(n for n in found if n != control)
