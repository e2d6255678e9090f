"""
Facts about the values of a column, and whether the column can be the field whose name it has.

Rule of the file: a column is not used as a field only if hardly any of its values fit, and that is
reported. A column that was mapped by hand is always what it was mapped to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from stream_monitor.inputs.columns import Column

FITTING = 0.9
"""If less than this share of the values fit, the column is not the field."""
TEXTS_MAX = 1_000
SHOWN = 3
OBJECTS, LISTS = frozenset(("features", "segments")), frozenset(("embedding",))


class Facts:
    """
    Counts of the values of one column.

    Examples
    --------
    >>> facts = Facts.of([300, 850, None, 700])
    >>> facts.there, facts.low, facts.high, facts.outside
    (3, 300, 850, 3)
    >>> misfit("score", facts)
    'its values go from 300 to 850, and a score is a probability'
    """

    def __init__(self) -> None:
        self.there = self.missing = self.numbers = self.outside = self.negative = self.objects = (
            self.lists
        ) = 0
        self.low, self.high = math.inf, -math.inf
        self.texts: Counter[str] = Counter()

    @classmethod
    def of(cls, values: Iterable[Any]) -> Facts:
        """Facts about values in the form of JSON."""
        facts = cls()
        for value in values:
            facts.add(value)
        return facts

    @classmethod
    def of_cells(cls, column: Column) -> Facts:
        """Facts about a column of CSV."""
        facts = cls()
        facts.there, facts.outside = column.there, column.outside
        facts.numbers = column.there - column.odd - column.switches - column.infinite
        facts.low, facts.high = column.low, column.high
        facts.missing = column.empty + column.marks.total()
        for text, n in column.texts.items():
            facts.objects += n if text.lstrip()[:1] == "{" else 0
            facts.lists += n if text.lstrip()[:1] == "[" else 0
        facts.texts = column.texts
        return facts

    def add(self, value: Any) -> None:
        """Count a value."""
        kind = type(value)
        if value is None or value != value:  # noqa: PLR0124, NaN
            self.missing += 1
            return
        self.there += 1
        if kind in (int, float):
            self.numbers += 1
            self.low, self.high = min(self.low, value), max(self.high, value)
            self.outside += not -1e-6 <= value <= 1 + 1e-6
        elif kind is str:
            self.objects += value.lstrip()[:1] == "{"
            self.lists += value.lstrip()[:1] == "["
            if value in self.texts or len(self.texts) < TEXTS_MAX:
                self.texts[value] += 1
        else:
            self.objects += kind is dict
            self.lists += kind is list

    def examples(self) -> str:
        """The first texts, for a message."""
        shown = [repr(text) for text, _ in self.texts.most_common(SHOWN)]
        return ", ".join(shown) + (" …" if len(self.texts) > SHOWN else "")


def misfit(field: str, facts: Facts) -> str | None:
    """Why a column with these values cannot be this field of the event; None if it can."""
    needed = FITTING * facts.there
    if not facts.there:
        return None
    if field == "status":
        fitting = sum(facts.texts[word] for word in ("ok", "error"))
        return (
            None
            if fitting >= needed
            else f"its values are {facts.examples() or 'numbers'}, and a status is ok or error"
        )
    if field == "score":
        if facts.numbers - facts.outside + facts.objects >= needed:
            return None
        if facts.numbers:
            return (
                f"its values go from {facts.low:g} to {facts.high:g}, and a score is a probability"
            )
        return f"its values are {facts.examples()}, and a score is a probability"
    if field in OBJECTS:
        return (
            None
            if facts.objects >= needed
            else f"its values are {facts.examples() or 'numbers'}, and `{field}` is an object"
        )
    if field in LISTS:
        return (
            None
            if facts.lists >= needed
            else (
                f"its values are {facts.examples() or 'numbers'}, and `{field}` is a list of "
                "numbers"
            )
        )
    if field == "latency_ms" and facts.numbers < needed:
        return f"its values are {facts.examples()}, and a latency is a number of milliseconds"
    return None


CHECKED = frozenset(("status", "score", "latency_ms", *OBJECTS, *LISTS))
"""Fields whose columns are checked."""
