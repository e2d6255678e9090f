"""
Which calls have input that breaks a rule.

Rule of the file: pure functions of rows and of the rules under `features`. A learnt baseline takes
no part: each version learns its own, and two arms would be measured by different rules.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stream_monitor.arrays import Bool
from stream_monitor.events.cells import (
    ABSENT,
    BOOL,
    NOT_FINITE,
    NULL,
    TEXT,
    TOO_BIG,
    WRONG_TYPE,
    Cells,
    class_name,
    class_text,
    tags,
)
from stream_monitor.monitors.rows import Rows
from stream_monitor.settings import Feature

PREFIX = "features."
NO_RULE = Feature()


def breaks_a_rule(rows: Rows, rules: Mapping[str, Feature]) -> Bool:
    """
    Whether a feature of each row breaks a rule.

    A list or an object, and a number that is not finite or beyond 2⁵³, always do. With a rule: text
    or a boolean where numbers are expected (`type: numeric`, `min` or `max`), a number beyond `min`
    or `max`, a value that is not in `categories`, and a missing value of a feature that is
    `required`. `unique` is not counted, because it needs the other rows.

    Parameters
    ----------
    rows : Rows
    rules : mapping of name to Feature

    Returns
    -------
    (n,) bool

    Examples
    --------
    >>> rows = Rows(("features.x",), np.array([[1.0, -2.0]]), np.arange(2), [])
    >>> breaks_a_rule(rows, {"x": Feature(min=0)}).tolist()
    [False, True]
    >>> breaks_a_rule(rows, {"y": Feature(required=True)}).tolist()
    [True, True]
    """
    bad = np.zeros(len(rows.times_ms), np.bool_)
    for column, cells in zip(rows.columns, rows.cells, strict=True):
        if column.startswith(PREFIX):
            bad |= _breaks(cells, rules.get(column.removeprefix(PREFIX), NO_RULE), rows.texts)
    if any(rule.required and PREFIX + name not in rows.columns for name, rule in rules.items()):
        bad[:] = True
    return bad


def _breaks(cells: Cells, rule: Feature, texts: list[str]) -> Bool:
    tag = tags(cells)
    bad: Bool = (tag == NOT_FINITE) | (tag == TOO_BIG) | (tag == WRONG_TYPE)
    if rule.required:
        bad |= (tag == NULL) | (tag == ABSENT)
    if rule.type == "numeric" or rule.min is not None or rule.max is not None:
        bad |= (tag == TEXT) | (tag == BOOL)
    if rule.min is not None:
        bad |= cells < rule.min
    if rule.max is not None:
        bad |= cells > rule.max
    if rule.categories:
        allowed = {class_name(c) for c in rule.categories}
        different, place = np.unique(
            np.ascontiguousarray(cells).view(np.uint64), return_inverse=True
        )
        names = [class_text(c, texts) for c in different.view(np.float64).tolist()]
        bad |= np.array([n is not None and n not in allowed for n in names], np.bool_)[place]
    return bad
