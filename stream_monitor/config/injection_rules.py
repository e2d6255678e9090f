"""
The meaning of each key of the file of `replay --inject`, and which keys a kind of drift has.

Rule of the file: types and defaults are in `injection_settings.py`. The docs of the kinds are
`KINDS`; `docs/replay.md` has them (`tests/unit/test_injection.py` compares).
"""

from __future__ import annotations

from stream_monitor.config.injection_settings import Drift, Injection
from stream_monitor.config.rule import Rule

KINDS: dict[str, tuple[str, str, str]] = {
    # kind: keys it needs, further keys it has, what it does
    "shift": ("field by", "unit share", "adds `by` standard deviations (`unit: value`: as is)"),
    "scale": ("field by", "share", "multiplies by `by`: 1000 is another unit, 3 a slow server"),
    "ramp": ("field by", "unit over", "a shift that grows over `over` rows, and stays"),
    "noise": ("field by", "unit", "adds normal noise of `by` standard deviations"),
    "stuck": ("field", "value", "one value for ever: `value`, or the first"),
    "missing": ("field", "share", "null, in this share of rows"),
    "wrong_type": ("field", "share", "a text in place of a number, a list in place of others"),
    "new_level": ("field", "level share", "the category `level`"),
    "swap": ("field levels", "share", "each of two categories in place of the other"),
    "flip": ("", "of share", "another class as label, of those of class `of`"),
    "drop": ("share", "", "leaves this share of rows out, with their labels"),
}
NEEDED = {kind: needs.split() for kind, (needs, _, _) in KINDS.items()}
USED = {kind: frozenset(f"{needs} {more}".split()) for kind, (needs, more, _) in KINDS.items()}
RULES: dict[type, dict[str, Rule]] = {
    Injection: {
        "drifts": Rule("The drifts."),
        "repeats": Rule(
            "How often each drift is put in, alone, at random rows; 0: all of them once, together, "
            "each at its `at`.",
            low=0,
            high=1_000,
        ),
        "horizon": Rule(
            "Rows after the beginning of a drift in which an alarm counts as its finding.",
            low=10,
            high=100_000_000,
        ),
        "after": Rule(
            "No random place is before this row; by default a fifth more than the rows of the "
            "baseline.",
            low=0,
        ),
        "seed": Rule("Another seed, other places and other rows.", low=0),
    },
    Drift: {
        "kind": Rule("What changes."),
        "field": Rule("The field that changes.", form="field"),
        "by": Rule("How much."),
        "unit": Rule("Unit of `by`: standard deviations of the field in the file, or its own."),
        "share": Rule("Share of the rows that change.", above=0, high=1),
        "over": Rule("Rows until a ramp is whole.", low=1),
        "value": Rule("The value that is stuck; by default the first."),
        "level": Rule("The new category."),
        "levels": Rule("The two categories that change places.", form="categories"),
        "of": Rule("The class whose labels change; by default each.", form="class"),
        "only": Rule("Only rows with these values of segments or features: `{country: DE}`."),
        "model": Rule("Only rows of this model."),
        "at": Rule(
            "Where it begins: a row of the predictions (of labels, if they flip), a time, or a "
            "share of the file such as 60%."
        ),
        "for": Rule("How long it lasts: rows, or a duration such as 2h; by default to the end."),
    },
}
