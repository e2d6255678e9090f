"""
A contract of data quality: what every feature may be, inferred from rows, as `features:` of
monitor.yaml.

Rule of the file: only what is nearly certain becomes a rule, so rows of the same law keep it. What
a rule rests on stands beside it as a comment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from stream_monitor.arrays import are_numbers
from stream_monitor.events.cells import BOOL, TEXT, Cells, tags
from stream_monitor.monitors.baseline import FeatureProfile, Profile
from stream_monitor.monitors.column_names import feature_name
from stream_monitor.monitors.rows import Rows, category_of, column_named
from stream_monitor.settings import OTHER, Feature
from stream_monitor.stats.inference import wilson_interval

REQUIRED_ROWS, UNIQUE_ROWS, KNOWN_VALUES, FORM_VALUES = 1_000, 1_000, 5, 500
"""
Rows without a missing value, rows without a repeated one, and different values of a known form or
of another one.
"""
RANGE_MARGIN = 0.1
"""Share of the range that is allowed at least on either side of it."""
SINGLE_SHARE = 0.001
"""Share of rows whose category occurs once: the chance of one that is not known (Good–Turing)."""
SEEN_MIN = 10
"""Times that a kind of character must be seen at a place of a fixed form."""
MISSING_Z, MISSING_MARGIN = 4.0, 0.02
FORM_MAX = 64
FORMS = {
    "a UUID": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "a date": r"\d{4}-\d{2}-\d{2}",
    "a time": r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?(Z|[+-]\d{2}:?\d{2})?",
}
KINDS = (("0-9", str.isdecimal), ("A-Z", str.isupper), ("a-z", str.islower))


class Described(NamedTuple):
    """A feature of a contract."""

    rule: Feature
    why: str


def described(rows: Sequence[Rows], profile: Profile) -> dict[str, Described]:
    """
    The rules that rows keep.

    Parameters
    ----------
    rows : sequence of Rows
    profile : Profile
        Of the same rows.

    Returns
    -------
    dict of name to Described
        O(cells).
    """
    out = {}
    for name, feature in profile.features.items():
        if feature.count:
            cells = np.concatenate([column_named(r, feature_name, name) for r in rows])
            numbers = cells[are_numbers(cells)]
            texts = [] if feature.type == "numeric" else _texts(rows, name)
            out[name] = _described(feature, numbers, texts)
    return out


def _texts(rows: Sequence[Rows], name: str) -> list[str]:
    found = []
    for part in rows:
        cells: Cells = column_named(part, feature_name, name)
        tag = tags(cells)
        there = cells[(tag == -1) | (tag == TEXT) | (tag == BOOL)]
        found += [category_of(cell, part.texts) or "" for cell in there.tolist()]
    return found


def _described(feature: FeatureProfile, numbers: Cells, texts: list[str]) -> Described:
    found: dict[str, Any] = {}
    why = [f"{feature.count:,} values"]
    if feature.type == "numeric":
        found["type"] = "numeric"
        if feature.whole and _never_twice(numbers):  # an id may go on without end
            found["unique"] = True
            why.append("none twice")
        else:
            found["min"], found["max"] = _range(numbers, whole=feature.whole)
            why.append(f"from {feature.min:g} to {feature.max:g}")
    else:
        found |= _of_texts(feature, texts, why)
    if feature.missing:
        share = feature.missing / feature.rows
        high = wilson_interval(feature.missing, feature.rows, MISSING_Z)[1] + MISSING_MARGIN
        found["max_missing"] = min(math.ceil(high * 100) / 100, 0.99)
        why.append(f"{share:.2%} missing")
    elif feature.rows >= REQUIRED_ROWS:
        found["required"] = True
        why.append("none missing")
    return Described(Feature(**found), ", ".join(why))


def _range(numbers: Cells, *, whole: bool) -> tuple[float, float]:
    """
    The range with its margins, in few digits. Numbers that were never negative stay so, and those
    that were never positive.

    The margin is a tenth of the range, or as far as the extreme value is from the one of rank √n,
    which is farther where tails are heavy. Without a margin a value of the same law would be
    outside with a chance of at most 2 / (n + 1), because the n + 1 values can be in any order.
    """
    ordered = np.sort(numbers)
    rank = math.isqrt(len(ordered))
    least, greatest = float(ordered[0]), float(ordered[-1])
    margin = (greatest - least or abs(greatest) or 1.0) * RANGE_MARGIN
    below = max(margin, float(ordered[min(rank, len(ordered) - 1)]) - least)
    above = max(margin, greatest - float(ordered[max(-1 - rank, -len(ordered))]))
    digits = 0 if whole else 1 - math.floor(math.log10(margin))
    low = _rounded(math.floor, least - below, digits)
    high = _rounded(math.ceil, greatest + above, digits)
    return max(low, 0.0) if least >= 0 else low, min(high, 0.0) if greatest <= 0 else high


def _rounded(to: Callable[[float], int], value: float, digits: int) -> float:
    """A number rounded down or up to so many digits; one that is too large for it stays."""
    scaled = value * 10.0**digits if abs(digits) < 300 else math.inf
    return to(scaled) / 10.0**digits if math.isfinite(scaled) else value


def _never_twice(numbers: Cells) -> bool:
    """
    Whether whole numbers are different because they must be: if they were drawn from their range,
    at least ten pairs would be equal.
    """
    n = len(numbers)
    if n < UNIQUE_ROWS or len(np.unique(numbers)) < n:
        return False
    return bool(n * n / (2 * (numbers.max() - numbers.min() + 1)) >= SEEN_MIN)


def _of_texts(feature: FeatureProfile, texts: list[str], why: list[str]) -> dict[str, Any]:
    """
    Categories that are all known and no dates or the like, or else a pattern and whether a value
    occurs once.
    """
    different = set(texts)
    form = form_of(different)
    is_known = form is not None and form[0] in FORMS
    counts = list(feature.categories.values())
    singles = sum(n == 1 for n in counts)
    if not is_known and OTHER not in feature.categories and singles <= SINGLE_SHARE * feature.count:
        why.append(f"{len(counts)} categories")
        return {"type": "category", "categories": tuple(sorted(feature.categories))}
    found: dict[str, Any] = {"type": "text"}
    if len(different) == len(texts) >= UNIQUE_ROWS:
        found["unique"] = True
        why.append("none twice")
    if form is not None:
        found["pattern"] = form[1]
        why.append(f"all are {form[0]}")
    return found


def form_of(values: set[str]) -> tuple[str, str] | None:
    """
    The fixed form of values, with its name: a known one, or the kind of character at each place.

    >>> form_of({f"T{i:04d}-{'abcdef'[i % 6]}" for i in range(700)})
    ('of one form', 'T[0-9]{4}-[a-z]')
    >>> form_of({"free", "text"}) is None
    True
    """
    if len(values) < KNOWN_VALUES:
        return None
    for name, pattern in FORMS.items():
        if all(re.fullmatch(pattern, value) for value in values):
            return name, pattern
    (length, *others) = {len(value) for value in values}
    if (
        len(values) < FORM_VALUES
        or others
        or not 0 < length <= FORM_MAX
        or not any(c.isdecimal() for v in values for c in v)
    ):
        return None
    places = [_place([value[i] for value in values]) for i in range(length)]
    if None in places:
        return None
    starts = [i for i in range(length) if i == 0 or places[i] != places[i - 1]]
    form = ""
    for start, end in pairwise([*starts, length]):
        form += f"{places[start]}" + (f"{{{end - start}}}" if end - start > 1 else "")
    return "of one form", form


def _place(characters: list[str]) -> str | None:
    """What is at one place of a form; None if it is not certain."""
    if len(set(characters)) == 1 and not characters[0].isdecimal():
        one = characters[0]
        return one if one.isalnum() or one in "-_/:" else re.escape(one)
    kinds = ""
    left = len(characters)
    for name, is_kind in KINDS:
        n = sum(c.isascii() and is_kind(c) for c in characters)
        if 0 < n < SEEN_MIN:
            return None
        kinds += name if n else ""
        left -= n
    return None if left or not kinds else f"[{kinds}]"


def written(model: str, features: dict[str, Described], source: str, notes: Sequence[str]) -> str:
    """
    The contract as YAML: a section of `models` with its comments.

    >>> described = {"age": Described(Feature(type="numeric", min=0.0, required=True), "9 values")}
    >>> print(written("churn", described, "train.csv", ["drift is not taken over"]))
    # Contract of train.csv. Put it into monitor.yaml, and change what you know better.
    # drift is not taken over
    models:
      churn:
        features:
          age: {type: numeric, min: 0, required: true}  # 9 values
    """
    lines = [
        f"# Contract of {source}. Put it into monitor.yaml, and change what you know better.",
        *(f"# {note}" for note in notes),
        "models:",
        f"  {_key(model)}:",
    ]
    if any(of.rule.unique for of in features.values()):
        lines += [
            "    quality:",
            "      repeated_ratio: 0.01  # alerts on features that are unique",
        ]
    lines.append("    features:" if features else "    features: {}")
    for name, of in features.items():
        given = {
            key: value
            for key in of.rule.__struct_fields__
            if (value := getattr(of.rule, key)) is not None
            and value is not False
            and value != "auto"
        }
        rules = ", ".join(f"{key}: {_value(value)}" for key, value in given.items())
        lines.append(f"      {_key(name)}: {{{rules}}}" + (f"  # {of.why}" if of.why else ""))
    return "\n".join(lines)


def _key(name: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    return (
        name if plain and name.lower() not in ("null", "true", "false", "off") else json.dumps(name)
    )


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(json.dumps, value))}]"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value if value in ("numeric", "category", "text") else json.dumps(value)
