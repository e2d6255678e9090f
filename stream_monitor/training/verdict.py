"""
What one rule says about a file.

Rule of the file: a verdict stands alone: what was asked, of which column, what was found, what the
limit is.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Verdict(msgspec.Struct, frozen=True):
    """The verdict of a rule."""

    rule: str
    """One of `quality_rules.RULES`."""
    column: str | None
    """The column; the name of a command or entry point; None: the file."""
    passed: bool
    value: Any
    limit: Any
    text: str
