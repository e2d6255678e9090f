"""
The quality gate: may a model be trained on this file?

Rule of the file: each rule gives a verdict of its own, with the column, the value and the limit,
also where it holds. A file without rules is held to the defaults: less than a tenth missing in
every column, one kind of values in each, and a label that is there and not always the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from stream_monitor.errors import InputError
from stream_monitor.inputs.likely_columns import likely_columns
from stream_monitor.monitors.baseline import FeatureProfile, Profile
from stream_monitor.settings import OTHER as OTHER_NAME
from stream_monitor.training.collect import manifest_path
from stream_monitor.training.own_rules import command_verdict, entry_point_verdict
from stream_monitor.training.quality_rules import RULES, Rules
from stream_monitor.training.tally import (
    NUMBER,
    OTHER,
    SWITCH,
    TEXT,
    Table,
    Tally,
    tallied,
    text_of,
)
from stream_monitor.training.verdict import Verdict

KNOWN = frozenset(("event_id", "model", "version", "timestamp"))
"""Columns of events that are no features; types and kinds of their values are not judged."""
SHOWN = 20
"""Columns that a message names."""
UNKNOWN_MAX = 0.05
"""Share of rows with categories that the reference does not know."""
FITTING = {
    "numeric": {NUMBER, SWITCH},
    "category": {TEXT, SWITCH, NUMBER},
    "text": {TEXT},
}


class Report(msgspec.Struct, frozen=True):
    """What the gate says about a file."""

    file: str
    rows: int
    passed: bool
    """Whether no rule of `fail_on` is broken."""
    verdicts: list[Verdict]
    notes: list[str]
    """What was noticed while the file was read."""


def check(
    path: Path,
    rules: Rules,
    reference: Profile | None = None,
    *,
    fail_on: Collection[str] = RULES,
) -> Report:
    """
    Judge a file by all rules.

    Parameters
    ----------
    path : Path
        CSV, JSON Lines or Parquet. A manifest of `collect` beside it is read too.
    rules : Rules
    reference : Profile, optional
        A baseline, as `baseline build` writes it.
    fail_on : collection of str
        Kinds of rules (`RULES`) that count; the others are only told.

    Raises
    ------
    InputError
        The file cannot be read.

    Notes
    -----
    docs/performance.md has rows a second. Rules that are commands run one after the other.
    """
    table = tallied(path, rules.of, rules.ignore)
    empty, notes = _of_manifest(path)
    for name in empty:
        if name not in rules.ignore and name.removeprefix("features.") not in rules.ignore:
            table.columns.setdefault(name, Tally(rules.of(name)))
    verdicts = [*_of_table(table, rules), *_of_label(table, rules)]
    for name, tally in table.columns.items():
        verdicts += _of_column(name, tally, table.rows - table.malformed, rules)
    verdicts += _of_absent(table, rules)
    if reference is not None:
        verdicts += _of_reference(table, reference)
    verdicts += [command_verdict(command, path) for command in rules.commands]
    verdicts += [entry_point_verdict(name, path) for name in rules.entry_points]
    passed = all(v.passed or v.rule not in fail_on for v in verdicts)
    return Report(str(path), table.rows, passed, verdicts, [*table.notes, *notes])


def _of_manifest(path: Path) -> tuple[list[str], list[str]]:
    """Columns without any value, and notes, by the manifest of `collect`."""
    try:
        told = json.loads(manifest_path(path).read_bytes())
        empty, holes = told.get("empty", []), len(told.get("holes", []))
    except (OSError, ValueError, AttributeError):
        return [], []
    return empty, [f"{holes} holes in the source: see the manifest"] if holes else []


def _of_table(table: Table, rules: Rules) -> Iterator[Verdict]:
    yield Verdict(
        "readable",
        None,
        not table.malformed,
        table.malformed,
        0,
        f"{_rows(table.malformed)} that cannot be read, or lack cells",
    )
    yield Verdict(
        "rows",
        None,
        table.rows >= rules.min_rows,
        table.rows,
        rules.min_rows,
        f"{_rows(table.rows)}, at least {rules.min_rows:,}",
    )


def _of_label(table: Table, rules: Rules) -> Iterator[Verdict]:
    name = rules.label
    if name is None:
        return
    if name not in table.columns and name == Rules().label:
        name = dict(likely_columns("labels", list(table.columns), frozenset())).get("label", name)
    found = table.columns.get(name)
    if found is None:
        there = ", ".join(list(table.columns)[:SHOWN]) or "none"
        there += ", …" if len(table.columns) > SHOWN else ""
        text = f"there is no such column; --label COLUMN names it; the columns are {there}"
        yield Verdict("label", name, False, None, None, text)
        return
    distinct = len(found.values)
    text = f"{distinct:,} different {'value' if distinct == 1 else 'values'}, at least 2"
    yield Verdict("label", name, distinct >= 2, distinct, 2, text)


def _rows(n: int) -> str:
    return f"{n:,} {'row' if n == 1 else 'rows'}"


def _of_column(name: str, tally: Tally, rows: int, rules: Rules) -> Iterator[Verdict]:
    rule, there = tally.rule, max(tally.there, 1)
    missing = (rows - tally.there) / rows if rows else 0.0
    limit = rules.max_missing if rule.max_missing is None else rule.max_missing
    if not rule.required:
        yield Verdict(
            "missing",
            name,
            missing < limit or missing == 0,
            missing,
            limit,
            f"{missing:.2%} of the values are missing; less than {limit:.2%} may be",
        )
    if name in KNOWN and rule.type == "auto":
        return

    def shared(kind: str, fault: str, wrong: int, what: str) -> Verdict:
        share = wrong / there
        example = tally.examples.get(fault)
        shown = "" if not wrong or example is None else f", such as {example!r}"
        return Verdict(
            kind,
            name,
            share <= rules.max_violations,
            share,
            rules.max_violations,
            f"{wrong:,} {'value' if wrong == 1 else 'values'} {what}{shown}",
        )

    kinds = _kinds(tally)
    wrong = sum(n for kind, n in tally.kinds.items() if kind not in kinds) + tally.infinite
    wrong += tally.odd + (tally.fractions if rule.type == "category" else 0)
    other = next((kind for kind in tally.kinds if kind not in kinds), "infinite")
    if other == OTHER:
        what = "that are lists or objects; --ignore leaves the column out"
    elif tally.odd or NUMBER in kinds:
        what = "that are no finite numbers"
    else:
        what = f"of another kind than {' or '.join(sorted(kinds))}"
    yield shared("type", "odd" if tally.odd else other, wrong, what)
    if rule.min is not None or rule.max is not None:
        low, high = ("…" if bound is None else f"{bound:g}" for bound in (rule.min, rule.max))
        yield shared("range", "outside", tally.outside, f"outside {low} to {high}")
    if rule.categories is not None:
        yield shared("categories", "unknown", tally.unknown, "of no known category")
    if rule.pattern is not None:
        yield shared("pattern", "mismatched", tally.mismatched, f"not of {rule.pattern}")
    if rule.unique:
        yield Verdict(
            "unique", name, not tally.repeated, tally.repeated, 0, f"{tally.repeated:,} repeated"
        )
    if rule.required:
        gone = rows - tally.there
        yield Verdict("required", name, not gone, gone, 0, f"{gone:,} values are missing")


def _kinds(tally: Tally) -> set[str]:
    """The kinds of values that fit: by its rule, otherwise that of most values."""
    if tally.rule.type != "auto":
        return FITTING[tally.rule.type]
    if tally.rule.categories is not None:
        return FITTING["category"]
    if tally.rule.min is not None or tally.rule.max is not None:
        return FITTING["numeric"]
    most = max(tally.kinds, key=lambda kind: tally.kinds[kind], default=NUMBER)
    return {most} - {OTHER} or {NUMBER, TEXT}


def _of_absent(table: Table, rules: Rules) -> Iterator[Verdict]:
    """Columns that have a rule and are not in the file."""
    there = {*table.columns, *(name.removeprefix("features.") for name in table.columns)}
    for name, rule in rules.columns.items():
        if name not in there:
            yield Verdict(
                "required" if rule.required else "missing",
                name,
                False,
                1.0,
                0 if rule.required else rules.max_missing,
                "there is no such column",
            )


def _of_reference(table: Table, reference: Profile) -> Iterator[Verdict]:
    for name, profile in reference.features.items():
        tally = table.columns.get(f"features.{name}") or table.columns.get(name)
        if tally is None:
            yield Verdict("reference", name, False, None, None, "there is no such column")
        elif profile.type == "numeric":
            yield _of_numbers(name, tally, profile)
        else:
            known = set(map(text_of, profile.categories))
            whole = OTHER_NAME not in profile.categories
            unknown = sum(n for v, n in tally.values.items() if whole and v not in known)
            share = unknown / max(tally.there, 1)
            yield Verdict(
                "reference",
                name,
                share <= UNKNOWN_MAX,
                share,
                UNKNOWN_MAX,
                f"{share:.2%} of the values are of categories that the reference has not",
            )


def _of_numbers(name: str, tally: Tally, profile: FeatureProfile) -> Verdict:
    """A mean that the reference never had is a change of unit, or a broken column."""
    numbers = tally.kinds[NUMBER] - tally.infinite
    mean = tally.total / numbers if numbers else None
    limit = [profile.min, profile.max]
    text = (
        "there are no numbers"
        if mean is None
        else (f"the mean is {mean:.6g}; the reference goes from {profile.min:g} to {profile.max:g}")
    )
    inside = mean is not None and profile.min <= mean <= profile.max
    return Verdict("reference", name, inside, mean, limit, text)


def as_fail_on(names: Collection[str]) -> tuple[str, ...]:
    """
    The kinds of rules that count.

    >>> as_fail_on(["missing", "rows"])
    ('missing', 'rows')

    Raises
    ------
    InputError
        There is no such kind.
    """
    if unknown := [name for name in names if name not in RULES]:
        raise InputError(f"--fail-on {unknown[0]}: there are {', '.join(RULES)}")
    return tuple(names) or RULES
