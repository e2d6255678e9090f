"""
What every settings struct is: immutable, strict, and compared by its meaning.

Rule of the file: it knows no setting. The structs are in `settings.py` and `lifecycle_settings.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

import msgspec
from msgspec import Struct


class Secret:
    """
    A text that is never shown: it prints as `***`, and cannot be pickled or written as JSON by
    accident.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> password = Secret("hush")
    >>> password, f"{password}", password.reveal()
    (***, '***', 'hush')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that passes it on."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class Frozen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A settings struct: immutable, keyword-only, strict."""


def in_order(struct: Frozen, name: str, values: Mapping[str, Any] | list[Any]) -> None:
    """
    Sort a field whose order means nothing, so that its order shows neither in state nor in alerts
    nor in the hash.
    """
    msgspec.structs.force_setattr(
        struct, name, dict(sorted(values.items())) if isinstance(values, Mapping) else tuple(values)
    )


def plain(value: Any) -> Any:
    """
    Settings as plain values, in which every number is a float. Values that equal their default are
    left out, whether somebody wrote them or not.

    msgspec leaves out a value only if it *is* the default object, so `rows: 5000` in a file would
    be kept.

    >>> class Rows(Frozen, frozen=True):
    ...     rows: int = 5_000
    ...     path: str | None = None
    >>> plain(Rows(rows=int("5000"), path="p.json")), plain(Rows())
    ({'path': 'p.json'}, {})
    >>> plain({"a": (1, True, "1", 0.5)})
    {'a': [1.0, True, '1', 0.5]}
    """
    if isinstance(value, Struct):
        found = ((f.encode_name, getattr(value, f.name), f) for f in _fields(type(value)))
        return {
            name: plain(item)
            for name, item, f in found
            if item
            != (f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory())
        }
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@cache  # msgspec reads the annotations each time
def _fields(kind: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)
