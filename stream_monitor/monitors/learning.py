"""
The baseline that is learnt from the first rows.

Rule of the file: a pure function of the rows, the settings and the limits. It does not matter how
the rows were cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stream_monitor.arrays import are_numbers
from stream_monitor.events.cells import (
    ABSENT,
    BOOL,
    NOT_FINITE,
    NULL,
    TEXT,
    TOO_BIG,
    WRONG_TYPE,
    Cells,
    class_text,
    tags,
)
from stream_monitor.monitors.baseline import FeatureProfile, category_profile, numeric_profile
from stream_monitor.monitors.rows import Rows, column_named
from stream_monitor.settings import OTHER, Limits, ModelSettings

Names = Callable[[str], str | None]
"""Name of the feature of a column; None if the column is none."""


def learn_features(
    chunks: list[Rows], names: Names, settings: ModelSettings, limits: Limits
) -> dict[str, FeatureProfile]:
    """
    Profiles of the features of rows.

    Parameters
    ----------
    chunks : list of Rows
        In the order of the log.
    names : callable
    settings : ModelSettings
        `features` has the types of features. A configured feature has a profile even if no row has
        it.
    limits : Limits
        `features` and `categories`.

    Returns
    -------
    dict of name to FeatureProfile
        In the order of the first rows that have them; without features that no row has. O(cells log
        rows).
    """
    found: dict[str, int] = {n: -1 for n in settings.features if names(f"features.{n}") == n}
    rows_before = 0
    for rows in chunks:
        for column, cells in zip(rows.columns, rows.cells, strict=True):
            name = names(column)
            if name is not None and name not in found and (there := tags(cells) != ABSENT).any():
                found[name] = rows_before + int(there.argmax())
        rows_before += len(rows.times_ms)
    first = sorted(found, key=found.__getitem__)[: limits.features]
    return {
        name: learn_feature(
            name,
            [(column_named(rows, names, name), rows.texts) for rows in chunks],
            settings,
            limits,
        )
        for name in first
    }


def learn_feature(
    name: str, parts: list[tuple[Cells, list[str]]], settings: ModelSettings, limits: Limits
) -> FeatureProfile:
    """The profile of one feature, of cells with the dictionaries of their texts."""
    cells = np.concatenate([c for c, _ in parts])
    numbers = cells[are_numbers(cells)]
    tag = tags(cells)
    missing, texts, lists, beyond = (
        int(np.isin(tag, of).sum())
        for of in ((NULL, ABSENT), (TEXT, BOOL), (WRONG_TYPE,), (NOT_FINITE, TOO_BIG))
    )
    rule = settings.features.get(name)
    kind = (
        rule.type
        if rule and rule.type != "auto"
        else "numeric"
        if len(numbers) + beyond and len(numbers) + beyond >= texts
        else "category"
    )
    if kind == "numeric":
        return numeric_profile(numbers, missing, texts + lists, beyond)
    if kind == "text" or (rule is not None and rule.unique):  # its values are not told apart
        return category_profile(
            {OTHER: texts + len(numbers)} if texts + len(numbers) else {}, missing, lists, beyond
        )
    counts: dict[str, int] = {}
    for column, names in parts:
        for cell, n in zip(*_distinct(column), strict=True):
            category = class_text(cell, names)
            if category is not None:
                counts[category] = counts.get(category, 0) + n
    return category_profile(_bounded(counts, limits.categories), missing, lists, beyond)


def _bounded(counts: dict[str, int], limit: int) -> dict[str, int]:
    """The most frequent categories, the rest together."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept, rest = dict(ranked[:limit]), sum(n for _, n in ranked[limit:])
    return kept | ({OTHER: rest} if rest else {})


def _distinct(cells: Cells) -> tuple[list[float], list[int]]:
    values, counts = np.unique(np.ascontiguousarray(cells).view(np.uint64), return_counts=True)
    return values.view(np.float64).tolist(), counts.tolist()
