"""
Constraints of SageMaker Model Monitor (`constraints.json`) as a contract.

Rule of the file: what is taken over means the same here; everything else is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.offline.contract import Described
from stream_monitor.settings import Feature


class NumConstraints(msgspec.Struct):
    is_non_negative: bool | None = None


class StringConstraints(msgspec.Struct):
    domains: list[str] | None = None


class Constraint(msgspec.Struct):
    """What one column may be."""

    name: str
    inferred_type: str = "Unknown"
    completeness: float | None = None
    num_constraints: NumConstraints | None = None
    string_constraints: StringConstraints | None = None
    monitoringConfigOverrides: Any = None  # noqa: N815, the name in the file


class Constraints(msgspec.Struct):
    """A file of constraints."""

    features: list[Constraint]
    monitoring_config: dict[str, Any] = {}


def read(data: bytes, source: str) -> tuple[dict[str, Described], list[str]]:
    """
    The rules of a file of constraints, and sentences on what was not taken over.

    Raises
    ------
    InputError
        It is no such file, or a completeness is not a share.

    Examples
    --------
    >>> features, notes = read(
    ...     b'{"version": 0, "features": [{"name": "age", "inferred_type": "Integral",'
    ...     b'"completeness": 1.0, "num_constraints": {"is_non_negative": true}}]}',
    ...     "c.json",
    ... )
    >>> features["age"].rule.min, features["age"].rule.required, notes
    (0.0, True, ['age: whole numbers are numbers; a fraction breaks no rule here'])
    """
    try:
        found = msgspec.json.decode(data, type=Constraints)
    except msgspec.DecodeError as e:
        raise InputError(f"{source}: no constraints.json of SageMaker: {e}") from None
    notes: list[str] = []
    features = {}
    for column in found.features:
        if column.completeness is not None and not 0 <= column.completeness <= 1:
            raise InputError(
                f"{source}: {column.name}: completeness {column.completeness:g} is no share"
            )
        features[column.name] = Described(_rule(column), "")
        notes += _notes(column)
    return features, [*notes, *_of_config(found.monitoring_config)]


def _rule(column: Constraint) -> Feature:
    given: dict[str, Any] = {}
    domains = column.string_constraints.domains if column.string_constraints else None
    if column.inferred_type in ("Integral", "Fractional"):
        given["type"] = "numeric"
        if column.num_constraints is not None and column.num_constraints.is_non_negative:
            given["min"] = 0.0
    elif column.inferred_type == "String":
        given |= {"type": "category", "categories": tuple(domains)} if domains else {"type": "text"}
    if column.completeness == 1:
        given["required"] = True
    elif column.completeness is not None:
        given["max_missing"] = round(1 - column.completeness, 12)
    return Feature(**given)


def _notes(column: Constraint) -> Iterator[str]:
    if column.inferred_type == "Integral":
        yield f"{column.name}: whole numbers are numbers; a fraction breaks no rule here"
    elif column.inferred_type not in ("Fractional", "String"):
        yield f"{column.name}: the type {column.inferred_type} says nothing; it is learnt"
    if column.monitoringConfigOverrides:
        yield f"{column.name}: its monitoringConfigOverrides are not taken over"


def _of_config(config: dict[str, Any]) -> Iterator[str]:
    for key in ("domain_content_threshold", "datatype_check_threshold"):
        if key in config:
            yield (
                f"{key} {config[key]}: write quality.violation_ratio (0.05 by default), which is "
                "one limit for types, ranges and categories"
            )
    distribution = config.get("distribution_constraints")
    if isinstance(distribution, dict) and distribution.get("perform_comparison") == "Enabled":
        yield (
            f"comparison_threshold {distribution.get('comparison_threshold')} "
            f"({distribution.get('comparison_method')}): distributions are compared by "
            "drift.thresholds (ks: 0.1 is near it)"
        )
    if config.get("evaluate_constraints") == "Disabled":
        yield "evaluate_constraints is Disabled there; here the rules count as soon as they stand"
