"""
The topics, as `topics/*.yaml` describe them.

Rule of the file: the YAML files are the only place with the settings of a topic and the schema of
its records. Code reads them here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

Reason = Literal[
    "invalid_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "too_large",
    "too_deep",
    "corrupt_batch",
    "unknown_format",
    "ended_worker",
]
"""Why a record is a dead letter: a closed set."""
REJECT_REASONS: tuple[Reason, ...] = get_args(Reason)
REPLICAS = 3
"""Number of replicas of every topic, if there are enough brokers."""


class Format(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The format of a value that is not JSON: a description, its version, and where it is defined.
    """

    what: str
    version: int | None = None
    defined_in: str | None = None


class TopicSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One topic: its settings, and either a JSON Schema (draft 2020-12) or a format of its values.
    """

    name: str
    description: str
    writer: str
    key: str
    partitions: int
    more_partitions: Literal["allowed", "at_creation", "never"]
    """
    Whether it may have more partitions than specified: at any time, only at its creation, or never.
    """
    config: dict[str, str]
    replicated: dict[str, str] = {}
    """Additional settings if the topic has `REPLICAS` replicas."""
    schema: dict[str, Any] | None = None
    format: Format | None = None
    headers: dict[str, Any] | None = None
    """JSON Schema of the headers, as an object of texts."""
    example: list[Any] = []
    """Records that the schema accepts (headers, if only these have a schema)."""

    def settings(self, replicas: int) -> dict[str, str]:
        """
        Settings of the topic with this number of replicas.

        >>> (
        ...     topics()["observations"].settings(3).keys()
        ...     - topics()["observations"].settings(1).keys()
        ... )
        {'min.insync.replicas'}
        """
        return self.config | (self.replicated if replicas >= REPLICAS else {})


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
