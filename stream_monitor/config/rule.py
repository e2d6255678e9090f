"""
The rule of one key of `monitor.yaml`.

Rule of the file: a rule says what the type of the value does not.
"""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """
    The rule of one key.

    `low` and `high` are inclusive, `above` is not; for a duration they are ms. `form` names a form
    that is not clear from the type.
    """

    text: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    form: str = ""
