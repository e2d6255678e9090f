"""
The rules of the quality gate, and where they are written.

Rule of the file: what a feature may be stands in `models.NAME.features` of monitor.yaml, which the
monitor uses too. A file of rules adds to it and has the same words; it alone can name a command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.events.pattern import Pattern
from stream_monitor.frozen import Frozen
from stream_monitor.inputs.options import did_you_mean, parse_duration_ms
from stream_monitor.settings import Feature, ModelSettings

MISSING_MAX = 0.1
"""The share of missing values that no column reaches."""
ROWS_MIN = 2
LABEL = "label"
RULES = (
    *("readable", "rows", "label", "missing", "type", "range", "categories", "pattern", "unique"),
    *("required", "reference", "command", "entry_point"),
)
"""Kinds of rules, as verdicts name them."""


class ColumnRule(Feature, frozen=True):
    """What a column may be: what `models.NAME.features` says of a feature."""


class OwnCommand(Frozen, frozen=True):
    """
    A program that judges the file: exit code 0 is good. `{file}` in an argument is its path.
    """

    name: str
    command: tuple[str, ...]
    timeout: str = "10m"

    @property
    def timeout_ms(self) -> int:
        """Milliseconds after which it ends."""
        return parse_duration_ms(self.timeout)


class Rules(Frozen, frozen=True):
    """All rules for a file."""

    max_missing: float = MISSING_MAX
    max_violations: float = 0.0
    """Share of values outside their type, range or categories that is still good."""
    min_rows: int = ROWS_MIN
    label: str | None = LABEL
    """Column that must be there with more than one value; None: no column."""
    columns: dict[str, ColumnRule] = msgspec.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    """Columns of which nothing is asked."""
    commands: tuple[OwnCommand, ...] = ()
    entry_points: tuple[str, ...] = ()
    """Names in the group `stream_monitor.quality`."""

    def of(self, column: str) -> ColumnRule:
        """The rule of a column; one of a feature may leave out `features.`."""
        found = self.columns.get(column)
        return found or self.columns.get(column.removeprefix("features.")) or ColumnRule()


def of_model(settings: ModelSettings) -> Rules:
    """
    The rules that the settings of a model imply.

    Examples
    --------
    >>> from stream_monitor.settings import Feature
    >>> of_model(ModelSettings(features={"age": Feature(min=0)})).of("features.age").min
    0
    """
    limit = settings.quality.missing_ratio
    return Rules(
        max_missing=MISSING_MAX if limit is None else limit,
        columns={
            name: ColumnRule(**{key: getattr(rule, key) for key in Feature.__struct_fields__})
            for name, rule in settings.features.items()
        },
    )


def read_rules(path: Path, base: Rules) -> Rules:
    """
    The rules of a YAML file, over those of `base`.

    Raises
    ------
    InputError
        With the file, the key and the value.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        told: Any = YAML(typ="safe", pure=True).load(path.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read: {e}") from None
    except YAMLError as e:
        raise InputError(f"{path}: not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(told, dict):
        raise InputError(f"{path}: expected keys such as max_missing or columns, got {told!r}")
    for key in told:
        if key not in Rules.__struct_fields__:
            known = list(Rules.__struct_fields__)
            hint = did_you_mean(str(key), known) or f" Known are {', '.join(known)}."
            raise InputError(f"{path}: {key!r} is no key of the rules.{hint}")
    try:
        own = msgspec.convert(_texts(told), Rules)
        for command in own.commands:
            _ = command.timeout_ms
    except (msgspec.ValidationError, InputError) as e:
        raise InputError(f"{path}: {e}") from None
    given = {name: getattr(own, name) for name in told}
    given["columns"] = {**base.columns, **own.columns}
    made: Rules = msgspec.structs.replace(base, **given)
    return checked(made, str(path))


def checked(rules: Rules, where: str) -> Rules:
    """
    The rules, if they can be kept.

    Raises
    ------
    InputError
        A share is not in [0, 1], a range is empty, a pattern cannot be used, or a command has no
        program.
    """
    shares = {"max_missing": rules.max_missing, "max_violations": rules.max_violations}
    shares |= {f"columns.{n}.max_missing": r.max_missing or 0.0 for n, r in rules.columns.items()}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise InputError(f"{where}: {name}: expected a share from 0 to 1, got {value:g}")
    for name, rule in rules.columns.items():
        if rule.min is not None and rule.max is not None and rule.min > rule.max:
            raise InputError(f"{where}: columns.{name}: min {rule.min:g} is above max {rule.max:g}")
        if rule.pattern is not None:
            try:
                Pattern(rule.pattern)
            except InputError as e:
                raise InputError(f"{where}: columns.{name}.pattern: {e}") from None
    for command in rules.commands:
        if not command.command:
            raise InputError(f"{where}: commands: {command.name!r} has no program")
    return rules


def _texts(told: dict[str, Any]) -> dict[str, Any]:
    """Categories that YAML read as numbers or booleans are texts."""
    columns = told.get("columns")
    if not isinstance(columns, dict):
        return told
    made = {}
    for name, rule in columns.items():
        found = rule.get("categories") if isinstance(rule, dict) else None
        if isinstance(found, list):
            rule = {**rule, "categories": [c if isinstance(c, str) else str(c) for c in found]}
        made[str(name)] = rule
    return {**told, "columns": made}
