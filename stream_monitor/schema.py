"""
The topics, as `topics/*.yaml` describe them.

Rule of the file: the YAML is the only place where a topic's settings are written; code reads them here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

REJECT_REASONS = ("invalid_json", "not_an_object", "missing_field", "wrong_type", "out_of_range", "too_large", "too_deep", "corrupt_batch", "unknown_format")
"""Why a record is a dead letter: a closed set."""


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One topic."""

    name: str
    description: str
    writer: str
    key: str
    partitions: int
    config: dict[str, str]


@cache
def topics() -> dict[str, TopicSpec]:
    """Every topic by name."""
    from ruamel.yaml import YAML

    found = {}
    for path in sorted(_folder().glob("*.yaml")):
        spec = msgspec.convert(YAML(typ="safe", pure=True).load(path.read_text("utf-8")), TopicSpec)
        found[spec.name] = spec
    return found


def _folder() -> Path:
    packaged = Path(__file__).parent / "topics"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "topics"
